//! Warnings about credentials that work but are insecure.
//!
//! Does: check the permissions of the files, whether tokens are sent in clear text, and whether the
//! certificate expires soon. Does not: refuse or log anything.

use std::os::unix::fs::PermissionsExt as _;

use super::Address;
use crate::certificate::Validity;
use crate::config::ServerConfig;

/// Permission bits of users other than owner and group.
const OTHERS: u32 = 0o007;

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
    let certificate = "the certificate of server.tls_certificate_file";
    found.extend(validity.and_then(|validity| validity.warning(certificate, now_millis)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

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
}
