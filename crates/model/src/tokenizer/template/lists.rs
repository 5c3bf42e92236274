//! Methods of Python's lists, tuples and dictionaries.

use super::python_text;
use super::strings::no_arguments;
use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, from_args};
use minijinja::{Error, ErrorKind, Value};
use std::fmt;
use std::sync::Arc;

/// Methods that change a value, which transformers' sandbox refuses.
const CHANGING: [&str; 11] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
];

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
        "items" => {
            let entry = |(key, value)| Value::from(Tuple::from([key, value]));
            no_arguments(arguments).map(|()| View::of("dict_items", python_text::pairs(map).map(entry)))?
        }
        "keys" => no_arguments(arguments)
            .map(|()| View::of("dict_keys", python_text::pairs(map).map(|(key, _)| key)))?,
        "values" => no_arguments(arguments)
            .map(|()| View::of("dict_values", python_text::pairs(map).map(|(_, value)| value)))?,
        _ => return Ok(None),
    }))
}

/// What `items`, `keys` and `values` give in Python: neither a list nor JSON.
#[derive(Debug)]
pub(super) struct View {
    pub(super) name: &'static str,
    pub(super) items: Vec<Value>,
}

impl View {
    fn of(name: &'static str, items: impl Iterator<Item = Value>) -> Value {
        Value::from_object(View { name, items: items.collect() })
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An error here would be a panic: what cannot be written out is left out.
        let items = python_text::repr(&self.items.clone().into()).unwrap_or_else(|_| "...".into());
        write!(f, "{}({items})", self.name)
    }
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
    let missing = || Error::new(ErrorKind::InvalidOperation, "the value is not in the list");
    found.map(|(at, _)| at.into()).ok_or_else(missing)
}
