//! Methods of Python's lists, tuples and dictionaries.

use super::python_text;
use super::strings::no_arguments;
use minijinja::value::{Tuple, from_args};
use minijinja::{Error, ErrorKind, Value};

/// Methods that change a value, which transformers' sandbox refuses.
const CHANGING: [&str; 11] =
    ["append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault", "sort", "update"];

/// The method `name` of a sequence; None when it is not one of those here.
pub(super) fn list_method(list: &Value, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    refuse_changes(name)?;
    Ok(Some(match name {
        "index" => index(list, arguments)?,
        "count" => {
            let (wanted,): (&Value,) = from_args(arguments)?;
            list.try_iter()?.filter(|item| item == wanted).count().into()
        }
        "copy" => no_arguments(arguments).map(|()| list.clone())?,
        _ => return Ok(None),
    }))
}

/// The method `name` of a dictionary; None when it is not one of those here.
pub(super) fn map_method(map: &Value, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    refuse_changes(name)?;
    Ok(Some(match name {
        "copy" => no_arguments(arguments).map(|()| map.clone())?,
        _ => return Ok(None),
    }))
}

fn refuse_changes(name: &str) -> Result<(), Error> {
    if CHANGING.contains(&name) {
        let reason = format!("access to attribute '{name}' is unsafe: templates change no values");
        return Err(Error::new(ErrorKind::InvalidOperation, reason));
    }
    Ok(())
}

fn index(list: &Value, arguments: &[Value]) -> Result<Value, Error> {
    let (wanted, from): (&Value, Option<usize>) = from_args(arguments)?;
    let found = list.try_iter()?.enumerate().skip(from.unwrap_or(0)).find(|(_, item)| item == wanted);
    let missing = || Error::new(ErrorKind::InvalidOperation, format!("{} is not in list", python_text::repr(wanted)));
    found.map(|(at, _)| at.into()).ok_or_else(missing)
}
