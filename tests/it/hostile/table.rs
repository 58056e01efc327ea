//! Some four hundred hostile requests, each with the answer that it must get.
//!
//! The table is `tests/golden/hostile-requests.txt`, which also says how it is read and written.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::target::Target;
use crate::support::frames::batch;

const TABLE: &str = include_str!("../../golden/hostile-requests.txt");
/// A request that ends early is answered at the latest when its client closes its side, which it
/// does after this long.
const CLOSE_AFTER: Duration = Duration::from_secs(3);
/// A request without an answer for this long has none.
const SILENT: Duration = Duration::from_secs(30);
/// Errors of the server that are documented answers to such requests: of another fleet, or none.
const SERVER_ERRORS: [&str; 2] = ["503 unknown-base-directory", "505"];

/// One row of the table.
struct Row<'a> {
    text: &'a str,
    expected: &'a str,
    line: &'a str,
    headers: Vec<&'a str>,
    body: &'a str,
}

impl<'a> Row<'a> {
    fn parse(text: &'a str) -> Self {
        let mut fields = text.splitn(4, " | ");
        let mut next = || fields.next().unwrap_or_else(|| panic!("{text}"));
        let (expected, line, headers, body) = (next(), next(), next(), next());
        Self {
            text,
            expected,
            line,
            headers: headers.split("; ").filter(|h| !h.is_empty()).collect(),
            body,
        }
    }

    fn has(&self, flag: &str) -> bool {
        self.headers.contains(&flag)
    }

    fn bytes(&self, target: &Target, handle: &str) -> Vec<u8> {
        let body = expand(self.body, handle);
        if self.line == "RAW" {
            return body;
        }
        let mut head = expand(self.line, handle);
        head.extend_from_slice(b" HTTP/1.1\r\n");
        if !self.has("-host") && !self.headers.iter().any(|h| h.starts_with("host:")) {
            head.extend_from_slice(format!("host: {}\r\n", target.address).as_bytes());
        }
        if !self.has("-length") {
            head.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        for header in self.headers.iter().filter(|h| !h.starts_with(['-', '+'])) {
            head.extend(expand(header, handle));
            head.extend_from_slice(b"\r\n");
        }
        [&head[..], b"\r\n", &body].concat()
    }
}

/// The bytes that a text of the table stands for.
fn expand(text: &str, handle: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (bytes, length) = match first {
            '\\' => escape(rest),
            '{' => placeholder(rest, handle),
            _ => (first.to_string().into_bytes(), first.len_utf8()),
        };
        out.extend(bytes);
        rest = &rest[length..];
    }
    out
}

/// The byte of an escape, and the length of its text.
fn escape(text: &str) -> (Vec<u8>, usize) {
    match text.as_bytes()[1] {
        b'r' => (vec![b'\r'], 2),
        b'n' => (vec![b'\n'], 2),
        b't' => (vec![b'\t'], 2),
        b'0' => (vec![0], 2),
        b'x' => (vec![u8::from_str_radix(&text[2..4], 16).unwrap()], 4),
        other => panic!("\\{}: {text}", char::from(other)),
    }
}

/// What a placeholder stands for, and the length of its text; a brace that is none is itself.
fn placeholder(text: &str, handle: &str) -> (Vec<u8>, usize) {
    let itself = (b"{".to_vec(), 1);
    if let Some(rest) = text.strip_prefix("{handle}") {
        return (handle.into(), text.len() - rest.len());
    }
    if let Some(rest) = text.strip_prefix("{batch}") {
        return (batch(&[(1, b"one more page")]), text.len() - rest.len());
    }
    let Some((inner, _)) = text[1..].split_once('}') else {
        return itself;
    };
    let Some((count, repeated)) = inner.split_once('*') else {
        return itself;
    };
    match count.parse() {
        Ok(count) => (expand(repeated, handle).repeat(count), inner.len() + 2),
        Err(_) => itself,
    }
}

