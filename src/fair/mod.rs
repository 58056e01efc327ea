//! A semaphore whose permits are shared fairly among parties: queries, here.
//!
//! Does: hand out permits (bytes, or slots), let those wait who must, wake them in the order that
//! `ledger` decides. Does not: know what a permit is for. Invariant: a permit is given back exactly
//! once, when it is dropped; a request that is dropped while it waits leaves no trace; whoever can
//! be granted has been woken when a call returns.

pub mod ledger;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use self::ledger::Shortage;
use self::ledger::{Granted, Ledger, Ticket};

type Waiter = oneshot::Sender<FairPermit>;

/// The semaphore. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FairSemaphore(Arc<Mutex<Ledger<Waiter>>>);

/// What was granted; given back when dropped.
pub struct FairPermit {
    semaphore: FairSemaphore,
    who: Arc<str>,
    amount: u64,
}

impl FairSemaphore {
    /// As much as no process ever holds, for a semaphore that only limits each party.
    pub const UNBOUNDED: u64 = u64::MAX / 4;

    /// A semaphore over `capacity`, of which one party may hold `limit` at a time; at least one of
    /// each, or nobody would ever be granted anything.
    pub fn new(capacity: u64, limit: Option<u64>) -> Self {
        let capacity = capacity.clamp(1, Self::UNBOUNDED);
        let limit = limit.unwrap_or(capacity).max(1);
        Self(Arc::new(Mutex::new(Ledger::new(capacity, limit))))
    }

    /// Waits until `amount` is granted to `who`: its place in the queue is taken by this call, not
    /// only when the answer is first polled. What could never be granted
    /// ([`FairSemaphore::fits`]) is cut to what could.
    pub fn acquire(
        &self,
        who: &str,
        amount: u64,
    ) -> impl Future<Output = FairPermit> + Send + use<> {
        let mut ledger = self.0.lock();
        let amount = amount.min(ledger.limit());
        let outcome = match ledger.take(who, amount) {
            Some(who) => Ok((who, amount)),
            None => {
                let (waiter, granted) = oneshot::channel();
                let (who, ticket) = ledger.wait(who, amount, waiter);
                Err((who, ticket, granted))
            }
        };
        drop(ledger);
        let outcome = match outcome {
            Ok((who, amount)) => Ok(self.permit(who, amount)),
            Err((who, ticket, granted)) => {
                let semaphore = self.clone();
                let place = Place {
                    semaphore,
                    who,
                    ticket,
                };
                Err((place, granted))
            }
        };
        async move {
            match outcome {
                Ok(permit) => permit,
                Err((_place, granted)) => granted
                    .await
                    .expect("a waiter is kept until it is granted or leaves"),
            }
        }
    }

    /// Grants now, or not at all; overtakes nobody.
    pub fn try_acquire(&self, who: &str, amount: u64) -> Option<FairPermit> {
        let who = self.0.lock().take(who, amount)?;
        Some(self.permit(who, amount))
    }

    fn permit(&self, who: Arc<str>, amount: u64) -> FairPermit {
        let semaphore = self.clone();
        FairPermit {
            semaphore,
            who,
            amount,
        }
    }

    /// Grants what can be granted after a change. Waiters are told when the lock is free again: one
    /// that has gone meanwhile gives back at once.
    fn change(&self, change: impl FnOnce(&mut Ledger<Waiter>)) {
        let mut granted = Vec::new();
        {
            let mut ledger = self.0.lock();
            change(&mut ledger);
            while let Some(grant) = ledger.grant() {
                granted.push(grant);
            }
        }
        for Granted {
            who,
            amount,
            waiter,
        } in granted
        {
            // Who has left meanwhile gives it back by dropping it.
            let _ = waiter.send(self.permit(who, amount));
        }
    }

    /// Whether so much could ever be granted to one party.
    pub fn fits(&self, amount: u64) -> bool {
        self.0.lock().fits(amount)
    }

    /// What may be held in all.
    pub fn capacity(&self) -> u64 {
        self.0.lock().capacity()
    }

    /// What one party may hold.
    pub fn limit(&self) -> u64 {
        self.0.lock().limit()
    }

    /// What is held.
    pub fn held(&self) -> u64 {
        self.0.lock().held()
    }

    /// What is waited for.
    pub fn waiting(&self) -> u64 {
        self.0.lock().waiting()
    }

    /// How much must be given back before `who` can have `amount`: by itself, and by anybody.
    pub fn missing(&self, who: &str, amount: u64) -> (u64, u64) {
        self.0.lock().missing(who, amount)
    }

    /// What is waited for, by the reason.
    pub fn shortage(&self) -> Shortage {
        self.0.lock().shortage()
    }

    /// What each party holds and waits for, by name.
    pub fn parties(&self) -> Vec<(Arc<str>, u64, u64)> {
        self.0.lock().parties()
    }
}

/// A place in a queue, left when dropped.
struct Place {
    semaphore: FairSemaphore,
    who: Arc<str>,
    ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.semaphore.change(|ledger| {
            ledger.leave(&self.who, self.ticket);
        });
    }
}

impl FairPermit {
    /// Whose it is.
    pub fn party(&self) -> &str {
        &self.who
    }

    /// How much was granted.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Takes in what was granted besides, of the same semaphore and to the same party; of another
    /// it is given back.
    pub fn absorb(&mut self, mut other: Self) {
        if Arc::ptr_eq(&self.semaphore.0, &other.semaphore.0) && self.who == other.who {
            self.amount += std::mem::take(&mut other.amount);
        }
    }
}

impl std::fmt::Debug for FairPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FairPermit({} of {})", self.amount, self.who)
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        self.semaphore
            .change(|ledger| ledger.give(&self.who, self.amount));
    }
}

#[cfg(test)]
mod tests;
