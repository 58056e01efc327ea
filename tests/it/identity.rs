//! Base directories that vanish, belong to others, are unknown to a daemon, or leave the fleet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::TryStreamExt as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use stopover::catalog::handle::sealed_text;
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::read::ReadError;
use stopover::runtime::Runtime;
use stopover::storage::{Identification, InitOptions, MemberState, Storage};
use stopover::store::keys;

use crate::support::frames::batch;
use crate::support::{TestServer, ok_json, sink};

const IDENTITY: &str = "v2/identity";

/// A daemon's configuration with these folders as base directories of the same names.
fn config(parent: &Path, names: &[&str]) -> Config {
    let mut config = Config::default();
    config.memory.budget = Some(64 << 20);
    config.segment.commit_linger = Duration::from_millis(2);
    config.base_directories = names
        .iter()
        .map(|name| base(name, &parent.join(name)))
        .collect();
    config
}

fn base(name: &str, folder: &Path) -> BaseDirectoryConfig {
    BaseDirectoryConfig {
        uri: format!("file://{}", folder.display()),
        name: name.to_owned(),
        options: [("fsync".to_owned(), "false".into())].into(),
    }
}

fn with_short_leases(mut config: Config) -> Config {
    config.lease.duration = Duration::from_secs(1);
    config.lease.announcement_timeout = Duration::from_millis(500);
    config.lease.sweep_interval = Duration::from_millis(100);
    config
}

fn storage(config: &Config) -> Storage {
    Storage::open(&config.base_directories, &Runtime::system()).unwrap()
}

/// The error of the base directory of this name after a probe; empty if it is healthy.
async fn probed(storage: &Storage, name: &str) -> String {
    let status = storage.probe().await;
    let status = status.into_iter().find(|s| s.name.as_str() == name);
    status.unwrap().error.unwrap_or_default()
}

/// Writes one page as an attempt of its own, and so a segment of its own.
async fn write(server: &TestServer, exchange: &str, task: u32, page: &[u8]) {
    let sink = sink(exchange, task, 0);
    server.add(&sink, 0, batch(&[(0, page)])).await;
    ok_json(server.post_empty(&format!("{sink}/finish")).await).await;
}

fn marker(exchange: &str) -> String {
    keys::marker(&exchange.parse().unwrap()).to_string()
}

fn segments(folder: &Path, exchange: &str) -> Vec<PathBuf> {
    let exchange = exchange.parse().unwrap();
    let folder = folder.join(keys::segments(&exchange).as_str());
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

async fn problem(response: reqwest::Response) -> (StatusCode, Value) {
    let status = response.status();
    (status, response.json().await.unwrap())
}

/// Story: a page added at a daemon whose base directory is another place of the same name was
/// answered with the advice to announce its exchange.
#[tokio::test]
async fn an_exchange_of_another_place_of_the_same_name_is_answered_with_the_place_here() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = TestServer::open(&config(here.path(), &["a"])).await;
    let other = TestServer::open(&config(there.path(), &["a"])).await;
    server.announce("q", 1).await;
    let path = format!("{}/pages?batch=0", sink("q", 0, 0));
    let body = batch(&[(0, b"page")]);
    let (status, body) = problem(other.post(&path, crate::support::BATCH, body).await).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let detail = body["detail"].as_str().unwrap();
    let identity = other.daemon.storage.identities().remove(0).1.unwrap();
    let place = format!("other base directories (here: a {}", identity.id);
    assert!(detail.contains(&place), "{detail}");
    server.shut_down().await;
    other.shut_down().await;
}

