//! The client's side of the protocol: one method per request.
//!
//! Does: build requests and parse answers. Does not: retry, or decide whether an answer is allowed
//! now (`history`, `writer`). Invariant: an incomplete answer counts as none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::history::{AttemptId, Counts};
use crate::host::Host;
use crate::net::{Call, CallOutcome, Net, NoReply, ReadBehaviour};
use crate::simulation::Simulation;
use crate::wire::{self, End, ReadPage};

const JSON: &str = "application/json";
const BATCH: &str = "application/vnd.stopover.pages";
const WRITE_TIMEOUT: Duration = Duration::from_secs(25);
const TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// No daemon listens.
    Refused,
    /// No answer arrived, or only a part.
    Lost,
    /// The daemon answered with this problem.
    Problem {
        problem_type: String,
        retryable: bool,
    },
}

impl RequestError {
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Self::Problem { problem_type, .. } if problem_type == name)
    }

    pub fn retryable(&self) -> bool {
        !matches!(
            self,
            Self::Problem {
                retryable: false,
                ..
            }
        )
    }
}

/// The result of a request, and the run of the daemon that it reached.
pub struct Answer<T> {
    pub run: Option<u64>,
    pub result: Result<T, RequestError>,
}

/// A planned handle.
#[derive(Debug, Clone)]
pub struct Handle {
    pub text: String,
    pub partition: u32,
    pub pages: u64,
}

impl Handle {
    fn from_line(line: &Value) -> Self {
        Self {
            text: line["handle"].as_str().unwrap_or_default().to_owned(),
            partition: line["partition"].as_u64().unwrap_or(u64::MAX) as u32,
            pages: line["pages"].as_u64().unwrap_or(u64::MAX),
        }
    }
}

/// What one read returned.
#[derive(Debug)]
pub struct Read {
    pub pages: Vec<ReadPage>,
    pub end: End,
}

/// Sends requests.
#[derive(Clone)]
pub struct Client {
    pub simulation: Arc<Simulation>,
    pub net: Arc<Net>,
}

impl Client {
    async fn json(&self, host: &Host, call: Call, timeout: Duration) -> Answer<Value> {
        let outcome = self
            .net
            .call(host, call, timeout, ReadBehaviour::default())
            .await;
        self.parsed(outcome, |body| {
            serde_json::from_slice(body).unwrap_or(Value::Null)
        })
    }

    fn parsed<T>(&self, outcome: CallOutcome, read: impl FnOnce(&[u8]) -> T) -> Answer<T> {
        let result = match outcome.result {
            Err(NoReply::Refused) => Err(RequestError::Refused),
            Ok(reply) if reply.complete && reply.status < 300 => Ok(read(&reply.body)),
            Ok(reply) if reply.complete => Err(self.problem(reply.status, &reply.body)),
            Err(NoReply::Lost) | Ok(_) => Err(RequestError::Lost),
        };
        Answer {
            run: outcome.reached,
            result,
        }
    }

    fn problem(&self, status: u16, body: &[u8]) -> RequestError {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let problem_type = wire::problem_type(&body);
        // A truncated upload also gets such an answer, but its client never reads it.
        let defect = status == 500 || (status == 400 && problem_type != "invalid-request");
        if defect || problem_type == "?" {
            self.simulation
                .violate(format_args!("the daemon answered {status} {body}"));
        }
        RequestError::Problem {
            problem_type,
            retryable: body["retryable"] == true,
        }
    }

    /// Announces or renews; returns whether the exchange was created.
    pub async fn announce(
        &self,
        host: &Host,
        exchange: &str,
        properties: (u32, bool),
        renewal: bool,
    ) -> Answer<bool> {
        self.put_exchange(host, exchange, properties, |call| {
            call.if_match = renewal;
            call.described = renewal;
        })
        .await
    }

    /// Announces an exchange that is new: answered before its marker is written.
    pub async fn announce_new(
        &self,
        host: &Host,
        exchange: &str,
        properties: (u32, bool),
    ) -> Answer<bool> {
        self.put_exchange(host, exchange, properties, |call| {
            call.if_none_match = true;
            call.described = false;
        })
        .await
    }

    /// Repeats an announcement with its descriptor: answered once its marker is durable.
    pub async fn confirm(
        &self,
        host: &Host,
        exchange: &str,
        properties: (u32, bool),
    ) -> Answer<bool> {
        self.put_exchange(host, exchange, properties, |call| call.if_none_match = true)
            .await
    }

