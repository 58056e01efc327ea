//! Claims about who is granted what and when: of the ledger by random histories, of the semaphore
//! by tasks that come, wait and leave.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::FairSemaphore;
use super::ledger::{Granted, Ledger, Shortage};

const CAPACITY: u64 = 100;

/// What happens to a ledger; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Event {
    Ask { who: usize, amount: u64 },
    Leave(usize),
    Give(usize),
}

fn some_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0usize..5, 1u64..40).prop_map(|(who, amount)| Event::Ask { who, amount }),
        1 => any::<usize>().prop_map(Event::Leave),
        2 => any::<usize>().prop_map(Event::Give),
    ]
}

/// A ledger beside a plain account of what it should hold.
struct Checked {
    ledger: Ledger<u64>,
    limit: u64,
    /// What was granted, by whom, in order.
    held: Vec<(String, u64)>,
    /// What waits: name, ticket, amount, and the number under which it is told.
    queued: HashMap<String, VecDeque<(u64, u64, u64)>>,
    asked: u64,
    /// What was granted to whom after it had waited, in order.
    granted: Vec<(String, u64)>,
}

impl Checked {
    fn new(limit: u64) -> Self {
        Self {
            ledger: Ledger::new(CAPACITY, limit),
            limit,
            held: Vec::new(),
            queued: HashMap::new(),
            asked: 0,
            granted: Vec::new(),
        }
    }

    fn ask(&mut self, who: &str, amount: u64) {
        if self.ledger.take(who, amount).is_some() {
            self.held.push((who.to_owned(), amount));
        } else {
            let (name, ticket) = self.ledger.wait(who, amount, self.asked);
            assert_eq!(&*name, who);
            let queue = self.queued.entry(who.to_owned()).or_default();
            queue.push_back((ticket, amount, self.asked));
            // Whoever begins to wait begins because it cannot be granted.
            assert!(self.ledger.grant().is_none());
        }
        self.asked += 1;
    }

    /// Begins to wait while others do.
    fn ask_behind(&mut self, who: &str, amount: u64) {
        let (_, ticket) = self.ledger.wait(who, amount, self.asked);
        let queue = self.queued.entry(who.to_owned()).or_default();
        queue.push_back((ticket, amount, self.asked));
        self.asked += 1;
    }

    fn leave(&mut self, at: usize) {
        let mut waiting: Vec<_> = self
            .queued
            .iter()
            .flat_map(|(who, queue)| queue.iter().map(|w| (who.clone(), w.0)))
            .collect();
        waiting.sort();
        if waiting.is_empty() {
            return;
        }
        let (who, ticket) = waiting[at % waiting.len()].clone();
        assert!(self.ledger.leave(&who, ticket));
        assert!(!self.ledger.leave(&who, ticket), "it left before");
        let queue = self.queued.get_mut(&who).unwrap();
        queue.retain(|w| w.0 != ticket);
    }

    fn give(&mut self, at: usize) {
        if !self.held.is_empty() {
            let (who, amount) = self.held.remove(at % self.held.len());
            self.ledger.give(&who, amount);
        }
    }

    /// Grants one request and takes it back, so that nobody ever is at its limit.
    fn serve_one(&mut self) {
        let Granted { who, amount, .. } = self.ledger.grant().expect("somebody waits");
        self.queued.get_mut(&*who).unwrap().pop_front();
        self.granted.push((who.to_string(), amount));
        self.ledger.give(&who, amount);
    }

    fn waits(&self, who: &str) -> bool {
        self.queued.get(who).is_some_and(|queue| !queue.is_empty())
    }

    /// Grants all that can be granted; a party's requests must come in order.
    fn grant_all(&mut self) {
        while let Some(Granted {
            who,
            amount,
            waiter,
        }) = self.ledger.grant()
        {
            let queue = self.queued.get_mut(&*who).unwrap();
            let (_, asked_for, number) = queue.pop_front().unwrap();
            assert_eq!((amount, waiter), (asked_for, number), "out of order");
            self.held.push((who.to_string(), amount));
            self.granted.push((who.to_string(), amount));
        }
    }