/// Story: a daemon that was started while its only disk was unmounted took the empty folder below
/// the mount point for a new base directory, and filled the root disk.
#[tokio::test]
async fn an_empty_location_that_requires_init_gets_its_identity_from_an_operator_only() {
    let parent = tempfile::tempdir().unwrap();
    let mut config = config(parent.path(), &["a"]);
    let options = &mut config.base_directories[0].options;
    options.insert("require_init".to_owned(), "true".into());
    let folder = parent.path().join("a");
    std::fs::create_dir(&folder).unwrap();
    let identified = || folder.join(IDENTITY).exists();

    let daemon = storage(&config);
    let refused = probed(&daemon, "a").await;
    assert!(refused.contains("require_init"), "{refused}");
    assert!(refused.contains("stopover init"), "{refused}");
    let obstacles = daemon.opening_obstacles();
    assert!(obstacles.concat().contains("require_init"), "{obstacles:?}");
    for identification in [Identification::Create, Identification::Require] {
        let bases = &config.base_directories;
        let other = Storage::open_with(bases, identification, &Runtime::system()).unwrap();
        assert_ne!(probed(&other, "a").await, "");
    }
    assert!(!identified(), "none of them has created it");

    // The disk is mounted, on which the operator has made a base directory.
    let disk = parent.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let bases = [base("a", &disk)];
    let command = Storage::open_with(&bases, Identification::Require, &Runtime::system()).unwrap();
    command.init(None, InitOptions::default()).await.unwrap();
    std::fs::rename(&folder, parent.path().join("below")).unwrap();
    std::fs::rename(&disk, &folder).unwrap();
    assert_eq!(probed(&daemon, "a").await, "", "without a restart");
    let server = TestServer::open(&config).await;
    server.announce("q", 1).await;
    write(&server, "q", 0, b"page").await;
    // The daemon has known it, so the place is the right one.
    std::fs::remove_file(folder.join(IDENTITY)).unwrap();
    assert_eq!(probed(&daemon, "a").await, "");
    assert!(identified(), "restored");
    server.shut_down().await;
}

/// Story: one of two base directories, one level below its mount point as the documentation asks,
/// was unmounted for a moment. The next put made it anew on the root disk, its markers were
/// "absent", and seconds later acknowledged data of a live exchange was deleted from the other base
/// directory; then a partition answered 200 with half of its bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_directory_that_vanishes_for_a_moment_costs_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let (a, b) = (parent.path().join("a"), parent.path().join("b"));
    let server = TestServer::open(&with_short_leases(config(parent.path(), &["a", "b"]))).await;
    // An exchange whose marker is in the base directory that vanishes.
    let mut number = 0;
    let exchange = loop {
        let exchange = format!("q{number}");
        server.announce(&exchange, 1).await;
        if b.join(marker(&exchange)).exists() {
            break exchange;
        }
        number += 1;
    };
    let mut task = 0;
    while segments(&a, &exchange).is_empty() || segments(&b, &exchange).is_empty() {
        write(&server, &exchange, task, format!("page {task};").as_bytes()).await;
        task += 1;
    }
    let path = format!("/v1/exchanges/{exchange}/partitions/0");
    let whole = server.get(&path).await.bytes().await.unwrap();
    server.daemon.hot.forget(&exchange.parse().unwrap());
    let (away, in_a) = (parent.path().join("away"), segments(&a, &exchange));
    server.announce("other", 1).await;

    std::fs::rename(&b, &away).unwrap();
    for task in 0..4 {
        write(&server, "other", task, b"elsewhere").await;
    }
    assert_eq!(segments(&a, "other").len(), 4);
    let id = exchange.parse().unwrap();
    let unknown = server.daemon.storage.get_marker(&id).await.unwrap_err();
    assert!(unknown.to_string().contains("disappeared"), "{unknown}");
    let (status, body) = problem(server.get(&path).await).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(
        body["detail"].as_str().unwrap().contains("disappeared"),
        "{body}"
    );
    // Longer than a lease, with many sweeps.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        segments(&a, &exchange),
        in_a,
        "nothing was deleted elsewhere"
    );
    assert!(!b.exists(), "the folder is not made anew");

    std::fs::rename(&away, &b).unwrap();
    server.announce(&exchange, 1).await;
    assert_eq!(server.get(&path).await.bytes().await.unwrap(), whole);
    server.shut_down().await;
}

#[tokio::test]
async fn another_folder_in_place_of_a_base_directory_is_not_mistaken_for_it() {
    let parent = tempfile::tempdir().unwrap();
    let one = storage(&config(parent.path(), &["a"]));
    assert_eq!(probed(&one, "a").await, "");
    let (a, away) = (parent.path().join("a"), parent.path().join("away"));
    std::fs::rename(&a, &away).unwrap();
    std::fs::create_dir(&a).unwrap();
    let error = probed(&one, "a").await;
    assert!(error.contains("not the one that was there"), "{error}");
    assert_eq!(
        std::fs::read_dir(&a).unwrap().count(),
        0,
        "nothing is written to it"
    );
    std::fs::remove_dir(&a).unwrap();
    std::fs::rename(&away, &a).unwrap();
    assert_eq!(probed(&one, "a").await, "");
}

