//! `Stream`: a text as it comes.

use crate::cache::Cache;
use crate::error::Failure;
use crate::text::Text;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sketchkv_engine::Finish;
use std::sync::{Mutex, PoisonError};

/// An iterator over pieces of text that are certain, as the model makes them.
#[pyclass(frozen, module = "sketchkv")]
pub(crate) struct Stream {
    text: Text,
    begun: u64,
    shown: Mutex<Shown>,
}

/// What has come so far.
#[derive(Default, Clone)]
struct Shown {
    text: String,
    tokens: Vec<u32>,
    finish: Option<Finish>,
}

impl Stream {
    pub(crate) fn new(text: Text, begun: u64) -> Self {
        Stream { text, begun, shown: Mutex::default() }
    }

    fn shown(&self) -> Shown {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The next piece; `None` at the end.
    pub(crate) fn piece(&self, py: Python<'_>) -> Result<Option<String>, Failure> {
        while let Some(step) = self.text.step(py, self.begun)? {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            shown.text += &step.text;
            shown.tokens.extend(step.token);
            shown.finish = step.finish;
            if !step.text.is_empty() {
                return Ok(Some(step.text));
            }
        }
        Ok(None)
    }
}

#[pymethods]
impl Stream {
    fn __iter__(stream: PyRef<'_, Self>) -> PyRef<'_, Self> {
        stream
    }

    fn __next__(&self, py: Python<'_>) -> Result<Option<String>, Failure> {
        self.piece(py)
    }

    /// Runs to the end; the whole text.
    pub(crate) fn complete(&self, py: Python<'_>) -> Result<String, Failure> {
        while self.piece(py)?.is_some() {}
        Ok(self.shown().text)
    }

    /// The text so far.
    #[getter]
    fn text(&self) -> String {
        self.shown().text
    }

    /// The tokens chosen so far.
    #[getter]
    fn tokens(&self) -> Vec<u32> {
        self.shown().tokens
    }

    /// Why it ended, once it has.
    #[getter]
    fn finish(&self) -> Option<&'static str> {
        self.shown().finish.map(|finish| match finish {
            Finish::End => "end",
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Context => "context",
            Finish::Interrupted => "interrupted",
        })
    }

    /// The cache it runs over.
    #[getter]
    fn cache(&self) -> Cache {
        Cache { text: self.text.clone() }
    }

    /// Tokens, and tokens per second, of prompt and answer.
    fn timing<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>, Failure> {
        let timing =
            self.text.with(py, |state| Ok(state.running().map(|running| running.generation().timing())))?;
        let timing = timing.unwrap_or_default();
        let dict = PyDict::new(py);
        dict.set_item("prefill_tokens", timing.prefill_tokens)?;
        dict.set_item("prefill_tps", timing.prefill_rate())?;
        dict.set_item("decode_tokens", timing.decode_tokens)?;
        dict.set_item("decode_tps", timing.decode_rate())?;
        Ok(dict)
    }
}
