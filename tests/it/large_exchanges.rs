//! Exchanges of more segments than one request lists: a later list begins behind what is known.

use std::collections::BTreeSet;

use stopover::app::Daemon;
use stopover::catalog::{FooterPrefetch, PlannedHandle};
use stopover::id::{DaemonId, ExchangeId, SegmentId, TaskAttempt};

use crate::planning::Fleet;
use crate::semantics::{announce, exchange};
use crate::support::commits::commit_empty;

/// Stores segments with these numbers, of one daemon, each of which commits an empty task.
async fn commit(at: &Daemon, x: &ExchangeId, daemon: DaemonId, tasks: std::ops::Range<u32>) {
    for task in tasks {
        let segment = SegmentId {
            daemon,
            sequence: task.into(),
        };
        commit_empty(at, x, segment, task..task + 1).await;
    }
}

async fn plan(at: &Daemon, x: &ExchangeId, tasks: u32) -> Vec<PlannedHandle> {
    let chosen: Vec<_> = (0..tasks)
        .map(|task| TaskAttempt::new(task, 0).unwrap())
        .collect();
    let planned = at.catalog.plan_handles(x, false, &chosen, 1 << 20).await;
    planned.unwrap().0.collect()
}

/// The prefetch that is due once these attempts were chosen.
fn chosen(at: &Daemon, x: &ExchangeId, tasks: std::ops::Range<u32>) -> FooterPrefetch {
    let attempts = tasks.map(|task| TaskAttempt::new(task, 0).unwrap());
    let prefetch = at
        .catalog
        .record_chosen(x, attempts.collect(), BTreeSet::new());
    prefetch.expect("a prefetch is due")
}

#[tokio::test(start_paused = true)]
async fn a_later_prefetch_lists_the_first_thousand_segments_and_what_is_new() {
    let fleet = Fleet::new();
    let (planner, x, writer) = (fleet.daemon(1).await, exchange("q-1"), DaemonId(7));
    announce(&planner, &x, 4).await;
    commit(&planner, &x, writer, 0..3_500).await;
    let prefetch = chosen(&planner, &x, 0..3_500);
    let (fetched, cost) = fleet.store.stage(prefetch.run()).await;
    fetched.unwrap();
    let lists = |steps: &[String]| steps.iter().filter(|step| *step == "LIST segment").count();
    assert_eq!(lists(&cost.steps), 4);
    // As many again, so that a prefetch is due; the segments behind the first list are skipped.
    commit(&planner, &x, writer, 3_500..4_100).await;
    let prefetch = chosen(&planner, &x, 3_500..4_100);
    let (fetched, cost) = fleet.store.stage(prefetch.run()).await;
    fetched.unwrap();
    assert_eq!(lists(&cost.steps), 2, "{:?}", cost.steps);
    // Of the plan, too.
    commit(&planner, &x, writer, 4_100..4_150).await;
    let (handles, cost) = fleet.store.stage(plan(&planner, &x, 4_150)).await;
    assert!(handles.is_empty(), "no task has pages");
    assert_eq!(
        cost.steps,
        ["LIST segment", "LIST segment", "GET end of segment"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_plan_finds_what_lies_before_the_segments_that_a_look_knows() {
    // A later list begins 64 segments before the last known one of the daemon. What was stored
    // late by more than that is found by a list of all.
    let fleet = Fleet::new();
    let (planner, x) = (fleet.daemon(1).await, exchange("q-1"));
    announce(&planner, &x, 4).await;
    let (early, late) = (DaemonId(7), DaemonId(8));
    commit(&planner, &x, early, 0..500).await;
    commit(&planner, &x, late, 500..2_500).await;
    commit(&planner, &x, late, 2_600..3_500).await;
    chosen(&planner, &x, 0..2_500).run().await.unwrap();
    commit(&planner, &x, late, 2_500..2_600).await;
    let (_, cost) = fleet.store.stage(plan(&planner, &x, 3_500)).await;
    let lists = cost.steps.iter().filter(|step| *step == "LIST segment");
    assert_eq!(lists.count(), 2 + 4, "{:?}", cost.steps);
}
