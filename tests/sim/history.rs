//! What clients were told, and what must therefore be true: the checker.
//!
//! Does: note what was sent, answered and seen of every attempt; say which promise an observation
//! breaks. Does not: know segments, daemons' states or faults. Invariant: what is certain stays so:
//! an attempt that was seen or acknowledged is to be seen for ever, one whose abort its only daemon
//! acknowledged is never to be seen; all others may turn visible once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::ReadPage;

/// Pages as they are sent: partition and bytes.
pub type Pages = Vec<(u32, Vec<u8>)>;
/// Task and attempt.
pub type Which = (u32, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// May turn visible if a finish was sent.
    Open,
    /// Acknowledged, or seen.
    Committed,
    /// Acknowledged as aborted by the only run that knew of it.
    Aborted,
}

#[derive(Debug)]
pub struct Attempt {
    pub batches: Vec<Pages>,
    pub finish_sent: bool,
    pub verdict: Verdict,
    /// Runs of daemons that pages or a finish reached.
    pub touched: BTreeSet<u64>,
    /// The run that took the first batch. Others may hold the beginning of the attempt, and speak
    /// for that alone when they are told to abort it.
    pub home: Option<u64>,
}

impl Attempt {
    pub fn pages(&self) -> impl Iterator<Item = &(u32, Vec<u8>)> {
        self.batches.iter().flatten()
    }

    fn of_partition(&self, partition: u32) -> Vec<&[u8]> {
        let mine = self.pages().filter(|page| page.0 == partition);
        mine.map(|page| page.1.as_slice()).collect()
    }
}

#[derive(Debug)]
pub struct Exchange {
    pub partitions: u32,
    pub ordered: bool,
    /// An announcement was acknowledged.
    pub announced: bool,
    /// Somebody asked for its end.
    pub closing: bool,
    /// Its lease may have run out: its coordinator was not heard for too long.
    pub expired: bool,
    renewed: Option<Instant>,
    /// When the coordinator had an answer to a renewal, whatever it said.
    heard: Vec<Instant>,
    pub attempts: BTreeMap<Which, Attempt>,
}

impl Exchange {
    /// Whether every promise holds for it now.
    pub fn lives(&self) -> bool {
        self.announced && !self.closing && !self.expired
    }

    /// Attempts that must be seen now.
    pub fn committed(&self) -> BTreeSet<Which> {
        let committed = |a: &&Attempt| a.verdict == Verdict::Committed;
        let found = self.attempts.iter().filter(|(_, a)| committed(a));
        found.map(|(which, _)| *which).collect()
    }

    /// Whether the coordinator was silent for so long within the last lease that nobody renewed.
    fn look_for_silence(&mut self, lease: Duration) {
        let (Some(renewed), now) = (self.renewed, Instant::now()) else {
            return;
        };
        if now - renewed < lease {
            return;
        }
        let heard = self.heard.iter().copied().filter(|at| *at > renewed);
        let mut last = renewed;
        for at in heard.chain([now]) {
            self.expired |= at - last > lease.mul_f64(0.6);
            last = at;
        }
    }
}

/// All that is known.
#[derive(Debug, Default)]
pub struct History {
    pub exchanges: BTreeMap<String, Exchange>,
    pub lease: Duration,
}

