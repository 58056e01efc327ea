//! The protocol as a client speaks it: one call, one answer, in the client's words.
//!
//! Does: build requests and read answers. Does not: repeat, or judge whether an answer may come
//! now (`history`, `attempt`). Invariant: an answer that is not whole is no answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::history::{Counts, Which};
use crate::host::Host;
use crate::net::{Ask, Called, Net, Silence, Taking};
use crate::simulation::Simulation;
use crate::wire::{self, End, ReadPage};

const JSON: &str = "application/json";
const BATCH: &str = "application/vnd.stopover.pages";
const WRITE_PATIENCE: Duration = Duration::from_secs(25);
const PATIENCE: Duration = Duration::from_secs(10);
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody listens.
    Refused,
    /// Nothing came, or not all.
    Lost,
    /// The daemon said so.
    Problem { slug: String, retryable: bool },
}

impl Trouble {
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Self::Problem { slug, .. } if slug == name)
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

/// An answer and the run that gave it, or that the request reached.
pub struct Answered<T> {
    pub by: Option<u64>,
    pub answer: Result<T, Trouble>,
}

/// A planned handle.
#[derive(Debug, Clone)]
pub struct Handle {
    pub text: String,
    pub partition: u32,
    pub pages: u64,
}

/// What came of a read.
#[derive(Debug)]
pub struct Read {
    pub pages: Vec<ReadPage>,
    pub end: End,
}

/// Who asks.
#[derive(Clone)]
pub struct Client {
    pub simulation: Arc<Simulation>,
    pub net: Arc<Net>,
}

impl Client {
    async fn json(&self, host: &Host, ask: Ask, patience: Duration) -> Answered<Value> {
        let called = self.net.call(host, ask, patience, Taking::default()).await;
        self.understood(called, |body| {
            serde_json::from_slice(body).unwrap_or(Value::Null)
        })
    }

    fn understood<T>(&self, called: Called, read: impl FnOnce(&[u8]) -> T) -> Answered<T> {
        let answer = match called.result {
            Err(Silence::Refused) => Err(Trouble::Refused),
            Ok(reply) if reply.whole && reply.status < 300 => Ok(read(&reply.body)),
            Ok(reply) if reply.whole => Err(self.problem(reply.status, &reply.body)),
            Err(Silence::Lost) | Ok(_) => Err(Trouble::Lost),
        };
        Answered {
            by: called.reached,
            answer,
        }
    }

    fn problem(&self, status: u16, body: &[u8]) -> Trouble {
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let slug = wire::slug(&body);
        // A cut upload is answered so, too, but then nobody is there to read it.
        let defect = status == 500 || (status == 400 && slug != "invalid-request");
        if defect || slug == "?" {
            self.simulation
                .violate(format_args!("the daemon answered {status} {body}"));
        }
        Trouble::Problem {
            slug,
            retryable: body["retryable"] == true,
        }
    }

    /// Announces or renews; whether it is new.
    pub async fn announce(
        &self,
        host: &Host,
        exchange: &str,
        (partitions, ordered): (u32, bool),
        renewal: bool,
    ) -> Answered<bool> {
        let body = json!({"partitions": partitions, "ordered": ordered}).to_string();
        let mut ask = Ask::new("PUT", format!("/v1/exchanges/{exchange}")).with(JSON, body);
        ask.if_match = renewal;
        let called = self.net.call(host, ask, PATIENCE, Taking::default()).await;
        let created = called
            .result
            .as_ref()
            .is_ok_and(|reply| reply.status == 201);
        self.understood(called, |_| created)
    }

