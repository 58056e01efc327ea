//! One Stopover daemon: start, kill, restart on the same port, and what it reports about itself.
//!
//! The port never changes, since Trino's configuration names it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::{Process, wait_until};

/// How long a draining daemon waits for its open sinks: longer than any task of the scenarios, as
/// an operator would set it.
pub const DRAIN: Duration = Duration::from_secs(300);

pub struct Daemon {
    pub name: String,
    pub port: u16,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    process: Option<Process>,
    http: reqwest::Client,
}

/// What the daemons report to hold of a query's exchanges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub exchanges: u64,
    pub attempts: u64,
    pub segments: u64,
    pub bytes: u64,
}

impl Daemon {
    pub fn new(name: &str, port: u16, binary: &Path, work: &Path) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(10))
            .build()?;
        Ok(Self {
            name: name.to_owned(),
            port,
            binary: binary.to_owned(),
            config: work.join(format!("{name}.toml")),
            log: work.join(format!("logs/{name}.log")),
            process: None,
            http,
        })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn log(&self) -> (String, PathBuf) {
        (self.name.clone(), self.log.clone())
    }

    pub fn configure(&self, toml: &str) -> Result<()> {
        std::fs::write(&self.config, toml)
            .with_context(|| format!("cannot write {}", self.config.display()))
    }

    /// Runs a command of the daemon's program with its configuration; returns what it printed.
    pub async fn command(&self, args: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.binary);
        let command = command.args(args).arg("--config").arg(&self.config);
        let output = command.output().await?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?}: {}", error.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub async fn start(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command
            .args(["serve", "--config"])
            .arg(&self.config)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        let mut process = Process::spawn(&self.name, command, &self.log)?;
        let url = format!("{}/readyz", self.url());
        wait_until(
            &format!("{} is ready", self.name),
            Duration::from_secs(30),
            || {
                let exited = process.exited();
                let request = self.http.get(&url).send();
                async move {
                    ensure!(exited.is_none(), "the daemon exited at once: {exited:?}");
                    Ok(request
                        .await
                        .is_ok_and(|answer| answer.status().is_success()))
                }
            },
        )
        .await?;
        self.process = Some(process);
        Ok(())
    }

    pub fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.exited().is_none())
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// A graceful stop; an error unless the daemon exits with success.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let status = process.terminate(DRAIN + Duration::from_secs(60)).await;
        let status = status.with_context(|| format!("{} ignored SIGTERM", self.name))?;
        ensure!(
            status.success(),
            "{} exited with {status} after SIGTERM",
            self.name
        );
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<reqwest::Response> {
        let url = format!("{}{path}", self.url());
        self.http.get(&url).send().await.with_context(|| url)
    }

    /// The ids of the open exchanges of a query; of all queries if `query` is empty.
    pub async fn exchanges(&self, query: &str) -> Result<Vec<String>> {
        let list: Value = self
            .get("/v1/exchanges")
            .await?
            .error_for_status()?
            .json()
            .await?;
        let all = list["exchanges"]
            .as_array()
            .context("no list of exchanges")?;
        let of_query = all
            .iter()
            .filter(|e| query.is_empty() || e["query"] == query);
        Ok(of_query
            .filter_map(|e| e["exchange"].as_str().map(str::to_owned))
            .collect())
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self
            .get("/metrics")
            .await?
            .error_for_status()?
            .text()
            .await?;
        let mut samples = text.lines().filter_map(|line| line.split_once(' '));
        let found = samples.find(|(sample, _)| *sample == name);
        let (_, value) = found.with_context(|| format!("{} has no metric {name}", self.name))?;
        Ok(value.parse()?)
    }

    /// What is committed in the exchanges of a query; an exchange that closes meanwhile is left
    /// out.
    pub async fn held(&self, query: &str) -> Result<Held> {
        let mut held = Held::default();
        for exchange in self.exchanges(query).await? {
            let answer = self.get(&format!("/v1/exchanges/{exchange}")).await?;
            if !answer.status().is_success() {
                continue;
            }
            let one: Value = answer.json().await?;
            held.exchanges += 1;
            held.segments += one["segments"].as_array().map_or(0, Vec::len) as u64;
            for attempt in one["committed"].as_array().into_iter().flatten() {
                held.attempts += 1;
                held.bytes += attempt["bytes"].as_u64().unwrap_or(0);
            }
        }
        Ok(held)
    }
}
