//! Claims about the order of grants: of the ledger under random histories, of the semaphore under
//! tasks that request, wait and cancel.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::FairSemaphore;
use super::ledger::{Granted, Ledger, Shortage};

const CAPACITY: u64 = 100;

/// What happens to a ledger; an index chooses among the requests or permits that exist.
#[derive(Debug, Clone)]
enum Event {
    Request { party: usize, amount: u64 },
    Cancel(usize),
    Release(usize),
}

fn some_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0usize..5, 1u64..40).prop_map(|(party, amount)| Event::Request { party, amount }),
        1 => any::<usize>().prop_map(Event::Cancel),
        2 => any::<usize>().prop_map(Event::Release),
    ]
}

/// A ledger beside a simple model of it.
struct Checked {
    ledger: Ledger<u64>,
    limit: u64,
    /// Party and amount of each permit held, oldest first.
    held: Vec<(String, u64)>,
    /// Queued requests by party: ticket, amount and waiter.
    queued: HashMap<String, VecDeque<(u64, u64, u64)>>,
    requests: u64,
    /// Party and amount of each grant after a wait, in order.
    granted: Vec<(String, u64)>,
}

impl Checked {
    fn new(limit: u64) -> Self {
        Self {
            ledger: Ledger::new(CAPACITY, limit),
            limit,
            held: Vec::new(),
            queued: HashMap::new(),
            requests: 0,
            granted: Vec::new(),
        }
    }

    fn request(&mut self, party: &str, amount: u64) {
        if self.ledger.try_acquire(party, amount).is_some() {
            self.held.push((party.to_owned(), amount));
        } else {
            let (name, ticket) = self.ledger.enqueue(party, amount, self.requests);
            assert_eq!(&*name, party);
            let queue = self.queued.entry(party.to_owned()).or_default();
            queue.push_back((ticket, amount, self.requests));
            // It was queued because it cannot be granted now.
            assert!(self.ledger.grant().is_none());
        }
        self.requests += 1;
    }

    /// Queues a request without trying to acquire first.
    fn request_behind(&mut self, party: &str, amount: u64) {
        let (_, ticket) = self.ledger.enqueue(party, amount, self.requests);
        let queue = self.queued.entry(party.to_owned()).or_default();
        queue.push_back((ticket, amount, self.requests));
        self.requests += 1;
    }

    fn cancel(&mut self, at: usize) {
        let mut waiting: Vec<_> = self
            .queued
            .iter()
            .flat_map(|(party, queue)| queue.iter().map(|w| (party.clone(), w.0)))
            .collect();
        waiting.sort();
        if waiting.is_empty() {
            return;
        }
        let (party, ticket) = waiting[at % waiting.len()].clone();
        assert!(self.ledger.cancel(&party, ticket));
        assert!(!self.ledger.cancel(&party, ticket), "cancelled twice");
        let queue = self.queued.get_mut(&party).unwrap();
        queue.retain(|w| w.0 != ticket);
    }

    fn release(&mut self, at: usize) {
        if !self.held.is_empty() {
            let (party, amount) = self.held.remove(at % self.held.len());
            self.ledger.release(&party, amount);
        }
    }

    /// Grants one request and releases it, so that no party is ever at its limit.
    fn serve_one(&mut self) {
        let Granted { party, amount, .. } = self.ledger.grant().expect("a party waits");
        self.queued.get_mut(&*party).unwrap().pop_front();
        self.granted.push((party.to_string(), amount));
        self.ledger.release(&party, amount);
    }

    fn is_waiting(&self, party: &str) -> bool {
        self.queued
            .get(party)
            .is_some_and(|queue| !queue.is_empty())
    }

    /// Grants everything that can be granted; a party's requests must be granted in order.
    fn grant_all(&mut self) {
        while let Some(Granted {
            party,
            amount,
            waiter,
        }) = self.ledger.grant()
        {
            let queue = self.queued.get_mut(&*party).unwrap();
            let (_, requested, number) = queue.pop_front().unwrap();
            assert_eq!((amount, waiter), (requested, number), "out of order");
            self.held.push((party.to_string(), amount));
            self.granted.push((party.to_string(), amount));
        }
    }

    /// What each party was granted from the `from`th grant on.
    fn granted_since(&self, from: usize) -> HashMap<&str, u64> {
        let mut sums = HashMap::new();
        for (party, amount) in &self.granted[from..] {
            *sums.entry(party.as_str()).or_default() += amount;
        }
        sums
    }

    fn held_by(&self, party: &str) -> u64 {
        let mine = self.held.iter().filter(|(name, _)| name == party);
        mine.map(|(_, amount)| amount).sum()
    }