#[tokio::test]
async fn a_location_with_foreign_content_is_refused_unless_an_operator_confirms_it() {
    let parent = tempfile::tempdir().unwrap();
    let foreign = parent.path().join("a/somebody/else.txt");
    std::fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    std::fs::write(&foreign, "precious").unwrap();
    let config = config(parent.path(), &["a"]);
    let error = probed(&storage(&config), "a").await;
    for words in [
        "somebody/else.txt",
        "stopover init --beside-foreign-objects",
    ] {
        assert!(error.contains(words), "{error}");
    }
    assert!(
        !parent.path().join("a/v1").exists(),
        "nothing is written to it"
    );
    let confirmed = InitOptions {
        beside_foreign_objects: true,
        ..InitOptions::default()
    };
    let daemon = storage(&config);
    assert!(daemon.init(None, InitOptions::default()).await.is_err());
    daemon.init(None, confirmed).await.unwrap();
    assert_eq!(probed(&storage(&config), "a").await, "");
    assert_eq!(std::fs::read(&foreign).unwrap(), b"precious");
}

#[tokio::test]
async fn a_missing_identity_is_restored_by_a_running_daemon_and_never_minted_beside_exchanges() {
    let parent = tempfile::tempdir().unwrap();
    let config = config(parent.path(), &["a"]);
    let server = TestServer::open(&config).await;
    server.announce("x", 1).await;
    let identity = parent.path().join("a").join(IDENTITY);
    let before = std::fs::read(&identity).unwrap();
    std::fs::remove_file(&identity).unwrap();
    let error = probed(&storage(&config), "a").await;
    for words in ["no identity", "v2/markers/", "--replace-lost-identity"] {
        assert!(error.contains(words), "{error}");
    }
    assert!(!identity.exists());
    server.daemon.storage.check_members().await.unwrap();
    assert_eq!(std::fs::read(&identity).unwrap(), before);
    assert_eq!(probed(&storage(&config), "a").await, "");
    server.shut_down().await;
}

#[tokio::test]
async fn a_damaged_identity_and_one_of_another_layout_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let config = config(parent.path(), &["a"]);
    assert_eq!(probed(&storage(&config), "a").await, "");
    let path = parent.path().join("a").join(IDENTITY);
    let good = std::fs::read_to_string(&path).unwrap();
    for (content, words) in [
        (good.replace("layout 2", "layout 9"), "its layout is 9"),
        (good.replace("\"number\":1", "\"number\":2"), "checksum"),
        (String::new(), "does not begin with"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = probed(&storage(&config), "a").await;
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn one_place_by_two_names_and_one_identity_in_two_places_are_told() {
    let parent = tempfile::tempdir().unwrap();
    assert_eq!(
        probed(&storage(&config(parent.path(), &["a"])), "a").await,
        ""
    );
    let mut renamed = config(parent.path(), &["a"]);
    renamed.base_directories[0].name = "other".into();
    let error = probed(&storage(&renamed), "other").await;
    assert!(
        error.contains("it is called a") && error.contains("set its `name` to a"),
        "{error}"
    );
    // A copy, as made by somebody who moves a base directory to another disk.
    let copy = parent.path().join("copy");
    std::fs::create_dir_all(copy.join("v2")).unwrap();
    std::fs::copy(parent.path().join("a").join(IDENTITY), copy.join(IDENTITY)).unwrap();
    let mut twice = config(parent.path(), &["a"]);
    twice.base_directories.push(base("copy", &copy));
    let error = probed(&storage(&twice), "copy").await;
    assert!(error.contains("it is called a"), "{error}");
}

#[tokio::test]
async fn a_handle_of_another_fleet_and_a_forged_one_are_distinguished() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mine = TestServer::open(&config(one.path(), &["a"])).await;
    let other = TestServer::open(&config(two.path(), &["a"])).await;
    mine.announce("x", 1).await;
    write(&mine, "x", 0, b"page").await;
    let handles = mine.handles("x", &json!([[0, 0]]), 1 << 20).await;
    let handle = handles[0]["handle"].as_str().unwrap().to_owned();
    assert_eq!(mine.read(&handle, 0).await.status(), StatusCode::OK);
    let (status, body) = problem(other.read(&handle, 0).await).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["type"], "urn:stopover:problem:unknown-base-directory");
    assert_eq!(body["retryable"], true, "another daemon may have it");
    let forged = format!("{}AAAA", &handle[..handle.len() - 4]);
    let (status, body) = problem(mine.read(&forged, 0).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["type"], "urn:stopover:problem:invalid-handle");
    assert!(body["detail"].as_str().unwrap().contains("seal"), "{body}");
    mine.shut_down().await;
    other.shut_down().await;
}

