//! Credentials at the fixed addresses of AWS, of Azure and of Google: those of instances, of
//! containers, of pods.
//!
//! Does: give the loopback of a network namespace of its own these addresses, and run tests there.
//! Does not: change the network of this machine. Invariant: without root the tests say in so many
//! words that they have tried nothing.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use axum::http::request::Parts;
use stopover::config::Secret;
use stopover::runtime::Runtime;
use stopover::store::keys;
use stopover::store::open::open_in;

use crate::fake_azure::FakeAzure;
use crate::fake_gcs::FakeGcs;
use crate::gate::Gate;
use crate::issuer::{Issuer, POD_TOKEN, TASK_PATH};
use crate::rotation::{daemon, gate, write};
use crate::tokens::Tokens;
use crate::{base, fault};

const CONTAINER: &str = "169.254.170.2";
const ADDRESSES: [&str; 5] = [
    "169.254.169.254/32",
    "169.254.170.2/32",
    "169.254.170.23/32",
    "fd00:ec2::254/128",
    "fd00:ec2::23/128",
];
const VARIABLE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
/// Set inside of the namespace.
const INSIDE: &str = "STOPOVER_TEST_INSIDE_NAMESPACE";
const HOUR: Duration = Duration::from_secs(3600);

/// Whether this process is in a namespace with the addresses. If not, it runs the test of this name
/// in one, and waits for it.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let possible = Command::new("unshare").args(["--net", "true"]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED {test}: only root can make a network namespace with the addresses of AWS. \
             NOTHING WAS TRIED: run the tests as root"
        );
        return false;
    }
    let mut script = "ip link set lo up\n".to_owned();
    for address in ADDRESSES {
        script += &format!("ip address add {address} dev lo\n");
    }
    script += "exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-c", &script]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("metadata::{test}"), "--nocapture"]);
    // No credentials of whoever runs the tests.
    command.env("HOME", "/nonexistent");
    let output = command.env(INSIDE, "1").output().expect("unshare");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
    false
}

async fn issuer(host: &str, lifetime: Duration) -> Issuer {
    let address: SocketAddr = format!("{host}:80").parse().unwrap();
    Issuer::start_at(address, lifetime).await
}

/// Story: requests to these addresses go past all proxies. The client that was to use none went to
/// a proxy that does not exist instead, as `*` excludes names and no addresses: no role of an
/// instance, a container or a pod worked. Tests had asked for credentials at other addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_got_at_the_addresses_of_aws_past_a_proxy() {
    if !is_inside("credentials_are_got_at_the_addresses_of_aws_past_a_proxy") {
        return;
    }
    let has_ipv6 = std::net::TcpListener::bind("[fd00:ec2::254]:0").is_ok();
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), POD_TOKEN).unwrap();
    let token = (
        "aws_container_authorization_token_file",
        token.path().to_str().unwrap(),
    );
    let full = |url| ("aws_container_credentials_full_uri", url);
    let relative = ("aws_container_credentials_relative_uri", TASK_PATH);
    let other = ("aws_metadata_endpoint", "http://[fd00:ec2::254]");
    let pod = full("http://169.254.170.23/v1/credentials");
    let pod6 = full("http://[fd00:ec2::23]/v1/credentials");
    for (host, options) in [
        ("169.254.169.254", vec![]),
        ("[fd00:ec2::254]", vec![other]),
        (CONTAINER, vec![relative]),
        ("169.254.170.23", vec![pod, token]),
        ("[fd00:ec2::23]", vec![pod6, token]),
    ] {
        if host.starts_with('[') && !has_ipv6 {
            eprintln!("SKIPPED {host}: there is no IPv6 here. NOTHING WAS TRIED for it");
            continue;
        }
        let issuer = issuer(host, HOUR).await;
        let gate = gate(&issuer).await;
        let endpoint = format!("http://{}", gate.address);
        let own = [
            ("endpoint", endpoint.as_str()),
            ("allow_http", "true"),
            ("region", "us-east-1"),
            // Nothing listens there.
            ("aws_proxy_url", "http://127.0.0.1:9"),
            ("aws_proxy_excludes", "127.0.0.1"),
        ];
        let fault = fault(base("s3://bucket/p", &[&own[..], &options].concat())).await;
        assert_eq!(fault, None, "{host}");
        assert!(issuer.issued() > 0, "{host} was not asked");
    }
}

