//! What each property of Trino's exchange managers becomes.
//!
//! Does: list every property of `exchange-filesystem` and `exchange-hdfs` of Trino 476 to 483
//! (as their configuration classes name them). Does not: convert files (`convert`). Invariant: each
//! property has one row; `docs/trino.md` has the same names, and so have the jars of the oldest and
//! the newest of these versions, except those of `exchange-hdfs` (tests compare them).

use super::values::ValueError;

/// The base directories that a property is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    S3,
    Gcs,
    Azure,
    Hdfs,
}

/// What becomes of a property.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// Read separately: the name of the exchange manager and its base directories.
    Known,
    /// An option of each base directory of a store.
    Option(Store, &'static str, Form),
    /// A setting of the daemon.
    Setting(&'static str, Form),
    /// A property of the plugin, with the same value.
    Plugin(&'static str),
    /// Several of them.
    PageSize,
    Endpoint(Store),
    Encryption,
    /// Nothing, and why.
    Nothing(&'static str),
}

/// How a value is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Text,
    LowerCase,
    Flag,
    Number,
}

impl Form {
    /// The value as TOML.
    pub(super) fn convert(self, value: &str) -> Result<toml::Value, ValueError> {
        let value = value.trim();
        match self {
            Self::Text => Ok(value.into()),
            Self::LowerCase => Ok(value.to_lowercase().into()),
            Self::Flag => match value.to_ascii_lowercase().as_str() {
                "true" => Ok(true.into()),
                "false" => Ok(false.into()),
                _ => Err(ValueError::Flag),
            },
            Self::Number => match value.parse::<i64>() {
                Ok(number) => Ok(number.into()),
                Err(_) => Err(ValueError::Number),
            },
        }
    }
}

use Form::{Flag, LowerCase, Number, Text};
use Rule::{Encryption, Endpoint, Known, Nothing, Option, PageSize, Plugin, Setting};
use Store::{Azure, Gcs, Hdfs, S3};

const RETRIES: &str = "the daemon retries reads, lists and deletes for up to a minute, and writes \
                       a segment to another base directory";
const MEMORY: &str = "memory does not depend on the number of partitions: \
                      stopover.sink-max-buffered bounds a sink, memory.budget a daemon";
const ENCRYPTION: &str = "Trino itself encrypts pages: \
                          fault-tolerant-execution-exchange-encryption-enabled, from 483 on \
                          external-exchange-encryption-enabled";
const SEGMENTS: &str = "a segment holds blocks of many tasks and partitions: segment.target_size \
                        is another quantity";
const RANGES: &str = "a handle names ranges of segments, and neighbouring ranges are fetched \
                      together";
const LISTING: &str = "planning needs one LIST for each base directory and 1,000 segments";
const HDFS: &str = "hdfs:// and viewfs:// are base directories like others";
const CONNECTIONS: &str = "requests above max_concurrent_requests wait, fairly by query";

/// Property and rule.
#[rustfmt::skip] // one row each
pub(super) const RULES: &[(&str, Rule)] = &[
    ("exchange-manager.name", Known),
    ("exchange.base-directories", Known),
    ("exchange.base-directory", Known),
    ("exchange.encryption-enabled", Nothing(ENCRYPTION)),
    ("exchange.max-page-storage-size", PageSize),
    ("exchange.max-output-partition-count", Setting("limits.max_partitions", Number)),
    ("exchange.sink-buffer-pool-min-size", Nothing(MEMORY)),
    ("exchange.sink-buffers-per-partition", Nothing(MEMORY)),
    ("exchange.sink-max-file-size", Nothing(SEGMENTS)),
    ("exchange.source-concurrent-readers", Plugin("stopover.read-concurrency")),
    ("exchange.source-max-files-per-reader", Nothing(RANGES)),
    ("exchange.source-handle-target-data-size", Plugin("stopover.source-handle-target-size")),
    ("exchange.file-listing-parallelism", Nothing(LISTING)),
    ("exchange.s3.aws-access-key", Option(S3, "access_key_id", Text)),
    ("exchange.s3.aws-secret-key", Option(S3, "secret_access_key", Text)),
    ("exchange.s3.iam-role", Option(S3, "iam_role", Text)),
    ("exchange.s3.external-id", Option(S3, "external_id", Text)),
    ("exchange.s3.region", Option(S3, "region", LowerCase)),
    ("exchange.s3.endpoint", Endpoint(S3)),
    ("exchange.s3.max-error-retries", Nothing(RETRIES)),
    ("exchange.s3.retry-mode", Nothing(RETRIES)),
    ("exchange.s3.upload.part-size", Nothing("a segment is one PUT")),
    ("exchange.s3.storage-class", Option(S3, "storage_class", Text)),
    ("exchange.s3.async-client-concurrency", Option(S3, "max_concurrent_requests", Number)),
    ("exchange.s3.async-client-max-pending-connection-acquires", Nothing(CONNECTIONS)),
    ("exchange.s3.async-client-connection-acquisition-timeout", Nothing(CONNECTIONS)),
    ("exchange.s3.path-style-access", Option(S3, "path_style", Flag)),
    ("exchange.s3.sse.type", Encryption),
    ("exchange.s3.sse.kms-key-id", Option(S3, "aws_sse_kms_key_id", Text)),
    ("exchange.gcs.json-key-file-path", Option(Gcs, "service_account_path", Text)),
    ("exchange.gcs.json-key", Option(Gcs, "service_account_key", Text)),
    ("exchange.azure.connection-string", Option(Azure, "connection_string", Text)),
    ("exchange.azure.endpoint", Endpoint(Azure)),
    ("exchange.azure.block-size", Nothing("a segment is one PUT")),
    ("exchange.azure.max-error-retries", Nothing(RETRIES)),
    ("exchange.azure.max-connections", Option(Azure, "max_concurrent_requests", Number)),
    ("exchange.azure.pending-acquire-max-count", Nothing(CONNECTIONS)),
    ("exchange.azure.connection-acquisition-timeout", Nothing(CONNECTIONS)),
    ("exchange.hdfs.block-size", Nothing("a segment is one file")),
    ("exchange.hdfs.skip-directory-scheme-validation", Nothing(HDFS)),
    ("hdfs.config.resources", Option(Hdfs, "config_files", Text)),
];

/// The rule of a property.
pub(super) fn find(property: &str) -> std::option::Option<Rule> {
    let row = RULES.iter().find(|(name, _)| *name == property);
    row.map(|(_, rule)| *rule)
}
