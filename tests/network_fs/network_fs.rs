//! network-fs SERVER FOLDER: mounts the folder SERVER at FOLDER as the machine of an NFS client
//! sees it, which does not notice what other machines do in it, until it is unmounted.
//!
//! Does: forward to the folder. Does not: ask again after some time, as a client does. Invariant:
//! which names a folder has is asked of the server once, and again only after this machine has
//! changed the folder or its attributes (of NFS: `lookupcache=all`). An exclusive lock needs a file
//! that is open for writing, and all machines share locks (flock(2)).

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};

const NO_CACHE: Duration = Duration::ZERO;

struct Client {
    root: u64,
    /// What the kernel knows, by inode: a file that is open only as a place.
    places: Mutex<HashMap<u64, OwnedFd>>,
    files: Mutex<HashMap<u64, File>>,
    next_file: AtomicU64,
    /// The names in each folder as this machine knows them.
    names: Mutex<HashMap<u64, BTreeSet<OsString>>>,
}

impl Client {
    fn new(server: &Path) -> Self {
        let place = rustix::fs::open(server, OFlags::PATH, Mode::empty()).unwrap();
        let root = fs::metadata(server).unwrap().ino();
        Self {
            root,
            places: Mutex::new([(root, place)].into()),
            files: Mutex::default(),
            next_file: AtomicU64::new(1),
            names: Mutex::default(),
        }
    }

    /// The inode at the server.
    fn inode(&self, node: INodeNo) -> u64 {
        match node.0 {
            1 => self.root,
            inode => inode,
        }
    }

    fn place(&self, node: INodeNo) -> io::Result<PathBuf> {
        let places = self.places.lock();
        let place = places.get(&self.inode(node));
        let place = place.ok_or_else(|| io::Error::from_raw_os_error(libc_estale()))?;
        Ok(format!("/proc/self/fd/{}", place.as_raw_fd()).into())
    }

    fn names(&self, folder: INodeNo) -> io::Result<BTreeSet<OsString>> {
        let inode = self.inode(folder);
        if let Some(known) = self.names.lock().get(&inode) {
            return Ok(known.clone());
        }
        let read = fs::read_dir(self.place(folder)?)?;
        let names: io::Result<BTreeSet<_>> = read.map(|entry| Ok(entry?.file_name())).collect();
        let names = names?;
        self.names.lock().insert(inode, names.clone());
        Ok(names)
    }

    /// This machine has changed a folder, and asks again.
    fn changed(&self, folder: INodeNo) {
        self.names.lock().remove(&self.inode(folder));
    }