/// The name of Google's metadata server is not known here, so it is asked by its address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_got_at_the_address_of_azure_and_google_past_a_proxy() {
    if !is_inside("tokens_are_got_at_the_address_of_azure_and_google_past_a_proxy") {
        return;
    }
    let tokens = Tokens::start_at("169.254.169.254:80".parse().unwrap(), HOUR).await;
    let check = |tokens: &Tokens| {
        let tokens = tokens.clone();
        move |head: &Parts| tokens.accepts(head)
    };
    let azure = FakeAzure::start(check(&tokens)).await.endpoint();
    let google = FakeGcs::start_checking(check(&tokens)).await;
    let google = format!("http://{}", google.address);
    for (uri, name, endpoint, more) in [
        (
            "az://container/p",
            "azure",
            azure,
            vec![("account", "account")],
        ),
        ("gs://bucket/p", "google", google, vec![]),
    ] {
        let [proxy, excludes] = ["proxy_url", "proxy_excludes"].map(|end| format!("{name}_{end}"));
        let own = [
            ("endpoint", endpoint.as_str()),
            ("allow_http", "true"),
            // Nothing listens there.
            (proxy.as_str(), "http://127.0.0.1:9"),
            (excludes.as_str(), "127.0.0.1"),
        ];
        let issued = tokens.issued();
        let fault = fault(base(uri, &[&own[..], &more].concat())).await;
        assert_eq!(fault, None, "{uri}");
        assert!(tokens.issued() > issued, "{uri}: nobody asked for a token");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sink_fails_while_the_credentials_of_a_container_live_for_two_seconds() {
    if !is_inside("no_sink_fails_while_the_credentials_of_a_container_live_for_two_seconds") {
        return;
    }
    let issuer = issuer(CONTAINER, Duration::from_secs(2)).await;
    let gate = gate(&issuer).await;
    let proxy = ("HTTP_PROXY", "http://127.0.0.1:9");
    let variables = [(VARIABLE, TASK_PATH), proxy, ("NO_PROXY", "127.0.0.1")];
    let tried = daemon(&gate, &[], &variables);
    write(&tried, async |_| ()).await;
    assert!(issuer.issued() > 3, "{} were given out", issuer.issued());
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_a_container_does_not_get_are_named() {
    if !is_inside("credentials_that_a_container_does_not_get_are_named") {
        return;
    }
    let gate = Gate::start(|_| Ok(())).await;
    let endpoint = format!("http://{}", gate.address);
    let options = [
        ("endpoint", endpoint.as_str()),
        ("allow_http", "true"),
        ("region", "us-east-1"),
        ("timeout", "5s"),
    ];
    let failed = async |path: &str| {
        let variables = [(VARIABLE.to_owned(), Secret::from(path))];
        let bases = [base("s3://bucket/p", &options)];
        let opened = open_in(&bases, &variables, &Runtime::seeded(1)).unwrap();
        let (store, key) = (&opened[0].opened.store, keys::probe(1));
        store.get_range(&key, 0..1).await.unwrap_err().to_string()
    };
    // Nobody listens; somebody who does not know this path.
    let refused = failed(TASK_PATH).await;
    let _issuer = issuer(CONTAINER, HOUR).await;
    let unknown = failed("/v2/credentials/of-another-task").await;
    for error in [refused, unknown] {
        let names = [CONTAINER, "no credentials were found", VARIABLE];
        for name in names {
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
