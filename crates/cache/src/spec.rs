use crate::CacheError;
use std::{fmt, str::FromStr};

/// A full composition of the five choices, as text.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    text: String,
}

impl FromStr for Spec {
    type Err = CacheError;

    fn from_str(text: &str) -> Result<Self, CacheError> {
        Ok(Spec { text: text.to_owned() })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
