//! One exchange from its announcement to its end, as a coordinator sees it: tasks with attempts,
//! handles for the attempts that were chosen, readers, and the close; sometimes the coordinator is
//! gone in the midst and nobody closes it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use stopover::runtime::Random;

use crate::client::{Clients, Failure, Problem, answer, chance, json as json_of, pause};
use crate::content::{Content, Seen, mix};
use crate::reader::{self, Handle};
use crate::tally::count;
use crate::writer::{End, Writer, write_late};

/// The lease in the daemons' configuration; the clients renew five times as often.
pub const LEASE: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(3);
/// The protocol's, and the engine's: an attempt is a byte.
const MOST_ATTEMPTS: u32 = 127;

pub struct Exchange {
    pub id: String,
    pub hash: u64,
    pub partitions: u32,
    ordered: bool,
    clients: Rc<Clients>,
    renewed: Cell<Instant>,
    /// Attempts of which `finish` was never sent.
    never: RefCell<BTreeSet<(u32, u32)>>,
}

/// The attempt of each task that is read, and what it holds.
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
            never: RefCell::default(),
        }
    }

    pub fn path(&self) -> String {
        format!("/v1/exchanges/{}", self.id)
    }

    /// Whether its lease may have run out: then it may be gone. Only a machine that is far too slow
    /// lets that happen, so it is counted.
    pub fn may_have_expired(&self, failure: &Failure) -> bool {
        failure.is(&["exchange-closed", "exchange-not-found"])
            && self.renewed.get().elapsed() > LEASE
    }

    /// As [`Clients::patiently`]; `None` if the lease may have run out.
    pub async fn patiently<T>(
        &self,
        what: &str,
        rng: &Random,
        ask: impl AsyncFn(usize) -> Result<T, Failure>,
    ) -> Result<Option<T>> {
        let asked = self
            .clients
            .patiently(what, rng, async |door| match ask(door).await {
                Err(failure) if self.may_have_expired(&failure) => Ok(None),
                other => other.map(Some),
            });
        asked.await
    }

    async fn announce(&self, rng: &Random) -> Result<Option<()>> {
        let body = json!({"partitions": self.partitions, "ordered": self.ordered});
        let what = format!("announcing {}", self.id);
        let announce = async |door| {
            let sent = Instant::now();
            let url = self.clients.url(door, rng, &self.path());
            answer(self.clients.http.put(url).json(&body)).await?;
            self.renewed.set(sent);
            Ok(())
        };
        self.patiently(&what, rng, announce).await
    }

    async fn renew_for_ever(&self, rng: &Random) -> Result<Option<()>> {
        loop {
            tokio::time::sleep(RENEW).await;
            if self.announce(rng).await?.is_none() {
                return Ok(None);
            }
        }
    }

    /// Its whole life.
    ///
    /// # Errors
    /// A broken promise.
    pub async fn live(self, rng: Random) -> Result<()> {
        let clients = Rc::clone(&self.clients);
        if self.announce(&rng).await?.is_none() {
            bail!("{} is closed before it was announced", self.id);
        }
        count(&clients.tally.exchanges);
        let done = tokio::select! {
            done = self.write_and_read(&rng) => done,
            lost = self.renew_for_ever(&rng) => lost.map(|_| None),
        };
        match done.with_context(|| self.id.clone())? {
            Some(true) => self.close(&rng).await,
            Some(false) => {
                count(&clients.tally.left_open);
                Ok(())
            }
            None => {
                count(&clients.tally.leases_lost);
                self.close(&rng).await
            }
        }
    }

    /// `Some(false)` if it is to be left as it is; `None` if its lease may have run out.
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

    /// Runs attempts until one is committed; now and then two at once, as an engine does that takes
    /// a slow task for a lost one.
    async fn task(&self, task: u32, rng: &Random) -> Result<(u32, u32, Content)> {
        let mut attempt = 0;
        while attempt < MOST_ATTEMPTS {
            let twin = chance(rng, 6) && attempt + 1 < MOST_ATTEMPTS;
            let ends = if twin {
                count(&self.clients.tally.twins);
                let (one, other) = tokio::join!(
                    self.attempt(task, attempt, rng),
                    self.attempt(task, attempt + 1, rng)
                );
                vec![(attempt + 1, other?), (attempt, one?)]
            } else {
                vec![(attempt, self.attempt(task, attempt, rng).await?)]
            };
            attempt += ends.len() as u32;
            for (number, end) in ends {
                match end {
                    End::Committed(content) => return Ok((task, number, content)),
                    End::Unknown => {}
                    End::Never => {
                        self.never.borrow_mut().insert((task, number));
                    }
                }
            }
            pause(rng, 200).await;
        }
        bail!("task {task} of {} has used up its attempts", self.id)
    }

    async fn attempt(&self, task: u32, attempt: u32, rng: &Random) -> Result<End> {
        let writer = Writer::new(&self.clients, self, rng, task, attempt);
        writer
            .run()
            .await
            .with_context(|| format!("attempt {attempt} of task {task}"))
    }

    /// What was acknowledged is committed, and what was never finished is not.
    async fn check_committed(&self, chosen: &Chosen, rng: &Random) -> Result<Option<()>> {
        let what = format!("what {} holds", self.id);
        let ask = async |door| {
            let url = self.clients.url(door, rng, &self.path());
            json_of(self.clients.http.get(url)).await
        };
        let Some(held) = self.patiently(&what, rng, ask).await? else {
            return Ok(None);
        };
        let mut committed = BTreeMap::new();
        for one in held["committed"]
            .as_array()
            .context("no list of attempts")?
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
        for never in self.never.borrow().iter() {
            ensure!(
                !committed.contains_key(never),
                "{never:?} (task, attempt) was never finished and is committed"
            );
        }
        Ok(Some(()))
    }

    async fn plan(&self, chosen: &Chosen, rng: &Random) -> Result<Option<Vec<Handle>>> {
        let attempts: Vec<_> = chosen
            .iter()
            .map(|(task, (attempt, _))| [task, attempt])
            .collect();
        let target = [1, 20_000, 1 << 20, 64 << 20][(rng.next_u64() % 4) as usize];
        let body = json!({"attempts": attempts, "target_size": target});
        let what = format!("the handles of {}", self.id);
        let ask = async |door| {
            let url = self
                .clients
                .url(door, rng, &format!("{}/handles", self.path()));
            handles(&answer(self.clients.http.post(url).json(&body)).await?)
        };
        let Some(handles) = self.patiently(&what, rng, ask).await? else {
            return Ok(None);
        };
        self.check_handles(&handles, chosen)?;
        Ok(Some(handles))
    }

    fn check_handles(&self, handles: &[Handle], chosen: &Chosen) -> Result<()> {
        let mut expected: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for (_, content) in chosen.values() {
            for (partition, held) in &content.0 {
                let sum = expected.entry(*partition).or_default();
                *sum = (sum.0 + u64::from(held.pages), sum.1 + held.bytes);
            }
        }
        let mut told: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for handle in handles {
            ensure!(
                !(self.ordered && told.contains_key(&handle.partition)),
                "partition {} of an ordered exchange has two handles",
                handle.partition
            );
            let sum = told.entry(handle.partition).or_default();
            *sum = (sum.0 + handle.pages, sum.1 + handle.bytes);
        }
        ensure!(
            told == expected,
            "pages and bytes by partition: {told:?} in the handles, {expected:?} were acknowledged"
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
                    "a handle read again gave other pages: {again:?}, before {one:?}"
                );
            }
            anyhow::Ok(one)
        });
        let read: Vec<_> = read.buffer_unordered(4).try_collect().await?;
        let mut seen = Seen::default();
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
            seen.add(&pages);
        }
        let contents = chosen
            .iter()
            .map(|(task, (_, content))| (*task, content.clone()));
        seen.check(&contents.collect())?;
        Ok(Some(true))
    }

    async fn close(&self, rng: &Random) -> Result<()> {
        let what = format!("closing {}", self.id);
        let close = async |door| {
            let url = self.clients.url(door, rng, &self.path());
            answer(self.clients.http.delete(url)).await.map(drop)
        };
        self.clients.patiently(&what, rng, close).await?;
        if chance(rng, 30) {
            write_late(&self.clients, self, rng).await?;
        }
        Ok(())
    }
}

/// The handles in a streamed answer, if it is whole.
fn handles(body: &[u8]) -> Result<Vec<Handle>, Failure> {
    let broken = |what: &str| Failure::Broken(format!("a list of handles {what}"));
    let mut handles = Vec::new();
    for line in body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line: Value = serde_json::from_slice(line).map_err(|_| broken("is cut"))?;
        if line["error"].is_object() {
            let status = reqwest::StatusCode::SERVICE_UNAVAILABLE;
            return Err(Failure::Problem(Problem::of(status, &line["error"])));
        }
        if line["end"] == true {
            let whole = line["handles"] == handles.len();
            return if whole {
                Ok(handles)
            } else {
                Err(broken("counts wrong"))
            };
        }
        handles.push(Handle {
            text: line["handle"].as_str().unwrap_or_default().to_owned(),
            partition: line["partition"].as_u64().unwrap_or_default() as u32,
            pages: line["pages"].as_u64().unwrap_or_default(),
            bytes: line["bytes"].as_u64().unwrap_or_default(),
        });
    }
    Err(broken("has no end"))
}
