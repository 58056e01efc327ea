//! Locates the parts of a real cluster: JDK, Trino server, plugin folder, daemon, S3 server.
//!
//! Does: ask `fetch`, or use a path from the environment. Does not: fetch anything itself.
//! Invariant: all parts are located before the first process starts, so that a missing one is
//! reported at once and by name.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::fetch::{fetch, repository};

/// Which exchange manager the cluster runs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExchangeManager {
    Stopover,
    /// Trino's own, for comparison; it has no daemons and spools to local folders only.
    Filesystem,
}

pub struct Artifacts {
    pub java_home: PathBuf,
    pub trino: PathBuf,
    /// Located only for [`ExchangeManager::Stopover`].
    pub plugin: Option<PathBuf>,
    pub daemon: PathBuf,
}

impl Artifacts {
    /// `connectors`: whether Trino must have more connectors than tpch.
    pub fn find(manager: ExchangeManager, connectors: bool) -> Result<Self> {
        Ok(Self {
            java_home: fetch("jdk")?,
            trino: fetch(if connectors { "trino-full" } else { "trino" })?,
            plugin: match manager {
                ExchangeManager::Stopover => Some(plugin_folder()?),
                ExchangeManager::Filesystem => None,
            },
            daemon: daemon_binary()?,
        })
    }

    pub fn java(&self) -> PathBuf {
        self.java_home.join("bin/java")
    }
}

/// `STOPOVER_BINARY`, or else the daemon that cargo has built for this test.
fn daemon_binary() -> Result<PathBuf> {
    match std::env::var_os("STOPOVER_BINARY") {
        None => Ok(PathBuf::from(env!("CARGO_BIN_EXE_stopover"))),
        Some(path) => {
            let path = std::path::absolute(PathBuf::from(path))?;
            ensure!(
                path.is_file(),
                "STOPOVER_BINARY={} is not a file",
                path.display()
            );
            Ok(path)
        }
    }
}

/// The unpacked plugin as `mvn package` leaves it.
fn plugin_folder() -> Result<PathBuf> {
    let target = repository().join("trino-plugin/stopover/target");
    let way_out = "build it first: mvn -f trino-plugin -DskipTests package";
    let entries = std::fs::read_dir(&target)
        .with_context(|| format!("no plugin under {}; {way_out}", target.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && name.starts_with("trino-stopover-") {
            folders.push(path);
        }
    }
    match folders.len() {
        1 => Ok(folders.remove(0)),
        0 => bail!(
            "no trino-stopover-* folder in {}; {way_out}",
            target.display()
        ),
        _ => bail!("more than one plugin folder: {folders:?}; run mvn clean first"),
    }
}
