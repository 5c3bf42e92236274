use serde::{Deserialize, Serialize};
use sketchkv_cache::Spec;

/// A cache that could not be measured, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The preset that the spec was written as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The full composition.
    pub spec: String,
    /// Why, in one line.
    pub error: String,
}

impl Failure {
    /// Of `spec`, for this reason.
    pub fn of(spec: &Spec, reason: impl ToString) -> Self {
        Failure { name: spec.preset.map(str::to_owned), spec: spec.to_string(), error: reason.to_string() }
    }
}
