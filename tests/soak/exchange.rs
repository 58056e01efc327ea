//! One exchange from its announcement to its end, managed like a coordinator: tasks with attempts,
//! handles for the chosen attempts, readers, and the close; sometimes the coordinator disappears
//! early and the exchange is never closed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use stopover::runtime::Random;

use crate::client::{Clients, Failure, Problem, answer, chance, json as json_of, pause};
use crate::content::{Content, PagesRead, mix};
use crate::reader::{self, Handle};
use crate::tally::count;
use crate::writer::{End, Writer, write_late};

/// The lease in the daemons' configuration; the clients renew five times as often.
pub const LEASE: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(3);
/// The limit of the protocol and of the engine: an attempt number fits in a byte.
const MAX_ATTEMPTS: u32 = 127;

pub struct Exchange {
    pub id: String,
    pub hash: u64,
    pub partitions: u32,
    ordered: bool,
    clients: Rc<Clients>,
    renewed: Cell<Instant>,
    /// Attempts for which `finish` was never sent.
    never_finished: RefCell<BTreeSet<(u32, u32)>>,
}

/// The chosen attempt of each task, and its content.
type Chosen = BTreeMap<u32, (u32, Content)>;

impl Exchange {
    pub fn new(clients: &Rc<Clients>, name: &str, rng: &Random) -> Self {
        let id = format!("{name}-{:016x}", rng.next_u64());
        Self {
            hash: mix(&[rng.next_u64()]),
            id,
            partitions: 1 + (rng.next_u64() % 40) as u32,
            ordered: chance(rng, 20),
            clients: Rc::clone(clients),
            renewed: Cell::new(Instant::now()),
            never_finished: RefCell::default(),
        }
    }

    pub fn path(&self) -> String {
        format!("/v1/exchanges/{}", self.id)
    }

    /// Whether the failure may be due to an expired lease. That happens only on a machine that is
    /// far too slow, and is counted.
    pub fn may_have_expired(&self, failure: &Failure) -> bool {
        failure.is(&["exchange-closed", "exchange-not-found"])
            && self.renewed.get().elapsed() > LEASE
    }

    /// Like [`Clients::retrying`]; `None` if the lease may have expired.
    pub async fn retrying<T>(
        &self,
        what: &str,
        rng: &Random,
        request: impl AsyncFn(usize) -> Result<T, Failure>,
    ) -> Result<Option<T>> {
        let answered =
            self.clients
                .retrying(what, rng, async |daemon| match request(daemon).await {
                    Err(failure) if self.may_have_expired(&failure) => Ok(None),
                    other => other.map(Some),
                });
        answered.await
    }

    async fn announce(&self, rng: &Random) -> Result<Option<()>> {
        let body = json!({"partitions": self.partitions, "ordered": self.ordered});
        let what = format!("announcing {}", self.id);
        let announce = async |daemon| {
            let sent = Instant::now();
            let url = self.clients.url(daemon, rng, &self.path());
            answer(self.clients.http.put(url).json(&body)).await?;
            self.renewed.set(sent);
            Ok(())
        };
        self.retrying(&what, rng, announce).await
    }

    async fn renew_for_ever(&self, rng: &Random) -> Result<Option<()>> {
        loop {
            tokio::time::sleep(RENEW).await;
            if self.announce(rng).await?.is_none() {
                return Ok(None);
            }
        }
    }

    /// Announces, writes, reads and closes it.
    ///
    /// # Errors
    /// A broken promise.
    pub async fn run(self, rng: Random) -> Result<()> {
        let clients = Rc::clone(&self.clients);
        if self.announce(&rng).await?.is_none() {
            bail!("{} was closed before it was announced", self.id);
        }
        count(&clients.tally.exchanges);
        let done = tokio::select! {
            done = self.write_and_read(&rng) => done,
            expired = self.renew_for_ever(&rng) => expired.map(|_| None),
        };
        match done.with_context(|| self.id.clone())? {
            Some(true) => self.close(&rng).await,
            Some(false) => {
                count(&clients.tally.left_open);
                Ok(())
            }
            None => {
                count(&clients.tally.leases_expired);
                self.close(&rng).await
            }
        }
    }