    fn check(&self) {
        let held: u64 = self.held.iter().map(|(_, amount)| amount).sum();
        assert!(held <= CAPACITY);
        assert_eq!(self.ledger.held(), held);
        let waiting = self.queued.values().flatten();
        assert_eq!(
            self.ledger.waiting(),
            waiting.map(|(_, amount, _)| amount).sum::<u64>()
        );
        for (party, held, queued) in self.ledger.parties() {
            let queue = self.queued.get(&*party).into_iter().flatten();
            assert_eq!(held, self.held_by(&party));
            assert_eq!(queued, queue.map(|(_, amount, _)| amount).sum::<u64>());
        }
        let mut someone_fits = false;
        let mut someone_lacks_capacity = false;
        for (party, queue) in &self.queued {
            assert!(self.held_by(party) <= self.limit);
            let Some((_, amount, _)) = queue.front() else {
                continue;
            };
            if self.held_by(party) + amount <= self.limit {
                let fits = held + amount <= CAPACITY;
                someone_fits |= fits;
                someone_lacks_capacity |= !fits;
            }
        }
        assert!(
            !someone_fits || someone_lacks_capacity,
            "a request could be granted without overtaking another"
        );
    }
}

proptest! {
    #[test]
    fn nothing_is_granted_twice_lost_out_of_order_or_beyond_a_bound(
        limit in 40u64..=CAPACITY, events in prop::collection::vec(some_event(), 1..200),
    ) {
        let mut checked = Checked::new(limit);
        for event in events {
            match event {
                Event::Request { party, amount } => checked.request(&format!("q{party}"), amount),
                Event::Cancel(at) => checked.cancel(at),
                Event::Release(at) => checked.release(at),
            }
            checked.grant_all();
            checked.check();
        }
        // Releasing everything is enough for all requests that still wait.
        while !checked.held.is_empty() {
            checked.release(0);
            checked.grant_all();
            checked.check();
        }
        prop_assert_eq!(checked.ledger.waiting(), 0);
        prop_assert_eq!(checked.ledger.parties(), vec![], "an idle account remains");
    }

    #[test]
    fn a_new_query_waits_for_at_most_two_of_the_largest_requests_of_each_other(
        queues in prop::collection::vec(prop::collection::vec(1u64..40, 1..60), 1..4),
        before in 0usize..30, mine in 1u64..40,
    ) {
        let mut checked = Checked::new(CAPACITY);
        checked.request("holder", CAPACITY);
        for (party, amounts) in queues.iter().enumerate() {
            amounts.iter().for_each(|amount| checked.request(&format!("q{party}"), *amount));
        }
        checked.ledger.release("holder", CAPACITY);
        let queued: usize = queues.iter().map(Vec::len).sum();
        (0..before.min(queued - 1)).for_each(|_| checked.serve_one());
        let granted_before = checked.granted.len();
        checked.request_behind("newcomer", mine);
        while checked.is_waiting("newcomer") {
            checked.serve_one();
        }
        checked.granted.pop();
        for (party, meanwhile) in checked.granted_since(granted_before) {
            prop_assert!(meanwhile <= 2 * 39, "{} got {}", party, meanwhile);
        }
    }

    #[test]
    fn two_queries_that_always_wait_get_equal_amounts_within_two_of_the_largest(
        one in prop::collection::vec(1u64..40, 300), other in prop::collection::vec(1u64..5, 300),
    ) {
        let mut checked = Checked::new(CAPACITY);
        checked.request("holder", CAPACITY);
        one.iter().for_each(|amount| checked.request("one", *amount));
        other.iter().for_each(|amount| checked.request("other", *amount));
        checked.ledger.release("holder", CAPACITY);
        while checked.is_waiting("one") && checked.is_waiting("other") {
            checked.serve_one();
            let sums = checked.granted_since(0);
            let sum = |party| sums.get(party).copied().unwrap_or(0);
            let apart = sum("one").abs_diff(sum("other"));
            prop_assert!(apart <= 2 * 39, "{} apart", apart);
        }
    }
}

#[test]
fn five_hundred_queued_batches_of_one_query_delay_another_query_by_one() {
    let mut checked = Checked::new(CAPACITY);
    checked.request("holder", CAPACITY);
    (0..500).for_each(|_| checked.request("busy", 10));
    checked.request("new", 10);
    checked.release(0);
    checked.grant_all();
    let order: Vec<&str> = checked
        .held
        .iter()
        .map(|(party, _)| party.as_str())
        .collect();
    assert_eq!(order[..3], ["busy", "new", "busy"]);
}

#[test]
fn a_large_request_is_not_starved_by_later_queries_with_small_requests() {
    let mut checked = Checked::new(CAPACITY);
    (0..10).for_each(|i| checked.request(&format!("first-{i}"), 10));
    checked.request("large", 90);
    let mut rounds = 0;
    while !checked.queued["large"].is_empty() {
        rounds += 1;
        checked.request(&format!("later-{rounds}"), 10);
        checked.release(0);
        checked.grant_all();
    }
    assert_eq!(rounds, 9, "as many as it takes to free 90");
}

