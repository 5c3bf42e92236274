//! `Model`: loaded, ready to run.

use crate::cache::Cache;
use crate::chat::Chat;
use crate::error::Failure;
use crate::interrupt::Interrupt;
use crate::options::{self, Options};
use crate::stream::Stream;
use crate::text::{Prompt, Running, Text};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sketchkv_cache::Spec;
use sketchkv_engine::{
    EMBEDDED, GenerateOptions, Source,
    catalog::{self, Hub, ModelsFolder, Reference},
};
use sketchkv_model::{ChatRequest, LoadOptions, Logits, Model as Loaded};
use std::{collections::BTreeMap, sync::Arc};

/// A model ready to run.
#[pyclass(frozen, module = "sketchkv")]
pub(crate) struct Model {
    pub(crate) model: Arc<Loaded>,
}

#[pymethods]
impl Model {
    /// Loads a model by name, from a GGUF file or from a Hugging Face folder.
    #[staticmethod]
    #[pyo3(signature = (name, *, weights = "native", threads = 0, beyond_context = false, chat_template = None))]
    fn load(
        py: Python<'_>,
        name: &str,
        weights: &str,
        threads: usize,
        beyond_context: bool,
        chat_template: Option<&str>,
    ) -> Result<Model, Failure> {
        let weights = options::weights(weights)?;
        if threads > 1024 {
            return Err(PyValueError::new_err("threads are 1 to 1024, or 0 for one per core").into());
        }
        let options = LoadOptions { threads, beyond_context, ..weights };
        let mut model = py.detach(|| Ok::<_, Failure>(Source::find(name)?.load(&options)?))?;
        if let Some(template) = chat_template {
            model.set_chat_template(template)?;
        }
        py.check_signals()?;
        Ok(Model { model: Arc::new(model) })
    }

    /// Fetches a model if it is not here yet, and loads it.
    #[staticmethod]
    #[pyo3(signature = (name, *, refresh = false, weights = "native", threads = 0, beyond_context = false, chat_template = None))]
    fn pull(
        py: Python<'_>,
        name: &str,
        refresh: bool,
        weights: &str,
        threads: usize,
        beyond_context: bool,
        chat_template: Option<&str>,
    ) -> Result<Model, Failure> {
        if name != EMBEDDED {
            let reference = Reference::parse_or_explain(name)?;
            let (models, hub) = (ModelsFolder::from_environment()?, Hub::from_environment());
            let mut interrupt = Interrupt::new();
            let pulled = py.detach(|| catalog::pull(&reference, &models, &hub, refresh, &mut interrupt));
            interrupt.outcome(pulled)?;
        }
        Model::load(py, name, weights, threads, beyond_context, chat_template)
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> &str {
        &self.model.config().name
    }

    /// The longest sequence it was made for, in tokens.
    #[getter]
    fn context(&self) -> usize {
        self.model.config().context
    }

    /// The width of its logits.
    #[getter]
    fn vocabulary(&self) -> usize {
        self.model.config().vocabulary
    }

    /// Bytes that its weights take in memory.
    #[getter]
    fn weight_bytes(&self) -> usize {
        self.model.weight_bytes()
    }

    /// Remarks on its files.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.model.config().notes.clone()
    }

    /// The source of its chat template.
    #[getter]
    fn chat_template(&self) -> Option<&str> {
        self.model.tokenizer().chat_template()
    }

    /// The text of a conversation by its chat template.
    #[pyo3(signature = (messages, *, answer = true, special = false))]
    fn chat_prompt(
        &self,
        messages: Vec<BTreeMap<String, String>>,
        answer: bool,
        special: bool,
    ) -> Result<String, Failure> {
        for (number, message) in messages.iter().enumerate() {
            if let Some(lacking) = ["role", "content"].iter().find(|key| !message.contains_key(**key)) {
                return Err(PyValueError::new_err(format!("message {number} has no {lacking:?}")).into());
            }
        }
        let (tokenizer, request) = (self.model.tokenizer(), ChatRequest::new(&messages).answer(answer));
        Ok(tokenizer.chat_request(&if special { request } else { request.shielded(tokenizer) })?)
    }

    /// The tokens of a text.
    #[pyo3(signature = (text, *, begin = false, special = true))]
    fn tokenize(&self, text: &str, begin: bool, special: bool) -> Result<Vec<u32>, Failure> {
        let tokenizer = self.model.tokenizer();
        Ok(match (begin, special) {
            (true, true) => tokenizer.encode_prompt(text)?,
            (false, true) => tokenizer.encode(text)?,
            (false, false) => tokenizer.encode_literal(text)?,
            (true, false) => {
                return Err(PyValueError::new_err(
                    "a text whose special tokens are plain text has none that begins it: leave out begin or special",
                )
                .into());
            }
        })
    }

    /// The text of tokens.
    fn detokenize(&self, tokens: Vec<u32>) -> String {
        self.model.tokenizer().decode(&tokens)
    }

