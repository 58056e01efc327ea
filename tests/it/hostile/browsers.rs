//! Web pages that use a visitor's browser to reach a daemon on loopback without a token.

use super::target::{JSON, Target};
use crate::support::raw::RawAnswer;

/// Sends a request with this `Host` and these headers.
async fn send_as(target: &Target, line: &str, host: &str, more: &[(&str, &str)]) -> RawAnswer {
    let mut client = target.connect().await;
    let mut head = format!("{line} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n");
    for (name, value) in more {
        head += &format!("{name}: {value}\r\n");
    }
    client.send(head + "\r\n").await;
    client.answer().await
}

fn is_refused(answer: &RawAnswer) -> bool {
    matches!(answer.status, 400 | 403 | 421)
}

const REQUESTS: [&str; 5] = [
    "GET /v1/exchanges",
    "GET /v1/exchanges/kept/partitions/0",
    "POST /v1/exchanges/kept/sinks/0/0/abort",
    "DELETE /v1/exchanges/kept",
    "GET /",
];

/// Story: a name of the attacker's that resolves to 127.0.0.1 made the daemon one of the attacker's
/// own sites: the page could list and delete exchanges.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_a_name_of_the_attackers_is_refused() {
    let target = Target::start(64, &[]).await;
    let hosts = [
        "attacker.example",
        "attacker.example:7077",
        "localhost.attacker.example",
    ];
    for host in hosts {
        for line in REQUESTS {
            let answer = send_as(&target, line, host, &[]).await;
            assert!(is_refused(&answer), "{line} for {host}: {answer:?}");
        }
    }
    target.assert_unharmed().await;
}

/// Story: a form of another site aborted a sink: browsers send it without asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_another_site_is_refused() {
    let target = Target::start(64, &[]).await;
    let host = target.address.to_string();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let origins: [&[(&str, &str)]; 5] = [
        &[("origin", "http://attacker.example"), form],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-mode", "no-cors"),
        ],
        &[
            ("origin", "http://attacker.example"),
            ("sec-fetch-site", "none"),
        ],
    ];
    for headers in origins {
        for line in REQUESTS {
            let answer = send_as(&target, line, &host, headers).await;
            assert!(is_refused(&answer), "{line} with {headers:?}: {answer:?}");
        }
    }
    target.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_opens_from_the_address_bar_and_reloads_itself() {
    let target = Target::start(64, &[]).await;
    let port = target.address.port();
    for host in [
        target.address.to_string(),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
    ] {
        for site in ["none", "same-origin"] {
            let answer = send_as(&target, "GET /", &host, &[("sec-fetch-site", site)]).await;
            assert_eq!(answer.status, 200, "{host}, {site}: {answer:?}");
        }
        let line = "PUT /v1/exchanges/curl";
        let answer = send_as(&target, line, &host, &[JSON]).await;
        assert_eq!(
            answer.status, 400,
            "an empty body, from no browser: {answer:?}"
        );
    }
    target.assert_unharmed().await;
}
