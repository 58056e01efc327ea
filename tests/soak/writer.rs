//! One attempt of one task, written like Trino's plugin.
//!
//! All batches go to the daemon that accepted the first; an unanswered batch is sent again with the
//! same number; an unanswered finish may have taken effect. An attempt of one batch is tried at the
//! exchange's home first, once. Sometimes an attempt is abandoned or aborted early.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use stopover::runtime::Random;

use crate::client::{Clients, Failure, answer, chance, json as json_of, pause};
use crate::content::{AttemptPlan, Content, PageId};
use crate::exchange::Exchange;
use crate::tally::count;
use crate::wire::{crc32c, put_frame};

/// How long a request is retried at the daemon that owns the attempt.
const OWNER_TIMEOUT: Duration = Duration::from_secs(8);
/// Refused connections in a row after which the daemon counts as down and its sinks as lost.
const DOWN_AFTER: u32 = 3;
/// Problems that a daemon reports for an attempt that it does not hold or could not write.
const LOST: [&str; 3] = ["batch-out-of-order", "sink-not-found", "sink-failed"];

/// The outcome of an attempt, as far as its writer knows.
#[derive(Debug)]
pub enum End {
    /// `finish` was acknowledged.
    Committed(Content),
    /// It may be committed: `finish` was sent.
    Unknown,
    /// It is not committed: `finish` was never sent.
    Never,
}