#[test]
fn a_query_at_its_own_limit_delays_no_other() {
    let mut checked = Checked::new(50);
    checked.request("greedy", 50);
    checked.request("greedy", 10);
    checked.request("modest", 40);
    assert_eq!(checked.held_by("modest"), 40);
    let shortage = checked.ledger.shortage();
    let limited = vec![("greedy".into(), 10)];
    let expected = Shortage {
        parties: 1,
        capacity: 0,
        limited,
    };
    assert_eq!(shortage, expected);
    checked.release(0);
    checked.grant_all();
    assert_eq!(checked.held_by("greedy"), 10);
}

#[test]
fn the_shortage_of_capacity_excludes_what_only_a_limit_prevents() {
    let mut checked = Checked::new(60);
    checked.request("a", 60);
    checked.request("b", 30);
    checked.request("a", 30);
    checked.request("c", 20);
    let shortage = checked.ledger.shortage();
    assert_eq!(shortage.capacity, 10, "c requests 20, 10 are free");
    assert_eq!(shortage.limited, vec![("a".into(), 30)]);
}

#[tokio::test]
async fn a_cancelled_request_makes_room_for_the_next_and_leaves_no_trace() {
    let semaphore = FairSemaphore::new(10, None);
    let held = semaphore.acquire("a", 4).await;
    let large = semaphore.acquire("b", 10);
    let mut small = Box::pin(semaphore.acquire("c", 5));
    assert!(futures::poll!(&mut small).is_pending(), "b is before c");
    assert_eq!(semaphore.waiting(), 15);
    drop(large);
    assert!(futures::poll!(&mut small).is_ready());
    drop((held, small));
    assert_eq!((semaphore.held(), semaphore.waiting()), (0, 0));
}

#[tokio::test]
async fn a_grant_whose_waiter_is_gone_passes_to_the_next() {
    let semaphore = FairSemaphore::new(10, None);
    let held = semaphore.acquire("a", 10).await;
    let (first, second) = (semaphore.acquire("b", 10), semaphore.acquire("c", 10));
    drop(held);
    assert_eq!(semaphore.held(), 10, "granted before it is polled");
    drop(first);
    let second = second.await;
    assert_eq!(semaphore.waiting(), 0);
    drop(second);
    assert_eq!(semaphore.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[allow(clippy::disallowed_methods)]
async fn no_wake_up_is_lost_when_many_tasks_request_wait_and_give_up() {
    let semaphore = FairSemaphore::new(64, Some(40));
    let random = crate::runtime::Random::seeded(11);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64u64 {
        let (semaphore, random) = (semaphore.clone(), random.clone());
        tasks.spawn(async move {
            let party = format!("q{}", task % 5);
            for _ in 0..200 {
                let permit = semaphore.acquire(&party, 1 + random.next_u64() % 40);
                if random.next_u64() % 4 == 0 {
                    // Cancels while it waits, or just as it is granted.
                    let timeout = std::time::Duration::from_micros(random.next_u64() % 50);
                    let _ = tokio::time::timeout(timeout, permit).await;
                } else {
                    let permit = permit.await;
                    assert!(semaphore.held() <= 64);
                    tokio::task::yield_now().await;
                    drop(permit);
                }
            }
        });
    }
    let all = async { while tasks.join_next().await.transpose().unwrap().is_some() {} };
    let finished = tokio::time::timeout(std::time::Duration::from_secs(120), all).await;
    assert!(
        finished.is_ok(),
        "a request still waits: {:?}",
        semaphore.parties()
    );
    assert_eq!((semaphore.held(), semaphore.waiting()), (0, 0));
    assert!(semaphore.parties().is_empty());
}

#[tokio::test]
async fn bounds_that_are_raised_grant_what_waits_and_lowered_ones_take_nothing_away() {
    let slots = FairSemaphore::new(2, Some(1));
    let first = slots.acquire("a", 1).await;
    let mut second = Box::pin(slots.acquire("a", 1));
    assert!(
        futures::poll!(&mut second).is_pending(),
        "the limit of a party"
    );
    slots.set_bounds(2, None);
    let second = second.await;
    slots.set_bounds(1, None);
    assert_eq!((slots.held(), slots.capacity()), (2, 1));
    let mut third = Box::pin(slots.acquire("b", 1));
    drop(first);
    assert!(
        futures::poll!(&mut third).is_pending(),
        "one is held, as many as there are"
    );
    drop(second);
    assert_eq!(third.await.amount(), 1);
}

#[tokio::test]
async fn what_was_queued_before_bounds_were_lowered_is_granted_alone() {
    let slots = FairSemaphore::new(10, Some(10));
    let held = slots.acquire("a", 4).await;
    let mut large = Box::pin(slots.acquire("a", 8));
    let mut other = Box::pin(slots.acquire("b", 9));
    assert!(futures::poll!(&mut large).is_pending());
    assert!(futures::poll!(&mut other).is_pending());
    slots.set_bounds(5, Some(3));
    assert!(futures::poll!(&mut large).is_pending());
    drop(held);
    let granted = large.await;
    assert_eq!(granted.amount(), 8);
    assert!(futures::poll!(&mut other).is_pending());
    drop(granted);
    assert_eq!(other.await.amount(), 9);
    assert_eq!((slots.held(), slots.waiting()), (0, 0));
}
