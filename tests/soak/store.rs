//! The storage of one world, and its faults.
//!
//! On local disk: two plain folders and a small file system. On an object store: two buckets of a
//! server, each behind a faulty proxy of its own. The server is killed if it keeps what it
//! acknowledged; if not, it cannot be reached for a while. On HDFS a DataNode is killed, and the
//! NameNode, which takes long to start, cannot be reached for a while. Leftovers are searched for
//! past the daemons.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use stopover::runtime::Random;

use crate::emulators::{self, Emulator};
use crate::proxy::Proxy;

const BUCKETS: [&str; 2] = ["soak-one", "soak-two"];
/// The object that a daemon leaves in a bucket for good, and versitygw's own folder.
const PERMANENT: [&str; 5] = [".keep", ".sgwtmp", "identity", "members", "sweeper"];
/// In the name of a file that versitygw leaves, and lists, if it is killed while it writes.
const SERVER_TEMPORARY: &str = ".sgwtmp.";
/// Size of the small file system: some dozens of segments.
const SMALL: u64 = 12 << 20;

pub enum Store {
    Local(Local),
    Remote(Box<Remote>),
}

pub struct Local {
    pub folders: Vec<PathBuf>,
    /// The small file system that contains the last folder.
    small: Option<Mount>,
}

pub struct Remote {
    /// One for each bucket.
    pub proxies: [Proxy; 2],
    emulator: Emulator,
    root: PathBuf,
    /// How often the server was ended.
    ended: usize,
}

/// A small file system in memory, unmounted on drop.
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
        let message = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
        ensure!(mounted.status.success(), "{message}");
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
                     daemons' limit of file sizes is lowered, which affects all base directories"
                );
                None
            }
        };
        // Below the mount point, so that it is missing rather than empty if it is not mounted.
        let small_base = disk.join("base");
        std::fs::create_dir_all(&small_base)?;
        folders.push(small_base);
        Ok(Self { folders, small })
    }

    /// Whether the small base directory can be filled up.
    pub fn has_small(&self) -> bool {
        self.small.is_some()
    }

    /// Fills the small file system, or frees the space again.
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

    /// Takes the first base directory away, or gives it back.
    pub fn take_away(&self, away: bool) -> Result<()> {
        take_away(&self.folders[0], away)
    }

    /// Removes all permissions from one base directory or from all, or restores them.
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

/// Moves a folder away, or back.
fn take_away(folder: &Path, away: bool) -> Result<()> {
    let elsewhere = folder.with_extension("away");
    let (from, to) = match away {
        true => (folder, elsewhere.as_path()),
        false => (elsewhere.as_path(), folder),
    };
    std::fs::rename(from, to).with_context(|| format!("cannot move {}", from.display()))
}

/// Whether it can be killed and started again within the time that clients try again.
fn is_killed_whole(kind: emulators::Kind) -> bool {
    kind.survives_kills() && kind != emulators::Kind::Hadoop
}

impl Remote {
    pub async fn start(
        kind: emulators::Kind,
        root: &Path,
        work: &Path,
        port: u16,
        rng: Random,
    ) -> Result<Self> {
        let emulator = Emulator::start_at(kind, port, root, work).await?;
        for bucket in BUCKETS {
            emulator.create(bucket).await?;
        }
        Ok(Self {
            proxies: [
                Proxy::start(port, Random::seeded(rng.next_u64())).await?,
                Proxy::start(port, rng).await?,
            ],
            emulator,
            root: root.to_owned(),
            ended: 0,
        })
    }

    /// Ends the server, or makes it look so; `true` if it was killed.
    pub fn end(&mut self) -> bool {
        let (kind, number) = (self.emulator.kind, self.ended);
        self.ended += 1;
        if is_killed_whole(kind) {
            self.emulator.kill();
            return true;
        }
        self.emulator.kill_data_node(number);
        self.proxies.iter().for_each(|proxy| refuse(proxy, true));
        kind == emulators::Kind::Hadoop
    }

    /// Lets clients reach the server again.
    pub async fn restart(&mut self) -> Result<()> {
        self.proxies.iter().for_each(|proxy| refuse(proxy, false));
        match is_killed_whole(self.emulator.kind) {
            true => self.emulator.restart().await,
            false => self.emulator.restart_data_nodes().await,
        }
    }

