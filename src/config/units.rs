//! Sizes and durations in readable form: `64MiB`, `64 MB`, `30s`, `1m 30s`.
//!
//! Does: parse text to bytes or time and print them back so that they parse to the same value. Does
//! not: know the settings. Invariant: nothing is rounded silently; ambiguous text is refused.

use std::fmt;
use std::time::Duration;

use super::problem::InvalidValue;

const SIZE_UNITS: &[(&str, u64)] = &[
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("ti", 1 << 40),
    ("gi", 1 << 30),
    ("mi", 1 << 20),
    ("ki", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("b", 1),
    ("", 1),
];

/// Parses a size in bytes: a number and a unit, `KiB` to `TiB` (or `Ki` to `Ti`) by 1024, `kB` to
/// `TB` by 1000, or none for bytes.
///
/// ```
/// use stopover::config::units::parse_size;
///
/// assert_eq!(parse_size("1.5GiB"), Ok(3 << 29));
/// assert!(parse_size("64M").unwrap_err().to_string().contains("write MB or MiB"));
/// ```
///
/// # Errors
/// What is wrong and how to write it.
pub fn parse_size(text: &str) -> Result<u64, InvalidValue> {
    let (number, unit) = split_number(text.trim());
    let unit = unit.trim().to_ascii_lowercase();
    if let "k" | "m" | "g" | "t" = unit.as_str() {
        let letter = unit.to_ascii_uppercase();
        return Err(format!(
            "the unit {letter} may mean 1000 or 1024: write {letter}B or {letter}iB"
        )
        .into());
    }
    let factor = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor)
        .ok_or("not a size: write a number and a unit, such as 64MiB or 500 kB")?;
    scale(number, factor)
}

/// Parses a duration of whole microseconds: one or more numbers, each with its unit, such as
/// `1m 30s`.
///
/// ```
/// use std::time::Duration;
///
/// use stopover::config::units::parse_duration;
///
/// assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
/// ```
///
/// # Errors
/// What is wrong and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidValue> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text != "0" {
        return Err(format!("the duration {text} has no unit: write {text}s or {text}ms").into());
    }
    let duration = humantime::parse_duration(text).map_err(|why| {
        format!("not a duration ({why}): write numbers and units, such as 30s or 1m 30s")
    })?;
    // Longer ones would overflow when they are added to an instant.
    if duration.as_nanos() > u128::from(u64::MAX) {
        return Err("the duration is too large: the longest is 500 years".into());
    }
    if duration.subsec_nanos() % 1000 != 0 {
        return Err(
            "no whole number of us, the smallest unit of a duration: write for example 20us".into(),
        );
    }
    Ok(duration)
}

/// A size, or a share of a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SizeOrPercent {
    /// Bytes.
    Size(u64),
    /// From 0 to 100.
    Percent(f64),
}

impl SizeOrPercent {
    /// In bytes.
    pub fn of(self, total: u64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a percentage is from 0 to 100; a rounding error does not matter"
        )]
        match self {
            Self::Size(bytes) => bytes,
            Self::Percent(percent) => (total as f64 * percent / 100.0) as u64,
        }
    }
}

impl fmt::Display for SizeOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(bytes) => f.write_str(&format_size(*bytes)),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Parses a size, or a percentage such as `2.5%`.
///
/// # Errors
/// What is wrong and how to write it.
pub fn parse_size_or_percent(text: &str) -> Result<SizeOrPercent, InvalidValue> {
    let Some(number) = text.trim().strip_suffix('%') else {
        return parse_size(text).map(SizeOrPercent::Size);
    };
    match number.trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(SizeOrPercent::Percent(percent)),
        _ => Err("a percentage is from 0% to 100%, such as 2.5%".into()),
    }
}

/// Prints bytes with the largest unit that divides them.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    UNITS
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(
            || format!("{bytes}B"),
            |(unit, factor)| format!("{}{unit}", bytes / factor),
        )
}

/// Prints bytes for people, rounded down to a tenth of the largest unit that `like` is a multiple
/// of; to compare the two.
pub fn format_size_like(bytes: u64, like: u64) -> String {
    let written = format_size(like);
    let unit = written.trim_start_matches(|c: char| c.is_ascii_digit());
    let units = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let factor = units.map_or(1, |(_, factor)| *factor);
    let tenths = u128::from(bytes) * 10 / u128::from(factor);
    match (tenths / 10, tenths % 10) {
        (0, 0) => format_size(bytes),
        (whole, 0) => format!("{whole}{unit}"),
        (whole, tenth) => format!("{whole}.{tenth}{unit}"),
    }
}

