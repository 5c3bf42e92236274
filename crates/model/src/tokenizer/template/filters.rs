//! Filters, tests and globals in which minijinja differs from Jinja as transformers sets it up.

use super::strings::is_space;
use super::{python_json, python_text};
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// Sets the environment's filters, tests and globals right.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", python_text::str);
    environment.add_filter("trim", trim);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_test("sequence", is_sequence);
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    // Jinja knows none of these, or makes another text of it.
    for name in ["attr", "bool", "chain", "lines", "pprint", "split", "zip"] {
        environment.remove_filter(name);
    }
    for name in ["endingwith", "startingwith"] {
        environment.remove_test(name);
    }
    environment.remove_global("debug");
}

/// What has a length and items by key.
fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::String | ValueKind::Undefined
    )
}

fn trim(value: &Value, characters: Option<&str>) -> Result<String, Error> {
    let goes = |c: char| characters.map_or_else(|| is_space(c), |characters| characters.contains(c));
    Ok(python_text::str(value)?.trim_matches(goes).to_owned())
}

/// `int(value, default=0, base=10)`: what is no number becomes the default.
fn int(
    state: &State,
    value: Value,
    default: Option<Value>,
    base: Option<u32>,
    named: Kwargs,
) -> Result<Value, Error> {
    let default = default.or(named.get("default")?).unwrap_or_else(|| 0.into());
    minijinja::filters::int(state, &without_spaces(value), Some(default), base, named)
}

/// `float(value, default=0.0)`: what is no number becomes the default.
fn float(state: &State, value: Value, default: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let default = default.or(named.get("default")?).unwrap_or_else(|| 0.0.into());
    minijinja::filters::float(state, &without_spaces(value), Some(default), named)
}

fn without_spaces(value: Value) -> Value {
    value.as_str().map(|text| text.trim_matches(is_space).into()).unwrap_or(value)
}

/// `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
fn to_json(
    value: &Value,
    ensure_ascii: Option<Value>,
    indent: Option<Value>,
    separators: Option<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let argument = |given: Option<Value>, name| -> Result<Option<Value>, Error> {
        Ok(given.or(named.get::<Option<Value>>(name)?).filter(|value| !value.is_none()))
    };
    let ensure_ascii = argument(ensure_ascii, "ensure_ascii")?;
    let indent = argument(indent, "indent")?.map(indentation).transpose()?;
    let separators = argument(separators, "separators")?;
    let sort_keys = argument(None, "sort_keys")?;
    named.assert_all_used()?;
    let (item_separator, key_separator) = match separators {
        Some(given) => separator_pair(&given)?,
        // Python ends lines without a blank.
        None => (if indent.is_some() { "," } else { ", " }.into(), ": ".into()),
    };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let (ensure_ascii, sort_keys) = (is_true(ensure_ascii), is_true(sort_keys));
    let style = python_json::Style { ensure_ascii, indent, item_separator, key_separator, sort_keys };
    python_json::dumps(value, &style).map(Value::from)
}

fn indentation(indent: Value) -> Result<String, Error> {
    match indent.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Ok(" ".repeat(i64::try_from(indent)?.clamp(0, 64) as usize)),
    }
}

fn separator_pair(given: &Value) -> Result<(String, String), Error> {
    let texts: Vec<_> = given.try_iter()?.filter_map(|text| text.as_str().map(str::to_owned)).collect();
    <[String; 2]>::try_from(texts).map(|[item, key]| (item, key)).map_err(|_| {
        Error::new(ErrorKind::InvalidOperation, "tojson takes two separators, of items and of keys")
    })
}
