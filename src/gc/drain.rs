//! The orderly shutdown of a daemon: no new sinks; open ones may finish until a deadline.

use std::time::Duration;

use super::close::Closing;
use crate::runtime::Clock;

/// How often open sinks are counted.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How often their exchanges are checked to be open: the sinks of a query that was closed at
/// another daemon will never finish here.
const OPEN_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Refuses new sinks and waits until all sinks are settled, or until `timeout`; the daemon serves
/// all other requests meanwhile. Returns how many sinks were left, whose tasks will run again.
pub async fn drain(closing: &Closing, clock: &Clock, timeout: Duration) -> usize {
    let ingest = &closing.ingest;
    ingest.drain();
    let deadline = clock.now() + timeout;
    let wait_until_settled = async {
        loop {
            let unsettled = ingest.unsettled_sinks();
            if unsettled == 0 || clock.now() >= deadline {
                return unsettled;
            }
            clock.sleep(POLL_INTERVAL).await;
        }
    };
    let check_open_loop = async {
        loop {
            closing.check_open(ingest.unsettled_exchanges()).await;
            clock.sleep(OPEN_CHECK_INTERVAL).await;
        }
    };
    tokio::select! {
        biased;
        unsettled = wait_until_settled => unsettled,
        () = check_open_loop => ingest.unsettled_sinks(),
    }
}
