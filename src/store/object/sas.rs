//! When a shared access signature of Azure is valid.
//!
//! Does: read its times, `st` and `se`. Does not: verify it, which only the server can. Source:
//! "Create an account SAS" and "Create a service SAS" in Microsoft's reference of Azure Storage.

use std::time::SystemTime;

use url::form_urlencoded;

use crate::certificate::Validity;

/// When the signature in `token`, the query of a URL, is valid; `None` if it names no end, since an
/// access policy of the container may hold it. Without a start it counts as valid since
/// `now_millis`.
pub(super) fn validity(token: &str, now_millis: u64) -> Option<Validity> {
    let (mut start, mut end) = (None, None);
    for (name, value) in form_urlencoded::parse(token.trim_start_matches('?').as_bytes()) {
        match &*name {
            "st" => start = millis(&value),
            "se" => end = millis(&value),
            _ => {}
        }
    }
    Some(Validity {
        not_before: start.unwrap_or(now_millis),
        not_after: end?,
    })
}

/// Milliseconds since 1970 of one of the forms that Azure accepts: a day, or a time of it in UTC to
/// the minute or the second.
fn millis(text: &str) -> Option<u64> {
    let whole = match text.trim_end_matches('Z') {
        day if day.len() == 10 => format!("{day}T00:00:00Z"),
        minute if minute.len() == 16 => format!("{minute}:00Z"),
        second => format!("{second}Z"),
    };
    let time = humantime::parse_rfc3339(&whole).ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_says_its_times_in_three_forms() {
        for (token, expected) in [
            (
                "?sv=2024-11-04&st=2026-12-01&se=2026-12-02T06%3A30Z&sig=a%2Fb",
                Some((1_796_083_200_000, 1_796_193_000_000)),
            ),
            (
                "se=2026-12-02T06:30:05Z&sig=c",
                Some((7, 1_796_193_005_000)),
            ),
            ("si=policy&sig=c", None),
            ("se=tomorrow&sig=c", None),
            ("se=2026-12-02T06:30:05%2B02:00&sig=c", None),
        ] {
            let expected = expected.map(|(not_before, not_after)| Validity {
                not_before,
                not_after,
            });
            assert_eq!(validity(token, 7), expected, "{token}");
        }
    }
}
