//! The extension module `sketchkv._sketchkv`: the engine behind Python's names.
//!
//! Nothing is decided here: arguments become the engine's, the engine's words become exceptions. Whatever takes long runs
//! detached from the interpreter, in pieces, and asks for signals between them.

mod attention;
mod cache;
mod chat;
mod error;
mod evaluation;
mod interrupt;
mod model;
mod options;
mod sketches;
mod stream;
mod text;
mod vectors;

use pyo3::prelude::*;

#[pymodule]
mod _sketchkv {
    #[pymodule_export]
    use crate::attention::AttentionCaches;
    #[pymodule_export]
    use crate::cache::Cache;
    #[pymodule_export]
    use crate::chat::Chat;
    #[pymodule_export]
    use crate::error::{Error, SpecError};
    #[pymodule_export]
    use crate::evaluation::{advise, compare};
    #[pymodule_export]
    use crate::model::Model;
    #[pymodule_export]
    use crate::sketches::{CountMin, CountSketch};
    #[pymodule_export]
    use crate::stream::Stream;
    #[pymodule_export]
    use crate::vectors::{Race, SimHash, hamming};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