    /// What the grants from the `from`th on gave to each.
    fn granted_since(&self, from: usize) -> HashMap<&str, u64> {
        let mut sums = HashMap::new();
        for (who, amount) in &self.granted[from..] {
            *sums.entry(who.as_str()).or_default() += amount;
        }
        sums
    }

    fn held_by(&self, who: &str) -> u64 {
        let mine = self.held.iter().filter(|(name, _)| name == who);
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
        let mut someone_fits = false;
        let mut someone_is_kept_by_the_capacity = false;
        for (who, queue) in &self.queued {
            assert!(self.held_by(who) <= self.limit);
            let Some((_, amount, _)) = queue.front() else {
                continue;
            };
            if self.held_by(who) + amount <= self.limit {
                let fits = held + amount <= CAPACITY;
                someone_fits |= fits;
                someone_is_kept_by_the_capacity |= !fits;
            }
        }
        assert!(
            !someone_fits || someone_is_kept_by_the_capacity,
            "somebody could be granted and overtakes nobody by it"
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
                Event::Ask { who, amount } => checked.ask(&format!("q{who}"), amount),
                Event::Leave(at) => checked.leave(at),
                Event::Give(at) => checked.give(at),
            }
            checked.grant_all();
            checked.check();
        }
        // Everything that comes back is enough for all who still wait.
        while !checked.held.is_empty() {
            checked.give(0);
            checked.grant_all();
            checked.check();
        }
        prop_assert_eq!(checked.ledger.waiting(), 0);
        prop_assert_eq!(checked.ledger.parties(), vec![], "an account was kept for nothing");
    }

    #[test]
    fn whatever_others_have_queued_a_new_query_waits_for_two_of_the_largest_of_each(
        queues in prop::collection::vec(prop::collection::vec(1u64..40, 1..60), 1..4),
        before in 0usize..30, mine in 1u64..40,
    ) {
        let mut checked = Checked::new(CAPACITY);
        checked.ask("holder", CAPACITY);
        for (who, amounts) in queues.iter().enumerate() {
            amounts.iter().for_each(|amount| checked.ask(&format!("q{who}"), *amount));
        }
        checked.ledger.give("holder", CAPACITY);
        let queued: usize = queues.iter().map(Vec::len).sum();
        (0..before.min(queued - 1)).for_each(|_| checked.serve_one());
        let granted_before = checked.granted.len();
        checked.ask_behind("newcomer", mine);
        while checked.waits("newcomer") {
            checked.serve_one();
        }
        checked.granted.pop();
        for (who, meanwhile) in checked.granted_since(granted_before) {
            prop_assert!(meanwhile <= 2 * 39, "{} got {}", who, meanwhile);
        }
    }

    #[test]
    fn two_queries_that_wait_all_the_time_get_the_same_to_within_two_of_the_largest(
        one in prop::collection::vec(1u64..40, 300), other in prop::collection::vec(1u64..5, 300),
    ) {
        let mut checked = Checked::new(CAPACITY);
        checked.ask("holder", CAPACITY);
        one.iter().for_each(|amount| checked.ask("one", *amount));
        other.iter().for_each(|amount| checked.ask("other", *amount));
        checked.ledger.give("holder", CAPACITY);
        while checked.waits("one") && checked.waits("other") {
            checked.serve_one();
            let sums = checked.granted_since(0);
            let sum = |who| sums.get(who).copied().unwrap_or(0);
            let apart = sum("one").abs_diff(sum("other"));
            prop_assert!(apart <= 2 * 39, "{} apart", apart);
        }
    }
}

