//! Requests whose form is wrong, what they leave in the log, and tokens without the right.

use super::target::{JSON, TEXT, Target};

/// Requests that are not what they should be, each as bytes up to the end of its body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_or_doubled_host_is_refused() {
    let target = Target::start(64, &[]).await;
    let address = target.address;
    for hosts in [
        String::new(),
        format!("host: {address}\r\nhost: {address}\r\n"),
        format!("host: {address}\r\nHOST: attacker.example\r\n"),
        "host: \r\n".to_owned(),
        "host: a b\r\n".to_owned(),
    ] {
        let mut client = target.connect().await;
        let head = format!("GET /v1/exchanges HTTP/1.1\r\n{hosts}\r\n");
        client.send(&head).await;
        let status = client.status().await;
        // 403: a name that is not this daemon's, as a browser might send.
        assert!(matches!(status, Some(400 | 403)), "{head:?}: {status:?}");
    }
    target.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_json_array_where_an_object_is_due_is_refused() {
    let target = Target::start(64, &[]).await;
    for (line, body) in [
        ("PUT /v1/exchanges/array", "[2,false]"),
        ("POST /v1/exchanges/kept/chosen", "[[[0,0]]]"),
        ("POST /v1/exchanges/kept/handles", "[[[0,0]],1048576]"),
        ("POST /v1/exchanges/kept/sinks/1/0/finish", "[0,0,0]"),
    ] {
        let answer = target.send(line, &[JSON], body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{line} {body}: {answer:?}");
    }
    target.assert_unharmed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_percent_encoded_parameter_name_is_refused() {
    let target = Target::start(64, &[]).await;
    let handle = target.handles("kept", 0).await.remove(0);
    for name in ["%73kip", "s%6bip", "skip%00", "%73%6b%69%70"] {
        let line = format!("POST /v1/read?{name}=0");
        let answer = target.send(&line, &[TEXT], handle.as_bytes()).await;
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
    }
    target.assert_unharmed().await;
}

/// JSON of every depth, width and kind where an object with known fields is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_json_is_refused_without_an_internal_error() {
    let target = Target::start(64, &[]).await;
    let deep = "{\"attempts\":".repeat(20_000);
    let mut bodies: Vec<String> = [
        "",
        "null",
        "true",
        "0",
        "\"\"",
        "{}",
        "{",
        "}",
        "{}{}",
        "\u{feff}{}",
        "nan",
        "1e999",
        r#"{"partitions":-1,"ordered":false}"#,
        r#"{"partitions":0,"ordered":false}"#,
        r#"{"partitions":1.5,"ordered":false}"#,
        r#"{"partitions":4294967296,"ordered":false}"#,
        r#"{"partitions":"1","ordered":false}"#,
        r#"{"partitions":1,"partitions":2,"ordered":false}"#,
        r#"{"partitions":1,"ordered":false,"more":1}"#,
        r#"{"attempts":[[0]],"target_size":1}"#,
        r#"{"attempts":[[0,0,0]],"target_size":1}"#,
        r#"{"attempts":[[4294967295,4294967295]],"target_size":18446744073709551615}"#,
        r#"{"attempts":[[0,0],[0,0]],"target_size":0}"#,
        r#"{"attempts":{"0":0},"target_size":1}"#,
        r#"{"attempts":[[0,-1]],"target_size":1}"#,
        r#"{"batches":18446744073709551615,"pages":18446744073709551615,"bytes":1}"#,
    ]
    .map(str::to_owned)
    .into();
    bodies.push(deep);
    bodies.push("[".repeat(100_000));
    for body in &bodies {
        for line in [
            "PUT /v1/exchanges/odd",
            "POST /v1/exchanges/kept/handles",
            "POST /v1/exchanges/kept/sinks/7/0/finish",
        ] {
            let answer = target.send(line, &[JSON], body.as_bytes()).await;
            let shown: String = body.chars().take(60).collect();
            assert!(
                (400..500).contains(&answer.status),
                "{line} {shown}: {answer:?}"
            );
        }
    }
    target.assert_unharmed().await;
}

/// Story: 8-bit control characters went from a request into the text log, where a terminal obeys
/// them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_raw_from_outside_reaches_the_log() {
    let target = Target::start(64, &["--set", "log.filter=trace"]).await;
    let bells = [
        &b"\x1b[31m"[..],
        b"\x9b31m",
        b"\xc2\x9b31m",
        b"\x07",
        b"\xe2\x80\xae",
    ];
    for bell in bells {
        let encoded: String = bell.iter().map(|byte| format!("%{byte:02x}")).collect();
        for line in [
            format!("GET /v1/exchanges/{encoded}"),
            format!("DELETE /v1/exchanges/{encoded}"),
            format!("GET /{encoded}?{encoded}={encoded}"),
        ] {
            let answer = target.send(&line, &[], b"").await;
            assert!((400..500).contains(&answer.status), "{line}: {answer:?}");
        }
        let bodies = [bell.to_vec(), [b"{\"", bell, b"\":1}"].concat()];
        for body in bodies {
            let answer = target.send("PUT /v1/exchanges/odd", &[JSON], &body).await;
            assert_eq!(answer.status, 400, "{answer:?}");
            let answer = target.send("POST /v1/read", &[TEXT], &body).await;
            assert_eq!(answer.status, 400, "{answer:?}");
        }
        // As a header: some values are refused before anything is logged.
        let mut client = target.connect().await;
        let mut head = b"GET /v1/exchanges HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: ".to_vec();
        head.extend_from_slice(bell);
        head.extend_from_slice(b"\r\n\r\n");
        client.send(head).await;
        assert_ne!(client.status().await, Some(500));
    }
    let log = target.log();
    let text = String::from_utf8(log).expect("the log is text");
    let control = |c: &char| c.is_control() && *c != '\n' || *c == '\u{202e}';
    let found = text.lines().find(|line| line.chars().any(|c| control(&c)));
    assert_eq!(found, None);
    target.assert_unharmed().await;
}