    /// The text that follows a prompt, as it comes.
    #[pyo3(signature = (prompt, *, kv = None, cache = None, **options))]
    fn stream(
        &self,
        py: Python<'_>,
        prompt: Prompt,
        kv: Option<&str>,
        cache: Option<&Cache>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<Stream, Failure> {
        let options = Options::read(options)?;
        let text = text(kv, cache, options.sampling.seed)?;
        let begun = text.feed(py, &self.model, &prompt, &options)?;
        Ok(Stream::new(text, begun))
    }

    /// The text that follows a prompt.
    #[pyo3(signature = (prompt, *, kv = None, cache = None, **options))]
    fn generate(
        &self,
        py: Python<'_>,
        prompt: Prompt,
        kv: Option<&str>,
        cache: Option<&Cache>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> Result<String, Failure> {
        self.stream(py, prompt, kv, cache, options)?.complete(py)
    }

    /// A conversation over one cache.
    #[pyo3(signature = (*, kv = "full", system = None, seed = 0))]
    fn chat(&self, kv: &str, system: Option<String>, seed: u64) -> Result<Chat, Failure> {
        Chat::new(self, &kv.parse()?, system, seed)
    }

    /// The logits after every token of a text.
    #[pyo3(signature = (text, *, kv = None, cache = None, chunk = 512))]
    fn logits<'py>(
        &self,
        py: Python<'py>,
        text: Prompt,
        kv: Option<&str>,
        cache: Option<&Cache>,
        chunk: usize,
    ) -> Result<Bound<'py, PyArray2<f32>>, Failure> {
        let mut rows = Vec::new();
        let tokens = self.read(py, text, kv, cache, chunk, |_, logits| rows.extend_from_slice(logits))?;
        Ok(PyArray1::from_vec(py, rows).reshape([tokens, self.vocabulary()])?)
    }

    /// The log-probabilities of the tokens of a text, each after all before it.
    #[pyo3(signature = (text, *, kv = None, cache = None, chunk = 512))]
    fn score<'py>(
        &self,
        py: Python<'py>,
        text: Prompt,
        kv: Option<&str>,
        cache: Option<&Cache>,
        chunk: usize,
    ) -> Result<Bound<'py, PyArray1<f64>>, Failure> {
        let mut scores = Vec::new();
        let vocabulary = self.vocabulary();
        self.read(py, text, kv, cache, chunk, |targets, logits| {
            let rows = logits.chunks_exact(vocabulary).zip(targets);
            scores.extend(rows.map(|(logits, &target)| log_probability(logits, target as usize)));
        })?;
        Ok(PyArray1::from_vec(py, scores))
    }

    fn __repr__(&self) -> String {
        format!("<sketchkv.Model {}>", self.name())
    }
}

impl Model {
    /// Runs a text, `chunk` tokens at a time; `see` gets the tokens that follow those of a chunk, and its logits. The number of
    /// tokens of the text.
    fn read(
        &self,
        py: Python<'_>,
        prompt: Prompt,
        kv: Option<&str>,
        cache: Option<&Cache>,
        chunk: usize,
        mut see: impl FnMut(&[u32], &[f32]) + Send,
    ) -> Result<usize, Failure> {
        if chunk == 0 {
            return Err(PyValueError::new_err("a chunk has at least 1 token").into());
        }
        let text = text(kv, cache, 0)?;
        let tokens = text.with(py, |state| {
            let goes_on = state.cache().is_some_and(|cache| cache.position() > 0);
            state.begin();
            prompt.tokens(&self.model, goes_on)
        })?;
        for from in (0..tokens.len()).step_by(chunk) {
            let now = &tokens[from..(from + chunk).min(tokens.len())];
            text.with(py, |state| {
                run(state.with_model(&self.model)?, now, |logits| see(&tokens[from + 1..], logits))
            })?;
            py.check_signals()?;
        }
        Ok(tokens.len())
    }
}

/// Runs `tokens` over the text's cache; `see` gets their logits, `[token][vocabulary]`, a part of them at a time.
fn run(running: &mut Running, tokens: &[u32], mut see: impl FnMut(&[f32])) -> Result<(), Failure> {
    let (model, generation, workspace) = running.alone()?;
    let vocabulary = model.config().vocabulary;
    let only = GenerateOptions { max_tokens: Some(0), ..GenerateOptions::default() };
    generation.feed(model, tokens, &only)?;
    let mut waiting = generation.tokens() - generation.cache().position() - tokens.len();
    let mut all = Vec::with_capacity(tokens.len() * vocabulary);
    while let Some(sequence) = generation.sequence() {
        let count = sequence.tokens.len();
        let logits = model.forward(&mut [sequence], workspace, Logits::All).of(0)?;
        // What waited to be run comes first, and was not asked about.
        let skipped = waiting.min(count);
        waiting -= skipped;
        all.extend_from_slice(&logits[skipped * vocabulary..]);
        let last = &logits[(count - 1) * vocabulary..];
        generation.accept(model, last)?;
    }
    see(&all);
    Ok(())
}

/// ln softmax(logits)\[target\]
fn log_probability(logits: &[f32], target: usize) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    f64::from(logits[target] - most) - sum.ln()
}

/// The text of `cache`, or a new one with the cache `kv`.
fn text(kv: Option<&str>, cache: Option<&Cache>, seed: u64) -> Result<Text, Failure> {
    match (kv, cache) {
        (Some(_), Some(_)) => {
            Err(PyValueError::new_err("give kv or cache: a cache has its spec already").into())
        }
        (_, Some(cache)) => Ok(cache.text.clone()),
        (kv, None) => {
            let spec: Spec = kv.unwrap_or("full").parse()?;
            Ok(Text::new(spec, seed))
        }
    }
}
