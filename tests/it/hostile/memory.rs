//! Memory that is held for each sink, each page and each range, by very many of them.

use std::time::Duration;

use futures::future::join_all;
use stopover::app::Daemon;
use stopover::catalog::handle::{Handle, Seals};
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::id::{DaemonId, ExchangeId, SegmentId};
use stopover::runtime::Runtime;
use stopover::storage::identity::Identity;

use super::target::{BATCH, JSON, PAGE, TEXT, Target};
use crate::handles::read::sealed::Fields;
use crate::support::commits::commit_empty;
use crate::support::frames::frame;
use crate::support::raw::{RawAnswer, RawClient};
use crate::support::sink;

const MIB: usize = 1 << 20;

/// Sends requests one after another on one connection; returns their statuses.
async fn send_all(target: &Target, requests: impl Iterator<Item = (String, Vec<u8>)>) -> Vec<u16> {
    let mut client = target.connect().await;
    let mut statuses = Vec::new();
    for (line, body) in requests {
        let length = body.len().to_string();
        let headers = [BATCH, ("content-length", &length)];
        client.send_head(&line, &headers).await;
        client.send(body).await;
        let answer = client.answer().await;
        if answer.status != 200 {
            assert_eq!(
                (answer.status, answer.problem_type()),
                (503, "overloaded".into())
            );
            // Refused before its body was read, so the connection ends.
            client = target.connect().await;
        }
        statuses.push(answer.status);
    }
    statuses
}

/// What a sink needs besides its pages was bounded by `limits.max_sinks_per_exchange` and
/// `limits.max_exchanges` only: a billion sinks with the defaults.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousands_of_open_sinks_stay_within_the_budget_and_the_rest_is_refused() {
    let target = Target::start(64, &[]).await;
    target.announce("many", 2).await;
    let page = frame(0, b"x");
    let sent = (0..12u32).map(|client| {
        let lines = (0..1000).map(move |n| {
            let sink = sink("many", client * 1000 + n, 0);
            format!("POST {sink}/pages?batch=0")
        });
        send_all(&target, lines.map(|line| (line, page.clone())))
    });
    let statuses = join_all(sent).await.concat();
    let taken = statuses.iter().filter(|status| **status == 200).count();
    // 8 MiB, of which each takes a KiB and 64 bytes for its batch.
    assert!(
        (7700..7711).contains(&taken),
        "{taken} of {}",
        statuses.len()
    );
    let open = target.metric("stopover_sinks_open").await;
    assert_eq!(open, [taken as f64]);
    let closed = target.send("DELETE /v1/exchanges/many", &[], b"").await;
    assert_eq!(closed.status, 204);
    target.announce("after", 1).await;
    target.write("after", 0, b"there is room again").await;
    target.assert_unharmed().await;
}

/// Story: a stalled reader of pages of one byte held 32 bytes for each that it had fetched, and as
/// many for each that the connection had taken: 8 MiB for 256 KiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_of_tiny_pages_stay_within_the_budget() {
    let target = Target::start(128, &[]).await;
    target.announce("tiny", 2).await;
    let pages = [frame(0, b"x"), frame(1, b"y")].concat();
    let body = pages.repeat(MIB / 2 / pages.len());
    for task in 0..8 {
        let sink = sink("tiny", task, 0);
        let batch = (format!("POST {sink}/pages?batch=0"), body.clone());
        assert_eq!(send_all(&target, [batch].into_iter()).await, [200]);
        let finished = target.send(&format!("POST {sink}/finish"), &[], b"").await;
        assert_eq!(finished.status, 200, "{finished:?}");
    }
    let mut stalled = Vec::new();
    for n in 0..30 {
        let mut client = target.connect().await;
        let line = format!("GET /v1/exchanges/tiny/partitions/{}", n % 2);
        client.send_head(&line, &[]).await;
        stalled.push(client);
    }
    for client in &mut stalled {
        assert_eq!(client.status().await, Some(200));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(stalled);
    target.assert_unharmed().await;
}

