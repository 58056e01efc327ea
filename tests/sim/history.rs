//! The checker: what clients sent and observed, and what must therefore be true.
//!
//! Does: record what was sent, answered and observed of every attempt; report which promise an
//! observation breaks. Does not: know segments, daemons' states or faults. Invariant: a committed
//! attempt (observed or acknowledged) stays visible forever; an attempt stays invisible once its
//! only daemon has acknowledged an abort; every other attempt may become visible once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stopover::id::ExchangeId;
use stopover::store::keys::{self, Key, OwnObject};
use tokio::time::Instant;

use crate::wire::ReadPage;

/// Pages in the order in which they are sent: partition and bytes.
pub type Pages = Vec<(u32, Vec<u8>)>;
/// Task and attempt.
pub type AttemptId = (u32, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptState {
    /// May become visible if a finish was sent.
    Open,
    /// Its finish was acknowledged, or it was observed.
    Committed,
    /// Its abort was acknowledged by the only run that it had reached.
    Aborted,
}

#[derive(Debug)]
pub struct Attempt {
    pub batches: Vec<Pages>,
    pub finish_sent: bool,
    pub state: AttemptState,
    /// Runs of daemons that pages or a finish reached.
    pub reached: BTreeSet<u64>,
    /// The run that accepted the first batch. Other runs may hold a prefix of the attempt; an abort
    /// there concerns only that prefix.
    pub first_run: Option<u64>,
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
    /// An announcement was acknowledged, and its marker is durable.
    pub announced: bool,
    /// A close was sent, or renewals stopped on purpose.
    pub closing: bool,
    /// Its lease may have run out: its coordinator had no answer for too long.
    pub expired: bool,
    /// As the last announcement was answered.
    pub lease: Duration,
    renewed: Option<Instant>,
    /// When the coordinator had an answer to a renewal, even an error.
    contacts: Vec<Instant>,
    pub attempts: BTreeMap<AttemptId, Attempt>,
}

impl Exchange {
    /// Whether all promises apply to it now.
    pub fn is_live(&self) -> bool {
        self.announced && !self.closing && !self.expired
    }

    /// Attempts that must be visible now.
    pub fn committed(&self) -> BTreeSet<AttemptId> {
        let committed = |a: &&Attempt| a.state == AttemptState::Committed;
        let found = self.attempts.iter().filter(|(_, a)| committed(a));
        found.map(|(id, _)| *id).collect()
    }

    /// Sets `expired` if the last renewal is a lease ago and the coordinator has since been without
    /// an answer for more than 0.6 of a lease.
    fn update_expiry(&mut self) {
        let lease = self.lease;
        let (Some(renewed), now) = (self.renewed, Instant::now()) else {
            return;
        };
        if now - renewed < lease {
            return;
        }
        let contacts = self.contacts.iter().copied().filter(|at| *at > renewed);
        let mut last = renewed;
        for at in contacts.chain([now]) {
            self.expired |= at - last > lease.mul_f64(0.6);
            last = at;
        }
    }
}

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

    pub fn add_exchange(&mut self, name: &str, partitions: u32, ordered: bool) {
        let exchange = Exchange {
            partitions,
            ordered,
            announced: false,
            closing: false,
            expired: false,
            lease: self.lease,
            renewed: None,
            contacts: Vec::new(),
            attempts: BTreeMap::new(),
        };
        self.exchanges.insert(name.to_owned(), exchange);
    }

    pub fn exchange(&mut self, name: &str) -> &mut Exchange {
        self.exchanges
            .get_mut(name)
            .expect("an exchange that was added")
    }

    pub fn attempt(&mut self, name: &str, id: AttemptId) -> &mut Attempt {
        let attempts = &mut self.exchange(name).attempts;
        attempts.entry(id).or_insert_with(|| Attempt {
            batches: Vec::new(),
            finish_sent: false,
            state: AttemptState::Open,
            reached: BTreeSet::new(),
            first_run: None,
        })
    }

    pub fn is_live(&mut self, name: &str) -> bool {
        let exchange = self.exchange(name);
        exchange.update_expiry();
        exchange.is_live()
    }

    /// An object was stored. A tombstone in place of a marker ends the exchange.
    pub fn written(&mut self, key: &str, content: &[u8]) -> Result<(), String> {
        let Some(OwnObject::Marker(name)) = keys::parse(&Key::listed(key)) else {
            return Ok(());
        };
        if content.starts_with(b"{\"ended\":") {
            return self.deleted(key);
        }
        if let Some(exchange) = self.exchanges.get_mut(name.as_str()) {
            exchange.update_expiry();
            exchange.renewed = Some(Instant::now());
        }
        Ok(())
    }

    /// An announcement or renewal was answered with this lease.
    pub fn leased(&mut self, name: &str, lease: Duration) {
        if let Some(exchange) = self.exchanges.get_mut(name) {
            exchange.lease = lease;
        }
    }

    /// The coordinator had an answer.
    pub fn contacted(&mut self, name: &str) {
        self.exchange(name).contacts.push(Instant::now());
    }

    /// An object was deleted.
    pub fn deleted(&mut self, key: &str) -> Result<(), String> {
        let exchange = exchange_of(key).and_then(|id| self.exchanges.get_mut(id.as_str()));
        let Some(exchange) = exchange else {
            return Ok(());
        };
        exchange.update_expiry();
        // Until its announcement is confirmed, its marker may turn out not to have been written.
        if exchange.closing || exchange.expired || !exchange.announced {
            return Ok(());
        }
        Err(format!("promise 6: {key} of a live exchange was removed"))
    }

    /// A finish was acknowledged, with these counts.
    pub fn finished(&mut self, name: &str, id: AttemptId, answer: Counts) -> Result<(), String> {
        let attempt = self.attempt(name, id);
        if attempt.state == AttemptState::Aborted {
            return Err(format!("promise 4: {id:?} was aborted and is now finished"));
        }
        attempt.state = AttemptState::Committed;
        let sent = Counts::of(attempt);
        if sent == answer {
            return Ok(());
        }
        Err(format!(
            "promise 4: finish of {id:?} reports {answer:?}, but {sent:?} were sent"
        ))
    }

    /// A run acknowledged an abort.
    pub fn aborted(&mut self, name: &str, id: AttemptId, run: u64) -> Result<(), String> {
        let lives = self.is_live(name);
        let attempt = self.attempt(name, id);
        let holds_prefix = attempt.reached.contains(&run) && attempt.first_run != Some(run);
        if attempt.state == AttemptState::Committed && lives && !holds_prefix {
            return Err(format!("promise 4: {id:?} was finished and is now aborted"));
        }
        if attempt.reached.iter().all(|reached| *reached == run)
            && attempt.state == AttemptState::Open
        {
            attempt.state = AttemptState::Aborted;
        }
        Ok(())
    }

    /// An attempt was visible.
    pub fn observed(&mut self, name: &str, id: AttemptId) -> Result<(), String> {
        let attempt = self.attempt(name, id);
        if attempt.state == AttemptState::Aborted || !attempt.finish_sent {
            return Err(format!("promise 3: {id:?} is visible: {:?}", attempt.state));
        }
        attempt.state = AttemptState::Committed;
        Ok(())
    }

    /// Committed attempts were listed; those of `must` were committed before the request.
    pub fn listed(
        &mut self,
        name: &str,
        must: &BTreeSet<AttemptId>,
        listed: &BTreeMap<AttemptId, (u64, u64)>,
    ) -> Result<(), String> {
        for (id, (pages, bytes)) in listed {
            self.observed(name, *id)?;
            let sent = Counts::of(self.attempt(name, *id));
            if (sent.pages, sent.bytes) != (*pages, *bytes) {
                return Err(format!(
                    "promise 2: {id:?} holds {pages} pages, {bytes} bytes"
                ));
            }
        }
        let missing: Vec<_> = must.iter().filter(|w| !listed.contains_key(w)).collect();
        if missing.is_empty() || !self.is_live(name) {
            return Ok(());
        }
        Err(format!(
            "promise 1: {missing:?} were acknowledged and are not committed"
        ))
    }

    /// All handles of the chosen attempts were read: the pages of each handle, in order.
    pub fn read(
        &mut self,
        name: &str,
        chosen: &[AttemptId],
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
            for id in chosen {
                let got = of_attempt(&pages, *id);
                let expected = exchange.attempts[id].of_partition(partition);
                if got != expected {
                    return Err(format!(
                        "promise 2: partition {partition} of {id:?} has {}, not {}",
                        describe(&got),
                        describe(&expected)
                    ));
                }
                left -= got.len();
            }
            if left > 0 {
                return Err(format!(
                    "promise 2: {left} pages of attempts that were not chosen"
                ));
            }
        }
        Ok(())
    }

    /// A whole partition was read without chosen attempts. Each task must have one attempt: the
    /// newest that must be visible, or a newer one that may be. Those of `must` were committed
    /// before the request.
    pub fn read_partition(
        &mut self,
        name: &str,
        partition: u32,
        must: &BTreeSet<AttemptId>,
        pages: &[ReadPage],
    ) -> Result<(), String> {
        let pages: Vec<&ReadPage> = pages.iter().collect();
        let visible_attempts: BTreeSet<AttemptId> =
            pages.iter().map(|p| (p.task, p.attempt)).collect();
        for id in &visible_attempts {
            self.observed(name, *id)?;
        }
        let exchange = self.exchange(name);
        for id in &visible_attempts {
            let got = of_attempt(&pages, *id);
            if got != exchange.attempts[id].of_partition(partition) {
                return Err(format!(
                    "promise 2: {id:?} is incomplete: {}",
                    describe(&got)
                ));
            }
        }
        let tasks: BTreeSet<u32> = must.iter().map(|id| id.0).collect();
        for task in tasks {
            let newest = *must
                .iter()
                .rfind(|w| w.0 == task)
                .expect("a task of this set");
            let visible: Vec<_> = visible_attempts.iter().filter(|w| w.0 == task).collect();
            let right = match visible[..] {
                [one] => *one >= newest,
                // An attempt without pages in this partition is not visible here.
                [] => exchange.attempts.iter().any(|(id, attempt)| {
                    id.0 == task && *id >= newest && attempt.of_partition(partition).is_empty()
                }),
                _ => false,
            };
            if !right {
                return Err(format!(
                    "promise 5: partition {partition} has {visible:?}, but {newest:?} is committed"
                ));
            }
        }
        Ok(())
    }
}

/// The totals that a finish request states and its answer repeats.
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

fn exchange_of(key: &str) -> Option<ExchangeId> {
    match keys::parse(&Key::listed(key))? {
        OwnObject::Marker(exchange) | OwnObject::Segment(exchange, _) => Some(exchange),
        OwnObject::Probe
        | OwnObject::Keep
        | OwnObject::Identity
        | OwnObject::Members
        | OwnObject::Sweeper => None,
    }
}

fn of_attempt<'a>(pages: &[&'a ReadPage], id: AttemptId) -> Vec<&'a [u8]> {
    let mine = pages.iter().filter(|p| (p.task, p.attempt) == id);
    mine.map(|page| page.page.as_slice()).collect()
}

/// The beginnings of pages, which name them.
fn describe(pages: &[&[u8]]) -> String {
    let name = |page: &&[u8]| String::from_utf8_lossy(&page[..page.len().min(24)]).into_owned();
    format!("{:?}", pages.iter().map(name).collect::<Vec<_>>())
}