/// The answer to some bytes, in the form of the table.
async fn answer(target: &Target, row: &Row<'_>, handle: &str) -> String {
    let stream = TcpStream::connect(target.address).await.unwrap();
    let (mut receiving, mut sending) = stream.into_split();
    let bytes = row.bytes(target, handle);
    // The daemon may refuse a request by its head and close the connection.
    let sent = async {
        let _ = sending.write_all(&bytes).await;
        if row.has("+eof") {
            tokio::time::sleep(CLOSE_AFTER).await;
            let _ = sending.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let received = async {
        let mut received = Vec::new();
        let mut part = [0; 4096];
        while !is_answered(&received) {
            match receiving.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(n) => received.extend_from_slice(&part[..n]),
            }
        }
        received
    };
    let received = tokio::select! {
        received = received => received,
        () = sent => unreachable!(),
        () = tokio::time::sleep(SILENT) => return "silent".to_owned(),
    };
    summary(&received)
}

/// The head and the body of an answer, once its head is complete.
fn split(received: &[u8]) -> Option<(&str, &[u8])> {
    let end = received.windows(4).position(|end| end == b"\r\n\r\n")?;
    let (head, body) = (&received[..end], &received[end + 4..]);
    Some((std::str::from_utf8(head).unwrap(), body))
}

fn problem_length(head: &str) -> Option<usize> {
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let is_problem = head.contains("content-type: application/problem+json");
    length.filter(|_| is_problem)?.parse().ok()
}

/// Whether an answer is complete as far as the table tells of it.
fn is_answered(received: &[u8]) -> bool {
    let is_head = |head: &str| head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.1 5");
    split(received).is_some_and(|(head, body)| {
        !is_head(head) || problem_length(head).is_none_or(|length| body.len() >= length)
    })
}

fn summary(received: &[u8]) -> String {
    let Some((head, body)) = split(received) else {
        return "closed".to_owned();
    };
    let status = head.split(' ').nth(1).unwrap().to_owned();
    // Bytes behind it may have been answered as another request.
    let body = &body[..problem_length(head).unwrap_or(0).min(body.len())];
    let Ok(problem) = serde_json::from_slice::<serde_json::Value>(body) else {
        return status;
    };
    let kind = problem["type"].as_str().unwrap_or_default();
    match kind.strip_prefix("urn:stopover:problem:") {
        Some(kind) => format!("{status} {kind}"),
        None => status,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_request_gets_its_answer_and_does_no_harm() {
    let small = [
        "--set",
        "limits.max_page_size=1MiB",
        "--set",
        "limits.max_batch_size=2MiB",
    ];
    let target = Target::start(64, &small).await;
    let handle = target.handles("kept", 0).await.remove(0);
    let is_row = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let rows: Vec<Row<'_>> = TABLE.lines().filter(is_row).map(Row::parse).collect();
    let distinct: BTreeSet<_> = rows.iter().map(|row| row.text.split_once(" | ")).collect();
    assert!(
        distinct.len() == rows.len() && rows.len() >= 400,
        "{} rows",
        rows.len()
    );
    let mut answers = vec![String::new(); rows.len()];
    let (mut later, mut slow) = (Vec::new(), Vec::new());
    for (n, row) in rows.iter().enumerate() {
        match row.has("+eof") {
            true => {
                later.push(n);
                slow.push(answer(&target, row, &handle));
            }
            false => answers[n] = answer(&target, row, &handle).await,
        }
    }
    let slow = futures::future::join_all(slow).await;
    later
        .into_iter()
        .zip(slow)
        .for_each(|(n, given)| answers[n] = given);
    if std::env::var("STOPOVER_GOLDEN").is_ok_and(|mode| mode == "write") {
        return write(&answers);
    }
    let mut wrong = Vec::new();
    for (row, given) in rows.iter().zip(&answers) {
        let documented = SERVER_ERRORS.contains(&given.as_str()) || !given.starts_with('5');
        if given != row.expected || !documented {
            wrong.push(format!("{given}, not {}", row.text));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong answers:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    target.assert_unharmed().await;
}

/// Writes the table with these answers.
fn write(answers: &[String]) {
    let mut answers = answers.iter();
    let lines = TABLE.lines().map(|line| match line.split_once(" | ") {
        Some((_, rest)) if !line.starts_with('#') => {
            format!("{} | {rest}\n", answers.next().unwrap())
        }
        _ => format!("{line}\n"),
    });
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/hostile-requests.txt"
    );
    std::fs::write(path, lines.collect::<String>()).unwrap();
}
