//! Names in HDFS: of objects, of their versions, of what is still being written.
//!
//! Pure. Does: say in which form an object is stored, build and parse the names below its own.
//! Does not: access HDFS. Invariant: a version's name is never given again, and what does not parse
//! as one was not written by Stopover.
//!
//! ```text
//! <key>                                a segment: a file
//! <key>.<writer>-<n>.tmp               its temporary
//! <key>/<version>/<version>            a small object that may be replaced: the folder's name is
//!                                      its version, the file in it its content
//! <key>/<version>/<other version>      content that would follow, or was replaced
//! <key>.<writer>-<n>.tmp/<version>/<version>   such an object before its first write is complete
//! ```

use std::fmt;
use std::str::FromStr;

use crate::store::keys::{self, Key, OwnObject};
use crate::store::stable_hash;

/// How an object is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A file of its name, written once.
    File,
    /// A folder of its name with one version, which can be replaced by another one.
    Versioned,
}

impl Form {
    pub(super) fn of(key: &Key) -> Self {
        match keys::parse(key) {
            Some(OwnObject::Segment(..) | OwnObject::Keep) | None => Self::File,
            Some(
                OwnObject::Marker(_)
                | OwnObject::Probe
                | OwnObject::Identity
                | OwnObject::Members
                | OwnObject::Sweeper,
            ) => Self::Versioned,
        }
    }
}

/// One version of a small object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    /// The process that wrote it, by a random number.
    writer: u64,
    /// Which of that process's writes it is.
    number: u64,
    /// Size of the content in bytes.
    pub size: u64,
    /// Hash of the version that it replaces; 0 if it replaces none.
    after: u64,
}

impl Version {
    /// The version that a write makes.
    pub(super) fn new(writer: u64, number: u64, size: u64, after: Option<&Self>) -> Self {
        Self {
            writer,
            number,
            size,
            after: after.map_or(0, Self::hash),
        }
    }

    fn hash(&self) -> u64 {
        stable_hash(&[self.to_string().as_bytes()])
    }

    /// Whether this may still become the version that follows `current`. What may not never can:
    /// a version that was replaced does not come back.
    pub(super) fn may_follow(&self, current: &Self) -> bool {
        self.after == current.hash()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            writer,
            number,
            size,
            after,
        } = self;
        write!(f, "{writer:016x}-{number:x}-{size:x}-{after:016x}")
    }
}

/// What is not the name of a version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoVersion;

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let parts: Vec<_> = text
            .split('-')
            .map(|part| u64::from_str_radix(part, 16))
            .collect();
        let [Ok(writer), Ok(number), Ok(size), Ok(after)] = parts[..] else {
            return Err(NoVersion);
        };
        let version = Self {
            writer,
            number,
            size,
            after,
        };
        // Only in the form in which it was written.
        match version.to_string() == text {
            true => Ok(version),
            false => Err(NoVersion),
        }
    }
}

/// The last part of a path.
pub(super) fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The process that writes a temporary of this path, as its suffix says.
pub(super) fn writer_of(path: &str) -> &str {
    let mut parts = path.rsplit('.');
    let suffix = parts.nth(1).unwrap_or_default();
    suffix.split('-').next().unwrap_or_default()
}

/// A path without its last part.
pub(super) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_parse_back_and_nothing_else_does() {
        let first = Version::new(0xfeed, 0, 17, None);
        let second = Version::new(0xbeef, 0x1f, 0, Some(&first));
        for version in [&first, &second] {
            assert_eq!(version.to_string().parse().as_ref(), Ok(version));
        }
        let upper = second.to_string().to_uppercase();
        for foreign in [
            "",
            "README",
            "1-2-3-4",
            &upper,
            "a-b-c",
            "000000000000feed-0-11-0",
        ] {
            assert_eq!(foreign.parse::<Version>(), Err(NoVersion), "{foreign}");
        }
    }

    #[test]
    fn a_version_may_follow_only_the_one_for_which_it_was_written() {
        let first = Version::new(1, 0, 5, None);
        let second = Version::new(2, 0, 5, Some(&first));
        let rival = Version::new(3, 0, 5, Some(&first));
        assert!(second.may_follow(&first) && rival.may_follow(&first));
        assert!(!rival.may_follow(&second) && !second.may_follow(&rival));
    }

    #[test]
    fn a_temporary_names_the_process_that_writes_it() {
        let suffix = keys::temporary_suffix(0xfeed, 17);
        let path = format!("/base/v2/segments/1-a/1-2.seg{suffix}");
        assert_eq!(writer_of(&path), "000000000000feed");
    }

    #[test]
    fn only_what_is_replaced_has_versions() {
        let exchange = "query-1".parse().unwrap();
        for key in [keys::marker(&exchange), keys::identity(), keys::members()] {
            assert_eq!(Form::of(&key), Form::Versioned, "{key}");
        }
        assert_eq!(Form::of(&keys::sweeper()), Form::Versioned);
        assert_eq!(Form::of(&keys::probe(7)), Form::Versioned);
        for key in keys::keep() {
            assert_eq!(Form::of(&key), Form::File, "{key}");
        }
        assert_eq!(Form::of(&Key::listed("somebody/README")), Form::File);
    }
}
