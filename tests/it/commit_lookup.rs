//! What one daemon answers about attempts and exchanges that continued, or ended, at another.
//!
//! Each test opens with the story of a failure that it prevents.

use std::time::Duration;

use stopover::app::Daemon;
use stopover::config::{BaseDirectoryConfig, Config};
use stopover::exchange::Announce::CreateOrRenew;
use stopover::exchange::{ExchangeError, ExchangeSpec};
use stopover::id::ExchangeId;
use stopover::ingest::{ClientTotals, IngestError};
use stopover::runtime::Runtime;
use stopover::store::keys;

use crate::semantics::{announce, exchange, read, sink, write};

type Pages = Vec<(u32, Vec<u8>)>;

/// A configuration with one base directory in memory.
fn config(name: &str) -> Config {
    let mut config = Config::default();
    config.memory.budget = Some(64 << 20);
    config.segment.commit_linger = Duration::from_millis(2);
    config.base_directories = vec![BaseDirectoryConfig {
        uri: format!("memory://commit-lookup-{name}"),
        name: "main".into(),
        ..Default::default()
    }];
    config
}

fn daemon(config: &Config, seed: u64) -> Daemon {
    Daemon::build(config, &Runtime::seeded(seed)).unwrap()
}

fn pages(seed: u8) -> Pages {
    vec![(0, vec![seed; 300]), (1, vec![seed; 70])]
}

fn claim(batches: &[Pages]) -> Option<ClientTotals> {
    let pages = batches.iter().flatten();
    Some(ClientTotals {
        batches: batches.len() as u64,
        pages: pages.clone().count() as u64,
        bytes: pages.map(|page| page.1.len() as u64).sum(),
        checksum: None,
    })
}

/// Story: a daemon appended a client's first batch, but its answer was lost. The client continued
/// at another daemon, which committed the attempt and died before it answered. The first daemon,
/// asked to finish, compared the claim with the one batch that it had and answered
/// `count-mismatch`, so the client gave up an attempt that was committed.
#[tokio::test]
async fn a_daemon_that_holds_only_the_first_batch_of_a_committed_attempt_finds_the_commit() {
    let config = config("first-batch");
    let (first, second, x) = (daemon(&config, 1), daemon(&config, 2), exchange("q-1"));
    announce(&second, &x, 2).await;
    let (one, batches) = (sink(&x, 0, 0), [pages(1), pages(2), pages(3)]);
    write(&first, &one, 0, &batches[0]).await.unwrap();
    for (number, batch) in batches.iter().enumerate() {
        write(&second, &one, number as u32, batch).await.unwrap();
    }
    let answer = second.ingest.finish(&one, claim(&batches)).await.unwrap();
    assert_eq!(
        first.ingest.finish(&one, claim(&batches)).await.unwrap(),
        answer
    );
    let wrong = first.ingest.finish(&one, claim(&batches[..2])).await;
    assert!(
        matches!(wrong, Err(IngestError::CountMismatch { .. })),
        "{wrong:?}"
    );
    // Aborted at the first daemon, the attempt is committed nevertheless.
    first.ingest.abort(&one).await.unwrap();
    assert_eq!(
        first.ingest.finish(&one, claim(&batches)).await.unwrap(),
        answer
    );
    assert_eq!(
        read(&first, &x, 1).await.unwrap(),
        [[1; 70], [2; 70], [3; 70]].concat()
    );
}

