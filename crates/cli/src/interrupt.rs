//! Ctrl-C: the first asks the work to stop at the next token, the second ends the program.

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
