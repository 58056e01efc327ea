//! Lists in JSON bodies.
//!
//! Does: read the items in place, end at the first that is invalid or one too many. Does not: know
//! the bodies. Invariant: a list of attempts, while it grows, and its text need at most
//! [`JSON_EXPANSION`] times as much memory as the text alone, whatever it is; of other items, only
//! one exists as text.
//!
//! [`JSON_EXPANSION`]: crate::api::limits::JSON_EXPANSION

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};

use crate::id::{DaemonId, InvalidId, MAX_TASKS, TaskAttempt};

/// Most runs of daemons in a request: more than a fleet has, also if each has been restarted often.
const MAX_RUNS: usize = 4096;

/// An item of a list in a JSON body.
pub(crate) trait ListItem: Sized {
    /// How it is written.
    type Written: DeserializeOwned;
    /// Most items of a list.
    const MOST: usize;
    /// What the items are, for a problem.
    const ITEMS: &'static str;

    /// # Errors
    /// If it is invalid.
    fn parse(written: Self::Written) -> Result<Self, InvalidId>;
}

/// A pair of task and attempt. A request chooses each task once.
impl ListItem for TaskAttempt {
    type Written = (u32, u32);
    const MOST: usize = MAX_TASKS as usize;
    const ITEMS: &'static str = "attempts";

    fn parse((task, attempt): (u32, u32)) -> Result<Self, InvalidId> {
        Self::new(task, attempt)
    }
}

impl ListItem for DaemonId {
    type Written = String;
    const MOST: usize = MAX_RUNS;
    const ITEMS: &'static str = "runs of daemons";

    fn parse(written: String) -> Result<Self, InvalidId> {
        written.parse()
    }
}

/// Reads a list; for `#[serde(deserialize_with = "list")]`.
///
/// # Errors
/// At the first item that is invalid, or one too many.
pub(crate) fn list<'de, D: Deserializer<'de>, T: ListItem>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Items(PhantomData))
}

struct Items<T>(PhantomData<T>);

impl<'de, T: ListItem> Visitor<'de> for Items<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", T::ITEMS)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(written) = sequence.next_element::<T::Written>()? {
            if items.len() == T::MOST {
                let what = format_args!("there are more than {} {}", T::MOST, T::ITEMS);
                return Err(A::Error::custom(what));
            }
            if items.len() == items.capacity() {
                // By a quarter: while a vector is moved, both copies exist.
                items.reserve_exact((items.len() / 4).max(16));
            }
            items.push(T::parse(written).map_err(A::Error::custom)?);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::api::limits::JSON_EXPANSION;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Lists {
        #[serde(deserialize_with = "list")]
        attempts: Vec<TaskAttempt>,
        #[serde(deserialize_with = "list")]
        runs: Vec<DaemonId>,
    }

    fn read(name: &str, item: &str, count: usize) -> Result<(Lists, usize), String> {
        let text = format!("{{{name:?}:[{}]}}", vec![item; count].join(","));
        let lists = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        Ok((lists, text.len()))
    }

    /// The most memory that a vector of this capacity and its text needed at a time.
    fn peak<T>(items: &Vec<T>, text: usize) -> u64 {
        let before = items.capacity() * 4 / 5;
        (text + (before + items.capacity()) * size_of::<T>()) as u64
    }

    #[test]
    fn the_densest_lists_need_no_more_memory_than_is_reserved_for_their_bodies() {
        // Also just after the vector has grown.
        for count in (2_000..60_000).step_by(997).chain([1 << 20]) {
            let (lists, text) = read("attempts", "[0,0]", count).unwrap();
            assert_eq!(lists.attempts.len(), count);
            let most = JSON_EXPANSION * text as u64;
            assert!(peak(&lists.attempts, text) <= most, "{count} attempts");
            let count = count.min(DaemonId::MOST);
            let (lists, text) = read("runs", "\"0123456789abcdef\"", count).unwrap();
            assert_eq!(lists.runs.len(), count);
            let most = JSON_EXPANSION * text as u64;
            assert!(peak(&lists.runs, text) <= most, "{count} runs");
        }
    }

    /// Story: a body of 4 MiB named a million daemons of one letter each, and took 60 MB before the
    /// first was refused.
    #[test]
    fn the_first_item_that_is_invalid_or_too_many_ends_the_list() {
        for (name, item, count, expected) in [
            (
                "runs",
                "\"a\"",
                1 << 20,
                "run of a daemon \"a\": a run is 16 hexa",
            ),
            ("runs", "\"a\"", 1 << 20, "line 1 column 13"),
            (
                "runs",
                "\"0123456789abcdef\"",
                4097,
                "more than 4096 runs of daemons",
            ),
            ("runs", "7", 1, "expected a string"),
            ("attempts", "[0,128]", 9, "an attempt is at most 127"),
            ("attempts", "[1048576,0]", 9, "a task is below 1048576"),
            ("attempts", "[0,0]", 1_048_577, "more than 1048576 attempts"),
            ("attempts", "[0,0,0]", 1, "trailing characters"),
        ] {
            let refused = read(name, item, count).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
        let text = "{\"runs\": \"0123456789abcdef\"}";
        let refused = serde_json::from_str::<Lists>(text).unwrap_err().to_string();
        assert!(refused.contains("a list of runs of daemons"), "{refused}");
    }
}
