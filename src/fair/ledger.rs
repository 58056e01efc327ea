//! Virtual-time fair queueing over a bounded capacity. Pure and synchronous.
//!
//! Does: count what each party holds, queue requests, and choose the next one to grant. Does not:
//! wake waiters (`semaphore` does). Parties are queries, amounts are bytes or slots; nothing here
//! depends on that.
//!
//! Each party has its own first-come, first-served queue and a virtual time. The waiting party with
//! the lowest virtual time is served next (ties: the older request); a grant advances it by the
//! granted amount. A party that starts to wait begins at the highest virtual time of those waiting,
//! so virtual times never differ by more than the largest request. The property tests verify:
//!
//! - No party overtakes the one that is next, so a large request is starved neither by small ones
//!   nor by new parties, however many.
//! - Before a request at the head of its party's queue is granted, each other waiting party is
//!   granted at most twice the largest request, however many it has queued.
//! - Of two parties that wait all the time, neither is ever ahead of the other by more than twice
//!   the largest request.
//!
//! A party whose next request would exceed its own limit is not scheduled until it releases
//! something: it delays no other party, its virtual time stays within the range of the others', and
//! it gets no credit for what they were granted meanwhile.
//!
//! Invariant: nothing is granted beyond the current capacity, or to a party beyond its current
//! limit, except that a request that was queued before these were lowered is granted alone. After
//! [`Ledger::grant`] returned `None`, either no party is scheduled, or the next request is larger
//! than what is free.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Number of a queued request; grows with every request.
pub type Ticket = u64;

/// Position in the schedule: virtual time, then the ticket of the party's oldest request.
type Position = (u64, Ticket, Arc<str>);

/// The ledger. `W` is what the caller needs to wake a waiting request.
#[derive(Debug)]
pub struct Ledger<W> {
    capacity: u64,
    /// By all parties; more than the capacity once that was lowered.
    held: u64,
    /// The largest amount that one party may hold.
    limit: u64,
    accounts: HashMap<Arc<str>, Account<W>>,
    /// Parties whose next request is within their limit, in the order of service.
    schedule: BTreeSet<Position>,
    next_ticket: Ticket,
    waiting: u64,
}

#[derive(Debug)]
struct Account<W> {
    held: u64,
    queue: BTreeMap<Ticket, (u64, W)>,
    /// Sum of the amounts in `queue`.
    queued: u64,
    /// Its entry in the schedule, if it has one.
    position: Option<Position>,
    /// Its virtual time, retained while it is not scheduled because of its own limit.
    virtual_time: Option<u64>,
}

/// A request that was granted after it had waited.
#[derive(Debug)]
pub struct Granted<W> {
    pub party: Arc<str>,
    /// The amount, now held.
    pub amount: u64,
    /// What was passed to [`Ledger::enqueue`].
    pub waiter: W,
}

/// What queued requests wait for, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Number of parties that wait.
    pub parties: usize,
    /// The amount by which requests within their party's limit exceed what is free.
    pub capacity: u64,
    /// Parties at their own limit, each with the amount that it would have to release.
    pub limited: Vec<(Arc<str>, u64)>,
}

impl<W> Ledger<W> {
    /// A ledger over `capacity`, of which one party may hold `limit`.
    pub fn new(capacity: u64, limit: u64) -> Self {
        Self {
            capacity,
            held: 0,
            limit: limit.min(capacity),
            accounts: HashMap::new(),
            schedule: BTreeSet::new(),
            next_ticket: 0,
            waiting: 0,
        }
    }

    /// Grants `amount` at once if that overtakes no waiting party. Returns the party's interned
    /// name, which the caller passes to [`Ledger::release`] with the amount.
    pub fn try_acquire(&mut self, party: &str, amount: u64) -> Option<Arc<str>> {
        if !self.schedule.is_empty() || amount > self.free() {
            return None;
        }
        let Some((name, account)) = self.accounts.get_key_value(party) else {
            return (amount <= self.limit).then(|| self.open(party, amount));
        };
        if !account.queue.is_empty() || account.held + amount > self.limit {
            return None;
        }
        let name = Arc::clone(name);
        self.held += amount;
        self.account(&name).held += amount;
        Some(name)
    }

    fn open(&mut self, party: &str, held: u64) -> Arc<str> {
        let name: Arc<str> = party.into();
        self.held += held;
        let account = Account {
            held,
            queue: BTreeMap::new(),
            queued: 0,
            position: None,
            virtual_time: None,
        };
        self.accounts.insert(Arc::clone(&name), account);
        name
    }

    fn account(&mut self, party: &str) -> &mut Account<W> {
        self.accounts
            .get_mut(party)
            .expect("a party that holds or waits has an account")
    }

