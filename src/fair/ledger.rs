//! Who gets the next part of something that is scarce. Pure and synchronous.
//!
//! Does: count what each party holds of a capacity, queue those who must wait, and name the next
//! one to be granted. Does not: wake anybody (the semaphore in `mod.rs` does). Parties are queries,
//! amounts are bytes or pieces; nothing here knows which.
//!
//! Each party has a queue of its own, first come, first served. Parties whose turn it may be go
//! round: each stands at a mark, next is the one with the lowest mark (of equals, who came first),
//! and what it is granted moves its mark on by as much. Who begins to wait joins at the highest
//! mark, that is at the end of the round. So marks are never further apart than the largest
//! request, and, as the property tests hold:
//!
//! - Nobody overtakes the one whose turn it is, so a large request is not starved by small ones,
//!   nor by parties that come later, however many.
//! - Before a request at the head of its party's queue is granted, each other party that waits is
//!   granted at most two of the largest requests, however many it has queued.
//! - Of two parties that wait all the time, neither gets more than two of the largest requests
//!   ahead of the other.
//!
//! A party at its own limit has no turn until it gives back: it holds up nobody else, keeps its
//! mark as far as the others' marks still reach, and is owed nothing of what they got meanwhile.
//!
//! Invariant: what is held never exceeds the capacity, nor what a party holds its limit; and after
//! [`Ledger::grant`] has answered `None`, either nobody has a turn, or the one who has it wants
//! more than is free.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Number of a request that waits: its place in its party's queue.
pub type Ticket = u64;

/// The place of a party among those whose turn it may be: by its mark, then by who came first.
type Turn = (u64, Ticket, Arc<str>);

/// The ledger; `W` is whatever a waiting request must be told through.
#[derive(Debug)]
pub struct Ledger<W> {
    capacity: u64,
    free: u64,
    /// What one party may hold.
    limit: u64,
    accounts: HashMap<Arc<str>, Account<W>>,
    turns: BTreeSet<Turn>,
    next_ticket: Ticket,
    waiting: u64,
}

#[derive(Debug)]
struct Account<W> {
    held: u64,
    waiting: BTreeMap<Ticket, (u64, W)>,
    waits_for: u64,
    /// Its place, while it has a turn.
    turn: Option<Turn>,
    /// Its mark when it lost its turn although it still waits.
    mark: Option<u64>,
}

/// A request that was granted after it had waited.
#[derive(Debug)]
pub struct Granted<W> {
    /// Whose it is.
    pub who: Arc<str>,
    /// How much.
    pub amount: u64,
    /// How to tell.
    pub waiter: W,
}

/// What is waited for, by the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Parties that wait.
    pub parties: usize,
    /// What those wait for who wait for the capacity, less what is free.
    pub capacity: u64,
    /// Parties at their own limit, and what each would have to give back.
    pub limited: Vec<(Arc<str>, u64)>,
}

impl<W> Ledger<W> {
    /// A ledger over `capacity`, of which one party may hold `limit`.
    pub fn new(capacity: u64, limit: u64) -> Self {
        Self {
            capacity,
            free: capacity,
            limit: limit.min(capacity),
            accounts: HashMap::new(),
            turns: BTreeSet::new(),
            next_ticket: 0,
            waiting: 0,
        }
    }

    /// Grants at once, if nobody is overtaken by it; answers the party's name, to be given back
    /// with the amount.
    pub fn take(&mut self, who: &str, amount: u64) -> Option<Arc<str>> {
        if !self.turns.is_empty() || amount > self.free {
            return None;
        }
        let Some((name, account)) = self.accounts.get_key_value(who) else {
            return (amount <= self.limit).then(|| self.open(who, amount));
        };
        if !account.waiting.is_empty() || account.held + amount > self.limit {
            return None;
        }
        let name = Arc::clone(name);
        self.free -= amount;
        self.account(&name).held += amount;
        Some(name)
    }

    fn open(&mut self, who: &str, held: u64) -> Arc<str> {
        let name: Arc<str> = who.into();
        self.free -= held;
        let account = Account {
            held,
            waiting: BTreeMap::new(),
            waits_for: 0,
            turn: None,
            mark: None,
        };
        self.accounts.insert(Arc::clone(&name), account);
        name
    }

    fn account(&mut self, who: &str) -> &mut Account<W> {
        self.accounts
            .get_mut(who)
            .expect("who holds or waits has an account")
    }

