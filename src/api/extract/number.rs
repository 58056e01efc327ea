//! Decimal numbers in paths, queries and headers: each number has exactly one accepted form.

use crate::api::problem::Problem;

/// Parses a decimal number up to `max`; refuses signs, spaces and leading zeros. `what` names the
/// number in the problem.
pub fn decimal(what: &str, text: &str, max: u64) -> Result<u64, Problem> {
    let canonical = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    canonical
        .then(|| text.parse::<u64>().ok())
        .flatten()
        .filter(|number| *number <= max)
        .ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            Problem::invalid(format!(
                "{what} {shown:?} is invalid: give a decimal number from 0 to {max}"
            ))
        })
}

/// Like [`decimal`], for 32 bits.
pub fn decimal_u32(what: &str, text: &str, max: u32) -> Result<u32, Problem> {
    let number = decimal(what, text, u64::from(max))?;
    Ok(u32::try_from(number).expect("at most max, a u32"))
}