    /// `Some(false)` if the exchange is to be left open; `None` if its lease may have expired.
    async fn write_and_read(&self, rng: &Random) -> Result<Option<bool>> {
        let tasks = 1 + (rng.next_u64() % 9) as u32;
        let left_after = chance(rng, 8).then(|| rng.next_u64() % u64::from(tasks));
        let written = stream::iter(0..tasks)
            .map(|task| self.task(task, rng))
            .buffer_unordered(4);
        let mut written = std::pin::pin!(written);
        let mut chosen = Chosen::new();
        while let Some((task, attempt, content)) = written.try_next().await? {
            chosen.insert(task, (attempt, content));
            if left_after == Some(chosen.len() as u64) {
                return Ok(Some(false));
            }
        }
        if self.check_committed(&chosen, rng).await?.is_none() {
            return Ok(None);
        }
        if chance(rng, 20) {
            chosen.retain(|_, _| chance(rng, 70));
        }
        let Some(handles) = self.plan(&chosen, rng).await? else {
            return Ok(None);
        };
        self.read(handles, &chosen, rng).await
    }

    /// Runs attempts until one is committed; sometimes two at once, like an engine that executes a
    /// slow task speculatively.
    async fn task(&self, task: u32, rng: &Random) -> Result<(u32, u32, Content)> {
        let mut attempt = 0;
        while attempt < MAX_ATTEMPTS {
            let speculative = chance(rng, 6) && attempt + 1 < MAX_ATTEMPTS;
            let results = if speculative {
                count(&self.clients.tally.speculative);
                let (one, other) = tokio::join!(
                    self.attempt(task, attempt, rng),
                    self.attempt(task, attempt + 1, rng)
                );
                vec![(attempt + 1, other?), (attempt, one?)]
            } else {
                vec![(attempt, self.attempt(task, attempt, rng).await?)]
            };
            attempt += results.len() as u32;
            for (number, end) in results {
                match end {
                    End::Committed(content) => return Ok((task, number, content)),
                    End::Unknown => {}
                    End::Never => {
                        self.never_finished.borrow_mut().insert((task, number));
                    }
                }
            }
            pause(rng, 200).await;
        }
        bail!("task {task} of {} has no attempts left", self.id)
    }

    async fn attempt(&self, task: u32, attempt: u32, rng: &Random) -> Result<End> {
        let writer = Writer::new(&self.clients, self, rng, task, attempt);
        writer
            .run()
            .await
            .with_context(|| format!("attempt {attempt} of task {task}"))
    }

    /// Checks that acknowledged attempts are committed, and that attempts without a finish are not.
    async fn check_committed(&self, chosen: &Chosen, rng: &Random) -> Result<Option<()>> {
        let what = format!("showing {}", self.id);
        let request = async |daemon| {
            let url = self.clients.url(daemon, rng, &self.path());
            json_of(self.clients.http.get(url)).await
        };
        let Some(shown) = self.retrying(&what, rng, request).await? else {
            return Ok(None);
        };
        let mut committed = BTreeMap::new();
        for one in shown["committed"]
            .as_array()
            .context("the answer has no list of attempts")?
        {
            let number = |name: &str| one[name].as_u64().unwrap_or(u64::MAX);
            let attempt = (number("task") as u32, number("attempt") as u32);
            committed.insert(attempt, (number("pages"), number("bytes")));
        }
        for (task, (attempt, content)) in chosen {
            ensure!(
                committed.get(&(*task, *attempt)) == Some(&content.total()),
                "attempt {attempt} of task {task} was acknowledged with {:?}: {committed:?}",
                content.total()
            );
        }
        for never_finished in self.never_finished.borrow().iter() {
            ensure!(
                !committed.contains_key(never_finished),
                "{never_finished:?} (task, attempt) was never finished and is committed"
            );
        }
        Ok(Some(()))
    }

    async fn plan(&self, chosen: &Chosen, rng: &Random) -> Result<Option<Vec<Handle>>> {
        let attempts: Vec<_> = chosen
            .iter()
            .map(|(task, (attempt, _))| [*task, *attempt])
            .collect();
        let target = [1, 20_000, 1 << 20, 64 << 20][(rng.next_u64() % 4) as usize];
        let path = format!("{}/handles", self.path());
        let planned = async |daemon, attempts: &[[u32; 2]], from_memory| {
            let body = json!({
                "attempts": attempts, "target_size": target, "from_memory": from_memory,
            });
            let url = self.clients.url(daemon, rng, &path);
            handles(&answer(self.clients.http.post(url).json(&body)).await?)
        };
        let (mut unknown, mut all) = (attempts, Vec::new());
        for daemon in 0..self.clients.endpoints.len() {
            if chance(rng, 80)
                && !unknown.is_empty()
                && let Ok((rest, handles)) = planned(daemon, &unknown, true).await
            {
                if !handles.is_empty() {
                    count(&self.clients.tally.plans_from_memory);
                }
                unknown = rest;
                all.extend(handles);
            }
        }
        if !unknown.is_empty() || chosen.is_empty() {
            let what = format!("planning {}", self.id);
            let request = async |daemon| planned(daemon, &unknown, false).await;
            let Some((_, handles)) = self.retrying(&what, rng, request).await? else {
                return Ok(None);
            };
            all.extend(handles);
        }
        self.check_handles(&all, chosen)?;
        Ok(Some(all))
    }

