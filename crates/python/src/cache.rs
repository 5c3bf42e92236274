//! `Cache`: a text's KV cache under a spec and a cap.

use crate::error::Failure;
use crate::model::Model;
use crate::options;
use crate::text::{Running, Text};
use numpy::{PyArray1, PyArrayMethods, ToPyArray};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sketchkv_cache::{Cache as KvCache, Cap, Ledger, Spec};
use sketchkv_engine::{Session, SessionFile};
use sketchkv_model::Sampling;
use std::path::PathBuf;

/// The KV cache of one text, and where the text stands.
///
/// It runs with the first model that it is used with. At rest it has seen every token of the text but the newest one that the
/// model chose, which is run when the text goes on.
#[pyclass(frozen, module = "sketchkv")]
pub(crate) struct Cache {
    pub(crate) text: Text,
}

#[pymethods]
impl Cache {
    #[new]
    #[pyo3(signature = (spec = "full", bytes = None, *, seed = 0))]
    fn new(spec: &str, bytes: Option<&Bound<'_, PyAny>>, seed: u64) -> Result<Self, Failure> {
        Ok(Cache { text: Text::new(options::spec(spec, bytes)?, seed) })
    }

    /// The composition of methods, cap included, as text.
    #[getter]
    fn spec(&self, py: Python<'_>) -> Result<String, Failure> {
        self.text.with(py, |state| Ok(state.spec().to_string()))
    }

    /// Tokens that the cache has seen.
    #[getter]
    fn position(&self, py: Python<'_>) -> Result<usize, Failure> {
        self.text.with(py, |state| Ok(state.cache().map_or(0, |cache| cache.position())))
    }

    /// Tokens of the text, with those that the cache has yet to see.
    fn __len__(&self, py: Python<'_>) -> Result<usize, Failure> {
        self.text.with(py, |state| Ok(state.running().map_or(0, |running| running.generation().tokens())))
    }

    /// Bytes by what takes them, and their `total`.
    fn ledger<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>, Failure> {
        let ledger = self.text.with(py, |state| Ok(state.cache().map(|cache| cache.ledger())))?;
        Ok(ledger_dict(py, &ledger.unwrap_or_default())?)
    }

    /// Whether a token was evicted.
    #[getter]
    fn has_evicted(&self, py: Python<'_>) -> Result<bool, Failure> {
        self.text.with(py, |state| Ok(state.cache().is_some_and(|cache| cache.has_evicted())))
    }

    /// Positions, keys and values in the slots of one KV head.
    fn slots<'py>(&self, py: Python<'py>, layer: usize, kv_head: usize) -> Result<Slots<'py>, Failure> {
        let held = self.text.with(py, |state| {
            let Some(cache) = state.cache() else {
                return Err(Failure::refuse("this cache has no model yet: generate with it first"));
            };
            held(cache, layer, kv_head)
        })?;
        held.arrays(py)
    }

    /// A second text that goes on from here; pages are shared until one of the two writes to them.
    fn fork(&self, py: Python<'_>) -> Result<Cache, Failure> {
        let text = self.text.with(py, |state| {
            let (spec, seed) = (state.spec(), state.seed());
            let Some(running) = state.running() else { return Ok(Text::new(spec, seed)) };
            let owner = running.model.clone();
            let (model, generation, _) = running.alone()?;
            Ok(Text::of(owner, Session::Text(generation.fork(model)?), seed))
        })?;
        Ok(Cache { text })
    }

    /// Forgets all tokens but the first ones.
    fn truncate(&self, py: Python<'_>, tokens: usize) -> Result<(), Failure> {
        self.text.with(py, |state| {
            let Some(running) = state.running() else { return Ok(()) };
            let (model, generation, _) = running.alone()?;
            Ok(generation.truncate(model, tokens)?)
        })
    }

    /// Another cap from now on.
    fn set_cap(&self, py: Python<'_>, cap: &Bound<'_, PyAny>) -> Result<(), Failure> {
        let cap = options::cap(cap)?;
        self.text.with(py, |state| {
            let spec = Spec { cap: Cap::None, ..state.spec() };
            let Some(running) = state.running() else {
                state.set_spec(format!("{spec}{cap}").parse()?);
                return Ok(());
            };
            let model = running.model.clone();
            Ok(running.generation().set_cap(&model, cap)?)
        })
    }

    /// Writes the text and its cache to a file.
    pub(crate) fn save(&self, py: Python<'_>, path: PathBuf) -> Result<(), Failure> {
        self.text.with(py, |state| {
            let Some(Running { model, session, .. }) = state.running() else {
                return Err(Failure::refuse("there is nothing to save: this cache has no model yet"));
            };
            let mut file = SessionFile::open(&path)?;
            match session {
                Session::Text(generation) => file.save_text(model, generation)?,
                Session::Conversation(conversation) => file.save_conversation(model, conversation)?,
            }
            Ok(())
        })
    }

    /// Goes on with what was saved to a file.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, model: &Model) -> Result<Cache, Failure> {
        let session = saved(py, path, model)?;
        match session {
            Session::Text(_) => Ok(Cache { text: Text::of(model.model.clone(), session, 0) }),
            Session::Conversation(_) => {
                Err(Failure::refuse("this file holds a chat: load it with `Chat.load`"))
            }
        }
    }

    fn __repr__(&self, py: Python<'_>) -> Result<String, Failure> {
        self.text.with(py, |state| {
            let spec = state.spec();
            Ok(match state.cache() {
                None => format!("<sketchkv.Cache {spec}, no model yet>"),
                Some(cache) => {
                    format!(
                        "<sketchkv.Cache {spec}, {} tokens, {} bytes>",
                        cache.position(),
                        cache.ledger().total()
                    )
                }
            })
        })
    }
}

