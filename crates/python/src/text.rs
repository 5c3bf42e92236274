//! A text over one cache, shared by the Python objects that show it.

use crate::error::Failure;
use crate::options::{Options, Speculate};
use pyo3::prelude::*;
use sketchkv_cache::{Cache, Spec};
use sketchkv_engine::speculate::{Drafter, Lookup};
use sketchkv_engine::{Conversation, EngineError, Finish, Generation, Session};
use sketchkv_model::{Model, Sampler, Sampling, Workspace};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by a cache, the streams that run over it, and a chat.
///
/// It is only locked while detached from the interpreter: whoever waits for it lets Python run.
#[derive(Clone)]
pub(crate) struct Text(Arc<Mutex<State>>);

pub(crate) struct State {
    spec: Spec,
    seed: u64,
    running: Option<Running>,
    /// Counts what was begun over the cache: a stream goes on only while nothing else was.
    begun: u64,
}

/// A text that has a model.
pub(crate) struct Running {
    pub(crate) model: Arc<Model>,
    pub(crate) session: Session,
    pub(crate) workspace: Workspace,
    /// How the generation guesses: set anew only when it is to be another way, for it looks in what it has seen since.
    speculate: Speculate,
}

/// What a step brought.
pub(crate) struct Stepped {
    pub(crate) token: Option<u32>,
    pub(crate) text: String,
    pub(crate) finish: Option<Finish>,
}

impl Running {
    fn new(model: Arc<Model>, session: Session) -> Self {
        Running { model, session, workspace: Workspace::new(), speculate: Speculate::Off }
    }

    /// Guesses what comes next in this way from now on.
    pub(crate) fn speculate(&mut self, how: Speculate) {
        if self.speculate != how {
            self.speculate = how;
            let drafter: Option<Box<dyn Drafter>> = match how {
                Speculate::Off => None,
                Speculate::Lookup => Some(Box::new(Lookup::new())),
            };
            let model = self.model.clone();
            self.generation().speculate(&model, drafter, &[]);
        }
    }

    pub(crate) fn generation(&mut self) -> &mut Generation {
        match &mut self.session {
            Session::Text(generation) => generation,
            Session::Conversation(conversation) => conversation.generation(),
        }
    }

    /// The text alone; a conversation's is not to be changed from outside.
    pub(crate) fn alone(&mut self) -> Result<(&Model, &mut Generation, &mut Workspace), Failure> {
        match &mut self.session {
            Session::Text(generation) => Ok((&self.model, generation, &mut self.workspace)),
            Session::Conversation(_) => Err(Failure::refuse(
                "this cache belongs to a chat, which knows what was said: ask the chat, or begin another cache",
            )),
        }
    }
}

impl State {
    /// The text with its model, once it has one.
    pub(crate) fn running(&mut self) -> Option<&mut Running> {
        self.running.as_mut()
    }

    /// The text with `model`, which it keeps from then on.
    pub(crate) fn with_model(&mut self, model: &Arc<Model>) -> Result<&mut Running, Failure> {
        if let Some(running) = &self.running
            && !Arc::ptr_eq(&running.model, model)
        {
            return Err(Failure::refuse(format!(
                "this cache is in use with the model {}: begin another one for {}",
                running.model.config().name,
                model.config().name
            )));
        }
        if self.running.is_none() {
            let cache = Cache::new(model.cache_shape(), &self.spec, self.seed)?;
            let sampler = Sampler::new(Sampling { seed: self.seed, ..Sampling::default() })?;
            let session = Session::Text(Generation::new(cache, sampler));
            self.running = Some(Running::new(model.clone(), session));
        }
        Ok(self.running.as_mut().expect("it was made above"))
    }

    /// Its cache, once it has a model.
    pub(crate) fn cache(&mut self) -> Option<&Cache> {
        self.running.as_mut().map(|running| running.generation().cache())
    }

    pub(crate) fn spec(&mut self) -> Spec {
        self.cache().map(|cache| cache.spec().clone()).unwrap_or_else(|| self.spec.clone())
    }

    /// Runs another cache from now on; only before it has a model.
    pub(crate) fn set_spec(&mut self, spec: Spec) {
        self.spec = spec;
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Something else begins over the cache; its number.
    pub(crate) fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }
}

impl Text {
    /// A text without a model yet.
    pub(crate) fn new(spec: Spec, seed: u64) -> Self {
        Text(Arc::new(Mutex::new(State { spec, seed, running: None, begun: 0 })))
    }

    /// A text that goes on.
    pub(crate) fn of(model: Arc<Model>, session: Session, seed: u64) -> Self {
        let running = Some(Running::new(model, session));
        Text(Arc::new(Mutex::new(State { spec: Spec::default(), seed, running, begun: 0 })))
    }

    /// Works with it, detached from the interpreter.
    pub(crate) fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut State) -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        py.detach(|| work(&mut self.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the text go on with `prompt`; the number of what begins.
    pub(crate) fn feed(
        &self,
        py: Python<'_>,
        model: &Arc<Model>,
        prompt: &Prompt,
        options: &Options,
    ) -> Result<u64, Failure> {
        self.with(py, |state| {
            let running = state.with_model(model)?;
            running.alone()?;
            running.speculate(options.speculate);
            let (model, generation, _) = running.alone()?;
            let tokens = prompt.tokens(model, generation.tokens() > 0)?;
            sample_by(generation, options)?;
            generation.feed(model, &tokens, &options.generate)?;
            Ok(state.begin())
        })
    }

    /// One pass of what has the number `begun`; `None` when it is over.
    pub(crate) fn step(&self, py: Python<'_>, begun: u64) -> Result<Option<Stepped>, Failure> {
        let stepped = self.with(py, |state| {
            if state.begun != begun {
                return Err(Failure::refuse(
                    "another text was begun over this cache: give each its own, or fork the cache first",
                ));
            }
            let Some(Running { model, session, workspace, .. }) = state.running() else { return Ok(None) };
            let generation = match session {
                Session::Text(generation) => generation,
                Session::Conversation(conversation) => conversation.generation(),
            };
            let step = generation.step(model, workspace)?;
            Ok(step.map(|step| Stepped {
                token: step.token,
                text: step.text.to_owned(),
                finish: step.finish,
            }))
        });
        py.check_signals()?;
        stepped
    }
}

/// Chooses tokens as `options` say from now on.
pub(crate) fn sample_by(generation: &mut Generation, options: &Options) -> Result<(), EngineError> {
    generation.set_sampling(options.sampling.clone())?;
    if options.seeded {
        generation.reseed(options.sampling.seed);
    }
    Ok(())
}

/// A conversation, if the text is one.
pub(crate) fn conversation(running: &mut Running) -> Option<(&Model, &mut Conversation)> {
    match &mut running.session {
        Session::Conversation(conversation) => Some((&running.model, conversation)),
        Session::Text(_) => None,
    }
}

/// What a text goes on with.
#[derive(FromPyObject)]
pub(crate) enum Prompt {
    /// To be tokenized; the first text of a cache begins with the token that begins a text.
    Text(String),
    Tokens(Vec<u32>),
}

impl Prompt {
    pub(crate) fn tokens(&self, model: &Model, goes_on: bool) -> Result<Vec<u32>, Failure> {
        Ok(match self {
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Text(text) if goes_on => model.tokenizer().encode(text)?,
            Prompt::Text(text) => model.tokenizer().encode_prompt(text)?,
        })
    }
}
