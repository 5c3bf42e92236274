//! The engine thread's loop.

use super::{
    job::{Chosen, Event, Job},
    pool::Pool,
    prefixes::{self, Prefixes},
    running::{Ask, Running},
    scheduler::{Round, Scheduler},
    sessions::{Opened, SessionFolder, Sessions, Stamp, Written},
};
use crate::{
    api::{ApiError, Kv, KvMemory, SessionUsage, Slot, SlotDone, Usage},
    metrics::Metrics,
};
use axum::http::StatusCode;
use sketchkv_cache::{Cache, Cap, Spec};
use sketchkv_engine::{Conversation, Finish, GenerateOptions, Generation, SessionFile};
use sketchkv_model::{Logits, Model, Sampler, Sampling, Workspace, logprobs};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Tokens for which an answer asks bytes at a time.
const GRANT: usize = 256;
/// How long the thread sleeps when answers go on and none can: until a reader reads.
const NAP: Duration = Duration::from_millis(5);
/// The share of an f16 cache below which no cap is lowered for others, in percent: no model lost more than 0.03 nats there.
const LEAST_PERCENT: usize = 25;
/// Tokens of a prompt from which its state is worth a file.
const WORTH_A_FILE: usize = 1024;

/// What the engine thread is told.
pub(crate) enum Command {
    Submit(Box<Job>),
    /// What goes on, for whoever asks.
    Inspect(oneshot::Sender<Inspection>),
    /// Reads a session into memory, or writes it, or forgets it.
    Restore(String, oneshot::Sender<Result<SlotDone, ApiError>>),
    Erase(String, oneshot::Sender<Result<(), ApiError>>),
    Written(Written),
    /// No more jobs; what goes on may do so until then.
    Stop(Instant),
}

/// What goes on.
#[derive(Debug, Default, Clone)]
pub(crate) struct Inspection {
    pub(crate) slots: Vec<Slot>,
    pub(crate) waiting: usize,
    pub(crate) memory: KvMemory,
    pub(crate) prefixes: usize,
    pub(crate) prefix_bytes: usize,
    pub(crate) sessions: Vec<String>,
    pub(crate) workspace_bytes: usize,
}

/// What is allowed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of all caches.
    pub(crate) kv_memory: usize,
    /// Answers in the works.
    pub(crate) parallel: usize,
    /// Jobs that wait.
    pub(crate) queue: usize,
    /// Tokens of a text.
    pub(crate) context: usize,
}

/// The way to the engine thread.
#[derive(Clone)]
pub(crate) struct Handle {
    inbox: mpsc::Sender<Command>,
}

impl Handle {
    /// Hands a job over.
    ///
    /// # Errors
    /// When the thread is gone.
    pub(crate) fn submit(&self, job: Job) -> Result<(), ApiError> {
        self.tell(Command::Submit(Box::new(job)))
    }

    pub(crate) fn tell(&self, command: Command) -> Result<(), ApiError> {
        self.inbox.send(command).map_err(|_| ApiError::stopping())
    }
}

/// Everything that the engine thread owns.
pub(crate) struct Worker {
    model: Arc<Model>,
    limits: Limits,
    metrics: Arc<Metrics>,
    inbox: mpsc::Receiver<Command>,
    scheduler: Scheduler,
    pool: Pool,
    prefixes: Prefixes,
    sessions: Sessions,
    /// Sessions that are being written: what they rest with, and who waits.
    saving: HashMap<String, (Conversation, usize, Option<Rc<Ask>>)>,
    workspace: Workspace,
    next_id: u64,
    stop: Option<Instant>,
    /// The model's hash, a part of the names of states.
    model_name: String,
}

