//! One daemon process: starts it with a wrong wall clock, kills, stops or freezes it, reads its
//! gauges.
//!
//! Its port is below the range of outgoing connections, so that no connection occupies it while the
//! daemon is down.

#![allow(
    unsafe_code,
    reason = "limits and capabilities of a child are set by system calls"
)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::clocks::WallClocks;
use crate::process::{Process, wait_until};
use crate::stall;

/// A daemon answers within this time whatever happens to it.
const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Daemon {
    pub name: String,
    pub port: u16,
    config: PathBuf,
    pub log: PathBuf,
    process: Option<Process>,
    clocks: WallClocks,
    http: reqwest::Client,
}

impl Daemon {
    pub fn new(
        name: &str,
        port: u16,
        config: &str,
        work: &Path,
        clocks: &WallClocks,
    ) -> Result<Self> {
        let path = work.join(format!("{name}.toml"));
        std::fs::write(&path, config)?;
        Ok(Self {
            name: name.to_owned(),
            port,
            config: path,
            log: work.join(format!("{name}.log")),
            process: None,
            clocks: clocks.clone(),
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(TIMEOUT)
                .build()?,
        })
    }

    /// Creates the identities of the base directories, as an operator does once. Off this thread,
    /// which runs the proxy of the store.
    pub async fn init(&self) -> Result<()> {
        let mut command = Command::new(binary());
        command.args(["init", "--config"]).arg(&self.config);
        subject_to_permissions(&mut command);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "stopover init failed: {stderr}");
        Ok(())
    }

    /// Starts it with a wall clock that is off by `wall_offset` seconds; returns when it serves.
    pub async fn start(&mut self, wall_offset: i64) -> Result<()> {
        let mut command = Command::new(binary());
        command
            .args(["serve", "--config"])
            .arg(&self.config)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)]);
        self.clocks.set(&mut command, wall_offset);
        subject_to_permissions(&mut command);
        let mut process = Process::spawn(&self.name, command, &self.log)?;
        let url = format!("http://127.0.0.1:{}/healthz", self.port);
        let http = self.http.clone();
        let what = format!("{} serves", self.name);
        wait_until(&what, Duration::from_secs(60), || {
            let exited = process.exited();
            let request = http.get(&url).send();
            async move {
                ensure!(exited.is_none(), "the daemon ended at start: {exited:?}");
                Ok(request.await.is_ok())
            }
        })
        .await?;
        self.process = Some(process);
        self.check_clock(wall_offset).await
    }

    /// Checks the daemon's wall clock by the `Date` header of an answer.
    async fn check_clock(&self, wall_offset: i64) -> Result<()> {
        if !self.clocks.are_available() {
            return Ok(());
        }
        let answer = self.http.get(self.url("/healthz")).send().await?;
        let date = answer.headers()["date"].to_str()?;
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let there = crate::clocks::seconds_of(date).with_context(|| date.to_owned())?;
        let off = there - here.as_secs() as i64 - wall_offset;
        ensure!(
            off.abs() < 60,
            "{} sent the date {date}: its wall clock is not off by {wall_offset} s",
            self.name
        );
        Ok(())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn is_running(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| process.exited().is_none())
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Sends SIGTERM; the daemon must exit, with success or because its drain cut sinks off.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let status = process.terminate(Duration::from_secs(100)).await;
        let status = status.with_context(|| format!("{} did not end after SIGTERM", self.name))?;
        let stopped = matches!(status.code(), Some(0 | 3));
        ensure!(stopped, "{} ended with {status}", self.name);
        Ok(())
    }

    /// Suspends it (SIGSTOP), or resumes it (SIGCONT).
    pub fn freeze(&mut self, frozen: bool) {
        if let Some(process) = &mut self.process {
            process.signal_group(if frozen { libc::SIGSTOP } else { libc::SIGCONT });
        }
    }

    /// Limits the size of files that this daemon may write, with immediate effect; `None` removes
    /// the limit.
    pub fn limit_files(&mut self, bytes: Option<u64>) {
        let Some(process) = &mut self.process else {
            return;
        };
        let limit = libc::rlimit {
            rlim_cur: bytes.unwrap_or(libc::RLIM_INFINITY),
            rlim_max: libc::RLIM_INFINITY,
        };
        let id = process.id() as libc::pid_t;
        // SAFETY: a plain system call on a child of ours, with a limit that outlives it.
        unsafe {
            libc::prlimit(
                id,
                libc::RLIMIT_FSIZE,
                &raw const limit,
                std::ptr::null_mut(),
            )
        };
    }

    /// Every sample of its metrics, by name with labels. They must come in time, as no load of
    /// others keeps a daemon from answering; time in which the soak itself stood still does not
    /// count.
    pub async fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        loop {
            let started = Instant::now();
            let error = match self.scrape().await {
                Ok(samples) => return Ok(samples),
                Err(error) => error,
            };
            let stood_still = stall::stood_still_since(started).await;
            let timed_out = error.downcast_ref::<reqwest::Error>();
            if timed_out.is_some_and(reqwest::Error::is_timeout) && stood_still > TIMEOUT / 2 {
                println!("the soak stood still for {stood_still:?}: {error:#}");
                continue;
            }
            let id = self.process.as_ref().map_or(0, Process::id);
            let threads = stall::threads(id);
            return Err(error.context(format!(
                "metrics of {}; the soak stood still for {stood_still:?}; its threads:\n{threads}",
                self.name
            )));
        }
    }

    async fn scrape(&self) -> Result<BTreeMap<String, f64>> {
        let answer = self.http.get(self.url("/metrics")).send().await?;
        let text = answer.error_for_status()?.text().await?;
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| line.rsplit_once(' '));
        samples
            .map(|(name, value)| Ok((name.to_owned(), value.parse()?)))
            .collect()
    }
}

fn binary() -> OsString {
    let built = env!("CARGO_BIN_EXE_stopover");
    std::env::var_os("STOPOVER_BINARY").unwrap_or_else(|| built.into())
}

/// Starts a child of root without the two capabilities that bypass permissions, so that permissions
/// apply to it. A file that exceeds `limit_files` is an error for the child and does not kill it.
fn subject_to_permissions(command: &mut Command) {
    const DAC_OVERRIDE: libc::c_ulong = 1;
    const DAC_READ_SEARCH: libc::c_ulong = 2;
    // SAFETY: both calls are async-signal-safe and touch no memory of this process.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            #[cfg(target_os = "linux")]
            if libc::geteuid() == 0 {
                libc::prctl(libc::PR_CAPBSET_DROP, DAC_OVERRIDE, 0, 0, 0);
                libc::prctl(libc::PR_CAPBSET_DROP, DAC_READ_SEARCH, 0, 0, 0);
            }
            Ok(())
        });
    }
}
