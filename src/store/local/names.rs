//! Access to files and folders below the root by name, without following symbolic links.
//!
//! Does: open, create, rename, link and remove, each in a folder that it reached step by step from
//! the root; set the permissions of what it creates. Does not: list folders (`tree`) or decide the
//! order of calls (`publish`, `swap`). Invariant: no call reaches a file outside of the root, even
//! if a folder is replaced by a link at that moment. The root itself and the folders above it may
//! be links: the operator chose them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::calls::record;
use super::root::Root;

/// Opens a folder only to find names in it.
#[cfg(target_os = "linux")]
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const STEP: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

impl Root {
    /// Opens an existing file to read it.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        self.open_with(path, OFlags::RDONLY, Mode::empty())
    }

    /// Opens an existing file to lock it: network file systems lock exclusively only files that are
    /// open for writing.
    pub(super) fn open_to_lock(&self, path: &Path) -> io::Result<File> {
        self.open_with(path, OFlags::RDWR, Mode::empty())
    }

    /// Creates a file that does not exist.
    pub(super) fn create(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = self.open_with(path, flags, self.permissions.file)?;
        if self.permissions.exact {
            rustix::fs::fchmod(&file, self.permissions.file)?;
        }
        Ok(file)
    }

    /// What is missing may only be cached as missing.
    fn open_with(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
        match self.open_as_cached(path, flags, mode) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && path
                        .parent()
                        .is_some_and(|above| self.refresh_names_above(above)) =>
            {
                self.open_as_cached(path, flags, mode)
            }
            opened => opened,
        }
    }

    fn open_as_cached(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
        self.name_cache.check(&self.folder, path)?;
        let (folder, name) = self.place(path)?;
        // Not blocking: the name may be that of a pipe, on which an open waits for ever.
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(open_at(&folder, name, flags, mode)?.into())
    }

    /// Renames a file within its folder, replacing a file of that name.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (folder, name) = self.place(to)?;
        rustix::fs::renameat(&folder, last(from)?, &folder, name)?;
        record::named(from, to);
        Ok(())
    }

    /// Adds a second name for a file in the same folder; the name must not exist.
    pub(super) fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (folder, name) = self.place(to)?;
        let flags = AtFlags::empty();
        rustix::fs::linkat(&folder, last(from)?, &folder, name, flags)?;
        record::named(from, to);
        Ok(())
    }

    /// Whether there is anything of this name.
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.file_type(path).is_ok()
    }

    /// Whether something other than a file has the name of an object: Stopover did not create it.
    pub(super) fn is_foreign(&self, path: &Path) -> bool {
        self.file_type(path).is_ok_and(|found| !found.is_file())
    }

    fn file_type(&self, path: &Path) -> io::Result<FileType> {
        let (folder, name) = self.place(path)?;
        file_type_at(&folder, name)
    }

    /// Removes a file; of a symbolic link, the link.
    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
        record::removed(path);
        Ok(())
    }

    /// Removes an empty folder.
    pub(super) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?;
        record::removed(path);
        Ok(())
    }

    /// Creates a folder below the root whose parent exists.
    pub(super) fn create_folder(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.place(path)?;
        rustix::fs::mkdirat(folder, name, self.permissions.folder)?;
        match self.permissions.exact {
            true => Ok(rustix::fs::fchmod(
                self.open_folder(path)?,
                self.permissions.folder,
            )?),
            false => Ok(()),
        }
    }

    /// Creates the root and the folders above it that do not exist.
    pub(super) fn create_root(&self) -> io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
        if self.folder.is_dir() {
            return Ok(());
        }
        if fs::symlink_metadata(&self.folder).is_ok() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let mode = self.permissions.folder.bits();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(mode).create(&self.folder)?;
        match self.permissions.exact {
            true => fs::set_permissions(&self.folder, fs::Permissions::from_mode(mode)),
            false => Ok(()),
        }
    }

    /// Opens a folder, the root or one below it, to sync or list it.
    pub(super) fn open_folder(&self, path: &Path) -> io::Result<File> {
        if path == self.folder {
            return File::open(path);
        }
        self.open_with(path, FOLDER, Mode::empty())
    }

    /// The same, without asking again for one that is missing.
    pub(super) fn open_folder_as_cached(&self, path: &Path) -> io::Result<File> {
        if path == self.folder {
            return File::open(path);
        }
        self.open_as_cached(path, FOLDER, Mode::empty())
    }

    /// Makes the content of a file durable.
    pub(super) fn sync_file(&self, file: &File, path: &Path) -> io::Result<()> {
        file.sync_all()?;
        record::file_synced(file, path);
        Ok(())
    }

    /// Makes the names in a folder durable.
    pub(super) fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.open_folder(folder)?.sync_all()?;
        record::folder_synced(folder);
        Ok(())
    }

    /// Makes the names in a folder above the root durable.
    pub(super) fn sync_above(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()?;
        record::folder_synced(folder);
        Ok(())
    }

    /// The folder of a path below the root, and the name in it.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let outside =
            || io::Error::new(io::ErrorKind::InvalidInput, "outside of the base directory");
        let relative = path.strip_prefix(&self.folder).map_err(|_| outside())?;
        let mut folder = rustix::fs::open(&self.folder, STEP, Mode::empty())?;
        let mut components = relative.components();
        let Some(Component::Normal(name)) = components.next_back() else {
            return Err(outside());
        };
        for component in components {
            let Component::Normal(step) = component else {
                return Err(outside());
            };
            folder = open_at(&folder, step, STEP, Mode::empty())?;
        }
        Ok((folder, name))
    }
}

/// Opens what is not a symbolic link. Linux reports a link where a folder is due as `ENOTDIR`; here
/// every link is `ELOOP`.
fn open_at(folder: &OwnedFd, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    match rustix::fs::openat(folder, name, flags | OFlags::NOFOLLOW, mode) {
        Err(Errno::NOTDIR) if file_type_at(folder, name).is_ok_and(FileType::is_symlink) => {
            Err(Errno::LOOP.into())
        }
        opened => Ok(opened?),
    }
}

fn file_type_at(folder: &OwnedFd, name: &OsStr) -> io::Result<FileType> {
    let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode))
}

fn last(path: &Path) -> io::Result<&OsStr> {
    path.file_name()
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
