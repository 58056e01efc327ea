//! PostgreSQL and MariaDB: one process each with an empty database, on loopback and a free port.
//!
//! Does not: locate the programs (`tests/lib/fetch.sh`) or configure Trino (`catalogs.rs`).
//! Installed services are neither started nor changed. PostgreSQL refuses to run as root: in that
//! case both run as a user without privileges, in a folder that it can access.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::fetch::fetch;
use crate::process::{Process, free_ports, wait_until};

/// The user "nobody".
const NOBODY: u32 = 65534;
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A database server; it is stopped and its data deleted when this is dropped.
pub struct Database {
    process: Process,
    pub port: u16,
    _home: Home,
}

impl Database {
    /// Database: `postgres`. User: `trino`, without a password. `setup` runs before the server
    /// starts, one statement per line.
    pub async fn postgresql(work: &Path, setup: &str) -> Result<Self> {
        let home = Home::new("postgresql", work)?;
        let server = home.reachable(&fetch("postgresql")?)?;
        let data = home.folder.join("data");
        let mut initdb = home.command(&server.with_file_name("initdb"));
        initdb
            .args(["-U", "trino", "--auth=trust", "--encoding=UTF8"])
            .args(["--locale=C", "--no-sync", "-D"])
            .arg(&data);
        run(initdb, "", &home.log("initdb"))?;
        let mut single = home.command(&server);
        single.args(["--single", "-D"]).arg(&data).arg("postgres");
        run(single, setup, &home.log("setup"))?;
        let port = free_ports(1)?[0];
        let mut command = home.command(&server);
        command
            .arg("-D")
            .arg(&data)
            .args(["-h", "127.0.0.1", "-p", &port.to_string()])
            .args(["-c", "unix_socket_directories="])
            // The data is thrown away: without fsync the load on the machine is lower.
            .args(["-c", "fsync=off", "-c", "jit=off"])
            .args(["-c", "max_connections=300", "-c", "shared_buffers=64MB"]);
        Self::start("postgresql", command, port, home).await
    }

    /// Database: `stopover`. User: `trino`, with the password `secret`.
    pub async fn mariadb(work: &Path) -> Result<Self> {
        let home = Home::new("mariadb", work)?;
        let server = home.reachable(&fetch("mariadb")?)?;
        let base = server.ancestors().nth(2).context("mariadbd is in /")?;
        let share = ["share/mysql", "share/mariadb", "share"]
            .iter()
            .map(|share| base.join(share))
            .find(|share| share.join("mysql_system_tables.sql").exists())
            .with_context(|| format!("no mysql_system_tables.sql near {}", server.display()))?;
        let data = home.folder.join("data");
        home.make(&data)?;
        let command = || {
            let mut command = home.command(&server);
            command
                .arg("--no-defaults")
                .arg(format!("--basedir={}", base.display()))
                .arg(format!("--lc-messages-dir={}", share.display()))
                .arg(format!("--datadir={}", data.display()))
                .arg("--innodb-flush-log-at-trx-commit=0");
            command
        };
        let mut bootstrap = command();
        bootstrap.arg("--bootstrap");
        run(bootstrap, &mariadb_setup(&share)?, &home.log("setup"))?;
        let port = free_ports(1)?[0];
        let mut serve = command();
        serve
            .args(["--bind-address=127.0.0.1", &format!("--port={port}")])
            // Relative to the data folder: the path of a socket must be short.
            .args(["--socket=mariadb.sock", "--max-connections=300"]);
        Self::start("mariadb", serve, port, home).await
    }

    async fn start(name: &str, command: Command, port: u16, home: Home) -> Result<Self> {
        let mut process = Process::spawn(name, command, &home.log("server"))?;
        wait_until(&format!("{name} answers"), START_TIMEOUT, || {
            let exited = process.exited();
            async move {
                ensure!(exited.is_none(), "the server exited at once: {exited:?}");
                Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
            }
        })
        .await?;
        Ok(Self {
            process,
            port,
            _home: home,
        })
    }

    pub fn log(&self) -> (String, PathBuf) {
        (self.process.name.clone(), self.process.log.clone())
    }
}

