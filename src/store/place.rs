//! Where a base directory is, for comparison with another one.
//!
//! Does: normalise a location so that aliases are equal (symbolic links, endpoints with other
//! spelling), and determine whether two overlap. Does not: access a store, except to resolve the
//! symbolic links of a folder. Invariant: two base directories that would list each other's objects
//! overlap.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::runtime::blocking_within;

/// How long the symbolic links of a folder are followed: its file system may hang.
const FOLLOW_TIME: Duration = Duration::from_secs(3);

/// A place in one key space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The key space: a file system, or a bucket at an endpoint.
    space: String,
    path: PathBuf,
}

impl Place {
    /// The place of a location of [`OpenedStore`](super::opened::OpenedStore).
    pub(super) fn of(location: &str) -> Self {
        if let Some(folder) = location.strip_prefix("file://") {
            return Self {
                space: "file".into(),
                path: resolved(Path::new(folder)),
            };
        }
        let (uri, endpoint) = location.rsplit_once(" at ").unwrap_or((location, ""));
        let after_scheme = uri.find("://").map_or(0, |at| at + 3);
        let bucket_end = uri[after_scheme..].find('/');
        let (bucket, path) = uri.split_at(bucket_end.map_or(uri.len(), |end| after_scheme + end));
        Self {
            space: format!("{bucket} at {}", normalized(endpoint)),
            path: PathBuf::from(path.trim_matches('/')),
        }
    }

    /// How a later base directory relates to this one, as text, if they share objects.
    pub(super) fn overlap(&self, later: &Self) -> Option<&'static str> {
        if self.space != later.space {
            return None;
        }
        match (
            later.path.starts_with(&self.path),
            self.path.starts_with(&later.path),
        ) {
            (true, true) => Some("is the same location as"),
            (true, false) => Some("lies within"),
            (false, true) => Some("encloses"),
            (false, false) => None,
        }
    }
}

/// The folder with all symbolic links followed; as it is if its file system hangs, so that a daemon
/// starts all the same.
fn resolved(folder: &Path) -> PathBuf {
    let unresolved = folder.to_owned();
    let resolved = blocking_within(FOLLOW_TIME, move || follow_links(&unresolved));
    resolved.unwrap_or_else(|| folder.to_owned())
}

/// The folder with all symbolic links followed, as far as it exists.
fn follow_links(folder: &Path) -> PathBuf {
    for existing in folder.ancestors() {
        if let (Ok(found), Ok(rest)) = (existing.canonicalize(), folder.strip_prefix(existing)) {
            let rest = rest.components().filter(|c| *c != Component::CurDir);
            return rest.fold(found, |path, part| path.join(part));
        }
    }
    folder.to_owned()
}

/// An endpoint with its path (an account), in normal form: the host in lower case, without the
/// default port and the final slash.
fn normalized(endpoint: &str) -> String {
    let (url, rest) = endpoint.split_once(' ').unwrap_or((endpoint, ""));
    let url = match Url::parse(url) {
        Ok(url) => url.as_str().trim_end_matches('/').to_owned(),
        Err(_) => url.to_owned(),
    };
    format!("{url} {rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlap(earlier: &str, later: &str) -> Option<&'static str> {
        Place::of(earlier).overlap(&Place::of(later))
    }

    #[test]
    fn endpoints_are_compared_however_they_are_written() {
        let one = "s3://b/p at https://minio.example";
        for same in [
            "s3://b/p at https://minio.example/",
            "s3://b/p at https://MINIO.example:443",
        ] {
            assert_eq!(
                overlap(one, same),
                Some("is the same location as"),
                "{same}"
            );
        }
        for other in [
            "s3://b/p at http://minio.example",
            "s3://b/p at https://minio.example:9000",
            "s3://c/p at https://minio.example",
            "s3://b/pq at https://minio.example",
            "gs://b/p at https://minio.example",
        ] {
            assert_eq!(overlap(one, other), None, "{other}");
        }
    }

    #[test]
    fn a_place_within_another_is_found_in_either_order() {
        let (outer, inner) = ("s3://b/p at aws", "s3://b/p/q at aws");
        assert_eq!(overlap(outer, inner), Some("lies within"));
        assert_eq!(overlap(inner, outer), Some("encloses"));
        assert_eq!(overlap("s3://b/ at aws", inner), Some("lies within"));
    }

    #[test]
    fn symbolic_links_lead_to_the_same_place() {
        let parent = tempfile::tempdir().unwrap();
        let real = parent.path().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let at = |path: &Path| format!("file://{}", path.display());
        assert_eq!(
            overlap(&at(&real), &at(&link)),
            Some("is the same location as")
        );
        let below = link.join("not/there/yet");
        assert_eq!(overlap(&at(&real), &at(&below)), Some("lies within"));
    }
}