    /// The daemon at which its small attempts meet.
    pub fn home(&self) -> usize {
        (self.hash % self.clients.endpoints.len() as u64) as usize
    }

    fn check_handles(&self, handles: &[Handle], chosen: &Chosen) -> Result<()> {
        let mut expected: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for (_, content) in chosen.values() {
            for (partition, totals) in &content.0 {
                let sum = expected.entry(*partition).or_default();
                *sum = (sum.0 + u64::from(totals.pages), sum.1 + totals.bytes);
            }
        }
        let mut announced: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for handle in handles {
            ensure!(
                !(self.ordered && announced.contains_key(&handle.partition)),
                "partition {} of an ordered exchange has two handles",
                handle.partition
            );
            let sum = announced.entry(handle.partition).or_default();
            *sum = (sum.0 + handle.pages, sum.1 + handle.bytes);
        }
        ensure!(
            announced == expected,
            "pages and bytes by partition: {announced:?} in the handles, acknowledged {expected:?}"
        );
        Ok(())
    }

    async fn read(
        &self,
        handles: Vec<Handle>,
        chosen: &Chosen,
        rng: &Random,
    ) -> Result<Option<bool>> {
        let attempts: BTreeMap<u32, u32> =
            chosen.iter().map(|(task, (a, _))| (*task, *a)).collect();
        let read = stream::iter(&handles).map(async |handle| {
            let one = reader::read(&self.clients, self, handle, &attempts, rng).await?;
            if chance(rng, 15) && one.is_some() {
                let again = reader::read(&self.clients, self, handle, &attempts, rng).await?;
                let same = again.is_none() || again == one;
                ensure!(
                    same,
                    "a handle returned other pages when read again: {again:?}, before {one:?}"
                );
            }
            anyhow::Ok(one)
        });
        let read: Vec<_> = read.buffer_unordered(4).try_collect().await?;
        let mut pages_read = PagesRead::default();
        for pages in read {
            let Some(pages) = pages else { return Ok(None) };
            for &task in attempts.keys() {
                let positions = pages
                    .iter()
                    .filter(|id| id.task == task)
                    .map(|id| id.position);
                ensure!(
                    positions.clone().is_sorted_by(|a, b| a < b),
                    "pages of task {task} out of order: {:?}",
                    positions.collect::<Vec<_>>()
                );
            }
            pages_read.add(&pages);
        }
        let contents = chosen
            .iter()
            .map(|(task, (_, content))| (*task, content.clone()));
        pages_read.check(&contents.collect())?;
        Ok(Some(true))
    }

    async fn close(&self, rng: &Random) -> Result<()> {
        let what = format!("closing {}", self.id);
        let close = async |daemon| {
            let url = self.clients.url(daemon, rng, &self.path());
            answer(self.clients.http.delete(url)).await.map(drop)
        };
        self.clients.retrying(&what, rng, close).await?;
        if chance(rng, 30) {
            write_late(&self.clients, self, rng).await?;
        }
        Ok(())
    }
}

/// Parses the attempts that were not planned and the handles in a streamed answer, if it is
/// complete.
fn handles(body: &[u8]) -> Result<(Vec<[u32; 2]>, Vec<Handle>), Failure> {
    let broken = |what: &str| Failure::NoAnswer(format!("a list of handles {what}"));
    let (mut unknown, mut handles) = (Vec::new(), Vec::new());
    for line in body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line: Value = serde_json::from_slice(line).map_err(|_| broken("breaks off"))?;
        if line["error"].is_object() {
            let status = reqwest::StatusCode::SERVICE_UNAVAILABLE;
            return Err(Failure::Problem(Problem::of(status, &line["error"])));
        }
        if line["unknown"].is_array() {
            unknown = serde_json::from_value(line["unknown"].clone())
                .map_err(|_| broken("names no attempts"))?;
            continue;
        }
        if line["end"] == true {
            let whole = line["handles"] == handles.len();
            return if whole {
                Ok((unknown, handles))
            } else {
                Err(broken("has a wrong count"))
            };
        }
        handles.push(Handle {
            text: line["handle"].as_str().unwrap_or_default().to_owned(),
            partition: line["partition"].as_u64().unwrap_or_default() as u32,
            pages: line["pages"].as_u64().unwrap_or_default(),
            bytes: line["bytes"].as_u64().unwrap_or_default(),
        });
    }
    Err(broken("has no end line"))
}
