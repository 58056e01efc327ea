//! What is known of the server of one base directory.
//!
//! Does: hold what its answers showed about conditions and deletes. Does not: send requests
//! (`conditional`, `deleting`). Invariant: no server is taken to lack what it has shown it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::ObjectStore;

use super::bucket_settings::BucketSettings;
use super::versions::Versions;
use crate::store::Precondition;

/// What is known of the conditional puts of one server.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    /// It has none.
    pub(super) missing: AtomicBool,
    /// It has applied a put whose condition failed.
    pub(super) ignored: AtomicBool,
    /// It refused to create what exists.
    creates: AtomicBool,
    /// It refused to replace what has changed.
    replaces: AtomicBool,
}

impl Conditions {
    pub(super) fn are_missing(&self) -> bool {
        self.missing.load(Ordering::Relaxed)
    }

    pub(super) fn are_ignored(&self) -> bool {
        self.ignored.load(Ordering::Relaxed)
    }

    /// Whether a server has shown that it implements a condition.
    pub(super) fn proof(&self, expected: &Precondition) -> &AtomicBool {
        match expected {
            Precondition::Absent | Precondition::StrictlyAbsent => &self.creates,
            Precondition::Version(_) => &self.replaces,
        }
    }
}

/// How the objects of one base directory are deleted.
#[derive(Debug, Default)]
pub struct Deleting {
    /// The same store, with a request for each object.
    pub(super) single: Option<Arc<dyn ObjectStore>>,
    /// Deletes earlier versions too.
    pub(super) versions: Option<Versions>,
    /// Tell whether the bucket keeps what is deleted.
    pub(super) settings: Option<Arc<BucketSettings>>,
    /// The server deleted several with one request.
    pub(super) bulk_works: AtomicBool,
    /// The server does not know that request.
    pub(super) one_by_one: AtomicBool,
}

impl Deleting {
    /// Many with one request, or through `single`, which sends one for each object.
    pub fn or_one_by_one(single: Arc<dyn ObjectStore>, versions: Option<Versions>) -> Self {
        Self {
            single: Some(single),
            versions,
            ..Self::default()
        }
    }

    /// Through the store itself, in a bucket with these settings.
    pub fn in_bucket(settings: BucketSettings) -> Self {
        Self {
            settings: Some(Arc::new(settings)),
            ..Self::default()
        }
    }
}