#[test]
fn five_hundred_batches_of_one_query_delay_another_s_by_one() {
    let mut checked = Checked::new(CAPACITY);
    checked.ask("holder", CAPACITY);
    (0..500).for_each(|_| checked.ask("busy", 10));
    checked.ask("new", 10);
    checked.give(0);
    checked.grant_all();
    let order: Vec<&str> = checked.held.iter().map(|(who, _)| who.as_str()).collect();
    assert_eq!(order[..3], ["busy", "new", "busy"]);
}

#[test]
fn a_large_request_is_not_starved_by_queries_that_come_later_and_want_little() {
    let mut checked = Checked::new(CAPACITY);
    (0..10).for_each(|i| checked.ask(&format!("first-{i}"), 10));
    checked.ask("large", 90);
    let mut rounds = 0;
    while !checked.queued["large"].is_empty() {
        rounds += 1;
        checked.ask(&format!("later-{rounds}"), 10);
        checked.give(0);
        checked.grant_all();
    }
    assert_eq!(rounds, 9, "exactly as many as it takes to free 90");
}

#[test]
fn a_query_at_its_own_limit_holds_up_nobody_else() {
    let mut checked = Checked::new(50);
    checked.ask("greedy", 50);
    checked.ask("greedy", 10);
    checked.ask("modest", 40);
    assert_eq!(checked.held_by("modest"), 40);
    let shortage = checked.ledger.shortage();
    let limited = vec![("greedy".into(), 10)];
    let expected = Shortage {
        parties: 1,
        capacity: 0,
        limited,
    };
    assert_eq!(shortage, expected);
    checked.give(0);
    checked.grant_all();
    assert_eq!(checked.held_by("greedy"), 10);
}

#[test]
fn what_is_short_of_the_capacity_does_not_count_what_only_a_limit_keeps_back() {
    let mut checked = Checked::new(60);
    checked.ask("a", 60);
    checked.ask("b", 30);
    checked.ask("a", 30);
    checked.ask("c", 20);
    let shortage = checked.ledger.shortage();
    assert_eq!(shortage.capacity, 10, "c wants 20, 10 are free");
    assert_eq!(shortage.limited, vec![("a".into(), 30)]);
}

#[tokio::test]
async fn a_request_that_leaves_makes_room_for_the_next_and_leaves_no_trace() {
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
async fn a_grant_that_nobody_takes_any_more_goes_on_to_the_next() {
    let semaphore = FairSemaphore::new(10, None);
    let held = semaphore.acquire("a", 10).await;
    let (first, second) = (semaphore.acquire("b", 10), semaphore.acquire("c", 10));
    drop(held);
    assert_eq!(semaphore.held(), 10, "granted, although not yet polled");
    drop(first);
    let second = second.await;
    assert_eq!(semaphore.waiting(), 0);
    drop(second);
    assert_eq!(semaphore.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[allow(clippy::disallowed_methods)]
async fn no_wake_up_is_lost_when_many_come_wait_and_leave_at_once() {
    let semaphore = FairSemaphore::new(64, Some(40));
    let random = crate::runtime::Random::seeded(11);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64u64 {
        let (semaphore, random) = (semaphore.clone(), random.clone());
        tasks.spawn(async move {
            let who = format!("q{}", task % 5);
            for _ in 0..200 {
                let permit = semaphore.acquire(&who, 1 + random.next_u64() % 40);
                if random.next_u64() % 4 == 0 {
                    // Gives up while it waits, or just when it is granted.
                    let patience = std::time::Duration::from_micros(random.next_u64() % 50);
                    let _ = tokio::time::timeout(patience, permit).await;
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
    let ended = tokio::time::timeout(std::time::Duration::from_secs(120), all).await;
    assert!(
        ended.is_ok(),
        "somebody waits although {:?}",
        semaphore.parties()
    );
    assert_eq!((semaphore.held(), semaphore.waiting()), (0, 0));
    assert!(semaphore.parties().is_empty());
}
