//! Warnings about credentials that work but are insecure.
//!
//! Does: check the permissions of the files, whether tokens are sent in clear text, and whether the
//! certificate expires soon. Does not: refuse or log anything.

use super::Address;
use crate::certificate::Validity;
use crate::config::{ServerConfig, exposure_warning};

/// Finds all of it, one text each.
pub(super) fn find(
    address: &Address,
    config: &ServerConfig,
    validity: Option<Validity>,
    now_millis: u64,
) -> Vec<String> {
    let files = [
        ("server.token_file", &config.token_file),
        ("server.admin_token_file", &config.admin_token_file),
        ("server.tls_key_file", &config.tls_key_file),
    ];
    let exposures = files.into_iter();
    let exposures =
        exposures.filter_map(|(setting, path)| exposure_warning(setting, path.as_deref()?));
    let mut found: Vec<String> = exposures.collect();
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
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn each_file_that_all_users_may_read_is_reported_by_its_setting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = || Some(file.path().to_owned());
        let config = ServerConfig {
            token_file: path(),
            admin_token_file: path(),
            tls_key_file: path(),
            ..ServerConfig::default()
        };
        let settings = [
            "server.token_file",
            "server.admin_token_file",
            "server.tls_key_file",
        ];
        for (mode, reported) in [(0o600, 0), (0o644, 3)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            let found = find(&Address::main(&config), &config, None, 0);
            assert_eq!(found.len(), reported, "{mode:o}: {found:?}");
            for (text, setting) in found.iter().zip(settings) {
                assert!(text.contains(&format!("change {setting} /")), "{text}");
            }
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
