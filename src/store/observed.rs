//! Deficiencies of a store that were observed.
//!
//! Does: hold them, and describe their consequences. Does not: detect them (the backends and probes
//! do). Invariant: only observed deficiencies are reported.

use std::time::Duration;

/// How long a store may find something out in the background, once it has deleted an object.
pub const BACKGROUND_LIMIT: Duration = Duration::from_secs(5);

/// What the answers of a store have shown so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// It has no conditional writes, or ignores conditions, so a condition is checked first and a
    /// write in between is lost.
    pub checks_then_writes: bool,
    /// It retains deleted objects.
    pub retention: Option<Retention>,
    /// Credentials that expire could not be renewed last.
    pub stale_credentials: bool,
}

/// Why a store retains deleted objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Each write and each delete makes another version of the object.
    Versions,
    /// Objects cannot be deleted before a date.
    ObjectLock,
    /// What is deleted can be restored for some days: a setting of the account.
    SoftDelete,
    /// The same as a setting of the bucket.
    BucketSoftDelete,
}

impl Retention {
    /// What happens and what to do about it, to be read after the name of the base directory.
    pub fn warning(self) -> &'static str {
        match self {
            Self::Versions => {
                "is in a bucket with versions: what is deleted or replaced stays there and is paid \
                 for. Add a rule to the bucket that expires noncurrent versions after 1 day and \
                 removes expired delete markers, for the whole prefix; or, on s3://, set \
                 delete_versions = true; or suspend versioning"
            }
            Self::ObjectLock => {
                "is in a bucket that locks new objects: what is deleted stays there until its \
                 retention ends. Use a bucket without a default retention"
            }
            Self::SoftDelete => {
                "is in an account with soft delete: what is deleted stays there for the days that \
                 are set, and is paid for. Switch it off for the account (az storage account \
                 blob-service-properties update --enable-delete-retention false), or use another \
                 account"
            }
            Self::BucketSoftDelete => {
                "is in a bucket with soft delete: what is deleted stays there for the days that \
                 are set, and is paid for. Switch it off for the bucket (gcloud storage buckets \
                 update gs://BUCKET --clear-soft-delete), or use another bucket"
            }
        }
    }
}
