//! A child process that cannot outlive the harness.
//!
//! Each child leads its own process group and is killed when its [`Process`] is dropped: at the
//! end, on an error, on a panic, and on ctrl-C (which drops the main future). On Linux the kernel
//! also kills it if the harness itself is killed. Output goes to a log file, never to a pipe, so no
//! child can block on the harness.

#![allow(
    unsafe_code,
    reason = "process groups and their signals are system calls"
)]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

/// Runs `work` until a signal arrives. Dropping it ends every process that it has started.
pub async fn until_signal<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        result = work => result,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
        _ = hangup.recv() => anyhow::bail!("hung up"),
    }
}

pub struct Process {
    pub name: String,
    pub log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to `log`.
    ///
    /// Must be called from the main thread: the kernel sends the parent-death signal when the
    /// *thread* that started the child ends.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        #[cfg(target_os = "linux")]
        // SAFETY: prctl is async-signal-safe and touches no memory of this process.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("{name}: cannot start {:?}", command.get_program()))?;
        Ok(Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child,
        })
    }

    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends SIGKILL to the whole group; returns once the child has ended.
    pub fn kill(&mut self) {
        if self.exited().is_none() {
            self.signal_group(libc::SIGKILL);
            let _ = self.child.wait();
        }
    }

    /// Sends SIGTERM and waits; `None` if the child had to be killed after `timeout`.
    pub async fn terminate(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        self.signal_group(libc::SIGTERM);
        while Instant::now() < deadline {
            if let Some(status) = self.exited() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.kill();
        None
    }

    #[allow(dead_code, reason = "used by the soak")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the whole group unless the child has ended.
    pub fn signal_group(&mut self, signal: i32) {
        // Checked first: the system may have reused the id of a child that has been waited for.
        if self.exited().is_none() {
            // SAFETY: a plain system call; the child leads its own group, see `spawn`.
            unsafe { libc::kill(-(self.child.id() as i32), signal) };
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log, read from its end because Trino's logs can be long.
pub fn tail(log: &Path, lines: usize) -> String {
    const WINDOW: u64 = 64 * 1024;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Err(error) => format!("({}: {error})", log.display()),
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
    }
}

/// Distinct free ports on loopback: all are bound until all are known.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<_> = (0..count)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<_>>()?;
    Ok(held
        .iter()
        .map(|listener| listener.local_addr().map(|a| a.port()))
        .collect::<Result<_, _>>()?)
}

/// Polls `ready` until it returns true; an error that names `what` after `timeout`.
pub async fn wait_until<F, Fut>(what: &str, timeout: Duration, mut ready: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    let deadline = Instant::now() + timeout;
    loop {
        if ready().await? {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "timed out after {} s: {what}",
            timeout.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
