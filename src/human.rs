//! Numbers as people read them: counts with their noun, rounded sizes, rates.
//!
//! Pure. Does not: print what has to be parsed again (`config::units` does). Invariant: exactly 1
//! has the singular.

use std::fmt::{self, Display};

use bytesize::ByteSize;

/// Displays as a count and its noun.
#[derive(Debug, Clone, Copy)]
pub struct Count<N> {
    number: N,
    noun: &'static str,
}

/// A count of something; `noun` is its singular.
///
/// ```
/// use stopover::human::count;
///
/// assert_eq!(count(1, "exchange").to_string(), "1 exchange");
/// assert_eq!(count(0, "base directory").to_string(), "0 base directories");
/// ```
pub fn count<N: Display + PartialEq + From<u8>>(number: N, noun: &'static str) -> Count<N> {
    Count { number, noun }
}

impl<N: Display + PartialEq + From<u8>> Display for Count<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, noun } = self;
        if *number == N::from(1) {
            return write!(f, "{number} {noun}");
        }
        match noun.strip_suffix('y') {
            Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => write!(f, "{number} {stem}ies"),
            _ if noun.ends_with("ch") || noun.ends_with('x') => write!(f, "{number} {noun}es"),
            _ => write!(f, "{number} {noun}s"),
        }
    }
}

/// A size with one decimal, such as `1.5 KiB`.
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// Bytes a second as [`size`] rounds them.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people; the cast saturates"
)]
pub fn bytes_per_second(bytes: f64) -> String {
    format!("{}/s", size(bytes as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: `stopover exchanges` ended with "1 exchanges", and the page showed "1 integrity
    /// checks".
    #[test]
    fn one_has_the_singular_and_all_others_the_plural() {
        let shown = |number: u64, noun| count(number, noun).to_string();
        assert_eq!(shown(1, "exchange"), "1 exchange");
        assert_eq!(shown(0, "exchange"), "0 exchanges");
        assert_eq!(shown(21, "page"), "21 pages");
        assert_eq!(shown(2, "base directory"), "2 base directories");
        assert_eq!(shown(2, "query"), "2 queries");
        assert_eq!(shown(2, "day"), "2 days");
        assert_eq!(shown(2, "batch"), "2 batches");
        assert_eq!(shown(2, "index"), "2 indexes");
    }

    #[test]
    fn sizes_and_rates_are_rounded() {
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
        assert_eq!(bytes_per_second(1.9), "1 B/s");
        assert_eq!(bytes_per_second(-1.0), "0 B/s");
    }
}