impl Worker {
    /// Starts the thread; it ends by [`Command::Stop`].
    ///
    /// # Errors
    /// When there can be no thread, or the model's file is gone.
    pub(crate) fn start(
        model: Arc<Model>,
        limits: Limits,
        folder: Option<SessionFolder>,
        metrics: Arc<Metrics>,
    ) -> Result<(Handle, thread::JoinHandle<()>), crate::ServeError> {
        let (sender, inbox) = mpsc::channel();
        let model_name = model.content_hash()?;
        let of_sessions = sender.clone();
        let run = move || {
            Worker {
                model,
                limits,
                metrics,
                inbox,
                scheduler: Scheduler::default(),
                pool: Pool::new(limits.kv_memory),
                prefixes: Prefixes::default(),
                sessions: Sessions::new(folder, of_sessions),
                saving: HashMap::new(),
                workspace: Workspace::new(),
                next_id: 1,
                stop: None,
                model_name,
            }
            .run();
        };
        let thread =
            thread::Builder::new().name("engine".into()).spawn(run).map_err(crate::ServeError::Thread)?;
        Ok((Handle { inbox: sender }, thread))
    }

    fn run(mut self) {
        while self.listen() {
            self.end_departed();
            self.admit();
            let Round { decode, prompt } = self.scheduler.round();
            // Prompts first: the answers' indices stay.
            let mut over = self.run_prompt(prompt);
            over.extend(self.decode(&decode));
            self.retire(over);
        }
    }

    /// Takes in what was said; sleeps while there is nothing to do. False when it is time to end.
    fn listen(&mut self) -> bool {
        let ready =
            |running: &Running| running.in_prompt() || running.has_reader_room() || running.is_departed();
        let must_wait = !self.scheduler.running.iter().any(ready);
        if must_wait {
            let done = self.scheduler.is_idle() && self.saving.is_empty();
            if done && self.stop.is_some() {
                return false;
            }
            let heard = if done {
                self.inbox.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
            } else {
                self.inbox.recv_timeout(NAP)
            };
            match heard {
                Ok(command) => self.hear(command),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return false,
            }
        }
        while let Ok(command) = self.inbox.try_recv() {
            self.hear(command);
        }
        true
    }

    fn hear(&mut self, command: Command) {
        match command {
            Command::Submit(job) if self.stop.is_some() => fail(&job, ApiError::stopping()),
            Command::Submit(job) if self.scheduler.waiting.len() >= self.limits.queue => {
                let message = format!(
                    "{} requests wait already: try again later, or start the server with a longer --queue",
                    self.limits.queue
                );
                self.metrics.refused.inc();
                fail(&job, ApiError::busy(message, 1 + self.limits.queue as u64 / 16));
            }
            Command::Submit(job) => self.scheduler.waiting.push_back(*job),
            Command::Inspect(answer) => {
                let _ = answer.send(self.inspect());
            }
            Command::Restore(name, answer) => {
                let _ = answer.send(self.restore(&name));
            }
            Command::Erase(name, answer) => {
                let _ = answer.send(self.erase(&name));
            }
            Command::Written(written) => self.written(written),
            Command::Stop(until) => {
                self.stop = Some(until);
                self.scheduler.waiting.drain(..).for_each(|job| fail(&job, ApiError::stopping()));
            }
        }
    }

    // What ends before its time.

    /// Ends answers that nobody listens to or that take too long; forgets jobs that nobody waits for.
    fn end_departed(&mut self) {
        let now = Instant::now();
        self.scheduler.waiting.retain(|job| {
            let late = now > job.deadline;
            if late {
                fail(job, too_long());
            }
            !late && !job.events.is_closed()
        });
        let stop = self.stop.is_some_and(|stop| now > stop);
        let mut over = vec![];
        for (index, running) in self.scheduler.running.iter_mut().enumerate() {
            let late = now > running.ask.job.deadline;
            if !(late || stop || running.is_departed()) {
                continue;
            }
            if late {
                running.say(Event::Failed(too_long()));
            }
            running.conversation.generation().interrupt(&self.model);
            if let Some(step) = running.conversation.generation().ready() {
                let text = step.text.to_owned();
                running.say_text(text, None);
            }
            running.finish = Some(Finish::Interrupted);
            over.push(index);
        }
        self.retire(over);
    }

    // Admission.