/// Story: a reader that stopped held 36 MB for a handle of 7.3 MB, whose reservation had ended with
/// the handler.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_readers_of_handles_of_very_many_ranges_stay_within_the_budget() {
    let target = Target::start(64, &[]).await;
    target.announce("large", 1).await;
    target.write("large", 0, &vec![7; 100_000]).await;
    let planned = target.handles("large", 0).await.remove(0);
    let identity = std::fs::read(target.base.path().join("base/v2/identity")).unwrap();
    let identity = Identity::decode(&identity).unwrap();
    let (base, secret) = (identity.id, *identity.keys[0].secret());
    let seals = Seals::new(vec![(identity.name.clone(), Some(identity.into()))]);
    let mut fields = Fields::of(&Handle::open(&planned, &seals).unwrap(), base);
    fields.ranges = vec![fields.ranges[0].clone(); 60_000];
    fields.agree();
    let handle = fields.seal(&secret);
    assert!(handle.len() > 1_000_000, "{} letters", handle.len());
    let readers = (0..40).map(|_| {
        let (target, handle) = (&target, &handle);
        async move {
            let mut client = target.connect().await;
            let length = handle.len().to_string();
            let headers = [TEXT, ("content-length", &length)];
            client.send_head("POST /v1/read", &headers).await;
            client.try_send(handle).await;
            // Some are served until they are found to be stalled, others wait for their memory.
            let status = tokio::time::timeout(Duration::from_secs(8), client.status()).await;
            (client, status.ok().flatten())
        }
    });
    let readers: Vec<(RawClient, Option<u16>)> = join_all(readers).await;
    let served = readers.iter().filter(|(_, status)| *status == Some(200));
    assert!(served.count() > 10, "others give way to the next");
    drop(readers);
    let read = target
        .send("POST /v1/read", &[TEXT], planned.as_bytes())
        .await;
    assert_eq!(read.status, 200, "{read:?}");
    target.assert_unharmed().await;
}

/// Story: the number of exchanges that clients could announce was not limited. Each took some
/// kilobytes of memory, and one more at the daemon that sweeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_exchanges_are_limited_until_some_are_closed() {
    let limit = ["--set", "limits.max_announced_exchanges=300"];
    let target = Target::start(64, &limit).await;
    let body = r#"{"partitions":1000,"ordered":false}"#;
    let length = body.len().to_string();
    let headers = [JSON, ("if-none-match", "*"), ("content-length", &length)];
    let announce = async |client: &mut RawClient, name: &str| {
        client
            .send_head(&format!("PUT /v1/exchanges/{name}"), &headers)
            .await;
        client.send(body.as_bytes().to_vec()).await;
        client.answer().await
    };
    let mut client = target.connect().await;
    // Besides the one that the target has.
    for number in 0..299 {
        let name = format!("{number}-{}", "x".repeat(150));
        let answer = announce(&mut client, &name).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let refused = announce(&mut client, "one-more").await;
    let said = String::from_utf8_lossy(&refused.body).into_owned();
    assert_eq!(
        (refused.status, refused.problem_type()),
        (503, "overloaded".into())
    );
    assert!(said.contains("limits.max_announced_exchanges"), "{said}");
    // Those that are open go on.
    target.write("kept", 1, b"more").await;
    let line = format!("DELETE /v1/exchanges/7-{}", "x".repeat(150));
    assert_eq!(target.send(&line, &[], b"").await.status, 204);
    assert_eq!(
        announce(&mut target.connect().await, "one-more")
            .await
            .status,
        201
    );
    target.assert_unharmed_with(&[PAGE, b"more"]).await;
}

/// Story: each list of exchanges took memory and requests of the store for every exchange. With
/// 14,000 of them, a few clients that listed all the time took 450 MiB, and none was answered
/// within minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_very_many_exchanges_are_made_one_at_a_time() {
    let target = Target::start(64, &[]).await;
    let mut client = target.connect().await;
    let body = r#"{"partitions":1000,"ordered":false}"#;
    let length = body.len().to_string();
    let headers = [JSON, ("if-none-match", "*"), ("content-length", &length)];
    for number in 0..1500 {
        let line = format!("PUT /v1/exchanges/many-{number}");
        client.send_head(&line, &headers).await;
        client.send(body.as_bytes().to_vec()).await;
        assert_eq!(client.answer().await.status, 201);
    }
    let one = target.send("GET /v1/exchanges?limit=10000", &[], &[]).await;
    assert_eq!(one.status, 200, "{one:?}");
    let before = target.process.peak_resident();
    let lists = (0..30).map(|_| async {
        let mut client = target.connect().await;
        let headers = [("content-length", "0")];
        client
            .send_head("GET /v1/exchanges?limit=10000", &headers)
            .await;
        client.answer().await
    });
    let answers = join_all(lists).await;
    assert!(answers.iter().any(|answer| answer.status == 200));
    for answer in &answers {
        let overloaded = || answer.problem_type() == "overloaded";
        assert!(answer.status == 200 || overloaded(), "{answer:?}");
    }
    let grown = target.process.peak_resident() - before;
    // Some MiB are their answers.
    assert!(
        grown < 24 << 20,
        "{grown} bytes more for 30 lists at a time"
    );
    target.assert_unharmed().await;
}

/// The shortest item of a list with this schema, and one that is valid where that is not.
fn items(schema: &serde_json::Value) -> [&'static str; 2] {
    match schema["type"].as_str().unwrap() {
        "string" => ["\"a\"", "\"0123456789abcdef\""],
        "array" => ["[0,0]", "[1048575,127]"],
        other => panic!("lists of {other} in a JSON body: say what the densest is"),
    }
}

