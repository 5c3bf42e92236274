//! The browser that the report is tested in.

use crate::{
    command::in_ci,
    tools::{answers, ensure_program},
};
use anyhow::Result;

/// Under any of these names.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Where nothing may be skipped, Chromium is installed unless a browser is there; elsewhere its test says that it skips.
pub(crate) fn ensure() -> Result<()> {
    if !in_ci() && !BROWSERS.iter().any(|browser| answers(browser)) {
        eprintln!("there is no Chromium: the test of the report in a browser will say that it skips");
        return Ok(());
    }
    ensure_program(&BROWSERS, &["chromium"])
}
