//! Progress of long commands: a bar on stderr if that is a terminal, and nothing otherwise.
//!
//! Does: draw. Does not: measure progress. Invariant: stdout is never written to, and nothing is
//! left on the terminal once it is dropped.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar, or a line with a spinner.
pub(super) struct Progress(ProgressBar);

/// Whether people see progress.
pub(super) fn is_visible() -> bool {
    std::io::stderr().is_terminal()
}

impl Progress {
    /// A bar for so many steps.
    pub(super) fn bar(steps: u64, what: &'static str) -> Self {
        Self::new(Some(steps), "{msg} [{wide_bar}] {pos}/{len}", what)
    }

    /// A bar for seconds.
    pub(super) fn seconds(length: Duration, what: &'static str) -> Self {
        let style = "{msg} [{wide_bar}] {pos}/{len} s, {eta} left";
        Self::new(Some(length.as_secs()), style, what)
    }

    /// A line that shows that something is in progress.
    pub(super) fn spinner(what: impl Into<String>) -> Self {
        let spinner = Self::new(None, "{spinner} {msg} ({elapsed})", what);
        spinner.0.enable_steady_tick(Duration::from_millis(100));
        spinner
    }

    fn new(steps: Option<u64>, style: &str, what: impl Into<String>) -> Self {
        // It draws nothing where stderr is not a terminal.
        let bar = ProgressBar::with_draw_target(steps, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(style).expect("a template of ours");
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(what.into());
        Self(bar)
    }

    pub(super) fn advance(&self, steps: u64) {
        self.0.inc(steps);
    }

    pub(super) fn set(&self, position: u64) {
        self.0.set_position(position);
    }

    pub(super) fn message(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
