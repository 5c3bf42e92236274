//! Jobs begin, from their sessions or from the longest prefix that is known.

use super::Worker;
use crate::{
    api::{ApiError, PromptTokensDetails, Usage},
    engine::{
        Event, Job,
        prefixes::{self, Key},
        running::{Ask, Running},
        sessions::{Opened, Stamp},
    },
};
use sketchkv_cache::{Cache, Spec};
use sketchkv_engine::{Conversation, GenerateOptions, Generation, SessionFile, speculate::Lookup};
use sketchkv_model::Sampler;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

impl Worker {
    /// Admits jobs in the order in which they came, while there are bytes. A job whose session is busy lets others pass.
    pub(super) fn admit(&mut self) {
        let mut index = 0;
        // To try in vain costs a session's file each time.
        while !self.blocked
            && index < self.scheduler.waiting.len()
            && self.scheduler.running.len() < self.limits.parallel
        {
            let job = &self.scheduler.waiting[index];
            if job.session.as_ref().is_some_and(|name| self.sessions.is_busy(name)) {
                index += 1;
                continue;
            }
            let Some(job) = self.scheduler.waiting.remove(index) else { return };
            match self.begin(job) {
                Admission::Begun => {}
                Admission::Later(job) => {
                    self.scheduler.waiting.insert(index, *job);
                    self.blocked = true;
                }
                Admission::Never(job, error) => job.say(Event::Failed(error)),
            }
        }
    }

    /// Begins a job, if its bytes can be had.
    fn begin(&mut self, job: Job) -> Admission {
        let opened = job.session.as_ref().map(|name| self.sessions.open(name, &self.model, &job.sampling));
        let start = match opened {
            Some(Ok(opened)) => self.start_of_session(&job, opened),
            Some(Err(error)) => Err(error),
            None => self.start_of_prefix(&job),
        };
        let mut start = match start {
            Ok(start) => start,
            Err(error) => {
                self.leave_session(&job);
                return Admission::Never(Box::new(job), error);
            }
        };
        match self.grant(&job, &mut start) {
            Ok(Some((granted, until, lowered))) => {
                self.go(job, start, granted, until, lowered);
                Admission::Begun
            }
            not => {
                if let Some(base) = start.base {
                    self.prefixes.leave(base);
                }
                match start.rests {
                    Some(stamp) => self.rest(&job, start.conversation, stamp),
                    None => self.leave_session(&job),
                }
                match not {
                    Err(error) => Admission::Never(Box::new(job), error),
                    _ => Admission::Later(Box::new(job)),
                }
            }
        }
    }

    fn leave_session(&mut self, job: &Job) {
        if let Some(name) = &job.session {
            self.sessions.leave(name);
        }
    }

    /// A job that cannot begin: its session rests again, if there are bytes for it.
    fn rest(&mut self, job: &Job, conversation: Conversation, stamp: Option<Stamp>) {
        let bytes = conversation.cache().ledger().total();
        match &job.session {
            Some(name) if self.pool.take(bytes) => {
                self.sessions.rest(name.clone(), conversation, stamp, bytes);
            }
            _ => self.leave_session(job),
        }
    }

    /// Goes on from what the session holds, if the prompt does.
    fn start_of_session(&mut self, job: &Job, opened: Opened) -> Result<Start, ApiError> {
        let Opened { file, conversation, held, stamp } = opened;
        // What it held at rest goes over to what it is granted.
        self.pool.give(held);
        let text = job.prompt.text.as_deref().unwrap_or_default();
        let mut known = conversation;
        let seen = known.as_mut().map_or(0, |known| {
            let transcript = known.transcript(&self.model);
            if text.len() > transcript.len() && text.starts_with(transcript) { transcript.len() } else { 0 }
        });
        let Some(mut conversation) = known.filter(|_| seen > 0) else {
            return Ok(Start { file: Some(file), ..self.start_of_prefix(job)? });
        };
        let (fresh, cached) = match self.ready_to_go_on(job, &mut conversation, &text[seen..]) {
            Ok(ready) => ready,
            Err(error) => {
                self.rest(job, conversation, stamp);
                return Err(error);
            }
        };
        let rests = Some(stamp);
        Ok(Start { conversation, fresh, cached, keys: vec![], base: None, file: Some(file), rests })
    }

    /// Makes a session's text go on as the job wants it; gives the tokens to run, and how many are there.
    fn ready_to_go_on(
        &self,
        job: &Job,
        conversation: &mut Conversation,
        more: &str,
    ) -> Result<(Vec<u32>, usize), ApiError> {
        let fresh = self.model.tokenizer().encode(more)?;
        let generation = conversation.generation();
        let spec = generation.cache().spec();
        let alike = Spec { cap: spec.cap, ..job.spec.clone() } == *spec;
        if !alike && job.names_spec {
            let message =
                format!("the session holds its text in `{spec}`: ask for that, or begin another session");
            return Err(ApiError::param("kv", message));
        }
        let cached = generation.tokens();
        self.model.check_position(cached + fresh.len() + 1)?;
        if alike && job.spec.cap != spec.cap {
            generation.set_cap(&self.model, job.spec.cap)?;
        }
        generation.set_sampling(job.sampling.clone())?;
        generation.reseed(job.sampling.seed);
        self.let_guess(job, generation, &[]);
        Ok((fresh, cached))
    }

