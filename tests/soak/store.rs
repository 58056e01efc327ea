//! Where the daemons of one world keep their segments, and how it breaks.
//!
//! On local disk: two plain folders and one that is small. On S3: two buckets of a server that is
//! killed, behind a proxy that cuts. What is left at the end is looked up in the file system.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use stopover::runtime::Random;

use crate::process::{Process, wait_until};
use crate::proxy::Proxy;

const ACCESS_KEY: &str = "stopover-test";
const SECRET_KEY: &str = "stopover-test-secret";
/// The object that a daemon keeps in a bucket for good, and what the S3 server keeps for itself.
const KEPT: [&str; 2] = [".keep", ".sgwtmp"];
/// The small file system: some dozens of segments.
const SMALL: u64 = 12 << 20;

pub enum Store {
    Local(Local),
    S3(S3),
}

pub struct Local {
    pub folders: Vec<PathBuf>,
    /// The last folder is a file system of its own, that can be full.
    small: Option<Mount>,
}

pub struct S3 {
    root: PathBuf,
    pub proxy: Proxy,
    port: u16,
    work: PathBuf,
    process: Option<Process>,
}

/// A small file system in memory, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    fn at(folder: &Path) -> Result<Self> {
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={SMALL}"),
                "stopover-soak",
            ])
            .arg(folder)
            .output()?;
        let said = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
        ensure!(mounted.status.success(), "{said}");
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Local {
    pub fn create(root: &Path) -> Result<Self> {
        let mut folders: Vec<PathBuf> = ["plain", "locked"].map(|name| root.join(name)).into();
        let disk = root.join("small");
        folders
            .iter()
            .chain([&disk])
            .try_for_each(std::fs::create_dir_all)?;
        let small = match Mount::at(&disk) {
            Ok(mount) => Some(mount),
            Err(error) => {
                println!(
                    "!!!! no small file system can be mounted here ({error:#}): instead the \
                     daemons' own limit of file sizes is lowered, which no base directory escapes"
                );
                None
            }
        };
        // Below the mount point: one that has lost its file system is missing and not empty.
        let small_base = disk.join("base");
        std::fs::create_dir_all(&small_base)?;
        folders.push(small_base);
        Ok(Self { folders, small })
    }

    /// Whether the small base directory can be filled up.
    pub fn has_small(&self) -> bool {
        self.small.is_some()
    }

    /// Takes all the room of the small file system, or gives it back.
    pub fn fill(&self, full: bool) -> Result<()> {
        let Some(mount) = &self.small else {
            return Ok(());
        };
        let filler = mount.0.join("filler");
        if !full {
            return Ok(std::fs::remove_file(filler)?);
        }
        let mut file = std::fs::File::create(filler)?;
        let block = vec![0; 64 << 10];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        Ok(())
    }

    /// Takes all permissions from one base directory or from all, or gives them back.
    pub fn lock(&self, all: bool, locked: bool) -> Result<()> {
        let mode = if locked { 0o000 } else { 0o755 };
        let folders = if all {
            &self.folders[..]
        } else {
            &self.folders[1..2]
        };
        for folder in folders {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

impl S3 {
    pub async fn start(root: &Path, work: &Path, port: u16, rng: Random) -> Result<Self> {
        for bucket in ["soak-one", "soak-two"] {
            std::fs::create_dir_all(root.join(bucket))?;
        }
        let mut s3 = Self {
            root: root.to_owned(),
            proxy: Proxy::start(port, rng).await?,
            port,
            work: work.to_owned(),
            process: None,
        };
        s3.restart().await?;
        Ok(s3)
    }

    pub async fn restart(&mut self) -> Result<()> {
        let binary = std::env::var_os("STOPOVER_TEST_VERSITYGW").context(
            "STOPOVER_TEST_VERSITYGW is not set: name the S3 server's binary \
             (tests/lib/fetch.sh versitygw prints it), or leave S3 out with --world local",
        )?;
        let mut command = Command::new(binary);
        command
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY])
            .args(["--region", "us-east-1", "--quiet", "--keep-alive"])
            .args([
                "--health",
                "/health",
                "--port",
                &format!("127.0.0.1:{}", self.port),
            ])
            .arg("posix")
            .arg(&self.root);
        let mut process = Process::spawn("versitygw", command, &self.work.join("versitygw.log"))?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://127.0.0.1:{}/health", self.port);
        wait_until("versitygw answers", Duration::from_secs(30), || {
            let exited = process.exited();
            let request = http.get(&url).send();
            async move {
                ensure!(exited.is_none(), "versitygw ended at once: {exited:?}");
                Ok(request
                    .await
                    .is_ok_and(|answer| answer.status().is_success()))
            }
        })
        .await?;
        self.process = Some(process);
        Ok(())
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }
}

impl Store {
    /// The `[[base_directory]]` tables of a daemon's configuration.
    pub fn configuration(&self) -> String {
        match self {
            Self::Local(local) => {
                let table = |folder: &PathBuf| {
                    format!(
                        "[[base_directory]]\nuri = \"file://{}\"\n",
                        folder.display()
                    )
                };
                local.folders.iter().map(table).collect()
            }
            Self::S3(s3) => ["soak-one", "soak-two"]
                .map(|bucket| {
                    format!(
                        "[[base_directory]]\nuri = \"s3://{bucket}\"\nregion = \"us-east-1\"\n\
                         endpoint = \"http://127.0.0.1:{}\"\nallow_http = true\n\
                         path_style = true\nupload_checksum = \"crc64nvme\"\n\
                         access_key_id = \"{ACCESS_KEY}\"\n\
                         secret_access_key = \"{SECRET_KEY}\"\n",
                        s3.proxy.port
                    )
                })
                .concat(),
        }
    }

    fn folders(&self) -> Vec<PathBuf> {
        match self {
            Self::Local(local) => local.folders.clone(),
            Self::S3(s3) => vec![s3.root.join("soak-one"), s3.root.join("soak-two")],
        }
    }

    /// Everything that lies in the base directories and does not stay there for good. On local disk
    /// also empty folders: there they go with their last file.
    pub fn left(&self) -> Result<Vec<PathBuf>> {
        let mut left = Vec::new();
        for folder in self.folders() {
            walk(&folder, matches!(self, Self::Local(_)), &mut left)?;
        }
        Ok(left)
    }

    /// Sets the times of some files to long ago, or far ahead; of all others they stay.
    pub fn falsify_times(&self, rng: &Random) -> Result<u64> {
        let mut files = Vec::new();
        for folder in self.folders() {
            walk(&folder, false, &mut files)?;
        }
        let mut falsified = 0;
        for file in files.iter().filter(|_| rng.next_u64().is_multiple_of(3)) {
            let days = (rng.next_u64() % 7300) as i64 - 3650;
            falsified += u64::from(set_time(file, days * 86_400));
        }
        Ok(falsified)
    }
}

/// Sets a file's time to so many seconds from now; `false` if it is gone or not ours to change.
fn set_time(file: &Path, offset: i64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs() as i64) + offset;
    let time = libc::timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else {
        return false;
    };
    #[allow(
        unsafe_code,
        reason = "the standard library sets times of open files only"
    )]
    // SAFETY: a path that ends with a zero, and two times.
    let set = unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), [time, time].as_ptr(), 0) };
    set == 0
}

fn walk(folder: &Path, folders_too: bool, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => bail!("{}: {error}", folder.display()),
    };
    for entry in entries.flatten() {
        if KEPT.iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if folders_too {
                into.push(entry.path());
            }
            walk(&entry.path(), folders_too, into)?;
        } else {
            into.push(entry.path());
        }
    }
    Ok(())
}