impl Drop for Database {
    /// SIGQUIT first: killed outright, PostgreSQL would leave a shared-memory segment behind.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        self.process.signal_group(libc::SIGQUIT);
        while self.process.exited().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.process.kill();
    }
}

/// The system tables that MariaDB ships, then the database and its user.
fn mariadb_setup(share: &Path) -> Result<String> {
    let mut sql = "CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n".to_owned();
    for file in [
        "mysql_system_tables.sql",
        "mysql_performance_tables.sql",
        "mysql_system_tables_data.sql",
    ] {
        let path = share.join(file);
        sql += &fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        sql.push('\n');
    }
    sql += "CREATE DATABASE stopover;\nFLUSH PRIVILEGES;\n\
            CREATE USER 'trino'@'127.0.0.1' IDENTIFIED BY 'secret';\n\
            GRANT ALL ON *.* TO 'trino'@'127.0.0.1';\n";
    Ok(sql)
}

/// Runs a program to its end with `input` on its stdin.
fn run(mut command: Command, input: &str, log: &Path) -> Result<()> {
    let program = PathBuf::from(command.get_program());
    let output = File::create(log)?;
    command
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let status = child.wait()?;
    ensure!(
        status.success() && written.is_ok(),
        "{} exited with {status}, see {}",
        program.display(),
        log.display()
    );
    Ok(())
}

/// A folder for one database server, and the user that it runs as.
struct Home {
    name: String,
    folder: PathBuf,
    logs: PathBuf,
    user: Option<u32>,
}

impl Home {
    fn new(name: &str, work: &Path) -> Result<Self> {
        // The owner of a file that we created tells whether we are root, without a system call that
        // the standard library lacks.
        let root = work
            .metadata()
            .map(|m| std::os::unix::fs::MetadataExt::uid(&m))?
            == 0;
        let folder = match root {
            false => work.join(name),
            true => {
                let process = std::process::id();
                std::env::temp_dir().join(format!("stopover-test-{name}-{process}"))
            }
        };
        let home = Self {
            name: name.to_owned(),
            folder,
            logs: work.join("logs"),
            user: root.then_some(NOBODY),
        };
        fs::create_dir_all(&home.logs)?;
        home.make(&home.folder)?;
        Ok(home)
    }

    fn make(&self, folder: &Path) -> Result<()> {
        let made = fs::create_dir(folder)
            .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o700)))
            .and_then(|()| match self.user {
                None => Ok(()),
                Some(user) => chown(folder, Some(user), Some(user)),
            });
        made.with_context(|| format!("cannot create {}", folder.display()))
    }

    fn log(&self, of: &str) -> PathBuf {
        self.logs.join(format!("{}-{of}.log", self.name))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.folder);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        if let Some(libraries) = libraries_beside(program) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// The program itself, or a copy of its tree if the user cannot access it.
    fn reachable(&self, program: &Path) -> Result<PathBuf> {
        let program = program.canonicalize()?;
        let open = |folder: &Path| {
            let mode = folder.metadata().map_or(0, |m| m.permissions().mode());
            mode & 0o005 == 0o005
        };
        if self.user.is_none() || program.ancestors().skip(1).all(open) {
            return Ok(program);
        }
        let tree = program.ancestors().find(|folder| folder.ends_with("usr"));
        let tree = tree.with_context(|| {
            format!(
                "{} can be run only by root: name another one",
                program.display()
            )
        })?;
        let copied = Command::new("cp")
            .arg("-a")
            .args([tree, &self.folder])
            .status();
        let copied = copied.context("cannot start cp")?;
        ensure!(copied.success(), "cannot copy {}", tree.display());
        Ok(self.folder.join("usr").join(program.strip_prefix(tree)?))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The libraries of an unpacked package; `None` for an installed program.
fn libraries_beside(program: &Path) -> Option<PathBuf> {
    let usr = program.ancestors().find(|folder| folder.ends_with("usr"))?;
    if usr == Path::new("/usr") {
        return None;
    }
    let entries = fs::read_dir(usr.join("lib")).ok()?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().contains("-linux-gnu"))
}