type Matrix<'py> = Bound<'py, numpy::PyArray2<f32>>;
pub(crate) type Slots<'py> = (Bound<'py, PyArray1<i64>>, Matrix<'py>, Matrix<'py>);

/// What the slots of one KV head hold, and how wide keys and values are.
pub(crate) struct Held {
    slots: sketchkv_cache::Slots,
    key_dim: usize,
    value_dim: usize,
}

/// The slots of one KV head, which must exist.
pub(crate) fn held(cache: &KvCache, layer: usize, kv_head: usize) -> Result<Held, Failure> {
    let layers = &cache.shape().layers;
    match layers.get(layer) {
        Some(shape) if kv_head < shape.kv_heads => Ok(Held {
            slots: cache.slots(layer, kv_head),
            key_dim: shape.key_dim,
            value_dim: shape.value_dim,
        }),
        shape => Err(Failure::refuse(format!(
            "there is no KV head {kv_head} in layer {layer}: the model has {} layers{}",
            layers.len(),
            shape.map_or(String::new(), |shape| format!(", this one {} KV heads", shape.kv_heads))
        ))),
    }
}

impl Held {
    /// Positions `[slots]`, keys `[slots][key_dim]` and values `[slots][value_dim]`.
    pub(crate) fn arrays(self, py: Python<'_>) -> Result<Slots<'_>, Failure> {
        let count = self.slots.positions.len();
        let positions: Vec<i64> = self.slots.positions.iter().map(|&position| position as i64).collect();
        Ok((
            positions.to_pyarray(py),
            self.slots.keys.to_pyarray(py).reshape([count, self.key_dim])?,
            self.slots.values.to_pyarray(py).reshape([count, self.value_dim])?,
        ))
    }
}

/// What a session's file holds, which must exist.
pub(crate) fn saved(py: Python<'_>, path: PathBuf, model: &Model) -> Result<Session, Failure> {
    if !path.exists() {
        return Err(Failure::refuse(format!("there is no session {}", path.display())));
    }
    py.detach(|| {
        let mut file = SessionFile::open(&path)?;
        let session = file.load(&model.model, Sampling::default())?;
        session.ok_or_else(|| Failure::refuse(format!("the session {} is empty", path.display())))
    })
}

pub(crate) fn ledger_dict<'py>(py: Python<'py>, ledger: &Ledger) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, bytes) in ledger.items() {
        dict.set_item(name, bytes)?;
    }
    dict.set_item("total", ledger.total())?;
    Ok(dict)
}
