//! Kills a worker during a statement.
//!
//! The moment is recognized from the tasks, not from the clock. The caller repeats a statement that
//! ended before the moment came, with more work ([`WORK`]).

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::query::{Row, Session, Task};

/// The amounts of work tried one after another while the statement ends before its moment comes.
/// From eight on, only chance counts: the moment is short where few tasks write.
pub const WORK: [u32; 8] = [1, 2, 4, 8, 8, 8, 8, 8];

/// How often the tasks are polled: a small task writes for a tenth of a second.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Longer than any statement here takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(900);

/// The outcome of a statement during which a worker was to be killed.
pub struct Ending {
    pub rows: Vec<Row>,
    pub tasks: Vec<Task>,
    /// Whether a worker was killed while the statement ran.
    pub killed: bool,
    /// Files in the base directories when it was killed.
    pub files: usize,
}

/// Runs `sql` and kills the worker that `victim` returns, as soon as it returns one. The worker is
/// restarted at once, as a supervisor would; the statement does not wait for it.
pub async fn kill_under(
    cluster: &mut Cluster,
    sql: &str,
    session: &Session,
    victim: impl Fn(&[Task], usize) -> Option<String>,
) -> Result<Ending> {
    let running = cluster.client.start(sql, session).await?;
    let id = running.id.clone();
    let over = Cell::new(false);
    let run_to_end = async {
        let rows = running.finish().await;
        over.set(true);
        rows
    };
    let fault = async {
        let Some((worker, files)) = moment(cluster, &id, &over, victim).await? else {
            return Ok((false, 0));
        };
        let node = cluster.nodes.iter_mut().find(|node| node.id == worker);
        if let Some(node) = node {
            println!("    kill -9 {worker}, with {files} file(s) in the base directories");
            node.kill();
            node.launch()?;
        }
        anyhow::Ok((!over.get(), files))
    };
    // Both run to the end, even after an error: no statement may run on into the next check.
    let (rows, fault) = tokio::join!(run_to_end, fault);
    let (killed, files) = fault?;
    Ok(Ending {
        tasks: cluster.client.tasks(&id).await?,
        rows: rows?,
        killed,
        files,
    })
}

/// Waits until `victim` returns a worker; `None` if the statement ends first.
async fn moment(
    cluster: &Cluster,
    query: &str,
    over: &Cell<bool>,
    victim: impl Fn(&[Task], usize) -> Option<String>,
) -> Result<Option<(String, usize)>> {
    let deadline = Instant::now() + TIMEOUT;
    while !over.get() {
        let tasks = cluster.client.tasks(query).await?;
        let files = cluster.store.files().await?.len();
        if let Some(worker) = victim(&tasks, files).filter(|_| !over.get()) {
            return Ok(Some((worker, files)));
        }
        let limit = TIMEOUT.as_secs();
        ensure!(
            Instant::now() < deadline,
            "nothing to lose and no end of the statement within {limit} s"
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(None)
}