impl History {
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            ..Self::default()
        }
    }

    pub fn begin_exchange(&mut self, name: &str, partitions: u32, ordered: bool) {
        let exchange = Exchange {
            partitions,
            ordered,
            announced: false,
            closing: false,
            expired: false,
            renewed: None,
            heard: Vec::new(),
            attempts: BTreeMap::new(),
        };
        self.exchanges.insert(name.to_owned(), exchange);
    }

    pub fn exchange(&mut self, name: &str) -> &mut Exchange {
        self.exchanges.get_mut(name).expect("a begun exchange")
    }

    pub fn attempt(&mut self, name: &str, which: Which) -> &mut Attempt {
        let attempts = &mut self.exchange(name).attempts;
        attempts.entry(which).or_insert_with(|| Attempt {
            batches: Vec::new(),
            finish_sent: false,
            verdict: Verdict::Open,
            touched: BTreeSet::new(),
            home: None,
        })
    }

    pub fn lives(&mut self, name: &str) -> bool {
        let lease = self.lease;
        let exchange = self.exchange(name);
        exchange.look_for_silence(lease);
        exchange.lives()
    }

    /// An object is stored. What replaces a marker by a tombstone ends the exchange.
    pub fn written(&mut self, key: &str, content: &[u8]) -> Result<(), String> {
        let Some(name) = key.strip_suffix("/exchange.json").and_then(exchange_of) else {
            return Ok(());
        };
        if content.starts_with(b"{\"ended\":") {
            return self.deleted(key);
        }
        let lease = self.lease;
        if let Some(exchange) = self.exchanges.get_mut(name) {
            exchange.look_for_silence(lease);
            exchange.renewed = Some(Instant::now());
        }
        Ok(())
    }

    /// The coordinator had an answer.
    pub fn heard(&mut self, name: &str) {
        self.exchange(name).heard.push(Instant::now());
    }

    /// An object was deleted.
    pub fn deleted(&mut self, key: &str) -> Result<(), String> {
        let lease = self.lease;
        let exchange = exchange_of(key).and_then(|name| self.exchanges.get_mut(name));
        let Some(exchange) = exchange else {
            return Ok(());
        };
        exchange.look_for_silence(lease);
        if exchange.closing || exchange.expired {
            return Ok(());
        }
        Err(format!("promise 6: {key} of a live exchange was deleted"))
    }

    /// A finish was acknowledged, with these counts.
    pub fn finished(&mut self, name: &str, which: Which, answer: Counts) -> Result<(), String> {
        let attempt = self.attempt(name, which);
        if attempt.verdict == Verdict::Aborted {
            return Err(format!("promise 4: {which:?} was aborted, and is finished"));
        }
        attempt.verdict = Verdict::Committed;
        let sent = Counts::of(attempt);
        if sent == answer {
            return Ok(());
        }
        Err(format!(
            "promise 4: finish of {which:?} answers {answer:?}, {sent:?} were sent"
        ))
    }

    /// An abort was acknowledged as such by a run.
    pub fn aborted(&mut self, name: &str, which: Which, by: u64) -> Result<(), String> {
        let lives = self.lives(name);
        let attempt = self.attempt(name, which);
        let holds_another = attempt.touched.contains(&by) && attempt.home != Some(by);
        if attempt.verdict == Verdict::Committed && lives && !holds_another {
            return Err(format!("promise 4: {which:?} is finished, and was aborted"));
        }
        if attempt.touched.iter().all(|run| *run == by) && attempt.verdict == Verdict::Open {
            attempt.verdict = Verdict::Aborted;
        }
        Ok(())
    }

    /// An attempt was seen.
    pub fn seen(&mut self, name: &str, which: Which) -> Result<(), String> {
        let attempt = self.attempt(name, which);
        if attempt.verdict == Verdict::Aborted || !attempt.finish_sent {
            return Err(format!(
                "promise 3: {which:?} is visible: {:?}",
                attempt.verdict
            ));
        }
        attempt.verdict = Verdict::Committed;
        Ok(())
    }

    /// A list of committed attempts was answered; `must` were committed when it was asked for.
    pub fn listed(
        &mut self,
        name: &str,
        must: &BTreeSet<Which>,
        listed: &BTreeMap<Which, (u64, u64)>,
    ) -> Result<(), String> {
        for (which, (pages, bytes)) in listed {
            self.seen(name, *which)?;
            let sent = Counts::of(self.attempt(name, *which));
            if (sent.pages, sent.bytes) != (*pages, *bytes) {
                return Err(format!(
                    "promise 2: {which:?} holds {pages} pages, {bytes} bytes"
                ));
            }
        }
        let missing: Vec<_> = must.iter().filter(|w| !listed.contains_key(w)).collect();
        if missing.is_empty() || !self.lives(name) {
            return Ok(());
        }
        Err(format!(
            "promise 1: {missing:?} are acknowledged and not committed"
        ))
    }

    /// The handles of chosen attempts were read whole: the pages of each handle, in order.
    pub fn read(
        &mut self,
        name: &str,
        chosen: &[Which],
        handles: &[(u32, Vec<ReadPage>)],
    ) -> Result<(), String> {
        let exchange = self.exchange(name);
        for partition in 0..exchange.partitions {
            let mine = handles.iter().filter(|(of, _)| *of == partition);
            if exchange.ordered && mine.clone().count() > 1 {
                return Err(format!(
                    "promise 2: partition {partition} has several handles"
                ));
            }
            let pages: Vec<&ReadPage> = mine.flat_map(|(_, pages)| pages).collect();
            let mut left = pages.len();
            for which in chosen {
                let got = of_attempt(&pages, *which);
                let expected = exchange.attempts[which].of_partition(partition);
                if got != expected {
                    return Err(format!(
                        "promise 2: partition {partition} of {which:?} gave {}, not {}",
                        shown(&got),
                        shown(&expected)
                    ));
                }
                left -= got.len();
            }
            if left > 0 {
                return Err(format!(
                    "promise 2: {left} pages of attempts that are not chosen"
                ));
            }
        }
        Ok(())
    }

    /// A partition was read whole without naming attempts: each task shows one attempt, the newest
    /// that must be seen or one that may be; `must` were committed when it was asked for.
    pub fn read_partition(
        &mut self,
        name: &str,
        partition: u32,
        must: &BTreeSet<Which>,
        pages: &[ReadPage],
    ) -> Result<(), String> {
        let pages: Vec<&ReadPage> = pages.iter().collect();
        let shown_attempts: BTreeSet<Which> = pages.iter().map(|p| (p.task, p.attempt)).collect();
        for which in &shown_attempts {
            self.seen(name, *which)?;
        }
        let exchange = self.exchange(name);
        for which in &shown_attempts {
            let got = of_attempt(&pages, *which);
            if got != exchange.attempts[which].of_partition(partition) {
                return Err(format!(
                    "promise 2: {which:?} is not whole: {}",
                    shown(&got)
                ));
            }
        }
        let tasks: BTreeSet<u32> = must.iter().map(|which| which.0).collect();
        for task in tasks {
            let newest = *must.iter().rfind(|w| w.0 == task).expect("just taken");
            let seen: Vec<_> = shown_attempts.iter().filter(|w| w.0 == task).collect();
            let right = match seen[..] {
                [one] => *one >= newest,
                // One without pages here shows nothing.
                [] => exchange.attempts.iter().any(|(which, attempt)| {
                    which.0 == task
                        && *which >= newest
                        && attempt.of_partition(partition).is_empty()
                }),
                _ => false,
            };
            if !right {
                return Err(format!(
                    "promise 5: partition {partition} shows {seen:?}, {newest:?} is committed"
                ));
            }
        }
        Ok(())
    }
}

/// What a finish claims and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub batches: u64,
    pub pages: u64,
    pub bytes: u64,
}

impl Counts {
    pub fn of(attempt: &Attempt) -> Self {
        Self {
            batches: attempt.batches.len() as u64,
            pages: attempt.pages().count() as u64,
            bytes: attempt.pages().map(|page| page.1.len() as u64).sum(),
        }
    }
}

fn exchange_of(key: &str) -> Option<&str> {
    let rest = key.strip_prefix("v1/")?;
    Some(rest.split_once('/').map_or(rest, |(name, _)| name))
}

fn of_attempt<'a>(pages: &[&'a ReadPage], which: Which) -> Vec<&'a [u8]> {
    let mine = pages.iter().filter(|p| (p.task, p.attempt) == which);
    mine.map(|page| page.page.as_slice()).collect()
}

/// Pages begin with their names.
fn shown(pages: &[&[u8]]) -> String {
    let name = |page: &&[u8]| String::from_utf8_lossy(&page[..page.len().min(24)]).into_owned();
    format!("{:?}", pages.iter().map(name).collect::<Vec<_>>())
}
