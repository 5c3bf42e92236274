//! `Chat`: a conversation over one cache.

use crate::cache::{Cache, saved};
use crate::error::Failure;
use crate::model::Model;
use crate::options::Options;
use crate::stream::Stream;
use crate::text::{Text, conversation, sample_by};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sketchkv_cache::{Cache as KvCache, Spec};
use sketchkv_engine::{Conversation, Generation, Session};
use sketchkv_model::{Sampler, Sampling};
use std::path::PathBuf;

/// A conversation by the model's chat template; each turn feeds only what is new.
#[pyclass(frozen, module = "sketchkv")]
pub(crate) struct Chat {
    text: Text,
}

impl Chat {
    pub(crate) fn new(
        model: &Model,
        spec: &Spec,
        system: Option<String>,
        seed: u64,
    ) -> Result<Self, Failure> {
        let model = model.model.clone();
        if !model.tokenizer().has_chat_template() {
            return Err(Failure::refuse(format!(
                "{} brings no chat template: continue text with `generate`, or load an instruct model, for instance \
                 Model.pull(\"smollm2-135m\")",
                model.config().name
            )));
        }
        let cache = KvCache::new(model.cache_shape(), spec, seed)?;
        let sampler = Sampler::new(Sampling { seed, ..Sampling::default() })?;
        let mut conversation = Conversation::new(Generation::new(cache, sampler));
        conversation.set_system(system);
        Ok(Chat { text: Text::of(model, Session::Conversation(conversation), seed) })
    }
}

#[pymethods]
impl Chat {
    /// Says something; the answer.
    #[pyo3(signature = (text, **options))]
    fn ask(
        &self,
        py: Python<'_>,
        text: &str,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<String, Failure> {
        self.stream(py, text, options)?.complete(py)
    }

    /// Says something; the answer as it comes.
    #[pyo3(signature = (text, **options))]
    fn stream(
        &self,
        py: Python<'_>,
        text: &str,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Stream, Failure> {
        let options = Options::read(options)?;
        let begun = self.text.with(py, |state| {
            let over = || Failure::refuse("this chat has come to its end: begin another one");
            let running = state.running().ok_or_else(over)?;
            running.speculate(options.speculate);
            let (model, conversation) = conversation(running).ok_or_else(over)?;
            sample_by(conversation.generation(), &options)?;
            let limit = Some(model.config().context);
            conversation.ask(model, text, limit, &options.generate)?;
            Ok(state.begin())
        })?;
        Ok(Stream::new(self.text.clone(), begun))
    }

    /// Begins anew with the same instruction.
    fn reset(&self, py: Python<'_>) -> Result<(), Failure> {
        self.text.with(py, |state| {
            if let Some((_, conversation)) = state.running().and_then(conversation) {
                conversation.reset();
            }
            state.begin();
            Ok(())
        })
    }

    /// The cache: its ledger, its cap.
    #[getter]
    fn cache(&self) -> Cache {
        Cache { text: self.text.clone() }
    }

    /// Writes the conversation and its cache to a file.
    fn save(&self, py: Python<'_>, path: PathBuf) -> Result<(), Failure> {
        self.cache().save(py, path)
    }

    /// Goes on with the conversation in a file.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, model: &Model) -> Result<Chat, Failure> {
        match saved(py, path, model)? {
            session @ Session::Conversation(_) => {
                Ok(Chat { text: Text::of(model.model.clone(), session, 0) })
            }
            Session::Text(_) => Err(Failure::refuse("this file holds a text: load it with `Cache.load`")),
        }
    }
}
