//! The daemon's own end: no new sinks, open ones may finish until a deadline.

use std::time::Duration;

use super::Exchanges;
use crate::clock::Clock;
use crate::ingest::Ingest;

/// How often open sinks are counted meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Refuses new sinks and waits until no sink is undecided, or until `timeout`. Answers how many
/// sinks were left undecided: their tasks will be run again.
pub async fn drain(
    exchanges: &Exchanges,
    ingest: &Ingest,
    clock: &Clock,
    timeout: Duration,
) -> usize {
    exchanges.drain();
    ingest.drain();
    let deadline = clock.now() + timeout;
    loop {
        let undecided = ingest.undecided();
        if undecided == 0 || clock.now() >= deadline {
            return undecided;
        }
        clock.sleep(LOOK).await;
    }
}
