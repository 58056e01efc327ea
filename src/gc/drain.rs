//! The daemon's own end: no new sinks, open ones may finish until a deadline.

use std::time::Duration;

use super::sweep::forget_closed;
use crate::exchange::Exchanges;
use crate::ingest::Ingest;
use crate::runtime::Clock;

/// How often open sinks are counted meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is asked whether their exchanges are still open: a query that has ended elsewhere
/// will never end its sinks here.
const ASK: Duration = Duration::from_secs(2);

/// Refuses new sinks and waits until no sink is undecided, or until `timeout`. Answers how many
/// sinks were left undecided: their tasks will be run again. What the daemon serves beside sinks it
/// goes on serving meanwhile.
pub async fn drain(
    exchanges: &Exchanges,
    ingest: &Ingest,
    clock: &Clock,
    timeout: Duration,
) -> usize {
    exchanges.drain();
    ingest.drain();
    let deadline = clock.now() + timeout;
    let all_decided = async {
        loop {
            let undecided = ingest.unsettled_sinks();
            if undecided == 0 || clock.now() >= deadline {
                return undecided;
            }
            clock.sleep(LOOK).await;
        }
    };
    let none_of_the_closed = async {
        loop {
            forget_closed(exchanges, ingest.unfinished()).await;
            clock.sleep(ASK).await;
        }
    };
    tokio::select! {
        undecided = all_decided => undecided,
        () = none_of_the_closed => ingest.unsettled_sinks(),
    }
}