/// Story: an attempt without pages was committed. Its finish was repeated at another daemon while
/// no base directory was usable. That daemon tried to commit it, failed, could not look up the
/// existing commit either, and answered that the attempt had failed for good.
#[tokio::test]
async fn while_commit_records_are_unreadable_no_attempt_is_reported_as_failed() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("not-known");
    config.base_directories[0].uri = format!("file://{}", folder.path().display());
    let (first, other, x) = (daemon(&config, 1), daemon(&config, 2), exchange("q-1"));
    announce(&first, &x, 2).await;
    let one = sink(&x, 0, 0);
    let answer = first.ingest.finish(&one, claim(&[])).await.unwrap();

    let (inside, away) = (folder.path().join("v2"), folder.path().join("away"));
    std::fs::rename(&inside, &away).unwrap();
    std::fs::write(&inside, "no folder").unwrap();
    let unknown = other.ingest.finish(&one, claim(&[])).await;
    assert!(
        matches!(
            unknown,
            Err(IngestError::Catalog(
                stopover::catalog::CatalogError::Storage(_)
            ))
        ),
        "{unknown:?}"
    );
    std::fs::remove_file(&inside).unwrap();
    std::fs::rename(&away, &inside).unwrap();
    assert_eq!(other.ingest.finish(&one, claim(&[])).await.unwrap(), answer);
}

/// Story: a daemon was killed after it had committed an attempt, and was restarted. A delayed copy
/// of one of the attempt's later batches reached the new process. It was refused but left an empty
/// open sink behind: the repeated finish was answered `count-mismatch`, a drain waited for that
/// sink until its deadline, and the gauge of open sinks did not return to zero.
#[tokio::test]
async fn a_batch_that_cannot_be_the_first_opens_no_sink() {
    let config = config("late-batch");
    let (before, x) = (daemon(&config, 1), exchange("q-1"));
    announce(&before, &x, 2).await;
    let (one, batches) = (sink(&x, 0, 0), [pages(1), pages(2)]);
    for (number, batch) in batches.iter().enumerate() {
        write(&before, &one, number as u32, batch).await.unwrap();
    }
    let answer = before.ingest.finish(&one, claim(&batches)).await.unwrap();

    let after = daemon(&config, 2);
    let refused = write(&after, &one, 1, &batches[1]).await;
    assert!(
        matches!(
            refused,
            Err(IngestError::BatchOutOfOrder { expected: 0, .. })
        ),
        "{refused:?}"
    );
    assert_eq!(
        (
            after.ingest.unsettled_sinks(),
            after.metrics.sinks_open.get()
        ),
        (0, 0)
    );
    assert_eq!(
        after.ingest.finish(&one, claim(&batches)).await.unwrap(),
        answer
    );
}

/// Story: daemons that had only read an exchange kept its chunks and footers cached after it was
/// closed through another daemon, until the memory was needed: nothing informed them.
#[tokio::test(start_paused = true)]
async fn a_daemon_drops_cached_data_of_an_exchange_closed_through_another() {
    let mut config = config("copies");
    config.lease.sweep_interval = Duration::from_secs(5);
    let (writer, reader) = (daemon(&config, 1), daemon(&config, 2));
    let (x, open) = (exchange("q-closed"), exchange("q-open"));
    for x in [&x, &open] {
        announce(&writer, x, 2).await;
        write(&writer, &sink(x, 0, 0), 0, &pages(1)).await.unwrap();
        writer.ingest.finish(&sink(x, 0, 0), None).await.unwrap();
        read(&reader, x, 0).await.unwrap();
    }
    let both = reader.reader.cached_bytes();
    assert_eq!(reader.catalog.cached_exchanges().len(), 2);
    writer.closing.close(&x).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(reader.catalog.cached_exchanges(), [open.clone()].into());
    assert_eq!(reader.reader.cached_exchanges(), [open].into());
    assert_eq!(reader.reader.cached_bytes(), both / 2);
}

