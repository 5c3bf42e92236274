//! Keyword arguments as the engine takes them.

use crate::error::Failure;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use sketchkv_cache::{Cap, Spec};
use sketchkv_engine::GenerateOptions;
use sketchkv_model::{Activations, LoadOptions, Sampling, WeightFormat};

/// How tokens are chosen, and when a text ends.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) sampling: Sampling,
    /// Whether a seed was given: random numbers begin anew then.
    pub(crate) seeded: bool,
    pub(crate) generate: GenerateOptions,
    pub(crate) speculate: Speculate,
}

/// Whether what comes next is guessed, for the model to check several tokens at once.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Speculate {
    Off,
    /// In the text so far.
    #[default]
    Lookup,
}

impl Options {
    /// Reads `**options`.
    pub(crate) fn read(given: Option<&Bound<'_, PyDict>>) -> PyResult<Options> {
        let mut options = Options { sampling: Sampling::default(), ..Options::default() };
        let Options { sampling, seeded, generate, speculate } = &mut options;
        for (name, value) in given.into_iter().flatten() {
            match name.extract::<String>()?.as_str() {
                "temperature" => sampling.temperature = value.extract()?,
                "top_k" => sampling.top_k = value.extract()?,
                "top_p" => sampling.top_p = value.extract()?,
                "min_p" => sampling.min_p = value.extract()?,
                "repetition_penalty" => sampling.repetition_penalty = value.extract()?,
                "repetition_window" => sampling.repetition_window = value.extract()?,
                "seed" => {
                    if let Some(seed) = value.extract()? {
                        (sampling.seed, *seeded) = (seed, true);
                    }
                }
                "max_tokens" => generate.max_tokens = value.extract()?,
                "stop" => generate.stop = texts(&value)?,
                "ignore_end" => generate.ignore_end = value.extract()?,
                "show_special" => generate.show_special = value.extract()?,
                "speculate" => {
                    *speculate = match value.extract::<String>()?.as_str() {
                        "auto" | "lookup" => Speculate::Lookup,
                        "off" => Speculate::Off,
                        other => {
                            return Err(PyValueError::new_err(format!(
                                "speculate is \"auto\", \"lookup\" or \"off\", not {other:?}"
                            )));
                        }
                    }
                }
                unknown => {
                    return Err(PyTypeError::new_err(format!(
                        "there is no option `{unknown}`: the options are max_tokens, stop, temperature, top_k, top_p, min_p, \
                         repetition_penalty, repetition_window, seed, ignore_end, show_special and speculate"
                    )));
                }
            }
        }
        Ok(options)
    }
}

/// One text, or several.
pub(crate) fn texts(value: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    match value.cast::<PyString>() {
        Ok(text) => Ok(vec![text.extract()?]),
        Err(_) => value.extract(),
    }
}

/// A cap: bytes as a number, or a text as after the `@` of a spec.
pub(crate) fn cap(value: &Bound<'_, PyAny>) -> Result<Cap, Failure> {
    if value.is_none() {
        return Ok(Cap::None);
    }
    if let Ok(text) = value.extract::<String>() {
        return Ok(text.trim_start_matches('@').parse()?);
    }
    let bytes: usize = value.extract().map_err(|_| {
        PyTypeError::new_err("a cap is a number of bytes, or a text as \"64MiB\", \"25%\" or \"512tok\"")
    })?;
    if bytes == 0 {
        return Err(PyValueError::new_err(
            "a cap of 0 bytes holds nothing: give at least what one token takes",
        )
        .into());
    }
    Ok(Cap::Bytes(bytes))
}

/// A spec, with a cap of its own or one beside it.
pub(crate) fn spec(text: &str, beside: Option<&Bound<'_, PyAny>>) -> Result<Spec, Failure> {
    let Some(beside) = beside else { return Ok(text.parse()?) };
    if text.contains('@') {
        return Err(
            PyValueError::new_err(format!("`{text}` has a cap already: leave the other one out")).into()
        );
    }
    Ok(format!("{text}{}", cap(beside)?).parse()?)
}

/// How weights are held and multiplied, by name.
pub(crate) fn weights(name: &str) -> PyResult<LoadOptions> {
    let options = LoadOptions::default();
    Ok(match name {
        "native" => options,
        "fast" => LoadOptions { activations: Activations::Bits8, ..options },
        "f32" => LoadOptions { weights: WeightFormat::F32, ..options },
        "q8" => LoadOptions { weights: WeightFormat::Q8, ..options },
        _ => {
            return Err(PyValueError::new_err(format!(
                "weights are \"native\" (as in the file), \"fast\" (with coarser activations), \"f32\" or \"q8\", not {name:?}"
            )));
        }
    })
}