    /// Admits jobs in the order in which they came, while there are bytes. A job whose session is busy lets others pass.
    fn admit(&mut self) {
        let mut index = 0;
        while index < self.scheduler.waiting.len() && self.scheduler.running.len() < self.limits.parallel {
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
                    return;
                }
                Admission::Never(job, error) => fail(&job, error),
            }
        }
    }

    /// Begins a job, if its bytes can be had.
    fn begin(&mut self, job: Job) -> Admission {
        let opened = job.session.as_ref().map(|name| self.sessions.open(name, &self.model, &job.sampling));
        let start = match opened {
            Some(Ok(opened)) => self.from_session(&job, opened),
            Some(Err(error)) => Err(error),
            None => self.from_prefix(&job),
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
                self.put_back(&job, start);
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

    /// A job that cannot begin yet: its session rests again.
    fn put_back(&mut self, job: &Job, start: Start) {
        let bytes = start.conversation.cache().ledger().total();
        match (&job.session, start.rests) {
            (Some(name), Some(stamp)) if self.pool.take(bytes) => {
                self.sessions.rest(name.clone(), start.conversation, stamp, bytes);
            }
            _ => self.leave_session(job),
        }
    }

    /// Goes on from what the session holds, if the prompt does.
    fn from_session(&mut self, job: &Job, opened: Opened) -> Result<Start, ApiError> {
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
            return Ok(Start { file: Some(file), ..self.from_prefix(job)? });
        };
        let fresh = self.model.tokenizer().encode_shielded(&text[seen..])?;
        let generation = conversation.generation();
        let spec = generation.cache().spec();
        let alike = Spec { cap: spec.cap, ..job.spec.clone() } == *spec;
        if !alike && job.names_spec {
            let message =
                format!("the session holds its text in `{spec}`: ask for that, or begin another session");
            return Err(ApiError::param("kv", message));
        }
        if alike && job.spec.cap != spec.cap {
            generation.set_cap(&self.model, job.spec.cap)?;
        }
        generation.set_sampling(job.sampling.clone())?;
        generation.reseed(job.sampling.seed);
        let cached = generation.tokens();
        self.model.check_position(cached + fresh.len() + 1)?;
        let rests = Some(stamp);
        Ok(Start { conversation, fresh, cached, keys: vec![], base: None, file: Some(file), rests })
    }

    /// Goes on from the longest state that the prompt begins with.
    fn from_prefix(&mut self, job: &Job) -> Result<Start, ApiError> {
        let (tokens, chunk) = (&job.prompt.tokens, self.model.chunk());
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
        let conversation = Conversation::over(Generation::new(cache, sampler), String::new());
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
    fn load_states(&mut self, keys: &[prefixes::Key]) {
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
    fn keep_state(&mut self, keys: &[prefixes::Key], depth: usize, cache: Cache) {
        if self.prefixes.contains(keys[depth]) {
            return;
        }
        let parent = depth.checked_sub(1).map(|depth| keys[depth]).filter(|&key| self.prefixes.contains(key));
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

    /// Grants the bytes that the job needs to begin; `None` if it has to wait for them. Gives them, the tokens for which they
    /// suffice, and whether the pool set the cap.
    fn grant(&mut self, job: &Job, start: &mut Start) -> Result<Option<(usize, usize, bool)>, ApiError> {
        let prompt = start.conversation.generation().tokens() + start.fresh.len();
        let most = self.limits.context.min(prompt + job.options.max_tokens.unwrap_or(usize::MAX / 2));
        let cache = start.conversation.cache();
        let elastic = is_elastic(cache);
        // A cache that cannot be made smaller has to have all it may come to need.
        let until = if elastic { most.min(prompt + GRANT) } else { most };
        let each = needed(cache, until);
        let need = each * job.choices;
        let limit = self.pool.limit();
        if need <= limit && self.make_room(need) {
            return Ok(self.pool.take(need).then_some((need, until, false)));
        }
        let least = if elastic { least(cache, until) * job.choices } else { need };
        if least > limit {
            return Err(too_large(cache, least, limit, until, elastic));
        }
        if !elastic {
            return Ok(None);
        }
        // Alone it may have all there is; others leave it what they can.
        let spare = self.pool.free() + self.sheddable();
        let each = if spare >= least { spare.min(need) / job.choices } else { least / job.choices };
        if !(self.make_room(each * job.choices) && self.pool.take(each * job.choices)) {
            return Ok(None);
        }
        match start.conversation.generation().set_cap(&self.model, Cap::Bytes(each)) {
            Ok(()) => {
                self.metrics.lowered.inc();
                Ok(Some((each * job.choices, usize::MAX, true)))
            }
            Err(error) => {
                self.pool.give(each * job.choices);
                Err(error.into())
            }
        }
    }

    /// Bytes that can be freed without touching an answer.
    fn sheddable(&self) -> usize {
        self.prefixes.idle_bytes() + self.sessions.idle_bytes()
    }

    /// Makes `bytes` free: lets go of what rests in memory, then lowers caps. False if that is not enough; no cap is lowered
    /// in vain.
    fn make_room(&mut self, bytes: usize) -> bool {
        while self.pool.free() < bytes {
            let Some(freed) = self.sessions.shed().or_else(|| self.prefixes.shed()) else { break };
            self.pool.give(freed);
        }
        self.pool.free() >= bytes || self.lower_caps(bytes - self.pool.free())
    }

    /// Lowers the caps of answers by `deficit` together, each by its part of what it has above the least.
    fn lower_caps(&mut self, deficit: usize) -> bool {
        let above = |running: &Running| {
            let cache = running.conversation.cache();
            let usable = (is_elastic(cache) || running.lowered) && running.forks == 0;
            let tokens = running.position() + GRANT;
            if usable { running.granted.saturating_sub(least(cache, tokens)) } else { 0 }
        };
        let all: usize = self.scheduler.running.iter().map(above).sum();
        if all < deficit {
            return false;
        }
        for running in &mut self.scheduler.running {
            let part = (above(running) as u128 * deficit as u128).div_ceil(all as u128) as usize;
            if part == 0 {
                continue;
            }
            let cap = running.granted - part;
            match running.conversation.generation().set_cap(&self.model, Cap::Bytes(cap)) {
                Ok(()) => {
                    self.metrics.lowered.inc();
                    self.pool.give(part);
                    (running.granted, running.until, running.lowered) = (cap, usize::MAX, true);
                    running.keys.clear();
                }
                Err(error) => tracing::warn!(%error, "a cap cannot be lowered"),
            }
        }
        true
    }

    /// Gives answers that come to the end of what they were granted more, or a cap.
    fn grow(&mut self, index: usize) -> Result<(), ApiError> {
        let running = &self.scheduler.running[index];
        let (position, until) = (running.position(), running.until);
        if position < until {
            return Ok(());
        }
        let most = running.most(self.limits.context);
        let until = most.max(position + 1).min(position + GRANT);
        let more = needed(running.conversation.cache(), until).saturating_sub(running.granted);
        let has_room = self.make_room(more) && self.pool.take(more);
        let running = &mut self.scheduler.running[index];
        if running.lowered {
            // Its cap was lowered to make room for itself.
            if has_room {
                self.pool.give(more);
            }
            return Ok(());
        }
        if has_room {
            (running.granted, running.until) = (running.granted + more, until);
            return Ok(());
        }
        running.conversation.generation().set_cap(&self.model, Cap::Bytes(running.granted))?;
        (running.until, running.lowered) = (usize::MAX, true);
        running.keys.clear();
        self.metrics.lowered.inc();
        Ok(())
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
        let usage = Usage { prompt_tokens, ..Usage::default() };
        let ask = Rc::new(Ask { left: Cell::new(job.choices), usage: RefCell::new(usage), job });
        ask.usage.borrow_mut().prompt_tokens_details.cached_tokens = cached;
        let choices = ask.job.choices;
        let options = match choices {
            1 => ask.job.options.clone(),
            // The prompt alone; the answers are forked from there.
            _ => GenerateOptions { max_tokens: Some(0), ..GenerateOptions::default() },
        };
        let transcript = ask.job.prompt.text.clone().unwrap_or_default();
        let fed = conversation.go_on(&self.model, &fresh, transcript, &options);
        let id = self.next_id;
        self.next_id += 1;
        let running = Running {
            id,
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
            reported: Instant::now(),
            finish: None,
        };
        self.scheduler.running.push(running);
        let index = self.scheduler.running.len() - 1;
        if let Err(error) = fed {
            self.scheduler.running[index].say(Event::Failed(error.into()));
            self.scheduler.running[index].finish = Some(Finish::Interrupted);
            self.retire(vec![index]);
        } else if self.take_ready(index) {
            self.retire(vec![index]);
        }
    }

    // The passes.

    /// Takes in a chunk of one prompt; gives its index if it is over.
    fn run_prompt(&mut self, index: Option<usize>) -> Vec<usize> {
        let Some(index) = index else { return vec![] };
        // Taken out for as long as its logits are read.
        let mut workspace = std::mem::replace(&mut self.workspace, Workspace::new());
        let model = self.model.clone();
        let running = &mut self.scheduler.running[index];
        let (before, echo) = (running.position(), running.ask.job.echo);
        let generation = running.conversation.generation();
        let want = match (echo, generation.wants_logits()) {
            (true, _) => Logits::All,
            (false, true) => Logits::Last,
            (false, false) => Logits::None,
        };
        let Some(sequence) = generation.sequence() else { return vec![] };
        let count = sequence.tokens.len();
        let started = Instant::now();
        let outputs = model.forward(&mut [sequence], &mut workspace, want).of(0);
        self.metrics.prompt_seconds.inc_by(started.elapsed().as_secs_f64());
        self.metrics.prompt_tokens.inc_by(count as u64);
        let over = outputs.map_err(ApiError::from).and_then(|logits| {
            let vocabulary = model.config().vocabulary;
            if echo {
                let running = &self.scheduler.running[index];
                let job = &running.ask.job;
                let next = job.prompt.tokens.get(before + 1..).unwrap_or_default();
                let rows = logits.chunks_exact(vocabulary).zip(next);
                let top = job.logprobs.unwrap_or(0);
                running.say(Event::Prompt(rows.map(|(row, &token)| logprobs(row, token, top)).collect()));
            }
            self.accept(index, &logits[logits.len() - logits.len().min(vocabulary)..])
        });
        self.workspace = workspace;
        match over {
            Ok(over) => {
                self.after_chunk(index);
                if over { vec![index] } else { vec![] }
            }
            Err(error) => self.failed(index, error),
        }
    }

    /// Keeps the state behind a whole chunk of a prompt.
    fn after_chunk(&mut self, index: usize) {
        let chunk = self.model.chunk();
        let running = &self.scheduler.running[index];
        self.check_grant(running);
        let position = running.position();
        if position % chunk == 0 && position / chunk <= running.keys.len() && position > 0 {
            let (keys, depth) = (running.keys.clone(), position / chunk - 1);
            let cache = running.conversation.cache().fork();
            if depth + 1 == keys.len() && position >= WORTH_A_FILE {
                self.sessions.save_state(keys[depth], cache.fork(), &self.model);
            }
            self.keep_state(&keys, depth, cache);
        }
    }

    /// One token of each of these answers; gives the indices of those that are over.
    fn decode(&mut self, indices: &[usize]) -> Vec<usize> {
        let mut over = vec![];
        let mut going = vec![];
        for &index in indices {
            // A prompt that ended in this round may have ended it.
            if self.scheduler.running[index].finish.is_some() {
                continue;
            }
            match self.grow(index) {
                Ok(()) => going.push(index),
                Err(error) => over.extend(self.failed(index, error)),
            }
        }
        // Taken out for as long as its logits are read.
        let mut workspace = std::mem::replace(&mut self.workspace, Workspace::new());
        let model = self.model.clone();
        let (mut sequences, mut ran) = (vec![], vec![]);
        for (index, running) in self.scheduler.running.iter_mut().enumerate() {
            if !going.contains(&index) {
                continue;
            }
            if let Some(sequence) = running.conversation.generation().sequence() {
                sequences.push(sequence);
                ran.push(index);
            }
        }
        if !sequences.is_empty() {
            let started = Instant::now();
            let outputs = model.forward(&mut sequences, &mut workspace, Logits::Last);
            drop(sequences);
            self.metrics.decode_seconds.inc_by(started.elapsed().as_secs_f64());
            self.metrics.batch.observe(ran.len() as f64);
            for (row, &index) in ran.iter().enumerate() {
                let taken =
                    outputs.of(row).map_err(ApiError::from).and_then(|logits| self.accept(index, logits));
                match taken {
                    Ok(true) => over.push(index),
                    Ok(false) => {}
                    Err(error) => over.extend(self.failed(index, error)),
                }
            }
        }
        self.workspace = workspace;
        over
    }

    /// An answer takes its logits; whether it is over.
    fn accept(&mut self, index: usize, logits: &[f32]) -> Result<bool, ApiError> {
        let running = &mut self.scheduler.running[index];
        let top = running.ask.job.logprobs;
        let step = running.conversation.generation().accept(&self.model, logits)?;
        let (token, text, finish) = (step.token, step.text.to_owned(), step.finish);
        if token.is_some() {
            self.metrics.answer_tokens.inc();
        }
        let chosen =
            token.map(|token| Chosen { token, logprobs: top.map(|top| logprobs(logits, token, top)) });
        if running.ask.usage.borrow().first_token_ms.is_none() && chosen.is_some() {
            self.metrics.first_token.observe(running.ask.job.since.elapsed().as_secs_f64());
        }
        running.say_text(text, chosen);
        running.finish = finish;
        Ok(finish.is_some())
    }

    /// Takes a step that came about without a pass; whether the answer is over.
    fn take_ready(&mut self, index: usize) -> bool {
        let running = &mut self.scheduler.running[index];
        let top = running.ask.job.logprobs;
        let generation = running.conversation.generation();
        let Some(step) = generation.ready() else { return false };
        let (token, text, finish) = (step.token, step.text.to_owned(), step.finish);
        let chosen = token.map(|token| {
            let kept = generation.kept_logits();
            Chosen { token, logprobs: top.filter(|_| !kept.is_empty()).map(|top| logprobs(kept, token, top)) }
        });
        running.say_text(text, chosen);
        running.finish = finish;
        finish.is_some()
    }

    /// An answer failed; gives its index.
    fn failed(&mut self, index: usize, error: ApiError) -> Vec<usize> {
        let running = &mut self.scheduler.running[index];
        running.conversation.generation().interrupt(&self.model);
        running.say(Event::Failed(error));
        running.finish = Some(Finish::Interrupted);
        vec![index]
    }

    // The end.

    /// Takes answers out that are over, and gives back what they held.
    fn retire(&mut self, mut over: Vec<usize>) {
        over.sort_unstable();
        over.dedup();
        for index in over.into_iter().rev() {
            let running = self.scheduler.running.remove(index);
            if running.forks > 0 && running.finish == Some(Finish::Length) && !running.is_departed() {
                self.fork(running);
                continue;
            }
            self.end(running);
        }
    }

    /// The prompt is through: its answers go on from here, each with random numbers of its own.
    fn fork(&mut self, mut prompt: Running) {
        let granted = prompt.granted / prompt.forks;
        for choice in 0..prompt.forks {
            let conversation = match self.forked(&mut prompt, choice) {
                Ok(conversation) => conversation,
                Err(error) => {
                    prompt.say(Event::Failed(error));
                    break;
                }
            };
            // The state that the prompt went on from stays until the last of them is over.
            if let Some(base) = prompt.base {
                self.prefixes.enter(base);
            }
            prompt.granted -= granted;
            let id = self.next_id;
            self.next_id += 1;
            self.scheduler.running.push(Running {
                id,
                ask: prompt.ask.clone(),
                choice,
                conversation,
                prompt: prompt.prompt,
                cached: prompt.cached,
                forks: 0,
                keys: vec![],
                base: prompt.base,
                granted,
                until: prompt.until,
                lowered: prompt.lowered,
                generated: 0,
                file: None,
                reported: Instant::now(),
                finish: None,
            });
            let index = self.scheduler.running.len() - 1;
            if self.take_ready(index) {
                let running = self.scheduler.running.remove(index);
                self.end(running);
            }
        }
        self.release(prompt.granted, prompt.base);
    }

    /// The answer `choice`, ready to go on.
    fn forked(&self, prompt: &mut Running, choice: usize) -> Result<Conversation, ApiError> {
        let Job { sampling, options, .. } = &prompt.ask.job;
        let mut generation = prompt.conversation.generation().fork(&self.model)?;
        generation.reseed(sampling.seed.wrapping_add(choice as u64));
        let mut conversation = Conversation::over(generation, String::new());
        conversation.go_on(&self.model, &[], String::new(), options)?;
        Ok(conversation)
    }

    /// Says so if a cache takes more than it was granted, which must not be.
    fn check_grant(&self, running: &Running) {
        let (taken, granted) = (running.conversation.cache().ledger().total(), running.granted);
        if taken > granted {
            self.metrics.overruns.inc();
            let spec = running.conversation.cache().spec();
            tracing::error!(%spec, taken, granted, tokens = running.position(), "a cache takes more than it was granted");
        }
    }

    /// Gives back what an answer held.
    fn release(&mut self, granted: usize, base: Option<prefixes::Key>) {
        self.pool.give(granted);
        if let Some(base) = base {
            self.prefixes.leave(base);
        }
    }

    /// An answer is over: its bytes are free, its session is written, and whoever waits is told.
    fn end(&mut self, running: Running) {
        self.check_grant(&running);
        if running.conversation.cache().has_evicted() {
            self.metrics.evictions.inc();
        }
        let Running { ask, choice, conversation, base, granted, file, finish, .. } = running;
        self.release(granted, base);
        ask.left.set(ask.left.get() - 1);
        let _ =
            ask.job.events.try_send(Event::Done { choice, finish: finish.unwrap_or(Finish::Interrupted) });
        ask.usage.borrow_mut().kv = Some(Kv::of(conversation.cache()));
        match (file, &ask.job.session) {
            (Some(file), Some(name)) => self.save(name.clone(), file, conversation, &ask),
            _ if ask.left.get() == 0 => over(&ask, None),
            _ => {}
        }
    }

    /// Writes a session; whoever waits is told when it is written.
    fn save(&mut self, name: String, file: SessionFile, conversation: Conversation, ask: &Rc<Ask>) {
        let (conversation, sent) = self.sessions.save(&name, file, conversation, &self.model);
        let bytes = conversation.cache().ledger().total();
        // It was granted at least so much until now.
        let bytes = if self.pool.take(bytes) { bytes } else { 0 };
        match sent {
            Ok(()) => {
                self.saving.insert(name, (conversation, bytes, Some(ask.clone())));
            }
            Err(error) => {
                self.sessions.rest(name.clone(), conversation, None, bytes);
                over(ask, Some(SessionUsage { name, file_bytes: None, error: Some(error.message) }));
            }
        }
    }

    fn written(&mut self, written: Written) {
        let Written { name, bytes: file_bytes, stamp, result } = written;
        let Some((conversation, bytes, ask)) = self.saving.remove(&name) else { return };
        let saved = result.is_ok();
        self.metrics.session_writes.inc();
        if !saved {
            self.metrics.session_failures.inc();
        }
        let usage = SessionUsage {
            name: name.clone(),
            file_bytes: saved.then_some(file_bytes),
            error: result.err().map(|error| error.to_string()),
        };
        self.sessions.rest(name, conversation, stamp.filter(|_| saved), bytes);
        if let Some(ask) = ask {
            over(&ask, Some(usage));
        }
    }

    // What is asked beside.

    fn restore(&mut self, name: &str) -> Result<SlotDone, ApiError> {
        if self.sessions.is_busy(name) {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                format!("an answer of the session {name} goes on"),
            ));
        }
        let Opened { file, conversation, held, stamp } =
            self.sessions.open(name, &self.model, &Sampling::greedy())?;
        self.pool.give(held);
        let Some(conversation) = conversation else {
            self.sessions.leave(name);
            return Err(ApiError::new(StatusCode::NOT_FOUND, format!("there is no session {name}")));
        };
        let bytes = conversation.cache().ledger().total();
        if !(self.make_room(bytes) && self.pool.take(bytes)) {
            self.sessions.leave(name);
            return Err(ApiError::busy(format!("there are no {bytes} bytes free for the session {name}"), 5));
        }
        let file_bytes = std::fs::metadata(file.path()).map_or(0, |metadata| metadata.len() as usize);
        let tokens = conversation.cache().position();
        self.sessions.rest(name.to_owned(), conversation, stamp, bytes);
        Ok(SlotDone { session: name.to_owned(), tokens, file_bytes })
    }

    fn erase(&mut self, name: &str) -> Result<(), ApiError> {
        if self.sessions.is_busy(name) {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                format!("an answer of the session {name} goes on"),
            ));
        }
        let held = self.sessions.erase(name)?;
        self.pool.give(held);
        Ok(())
    }

    fn inspect(&self) -> Inspection {
        let waiting = self.scheduler.waiting.iter().map(|job| Slot {
            id: None,
            session: job.session.clone(),
            state: "waiting",
            prompt_tokens: job.prompt.tokens.len(),
            cached_tokens: 0,
            completion_tokens: 0,
            granted_bytes: 0,
            lowered: false,
            kv: None,
        });
        let idle = self.sessions.idle().map(|(name, cache, bytes)| Slot {
            id: None,
            session: Some(name.to_owned()),
            state: "idle",
            prompt_tokens: cache.position(),
            cached_tokens: cache.position(),
            completion_tokens: 0,
            granted_bytes: bytes,
            lowered: false,
            kv: Some(Kv::of(cache)),
        });
        Inspection {
            slots: self.scheduler.running.iter().map(Running::slot).chain(waiting).chain(idle).collect(),
            waiting: self.scheduler.waiting.len(),
            memory: KvMemory { limit: self.pool.limit(), used: self.pool.used() },
            prefixes: self.prefixes.len(),
            prefix_bytes: self.prefixes.bytes(),
            sessions: self.sessions.folder().map(SessionFolder::names).unwrap_or_default(),
            workspace_bytes: self.workspace.bytes(),
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
struct Start {
    conversation: Conversation,
    /// Tokens to run.
    fresh: Vec<u32>,
    /// Tokens whose state is there.
    cached: usize,
    keys: Vec<prefixes::Key>,
    base: Option<prefixes::Key>,
    file: Option<SessionFile>,
    /// Of a session that rests in memory, the version of its file.
    rests: Option<Option<Stamp>>,
}

/// Whether a cache can be made to take fewer bytes while it is in use, its request having named no bytes of its own.
fn is_elastic(cache: &Cache) -> bool {
    let spec = cache.spec();
    spec.cap == Cap::None && spec.keep.method().name != "full"
}

/// The most bytes that a cache takes up to so many tokens.
fn needed(cache: &Cache, tokens: usize) -> usize {
    cache.most_bytes(tokens).max(cache.ledger().total())
}

/// The fewest bytes that it is made to take for others.
fn least(cache: &Cache, tokens: usize) -> usize {
    (cache.shape().f16_bytes(tokens) / 100 * LEAST_PERCENT).max(cache.floor_bytes())
}

fn too_large(cache: &Cache, least: usize, limit: usize, tokens: usize, elastic: bool) -> ApiError {
    let way_out =
        if elastic { "ask for fewer tokens" } else { "ask for fewer tokens, or for the cache `auto`" };
    ApiError::param(
        "kv",
        format!(
            "`{}` takes {least} bytes for {tokens} tokens, and the server has {limit} (--kv-memory): {way_out}",
            cache.spec()
        ),
    )
}

fn too_long() -> ApiError {
    let message = "the answer took longer than the server allows (--timeout): ask for fewer tokens";
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, message)
}

fn fail(job: &Job, error: ApiError) {
    let _ = job.events.try_send(Event::Failed(error));
}

/// Whoever waits is told that all answers are over.
fn over(ask: &Ask, session: Option<SessionUsage>) {
    let mut usage = ask.usage.borrow().clone();
    usage.session = session;
    usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
    let _ = ask.job.events.try_send(Event::Over(Box::new(usage)));
}
