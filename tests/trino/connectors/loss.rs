//! Killing a worker in the midst of a statement.
//!
//! Owns the moment: it is seen in the tasks, never waited for by the clock. A statement that was
//! over before its moment came is repeated by the caller with more to do ([`WORK`]).

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::query::{Row, Session, Task};

/// The statement is given so much more to do each time that it was over before its moment came.
/// From eight times on it is the chance that counts: the moment is short where few tasks write.
pub const WORK: [u32; 8] = [1, 2, 4, 8, 8, 8, 8, 8];

/// How often the tasks are looked at: a small task writes for a tenth of a second.
const GLANCE: Duration = Duration::from_millis(20);

/// Longer than any statement here takes, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(900);

/// How a statement ended under which a worker was to be killed.
pub struct Ending {
    pub rows: Vec<Row>,
    pub tasks: Vec<Task>,
    /// Whether a worker was killed while the statement ran.
    pub killed: bool,
    /// Files in the base directories when it was killed.
    pub files: usize,
}

/// Runs `sql` and kills the worker that `victim` names as soon as it names one. The worker is
/// started again at once, as a supervisor would; the statement does not wait for it.
pub async fn kill_under(
    cluster: &mut Cluster,
    sql: &str,
    session: &Session,
    victim: impl Fn(&[Task], usize) -> Option<String>,
) -> Result<Ending> {
    let running = cluster.client.start(sql, session).await?;
    let id = running.id.clone();
    let over = Cell::new(false);
    let to_its_end = async {
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
    // Both to their ends, also after an error: no statement may run on into the next check.
    let (rows, fault) = tokio::join!(to_its_end, fault);
    let (killed, files) = fault?;
    Ok(Ending {
        tasks: cluster.client.tasks(&id).await?,
        rows: rows?,
        killed,
        files,
    })
}

/// Waits until `victim` names a worker; nothing if the statement is over before.
async fn moment(
    cluster: &Cluster,
    query: &str,
    over: &Cell<bool>,
    victim: impl Fn(&[Task], usize) -> Option<String>,
) -> Result<Option<(String, usize)>> {
    let deadline = Instant::now() + PATIENCE;
    while !over.get() {
        let tasks = cluster.client.tasks(query).await?;
        let files = cluster.store.files()?.len();
        if let Some(worker) = victim(&tasks, files).filter(|_| !over.get()) {
            return Ok(Some((worker, files)));
        }
        let patience = PATIENCE.as_secs();
        ensure!(
            Instant::now() < deadline,
            "neither something to lose nor the end within {patience} s"
        );
        tokio::time::sleep(GLANCE).await;
    }
    Ok(None)
}
