//! Tokens of Azure and of Google that expire, or are revoked, while a daemon writes: no sink fails
//! for it.
//!
//! The stores accept only tokens that are valid, and answer 401 to others, as both clouds do.

use std::time::Duration;

use crate::certificates::server_config;
use crate::fake_azure::FakeAzure;
use crate::fake_gcs::FakeGcs;
use crate::google::{User, proxy_to};
use crate::rotation::{daemon_at, write};
use crate::tls::Authority;
use crate::tokens::{MSI_PATH, Tokens};

/// Tokens that are used live for this time.
const LIFETIME: Duration = Duration::from_secs(2);
/// What the others are said to live for: the stores' clients keep them until then.
const HOUR: Duration = Duration::from_secs(3600);

/// A container for which tokens are needed.
async fn container(tokens: &Tokens) -> FakeAzure {
    let tokens = tokens.clone();
    FakeAzure::start(move |head| tokens.accepts(head)).await
}

/// A bucket of Google for which tokens are needed.
async fn bucket(tokens: &Tokens) -> FakeGcs {
    let tokens = tokens.clone();
    FakeGcs::start_checking(move |head| tokens.accepts(head)).await
}

/// Writes while tokens live for two seconds, or are revoked three times where they live longer.
async fn write_while(
    tokens: &Tokens,
    revoked: bool,
    uri: &str,
    options: &[(&str, &str)],
    variables: &[(&str, &str)],
) {
    let tried = daemon_at(uri, options, variables);
    write(&tried, async |round| {
        if revoked && round % 8 == 3 {
            tokens.revoke();
        }
    })
    .await;
    assert!(tokens.issued() >= 4, "{} were given out", tokens.issued());
}

fn assert_refused(refused: &[String]) {
    let expired = |line: &String| line.contains("InvalidAuthenticationInfo");
    assert!(
        refused.iter().any(expired),
        "nothing was refused: the test proves nothing"
    );
}

/// Story: a token that the store no longer accepted was shown for three quarters of the time that
/// it was said to live, for example after its machine had been suspended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sink_fails_while_tokens_of_microsoft_entra_are_revoked() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let [ca, token] = ["ca.pem", "token"].map(|name| folder.path().join(name));
    std::fs::write(&ca, authority.certificate()).unwrap();
    std::fs::write(&token, "token-of-the-pod").unwrap();
    for (name, value, words) in [
        ("client_secret", "hush", "client_secret=hush"),
        (
            "azure_federated_token_file",
            token.to_str().unwrap(),
            "client_assertion=token-of-the-pod",
        ),
    ] {
        let tokens = Tokens::start(HOUR, HOUR, Some(server_config(&authority, false))).await;
        let container = container(&tokens).await;
        let (endpoint, login) = (
            container.endpoint(),
            format!("https://localhost:{}", tokens.address.port()),
        );
        let options = [
            ("account", "account"),
            ("endpoint", &endpoint),
            ("ca_file", ca.to_str().unwrap()),
            ("client_id", "client-7"),
            ("tenant_id", "tenant-8"),
            ("azure_authority_host", &login),
            (name, value),
        ];
        write_while(&tokens, true, "az://container/p", &options, &[]).await;
        assert_refused(&container.refused());
        for asked in tokens.asked() {
            assert!(asked.starts_with("/tenant-8/oauth2/v2.0/token "), "{asked}");
            assert!(asked.contains(words), "{asked}");
        }
    }
}

/// As App Service and Container Apps give them out, at an address in the environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sink_fails_while_tokens_of_a_managed_identity_are_revoked_or_expire() {
    for (lifetime, revoked) in [(HOUR, true), (LIFETIME, false)] {
        let tokens = Tokens::start(lifetime, lifetime, None).await;
        let container = container(&tokens).await;
        let endpoint = container.endpoint();
        let identity = format!("http://{}{MSI_PATH}", tokens.address);
        let options = [("account", "account"), ("endpoint", &endpoint)];
        let variables = [
            ("IDENTITY_ENDPOINT", identity.as_str()),
            ("IDENTITY_HEADER", "secret-of-the-identity"),
        ];
        write_while(&tokens, revoked, "az://container/p", &options, &variables).await;
        if revoked {
            assert_refused(&container.refused());
        }
        let asked = tokens.asked();
        let wanted = |asked: &String| asked.contains("resource=https%3A%2F%2Fstorage.azure.com");
        assert!(asked.iter().all(wanted), "{asked:?}");
    }
}

/// The metadata server of a machine, which also gives out the tokens of GKE's workload identity.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sink_fails_while_tokens_of_a_metadata_server_are_revoked_or_expire() {
    for (lifetime, revoked) in [(HOUR, true), (LIFETIME, false)] {
        let tokens = Tokens::start(lifetime, lifetime, None).await;
        let bucket = bucket(&tokens).await;
        let endpoint = format!("http://{}", bucket.address);
        let host = tokens.address.to_string();
        let variables = [("GCE_METADATA_HOST", host.as_str())];
        let options = [("endpoint", endpoint.as_str())];
        write_while(&tokens, revoked, "gs://bucket/p", &options, &variables).await;
        if revoked {
            assert_refused(&bucket.refused());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sink_fails_while_tokens_of_a_user_are_revoked() {
    let user = User::new();
    let tokens = Tokens::start(HOUR, HOUR, Some(user.tls.clone())).await;
    let proxy = proxy_to(tokens.address, std::sync::Arc::default()).await;
    let bucket = bucket(&tokens).await;
    let endpoint = format!("http://{}", bucket.address);
    let of_user = user.options(proxy);
    let mut options = vec![("endpoint", endpoint.as_str())];
    options.extend(of_user.iter().map(|(name, value)| (*name, value.as_str())));
    write_while(&tokens, true, "gs://bucket/p", &options, &[]).await;
    assert_refused(&bucket.refused());
}
