//! The view of an exchange, from a daemon, or from the base directories by `inspect`.
//!
//! Does: hold it, print it as text. Does not: send requests. Invariant: the JSON of both is the
//! same, and its members are those of `GET /v1/exchanges/{exchange}`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::table::{Table, seconds, utc};
use crate::human::{count, size};
use crate::telemetry::logs::printable_json;

/// What one base directory holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ShareView {
    pub base: String,
    pub marker: bool,
    pub segments: u64,
    pub bytes: u64,
}

/// An exchange in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ListedView {
    pub exchange: String,
    pub query: String,
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_left_seconds: Option<u64>,
    pub bytes: u64,
    pub base_directories: Vec<ShareView>,
}

/// A committed attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CommittedView {
    pub task: u32,
    pub attempt: u32,
    pub pages: u64,
    pub bytes: u64,
    pub segment: String,
}

/// A segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SegmentView {
    pub segment: String,
    pub daemon: String,
    pub base: String,
    pub size: u64,
    pub sealed_millis: u64,
}

/// An exchange with all that it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ExchangeView {
    #[serde(flatten)]
    pub listed: ListedView,
    pub committed: Vec<CommittedView>,
    pub segments: Vec<SegmentView>,
}

impl ExchangeView {
    /// The JSON form.
    pub(super) fn as_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("a struct of texts and numbers");
        printable_json(&format!("{text}\n"))
    }

    /// The text form.
    pub(super) fn as_text(&self) -> String {
        let listed = &self.listed;
        let mut out = String::new();
        let _ = writeln!(out, "exchange  {}", listed.exchange);
        let _ = writeln!(out, "query     {}", listed.query);
        let order = listed.ordered.map(|ordered| match ordered {
            true => "order kept",
            false => "order not kept",
        });
        let partitions = listed.partitions.zip(order);
        let partitions = partitions.map_or_else(String::new, |(number, order)| {
            format!(", {}, {order}", count(number, "partition"))
        });
        let _ = writeln!(out, "state     {}{partitions}", listed.state);
        let _ = writeln!(out, "age       {}", seconds(listed.age_seconds));
        let lease = seconds(listed.lease_seconds);
        let left = seconds(listed.lease_left_seconds);
        let _ = writeln!(out, "lease     {lease}, left at the last sweep: {left}");
        let segments = count(self.segments.len(), "segment");
        let _ = writeln!(out, "size      {} in {segments}\n", size(listed.bytes));
        out.push_str(&self.bases().render());
        out.push('\n');
        out.push_str(&self.daemons().render());
        out.push('\n');
        out.push_str(&self.attempts().render());
        out.push('\n');
        out.push_str(&self.segment_table().render());
        out
    }

    fn bases(&self) -> Table {
        let mut table = Table::new(&["base directory", ">segments", ">size", "marker"]);
        for share in &self.listed.base_directories {
            let marker = if share.marker { "yes" } else { "no" };
            table.add([
                share.base.clone(),
                share.segments.to_string(),
                size(share.bytes),
                marker.to_owned(),
            ]);
        }
        table
    }

    /// The daemons that wrote it.
    fn daemons(&self) -> Table {
        let mut sums: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
        let mut writers: BTreeMap<&str, &str> = BTreeMap::new();
        for segment in &self.segments {
            let sum = sums.entry(&segment.daemon).or_default();
            (sum.0, sum.1) = (sum.0 + 1, sum.1 + segment.size);
            writers.insert(&segment.segment, &segment.daemon);
        }
        for committed in &self.committed {
            if let Some(daemon) = writers.get(committed.segment.as_str()) {
                sums.entry(daemon).or_default().2 += 1;
            }
        }
        let mut table = Table::new(&["written by run", ">segments", ">size", ">attempts"]);
        for (daemon, (segments, bytes, attempts)) in sums {
            table.add([
                daemon.to_owned(),
                segments.to_string(),
                size(bytes),
                attempts.to_string(),
            ]);
        }
        table
    }

    fn attempts(&self) -> Table {
        let headings = [">task", ">attempt", ">pages", ">page bytes", "committed in"];
        let mut table = Table::new(&headings);
        for done in &self.committed {
            table.add([
                done.task.to_string(),
                done.attempt.to_string(),
                done.pages.to_string(),
                size(done.bytes),
                done.segment.clone(),
            ]);
        }
        table
    }

    fn segment_table(&self) -> Table {
        let mut table = Table::new(&["segment", ">size", "base directory", "sealed"]);
        for segment in &self.segments {
            table.add([
                segment.segment.clone(),
                size(segment.size),
                segment.base.clone(),
                utc(segment.sealed_millis),
            ]);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: as for `stopover reload --json`.
    #[test]
    fn json_of_an_exchange_cannot_control_the_terminal() {
        let listed = serde_json::json!({
            "exchange": "e", "query": "q", "state": "open\u{9b}2J", "bytes": 0,
            "base_directories": [], "committed": [], "segments": [],
        });
        let view: ExchangeView = serde_json::from_value(listed.clone()).unwrap();
        let text = view.as_json();
        assert!(text.contains("open\\u009b2J"), "{text}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, listed);
    }
}
