//! `json.dumps`, whose output chat templates were trained with.

use super::lists::View;
use super::python_text::{self, DEEPEST};
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use std::fmt::Write;

/// The arguments of `json.dumps` that templates give.
pub(super) struct Style {
    pub(super) ensure_ascii: bool,
    /// One level of indentation; all on one line when None.
    pub(super) indent: Option<String>,
    pub(super) item_separator: String,
    pub(super) key_separator: String,
    pub(super) sort_keys: bool,
}

/// `json.dumps(value)` in a style.
pub(super) fn dumps(value: &Value, style: &Style) -> Result<String, Error> {
    let mut writer = Writer { out: String::new(), style };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct Writer<'a> {
    out: String,
    style: &'a Style,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEEPEST {
            return Err(refused(format!("JSON nested more than {DEEPEST} levels deep")));
        }
        match value.kind() {
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Map => self.map(value, depth)?,
            ValueKind::Iterable if value.downcast_object_ref::<View>().is_some() => {
                return Err(refused(format!("{value} is not JSON serializable")));
            }
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            _ => self.out.push_str(&scalar(value)?),
        }
        Ok(())
    }

    fn list(&mut self, list: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for item in list.try_iter()? {
            self.next(empty, depth + 1);
            empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(empty, depth, ']');
        Ok(())
    }

    fn map(&mut self, map: &Value, depth: usize) -> Result<(), Error> {
        let mut pairs: Vec<(Value, Value)> = python_text::pairs(map).collect();
        if self.style.sort_keys {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.out.push('{');
        for (at, (key, value)) in pairs.iter().enumerate() {
            self.next(at == 0, depth + 1);
            self.key(key)?;
            self.out.push_str(&self.style.key_separator);
            self.value(value, depth + 1)?;
        }
        self.close(pairs.is_empty(), depth, '}');
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<(), Error> {
        match key.kind() {
            ValueKind::String => self.text(key.as_str().unwrap_or_default()),
            ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                let key = scalar(key)?;
                self.text(&key);
            }
            other => return Err(refused(format!("keys must be str, int, float, bool or None, not {other}"))),
        }
        Ok(())
    }

    /// Goes to the place of the next element.
    fn next(&mut self, first: bool, depth: usize) {
        if !first {
            self.out.push_str(&self.style.item_separator);
        }
        self.line(depth);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                _ if c < ' ' || self.style.ensure_ascii && !(' '..='~').contains(&c) => self.escape(c),
                _ => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn escape(&mut self, c: char) {
        for unit in c.encode_utf16(&mut [0; 2]) {
            let written = write!(self.out, "\\u{unit:04x}");
            debug_assert!(written.is_ok());
        }
    }
}

fn scalar(value: &Value) -> Result<String, Error> {
    Ok(match value.kind() {
        ValueKind::None => "null".into(),
        ValueKind::Bool => if value.is_true() { "true" } else { "false" }.into(),
        ValueKind::Number if value.is_integer() => value.to_string(),
        ValueKind::Number => match f64::try_from(value.clone())? {
            number if number.is_nan() => "NaN".into(),
            number if number.is_infinite() => if number > 0.0 { "Infinity" } else { "-Infinity" }.into(),
            number => python_text::float(number),
        },
        ValueKind::Undefined => {
            return Err(refused("Object of type Undefined is not JSON serializable".into()));
        }
        other => return Err(refused(format!("a {other} is not JSON serializable"))),
    })
}

fn refused(reason: String) -> Error {
    Error::new(ErrorKind::BadSerialization, reason)
}
