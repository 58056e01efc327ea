//! Warnings about credentials that work but are insecure.
//!
//! Does: check the permissions of the files, whether tokens are sent in clear text, and whether the
//! certificate expires soon. Does not: refuse or log anything.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use super::Address;
use crate::config::ServerConfig;
use crate::http::certificate::Validity;

/// Permission bits of users other than owner and group.
const OTHERS: u32 = 0o007;
/// A certificate expires soon in the last part of its time: one of this many.
const SOON: u64 = 10;

/// Finds all of it, one text each.
pub(super) fn find(
    address: &Address,
    config: &ServerConfig,
    validity: Option<Validity>,
    now_millis: u64,
) -> Vec<String> {
    let files = [
        (address.token_setting, &address.token_file),
        ("server.tls_key_file", &config.tls_key_file),
    ];
    let mut found = Vec::new();
    for (setting, path) in files {
        let Some(path) = path else { continue };
        let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode());
        if mode.is_ok_and(|mode| mode & OTHERS != 0) {
            found.push(format!(
                "every user of this machine may read or change {setting} {}: chmod o= it",
                path.display()
            ));
        }
    }
    let loopback = address.listen.ip().to_canonical().is_loopback();
    if address.token_file.is_some() && config.tls().is_none() && !loopback {
        found.push(format!(
            "tokens travel unencrypted to {}: configure \
             server.tls_certificate_file and server.tls_key_file, or encrypt the network",
            address.listen
        ));
    }
    found.extend(validity.and_then(|validity| expiry(validity, now_millis)));
    found
}

fn expiry(validity: Validity, now_millis: u64) -> Option<String> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    let soon = not_after.saturating_sub(not_after.saturating_sub(not_before) / SOON);
    let date = |millis| {
        let date = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        humantime::format_rfc3339_seconds(date)
    };
    let setting = "the certificate of server.tls_certificate_file";
    if now_millis > not_after {
        return Some(format!(
            "{setting} expired at {}: renew it",
            date(not_after)
        ));
    }
    if now_millis < not_before {
        return Some(format!("{setting} is valid only from {}", date(not_before)));
    }
    (now_millis >= soon).then(|| format!("{setting} expires at {}: renew it", date(not_after)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    const DAY: u64 = 86_400_000;

    #[test]
    fn a_file_that_all_users_may_read_is_reported_by_its_setting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = ServerConfig {
            token_file: Some(file.path().to_owned()),
            ..ServerConfig::default()
        };
        for (mode, reported) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o602, 1)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            let found = find(&Address::main(&config), &config, None, 0);
            assert_eq!(found.len(), reported, "{mode:o}: {found:?}");
            assert!(found.iter().all(|text| text.contains("server.token_file")));
        }
    }

    #[test]
    fn tokens_in_clear_are_reported_unless_they_stay_on_the_machine() {
        let found = |listen: &str, tls: Option<&str>| {
            let config = ServerConfig {
                listen: listen.parse::<SocketAddr>().unwrap(),
                token_file: Some("/nonexistent/tokens".into()),
                tls_certificate_file: tls.map(Into::into),
                tls_key_file: tls.map(Into::into),
                ..ServerConfig::default()
            };
            find(&Address::main(&config), &config, None, 0)
        };
        assert!(found("0.0.0.0:7077", None)[0].contains("unencrypted"));
        for (listen, tls) in [
            ("127.0.0.1:7077", None),
            ("[::ffff:127.0.0.1]:7077", None),
            ("0.0.0.0:7077", Some("/nonexistent/pem")),
        ] {
            assert_eq!(found(listen, tls), Vec::<String>::new(), "{listen}");
        }
    }

    #[test]
    fn a_certificate_is_reported_in_the_last_tenth_of_its_time_and_afterwards() {
        let validity = Validity {
            not_before: 1000 * DAY,
            not_after: 1100 * DAY,
        };
        let at = |day: u64| expiry(validity, day * DAY).unwrap_or_default();
        assert_eq!((at(1000), at(1089)), (String::new(), String::new()));
        assert!(
            at(1090).contains("expires at 1973-01-05T00:00:00Z"),
            "{}",
            at(1090)
        );
        assert!(at(1101).contains("expired at"), "{}", at(1101));
        assert!(at(999).contains("valid only from"), "{}", at(999));
    }
}