/// Story: a handle of 78 bytes made a daemon plan gigabytes of fetches. Now only whoever has the
/// key can make one; and what such a handle claims costs no more than a failed fetch.
#[tokio::test]
async fn a_sealed_handle_that_claims_anything_is_refused_or_read_to_an_error() {
    let parent = tempfile::tempdir().unwrap();
    let server = TestServer::open(&config(parent.path(), &["a"])).await;
    let daemon = &server.daemon;
    let identity = daemon.storage.identities().remove(0).1.unwrap();
    let mut names = vec![2, 1, 1];
    names.extend_from_slice(&identity.id.0.to_le_bytes());
    // Exchange `q`, partition 0, page bytes, one daemon, one range; numbers as 7 bits a byte.
    let (mut opened, length) = (0, (1_u64 << 31) + 44);
    let mut fields = vec![1, b'q', 0];
    varint(&mut fields, 1 << 31);
    fields.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 16]);
    varint(&mut fields, length);
    fields.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
    let random = Runtime::seeded(7).random;
    for n in 0..2000 {
        let mut body = [&names[..], &fields].concat();
        for _ in 0..n % 4 {
            let at = names.len() + random.next_u64() as usize % fields.len();
            body[at] = random.next_u64() as u8;
        }
        let text = sealed_text(&body, identity.keys[0].secret());
        let Ok(stream) = daemon.reader.read_handle(&text, 0).await else {
            continue;
        };
        opened += 1;
        let read: Result<Vec<_>, _> = stream.try_collect().await;
        assert!(matches!(read, Err(ReadError::Lost { .. })), "{read:?}");
        assert_eq!(daemon.read_pool.used(), 0);
    }
    assert!(opened >= 500, "{opened}");
    server.shut_down().await;
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[tokio::test]
async fn handles_are_read_by_daemons_that_have_not_seen_a_rotation() {
    let parent = tempfile::tempdir().unwrap();
    let config = config(parent.path(), &["a"]);
    let old = TestServer::open(&config).await;
    old.announce("x", 1).await;
    write(&old, "x", 0, b"page").await;
    let line = |handles: Vec<Value>| handles[0]["handle"].as_str().unwrap().to_owned();
    let before = line(old.handles("x", &json!([[0, 0]]), 1 << 20).await);
    let rotate = InitOptions {
        rotate: true,
        ..InitOptions::default()
    };
    storage(&config).init(None, rotate).await.unwrap();
    let new = TestServer::open(&config).await;
    let after = line(new.handles("x", &json!([[0, 0]]), 1 << 20).await);
    assert_ne!(before, after);
    for (server, handle) in [(&new, &before), (&old, &after)] {
        assert_eq!(server.read(handle, 0).await.status(), StatusCode::OK);
    }
    old.shut_down().await;
    new.shut_down().await;
}

