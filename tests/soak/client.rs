//! Requests to daemons, and the line between bad weather and a broken promise.
//!
//! Weather is what killed daemons, cut connections and broken base directories may cause: it is
//! tried again, here or elsewhere, until patience ends. Anything else that is answered in error is
//! an error of the soak.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;
use stopover::runtime::Random;

use crate::tally::Tally;

/// For how long a request that any daemon can answer may fail before the soak does.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longer than any daemon is frozen.
const ANSWER: Duration = Duration::from_secs(20);
/// Problems that pass.
const WEATHER: [&str; 4] = ["storage-unavailable", "draining", "overloaded", "timeout"];

/// Why a request has no good answer.
#[derive(Debug)]
#[allow(dead_code, reason = "what it says is read where it is printed")]
pub enum Failure {
    /// Nobody listens: nothing was sent.
    Refused,
    /// The answer is not known.
    Broken(String),
    Problem(Problem),
}

#[derive(Debug)]
#[allow(dead_code, reason = "what it says is read where it is printed")]
pub struct Problem {
    pub slug: String,
    pub status: StatusCode,
    pub detail: String,
}

impl Problem {
    pub fn of(status: StatusCode, json: &Value) -> Self {
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        let slug = text("type")
            .rsplit(':')
            .next()
            .unwrap_or_default()
            .to_owned();
        Self {
            slug,
            status,
            detail: text("detail"),
        }
    }
}

impl Failure {
    pub fn is_weather(&self) -> bool {
        match self {
            Self::Refused | Self::Broken(_) => true,
            Self::Problem(problem) => WEATHER.contains(&problem.slug.as_str()),
        }
    }

    pub fn is(&self, slugs: &[&str]) -> bool {
        matches!(self, Self::Problem(problem) if slugs.contains(&problem.slug.as_str()))
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        if error.is_connect() {
            Self::Refused
        } else {
            Self::Broken(format!("{error:?}"))
        }
    }
}

/// One daemon, as clients reach it.
#[derive(Clone, Debug)]
pub struct Door {
    /// Straight, and through a proxy that cuts.
    pub urls: [String; 2],
}

/// What all clients of one world share.
pub struct Clients {
    pub http: reqwest::Client,
    pub credentials: Vec<Door>,
    pub tally: Tally,
}

impl Clients {
    pub fn new(credentials: Vec<Door>) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(ANSWER)
            .build()?;
        Ok(Self {
            http,
            credentials,
            tally: Tally::default(),
        })
    }

    /// Some daemon, by one of the two ways.
    pub fn any(&self, rng: &Random) -> usize {
        (rng.next_u64() % self.credentials.len() as u64) as usize
    }

    pub fn url(&self, door: usize, rng: &Random, path: &str) -> String {
        let way = (rng.next_u64() % 2) as usize;
        format!("{}{path}", self.credentials[door].urls[way])
    }

    /// Asks one daemon after another, drawn at random, until one has answered well.
    ///
    /// # Errors
    /// An answer that no weather explains, or none for too long.
    pub async fn patiently<T>(
        &self,
        what: &str,
        rng: &Random,
        ask: impl AsyncFn(usize) -> Result<T, Failure>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ask(self.any(rng)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if !failure.is_weather() => bail!("{what}: {failure:?}"),
                Err(failure) if Instant::now() > deadline => {
                    bail!("{what}: not for {} s: {failure:?}", PATIENCE.as_secs())
                }
                Err(_) => self.tally.retried(),
            }
            pause(rng, 100).await;
        }
    }
}

/// The body of a good answer, or why there is none.
pub async fn answer(request: RequestBuilder) -> Result<bytes::Bytes, Failure> {
    let response = request.timeout(ANSWER).send().await?;
    let status = response.status();
    let body = response.bytes().await?;
    if status.is_success() {
        return Ok(body);
    }
    Err(problem(status, &body))
}

/// What an answer that is no success says.
pub fn problem(status: StatusCode, body: &[u8]) -> Failure {
    match serde_json::from_slice(body) {
        Ok(json) => Failure::Problem(Problem::of(status, &json)),
        Err(_) => Failure::Broken(format!("{status} without a problem")),
    }
}

pub async fn json(request: RequestBuilder) -> Result<Value, Failure> {
    let body = answer(request).await?;
    serde_json::from_slice(&body).map_err(|error| Failure::Broken(error.to_string()))
}

/// Waits for up to so many milliseconds.
pub async fn pause(rng: &Random, most: u64) {
    tokio::time::sleep(Duration::from_millis(rng.next_u64() % (most + 1))).await;
}

/// True in so many of a hundred cases.
pub fn chance(rng: &Random, percent: u64) -> bool {
    rng.next_u64() % 100 < percent
}
