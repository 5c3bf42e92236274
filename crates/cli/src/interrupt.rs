//! Ctrl-C: the first asks the work to stop at the next token, the second ends the program. And being told to end.

use anyhow::{Context, Result};
use std::{
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The exit code of a program ended by Ctrl-C, by convention 128 + SIGINT.
pub(crate) const EXIT: u8 = 130;

/// A flag that the next Ctrl-C sets. To be called once.
pub(crate) fn flag() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&flag);
    let handler = move || {
        if set.swap(true, Ordering::SeqCst) {
            process::exit(EXIT.into());
        }
    };
    ctrlc::set_handler(handler).context("cannot watch for Ctrl-C")?;
    Ok(flag)
}

/// Being told to end, by SIGTERM: at once while there is nothing to save, else when the work has come to a stop.
pub(crate) struct Termination {
    /// It was told to.
    pub(crate) told: Arc<AtomicBool>,
    /// There is nothing to save.
    pub(crate) idle: Arc<AtomicBool>,
}

impl Termination {
    /// The exit code of a program that was told to end: 128 + SIGTERM.
    pub(crate) const EXIT: u8 = 143;

    /// To be called after [`flag`], which stops the work on this signal, too.
    pub(crate) fn watch() -> Result<Termination> {
        let termination = Termination { told: Arc::default(), idle: Arc::default() };
        #[cfg(unix)]
        {
            use signal_hook::{consts::SIGTERM, flag};
            let Termination { told, idle } = &termination;
            flag::register_conditional_shutdown(SIGTERM, Self::EXIT.into(), idle.clone())
                .and_then(|_| flag::register(SIGTERM, told.clone()))
                .context("cannot watch for being told to end")?;
        }
        Ok(termination)
    }
}