    /// Queues a request which could not be taken at once; it must fit into capacity and limit.
    pub fn wait(&mut self, who: &str, amount: u64, waiter: W) -> (Arc<str>, Ticket) {
        debug_assert!(amount <= self.limit, "such a request would wait for ever");
        let name = match self.accounts.get_key_value(who) {
            Some((name, _)) => Arc::clone(name),
            None => self.open(who, 0),
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting += amount;
        let account = self.account(&name);
        account.waiting.insert(ticket, (amount, waiter));
        account.waits_for += amount;
        self.settle(&name, 0);
        (name, ticket)
    }

    /// A request does not wait any more; `false` if it had been granted. Others may be next now.
    pub fn leave(&mut self, who: &str, ticket: Ticket) -> bool {
        let Some(account) = self.accounts.get_mut(who) else {
            return false;
        };
        let Some((amount, _)) = account.waiting.remove(&ticket) else {
            return false;
        };
        account.waits_for -= amount;
        self.waiting -= amount;
        self.settle(who, 0);
        true
    }

    /// Takes back what a party held. Others may be next now.
    pub fn give(&mut self, who: &str, amount: u64) {
        self.free += amount;
        debug_assert!(self.free <= self.capacity, "more came back than was given");
        self.account(who).held -= amount;
        self.settle(who, 0);
    }

    /// Grants the request whose turn it is, if there is enough for it.
    pub fn grant(&mut self) -> Option<Granted<W>> {
        let who = Arc::clone(&self.turns.first()?.2);
        let free = self.free;
        let account = self.account(&who);
        let first = account
            .waiting
            .first_entry()
            .expect("who has a turn has a request");
        let amount = first.get().0;
        if amount > free {
            return None;
        }
        let (_, waiter) = first.remove();
        account.held += amount;
        account.waits_for -= amount;
        self.free -= amount;
        self.waiting -= amount;
        self.settle(&who, amount.max(1));
        Some(Granted {
            who,
            amount,
            waiter,
        })
    }

    /// Gives a party its turn or takes it away, as its queue and its limit say now. What it was
    /// just granted moves its mark on.
    fn settle(&mut self, who: &str, granted: u64) {
        let limit = self.limit;
        let Some(account) = self.accounts.get_mut(who) else {
            return;
        };
        let turn = account.turn.take();
        if let Some(turn) = &turn {
            self.turns.remove(turn);
        }
        let ends = self.turns.first().zip(self.turns.last());
        let mark = match (turn, ends) {
            (Some(turn), _) => Some(turn.0 + granted),
            (None, Some((first, last))) => account.mark.map(|mark| mark.clamp(first.0, last.0)),
            (None, None) => account.mark,
        };
        let Some((ticket, (amount, _))) = account.waiting.first_key_value() else {
            account.mark = None;
            if account.held == 0 {
                self.accounts.remove(who);
            }
            return;
        };
        account.mark = mark;
        if account.held + amount <= limit {
            let end = || ends.map_or(0, |(_, last)| last.0);
            let turn = (mark.unwrap_or_else(end), *ticket, Arc::from(who));
            account.turn = Some(turn.clone());
            self.turns.insert(turn);
        }
    }

    /// Whether such a request could ever be granted.
    pub fn fits(&self, amount: u64) -> bool {
        amount <= self.limit
    }

    /// What may be held in all.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What one party may hold.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What is held.
    pub fn held(&self) -> u64 {
        self.capacity - self.free
    }

    /// What is waited for.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// How much must be given back before `who` can have `amount`: by itself, because of its limit,
    /// and by anybody.
    pub fn missing(&self, who: &str, amount: u64) -> (u64, u64) {
        let account = self.accounts.get(who);
        let own = account.map_or(0, |a| a.held + a.waits_for) + amount;
        // Who has no turn does not wait for others.
        let before = if self.turns.is_empty() {
            0
        } else {
            self.waiting
        };
        let all = before + amount;
        (
            own.saturating_sub(self.limit),
            all.saturating_sub(self.free),
        )
    }

    /// What is short. Costs a walk over all who hold or wait, so it is for those who help.
    pub fn shortage(&self) -> Shortage {
        let mut shortage = Shortage::default();
        if self.waiting == 0 {
            return shortage;
        }
        let mut wanted = 0;
        for (who, account) in &self.accounts {
            if account.waiting.is_empty() {
                continue;
            }
            shortage.parties += 1;
            // What a party may still have is short of the capacity, the rest of its own limit.
            let own = (account.held + account.waits_for).saturating_sub(self.limit);
            wanted += account.waits_for - own.min(account.waits_for);
            if account.turn.is_none() {
                shortage.limited.push((Arc::clone(who), own));
            }
        }
        shortage.capacity = wanted.saturating_sub(self.free);
        shortage.limited.sort_unstable();
        shortage
    }

    /// What each party holds and waits for, by name.
    pub fn parties(&self) -> Vec<(Arc<str>, u64, u64)> {
        let mut parties: Vec<_> = self
            .accounts
            .iter()
            .map(|(who, account)| (Arc::clone(who), account.held, account.waits_for))
            .collect();
        parties.sort_unstable();
        parties
    }
}
