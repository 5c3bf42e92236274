//! A JSON object with typed access, which knows what was read of it.

use super::plausible;
use crate::ModelError;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// `null` counts as absent; a value of another type than asked for is an error that names the key.
pub(super) struct Json<'a> {
    path: &'a Path,
    /// What stands before the keys in messages, of an object within another.
    prefix: String,
    object: &'a Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Json<'a> {
    /// The object `value` of the file at `path`.
    pub(super) fn new(path: &'a Path, value: &'a Value) -> Result<Json<'a>, ModelError> {
        let object =
            value.as_object().ok_or_else(|| ModelError::format(path, "this is not a JSON object"))?;
        Ok(Json { path, prefix: String::new(), object, read: RefCell::default() })
    }

    fn find<T>(
        &self,
        key: &str,
        kind: &str,
        take: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        self.ignore(key);
        let Some(value) = self.object.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
        let wrong = || self.error(format!("`{}{key}` is {value}, not {kind}", self.prefix));
        take(value).map(Some).ok_or_else(wrong)
    }

    /// Counts a key as read.
    pub(super) fn ignore(&self, key: &str) {
        self.read.borrow_mut().insert(key.to_owned());
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// Whether the key is there and `null`.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(Value::is_null)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        self.find(key, "text", Value::as_str)
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
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
                Err(self.error(format!("`{}{key}` is {number}, not positive", self.prefix)))
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

    pub(super) fn list(&self, key: &str) -> Result<Option<&'a Vec<Value>>, ModelError> {
        self.find(key, "a list", Value::as_array)
    }

    /// A list of `count` positive numbers that must be there.
    pub(super) fn factors(&self, key: &str, count: usize) -> Result<Vec<f32>, ModelError> {
        let list = self.list(key)?.ok_or_else(|| self.missing(key))?;
        let numbers = list.iter().map(|value| value.as_f64().map(|f| f as f32).filter(|f| *f > 0.0));
        numbers.collect::<Option<Vec<f32>>>().filter(|list| list.len() == count).ok_or_else(|| {
            self.error(format!("`{}{key}` is no list of {count} positive numbers", self.prefix))
        })
    }

    /// An object within this one.
    pub(super) fn object(&self, key: &str) -> Result<Option<Json<'a>>, ModelError> {
        let object = self.find(key, "an object", Value::as_object)?;
        let prefix = format!("{}{key}.", self.prefix);
        Ok(object.map(|object| Json { path: self.path, prefix, object, read: RefCell::default() }))
    }

    /// A number of layers that can be.
    pub(super) fn layers(&self, key: &str) -> Result<usize, ModelError> {
        plausible("layers", self.required(key)?, super::MOST_LAYERS).map_err(|reason| self.error(reason))
    }

    /// The keys that were not read, as they are named in messages.
    pub(super) fn unread(&self) -> Vec<String> {
        let read = self.read.borrow();
        let keys = self.object.iter().filter(|(key, value)| !value.is_null() && !read.contains(*key));
        keys.map(|(key, _)| format!("{}{key}", self.prefix)).collect()
    }

    pub(super) fn missing(&self, key: &str) -> ModelError {
        self.error(format!("`{}{key}` is missing", self.prefix))
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> ModelError {
        ModelError::format(self.path, reason)
    }
}
