//! Progress bars with time left, on standard error.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sketchkv_engine::catalog;
use sketchkv_eval::{Progress, Step};

/// An empty bar; it draws itself only where standard error is a terminal.
pub(crate) fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {eta:>4} left  {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Shows the steps of an evaluation on a bar that goes when it ends.
pub(crate) fn shown<T>(evaluation: impl FnOnce(&mut dyn Progress) -> T) -> T {
    let bar = bar();
    let done = evaluation(&mut shown_on(&bar));
    bar.finish_and_clear();
    done
}

/// Shows the steps of an evaluation on `bar`.
fn shown_on(bar: &ProgressBar) -> impl Progress {
    let mut shown = String::new();
    move |step: Step<'_>| {
        bar.set_length(step.total);
        bar.set_position(step.done);
        if shown != step.what {
            shown = step.what.to_owned();
            bar.set_message(shown.clone());
        }
    }
}

/// Shows a pull; quiet, or where standard error is no terminal, without a bar.
pub(crate) struct PullBar {
    bar: ProgressBar,
    quiet: bool,
}

impl PullBar {
    pub(crate) fn new(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        PullBar { bar, quiet }
    }
}

impl catalog::Progress for PullBar {
    fn begin(&mut self, file: &str, bytes: Option<u64>) {
        self.bar.reset();
        self.bar.set_length(bytes.unwrap_or(0));
        self.bar.set_message(file.to_owned());
    }

    fn reached(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    fn note(&mut self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }
}
