//! Requests to daemons, and the distinction between transient failures and broken promises.
//!
//! Transient failures are those that killed daemons, cut connections and failing base directories
//! may cause: they are retried, at any daemon, for a limited time. Any other error fails the soak.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use stopover::runtime::Random;

use crate::tally::Tally;

/// How long a request that any daemon can answer is retried before the soak fails.
const MAX_RETRY_TIME: Duration = Duration::from_secs(120);
/// Timeout of one request; longer than any daemon is frozen.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Problems that faults may cause.
const TRANSIENT: [&str; 5] = [
    "storage-unavailable",
    "starting",
    "draining",
    "overloaded",
    "timeout",
];

/// Why a request did not succeed.
#[derive(Debug)]
#[allow(dead_code, reason = "read by the Debug output")]
pub enum Failure {
    /// No daemon listens: nothing was sent.
    Refused,
    /// The answer did not arrive, or not completely: the outcome is unknown.
    NoAnswer(String),
    Problem(Problem),
}

#[derive(Debug)]
#[allow(dead_code, reason = "read by the Debug output")]
pub struct Problem {
    pub problem_type: String,
    pub status: StatusCode,
    pub detail: String,
}

impl Problem {
    pub fn of(status: StatusCode, json: &Value) -> Self {
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        let problem_type = text("type")
            .rsplit(':')
            .next()
            .unwrap_or_default()
            .to_owned();
        Self {
            problem_type,
            status,
            detail: text("detail"),
        }
    }
}

impl Failure {
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused | Self::NoAnswer(_) => true,
            Self::Problem(problem) => TRANSIENT.contains(&problem.problem_type.as_str()),
        }
    }

    pub fn is(&self, problem_types: &[&str]) -> bool {
        match self {
            Self::Problem(problem) => problem_types.contains(&problem.problem_type.as_str()),
            _ => false,
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        if error.is_connect() {
            Self::Refused
        } else {
            Self::NoAnswer(format!("{error:?}"))
        }
    }
}

/// How clients reach one daemon.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Directly, and through a proxy that cuts connections.
    pub urls: [String; 2],
}

/// Shared by all clients of one world.
pub struct Clients {
    pub http: reqwest::Client,
    pub endpoints: Vec<Endpoint>,
    pub tally: Tally,
}

impl Clients {
    pub fn new(endpoints: Vec<Endpoint>) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(REQUEST_TIMEOUT)
            .build()?;
        Ok(Self {
            http,
            endpoints,
            tally: Tally::default(),
        })
    }

    /// The index of a random daemon.
    pub fn any(&self, rng: &Random) -> usize {
        (rng.next_u64() % self.endpoints.len() as u64) as usize
    }

    pub fn url(&self, daemon: usize, rng: &Random, path: &str) -> String {
        let way = (rng.next_u64() % 2) as usize;
        format!("{}{path}", self.endpoints[daemon].urls[way])
    }

    /// A request with a batch of framed pages.
    pub fn post_batch(&self, url: String, batch: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.http.post(url).body(batch);
        request.header("content-type", "application/vnd.stopover.pages")
    }

    /// Sends a request to random daemons until one succeeds.
    ///
    /// # Errors
    /// A failure that is not transient, or only transient ones for too long.
    pub async fn retrying<T>(
        &self,
        what: &str,
        rng: &Random,
        request: impl AsyncFn(usize) -> Result<T, Failure>,
    ) -> Result<T> {
        let deadline = Instant::now() + MAX_RETRY_TIME;
        loop {
            match request(self.any(rng)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if !failure.is_transient() => bail!("{what}: {failure:?}"),
                Err(failure) if Instant::now() > deadline => {
                    bail!(
                        "{what}: no success within {} s: {failure:?}",
                        MAX_RETRY_TIME.as_secs()
                    )
                }
                Err(_) => self.tally.retried(),
            }
            pause(rng, 100).await;
        }
    }
}

/// Sends a request; returns the body of a successful answer.
pub async fn answer(request: RequestBuilder) -> Result<bytes::Bytes, Failure> {
    let response = request.timeout(REQUEST_TIMEOUT).send().await?;
    let status = response.status();
    let body = response.bytes().await?;
    if status.is_success() {
        return Ok(body);
    }
    Err(problem(status, &body))
}

/// The failure that an unsuccessful answer reports.
pub fn problem(status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice(body) {
        Ok(json) => Failure::Problem(Problem::of(status, &json)),
        Err(_) => Failure::NoAnswer(format!("{status} without a problem document")),
    }
}

pub async fn json(request: RequestBuilder) -> Result<Value, Failure> {
    let body = answer(request).await?;
    serde_json::from_slice(&body).map_err(|error| Failure::NoAnswer(error.to_string()))
}

/// Waits for a random time of at most `most` milliseconds.
pub async fn pause(rng: &Random, most: u64) {
    tokio::time::sleep(Duration::from_millis(rng.next_u64() % (most + 1))).await;
}

/// `true` in `percent` of 100 cases.
pub fn chance(rng: &Random, percent: u64) -> bool {
    rng.next_u64() % 100 < percent
}