/// A close and a refusal for lack of rights are each a line of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_and_refusals_are_lines_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    let (all, read) = (
        "a-token-with-all-scopes-0123456789",
        "a-token-that-reads-0123456789abc",
    );
    write_private(&tokens, &format!("{all}\nread {read}\n"));
    let setting = format!("server.token_file={}", tokens.display());
    let target = Target::start_with_token(64, &["--set", &setting], all).await;
    target.announce("closed-by-all", 1).await;
    let line = "DELETE /v1/exchanges/closed-by-all";
    let bearer = format!("Bearer {read}");
    let refused = target
        .send_with(line, &[("authorization", &bearer)], b"")
        .await;
    assert_eq!(refused.status, 403, "{refused:?}");
    let closed = target.send(line, &[], b"").await;
    assert_eq!(closed.status, 204, "{closed:?}");
    let log = String::from_utf8(target.log()).unwrap();
    let lines = |word: &str| {
        let lines = log
            .lines()
            .filter(|line| line.contains("INFO") || line.contains("WARN"));
        lines.filter(|line| line.contains(word)).count()
    };
    assert!(lines("closed-by-all") >= 1, "{log}");
    assert!(
        log.to_lowercase().contains("scope") || lines("DELETE") >= 1,
        "{log}"
    );
    assert!(
        !log.contains(all) && !log.contains(read),
        "a token in the log"
    );
    target.assert_unharmed().await;
}

/// A worker's token writes; it plans, lists and closes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_writes_does_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    let (all, write) = (
        "a-token-with-all-scopes-0123456789",
        "a-token-that-writes-0123456789ab",
    );
    write_private(&tokens, &format!("{all}\nwrite {write}\n"));
    let setting = format!("server.token_file={}", tokens.display());
    let target = Target::start_with_token(64, &["--set", &setting], all).await;
    let bearer = format!("Bearer {write}");
    let mine = ("authorization", bearer.as_str());
    let plan = r#"{"attempts":[[0,0]],"target_size":1048576}"#;
    let announcement = r#"{"partitions":1,"ordered":false}"#;
    for (line, body) in [
        ("GET /v1/exchanges", ""),
        ("GET /v1/exchanges/kept", ""),
        ("GET /v1/exchanges/kept/partitions/0", ""),
        ("POST /v1/exchanges/kept/handles", plan),
        ("PUT /v1/exchanges/new", announcement),
        ("DELETE /v1/exchanges/kept", ""),
    ] {
        let answer = target.send_with(line, &[mine, JSON], body.as_bytes()).await;
        assert_eq!(answer.status, 403, "{line}: {answer:?}");
    }
    target.assert_unharmed().await;
}

fn write_private(path: &std::path::Path, content: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
