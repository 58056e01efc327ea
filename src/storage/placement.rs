//! The order in which base directories are tried: pure functions over indexes and names.
//!
//! Does: round-robin for segments, rendezvous hashing for markers. Does not: access stores or
//! determine health. Invariant: every order contains each base directory exactly once.

use std::cmp::Reverse;

use crate::id::{BaseName, ExchangeId};
use crate::store::stable_hash;

/// The order for the `turn`th segment: the healthy base directories in rotation, then, as a last
/// resort, the others in rotation.
///
/// ```
/// use stopover::storage::placement::round_robin;
///
/// assert_eq!(round_robin(1, &[true, false, true]), [2, 0, 1]);
/// ```
pub fn round_robin(turn: usize, healthy: &[bool]) -> Vec<usize> {
    let all: Vec<usize> = (0..healthy.len()).collect();
    set_first(turn, healthy, &all)
}

/// The same for an exchange that has a set: its members before the others, as long as they are
/// healthy.
///
/// ```
/// use stopover::storage::placement::set_first;
///
/// assert_eq!(set_first(1, &[true, true, true, false], &[0, 1, 3]), [1, 0, 2, 3]);
/// assert_eq!(set_first(0, &[false, false, true, false], &[0, 1, 3]), [2, 0, 1, 3]);
/// ```
pub fn set_first(turn: usize, healthy: &[bool], members: &[usize]) -> Vec<usize> {
    let mut order = Vec::with_capacity(healthy.len());
    for part in [(true, true), (true, false), (false, true), (false, false)] {
        let is_in = |i: &usize| (healthy[*i], members.contains(i)) == part;
        order.extend(rotated(turn, (0..healthy.len()).filter(is_in).collect()));
    }
    order
}

fn rotated(turn: usize, mut part: Vec<usize>) -> Vec<usize> {
    if !part.is_empty() {
        let turn = turn % part.len();
        part.rotate_left(turn);
    }
    part
}

/// The order in which an exchange prefers the base directories. It depends only on the exchange id
/// and the names, so that every daemon computes the same, and removing a base directory affects
/// only the exchanges that preferred it.
pub fn rendezvous<'a>(
    exchange: &ExchangeId,
    names: impl IntoIterator<Item = &'a BaseName>,
) -> Vec<usize> {
    let score = |(index, name): (usize, &'a BaseName)| {
        let hash = stable_hash(&[exchange.as_str().as_bytes(), name.as_str().as_bytes()]);
        (Reverse(hash), name, index)
    };
    let mut scored: Vec<_> = names.into_iter().enumerate().map(score).collect();
    // Names break ties: configurations may list the same base directories in another order.
    scored.sort();
    scored.into_iter().map(|(_, _, index)| index).collect()
}

/// The same order, with the healthy base directories first.
pub fn healthy_first(order: Vec<usize>, healthy: &[bool]) -> Vec<usize> {
    let (mut first, mut rest): (Vec<usize>, Vec<usize>) =
        order.into_iter().partition(|&i| healthy[i]);
    first.append(&mut rest);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<BaseName> {
        all.iter().map(|n| n.parse().unwrap()).collect()
    }

    #[test]
    fn healthy_base_directories_rotate_and_the_others_come_last() {
        let healthy = [true, false, true];
        assert_eq!(round_robin(0, &healthy), [0, 2, 1]);
        assert_eq!(round_robin(1, &healthy), [2, 0, 1]);
        assert_eq!(round_robin(2, &healthy), [0, 2, 1]);
    }

    #[test]
    fn an_order_of_preference_is_kept_among_the_healthy_and_among_the_others() {
        let healthy = [true, false, true, false];
        assert_eq!(healthy_first(vec![3, 2, 1, 0], &healthy), [2, 0, 3, 1]);
        assert_eq!(healthy_first(vec![1, 3], &healthy), [1, 3]);
        assert_eq!(healthy_first(Vec::new(), &healthy), [0; 0]);
    }

    #[test]
    fn when_all_are_unhealthy_all_are_tried() {
        assert_eq!(round_robin(1, &[false, false]), [1, 0]);
        assert_eq!(round_robin(usize::MAX, &[]), Vec::<usize>::new());
    }

    #[test]
    fn an_order_contains_every_base_directory_once() {
        for bits in 0..32_usize {
            let healthy: Vec<bool> = (0..5).map(|i| bits & (1 << i) != 0).collect();
            for turn in 0..7 {
                let mut order = round_robin(turn, &healthy);
                let unhealthy = order.iter().position(|&i| !healthy[i]).unwrap_or(5);
                assert!(
                    order[unhealthy..].iter().all(|&i| !healthy[i]),
                    "healthy ones come first"
                );
                order.sort_unstable();
                assert_eq!(order, [0, 1, 2, 3, 4]);
            }
        }
    }

    #[test]
    fn the_preferred_base_directory_does_not_depend_on_the_order_of_the_configuration() {
        let (ab, ba) = (names(&["a", "b", "c"]), names(&["c", "b", "a"]));
        for n in 0..200 {
            let exchange: ExchangeId = format!("exchange-{n}").parse().unwrap();
            let one: Vec<_> = rendezvous(&exchange, &ab)
                .into_iter()
                .map(|i| &ab[i])
                .collect();
            let two: Vec<_> = rendezvous(&exchange, &ba)
                .into_iter()
                .map(|i| &ba[i])
                .collect();
            assert_eq!(one, two);
        }
    }

    #[test]
    fn exchanges_are_spread_over_the_base_directories() {
        let bases = names(&["a", "b", "c", "d"]);
        let mut count = [0; 4];
        for n in 0..4000 {
            let exchange: ExchangeId = format!("20261123_{n}_q").parse().unwrap();
            count[rendezvous(&exchange, &bases)[0]] += 1;
        }
        assert!(count.iter().all(|&c| (800..1200).contains(&c)), "{count:?}");
    }

    #[test]
    fn the_hash_does_not_change() {
        // Daemons of different builds must agree on preferences and derived names.
        assert_eq!(stable_hash(&[]), PINNED_EMPTY);
        assert_eq!(stable_hash(&[b"exchange", b"base"]), PINNED_PAIR);
        assert_ne!(stable_hash(&[b"ab", b"c"]), stable_hash(&[b"a", b"bc"]));
    }

    const PINNED_EMPTY: u64 = 0xFDBDF6AC4FC52E7F;
    const PINNED_PAIR: u64 = 0xBD10D2DA34F43293;
}
