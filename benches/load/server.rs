//! The measured processes: a daemon, and the yardstick.
//!
//! Does: start them on free ports, report their CPU time and memory, stop them. Does not: send them
//! requests. Invariant: a process ends with its `Server`, even if the benchmark fails.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

/// The state of an established connection in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";

/// The argument that makes this program the yardstick.
pub const YARDSTICK: &str = "yardstick";

/// A process that listens on `address`.
pub struct Server {
    process: Child,
    pub address: SocketAddr,
}

impl Server {
    /// A daemon with this configuration.
    pub fn daemon(binary: &Path, folder: &Path, name: &str, settings: &str) -> Result<Self> {
        let mut command = Command::new(binary);
        Self::start(Self::serve(&mut command, folder, name, settings)?)
    }

    /// A daemon that is started by `wrapper`, which takes the command as its arguments.
    pub fn daemon_under(
        wrapper: &mut Command,
        binary: &Path,
        folder: &Path,
        name: &str,
        settings: &str,
    ) -> Result<Self> {
        Self::start(Self::serve(wrapper.arg(binary), folder, name, settings)?)
    }

    fn serve<'a>(
        command: &'a mut Command,
        folder: &Path,
        name: &str,
        settings: &str,
    ) -> Result<&'a mut Command> {
        let config = folder.join(format!("{name}.toml"));
        std::fs::write(&config, format!("{settings}[log]\nfilter = \"warn\"\n"))?;
        let serve = ["serve", "--listen", "127.0.0.1:0", "--config"];
        Ok(command.args(serve).arg(config))
    }

    /// This program as the yardstick, with `bytes` bytes to serve from memory.
    pub fn yardstick(bytes: usize) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        Self::start(command.arg(YARDSTICK).arg(bytes.to_string()))
    }

    fn start(command: &mut Command) -> Result<Self> {
        let mut process = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let mut line = String::new();
        let out = process.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line)?;
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .and_then(|address| address.parse().ok());
        let mut server = Self {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        server.address = address.with_context(|| format!("{command:?} did not start"))?;
        Ok(server)
    }

    /// CPU seconds so far.
    pub fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, fields) = stat
            .rsplit_once(')')
            .context("unexpected format of /proc/…/stat")?;
        let ticks: f64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<f64>().unwrap_or_default())
            .sum();
        Ok(ticks / 100.0)
    }

    /// Peak resident memory in bytes.
    pub fn peak(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.context("/proc/…/status has no VmHWM")?;
        Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    /// TCP connections that are established now: those that the process accepted, and those that it
    /// made.
    pub fn connections(&self) -> Result<(usize, usize)> {
        let process = format!("/proc/{}", self.process.id());
        let mut own = HashSet::new();
        for entry in std::fs::read_dir(format!("{process}/fd"))? {
            // A descriptor may be closed meanwhile.
            let target = std::fs::read_link(entry?.path()).unwrap_or_default();
            let inode = target.to_str().and_then(|t| t.strip_prefix("socket:["));
            own.extend(inode.and_then(|inode| inode.strip_suffix(']')?.parse::<u64>().ok()));
        }
        let port = format!(":{:04X}", self.address.port());
        let (mut accepted, mut made) = (0, 0);
        for table in ["tcp", "tcp6"] {
            let text = std::fs::read_to_string(format!("{process}/net/{table}"))?;
            for line in text.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let [_, local, _, ESTABLISHED, _, _, _, _, _, inode, ..] = fields[..] else {
                    continue;
                };
                if inode.parse().is_ok_and(|inode| own.contains(&inode)) {
                    match local.ends_with(&port) {
                        true => accepted += 1,
                        false => made += 1,
                    }
                }
            }
        }
        Ok((accepted, made))
    }

    /// Sends SIGTERM and waits.
    pub fn stop(mut self) -> Result<()> {
        let id = self.process.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
