//! The outcomes that docs/stores.tsv claims, and the table that docs/stores.md shows of them.
//!
//! Does: read, compare, write. Does not: decide an outcome (`checks`). Invariant: a cell of the
//! table is an entry of the file, and an entry is written only with the outcome of a check that
//! just ran. `tests/docs.rs` compares the two files, too.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::checks::Check;
use crate::fetch::repository;
use crate::store::Store;

const BEGIN: &str = "<!-- written by `cargo test --test stores -- --record` -->\n";
const END: &str = "<!-- end of what is written -->\n";

/// One outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub store: String,
    pub check: String,
    pub version: String,
    pub date: String,
    pub outcome: String,
}

impl Entry {
    /// An outcome of today.
    pub fn new(store: Store, check: Check, outcome: String) -> Result<Self> {
        let date = Command::new("date").args(["-u", "+%F"]).output()?;
        Ok(Self {
            store: store.name().into(),
            check: check.name().into(),
            version: store.version()?,
            date: String::from_utf8(date.stdout)?.trim().into(),
            outcome,
        })
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split('\t').map(str::to_owned);
        Some(Self {
            store: words.next()?,
            check: words.next()?,
            version: words.next()?,
            date: words.next()?,
            outcome: words.next()?,
        })
    }

    fn line(&self) -> String {
        let Self {
            store,
            check,
            version,
            date,
            outcome,
        } = self;
        format!("{store}\t{check}\t{version}\t{date}\t{outcome}\n")
    }
}

pub struct Table(Vec<Entry>);

fn file(name: &str) -> PathBuf {
    repository().join("docs").join(name)
}

impl Table {
    pub fn read() -> Result<Self> {
        let path = file("stores.tsv");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let lines = text.lines().skip(1);
        let entries = lines.map(|line| Entry::parse(line).with_context(|| line.to_owned()));
        Ok(Self(entries.collect::<Result<_>>()?))
    }

    fn find(&self, store: &str, check: &str) -> Option<&Entry> {
        let mut entries = self.0.iter();
        entries.find(|entry| entry.store == store && entry.check == check)
    }

    /// That an outcome is the claimed one, of the same version.
    pub fn agrees(&self, found: &Entry) -> Result<()> {
        let claimed = self.find(&found.store, &found.check).with_context(|| {
            format!("{:?}, which docs/stores.tsv does not claim", found.outcome)
        })?;
        ensure!(
            (&claimed.outcome, &claimed.version) == (&found.outcome, &found.version),
            "docs/stores.tsv claims {:?} of {}, and it is {:?} of {}: --record writes that down",
            claimed.outcome,
            claimed.version,
            found.outcome,
            found.version
        );
        Ok(())
    }

    /// Replaces the entry of one check of a store, or removes it, and writes both files. Another
    /// run may have written them meanwhile.
    pub fn record(&mut self, store: Store, check: Check, found: Option<&Entry>) -> Result<()> {
        *self = Self::read()?;
        let is_old = |entry: &Entry| entry.store == store.name() && entry.check == check.name();
        self.0.retain(|entry| !is_old(entry));
        self.0.extend(found.cloned());
        let order = |entry: &Entry| {
            let store = Store::ALL
                .iter()
                .position(|store| store.name() == entry.store);
            let check = Check::ALL
                .iter()
                .position(|check| check.name() == entry.check);
            (store, check)
        };
        self.0.sort_by_key(order);
        let lines: String = self.0.iter().map(Entry::line).collect();
        let text = format!("store\tcheck\tversion\tdate\toutcome\n{lines}");
        std::fs::write(file("stores.tsv"), text)?;
        let page = std::fs::read_to_string(file("stores.md"))?;
        let (before, rest) = page.split_once(BEGIN).context(BEGIN)?;
        let (_, after) = rest.split_once(END).context(END)?;
        let page = format!("{before}{BEGIN}\n{}\n{END}{after}", self.rendered());
        Ok(std::fs::write(file("stores.md"), page)?)
    }

    fn rendered(&self) -> String {
        let mut text = "| store |".to_owned();
        for check in Check::ALL {
            let _ = write!(text, " {} |", check.title());
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(Check::ALL.len()));
        for store in Store::ALL {
            let mut versions: Vec<_> = self.0.iter().filter(|e| e.store == store.name()).collect();
            versions.dedup_by_key(|entry| entry.version.clone());
            if versions.is_empty() {
                continue;
            }
            let versions: Vec<_> = versions.iter().map(|entry| &*entry.version).collect();
            let (service, name) = (store.service(), store.name());
            let _ = write!(text, "\n| {service}: {name} {} |", versions.join(", "));
            for check in Check::ALL {
                match self.find(store.name(), check.name()) {
                    Some(entry) => {
                        let _ = write!(text, " {}, {} |", entry.outcome, entry.date);
                    }
                    None => text.push_str(" not tried |"),
                }
            }
        }
        text + "\n"
    }
}
