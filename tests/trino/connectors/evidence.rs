//! Whether Trino's JDBC connectors support retries, read from their classes.
//!
//! The only evidence for systems that cannot be run here: SQL Server, Oracle and Redshift. The
//! client class of each connector passes the constant `supportsRetries` to its base class, which
//! `javap` shows. The connectors that are run confirm that this reading is right.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::artifacts::Artifacts;

/// Plugin, client class, whether it supports retries.
const CLIENTS: [(&str, &str, bool); 10] = [
    ("postgresql", "PostgreSqlClient", true),
    ("mysql", "MySqlClient", true),
    ("mariadb", "MariaDbClient", true),
    ("sqlserver", "SqlServerClient", true),
    ("oracle", "OracleClient", true),
    ("redshift", "RedshiftClient", true),
    ("duckdb", "DuckDbClient", false),
    ("clickhouse", "ClickHouseClient", false),
    ("exasol", "ExasolClient", false),
    ("vertica", "VerticaClient", false),
];

pub fn retries_in_classes(artifacts: &Artifacts) -> Result<()> {
    let javap = artifacts.java_home.join("bin/javap");
    for (plugin, class, expected) in CLIENTS {
        let folder = artifacts.trino.join("plugin").join(plugin);
        let found = supports_retries(&javap, &folder, plugin, class).context(class)?;
        ensure!(
            found == expected,
            "{class} has supportsRetries={found}, expected {expected}"
        );
        println!("    {class}: supportsRetries={found}");
    }
    Ok(())
}

/// The constant that the constructor loads right before it calls the base class's constructor,
/// whose last parameter is `supportsRetries`.
fn supports_retries(javap: &Path, folder: &Path, plugin: &str, class: &str) -> Result<bool> {
    let output = Command::new(javap)
        .args(["-c", "-p", "-cp"])
        .arg(folder.join("*"))
        .arg(format!("io.trino.plugin.{plugin}.{class}"))
        .output()
        .context("cannot start javap")?;
    ensure!(
        output.status.success(),
        "javap failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listing = String::from_utf8(output.stdout)?;
    let mut before = "";
    for line in listing.lines() {
        if line.contains("BaseJdbcClient.\"<init>\"") && line.trim_end().ends_with("Z)V") {
            return match before.split_whitespace().last() {
                Some("iconst_1") => Ok(true),
                Some("iconst_0") => Ok(false),
                _ => bail!("no constant is passed: {before}"),
            };
        }
        before = line;
    }
    bail!("no call of the constructor of BaseJdbcClient")
}