    /// Queues a request that [`Ledger::try_acquire`] refused; `amount` must be within the limit.
    pub fn enqueue(&mut self, party: &str, amount: u64, waiter: W) -> (Arc<str>, Ticket) {
        debug_assert!(amount <= self.limit, "such a request would wait forever");
        let name = match self.accounts.get_key_value(party) {
            Some((name, _)) => Arc::clone(name),
            None => self.open(party, 0),
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting += amount;
        let account = self.account(&name);
        account.queue.insert(ticket, (amount, waiter));
        account.queued += amount;
        self.reschedule(&name, 0);
        (name, ticket)
    }

    /// Removes a queued request; `false` if it was granted before. The caller must then call
    /// [`Ledger::grant`], as another request may be next now.
    pub fn cancel(&mut self, party: &str, ticket: Ticket) -> bool {
        let Some(account) = self.accounts.get_mut(party) else {
            return false;
        };
        let Some((amount, _)) = account.queue.remove(&ticket) else {
            return false;
        };
        account.queued -= amount;
        self.waiting -= amount;
        self.reschedule(party, 0);
        true
    }

    /// Releases what a party held. The caller must then call [`Ledger::grant`].
    pub fn release(&mut self, party: &str, amount: u64) {
        debug_assert!(amount <= self.held, "more was released than acquired");
        self.held -= amount;
        // A permit from which everything was split off may outlive its party's account.
        if amount > 0 {
            self.account(party).held -= amount;
        }
        self.reschedule(party, 0);
    }

    /// Grants the next request if enough is free.
    pub fn grant(&mut self) -> Option<Granted<W>> {
        let party = Arc::clone(&self.schedule.first()?.2);
        let (free, alone) = (self.free(), self.held == 0);
        let capacity = self.capacity;
        let account = self.account(&party);
        let oldest = account
            .queue
            .first_entry()
            .expect("a scheduled party has a request");
        let amount = oldest.get().0;
        // What was queued before the capacity was lowered is granted once nothing else is held.
        if amount > free && !(alone && amount > capacity) {
            return None;
        }
        let (_, waiter) = oldest.remove();
        account.held += amount;
        account.queued -= amount;
        self.held += amount;
        self.waiting -= amount;
        // Requests of 0 cost 1, or a party that makes only such requests would always be next.
        self.reschedule(&party, amount.max(1));
        Some(Granted {
            party,
            amount,
            waiter,
        })
    }

    /// Adds a party to the schedule or removes it, as its queue and limit now require, and advances
    /// its virtual time by `granted`.
    fn reschedule(&mut self, party: &str, granted: u64) {
        let limit = self.limit;
        let Some(account) = self.accounts.get_mut(party) else {
            return;
        };
        let position = account.position.take();
        if let Some(position) = &position {
            self.schedule.remove(position);
        }
        let others = self.schedule.first().zip(self.schedule.last());
        let virtual_time = match (position, others) {
            (Some((time, ..)), _) => Some(time + granted),
            (None, Some((first, last))) => {
                let time = account.virtual_time;
                time.map(|time| time.clamp(first.0, last.0))
            }
            (None, None) => account.virtual_time,
        };
        let Some((ticket, (amount, _))) = account.queue.first_key_value() else {
            account.virtual_time = None;
            if account.held == 0 {
                self.accounts.remove(party);
            }
            return;
        };
        account.virtual_time = virtual_time;
        // What was queued before the limit was lowered is granted to a party that holds nothing.
        if account.held + amount <= limit.max(*amount) {
            let newcomer = || others.map_or(0, |(_, last)| last.0);
            let time = virtual_time.unwrap_or_else(newcomer);
            let position = (time, *ticket, Arc::from(party));
            account.position = Some(position.clone());
            self.schedule.insert(position);
        }
    }

    /// The largest amount that all parties together may hold.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The largest amount that one party may hold.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The amount held by all parties.
    pub fn held(&self) -> u64 {
        self.held
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.held)
    }

    /// Changes capacity and limit. What is held beyond them stays held, and what is queued stays
    /// queued. The caller must then call [`Ledger::grant`].
    pub fn set_bounds(&mut self, capacity: u64, limit: u64) {
        self.capacity = capacity;
        self.limit = limit.min(capacity);
        let mut parties: Vec<_> = self.accounts.keys().cloned().collect();
        // In the same order on every run.
        parties.sort_unstable();
        for party in parties {
            self.reschedule(&party, 0);
        }
    }

    /// The amount that queued requests wait for.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// What must be released before `party` can have `amount`: by itself, because of its limit, and
    /// by all parties together.
    pub fn missing(&self, party: &str, amount: u64) -> (u64, u64) {
        let account = self.accounts.get(party);
        let own = account.map_or(0, |a| a.held + a.queued) + amount;
        // If no party is scheduled, all waiting parties are at their limits: none is overtaken.
        let before = if self.schedule.is_empty() {
            0
        } else {
            self.waiting
        };
        let all = before + amount;
        (
            own.saturating_sub(self.limit),
            all.saturating_sub(self.free()),
        )
    }

    /// What queued requests wait for, by reason. Visits every account, so it is not for the path of
    /// a request.
    pub fn shortage(&self) -> Shortage {
        let mut shortage = Shortage::default();
        if self.waiting == 0 {
            return shortage;
        }
        let mut within_limits = 0;
        for (party, account) in &self.accounts {
            if account.queue.is_empty() {
                continue;
            }
            shortage.parties += 1;
            // What a party waits for up to its limit needs capacity; the rest needs its own bytes.
            let own = (account.held + account.queued).saturating_sub(self.limit);
            within_limits += account.queued - own.min(account.queued);
            if account.position.is_none() {
                shortage.limited.push((Arc::clone(party), own));
            }
        }
        shortage.capacity = within_limits.saturating_sub(self.free());
        shortage.limited.sort_unstable();
        shortage
    }

    /// Each party with what it holds and waits for, by name.
    pub fn parties(&self) -> Vec<(Arc<str>, u64, u64)> {
        let mut parties: Vec<_> = self
            .accounts
            .iter()
            .map(|(party, account)| (Arc::clone(party), account.held, account.queued))
            .collect();
        parties.sort_unstable();
        parties
    }
}
