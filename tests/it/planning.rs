//! What planning costs: what is known from memory, what each stage waits for, and what a second
//! commit of an attempt changes.
//!
//! The daemons share a store in which each request takes 40 ms of virtual time, and nothing else
//! takes any.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stopover::app::Daemon;
use stopover::catalog::PlannedHandle;
use stopover::catalog::handle::Handle;
use stopover::config::Config;
use stopover::exchange::{Announce, ExchangeSpec};
use stopover::id::{ExchangeId, TaskAttempt};
use stopover::runtime::Runtime;
use stopover::storage::{Storage, StoreLimits};
use stopover::store::Store;

use crate::semantics::{announce, exchange, sink, write};
use crate::support::tickets::{Series, TicketStore};

const LATENCY: Duration = Duration::from_millis(40);
const PARTITIONS: u32 = 4;

/// Daemons over one base directory.
pub struct Fleet {
    pub store: Arc<TicketStore>,
    config: Config,
}

impl Fleet {
    pub fn new() -> Self {
        let mut config = Config::default();
        // Room for 64 footers at a time.
        config.memory.budget = Some(512 << 20);
        config.segment.commit_linger = Duration::ZERO;
        Self {
            store: TicketStore::new(LATENCY),
            config,
        }
    }

    pub async fn daemon(&self, seed: u64) -> Daemon {
        let runtime = Runtime::seeded(seed);
        let store: Arc<dyn Store> = Arc::clone(&self.store) as _;
        let base = ("main".parse().unwrap(), "test".to_owned(), store);
        let storage = Storage::from_stores(vec![base], StoreLimits::REMOTE, &runtime);
        let daemon = Daemon::assemble(&self.config, &runtime, storage, Arc::default());
        daemon.start(Duration::from_secs(10)).await;
        daemon
    }
}

fn attempt(task: u32) -> TaskAttempt {
    TaskAttempt::new(task, 0).unwrap()
}

/// Writes and finishes a task that has a page for each partition.
async fn commit(daemon: &Daemon, x: &ExchangeId, task: u32) {
    let pages: Vec<_> = (0..PARTITIONS)
        .map(|p| (p, vec![task as u8; 100]))
        .collect();
    let sink = sink(x, task, 0);
    write(daemon, &sink, 0, &pages).await.unwrap();
    daemon.ingest.finish(&sink, None).await.unwrap();
}

async fn plan(daemon: &Daemon, x: &ExchangeId, tasks: std::ops::Range<u32>) -> Vec<PlannedHandle> {
    let chosen: Vec<_> = tasks.map(attempt).collect();
    let planned = daemon
        .catalog
        .plan_handles(x, false, &chosen, 1 << 20)
        .await;
    planned.unwrap().0.collect()
}

/// What is unknown, and the handles of the rest.
async fn plan_from_memory(
    daemon: &Daemon,
    x: &ExchangeId,
    tasks: std::ops::Range<u32>,
) -> (Vec<u32>, Vec<PlannedHandle>) {
    let chosen: Vec<_> = tasks.map(attempt).collect();
    let own = daemon.ingest.daemon();
    let planned = daemon
        .catalog
        .plan_from_memory(x, own, false, &chosen, 1 << 20);
    let planned = planned.await.unwrap();
    let unknown = planned.unknown.iter().map(|attempt| attempt.task);
    (unknown.collect(), planned.handles.collect())
}

/// Reads handles; returns the number of pages.
async fn read_all(daemon: &Daemon, handles: &[PlannedHandle]) -> u64 {
    use futures::TryStreamExt as _;
    let mut pages = 0;
    for handle in handles {
        let read = daemon.reader.read_handle(&handle.text, 0).await.unwrap();
        read.try_for_each(|_| async { Ok(()) }).await.unwrap();
        pages += handle.pages;
    }
    pages
}

async fn opened(daemon: &Daemon, handle: &PlannedHandle) -> Handle {
    daemon.catalog.open_handle(&handle.text).await.unwrap()
}

