//! Permissions of files and folders, as values.
//!
//! Does: hold them. Does not: set them (`names`).

use rustix::fs::Mode;

/// Permissions of what a base directory creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Permissions {
    pub folder: Mode,
    pub file: Mode,
    /// Whether the process's umask is overruled: it usually withholds what a group needs.
    pub exact: bool,
}

impl Permissions {
    /// For the daemon's user alone.
    pub(super) const OWNER: Self = Self {
        folder: Mode::RWXU,
        file: Mode::RUSR.union(Mode::WUSR),
        exact: false,
    };
    /// For the group of the files, too.
    pub(super) const GROUP: Self = Self {
        folder: Mode::RWXU.union(Mode::RWXG),
        file: Self::OWNER.file.union(Mode::RGRP).union(Mode::WGRP),
        exact: true,
    };
}