/// Prints a duration so that it parses to the same value.
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `number` times `factor`, exactly.
fn scale(number: &str, factor: u64) -> Result<u64, InvalidValue> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_malformed = whole.is_empty()
        || (number.contains('.') && fraction.is_empty())
        || fraction.contains('.')
        || fraction.len() > 12;
    if is_malformed {
        return Err("not a size: write a number and a unit, such as 64MiB".into());
    }
    let too_large = "not a size: the number is too large";
    let digits: u128 = format!("{whole}{fraction}")
        .parse()
        .map_err(|_| too_large)?;
    let places = u32::try_from(fraction.len()).map_err(|_| too_large)?;
    let divisor = 10_u128.checked_pow(places).ok_or(too_large)?;
    let scaled = digits.checked_mul(u128::from(factor)).ok_or(too_large)?;
    if !scaled.is_multiple_of(divisor) {
        return Err("no whole number of bytes: write the size in a smaller unit".into());
    }
    u64::try_from(scaled / divisor).map_err(|_| too_large.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_share_is_read_and_printed_as_it_was_written() {
        for (text, of_a_mebibyte) in [("1%", 10_485), ("2.5 %", 26_214), ("64KiB", 65_536)] {
            let parsed = parse_size_or_percent(text).unwrap();
            assert_eq!(parsed.of(1 << 20), of_a_mebibyte, "{text}");
            assert_eq!(parsed.to_string(), text.replace(' ', ""));
        }
        for text in ["101%", "-1%", "%", "NaN%", "1 %%", "5 percent"] {
            parse_size_or_percent(text).unwrap_err();
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("64 MB", 64_000_000),
            ("1.5GiB", 3 << 29),
            ("512Mi", 512 << 20),
            ("500 kb", 500_000),
            ("4096", 4096),
            (" 0 ", 0),
            ("17B", 17),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_are_ambiguous_or_malformed_are_refused_with_the_right_way_to_write_them() {
        for (text, hint) in [
            ("64M", "write MB or MiB"),
            ("64MiBs", "such as 64MiB"),
            ("MiB", "such as 64MiB"),
            ("", "such as 64MiB"),
            ("-1MiB", "such as 64MiB"),
            ("1..5MiB", "such as 64MiB"),
            ("1.MiB", "such as 64MiB"),
            ("0.5B", "no whole number"),
            ("99999999999TiB", "too large"),
            ("1,5GiB", "such as 64MiB"),
        ] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("20ms", 20),
            ("30s", 30_000),
            ("1m 30s", 90_000),
            ("1h30m", 5_400_000),
            ("2 minutes", 120_000),
            ("1.5s", 1_500),
            ("1d", 86_400_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn durations_without_a_unit_or_with_an_unknown_one_are_refused() {
        for (text, hint) in [
            ("30", "30s"),
            ("1m 30", "30s"),
            ("30 parsecs", "such as 30s"),
            ("s", "such as 30s"),
            ("", "such as 30s"),
            ("-5s", "such as 30s"),
            ("999999999999d", "too large"),
            // It was accepted, and printed as 0s.
            ("0.5us", "no whole number of us"),
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    /// Story: `memory.budget = "900GiB"` was refused with a limit of "24684084KiB".
    #[test]
    fn a_limit_is_printed_in_the_unit_of_what_exceeds_it() {
        let like = |bytes, like| format_size_like(bytes, like);
        assert_eq!(like(24_684_084 << 10, 900 << 30), "23.5GiB");
        assert_eq!(like(16 << 30, 17 << 30), "16GiB");
        assert_eq!(like(3 << 20, 5 << 40), "3MiB");
        assert_eq!(like(1000, 7), "1000B");
    }

    proptest! {
        #[test]
        fn printed_sizes_read_back_as_themselves(bytes: u64) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn printed_durations_read_back_as_themselves(micros in 0..u64::MAX / 2_000) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text: String) {
            let _ = parse_size(&text);
            let _ = parse_duration(&text);
        }
    }
}
