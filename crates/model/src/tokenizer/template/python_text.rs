//! `str(value)` and `repr(value)` as Python writes them.

use super::lists::View;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use std::fmt::Write;

/// The deepest nesting that is written out.
pub(super) const DEEPEST: usize = 128;

/// `str(value)`; nothing for an undefined value, as in Jinja. Refuses what is nested too deep.
pub(super) fn str(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Undefined => Ok(value.to_string()),
        _ => repr(value),
    }
}

/// `repr(value)`. Refuses what is nested too deep.
pub(super) fn repr(value: &Value) -> Result<String, Error> {
    nested(value, 0)
}

fn nested(value: &Value, depth: usize) -> Result<String, Error> {
    Ok(match value.kind() {
        _ if depth > DEEPEST => {
            let reason = format!("a value nested more than {DEEPEST} levels deep");
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
        ValueKind::Undefined => "Undefined".into(),
        ValueKind::String => repr_text(value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => {
            f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
        }
        ValueKind::Map => {
            let pair = |(k, v)| Ok(format!("{}: {}", nested(&k, depth + 1)?, nested(&v, depth + 1)?));
            bracketed("{", "}", &pairs(value).map(pair).collect::<Result<Vec<_>, Error>>()?)
        }
        ValueKind::Seq | ValueKind::Iterable => repr_sequence(value, depth + 1)?,
        _ => value.to_string(),
    })
}

/// The entries of a map, in their order.
pub(super) fn pairs(map: &Value) -> impl Iterator<Item = (Value, Value)> {
    map.as_object().and_then(|object| object.try_iter_pairs()).into_iter().flatten()
}

/// `repr` of a float: the shortest digits that read back, with an exponent where it is below -4 or above 15.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>().unwrap_or_default() {
        exponent @ (..-4 | 16..) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{number:?}"),
    }
}

fn repr_sequence(value: &Value, depth: usize) -> Result<String, Error> {
    if let Some(view) = value.downcast_object_ref::<View>() {
        return Ok(format!("{}({})", view.name, repr_sequence(&view.items.clone().into(), depth)?));
    }
    let Ok(items) = value.try_iter() else { return Ok(value.to_string()) };
    let items = items.map(|item| nested(&item, depth)).collect::<Result<Vec<_>, Error>>()?;
    Ok(match (value.is_tuple(), items.as_slice()) {
        (true, [one]) => format!("({one},)"),
        (true, _) => bracketed("(", ")", &items),
        (false, _) => bracketed("[", "]", &items),
    })
}

fn bracketed(open: &str, close: &str, items: &[String]) -> String {
    format!("{open}{}{close}", items.join(", "))
}

fn repr_text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if c == quote => out.extend(['\\', c]),
            _ if is_printable(c) => out.push(c),
            _ => push_escape(&mut out, c),
        }
    }
    out.push(quote);
    out
}

fn push_escape(out: &mut String, c: char) {
    let code = c as u32;
    let written = match code {
        ..=0xff => write!(out, "\\x{code:02x}"),
        0x100..=0xffff => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
    debug_assert!(written.is_ok());
}

/// `str.isprintable`. Rust's `escape_debug` goes by the same categories; the space before `c` keeps it from escaping
/// combining marks as well.
fn is_printable(c: char) -> bool {
    let text: String = [' ', c].into_iter().collect();
    c == '\'' || c == '"' || !text.escape_debug().any(|c| c == '\\')
}