    /// Takes a bucket away, or gives it back: no connection reaches it.
    pub fn take_away(&self, bucket: usize, away: bool) {
        refuse(&self.proxies[bucket], away);
    }

    pub fn log(&self) -> PathBuf {
        self.emulator.log().1
    }

    /// The folders of the buckets, where the server keeps an object as a file of the same name.
    fn folders(&self) -> Vec<PathBuf> {
        match self.emulator.kind {
            emulators::Kind::Versitygw => BUCKETS.map(|bucket| self.root.join(bucket)).into(),
            _ => Vec::new(),
        }
    }

    async fn leftovers(&self) -> Result<Vec<PathBuf>> {
        let mut left = Vec::new();
        for bucket in BUCKETS {
            let keys = self.emulator.keys(bucket).await?.into_iter();
            left.extend(keys.map(|key| PathBuf::from(bucket).join(key)));
        }
        left.retain(|path| !PERMANENT.iter().any(|name| path.ends_with(name)));
        left.retain(|path| !path.to_string_lossy().contains(SERVER_TEMPORARY));
        Ok(left)
    }
}

/// Refuses all connections, or forwards again.
fn refuse(proxy: &Proxy, refuses: bool) {
    proxy.refuse(refuses);
    if refuses {
        proxy.cut_all();
    }
}

impl Store {
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    /// The `[[base_directory]]` tables of a daemon's configuration.
    pub fn configuration(&self) -> String {
        match self {
            Self::Local(local) => {
                // A daemon that starts while the folder is away must not take the empty place for
                // a new base directory.
                let table = |folder: &PathBuf| {
                    format!(
                        "[[base_directory]]\nuri = \"file://{}\"\nrequire_init = true\n",
                        folder.display()
                    )
                };
                local.folders.iter().map(table).collect()
            }
            Self::Remote(remote) => {
                let kind = remote.emulator.kind;
                // Without it, an upload to S3 is hashed for its signature, which costs more.
                let more: &[_] = match kind {
                    emulators::Kind::Versitygw => &[("upload_checksum", "crc64nvme")],
                    _ => &[],
                };
                let buckets = BUCKETS.iter().zip(&remote.proxies);
                let table = |(bucket, proxy): (&&str, &Proxy)| kind.table(bucket, proxy.port, more);
                buckets.map(table).collect()
            }
        }
    }

    /// Everything in the base directories that is not permanent. On local disk also empty folders,
    /// since daemons remove them with their last file.
    pub async fn leftovers(&self) -> Result<Vec<PathBuf>> {
        let local = match self {
            Self::Local(local) => local,
            Self::Remote(remote) => return remote.leftovers().await,
        };
        let mut left = Vec::new();
        for folder in &local.folders {
            walk(folder, true, &mut left)?;
        }
        Ok(left)
    }

    /// The folders in which objects are files, if they are.
    pub fn folders(&self) -> Vec<PathBuf> {
        match self {
            Self::Local(local) => local.folders.clone(),
            Self::Remote(remote) => remote.folders(),
        }
    }

    /// Sets the times of some files years back or ahead; returns how many.
    pub fn change_file_times(&self, rng: &Random) -> Result<u64> {
        let mut files = Vec::new();
        for folder in self.folders() {
            walk(&folder, false, &mut files)?;
        }
        let mut changed = 0;
        for file in files.iter().filter(|_| rng.next_u64().is_multiple_of(3)) {
            let days = (rng.next_u64() % 7300) as i64 - 3650;
            changed += u64::from(set_time(file, days * 86_400));
        }
        Ok(changed)
    }
}

/// Sets a file's time to `offset` seconds from now; `false` if it is missing or not changeable.
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
        reason = "the standard library can only set times of open files"
    )]
    // SAFETY: the path ends with a zero byte, and the array has two times.
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
        if PERMANENT.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // These two hold permanent files.
            let permanent = ["v2", "markers"]
                .iter()
                .any(|name| entry.file_name() == *name);
            if folders_too && !permanent {
                into.push(entry.path());
            }
            walk(&entry.path(), folders_too, into)?;
        } else {
            into.push(entry.path());
        }
    }
    Ok(())
}
