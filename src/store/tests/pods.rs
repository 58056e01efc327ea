//! Tests of stores whose credentials come for the token of a pod.

#![allow(clippy::disallowed_methods)] // the agent runs as a spawned task

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use bytes::Bytes;
use parking_lot::Mutex;

use super::exported;
use super::fake_s3::{FakeS3, Oddity};
use super::http::opened;
use crate::config::Secret;
use crate::runtime::{Clock, Runtime};
use crate::store::meter::Meter;
use crate::store::metrics::StorageMetrics;
use crate::store::open::open_in;
use crate::store::{Store as _, StoreErrorKind, keys};

/// The agent of a node that answers every token with the same credentials, which expire at once;
/// the tokens that it got.
async fn agent() -> (String, Arc<Mutex<Vec<String>>>) {
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let got = Arc::clone(&tokens);
    let answer = move |headers: HeaderMap| async move {
        let token = headers["authorization"].to_str().unwrap().to_owned();
        got.lock().push(token);
        r#"{"AccessKeyId": "key", "SecretAccessKey": "secret", "Token": "t",
            "Expiration": "2020-01-01T00:00:00Z"}"#
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/credentials", listener.local_addr().unwrap());
    let app = Router::new().route("/credentials", get(answer));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, tokens)
}

/// Story: the client of the store sent the file as it was, and panicked at the end of a line.
#[tokio::test]
async fn a_token_is_trimmed_and_read_again_while_the_daemon_runs() {
    let (server, (url, tokens)) = (FakeS3::start(Oddity::None).await, agent().await);
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let mut config = server.config();
    config
        .options
        .retain(|name, _| !name.contains("access_key"));
    for (name, value) in [
        ("aws_container_credentials_full_uri", url.as_str()),
        ("aws_container_authorization_token_file", path),
    ] {
        config.options.insert(name.into(), value.into());
    }
    std::fs::write(path, "first.token\n").unwrap();
    let metrics = StorageMetrics::default();
    let name = "pod".parse().unwrap();
    let store = Meter::new(
        opened(config),
        name,
        false,
        metrics.clone(),
        Clock::default(),
    );
    // Story: credentials that could not be renewed were in the log and in no metric.
    let is_stale = |stale: u8| {
        let series = format!("stopover_storage_credentials_stale{{base=\"pod\"}} {stale}");
        exported(&metrics).lines().any(|line| line == series)
    };
    let key = keys::probe(1);
    let put = || store.put(&key, vec![Bytes::from_static(b"x")]);
    put().await.unwrap();
    std::fs::write(path, "second.token\r\n").unwrap();
    put().await.unwrap();
    assert_eq!(*tokens.lock(), ["first.token", "second.token"]);
    assert!(is_stale(0));
    std::fs::write(path, "hush\0hush").unwrap();
    let error = put().await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind, StoreErrorKind::Refused, "{text}");
    assert!(is_stale(1));
    for word in [
        "aws_container_authorization_token_file",
        "control character",
        "token alone",
    ] {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(!text.contains("hush"), "{text}");
    std::fs::remove_file(path).unwrap();
    let error = put().await.unwrap_err();
    assert_eq!(
        error.kind,
        StoreErrorKind::Unavailable,
        "it may come back: {error}"
    );
    assert_eq!(tokens.lock().len(), 2);
    std::fs::write(path, "third.token\n").unwrap();
    put().await.unwrap();
    assert!(is_stale(0));
}

/// Story: without a file with a token an agent was not asked at all, although AWS's own tools ask
/// it. The daemon used the role of its instance instead.
#[tokio::test]
async fn an_agent_is_asked_with_the_token_of_a_variable() {
    let (server, (url, tokens)) = (FakeS3::start(Oddity::None).await, agent().await);
    let opened_with = |url: &str| {
        let mut config = server.config();
        config
            .options
            .retain(|name, _| !name.contains("access_key"));
        let variables = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Basic hush"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), Secret::from(value)));
        open_in(&[config], &variables, &Runtime::seeded(1))
    };
    let opened = opened_with(&url).unwrap();
    let store = &opened[0].opened.store;
    let key = keys::probe(1);
    store
        .put(&key, vec![Bytes::from_static(b"x")])
        .await
        .unwrap();
    assert_eq!(*tokens.lock(), ["Basic hush"]);
    let error = opened_with("http://agent.example/credentials").unwrap_err();
    let error = error.to_string();
    for words in ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "must be https://"] {
        assert!(error.contains(words), "{error}");
    }
    assert!(!error.contains("hush"), "{error}");
}
