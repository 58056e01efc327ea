//! Where requests go: bucket in the host or in the path, partitions, proxies.
//!
//! A proxy answers nothing and tells what it was asked for, so no name is looked up.

#![allow(clippy::disallowed_methods)] // the proxy runs as a spawned task

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use parking_lot::Mutex;
use stopover::runtime::Runtime;
use stopover::store::keys;
use stopover::store::open::open_all;

use crate::base;
use crate::gate::serve;
use crate::issuer::{Issuer, TASK_PATH};
use crate::tokens::{MSI_PATH, Tokens};

type Asked = Arc<Mutex<Vec<String>>>;

async fn note(State(asked): State<Asked>, request: Request) -> StatusCode {
    let line = format!("{} {}", request.method(), request.uri());
    asked.lock().push(line);
    StatusCode::BAD_GATEWAY
}

const KEYS: [(&str, &str); 2] = [("access_key_id", "key"), ("secret_access_key", "secret")];

/// What a proxy is asked for by a read of a base directory, and how the read fails.
async fn asked(uri: &str, options: &[(&str, &str)]) -> (Vec<String>, String) {
    let asked = Asked::default();
    let app = Router::new().fallback(note).with_state(asked.clone());
    let proxy = format!("http://{}", serve(app, None).await);
    let option = match uri.split_once(':').unwrap().0 {
        "az" => "azure_proxy_url",
        "gs" => "google_proxy_url",
        _ => "aws_proxy_url",
    };
    let all = [options, &[(option, proxy.as_str())]].concat();
    let opened = open_all(&[base(uri, &all)], &Runtime::seeded(1)).unwrap();
    let read = opened[0]
        .opened
        .store
        .get_range(&keys::probe(1), 0..1)
        .await;
    let asked = asked.lock().clone();
    (asked, read.unwrap_err().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_is_in_the_path_or_in_the_host() {
    let server = [("endpoint", "http://store.example"), ("allow_http", "true")];
    let in_host = ("path_style", "false");
    let region = |name| ("region", name);
    let cases = [
        (
            "s3://spool/p",
            server.to_vec(),
            "GET http://store.example/spool/p/",
        ),
        (
            "s3://spool/p",
            vec![server[0], server[1], in_host],
            "GET http://spool.store.example/p/",
        ),
        (
            "s3://spool/p",
            vec![region("eu-central-1")],
            "CONNECT spool.s3.eu-central-1.amazonaws.com:443",
        ),
        (
            "s3://spool/p",
            vec![region("eu-central-1"), ("path_style", "true")],
            "CONNECT s3.eu-central-1.amazonaws.com:443",
        ),
        // A certificate for one label before the host does not cover two.
        (
            "s3://spool.of.trino/p",
            vec![region("eu-central-1")],
            "CONNECT s3.eu-central-1.amazonaws.com:443",
        ),
        (
            "s3://spool-k3x-s3alias/p",
            vec![region("eu-central-1")],
            "CONNECT spool-k3x-s3alias.s3.eu-central-1.amazonaws.com:443",
        ),
        (
            "s3://spool/p",
            vec![region("cn-north-1")],
            "CONNECT spool.s3.cn-north-1.amazonaws.com.cn:443",
        ),
        (
            "s3://spool/p",
            vec![region("us-gov-west-1")],
            "CONNECT spool.s3.us-gov-west-1.amazonaws.com:443",
        ),
    ];
    for (uri, options, expected) in cases {
        let (asked, _) = asked(uri, &[&KEYS[..], &options].concat()).await;
        let matches = asked.first().is_some_and(|line| line.starts_with(expected));
        assert!(matches, "{uri} {options:?}: {asked:?}");
    }
}

/// Story: with an endpoint of its own, as for a gateway or a private link, the role of a base
/// directory in China was requested from an STS that does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn roles_are_requested_from_the_sts_of_the_partition_with_an_endpoint_and_without() {
    let role = ("iam_role", "arn:aws-cn:iam::123456789012:role/spool");
    let own = [KEYS[0], KEYS[1], role];
    let endpoint = ("endpoint", "https://store.example");
    for (region, host) in [
        ("eu-central-1", "sts.eu-central-1.amazonaws.com"),
        ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
        ("eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
        ("us-iso-east-1", "sts.us-iso-east-1.c2s.ic.gov"),
        ("us-isob-east-1", "sts.us-isob-east-1.sc2s.sgov.gov"),
    ] {
        for more in [vec![], vec![endpoint]] {
            let options = [&own[..], &[("region", region)], &more].concat();
            let (asked, _) = asked("s3://spool/p", &options).await;
            let expected = format!("CONNECT {host}:443");
            assert_eq!(asked, [expected], "{more:?}");
        }
    }
}

#[test]
fn the_arn_of_an_access_point_is_refused() {
    let arn = "s3://arn:aws:s3:eu-central-1:123456789012:accesspoint/spool";
    let opened = open_all(&[base(arn, &KEYS)], &Runtime::seeded(1));
    assert!(opened.is_err(), "an ARN is no name of a bucket");
}

/// The proxy is for the store; asked for credentials, it would give those of its own machine.
#[tokio::test(flavor = "multi_thread")]
async fn instance_metadata_is_never_asked_through_a_proxy() {
    let options = [("region", "eu-central-1"), ("timeout", "2s")];
    let (asked, error) = asked("s3://spool/p", &options).await;
    assert_eq!(asked, [] as [&str; 0]);
    assert!(error.contains("no credentials were found"), "{error}");
    // Another address of the metadata service is that of a test or a proxy of the cluster's own.
    let own = ("aws_metadata_endpoint", "http://metadata.example");
    let (asked, _) = self::asked("s3://spool/p", &[options[0], options[1], own]).await;
    assert!(asked[0].contains("http://metadata.example"), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_of_azure_and_google_is_never_asked_through_a_proxy() {
    for (uri, options) in [
        ("az://container/p", vec![("account", "account")]),
        ("gs://bucket/p", vec![]),
    ] {
        let options = [&options[..], &[("timeout", "2s")]].concat();
        let (asked, error) = asked(uri, &options).await;
        let metadata = |line: &String| line.contains("169.254") || line.contains("metadata");
        assert!(!asked.iter().any(metadata), "{asked:?}");
        assert!(error.contains("no credentials were found"), "{error}");
    }
}

/// A proxy would ask its own machine.
#[tokio::test(flavor = "multi_thread")]
async fn services_of_this_machine_that_give_out_credentials_are_not_asked_through_a_proxy() {
    let hour = Duration::from_secs(3600);
    let issuer = Issuer::start(hour, hour, None).await;
    let agent = format!("http://{}{TASK_PATH}", issuer.address);
    let metadata = format!("http://localhost:{}", issuer.address.port());
    let store = [
        // The store is at this machine too, and is asked as it is configured.
        ("endpoint", "http://127.0.0.1:9"),
        ("allow_http", "true"),
        ("region", "eu-central-1"),
    ];
    for (number, option) in [
        ("aws_container_credentials_full_uri", agent.as_str()),
        ("aws_metadata_endpoint", &metadata),
    ]
    .into_iter()
    .enumerate()
    {
        let (asked, _) = asked("s3://spool/p", &[&store[..], &[option]].concat()).await;
        assert_eq!(issuer.issued(), number + 1, "{option:?}");
        assert!(
            asked[0].starts_with("GET http://127.0.0.1:9/spool/p/"),
            "{asked:?}"
        );
        assert_eq!(asked.len(), 1, "{asked:?}");
    }
    let tokens = Tokens::start(hour, hour, None).await;
    let identity = format!("http://{}{MSI_PATH}", tokens.address);
    let options = [
        ("account", "account"),
        ("azure_msi_endpoint", identity.as_str()),
    ];
    let (asked, _) = asked("az://container/p", &options).await;
    assert_eq!(tokens.issued(), 1);
    assert_eq!(asked, ["CONNECT account.blob.core.windows.net:443"]);
}
