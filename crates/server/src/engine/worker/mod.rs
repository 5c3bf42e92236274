//! The engine thread's loop.

mod admission;
mod ending;
mod grants;
mod inspection;
mod passes;

use super::{
    job::{Event, Job},
    pool::Pool,
    prefixes::Prefixes,
    running::{Ask, Running},
    scheduler::Scheduler,
    sessions::{SessionFolder, Sessions, Written},
};
use crate::{
    api::{ApiError, KvMemory, Slot, SlotDone},
    metrics::Metrics,
};
use sketchkv_engine::Conversation;
use sketchkv_model::{Model, Workspace};
use std::{
    collections::HashMap,
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How long the thread sleeps when answers go on and none can: until a reader reads.
const NAP: Duration = Duration::from_millis(5);

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
    /// Tokens of a prompt that are run at once.
    pub(crate) chunk: usize,
    /// Whether an answer that goes on alone guesses its next tokens.
    pub(crate) guesses: bool,
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
    saving: HashMap<String, (Conversation, usize, Rc<Ask>)>,
    workspace: Workspace,
    stop: Option<Instant>,
    /// The first job that waits was refused its bytes, and none have come free since.
    blocked: bool,
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
                stop: None,
                blocked: false,
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
            let round = self.scheduler.round(self.limits.chunk);
            let over = self.run_round(&round);
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

    /// A job goes into the queue, if there is room.
    fn submit(&mut self, job: Job) {
        if self.stop.is_some() {
            return job.say(Event::Failed(ApiError::stopping()));
        }
        if self.scheduler.waiting.len() >= self.limits.queue {
            // Jobs that came together: what can begin does not wait.
            self.admit();
        }
        if self.scheduler.waiting.len() >= self.limits.queue {
            let message = format!(
                "{} requests wait already: try again later, or start the server with a longer --queue",
                self.limits.queue
            );
            self.metrics.refused.inc();
            return job.say(Event::Failed(ApiError::busy(message, 1 + self.limits.queue as u64 / 16)));
        }
        self.scheduler.waiting.push_back(job);
    }

    fn hear(&mut self, command: Command) {
        match command {
            Command::Submit(job) => self.submit(*job),
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
                let waiting = self.scheduler.waiting.drain(..);
                waiting.for_each(|job| job.say(Event::Failed(ApiError::stopping())));
            }
        }
    }
}
