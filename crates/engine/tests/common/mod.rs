//! What the tests of this crate share is what those of the model share.

#[path = "../../../model/tests/common/mod.rs"]
mod model;

#[allow(unused_imports, reason = "each test file uses some of it")]
pub(crate) use model::*;