    /// Says that an attempt will be written here.
    pub async fn expect(
        &self,
        host: &Host,
        exchange: &str,
        (task, attempt): Which,
    ) -> Answered<()> {
        let path = format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}");
        let Answered { by, answer } = self.json(host, Ask::new("PUT", path), PATIENCE).await;
        let answer = answer.map(drop);
        Answered { by, answer }
    }

    /// Sends a batch; whether it had been taken before.
    pub async fn pages(
        &self,
        host: &Host,
        exchange: &str,
        (task, attempt): Which,
        batch: usize,
        pages: &[(u32, Vec<u8>)],
    ) -> Answered<bool> {
        let path = format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}/pages?batch={batch}");
        let ask = Ask::new("POST", path).with(BATCH, wire::batch(pages));
        let Answered { by, answer } = self.json(host, ask, WRITE_PATIENCE).await;
        let answer = answer.map(|body| body["repeated"] == true);
        Answered { by, answer }
    }

    pub async fn finish(
        &self,
        host: &Host,
        exchange: &str,
        (task, attempt): Which,
        counts: Counts,
        checksum: u32,
    ) -> Answered<Counts> {
        let path = format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}/finish");
        let Counts {
            batches,
            pages,
            bytes,
        } = counts;
        let claim =
            json!({"batches": batches, "pages": pages, "bytes": bytes, "checksum": checksum});
        let ask = Ask::new("POST", path).with(JSON, claim.to_string());
        let Answered { by, answer } = self.json(host, ask, WRITE_PATIENCE).await;
        let answer = answer.map(|body| Counts {
            batches: body["batches"].as_u64().unwrap_or(u64::MAX),
            pages: body["pages"].as_u64().unwrap_or(u64::MAX),
            bytes: body["bytes"].as_u64().unwrap_or(u64::MAX),
        });
        Answered { by, answer }
    }

    /// Aborts; whether it is aborted rather than finished.
    pub async fn abort(
        &self,
        host: &Host,
        exchange: &str,
        (task, attempt): Which,
    ) -> Answered<bool> {
        let path = format!("/v1/exchanges/{exchange}/sinks/{task}/{attempt}/abort");
        let Answered { by, answer } = self.json(host, Ask::new("POST", path), PATIENCE).await;
        let answer = answer.map(|body| body["state"] == "aborted");
        Answered { by, answer }
    }

    /// The committed attempts of an exchange, with their pages and bytes.
    pub async fn show(
        &self,
        host: &Host,
        exchange: &str,
    ) -> Result<BTreeMap<Which, (u64, u64)>, Trouble> {
        let ask = Ask::new("GET", format!("/v1/exchanges/{exchange}"));
        let body = self.json(host, ask, READ_PATIENCE).await.answer?;
        let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
        let attempts = body["committed"].as_array().cloned().unwrap_or_default();
        let committed = attempts.iter().map(|one| {
            let which = (number(&one["task"]) as u32, number(&one["attempt"]) as u32);
            (which, (number(&one["pages"]), number(&one["bytes"])))
        });
        Ok(committed.collect())
    }

    /// Plans the handles of chosen attempts.
    pub async fn handles(
        &self,
        host: &Host,
        exchange: &str,
        chosen: &[Which],
        target_size: u64,
    ) -> Result<Vec<Handle>, Trouble> {
        let path = format!("/v1/exchanges/{exchange}/handles");
        let body = json!({"attempts": chosen, "target_size": target_size}).to_string();
        let ask = Ask::new("POST", path).with(JSON, body);
        let called = self
            .net
            .call(host, ask, READ_PATIENCE, Taking::default())
            .await;
        let lines = self.understood(called, |body| String::from_utf8_lossy(body).into_owned());
        let lines = lines.answer?;
        let mut lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or(Value::Null))
            .collect();
        let end = lines.pop().unwrap_or(Value::Null);
        if end != json!({"end": true, "handles": lines.len()}) {
            return Err(Trouble::Lost);
        }
        let handles = lines.iter().map(|line| Handle {
            text: line["handle"].as_str().unwrap_or_default().to_owned(),
            partition: line["partition"].as_u64().unwrap_or(u64::MAX) as u32,
            pages: line["pages"].as_u64().unwrap_or(u64::MAX),
        });
        Ok(handles.collect())
    }

    /// Reads a handle after so many pages.
    pub async fn read(
        &self,
        host: &Host,
        handle: &Handle,
        skip: u64,
        taking: Taking,
    ) -> Result<Read, Trouble> {
        let ask = Ask::new("POST", format!("/v1/read?skip={skip}"));
        let ask = ask.with("text/plain", handle.text.clone());
        self.records(host, ask, taking).await
    }

    /// Reads a partition without naming attempts.
    pub async fn partition(
        &self,
        host: &Host,
        exchange: &str,
        partition: u32,
    ) -> Result<Read, Trouble> {
        let path = format!("/v1/exchanges/{exchange}/partitions/{partition}");
        self.records(host, Ask::new("GET", path), Taking::default())
            .await
    }

    async fn records(&self, host: &Host, ask: Ask, taking: Taking) -> Result<Read, Trouble> {
        let reply = match self.net.call(host, ask, READ_PATIENCE, taking).await.result {
            Err(Silence::Refused) => return Err(Trouble::Refused),
            Err(Silence::Lost) => return Err(Trouble::Lost),
            Ok(reply) if reply.status >= 300 && reply.whole => {
                return Err(self.problem(reply.status, &reply.body));
            }
            Ok(reply) if reply.status >= 300 => return Err(Trouble::Lost),
            Ok(reply) => reply,
        };
        match wire::decode(&reply.body) {
            Ok((pages, end)) => Ok(Read { pages, end }),
            Err(what) => {
                self.simulation.violate(format_args!("promise 5: {what}"));
                Err(Trouble::Lost)
            }
        }
    }

    pub async fn close(&self, host: &Host, exchange: &str) -> Result<(), Trouble> {
        let ask = Ask::new("DELETE", format!("/v1/exchanges/{exchange}"));
        let answered = self.json(host, ask, WRITE_PATIENCE).await;
        answered.answer.map(drop)
    }
}
