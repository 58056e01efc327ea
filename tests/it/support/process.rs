//! The daemon as a child process, on loopback and a free port.
//!
//! Invariant: the child is killed when its [`Process`] is dropped.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Memory that a daemon may use beyond its budget, as docs/operations.md states.
pub const OVERHEAD: u64 = 96 << 20;

/// The unit of processor time in `/proc`, the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

pub struct Process {
    child: Guarded,
    pub url: String,
}

impl Process {
    pub fn start(base: &Path, more: &[&str]) -> Self {
        Self::spawn(command(base, more))
    }

    /// Likewise, and its log goes to a file.
    pub fn start_with_log(base: &Path, more: &[&str], log: &Path) -> Self {
        let mut command = command(base, more);
        command.stderr(std::fs::File::create(log).unwrap());
        Self::spawn(command)
    }

    /// From a command of [`command`] that was changed.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = Guarded(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(child.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line
            .trim()
            .strip_prefix("listening on ")
            .expect("the line that a ready daemon prints");
        Self {
            child,
            url: url.to_string(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// The peak resident memory in bytes (`VmHWM`).
    pub fn peak_resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// The processor time that it has used.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // After the name, which may contain spaces: utime and stime are the 12th and 13th field.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks = fields.skip(11).take(2).map(|n| n.parse::<u64>().unwrap());
        Duration::from_millis(ticks.sum::<u64>() * 1000 / TICKS_PER_SECOND)
    }

    pub fn kill(mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }

    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name, such as `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args(["-s", name]).arg(self.child.0.id().to_string());
        assert!(kill.status().unwrap().success());
    }

    pub fn wait(mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon did not exit");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub fn command(base: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.arg("serve").args(["--listen", "127.0.0.1:0"]);
    command
        .args(["--base-directory", &format!("file://{}", base.display())])
        .args(more);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// A process that is killed if its test fails before it has ended.
pub struct Guarded(pub Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