    fn look_up(&self, folder: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        if !self.names(folder)?.contains(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.found(folder, name)
    }

    fn found(&self, folder: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let path = self.place(folder)?.join(name);
        let place = rustix::fs::open(path, flags, Mode::empty())?;
        let opened = format!("/proc/self/fd/{}", place.as_raw_fd());
        let metadata = fs::metadata(opened)?;
        self.places.lock().insert(metadata.ino(), place);
        Ok(self.attributes(&metadata))
    }

    fn attributes(&self, found: &fs::Metadata) -> FileAttr {
        let time = |seconds: i64, nanos: i64| {
            let since = Duration::new(seconds.unsigned_abs(), nanos.unsigned_abs() as u32);
            SystemTime::UNIX_EPOCH + since
        };
        let ino = if found.ino() == self.root {
            1
        } else {
            found.ino()
        };
        FileAttr {
            ino: INodeNo(ino),
            size: found.len(),
            blocks: found.blocks(),
            atime: time(found.atime(), found.atime_nsec()),
            mtime: time(found.mtime(), found.mtime_nsec()),
            ctime: time(found.ctime(), found.ctime_nsec()),
            crtime: SystemTime::UNIX_EPOCH,
            kind: kind(found.file_type()),
            perm: (found.mode() & 0o7777) as u16,
            nlink: found.nlink() as u32,
            uid: found.uid(),
            gid: found.gid(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn keep(&self, file: File) -> FileHandle {
        let handle = self.next_file.fetch_add(1, Ordering::Relaxed);
        self.files.lock().insert(handle, file);
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> io::Result<File> {
        let files = self.files.lock();
        let file = files.get(&handle.0).ok_or(io::ErrorKind::NotFound)?;
        file.try_clone()
    }

    fn change(
        &self,
        node: INodeNo,
        mode: Option<u32>,
        size: Option<u64>,
        times: bool,
    ) -> io::Result<FileAttr> {
        let place = self.place(node)?;
        if let Some(mode) = mode {
            fs::set_permissions(&place, fs::Permissions::from_mode(mode & 0o7777))?;
        }
        if let Some(size) = size {
            File::options().write(true).open(&place)?.set_len(size)?;
        }
        if times {
            let now = SystemTime::now();
            let times = fs::FileTimes::new().set_accessed(now).set_modified(now);
            File::open(&place)?.set_times(times)?;
        }
        self.changed(node);
        Ok(self.attributes(&fs::metadata(place)?))
    }
}

/// The number of `ESTALE` on Linux.
fn libc_estale() -> i32 {
    116
}

fn kind(found: fs::FileType) -> FileType {
    match found {
        found if found.is_dir() => FileType::Directory,
        found if found.is_symlink() => FileType::Symlink,
        found if found.is_fifo() => FileType::NamedPipe,
        _ => FileType::RegularFile,
    }
}

/// Answers with the value, or with the error.
macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $answer:expr) => {
        match (|| -> io::Result<_> { $result })() {
            Ok($value) => $answer,
            Err(error) => $reply.error(match error.kind() {
                io::ErrorKind::NotFound => Errno::ENOENT,
                _ => error.into(),
            }),
        }
    };
}

impl Filesystem for Client {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let locks = config.add_capabilities(InitFlags::FUSE_FLOCK_LOCKS);
        locks.map_err(|_| io::ErrorKind::Unsupported.into())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.look_up(parent, name), found =>
            reply.entry(&NO_CACHE, &found, Generation(0)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, Ok(self.attributes(&fs::metadata(self.place(ino)?)?)), found =>
            reply.attr(&NO_CACHE, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer!(reply, self.change(ino, mode, size, mtime.is_some()), found =>
            reply.attr(&NO_CACHE, &found));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let make = || {
            let path = self.place(parent)?.join(name);
            rustix::fs::mkdir(path, Mode::from_raw_mode(mode))?;
            self.changed(parent);
            self.found(parent, name)
        };
        answer!(reply, make(), found => reply.entry(&NO_CACHE, &found, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.changed(parent);
        answer!(reply, fs::remove_file(self.place(parent)?.join(name)), () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.changed(parent);
        answer!(reply, fs::remove_dir(self.place(parent)?.join(name)), () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        self.changed(parent);
        self.changed(newparent);
        let rename = || {
            let (from, to) = (self.place(parent)?, self.place(newparent)?);
            fs::rename(from.join(name), to.join(newname))
        };
        answer!(reply, rename(), () => reply.ok());
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let link = || {
            let (from, to) = (self.place(ino)?, self.place(newparent)?.join(newname));
            rustix::fs::linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW)?;
            self.changed(newparent);
            self.found(newparent, newname)
        };
        answer!(reply, link(), found => reply.entry(&NO_CACHE, &found, Generation(0)));
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let open = || {
            let access = OFlags::from_bits_retain(flags.0 as u32) & OFlags::RWMODE;
            Ok(File::from(rustix::fs::open(
                self.place(ino)?,
                access,
                Mode::empty(),
            )?))
        };
        answer!(reply, open(), file =>
            reply.opened(self.keep(file), FopenFlags::FOPEN_DIRECT_IO));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let create = || {
            let path = self.place(parent)?.join(name);
            let flags = OFlags::from_bits_retain(flags as u32) & (OFlags::RWMODE | OFlags::EXCL);
            let mode = Mode::from_raw_mode(mode);
            let file = rustix::fs::open(path, flags | OFlags::CREATE, mode)?;
            self.changed(parent);
            Ok((File::from(file), self.found(parent, name)?))
        };
        answer!(reply, create(), (file, found) => reply.created(
            &NO_CACHE,
            &found,
            Generation(0),
            self.keep(file),
            FopenFlags::FOPEN_DIRECT_IO
        ));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = || {
            let mut buffer = vec![0; size as usize];
            let read = self.file(fh)?.read_at(&mut buffer, offset)?;
            buffer.truncate(read);
            Ok(buffer)
        };
        answer!(reply, read(), bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.file(fh)?.write_all_at(data, offset), () =>
            reply.written(data.len() as u32));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.lock().remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let list = || {
            let mut listed = Vec::new();
            for name in self.names(ino)? {
                if let Ok(found) = self.found(ino, &name) {
                    listed.push((found, name));
                }
            }
            Ok(listed)
        };
        answer!(reply, list(), listed => {
            for (position, (found, name)) in (1..).zip(listed).skip(offset as usize) {
                if reply.add(found.ino, position, found.kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn setlk(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        typ: i32,
        _: u32,
        _: bool,
        reply: ReplyEmpty,
    ) {
        /// `F_WRLCK` and `F_UNLCK` of Linux.
        const EXCLUSIVE: i32 = 1;
        const UNLOCK: i32 = 2;
        let lock = || {
            let file = self.file(fh)?;
            let access = rustix::fs::fcntl_getfl(&file)? & OFlags::RWMODE;
            let operation = match typ {
                // Errno 9, `EBADF`.
                EXCLUSIVE if access == OFlags::RDONLY => {
                    return Err(io::Error::from_raw_os_error(9));
                }
                EXCLUSIVE => FlockOperation::NonBlockingLockExclusive,
                UNLOCK => FlockOperation::Unlock,
                _ => FlockOperation::NonBlockingLockShared,
            };
            Ok(rustix::fs::flock(&file, operation)?)
        };
        answer!(reply, lock(), () => reply.ok());
    }
}

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [server, folder] = &arguments[..] else {
        eprintln!("usage: network-fs SERVER FOLDER");
        return ExitCode::FAILURE;
    };
    match fuser::mount(Client::new(server), folder, &Config::default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot mount a file system: {error}");
            ExitCode::FAILURE
        }
    }
}
