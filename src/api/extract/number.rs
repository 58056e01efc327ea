//! Decimal numbers in paths, queries and headers: each number has exactly one accepted form.

use std::fmt::Display;
use std::str::FromStr;

use crate::api::problem::Problem;

/// Parses a decimal number up to `max`; refuses signs, spaces and leading zeros. `what` names the
/// number in the problem.
pub(super) fn decimal<N>(what: &str, text: &str, max: N) -> Result<N, Problem>
where
    N: FromStr + PartialOrd + Display,
{
    let canonical = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    let number = text.parse().ok();
    number
        .filter(|number| canonical && *number <= max)
        .ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            Problem::invalid(format!(
                "{what} {shown:?} is invalid: give a decimal number from 0 to {max}"
            ))
        })
}
