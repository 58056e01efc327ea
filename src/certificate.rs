//! When a certificate, or another credential, is valid.
//!
//! Does: read the two times from the DER of a certificate (RFC 5280, section 4.1), and word what an
//! operator should know of them. Does not: verify anything; rustls checks the rest of the
//! certificate.

use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// A credential expires soon in the last part of its time: one of this many.
const SOON: u64 = 10;

/// When a credential is valid, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: u64,
    pub not_after: u64,
}

impl Validity {
    /// Reads the validity of a certificate; `None` if it cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
        let (_, mut fields, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
        if let Some((VERSION, _, rest)) = element(fields) {
            fields = rest;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            fields = element(fields)?.2;
        }
        let (_, validity, _) = element(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
        let (tag, not_before, rest) = element(validity)?;
        let not_before = time(tag, not_before)?;
        let (tag, not_after, _) = element(rest)?;
        Some(Self {
            not_before,
            not_after: time(tag, not_after)?,
        })
    }

    /// The time in which all certificates of a chain are valid; `None` if one cannot be read.
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let each = chain.iter().map(Self::of);
        each.reduce(|a, b| Some(a?.and(b?)))?
    }

    /// The time in which all certificates of a text in PEM are valid; `None` if there is none, or
    /// one cannot be read.
    pub fn of_pem(pem: &[u8]) -> Option<Self> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        Self::of_chain(&chain.ok()?)
    }

    /// The time in which both are valid.
    pub fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }

    /// A warning if it is not valid at this time or expires soon; `what` names the credential.
    pub fn warning(self, what: &str, now_millis: u64) -> Option<String> {
        let Self {
            not_before,
            not_after,
        } = self;
        let soon = not_after.saturating_sub(not_after.saturating_sub(not_before) / SOON);
        let date = |millis| {
            let date = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis));
            humantime::format_rfc3339_seconds(date.unwrap_or(SystemTime::UNIX_EPOCH))
        };
        if now_millis > not_after {
            return Some(format!("{what} expired at {}: renew it", date(not_after)));
        }
        if now_millis < not_before {
            return Some(format!("{what} is valid only from {}", date(not_before)));
        }
        (now_millis >= soon).then(|| format!("{what} expires at {}: renew it", date(not_after)))
    }
}

/// Tag, content and what follows of the first element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = bytes
                .iter()
                .fold(0u32, |all, byte| all << 8 | u32::from(*byte));
            (usize::try_from(length).ok()?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// Milliseconds since 1970 of a time in UTC; times before 1970 count as 0.
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| {
        let digits = digits.iter();
        digits.fold(0i64, |all, digit| 10 * all + i64::from(digit - b'0'))
    };
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let short = number(&digits[..2]);
            (short + if short < 50 { 2000 } else { 1900 }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let mut parts = rest.chunks(2).map(number);
    let mut next = || parts.next();
    let (month, day, hour, minute, second) = (next()?, next()?, next()?, next()?, next()?);
    if !(1..=12).contains(&month) {
        return None;
    }
    // Years begin in March, so that the leap day is the last of its year.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = (days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(u64::try_from(seconds).unwrap_or(0) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn issued(from: (i32, u8, u8), until: (i32, u8, u8)) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn the_validity_of_a_certificate_is_read_across_centuries_and_leap_days() {
        let validity = Validity::of(&issued((1999, 12, 31), (2024, 2, 29))).unwrap();
        assert_eq!(validity.not_before, 946_598_400_000);
        assert_eq!(validity.not_after, 1_709_164_800_000);
        // From 2050 on, times have four digits for the year.
        let validity = Validity::of(&issued((2026, 1, 1), (2100, 3, 1))).unwrap();
        assert_eq!(validity.not_after, 4_107_542_400_000);
    }

    #[test]
    fn a_chain_is_valid_while_all_of_it_is() {
        let chain = [
            issued((2020, 1, 1), (2030, 1, 1)),
            issued((2021, 1, 1), (2029, 1, 1)),
        ];
        assert_eq!(Validity::of_chain(&chain), Validity::of(&chain[1]));
        assert_eq!(Validity::of_chain(&[]), None);
        let broken = CertificateDer::from(vec![SEQUENCE, 0]);
        assert_eq!(Validity::of_chain(&[chain[0].clone(), broken]), None);
    }

    #[test]
    fn a_warning_comes_in_the_last_tenth_of_the_time_and_afterwards() {
        const DAY: u64 = 86_400_000;
        let validity = Validity {
            not_before: 1000 * DAY,
            not_after: 1100 * DAY,
        };
        let at = |day: u64| validity.warning("it", day * DAY).unwrap_or_default();
        assert_eq!((at(1000), at(1089)), (String::new(), String::new()));
        assert!(
            at(1090).contains("expires at 1973-01-05T00:00:00Z"),
            "{}",
            at(1090)
        );
        assert!(at(1101).contains("expired at"), "{}", at(1101));
        assert!(at(999).contains("valid only from"), "{}", at(999));
    }

    proptest! {
        #[test]
        fn a_damaged_certificate_is_read_or_refused_but_never_ends_the_process(
            at in 0usize..400,
            with: u8,
            length in 0usize..500,
        ) {
            static ISSUED: std::sync::LazyLock<CertificateDer<'static>> =
                std::sync::LazyLock::new(|| issued((2020, 1, 1), (2030, 1, 1)));
            let mut bytes = ISSUED.to_vec();
            let at = at % bytes.len();
            bytes[at] = with;
            bytes.truncate(length);
            let _ = Validity::of(&CertificateDer::from(bytes));
        }
    }
}
