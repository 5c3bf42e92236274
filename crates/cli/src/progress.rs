//! Progress bars with time left, on standard error.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sketchkv_eval::{Progress, Step};

/// An empty bar; it draws itself only where standard error is a terminal.
pub(crate) fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {eta:>4} left  {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Shows the steps of an evaluation on `bar`.
pub(crate) fn shown_on(bar: &ProgressBar) -> impl Progress {
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