    /// Lets an answer guess from the text so far, of which the cache has `seen` the newest tokens. Not where others are forked from
    /// its prompt, nor where log-probabilities are wanted, of each token from logits of its own.
    fn let_guess(&self, job: &Job, generation: &mut Generation, seen: &[u32]) {
        if self.limits.guesses && job.choices == 1 && job.logprobs.is_none() {
            generation.speculate(&self.model, Some(Box::new(Lookup::new())), seen);
        }
    }

    /// Goes on from the longest state that the prompt begins with.
    fn start_of_prefix(&mut self, job: &Job) -> Result<Start, ApiError> {
        let (tokens, chunk) = (&job.prompt.tokens, self.limits.chunk);
        // With an echo every token has to be run: its logits are wanted.
        let keys = if job.echo { vec![] } else { prefixes::keys(&self.model_name, &job.spec, chunk, tokens) };
        self.load_states(&keys);
        let deepest = self.prefixes.deepest(&keys);
        let base = deepest.map(|depth| keys[depth]);
        let cached = deepest.map_or(0, |depth| (depth + 1) * chunk);
        let cache = match base.and_then(|base| self.prefixes.enter(base)) {
            Some(cache) => cache,
            None => Cache::new(self.model.cache_shape(), &job.spec, 0)?,
        };
        let mut sampler = Sampler::new(job.sampling.clone())?;
        sampler.recall(tokens[..cached].iter().copied());
        let mut generation = Generation::new(cache, sampler);
        self.let_guess(job, &mut generation, &tokens[..cached]);
        let conversation = Conversation::over(generation, String::new());
        Ok(Start {
            conversation,
            fresh: tokens[cached..].to_vec(),
            cached,
            keys,
            base,
            file: None,
            rests: None,
        })
    }

    /// Reads the longest state from its file that is longer than those in memory.
    fn load_states(&mut self, keys: &[Key]) {
        let known = self.prefixes.deepest(keys).map_or(0, |depth| depth + 1);
        let Some(depth) = (known..keys.len()).rev().find(|&depth| self.sessions.has_state(keys[depth]))
        else {
            return;
        };
        if let Some(cache) = self.sessions.read_state(keys[depth], &self.model) {
            self.keep_state(keys, depth, cache);
        }
    }

    /// Keeps the state behind the chunk `depth` of a prompt, if there are bytes for it.
    pub(super) fn keep_state(&mut self, keys: &[Key], depth: usize, cache: Cache) {
        if self.prefixes.contains(keys[depth]) {
            return;
        }
        let parent = depth.checked_sub(1).map(|depth| keys[depth]);
        let bytes = self.prefixes.cost(parent, &cache);
        while bytes > self.pool.free() {
            match self.prefixes.shed() {
                Some(freed) => self.pool.give(freed),
                None => return,
            }
        }
        // What was shed may have been what is before it.
        let bytes = self.prefixes.cost(parent, &cache);
        if self.pool.take(bytes) {
            self.prefixes.insert(keys[depth], parent, cache, bytes);
        }
    }

    /// A job begins.
    fn go(&mut self, job: Job, start: Start, granted: usize, until: usize, lowered: bool) {
        let Start { mut conversation, fresh, cached, keys, base, file, .. } = start;
        self.metrics.queued.observe(job.since.elapsed().as_secs_f64());
        self.metrics.cached_tokens.inc_by(cached as u64);
        if base.is_some() {
            self.metrics.prefix_hits.inc();
        }
        let prompt_tokens = cached + fresh.len();
        let prompt_tokens_details = PromptTokensDetails { cached_tokens: cached };
        let usage = Usage { prompt_tokens, prompt_tokens_details, ..Usage::default() };
        let ask = Rc::new(Ask { left: Cell::new(job.choices), usage: RefCell::new(usage), job });
        let choices = ask.job.choices;
        let chunk = Some(self.limits.chunk);
        let options = match choices {
            1 => GenerateOptions { chunk, ..ask.job.options.clone() },
            // The prompt alone; the answers are forked from there.
            _ => GenerateOptions { max_tokens: Some(0), chunk, ..GenerateOptions::default() },
        };
        let transcript = ask.job.prompt.text.clone().unwrap_or_default();
        let fed = conversation.go_on(&self.model, &fresh, transcript, &options);
        let index = self.scheduler.add(Running {
            id: 0,
            ask,
            choice: 0,
            conversation,
            prompt: prompt_tokens,
            cached,
            forks: if choices > 1 { choices } else { 0 },
            keys: if lowered { vec![] } else { keys },
            base,
            granted,
            until,
            lowered,
            generated: 0,
            file,
            reported: None,
            finish: None,
        });
        let over = match fed {
            Ok(()) => self.take_ready(index),
            Err(error) => {
                self.fail(index, error.into());
                true
            }
        };
        if over {
            self.retire(vec![index]);
        }
    }
}

/// What became of a job that wanted to begin.
enum Admission {
    Begun,
    Later(Box<Job>),
    Never(Box<Job>, ApiError),
}

/// Where a job goes on from.
pub(super) struct Start {
    pub(super) conversation: Conversation,
    /// Tokens to run.
    pub(super) fresh: Vec<u32>,
    /// Tokens whose state is there.
    cached: usize,
    keys: Vec<Key>,
    base: Option<Key>,
    file: Option<SessionFile>,
    /// Of a session that rests in memory, the version of its file.
    rests: Option<Option<Stamp>>,
}
