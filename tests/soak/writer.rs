//! One attempt of one task, written as Trino's plugin writes it.
//!
//! The daemon that took the first batch keeps the attempt; what has no answer is sent again under
//! the same number; a finish without an answer may have taken place. Sometimes an attempt is left
//! in its midst, or aborted.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use stopover::runtime::Random;

use crate::client::{Clients, Failure, answer, chance, json as json_of, pause};
use crate::content::{AttemptPlan, Content, PageId};
use crate::exchange::Exchange;
use crate::tally::count;
use crate::wire::{crc32c, put_frame};

/// For how long a request is repeated at the attempt's own daemon.
const AT_HOME: Duration = Duration::from_secs(8);
/// Refusals in a row after which a daemon is gone, and what it held.
const GONE_AFTER: u32 = 3;
/// What the daemon says of an attempt that it does not hold (any more) or could not write.
const LOST: [&str; 3] = ["batch-out-of-order", "sink-not-found", "sink-failed"];

/// How an attempt ended, as far as its writer knows.
#[derive(Debug)]
pub enum End {
    /// `finish` was acknowledged.
    Committed(Content),
    /// It may be committed, or not: `finish` was sent.
    Unknown,
    /// It is not: `finish` was never sent.
    Never,
}

pub struct Writer<'a> {
    clients: &'a Clients,
    exchange: &'a Exchange,
    rng: &'a Random,
    task: u32,
    attempt: u32,
    home: Option<usize>,
    crcs: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(
        clients: &'a Clients,
        exchange: &'a Exchange,
        rng: &'a Random,
        task: u32,
        attempt: u32,
    ) -> Self {
        count(&clients.tally.attempts);
        Self {
            clients,
            exchange,
            rng,
            task,
            attempt,
            home: None,
            crcs: Vec::new(),
        }
    }

    /// Writes all of it, or gives it up.
    ///
    /// # Errors
    /// A broken promise.
    pub async fn run(mut self) -> Result<End> {
        let plan = AttemptPlan::draw(self.rng, self.exchange.partitions);
        let content = plan.content(self.exchange.hash, self.task, self.attempt);
        let leave_before = chance(self.rng, 8).then(|| self.rng.next_u64() % 7);
        let mut positions = vec![0; self.exchange.partitions as usize];
        for (number, batch) in plan.batches.iter().enumerate() {
            if leave_before == Some(number as u64) {
                return self.leave().await;
            }
            let body = self.body(batch, &mut positions);
            if !self.send(number, body).await? {
                count(&self.clients.tally.lost);
                return Ok(End::Never);
            }
            pause(self.rng, 60).await;
        }
        let (pages, bytes) = content.total();
        let claim = json!({
            "batches": plan.batches.len(), "pages": pages, "bytes": bytes,
            "checksum": crc32c(&self.crcs),
        });
        if !self.finish(&claim).await? {
            count(&self.clients.tally.lost);
            return Ok(End::Unknown);
        }
        count(&self.clients.tally.committed);
        self.ask_again(&claim).await?;
        Ok(End::Committed(content))
    }

    fn body(&mut self, batch: &[u32], positions: &mut [u32]) -> Vec<u8> {
        let mut body = Vec::new();
        for &partition in batch {
            let position = &mut positions[partition as usize];
            let id = PageId {
                exchange: self.exchange.hash,
                task: self.task,
                attempt: self.attempt,
                partition,
                position: *position,
            };
            *position += 1;
            put_frame(&mut body, &mut self.crcs, partition, &id.page());
        }
        body
    }

    fn path(&self, what: &str) -> String {
        let Self { task, attempt, .. } = self;
        format!("{}/sinks/{task}/{attempt}/{what}", self.exchange.path())
    }

    /// Sends a batch until it was taken; `false` if the attempt is lost.
    async fn send(&mut self, number: usize, body: Vec<u8>) -> Result<bool> {
        let body = bytes::Bytes::from(body);
        let path = self.path(&format!("pages?batch={number}"));
        let (mut deadline, mut refusals) = (Instant::now() + AT_HOME, 0);
        if self.home.is_none() {
            // Nothing is lost yet: all daemons may have to come back.
            deadline += AT_HOME;
        }
        loop {
            let door = self.home.unwrap_or_else(|| self.clients.any(self.rng));
            let url = self.clients.url(door, self.rng, &path);
            let request = self
                .clients
                .http
                .post(url)
                .header("content-type", "application/vnd.stopover.pages")
                .body(body.clone());
            let failure = match json_of(request).await {
                Ok(taken) => {
                    ensure!(taken["batch"] == number, "batch {number}: {taken}");
                    if taken["repeated"] == true {
                        count(&self.clients.tally.batches_taken_once);
                    }
                    self.home = Some(door);
                    return Ok(true);
                }
                Err(failure) => failure,
            };
            refusals = if matches!(failure, Failure::Refused) {
                refusals + 1
            } else {
                0
            };
            if self.home.is_some() && (failure.is(&LOST) || refusals >= GONE_AFTER) {
                return Ok(false);
            }
            if failure.is(&["sink-failed"]) {
                // Taken at once, and then not written: another daemon begins it anew.
                return Ok(false);
            }
            self.check(&failure, &path)?;
            if Instant::now() > deadline {
                return Ok(false);
            }
            count(&self.clients.tally.batches_repeated);
            pause(self.rng, 150).await;
        }
    }

    fn check(&self, failure: &Failure, path: &str) -> Result<()> {
        if failure.is_weather() || self.exchange.may_have_expired(failure) {
            return Ok(());
        }
        bail!("{path}: {failure:?}")
    }

    /// Finishes it; `false` if that could not be learned, or is not so.
    async fn finish(&self, claim: &Value) -> Result<bool> {
        let path = self.path("finish");
        let (deadline, mut refusals, mut asked) = (Instant::now() + AT_HOME, 0, false);
        loop {
            let door = self.home.unwrap_or_else(|| self.clients.any(self.rng));
            let failure = match self.finish_at(door, claim).await {
                Ok(answer) => {
                    self.check_totals(claim, &answer)?;
                    return Ok(true);
                }
                Err(failure) => failure,
            };
            let refused = matches!(failure, Failure::Refused);
            refusals = if refused { refusals + 1 } else { 0 };
            asked |= matches!(failure, Failure::Broken(_));
            if failure.is(&LOST) {
                return Ok(false);
            }
            self.check(&failure, &path)?;
            if asked && refused && self.committed_elsewhere(claim).await? {
                return Ok(true);
            }
            let gone = self.home.is_some() && refusals >= GONE_AFTER;
            if gone || Instant::now() > deadline {
                return Ok(false);
            }
            count(&self.clients.tally.finishes_repeated);
            pause(self.rng, 150).await;
        }
    }

    async fn finish_at(&self, door: usize, claim: &Value) -> Result<Value, Failure> {
        let url = self.clients.url(door, self.rng, &self.path("finish"));
        json_of(self.clients.http.post(url).json(claim)).await
    }

    fn check_totals(&self, claim: &Value, answer: &Value) -> Result<()> {
        let same = ["batches", "pages", "bytes"]
            .iter()
            .all(|name| answer[name] == claim[name]);
        ensure!(
            same && answer["state"] == "finished",
            "{} {claim}: {answer}",
            self.path("finish")
        );
        Ok(())
    }

    /// Whether another daemon knows of the commit that this attempt's own cannot tell of.
    async fn committed_elsewhere(&self, claim: &Value) -> Result<bool> {
        for door in (0..self.clients.credentials.len()).filter(|door| Some(*door) != self.home) {
            match self.finish_at(door, claim).await {
                Ok(answer) => {
                    self.check_totals(claim, &answer)?;
                    count(&self.clients.tally.finishes_elsewhere);
                    return Ok(true);
                }
                // It holds nothing of it, or a first batch whose answer was lost, and no commit.
                Err(failure) if failure.is(&LOST) || failure.is(&["count-mismatch"]) => {}
                Err(failure) => self.check(&failure, "a finish elsewhere")?,
            }
        }
        Ok(false)
    }

    /// What was acknowledged is said again, by any daemon and after restarts; an abort that comes
    /// after it changes nothing.
    async fn ask_again(&self, claim: &Value) -> Result<()> {
        if chance(self.rng, 30) {
            let what = format!("{} once more", self.path("finish"));
            let again = async |door| self.finish_at(door, claim).await;
            let answer = self.exchange.patiently(&what, self.rng, again).await?;
            if let Some(answer) = answer {
                self.check_totals(claim, &answer)?;
                count(&self.clients.tally.finishes_elsewhere);
            }
        }
        if chance(self.rng, 10) {
            // At the attempt's own daemon: another may hold a first batch whose answer was lost.
            if let Some(home) = self.home {
                let url = self.clients.url(home, self.rng, &self.path("abort"));
                match json_of(self.clients.http.post(url)).await {
                    Ok(answer) => ensure!(answer["state"] == "finished", "aborted: {answer}"),
                    Err(failure) => self.check(&failure, "an abort after the finish")?,
                }
            }
        }
        Ok(())
    }

    /// Gives it up in its midst: the worker is gone, or the engine does not want it any more.
    async fn leave(self) -> Result<End> {
        if chance(self.rng, 50) {
            count(&self.clients.tally.abandoned);
            return Ok(End::Never);
        }
        count(&self.clients.tally.aborted);
        if let Some(home) = self.home {
            let url = self.clients.url(home, self.rng, &self.path("abort"));
            match json_of(self.clients.http.post(url)).await {
                Ok(answer) => ensure!(answer["state"] == "aborted", "abort: {answer}"),
                Err(failure) => self.check(&failure, &self.path("abort"))?,
            }
        }
        Ok(End::Never)
    }
}

/// Pages for an exchange that is closed: refused, or collected, but never an error of the daemon.
pub async fn write_late(clients: &Clients, exchange: &Exchange, rng: &Random) -> Result<()> {
    let (mut body, mut crcs) = (Vec::new(), Vec::new());
    put_frame(&mut body, &mut crcs, 0, b"comes too late");
    let sink = format!("{}/sinks/99/0", exchange.path());
    let door = clients.any(rng);
    let url = clients.url(door, rng, &format!("{sink}/pages?batch=0"));
    let request = clients
        .http
        .post(url)
        .header("content-type", "application/vnd.stopover.pages")
        .body(body);
    let closed = ["exchange-closed", "exchange-not-found", "sink-failed"];
    for request in [
        request,
        clients
            .http
            .post(clients.url(door, rng, &format!("{sink}/finish"))),
    ] {
        match answer(request).await {
            Ok(_) => {}
            Err(failure) if failure.is_weather() || failure.is(&closed) || failure.is(&LOST) => {}
            Err(failure) => bail!("a late write of {sink}: {failure:?}"),
        }
    }
    count(&clients.tally.late_writes);
    Ok(())
}
