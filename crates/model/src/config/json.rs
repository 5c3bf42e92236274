//! A JSON object with typed access, which knows what was read of it.

use super::plausible;
use crate::ModelError;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// `null` counts as absent; a value of another type than asked for is an error that names the key.
pub(crate) struct Json<'a> {
    path: &'a Path,
    /// What stands before the keys in messages, of an object within another.
    prefix: String,
    object: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
    /// Remarks a user should see.
    notes: RefCell<Vec<String>>,
}

impl<'a> Json<'a> {
    /// The object `value` of the file at `path`.
    pub(crate) fn new(path: &'a Path, value: &'a Value) -> Result<Json<'a>, ModelError> {
        let object =
            value.as_object().ok_or_else(|| ModelError::format(path, "this is not a JSON object"))?;
        Ok(Json { path, prefix: String::new(), object, read: RefCell::default(), notes: RefCell::default() })
    }

    fn find<T>(
        &self,
        key: &str,
        kind: &str,
        take: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        self.ignore(key);
        let Some(value) = self.object.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
        let wrong = || self.error(format!("{} is {value}, not {kind}", self.name(key)));
        take(value).map(Some).ok_or_else(wrong)
    }

    /// Counts a key as read.
    pub(crate) fn ignore(&self, key: &str) {
        self.read.borrow_mut().insert(key.to_owned());
    }

    /// Takes back that a key was read.
    pub(super) fn forget(&self, key: &str) {
        self.read.borrow_mut().remove(key);
    }

    pub(crate) fn note(&self, note: String) {
        self.notes.borrow_mut().push(note);
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    /// A key as it is named in messages.
    pub(crate) fn name(&self, key: &str) -> String {
        format!("`{}{key}`", self.prefix)
    }

    /// The keys that say something which `other` does not say.
    pub(super) fn beyond(&self, other: &Json<'_>) -> impl Iterator<Item = &'a String> {
        let said = |key: &str, value: &Value| {
            value.is_null()
                || other.object.get(key) == Some(value)
                || key == "rope_type" && value == "default"
        };
        self.object.iter().filter(move |(key, value)| !said(key, value)).map(|(key, _)| key)
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// Whether the key is there and `null`.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(Value::is_null)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        self.find(key, "text", Value::as_str)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.find(key, "true or false", Value::as_bool)
    }

    /// A finite number.
    pub(super) fn float(&self, key: &str) -> Result<Option<f32>, ModelError> {
        let finite = |value: &Value| value.as_f64().map(|f| f as f32).filter(|f| f.is_finite());
        self.find(key, "a number", finite)
    }

    pub(super) fn positive(&self, key: &str) -> Result<Option<f32>, ModelError> {
        match self.float(key)? {
            Some(number) if number <= 0.0 => {
                Err(self.error(format!("{} is {number}, not positive", self.name(key))))
            }
            number => Ok(number),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<usize>, ModelError> {
        self.find(key, "a whole number", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    pub(super) fn required(&self, key: &str) -> Result<usize, ModelError> {
        self.number(key)?.ok_or_else(|| self.missing(key))
    }

    /// A positive number that must be there.
    pub(super) fn factor(&self, key: &str) -> Result<f32, ModelError> {
        self.positive(key)?.ok_or_else(|| self.missing(key))
    }

    /// The id of a token.
    pub(crate) fn id(&self, key: &str) -> Result<Option<u32>, ModelError> {
        self.find(key, "the id of a token", id)
    }

    /// The ids of one token or several.
    pub(crate) fn ids(&self, key: &str) -> Result<Vec<u32>, ModelError> {
        let ids = |value: &Value| match value {
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        Ok(self.find(key, "the id of a token or a list of ids", ids)?.unwrap_or_default())
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<&'a Vec<Value>>, ModelError> {
        self.find(key, "a list", Value::as_array)
    }

    /// Text, or what `choose` finds in a list.
    pub(crate) fn text_or_list(
        &self,
        key: &str,
        choose: impl Fn(&[Value]) -> Option<String>,
    ) -> Result<Option<String>, ModelError> {
        let take = |value: &Value| match value {
            Value::Array(list) => choose(list),
            value => value.as_str().map(str::to_owned),
        };
        self.find(key, "text or a list of named texts", take)
    }

    /// A list of `count` positive numbers that must be there.
    pub(super) fn factors(&self, key: &str, count: usize) -> Result<Vec<f32>, ModelError> {
        let list = self.list(key)?.ok_or_else(|| self.missing(key))?;
        let numbers = list.iter().map(|value| value.as_f64().map(|f| f as f32).filter(|f| *f > 0.0));
        numbers
            .collect::<Option<Vec<f32>>>()
            .filter(|list| list.len() == count)
            .ok_or_else(|| self.error(format!("{} is no list of {count} positive numbers", self.name(key))))
    }

    /// An object within this one.
    pub(super) fn object(&self, key: &str) -> Result<Option<Json<'a>>, ModelError> {
        let object = self.find(key, "an object", Value::as_object)?;
        let prefix = format!("{}{key}.", self.prefix);
        Ok(object.map(|object| Json {
            path: self.path,
            prefix,
            object,
            read: RefCell::default(),
            notes: RefCell::default(),
        }))
    }

    /// A number of layers that can be.
    pub(super) fn layers(&self, key: &str) -> Result<usize, ModelError> {
        plausible(super::LAYERS, self.required(key)?, super::MOST_LAYERS).map_err(|reason| self.error(reason))
    }

    /// The keys that were not read, as they are named in messages.
    pub(super) fn unread(&self) -> Vec<String> {
        self.unread_values().map(|(key, _)| format!("{}{key}", self.prefix)).collect()
    }

    /// What was not read.
    pub(crate) fn unread_values(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        let read = self.read.borrow().clone();
        self.object.iter().filter(move |(key, value)| !value.is_null() && !read.contains(*key))
    }

    pub(super) fn missing(&self, key: &str) -> ModelError {
        self.error(format!("{} is missing", self.name(key)))
    }

    pub(crate) fn error(&self, reason: impl Into<String>) -> ModelError {
        ModelError::format(self.path, reason)
    }
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
