//! `tests/smoke.sh` against two daemons whose base directory is on HDFS.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::Process;

/// A command of the daemon with this configuration.
pub fn command(name: &str, config: &std::path::Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args([name, "--config"]).arg(config);
    command.envs(variables.iter().copied());
    command
}

/// Two daemons that run, and their configuration.
pub struct Daemons {
    daemons: [Process; 2],
    _folder: tempfile::TempDir,
}

impl Daemons {
    /// With this configuration and these variables of the environment.
    pub fn start(config: &str, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stopover.toml");
        std::fs::write(&path, config).unwrap();
        let daemons = [(); 2].map(|()| {
            let mut command = command("serve", &path, variables);
            command.args(["--listen", "127.0.0.1:0"]);
            command.stderr(Stdio::null());
            Process::spawn(command)
        });
        let _folder = folder;
        Self { daemons, _folder }
    }

    /// Where they listen.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        let urls = self.daemons.iter().map(|daemon| daemon.url.as_str());
        urls.map(|url| url.trim_start_matches("http://"))
    }

    /// Every check passes.
    pub fn pass(&self) {
        let mut smoke = Command::new("bash");
        smoke.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smoke.sh"));
        smoke.args(self.daemons.iter().map(|daemon| &daemon.url));
        let output = smoke.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(" passed, 0 failed"), "{said}");
    }

    /// Waits until each daemon is ready, or says why not with these words.
    pub fn wait_until(&self, expected: Result<(), &str>) {
        let give_up = Instant::now() + Duration::from_secs(120);
        for daemon in &self.daemons {
            loop {
                let mut health = Command::new(env!("CARGO_BIN_EXE_stopover"));
                let address = daemon.url.trim_start_matches("http://");
                health.args(["health", "--ready", "--address", address]);
                let output = health.output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                let is_reached = match expected {
                    Ok(()) => output.status.success(),
                    Err(words) => said.contains(words),
                };
                if is_reached {
                    break;
                }
                assert!(Instant::now() < give_up, "not {expected:?}: {said}");
                std::thread::sleep(Duration::from_millis(300));
            }
        }
    }
}

/// Every check passes, with the tables of base directories and these variables of the environment.
pub fn passes(config: &str, variables: &[(&str, &str)]) {
    Daemons::start(config, variables).pass();
}
