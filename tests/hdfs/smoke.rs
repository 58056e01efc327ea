//! `tests/smoke.sh` against two daemons whose base directory is on HDFS.

use std::process::{Command, Stdio};

use crate::process::Process;

/// A command of the daemon with this configuration.
pub fn command(name: &str, config: &std::path::Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stopover"));
    command.args([name, "--config"]).arg(config);
    command.envs(variables.iter().copied());
    command
}

/// Every check passes, with the tables of base directories and these variables of the environment.
pub fn passes(config: &str, variables: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stopover.toml");
    std::fs::write(&path, config).unwrap();
    let daemons = [(); 2].map(|()| {
        let mut command = command("serve", &path, variables);
        command.args(["--listen", "127.0.0.1:0"]);
        Process::spawn({
            command.stderr(Stdio::null());
            command
        })
    });
    let mut smoke = Command::new("bash");
    smoke.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smoke.sh"));
    smoke.args(daemons.iter().map(|daemon| &daemon.url));
    let output = smoke.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" passed, 0 failed"), "{said}");
}
