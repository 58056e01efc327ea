//! The last warnings and errors of the log, for the dashboard.
//!
//! Does: store the newest event of each message with the number of its repetitions. Does not: write
//! the log (`logs`). Invariant: at most [`CAPACITY`] messages of bounded length are held; like the
//! log, they contain no secrets.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::logs::escape::{Notation, escape};
use crate::runtime::Clock;

/// Messages that are stored.
pub const CAPACITY: usize = 50;
/// Longest details of a message, in bytes.
const MAX_DETAILS: usize = 600;

/// A message of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recent {
    pub is_error: bool,
    /// The constant part.
    pub message: String,
    /// The fields of its newest occurrence.
    pub details: String,
    pub count: u64,
    /// Milliseconds since 1970.
    pub first_millis: u64,
    pub last_millis: u64,
}

/// The messages. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RecentProblems(Arc<Mutex<VecDeque<Recent>>>);

impl RecentProblems {
    /// The messages, the newest first.
    pub fn newest_first(&self) -> Vec<Recent> {
        self.0.lock().iter().rev().cloned().collect()
    }

    fn record(&self, new: Recent) {
        let mut all = self.0.lock();
        let known = |known: &Recent| known.is_error == new.is_error && known.message == new.message;
        let merged = match all.iter().position(known).and_then(|at| all.remove(at)) {
            Some(before) => Recent {
                count: before.count + 1,
                first_millis: before.first_millis,
                ..new
            },
            None => new,
        };
        if all.len() >= CAPACITY {
            all.pop_front();
        }
        all.push_back(merged);
    }

    /// The layer of the log that records them.
    pub fn layer<S: Subscriber>(&self, clock: Clock) -> impl Layer<S> + use<S> {
        Recorder {
            problems: self.clone(),
            clock,
        }
    }
}

struct Recorder {
    problems: RecentProblems,
    clock: Clock,
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let now = self.clock.wall_millis();
        self.problems.record(Recent {
            is_error: level == Level::ERROR,
            message: escape(&text.message, Notation::Rust).to_string(),
            details: escape(&text.details, Notation::Rust).to_string(),
            count: 1,
            first_millis: now,
            last_millis: now,
        });
    }
}

#[derive(Default)]
struct Text {
    message: String,
    details: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let (text, prefix) = match field.name() {
            "message" => (&mut self.message, String::new()),
            name => (&mut self.details, format!("{name}: ")),
        };
        if text.len() >= MAX_DETAILS {
            return;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        let _ = write!(text, "{prefix}{value:?}");
        let mut end = text.len().min(MAX_DETAILS);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    fn recorded(log: impl FnOnce()) -> Vec<Recent> {
        let problems = RecentProblems::default();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let layer = problems.layer(Clock::with_fixed_wall(wall));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, log);
        problems.newest_first()
    }

    #[test]
    fn warnings_and_errors_are_kept_and_nothing_below() {
        let recent = recorded(|| {
            tracing::info!("served");
            tracing::warn!(base = "main", error = %"no\u{7}", "left out");
            tracing::error!("lost");
        });
        let messages: Vec<_> = recent.iter().map(|r| (r.is_error, &*r.message)).collect();
        assert_eq!(messages, [(true, "lost"), (false, "left out")]);
        assert_eq!(recent[1].details, "base: main; error: no\\u{7}");
        assert_eq!(recent[1].last_millis, 7000);
    }

    #[test]
    fn a_repeated_message_is_counted_and_shown_with_its_newest_details() {
        let recent = recorded(|| {
            for n in 0..3 {
                tracing::warn!(n, "again");
                tracing::warn!("other");
            }
        });
        assert_eq!(recent.len(), 2);
        assert_eq!((recent[1].count, &*recent[1].details), (3, "n: 2"));
    }

    #[test]
    fn many_and_long_messages_stay_bounded() {
        let recent = recorded(|| {
            for n in 0..1000 {
                let long = "x".repeat(100_000);
                tracing::error!(long, "message {n}");
            }
        });
        assert_eq!(recent.len(), CAPACITY);
        assert_eq!(recent[0].message, "message 999");
        assert!(recent.iter().all(|r| r.details.len() <= MAX_DETAILS));
    }
}
