//! The asynchronous side of the ledger: permits, waiters and their wake-up.
//!
//! Does: hold the ledger's lock for each change, and wake granted waiters after it. Does not:
//! decide which request is next (`ledger`). Invariant: no waiter is woken while the ledger is
//! locked.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::ledger::{Granted, Ledger, Shortage, Ticket};

type Waiter = oneshot::Sender<FairPermit>;

/// The semaphore. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FairSemaphore(Arc<Mutex<Ledger<Waiter>>>);

/// An amount granted to a party; dropping it releases the amount.
pub struct FairPermit {
    semaphore: FairSemaphore,
    party: Arc<str>,
    amount: u64,
}

impl FairSemaphore {
    /// More than any process holds: the capacity of a semaphore that only limits each party.
    pub const UNBOUNDED: u64 = u64::MAX / 4;

    /// A semaphore over `capacity`, of which one party may hold `limit`. Both are raised to at
    /// least 1, since nothing could be granted otherwise.
    pub fn new(capacity: u64, limit: Option<u64>) -> Self {
        let capacity = capacity.clamp(1, Self::UNBOUNDED);
        let limit = limit.unwrap_or(capacity).max(1);
        Self(Arc::new(Mutex::new(Ledger::new(capacity, limit))))
    }

    /// Changes both bounds, as in [`FairSemaphore::new`]. What is held beyond them stays held.
    pub fn set_bounds(&self, capacity: u64, limit: Option<u64>) {
        let capacity = capacity.clamp(1, Self::UNBOUNDED);
        let limit = limit.unwrap_or(capacity).max(1);
        self.change(|ledger| ledger.set_bounds(capacity, limit));
    }

    /// Waits until `amount` is granted to `party`. The request joins the queue in this call, not
    /// when the future is first polled. An amount that could never be granted
    /// ([`FairSemaphore::fits`]) is reduced to the largest that could.
    ///
    /// ```
    /// use stopover::fair::FairSemaphore;
    ///
    /// # futures::executor::block_on(async {
    /// let slots = FairSemaphore::new(2, None);
    /// let both = slots.acquire("query-1", 2).await;
    /// let third = slots.acquire("query-2", 1); // waits
    /// assert_eq!((slots.held(), slots.waiting()), (2, 1));
    /// drop(both);
    /// assert_eq!(third.await.amount(), 1);
    /// # });
    /// ```
    pub fn acquire(
        &self,
        party: &str,
        amount: u64,
    ) -> impl Future<Output = FairPermit> + Send + use<> {
        let mut ledger = self.0.lock();
        let amount = amount.min(ledger.limit());
        let outcome = match ledger.try_acquire(party, amount) {
            Some(party) => Ok((party, amount)),
            None => {
                let (waiter, granted) = oneshot::channel();
                let (party, ticket) = ledger.enqueue(party, amount, waiter);
                Err((party, ticket, granted))
            }
        };
        // Permits and guards lock the ledger when they are dropped, so none exists before here.
        drop(ledger);
        let outcome = outcome
            .map(|(party, amount)| self.permit(party, amount))
            .map_err(|(party, ticket, granted)| {
                let semaphore = self.clone();
                let guard = WaitGuard {
                    semaphore,
                    party,
                    ticket,
                };
                (guard, granted)
            });
        async move {
            match outcome {
                Ok(permit) => permit,
                // The guard lives across the await: a future that is dropped cancels its request.
                Err((_guard, granted)) => granted
                    .await
                    .expect("a waiter stays queued until it is granted or cancelled"),
            }
        }
    }

    /// Grants `amount` now or not at all; fails while any request is queued.
    pub fn try_acquire(&self, party: &str, amount: u64) -> Option<FairPermit> {
        let party = self.0.lock().try_acquire(party, amount)?;
        Some(self.permit(party, amount))
    }

    fn permit(&self, party: Arc<str>, amount: u64) -> FairPermit {
        let semaphore = self.clone();
        FairPermit {
            semaphore,
            party,
            amount,
        }
    }

    /// Applies a change and grants what it made possible.
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
            party,
            amount,
            waiter,
        } in granted
        {
            // If the receiver was dropped, dropping the permit releases it, which needs the lock.
            let _ = waiter.send(self.permit(party, amount));
        }
    }

    /// Whether one party could ever be granted this amount.
    pub fn fits(&self, amount: u64) -> bool {
        amount <= self.limit()
    }

    /// The largest amount that all parties together may hold.
    pub fn capacity(&self) -> u64 {
        self.0.lock().capacity()
    }

    /// The largest amount that one party may hold.
    pub fn limit(&self) -> u64 {
        self.0.lock().limit()
    }

    /// The amount held by all parties.
    pub fn held(&self) -> u64 {
        self.0.lock().held()
    }

    /// The amount that queued requests wait for.
    pub fn waiting(&self) -> u64 {
        self.0.lock().waiting()
    }

    /// What must be released before `party` can have `amount`: by itself, and by all parties
    /// together.
    pub fn missing(&self, party: &str, amount: u64) -> (u64, u64) {
        self.0.lock().missing(party, amount)
    }

    /// What queued requests wait for, by reason.
    pub fn shortage(&self) -> Shortage {
        self.0.lock().shortage()
    }

    /// Each party with what it holds and waits for, by name.
    pub fn parties(&self) -> Vec<(Arc<str>, u64, u64)> {
        self.0.lock().parties()
    }
}

/// A queued request; dropping it cancels the request.
struct WaitGuard {
    semaphore: FairSemaphore,
    party: Arc<str>,
    ticket: Ticket,
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.semaphore.change(|ledger| {
            ledger.cancel(&self.party, self.ticket);
        });
    }
}

impl FairPermit {
    /// The party that holds it.
    pub fn party(&self) -> &str {
        &self.party
    }

    /// The amount granted.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Releases what exceeds `amount`.
    pub fn shrink_to(&mut self, amount: u64) {
        let excess = self.amount.saturating_sub(amount);
        if excess > 0 {
            self.amount = amount;
            self.semaphore
                .change(|ledger| ledger.release(&self.party, excess));
        }
    }

    /// Splits off `amount`, or less if it holds less.
    pub fn split_off(&mut self, amount: u64) -> Self {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        self.semaphore.permit(Arc::clone(&self.party), amount)
    }

    /// Merges another permit of the same semaphore and party into this one; any other is released.
    pub fn absorb(&mut self, mut other: Self) {
        if Arc::ptr_eq(&self.semaphore.0, &other.semaphore.0) && self.party == other.party {
            self.amount += std::mem::take(&mut other.amount);
        }
    }
}

impl std::fmt::Debug for FairPermit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FairPermit({} of {})", self.amount, self.party)
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        self.semaphore
            .change(|ledger| ledger.release(&self.party, self.amount));
    }
}
