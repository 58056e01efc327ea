//! A small HDFS: the process of `MiniHdfs.java`.
//!
//! Does: start it, tell it what to do, end it. Does not: know what is tested. Invariant: it ends
//! with its `Cluster`, or with this process, as it ends with its standard input.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use stopover::config::BaseDirectoryConfig;

/// A running HDFS.
pub struct Cluster {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The RPC port of each NameNode.
    pub name_nodes: Vec<u16>,
    /// Where its files are, and the configuration of its clients.
    pub folder: tempfile::TempDir,
}

pub fn needed(variable: &str, program: &str) -> std::path::PathBuf {
    let value = std::env::var_os(variable);
    let value = value.unwrap_or_else(|| {
        panic!("{variable} is not set: set it to what tests/lib/fetch.sh {program} prints")
    });
    value.into()
}

impl Cluster {
    /// Starts one with these arguments besides its folder.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[], arguments)
    }

    /// The same in a folder, with these options of the JVM.
    pub fn start_in(folder: tempfile::TempDir, jvm: &[&str], arguments: &[&str]) -> Self {
        let jars = needed("STOPOVER_TEST_HADOOP", "hadoop");
        let java = needed("STOPOVER_TEST_JDK", "jdk").join("bin/java");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hdfs/MiniHdfs.java");
        let mut process = Command::new(&java)
            .args(["-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(jvm)
            .arg("-cp")
            .arg(format!("{}/*", jars.display()))
            .arg(source)
            .arg("--folder")
            .arg(folder.path().join("hdfs"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", java.display()));
        let mut cluster = Self {
            commands: process.stdin.take(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
            name_nodes: Vec::new(),
            folder,
        };
        loop {
            let line = cluster.line();
            if line == "ready" {
                return cluster;
            }
            if let Some(name_node) = line.strip_prefix("namenode ") {
                let port = name_node.rsplit(' ').next().unwrap();
                cluster.name_nodes.push(port.parse().unwrap());
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).unwrap();
        assert!(
            read > 0,
            "HDFS has ended: run its command by hand to see why"
        );
        line.trim_end().to_owned()
    }

    /// Has it carry out a command of `MiniHdfs.java`; returns what it prints before it is done.
    pub fn run(&mut self, command: &str) -> String {
        let commands = self.commands.as_mut().unwrap();
        writeln!(commands, "{command}").unwrap();
        let mut printed = String::new();
        loop {
            let line = self.line();
            match line.as_str() {
                "done" => return printed,
                failed if failed.starts_with("failed") => panic!("{command}: {failed}"),
                other => printed.push_str(other),
            }
        }
    }

    /// A base directory at a path of its first NameNode.
    pub fn base(&self, path: &str) -> BaseDirectoryConfig {
        let uri = format!("hdfs://127.0.0.1:{}{path}", self.name_nodes[0]);
        base(&uri, &[])
    }
}

/// A base directory.
pub fn base(uri: &str, options: &[(&str, &str)]) -> BaseDirectoryConfig {
    let options = options
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()));
    BaseDirectoryConfig {
        uri: uri.to_owned(),
        name: String::new(),
        options: options.collect::<BTreeMap<_, _>>(),
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
