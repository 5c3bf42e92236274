//! Signals during work that runs detached from the interpreter.

use crate::error::Failure;
use pyo3::prelude::*;
use sketchkv_engine::catalog;
use sketchkv_eval::{Progress, Step};
use std::time::{Duration, Instant};

/// How often signals are asked for: no more slowly than a person notices.
const INTERVAL: Duration = Duration::from_millis(50);

/// Stops a job when a signal's handler raises.
pub(crate) struct Interrupt {
    asked: Instant,
    raised: Option<PyErr>,
}

impl Interrupt {
    pub(crate) fn new() -> Self {
        Interrupt { asked: Instant::now(), raised: None }
    }

    /// Whether a signal's handler has raised, asked for now and then.
    fn is_raised(&mut self) -> bool {
        if self.raised.is_none() && self.asked.elapsed() >= INTERVAL {
            self.raised = Python::attach(|py| py.check_signals()).err();
            self.asked = Instant::now();
        }
        self.raised.is_some()
    }

    /// What came of a job: what was raised goes before what the job says of it.
    pub(crate) fn outcome<T, E: Into<Failure>>(self, outcome: Result<T, E>) -> Result<T, Failure> {
        match self.raised {
            Some(raised) => Err(Failure::Python(raised)),
            None => outcome.map_err(Into::into),
        }
    }
}

impl Progress for Interrupt {
    fn step(&mut self, _: Step<'_>) {}

    fn stopped(&mut self) -> bool {
        self.is_raised()
    }
}

impl catalog::Progress for Interrupt {
    fn stopped(&mut self) -> bool {
        self.is_raised()
    }
}