/// The route and the densest bodies of this size for each list in a JSON body.
fn dense_bodies(size: usize) -> Vec<(String, String)> {
    let api = std::fs::read_to_string("tests/golden/openapi.json").unwrap();
    let api: serde_json::Value = serde_json::from_str(&api).unwrap();
    let mut found = Vec::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let Some(name) = schema["$ref"].as_str().and_then(|at| at.rsplit('/').next()) else {
                continue;
            };
            let properties = &api["components"]["schemas"][name]["properties"];
            for (property, schema) in properties.as_object().unwrap() {
                if schema["type"] != "array" {
                    continue;
                }
                let line = format!("{} {path}", method.to_uppercase());
                let line = line.replace("{exchange}", "kept");
                for item in items(&schema["items"]) {
                    let list = vec![item; (size - 200) / (item.len() + 1)].join(",");
                    let others = r#""attempts":[],"target_size":1,"#;
                    let others = others.replace(&format!("\"{property}\":[],"), "");
                    found.push((line.clone(), format!("{{{others}\"{property}\":[{list}]}}")));
                }
            }
        }
    }
    found
}

/// Story: runs of daemons were kept as texts. 4 MiB of runs of one letter took 60 MB, of which 16
/// were accounted for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_list_in_a_json_body_needs_more_memory_than_is_reserved_for_it() {
    let target = Target::start(64, &[]).await;
    let before = target.process.peak_resident();
    let bodies = dense_bodies(4 * MIB);
    for route in ["/chosen", "/handles"] {
        let of_route = bodies.iter().filter(|(line, _)| line.ends_with(route));
        assert_eq!(of_route.count(), 4, "{route}");
    }
    for (line, body) in &bodies {
        let body = match line.ends_with("/chosen") {
            true => &body.replace("\"target_size\":1,", ""),
            false => body,
        };
        let sent = (0..6).map(|_| target.send(line, &[JSON], body.as_bytes()));
        for answer in join_all(sent).await {
            let refused = || answer.problem_type();
            let accepted = answer.status == 204 || refused() == "attempt-not-committed";
            assert!(accepted || refused() == "invalid-request", "{answer:?}");
        }
    }
    let grown = target.process.peak_resident() - before;
    // The bodies are read at most two at a time: 32 MiB.
    let most = 80 * MIB as u64;
    assert!(grown < most, "{grown} bytes more, {most} are allowed");
    target.assert_unharmed().await;
}

/// Stores a segment that commits very many attempts, each without a page.
async fn commit_at_once(target: &Target, exchange: &str, tasks: u32) {
    let mut config = Config::default();
    let uri = format!("file://{}", target.base.path().join("base").display());
    config.base_directories = vec![BaseDirectoryConfig {
        uri,
        ..BaseDirectoryConfig::default()
    }];
    let daemon = Daemon::build(&config, &Runtime::system()).unwrap();
    daemon.start(Duration::from_secs(10)).await;
    let exchange: ExchangeId = exchange.parse().unwrap();
    let segment = SegmentId {
        daemon: DaemonId(7),
        sequence: 0,
    };
    commit_empty(&daemon, &exchange, segment, 0..tasks).await;
}

/// Story: the answer about one exchange took memory for each of its attempts that nothing counted:
/// 30 MB for 64,000 of them while it was made, and 6 MB until it was read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_of_very_many_attempts_is_shown_within_the_budget() {
    let target = Target::start(64, &[]).await;
    target.announce("many", 1).await;
    commit_at_once(&target, "many", 64_000).await;
    let one = target.send("GET /v1/exchanges/many", &[], &[]).await;
    assert_eq!(one.status, 200, "{one:?}");
    // Its age and what is left of its lease change.
    let committed = |answer: &RawAnswer| {
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        answer["committed"].as_array().unwrap().clone()
    };
    assert_eq!(committed(&one).len(), 64_000);
    let before = target.process.peak_resident();
    let stalled = (0..40).map(|_| async {
        let mut client = target.connect().await;
        client.send_head("GET /v1/exchanges/many", &[]).await;
        // Some are served until they are found to be stalled, others wait for their memory.
        let status = tokio::time::timeout(Duration::from_secs(8), client.status()).await;
        (client, status.ok().flatten())
    });
    let stalled: Vec<(RawClient, Option<u16>)> = join_all(stalled).await;
    let served = stalled.iter().filter(|(_, status)| *status == Some(200));
    assert!(served.count() > 2, "others give way to the next");
    let grown = target.process.peak_resident() - before;
    drop(stalled);
    // The read memory, and what the allocator retains.
    let most = 64 * MIB as u64;
    assert!(grown < most, "{grown} bytes more for 40 at a time");
    let again = target.send("GET /v1/exchanges/many", &[], &[]).await;
    assert_eq!(again.status, 200, "{again:?}");
    assert!(committed(&again) == committed(&one), "other attempts");
    target.assert_unharmed().await;
}