    async fn put_exchange(
        &self,
        host: &Host,
        exchange: &str,
        (partitions, ordered): (u32, bool),
        prepare: impl FnOnce(&mut Call),
    ) -> Answer<bool> {
        let body = json!({"partitions": partitions, "ordered": ordered}).to_string();
        let mut call = Call::new("PUT", format!("/v1/exchanges/{exchange}")).with(JSON, body);
        prepare(&mut call);
        let outcome = self
            .net
            .call(host, call, TIMEOUT, ReadBehaviour::default())
            .await;
        let created = outcome
            .result
            .as_ref()
            .is_ok_and(|reply| reply.status == 201);
        self.parsed(outcome, |body| {
            let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
            let lease = body["lease_seconds"].as_u64().unwrap_or_default();
            let mut history = self.simulation.history.lock();
            history.leased(exchange, Duration::from_secs(lease));
            drop(history);
            let descriptor = body["descriptor"].as_str().unwrap_or_default();
            self.net.describe(exchange, descriptor);
            created
        })
    }

    /// Declares that an attempt will be written at this daemon.
    pub async fn declare_sink(
        &self,
        host: &Host,
        exchange: &str,
        (task, attempt): AttemptId,
    ) -> Answer<()> {
        let path = format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}");
        let Answer { run, result } = self.json(host, Call::new("PUT", path), TIMEOUT).await;
        let result = result.map(drop);
        Answer { run, result }
    }

    /// Takes back a declaration.
    pub async fn withdraw_sink(
        &self,
        host: &Host,
        exchange: &str,
        (task, attempt): AttemptId,
    ) -> Answer<()> {
        let path = format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}");
        let Answer { run, result } = self.json(host, Call::new("DELETE", path), TIMEOUT).await;
        let result = result.map(drop);
        Answer { run, result }
    }

    /// Sends the only batch of a sink to its home.
    pub async fn pages_at_home(
        &self,
        host: &Host,
        exchange: &str,
        (task, attempt): AttemptId,
        pages: &[(u32, Vec<u8>)],
    ) -> Answer<()> {
        let path = format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}/pages?batch=0");
        let mut call = Call::new("POST", path).with(BATCH, wire::batch(pages));
        call.foreign = true;
        let Answer { run, result } = self.json(host, call, WRITE_TIMEOUT).await;
        let result = result.map(drop);
        Answer { run, result }
    }

    /// Sends a batch; returns whether it had been accepted before.
    pub async fn pages(
        &self,
        host: &Host,
        exchange: &str,
        (task, attempt): AttemptId,
        batch: usize,
        pages: &[(u32, Vec<u8>)],
    ) -> Answer<bool> {
        let path = format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}/pages?batch={batch}");
        let call = Call::new("POST", path).with(BATCH, wire::batch(pages));
        let Answer { run, result } = self.json(host, call, WRITE_TIMEOUT).await;
        let result = result.map(|body| body["repeated"] == true);
        Answer { run, result }
    }

    pub async fn finish(
        &self,
        host: &Host,
        exchange: &str,
        (task, attempt): AttemptId,
        counts: Counts,
        checksum: u32,
    ) -> Answer<Counts> {
        let path = format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}/finish");
        let Counts {
            batches,
            pages,
            bytes,
        } = counts;
        let claim =
            json!({"batches": batches, "pages": pages, "bytes": bytes, "checksum": checksum});
        let call = Call::new("POST", path).with(JSON, claim.to_string());
        let Answer { run, result } = self.json(host, call, WRITE_TIMEOUT).await;
        let result = result.map(|body| Counts {
            batches: body["batches"].as_u64().unwrap_or(u64::MAX),
            pages: body["pages"].as_u64().unwrap_or(u64::MAX),
            bytes: body["bytes"].as_u64().unwrap_or(u64::MAX),
        });
        Answer { run, result }
    }

    /// Aborts; returns `true` if the attempt is aborted, `false` if it is finished.
    pub async fn abort(
        &self,
        host: &Host,
        exchange: &str,
        (task, attempt): AttemptId,
    ) -> Answer<bool> {
        let path = format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}/abort");
        let Answer { run, result } = self.json(host, Call::new("POST", path), TIMEOUT).await;
        let result = result.map(|body| body["state"] == "aborted");
        Answer { run, result }
    }

    /// The committed attempts of an exchange, with their pages and bytes.
    pub async fn show(
        &self,
        host: &Host,
        exchange: &str,
    ) -> Result<BTreeMap<AttemptId, (u64, u64)>, RequestError> {
        let call = Call::new("GET", format!("/v1/exchanges/{exchange}"));
        let body = self.json(host, call, READ_TIMEOUT).await.result?;
        let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
        let attempts = body["committed"].as_array().cloned().unwrap_or_default();
        let committed = attempts.iter().map(|one| {
            let id = (number(&one["task"]) as u32, number(&one["attempt"]) as u32);
            (id, (number(&one["pages"]), number(&one["bytes"])))
        });
        Ok(committed.collect())
    }

    /// Plans the handles of chosen attempts.
    pub async fn handles(
        &self,
        host: &Host,
        exchange: &str,
        chosen: &[AttemptId],
        target_size: u64,
    ) -> Result<Vec<Handle>, RequestError> {
        let body = json!({"attempts": chosen, "target_size": target_size});
        let lines = self.plan(host, exchange, body).await?;
        Ok(lines.iter().map(Handle::from_line).collect())
    }

    /// Plans those of the chosen attempts that a daemon committed and still knows; returns the
    /// others and the handles.
    pub async fn handles_from_memory(
        &self,
        host: &Host,
        exchange: &str,
        chosen: &[AttemptId],
        target_size: u64,
    ) -> Result<(Vec<AttemptId>, Vec<Handle>), RequestError> {
        let body = json!({"attempts": chosen, "target_size": target_size, "from_memory": true});
        let mut lines = self.plan(host, exchange, body).await?;
        if lines.is_empty() {
            return Err(RequestError::Lost);
        }
        let unknown = lines.remove(0)["unknown"].take();
        let unknown = serde_json::from_value(unknown).map_err(|_| RequestError::Lost)?;
        Ok((unknown, lines.iter().map(Handle::from_line).collect()))
    }

    /// The lines of a plan without the end line.
    async fn plan(
        &self,
        host: &Host,
        exchange: &str,
        body: Value,
    ) -> Result<Vec<Value>, RequestError> {
        let path = format!("/v1/exchanges/{exchange}/handles");
        let body = body.to_string();
        let call = Call::new("POST", path).with(JSON, body);
        let outcome = self
            .net
            .call(host, call, READ_TIMEOUT, ReadBehaviour::default())
            .await;
        let lines = self.parsed(outcome, |body| String::from_utf8_lossy(body).into_owned());
        let lines = lines.result?;
        let mut lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or(Value::Null))
            .collect();
        let end = lines.pop().unwrap_or(Value::Null);
        let handles = lines
            .iter()
            .filter(|line| !line["handle"].is_null())
            .count();
        if end != json!({"end": true, "handles": handles}) {
            return Err(RequestError::Lost);
        }
        Ok(lines)
    }

    /// Reads a handle, skipping its first `skip` pages.
    pub async fn read(
        &self,
        host: &Host,
        handle: &Handle,
        skip: u64,
        behaviour: ReadBehaviour,
    ) -> Result<Read, RequestError> {
        let call = Call::new("POST", format!("/v1/read?skip={skip}"));
        let call = call.with("text/plain", handle.text.clone());
        self.records(host, call, behaviour).await
    }

    /// Reads a partition without naming attempts.
    pub async fn partition(
        &self,
        host: &Host,
        exchange: &str,
        partition: u32,
    ) -> Result<Read, RequestError> {
        let path = format!("/v1/exchanges/{exchange}/partitions/{partition}");
        self.records(host, Call::new("GET", path), ReadBehaviour::default())
            .await
    }

    async fn records(
        &self,
        host: &Host,
        call: Call,
        behaviour: ReadBehaviour,
    ) -> Result<Read, RequestError> {
        let reply = match self
            .net
            .call(host, call, READ_TIMEOUT, behaviour)
            .await
            .result
        {
            Err(NoReply::Refused) => return Err(RequestError::Refused),
            Err(NoReply::Lost) => return Err(RequestError::Lost),
            Ok(reply) if reply.status >= 300 && reply.complete => {
                return Err(self.problem(reply.status, &reply.body));
            }
            Ok(reply) if reply.status >= 300 => return Err(RequestError::Lost),
            Ok(reply) => reply,
        };
        match wire::decode(&reply.body) {
            Ok((pages, end)) => Ok(Read { pages, end }),
            Err(what) => {
                self.simulation.violate(format_args!("promise 5: {what}"));
                Err(RequestError::Lost)
            }
        }
    }

    pub async fn close(&self, host: &Host, exchange: &str) -> Result<(), RequestError> {
        let call = Call::new("DELETE", format!("/v1/exchanges/{exchange}"));
        let answered = self.json(host, call, WRITE_TIMEOUT).await;
        answered.result.map(drop)
    }
}