pub struct Writer<'a> {
    clients: &'a Clients,
    exchange: &'a Exchange,
    rng: &'a Random,
    task: u32,
    attempt: u32,
    owner: Option<usize>,
    /// A finish was sent: the attempt may be committed.
    finish_sent: bool,
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
            owner: None,
            finish_sent: false,
            crcs: Vec::new(),
        }
    }

    /// Writes and finishes the attempt, or gives it up.
    ///
    /// # Errors
    /// A broken promise.
    pub async fn run(mut self) -> Result<End> {
        let plan = AttemptPlan::draw(self.rng, self.exchange.partitions);
        let content = plan.content(self.exchange.hash, self.task, self.attempt);
        let give_up_before = chance(self.rng, 8).then(|| self.rng.next_u64() % 7);
        let mut positions = vec![0; self.exchange.partitions as usize];
        for (number, batch) in plan.batches.iter().enumerate() {
            if give_up_before == Some(number as u64) {
                return self.give_up().await;
            }
            let body = self.body(batch, &mut positions);
            if plan.batches.len() == 1 && self.at_home(&body, &self.claim(1, &content)).await? {
                continue;
            }
            if !self.send(number, body).await? {
                count(&self.clients.tally.lost);
                return Ok(match self.finish_sent {
                    true => End::Unknown,
                    false => End::Never,
                });
            }
            pause(self.rng, 60).await;
        }
        let claim = self.claim(plan.batches.len(), &content);
        if !self.finish(&claim).await? {
            count(&self.clients.tally.lost);
            return Ok(End::Unknown);
        }
        count(&self.clients.tally.committed);
        self.check_repeats(&claim).await?;
        Ok(End::Committed(content))
    }

    fn claim(&self, batches: usize, content: &Content) -> Value {
        let (pages, bytes) = content.total();
        let checksum = crc32c(&self.crcs);
        json!({"batches": batches, "pages": pages, "bytes": bytes, "checksum": checksum})
    }

    /// Writes and finishes the whole attempt at its home; `false` if that failed, whatever the home
    /// made of it.
    async fn at_home(&mut self, body: &[u8], claim: &Value) -> Result<bool> {
        let home = self.exchange.home();
        let path = self.path("pages?batch=0");
        let url = self.clients.url(home, self.rng, &path);
        let request = self.clients.post_batch(url, body.to_vec());
        let accepted = json_of(request.header("stopover-foreign", "1")).await;
        let finished = match accepted {
            Ok(_) => {
                self.finish_sent = true;
                self.finish_at(home, claim).await
            }
            Err(failure) => Err(failure),
        };
        match finished {
            Ok(answer) => {
                self.check_totals(claim, &answer)?;
                self.owner = Some(home);
                count(&self.clients.tally.at_home);
                Ok(true)
            }
            Err(failure) if failure.is(&LOST) => Ok(false),
            Err(failure) => {
                self.check(&failure, &path)?;
                Ok(false)
            }
        }
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

    /// Sends a batch until it was accepted; `false` if the attempt is lost.
    async fn send(&mut self, number: usize, body: Vec<u8>) -> Result<bool> {
        let body = bytes::Bytes::from(body);
        let path = self.path(&format!("pages?batch={number}"));
        let (mut deadline, mut refusals) = (Instant::now() + OWNER_TIMEOUT, 0);
        if self.owner.is_none() {
            // No batch was accepted yet: any daemon will do, but all may be restarting.
            deadline += OWNER_TIMEOUT;
        }
        loop {
            let daemon = self.owner.unwrap_or_else(|| self.clients.any(self.rng));
            let url = self.clients.url(daemon, self.rng, &path);
            let request = self.clients.post_batch(url, body.clone());
            let failure = match json_of(request).await {
                Ok(accepted) => {
                    ensure!(accepted["batch"] == number, "batch {number}: {accepted}");
                    if accepted["repeated"] == true {
                        count(&self.clients.tally.batches_accepted_before);
                    }
                    self.owner = Some(daemon);
                    return Ok(true);
                }
                Err(failure) => failure,
            };
            refusals = if matches!(failure, Failure::Refused) {
                refusals + 1
            } else {
                0
            };
            if self.owner.is_some() && (failure.is(&LOST) || refusals >= DOWN_AFTER) {
                return Ok(false);
            }
            if failure.is(&["sink-failed"]) {
                // Accepted, but not written: the attempt is lost.
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
        if failure.is_transient() || self.exchange.may_have_expired(failure) {
            return Ok(());
        }
        bail!("{path}: {failure:?}")
    }

    /// Finishes the attempt; `false` if the commit failed or its outcome is unknown.
    async fn finish(&self, claim: &Value) -> Result<bool> {
        let path = self.path("finish");
        let (deadline, mut refusals, mut unanswered) = (Instant::now() + OWNER_TIMEOUT, 0, false);
        loop {
            let daemon = self.owner.unwrap_or_else(|| self.clients.any(self.rng));
            let failure = match self.finish_at(daemon, claim).await {
                Ok(answer) => {
                    self.check_totals(claim, &answer)?;
                    return Ok(true);
                }
                Err(failure) => failure,
            };
            let refused = matches!(failure, Failure::Refused);
            refusals = if refused { refusals + 1 } else { 0 };
            unanswered |= matches!(failure, Failure::NoAnswer(_));
            if failure.is(&LOST) {
                return Ok(false);
            }
            self.check(&failure, &path)?;
            if unanswered && refused && self.committed_elsewhere(claim).await? {
                return Ok(true);
            }
            let down = self.owner.is_some() && refusals >= DOWN_AFTER;
            if down || Instant::now() > deadline {
                return Ok(false);
            }
            count(&self.clients.tally.finishes_repeated);
            pause(self.rng, 150).await;
        }
    }

    async fn finish_at(&self, daemon: usize, claim: &Value) -> Result<Value, Failure> {
        let url = self.clients.url(daemon, self.rng, &self.path("finish"));
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

    /// Whether another daemon reports the commit when the owner of the attempt is down.
    async fn committed_elsewhere(&self, claim: &Value) -> Result<bool> {
        for daemon in (0..self.clients.endpoints.len()).filter(|daemon| Some(*daemon) != self.owner)
        {
            match self.finish_at(daemon, claim).await {
                Ok(answer) => {
                    self.check_totals(claim, &answer)?;
                    count(&self.clients.tally.finishes_elsewhere);
                    return Ok(true);
                }
                // No commit: it holds nothing, or only a first batch whose answer was lost.
                Err(failure) if failure.is(&LOST) || failure.is(&["count-mismatch"]) => {}
                Err(failure) => self.check(&failure, "a finish elsewhere")?,
            }
        }
        Ok(false)
    }

    /// Checks that any daemon confirms a repeated finish, even after restarts, and that a later
    /// abort changes nothing.
    async fn check_repeats(&self, claim: &Value) -> Result<()> {
        if chance(self.rng, 30) {
            let what = format!("{} once more", self.path("finish"));
            let again = async |daemon| self.finish_at(daemon, claim).await;
            let answer = self.exchange.retrying(&what, self.rng, again).await?;
            if let Some(answer) = answer {
                self.check_totals(claim, &answer)?;
                count(&self.clients.tally.finishes_elsewhere);
            }
        }
        if chance(self.rng, 10) {
            // Only at the owner: another daemon may hold a first batch whose answer was lost.
            if let Some(owner) = self.owner {
                let url = self.clients.url(owner, self.rng, &self.path("abort"));
                match json_of(self.clients.http.post(url)).await {
                    Ok(answer) => ensure!(answer["state"] == "finished", "aborted: {answer}"),
                    Err(failure) => self.check(&failure, "an abort after the finish")?,
                }
            }
        }
        Ok(())
    }

    /// Gives up the attempt: the worker disappears, or the engine aborts it.
    async fn give_up(self) -> Result<End> {
        if chance(self.rng, 50) {
            count(&self.clients.tally.abandoned);
            return Ok(End::Never);
        }
        count(&self.clients.tally.aborted);
        if let Some(owner) = self.owner {
            let url = self.clients.url(owner, self.rng, &self.path("abort"));
            match json_of(self.clients.http.post(url)).await {
                Ok(answer) => ensure!(answer["state"] == "aborted", "abort: {answer}"),
                Err(failure) => self.check(&failure, &self.path("abort"))?,
            }
        }
        Ok(End::Never)
    }
}

/// Writes to a closed exchange: refused, or collected later, but never an internal error.
pub async fn write_late(clients: &Clients, exchange: &Exchange, rng: &Random) -> Result<()> {
    let (mut body, mut crcs) = (Vec::new(), Vec::new());
    put_frame(&mut body, &mut crcs, 0, b"too late");
    let sink = format!("{}/sinks/99/0", exchange.path());
    let daemon = clients.any(rng);
    let url = clients.url(daemon, rng, &format!("{sink}/pages?batch=0"));
    let request = clients.post_batch(url, body);
    let closed = ["exchange-closed", "exchange-not-found", "sink-failed"];
    for request in [
        request,
        clients
            .http
            .post(clients.url(daemon, rng, &format!("{sink}/finish"))),
    ] {
        match answer(request).await {
            Ok(_) => {}
            Err(failure) if failure.is_transient() || failure.is(&closed) || failure.is(&LOST) => {}
            Err(failure) => bail!("a late write of {sink}: {failure:?}"),
        }
    }
    count(&clients.tally.late_writes);
    Ok(())
}
