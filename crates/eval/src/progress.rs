use crate::EvalError;

/// How far a job is, told by whoever runs it to whoever shows it.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// What runs now: a spec, a task.
    pub what: &'a str,
    /// Units done, of work of about equal cost.
    pub done: u64,
    /// Units in all.
    pub total: u64,
}

/// Hears of progress, many times a second.
pub trait Progress {
    /// Work has come to `step`.
    fn step(&mut self, step: Step<'_>);

    /// Whether the job is to stop; asked after every step.
    fn stopped(&mut self) -> bool {
        false
    }
}

impl<F: FnMut(Step<'_>)> Progress for F {
    fn step(&mut self, step: Step<'_>) {
        self(step);
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: Step<'_>) {}
}

/// Counts units of work under changing names.
pub(crate) struct Counter<'a> {
    progress: &'a mut dyn Progress,
    what: String,
    done: u64,
    total: u64,
}

impl<'a> Counter<'a> {
    pub(crate) fn new(progress: &'a mut dyn Progress, total: u64) -> Self {
        Counter { progress, what: String::new(), done: 0, total }
    }

    pub(crate) fn begin(&mut self, what: impl Into<String>) {
        self.what = what.into();
        self.reach(self.done);
    }

    /// # Errors
    /// When the job is to stop.
    pub(crate) fn add(&mut self, units: usize) -> Result<(), EvalError> {
        self.reach(self.done + units as u64);
        if self.progress.stopped() { Err(EvalError::Stopped) } else { Ok(()) }
    }

    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// `done` units are done, those that were not needed included.
    pub(crate) fn reach(&mut self, done: u64) {
        self.done = done;
        self.progress.step(Step { what: &self.what, done: self.done, total: self.total.max(self.done) });
    }
}