/// Story: a daemon that was killed during a probe left its probe object in the base directory for
/// good: it belongs to no exchange, so nothing collected it.
#[tokio::test(start_paused = true)]
async fn the_probe_object_of_a_daemon_killed_while_probing_is_collected() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config("probes");
    config.base_directories[0].uri = format!("file://{}", folder.path().display());
    config.lease.duration = Duration::from_secs(60);
    config.lease.sweep_interval = Duration::from_secs(5);
    let probe = folder.path().join("v2/probes/00000000deadbeef");
    std::fs::create_dir_all(probe.parent().unwrap()).unwrap();
    std::fs::write(&probe, "left behind").unwrap();
    let _daemon = daemon(&config, 1);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(probe.exists(), "a probe may still be running");
    for _ in 0..500 {
        if !probe.exists() {
            return;
        }
        // Files are removed on real threads, which need real time.
        std::thread::sleep(Duration::from_millis(1));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("the probe object is still there");
}

/// The first announcement puts its marker before it has inspected the other base directories. What
/// it finds there has the same effect as if it had inspected them first: a marker with the same
/// content means that the exchange exists; one with other content, or a tombstone, means that the
/// announcement is refused and its own marker is deleted.
#[tokio::test]
async fn a_first_announcement_refused_because_of_another_base_directory_leaves_no_marker() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let base = |n: usize| BaseDirectoryConfig {
        uri: format!("file://{}", folders[n].path().display()),
        name: format!("base-{n}"),
        ..Default::default()
    };
    let open = |bases: Vec<BaseDirectoryConfig>, seed| {
        let mut config = config("first");
        config.base_directories = bases;
        daemon(&config, seed)
    };
    let (only_second, scout) = (open(vec![base(1)], 1), open(vec![base(0), base(1)], 2));
    let both = open(vec![base(0), base(1)], 3);
    let marker = |n: usize, x: &ExchangeId| folders[n].path().join(keys::marker(x).as_str());
    let spec = |partitions| ExchangeSpec {
        partitions,
        ordered: false,
    };
    let mut ids = (0..).map(|n| exchange(&format!("q-{n}")));
    let mut in_first_base = async || loop {
        let x = ids.next().unwrap();
        announce(&scout, &x, 2).await;
        let in_first_base = marker(0, &x).exists();
        scout.closing.close(&x).await.unwrap();
        if in_first_base {
            return x;
        }
    };

    let x = in_first_base().await;
    announce(&only_second, &x, 2).await;
    let other = both.exchanges.announce(&x, spec(3), CreateOrRenew).await;
    assert!(
        matches!(other, Err(ExchangeError::Conflict { .. })),
        "{other:?}"
    );
    assert!(!marker(0, &x).exists() && marker(1, &x).exists());
    let same = both.exchanges.announce(&x, spec(2), CreateOrRenew).await;
    assert!(!same.unwrap().created);
    assert!(marker(0, &x).exists() && marker(1, &x).exists());

    let x = in_first_base().await;
    announce(&only_second, &x, 2).await;
    std::fs::write(marker(1, &x), "{\"ended\":\"1\"}\n").unwrap();
    let ended = both.exchanges.announce(&x, spec(2), CreateOrRenew).await;
    assert!(
        matches!(ended, Err(ExchangeError::Closed { .. })),
        "{ended:?}"
    );
    assert!(!marker(0, &x).exists() && marker(1, &x).exists());

    // While one base directory is unavailable, nothing is known and the marker stays: the client
    // retries, and another daemon may have seen the marker by then. (In the simulation, a daemon
    // that deleted its own marker deleted the renewal of another.)
    let x = in_first_base().await;
    let (inside, away) = (folders[1].path().join("v2"), folders[1].path().join("away"));
    std::fs::rename(&inside, &away).unwrap();
    std::fs::write(&inside, "no folder").unwrap();
    let unknown = both.exchanges.announce(&x, spec(2), CreateOrRenew).await;
    assert!(
        matches!(unknown, Err(ExchangeError::Storage(_))),
        "{unknown:?}"
    );
    assert!(marker(0, &x).exists());
    std::fs::remove_file(&inside).unwrap();
    std::fs::rename(&away, &inside).unwrap();
    let again = both.exchanges.announce(&x, spec(2), CreateOrRenew).await;
    assert!(!again.unwrap().created);
}