fn series(steps: &[&str], count: usize) -> Series {
    let steps = steps.iter().map(|step| (*step).to_owned()).collect();
    Series { steps, count }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_plans_what_it_committed_itself_without_a_request_or_a_wait() {
    let fleet = Fleet::new();
    let (first, second, x) = (
        fleet.daemon(1).await,
        fleet.daemon(2).await,
        exchange("q-1"),
    );
    announce(&first, &x, PARTITIONS).await;
    commit(&first, &x, 0).await;
    commit(&second, &x, 1).await;
    commit(&first, &x, 2).await;
    let none = series(&[], 0);
    let (planned, cost) = fleet.store.stage(plan_from_memory(&first, &x, 0..4)).await;
    let (unknown, handles) = planned;
    assert_eq!((unknown, &cost), (vec![1, 3], &none));
    assert_eq!(read_all(&second, &handles).await, 2 * u64::from(PARTITIONS));
    let (rest, cost) = fleet.store.stage(plan_from_memory(&second, &x, 1..2)).await;
    assert_eq!((rest.0, cost), (vec![], none));
}

#[tokio::test(start_paused = true)]
async fn what_is_known_from_memory_needs_no_list() {
    let fleet = Fleet::new();
    let (first, second, x) = (
        fleet.daemon(1).await,
        fleet.daemon(2).await,
        exchange("q-1"),
    );
    announce(&first, &x, PARTITIONS).await;
    commit(&first, &x, 0).await;
    let (_, cost) = fleet.store.stage(plan(&first, &x, 0..1)).await;
    assert_eq!(cost, series(&[], 0));
    commit(&second, &x, 1).await;
    let (handles, cost) = fleet.store.stage(plan(&first, &x, 0..2)).await;
    assert_eq!(cost, series(&["LIST segment", "GET end of segment"], 2));
    assert_eq!(read_all(&first, &handles).await, 2 * u64::from(PARTITIONS));
    let (_, cost) = fleet.store.stage(plan(&first, &x, 0..2)).await;
    assert_eq!(cost, series(&[], 0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_put_has_not_been_answered_is_unknown() {
    let fleet = Fleet::new();
    let (daemon, x) = (fleet.daemon(1).await, exchange("q-1"));
    announce(&daemon, &x, PARTITIONS).await;
    let (other, at) = (daemon.clone(), x.clone());
    let finishing = tokio::spawn(async move { commit(&other, &at, 0).await });
    tokio::time::sleep(LATENCY / 2).await;
    assert_eq!(plan_from_memory(&daemon, &x, 0..1).await.0, [0]);
    finishing.await.unwrap();
    assert_eq!(plan_from_memory(&daemon, &x, 0..1).await.0, [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_ordered_exchange_is_planned_from_memory_as_a_whole_or_not_at_all() {
    // Two daemons planned a part each, so a partition had two handles.
    let fleet = Fleet::new();
    let (first, second, x) = (
        fleet.daemon(1).await,
        fleet.daemon(2).await,
        exchange("q-1"),
    );
    announce(&first, &x, PARTITIONS).await;
    commit(&first, &x, 0).await;
    commit(&second, &x, 1).await;
    let chosen = [attempt(0), attempt(1)];
    for (chosen, expected) in [
        (&chosen[..], (2, 0)),
        (&chosen[..1], (0, PARTITIONS as usize)),
    ] {
        let own = first.ingest.daemon();
        let planned = first.catalog.plan_from_memory(&x, own, true, chosen, 1);
        let planned = planned.await.unwrap();
        assert_eq!((planned.unknown.len(), planned.handles.count()), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_exchange_is_not_planned_from_memory() {
    let fleet = Fleet::new();
    let (daemon, x) = (fleet.daemon(1).await, exchange("q-1"));
    announce(&daemon, &x, PARTITIONS).await;
    commit(&daemon, &x, 0).await;
    daemon.closing.close(&x).await.unwrap();
    assert!(daemon.exchanges.lookup_known(&x).is_err());
    let (unknown, handles) = plan_from_memory(&daemon, &x, 0..1).await;
    assert_eq!((unknown, handles), (vec![0], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_second_commit_of_an_attempt_never_changes_what_a_plan_chose() {
    // An attempt was committed through one daemon, and planned. Its client, which had not heard of
    // that, committed it through another daemon too. The record in the segment with the lower id
    // counted, so the next plan took the other copy: half of a stage read one, half the other.
    let fleet = Fleet::new();
    let mut daemons = [fleet.daemon(1).await, fleet.daemon(2).await];
    daemons.sort_by_key(|daemon| std::cmp::Reverse(daemon.ingest.daemon()));
    let ([first, second], planner) = (daemons, fleet.daemon(3).await);
    let x = exchange("q-1");
    announce(&first, &x, PARTITIONS).await;
    commit(&first, &x, 0).await;
    let before = plan(&planner, &x, 0..1).await;
    commit(&second, &x, 0).await;
    commit(&second, &x, 1).await;
    // Task 1 is not known, so this plan lists and finds both copies of task 0.
    let after = plan(&planner, &x, 0..2).await;
    for (before, after) in before.iter().zip(&after) {
        let (before, after) = (
            opened(&planner, before).await,
            opened(&planner, after).await,
        );
        let kept = after
            .ranges
            .iter()
            .filter(|range| before.ranges.contains(range));
        assert_eq!((kept.count(), after.ranges.len()), (1, 2), "{after:?}");
    }
    // A daemon that plans for the first time takes either copy, whole; earlier handles stay valid.
    let elsewhere = plan(&fleet.daemon(4).await, &x, 0..2).await;
    for (handles, tasks) in [(before, 1), (after, 2), (elsewhere, 2)] {
        let pages = tasks * u64::from(PARTITIONS);
        assert_eq!(read_all(&second, &handles).await, pages);
    }
}

/// Writes and finishes tasks in groups of five, which share a segment or two.
async fn commit_groups(daemon: &Daemon, x: &ExchangeId, tasks: u32, mut then: impl FnMut(usize)) {
    let all: Vec<u32> = (0..tasks).collect();
    for group in all.chunks(5) {
        let commits = group.iter().map(|task| commit(daemon, x, *task));
        futures::future::join_all(commits).await;
        then(group.len());
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_last_task_a_plan_of_1000_tasks_waits_for_two_requests() {
    // Planning began after the last task: a list, then all footers, 64 at a time.
    let fleet = Fleet::new();
    let (writer, planner, x) = (
        fleet.daemon(1).await,
        fleet.daemon(2).await,
        exchange("q-1"),
    );
    announce(&planner, &x, PARTITIONS).await;
    let (mut prefetches, mut next) = (0, 0);
    commit_groups(&writer, &x, 1000, |finished| {
        let attempts: Vec<_> = (next..next + finished as u32).map(attempt).collect();
        next += finished as u32;
        if let Some(prefetch) = planner.catalog.record_chosen(&x, attempts, BTreeSet::new()) {
            prefetches += 1;
            planner
                .runtime
                .tasks
                .spawn_until_stopped(async move { prefetch.run().await.unwrap() });
        }
    })
    .await;
    let segments = planner.storage.list_segments(&x).await.unwrap().len();
    assert!(
        segments >= 200 && prefetches <= 30,
        "{segments} segments, {prefetches} prefetches"
    );
    let (handles, cost) = fleet.store.stage(plan(&planner, &x, 0..1000)).await;
    assert_eq!(cost.steps, ["LIST segment", "GET end of segment"]);
    assert!(cost.count <= 65, "{} requests", cost.count);
    let pages: u64 = handles.iter().map(|handle| handle.pages).sum();
    assert_eq!(pages, 1000 * u64::from(PARTITIONS));
    // Without prefetches, the same plan waits longer.
    let other = fleet.daemon(3).await;
    let (_, cost) = fleet.store.stage(plan(&other, &x, 0..1000)).await;
    assert!(cost.steps.len() > 3, "{:?}", cost.steps);
}

#[tokio::test(start_paused = true)]
async fn a_plan_of_the_rest_reads_nothing_of_daemons_that_know_none_of_it() {
    // One task of a thousand was unknown to the daemons that had it in memory, and the plan for it
    // fetched the footers of all segments. So did the daemon that was told of chosen attempts.
    let fleet = Fleet::new();
    let (first, second, planner) = (
        fleet.daemon(1).await,
        fleet.daemon(2).await,
        fleet.daemon(3).await,
    );
    let x = exchange("q-1");
    announce(&first, &x, PARTITIONS).await;
    for task in 0..20 {
        commit(&first, &x, task).await;
    }
    commit(&second, &x, 20).await;
    let asked = BTreeSet::from([first.ingest.daemon()]);
    let attempts = (0..20).map(attempt).collect();
    let prefetch = planner.catalog.record_chosen(&x, attempts, asked.clone());
    let (looked, cost) = fleet.store.stage(prefetch.unwrap().run()).await;
    looked.unwrap();
    let one = series(&["LIST segment", "GET end of segment"], 2);
    assert_eq!(cost, one, "only the second daemon's");
    let rest = async |task| {
        let chosen = [attempt(task)];
        let planned = planner.catalog.plan_rest(&x, false, &chosen, 1, &asked);
        let (handles, _memory) = planned.await.unwrap();
        handles.count()
    };
    planner.catalog.forget(&x);
    let (handles, cost) = fleet.store.stage(rest(20)).await;
    assert_eq!((handles, cost), (PARTITIONS as usize, one));
    // What is not found without them is found with them.
    let (handles, cost) = fleet.store.stage(rest(0)).await;
    assert_eq!(handles, PARTITIONS as usize);
    assert_eq!(cost.steps, ["LIST segment", "GET end of segment"]);
}

/// Announces a new exchange as the plugin does; returns its descriptor.
async fn announce_new(daemon: &Daemon, x: &ExchangeId) -> String {
    let spec = ExchangeSpec {
        partitions: PARTITIONS,
        ordered: false,
    };
    let announced = daemon.exchanges.announce(x, spec, Announce::New).await;
    let descriptor = announced.unwrap().descriptor;
    daemon.exchanges.seal(&descriptor).unwrap()
}

/// The requests in series of each step of a stage: the table of docs/performance.md. The
/// coordinator, the writer, the planner and the reader use the daemons with these numbers.
async fn steps([coordinator, writer, planner, reader]: [usize; 4]) -> Vec<(&'static str, String)> {
    let fleet = Fleet::new();
    let mut daemons = Vec::new();
    for seed in 1..=3 {
        daemons.push(fleet.daemon(seed).await);
    }
    let (store, x) = (&fleet.store, exchange("q-1"));
    let [coordinator, writer, planner, reader] =
        [coordinator, writer, planner, reader].map(|number| &daemons[number]);
    let pages: Vec<_> = (0..PARTITIONS).map(|p| (p, vec![7; 100])).collect();
    let sink = sink(&x, 0, 0);
    let (descriptor, announced) = store.stage(announce_new(coordinator, &x)).await;
    // A task of another node starts later; one of the same node need not.
    if !std::ptr::eq(coordinator, writer) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (_, written) = store
        .stage(async {
            // As the routes do.
            writer
                .exchanges
                .accept_descriptor(&x, &descriptor)
                .await
                .unwrap();
            writer.exchanges.lookup(&x).await.unwrap();
            writer.exchanges.poll_marker(&x);
            write(writer, &sink, 0, &pages).await.unwrap();
        })
        .await;
    let (finish, finished) = store.stage(writer.ingest.finish(&sink, None)).await;
    finish.unwrap();
    planner
        .exchanges
        .accept_descriptor(&x, &descriptor)
        .await
        .unwrap();
    let (handles, planned) = store.stage(plan(planner, &x, 0..1)).await;
    let (_, read) = store.stage(read_all(reader, &handles[..1])).await;
    let (_, closed) = store.stage(coordinator.closing.close(&x)).await;
    let steps = [
        ("announce", announced),
        ("write", written),
        ("finish", finished),
        ("plan", planned),
        ("read", read),
        ("close", closed),
    ];
    steps
        .map(|(step, series)| (step, series.steps.join("; ")))
        .into()
}

const ANNOUNCE: (&str, &str) = ("announce", "");
const WRITE: (&str, &str) = ("write", "");
const FINISH: (&str, &str) = ("finish", "GET marker, PUT segment");
const CLOSE: (&str, &str) = ("close", "DELETE marker; LIST segment; DELETE segment");

fn expect(found: &[(&'static str, String)], expected: &[(&str, &str)]) {
    let found: Vec<_> = found
        .iter()
        .map(|(step, series)| (*step, series.as_str()))
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn a_stage_at_one_daemon_waits_for_one_request_of_the_store() {
    let (plan, read) = (("plan", ""), ("read", ""));
    let finish = ("finish", "PUT marker, PUT segment");
    expect(
        &steps([0, 0, 0, 0]).await,
        &[ANNOUNCE, WRITE, finish, plan, read, CLOSE],
    );
}

#[tokio::test(start_paused = true)]
async fn a_stage_planned_and_read_where_it_was_committed_waits_for_one() {
    let (plan, read) = (("plan", ""), ("read", ""));
    expect(
        &steps([0, 1, 1, 1]).await,
        &[ANNOUNCE, WRITE, FINISH, plan, read, CLOSE],
    );
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_fit_into_one_segment_waits_for_two_puts() {
    // One behind the other, since the commit record follows the last segment before it: the first
    // is full and on its way when the sink finishes.
    let mut fleet = Fleet::new();
    fleet.config.segment.target_size = 1 << 20;
    let (daemon, x) = (fleet.daemon(1).await, exchange("q-1"));
    announce_new(&daemon, &x).await;
    let sink = sink(&x, 0, 0);
    let ((), cost) = fleet
        .store
        .stage(async {
            for batch in 0..3 {
                let pages: Vec<_> = (0..PARTITIONS).map(|p| (p, vec![7; 100_000])).collect();
                write(&daemon, &sink, batch, &pages).await.unwrap();
            }
            daemon.ingest.finish(&sink, None).await.unwrap();
        })
        .await;
    assert_eq!(cost.steps, ["PUT marker, PUT segment", "PUT segment"]);
    let (handles, cost) = fleet.store.stage(plan(&daemon, &x, 0..1)).await;
    assert_eq!(cost, series(&[], 0));
    let (pages, cost) = fleet.store.stage(read_all(&daemon, &handles)).await;
    assert_eq!((pages, cost), (3 * u64::from(PARTITIONS), series(&[], 0)));
}

#[tokio::test(start_paused = true)]
async fn a_stage_over_three_daemons_waits_for_four_requests_of_the_store() {
    let read = ("read", "GET range of segment");
    let plan = ("plan", "LIST segment; GET end of segment");
    expect(
        &steps([0, 1, 0, 2]).await,
        &[ANNOUNCE, WRITE, FINISH, plan, read, CLOSE],
    );
}