/// Story: a base directory was added by a rolling restart. A daemon that did not have it yet saw no
/// marker of exchanges whose marker is there, and deleted their segments from the base directories
/// that it knew, while their renewals answered 200.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_lacks_a_base_directory_of_the_fleet_collects_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let (a, b) = (parent.path().join("a"), parent.path().join("b"));
    let mut settings = config(parent.path(), &["a", "b"]);
    settings.lease.announcement_timeout = Duration::from_millis(500);
    let full = TestServer::open(&settings).await;
    let mut number = 0;
    let exchange = loop {
        let exchange = format!("q{number}");
        full.announce(&exchange, 1).await;
        if b.join(marker(&exchange)).exists() {
            break exchange;
        }
        number += 1;
    };
    let mut task = 0;
    while segments(&a, &exchange).is_empty() {
        write(&full, &exchange, task, b"page").await;
        task += 1;
    }
    let before = segments(&a, &exchange);
    let partial = with_short_leases(config(parent.path(), &["a"]));
    let partial = TestServer::open(&partial).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(segments(&a, &exchange), before);
    let why = partial.daemon.storage.collection_obstacle().unwrap();
    assert!(why.contains("base directory b"), "{why}");
    let (_, ready) = problem(partial.get("/readyz").await).await;
    assert_eq!(ready["not_collecting"], why);
    // Clients compare what daemons say of themselves, and ask this one last.
    let described = ok_json(full.get("/v1/daemon").await).await;
    let (lacked, in_a) = (
        &described["base_directories"][1],
        &described["base_directories"][0],
    );
    let described = ok_json(partial.get("/v1/daemon").await).await;
    assert_eq!(described["base_directories"], json!([in_a]));
    let missing = json!([{"name": "b", "id": lacked["id"]}]);
    assert_eq!(described["missing_base_directories"], missing);
    // Once the fleet has given up the other base directory, it is not missed any more.
    let b = "b".parse().unwrap();
    let storage = &full.daemon.storage;
    storage
        .set_member(&b, MemberState::Abandoned)
        .await
        .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !segments(&a, &exchange).is_empty() {
        assert!(std::time::Instant::now() < deadline, "never collected");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(partial.daemon.storage.collection_obstacle(), None);
    let described = ok_json(partial.get("/v1/daemon").await).await;
    assert_eq!(described["missing_base_directories"], json!([]));
    partial.shut_down().await;
    full.shut_down().await;
}

#[tokio::test]
async fn new_segments_go_to_active_members_only() {
    let parent = tempfile::tempdir().unwrap();
    let (a, b) = (parent.path().join("a"), parent.path().join("b"));
    let first = TestServer::open(&config(parent.path(), &["a"])).await;
    first.announce("x", 1).await;
    write(&first, "x", 0, b"page").await;
    // Another daemon is restarted with one more base directory, which is not a member yet.
    let second = TestServer::open(&config(parent.path(), &["a", "b"])).await;
    for task in 1..5 {
        write(&second, "x", task, b"page").await;
    }
    assert_eq!((segments(&a, "x").len(), segments(&b, "x").len()), (5, 0));
    let name = "b".parse().unwrap();
    let set = async |state| second.daemon.storage.set_member(&name, state).await;
    set(MemberState::Active).await.unwrap();
    // What was announced before stays where it must be found.
    write(&second, "x", 5, b"page").await;
    assert_eq!((segments(&a, "x").len(), segments(&b, "x").len()), (6, 0));
    second.announce("y", 1).await;
    for task in 0..4 {
        write(&second, "y", task, b"page").await;
    }
    assert_eq!((segments(&a, "y").len(), segments(&b, "y").len()), (2, 2));
    set(MemberState::Draining).await.unwrap();
    for task in 4..8 {
        write(&second, "y", task, b"page").await;
    }
    assert_eq!((segments(&a, "y").len(), segments(&b, "y").len()), (6, 2));
    // An exchange is renewed in its set, also while all of that drains.
    let name_a = "a".parse().unwrap();
    let drain_a = second
        .daemon
        .storage
        .set_member(&name_a, MemberState::Draining);
    drain_a.await.unwrap();
    second.announce("x", 1).await;
    set(MemberState::Abandoned).await.unwrap();
    assert!(
        set(MemberState::Active).await.is_err(),
        "what it holds is out of date"
    );
    first.shut_down().await;
    second.shut_down().await;
}

#[tokio::test]
async fn a_read_only_command_creates_no_base_directory_in_an_empty_location() {
    let parent = tempfile::tempdir().unwrap();
    let config = config(parent.path(), &["a"]);
    let open = || {
        let bases = &config.base_directories;
        Storage::open_with(bases, Identification::Require, &Runtime::system()).unwrap()
    };
    assert_eq!(probed(&open(), "a").await, "");
    let error = open().check_members().await.unwrap_err().to_string();
    assert!(error.contains("no identity"), "{error}");
    assert!(!parent.path().join("a").join(IDENTITY).exists());
}
