//! Errors of HDFS.
//!
//! Does: decide the kind of a failure and what the operator can do. Does not: decide what is
//! retried. Invariant: every error names the path; a write whose answer was lost may have been
//! applied.

use std::io::ErrorKind;
use std::time::Duration;

use hdfs_native::HdfsError;

use crate::human::count;
use crate::store::{StoreError, StoreErrorKind};

/// Why something failed in HDFS.
#[derive(Debug)]
pub(super) enum Failure {
    /// As the client says.
    Hdfs(HdfsError),
    /// As the library of Kerberos says.
    Kerberos { text: String, with: Credentials },
    /// The NameNode did not answer within this time.
    Silent(Duration),
    /// No DataNode acknowledged within this time that a file is on its disk.
    Unsynced(Duration),
    /// So many operations block in the client, and their callers have left.
    Blocked(usize),
    /// The client cannot be run.
    NoThread(std::io::Error),
}

/// With what the client signs in, as far as it was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Keytab(String),
    Cache(String),
    /// A cache that the library of Kerberos chooses.
    Default,
}

impl From<HdfsError> for Failure {
    fn from(error: HdfsError) -> Self {
        Self::Hdfs(error)
    }
}

impl Failure {
    /// The same failure; if it is one of Kerberos, with what was used.
    pub(super) fn signed_in_with(self, with: impl FnOnce() -> Credentials) -> Self {
        match self {
            Self::Hdfs(HdfsError::GSSAPIError(_, _, text)) => Self::Kerberos { text, with: with() },
            other => other,
        }
    }

    fn of_client(&self) -> Option<&HdfsError> {
        match self {
            Self::Hdfs(error) => Some(error),
            Self::Kerberos { .. }
            | Self::Silent(_)
            | Self::Unsynced(_)
            | Self::Blocked(_)
            | Self::NoThread(_) => None,
        }
    }

    /// Whether there is no such file or folder.
    pub(super) fn is_missing(&self) -> bool {
        self.of_client().is_some_and(|error| {
            matches!(error, HdfsError::FileNotFound(_))
                || exception(error) == "FileNotFoundException"
        })
    }

    /// Whether the NameNode refused a name because there is something already.
    pub(super) fn is_in_the_way(&self) -> bool {
        self.of_client().is_some_and(|error| {
            let is_full_folder =
                || exception(error) == "IOException" && text(error).contains("not empty");
            matches!(error, HdfsError::AlreadyExists(_)) || is_full_folder()
        })
    }

    /// Whether a file is being written by a client that is alive.
    pub(super) fn is_being_written(&self) -> bool {
        matches!(self, Self::Hdfs(HdfsError::AlreadyExists(_)))
    }

    /// Whether the lease of a file's writer had run out, and the file is being closed for it.
    pub(super) fn is_recovering(&self) -> bool {
        let is_recovering = |error| exception(error) == "RecoveryInProgressException";
        self.of_client().is_some_and(is_recovering)
    }
}

/// What a call returned; `None` if there is no such file or folder.
///
/// # Errors
/// All others.
pub(super) fn if_present<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Err(failure) if failure.is_missing() => Ok(None),
        other => other.map(Some),
    }
}

/// The simple name of the server's exception; empty if it is another failure.
fn exception(error: &HdfsError) -> &str {
    match error {
        HdfsError::RPCError(class, _) | HdfsError::FatalRPCError(class, _) => {
            class.rsplit(['.', '$']).next().unwrap_or(class)
        }
        _ => "",
    }
}

/// What the server says, without the stack trace of its exception.
fn text(error: &HdfsError) -> String {
    let text = match error {
        HdfsError::RPCError(_, text) | HdfsError::FatalRPCError(_, text) => text.clone(),
        other => other.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    match exception(error) {
        "" => line.to_owned(),
        class => format!("{class}: {line}"),
    }
}

const PERMISSION: &str = "give the daemon's HDFS user the right to read and write there (hdfs dfs \
    -chown or -setfacl), or set `user`";
const SAFE_MODE: &str = "the NameNode is in safe mode: it starts, or lacks DataNodes or space; see \
    hdfs dfsadmin -safemode get, and leave it with -safemode leave";
const STANDBY: &str = "no NameNode that is configured is active: name all NameNodes of the \
    nameservice, and see hdfs haadmin -getAllServiceState";
const NO_DATANODE: &str = "no DataNode can store it: see hdfs dfsadmin -report for those that run \
    and for their space";
const QUOTA: &str = "raise the quota of the folder (hdfs dfsadmin -setSpaceQuota, -setQuota) or \
    free space";
const NO_ANSWER: &str = "check the host and the port, which is that of the NameNode's RPC (8020 or \
    9000), not of its pages (9870); with Kerberos, also that a KDC answers";
const UNKNOWN_HOST: &str = "there is no such host: if it is a nameservice, name Hadoop's \
    configuration with config_dir, config_files or HADOOP_CONF_DIR, and see dfs.ha.namenodes there";
const NOT_NAMENODE: &str = "what answers is no NameNode: the port is that of the NameNode's RPC \
    (8020 or 9000), not of its pages (9870)";
const ERASURE_CODED: &str = "the folder is erasure coded, where nothing can be made durable before \
    a file is closed: hdfs ec -setPolicy -replicate -path …";
const ENCRYPTION_ZONE: &str = "use a folder that is in no encryption zone";
const KERBEROS: &str = "the cluster wants Kerberos: set hadoop.security.authentication = kerberos \
    in core-site.xml, and kerberos_principal with kerberos_keytab or kerberos_cache, or run kinit \
    for the daemon's user";
const TICKET_EXPIRED: &str = "the ticket of Kerberos has expired: get a new one with kinit before \
    the old one ends (kinit -c with the value of kerberos_cache, if that is set), or set \
    kerberos_keytab, with which the daemon gets its tickets itself";
const NO_TICKET: &str = "there is no ticket of Kerberos: get one with kinit (kinit -c with the \
    value of kerberos_cache, if that is set), or set kerberos_principal and kerberos_keytab";
const OTHER_PRINCIPAL: &str = "the ticket is of another user than kerberos_principal: correct \
    kerberos_principal, or get a ticket of this user with kinit -c and the value of kerberos_cache";
const NO_KDC: &str = "no KDC of the realm answers: see whether one runs, and which ones krb5.conf \
    (KRB5_CONFIG) names";
const BLOCKED: &str = "the client waits for a KDC, or for the address of a host: see krb5.conf and \
    the name service of this machine";
const SLOW_DISKS: &str = "if the DataNodes or the way to them are slow but work, raise `timeout` \
    of this base directory";
const NO_GSSAPI: &str = "Kerberos needs the library libgssapi_krb5.so.2: install libgssapi-krb5-2 \
    (Debian) or krb5-libs (Red Hat)";
const SMALLER_BLOCKS: &str = "dfs.namenode.fs-limits.min-block-size is larger than 1 MiB there: \
    lower it";

/// The error of a failed operation on a path.
pub(super) fn failure(doing: &str, path: &str, failure: Failure) -> StoreError {
    use StoreErrorKind::Unavailable;
    let message = |text: String| format!("{doing} {path}: {text}");
    let timed_out = |what: &str, limit: Duration, hint| {
        let seconds = limit.as_secs_f64();
        let text = format!("{what} within {seconds:.0} s");
        StoreError {
            timed_out: true,
            hint: Some(hint),
            ..StoreError::new(Unavailable, message(text))
        }
    };
    match failure {
        Failure::Silent(limit) => timed_out("the NameNode did not answer", limit, NO_ANSWER),
        Failure::Unsynced(limit) => {
            timed_out("no DataNode has acknowledged the sync", limit, SLOW_DISKS)
        }
        Failure::Blocked(number) => {
            let text = format!("{} do not return", count(number, "operation"));
            StoreError {
                timed_out: true,
                hint: Some(BLOCKED),
                ..StoreError::new(Unavailable, message(text))
            }
        }
        Failure::NoThread(error) => {
            StoreError::new(Unavailable, message("no thread for the client".into()))
                .caused_by(error)
        }
        Failure::Kerberos { text, with } => {
            let (kind, hint) = of_kerberos(&text, &with);
            let line = text.lines().next().unwrap_or_default();
            let text = match with {
                Credentials::Keytab(file) => format!("Kerberos: {line}; the keytab is {file}"),
                Credentials::Cache(cache) => format!("Kerberos: {line}; the cache is {cache}"),
                Credentials::Default => format!("Kerberos: {line}"),
            };
            StoreError {
                hint: Some(hint),
                credentials_expired: hint == TICKET_EXPIRED,
                ..StoreError::new(kind, message(text))
            }
        }
        Failure::Hdfs(error) => {
            let (kind, hint) = classify(&error);
            StoreError {
                hint,
                full: matches!(hint, Some(QUOTA | NO_DATANODE)),
                ..StoreError::new(kind, message(text(&error)))
            }
        }
    }
}

fn classify(error: &HdfsError) -> (StoreErrorKind, Option<&'static str>) {
    use StoreErrorKind::{Corrupt, NotFound, Refused, Unavailable};
    match error {
        HdfsError::FileNotFound(_) => (NotFound, None),
        HdfsError::IOError(error) => of_connection(error),
        HdfsError::InvalidRPCResponse(_) => (Refused, Some(NOT_NAMENODE)),
        HdfsError::SASLError(_) | HdfsError::NoSASLMechanism => (Refused, Some(KERBEROS)),
        // Failures have them apart.
        HdfsError::GSSAPIError(..) => (Refused, Some(KERBEROS)),
        HdfsError::UnsupportedFeature(what) if what.contains("encryption zone") => {
            (Refused, Some(ENCRYPTION_ZONE))
        }
        HdfsError::OperationFailed(what) if what.contains("erasure-coded") => {
            (Refused, Some(ERASURE_CODED))
        }
        HdfsError::OperationFailed(what) if what.to_lowercase().contains("gssapi") => {
            (Refused, Some(NO_GSSAPI))
        }
        HdfsError::UnsupportedFeature(_)
        | HdfsError::InvalidPath(_)
        | HdfsError::InvalidArgument(_)
        | HdfsError::UrlParseError(_)
        | HdfsError::AlreadyExists(_)
        | HdfsError::IsADirectoryError(_)
        | HdfsError::UnsupportedErasureCodingPolicy(_)
        | HdfsError::XmlParseError(_)
        | HdfsError::TrashNotEnabled => (Refused, None),
        HdfsError::ErasureCodingError(_) => (Corrupt, None),
        HdfsError::RPCError(_, text) | HdfsError::FatalRPCError(_, text) => {
            of_server(exception(error), text)
        }
        HdfsError::DataTransferError(_)
        | HdfsError::ChecksumError
        | HdfsError::OperationFailed(_)
        | HdfsError::BlocksNotFound(_)
        | HdfsError::InternalError(_) => (Unavailable, None),
    }
}

/// What happened and what to do, by the words of MIT's library. What another process cures in a
/// moment, or a KDC that starts, is worth another try: tickets are renewed late, `kinit` empties a
/// cache before it fills it, and a connection is opened at any time.
fn of_kerberos(text: &str, with: &Credentials) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind::{Refused, Unavailable};
    let text = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|words| text.contains(words));
    let has_keytab = matches!(with, Credentials::Keytab(_));
    match () {
        () if has(&["ticket expired", "credential has expired"]) => (Unavailable, TICKET_EXPIRED),
        () if has(&["does not match desired name"]) => (Refused, OTHER_PRINCIPAL),
        () if has(UNREACHABLE_KDC) => (Unavailable, NO_KDC),
        () if has(NO_TICKET_IN_CACHE) && !has_keytab => (Unavailable, NO_TICKET),
        () => (Refused, KERBEROS),
    }
}

const UNREACHABLE_KDC: &[&str] = &[
    "cannot contact any kdc",
    "cannot find kdc",
    "cannot resolve network address for kdc",
];

/// There is none, or it is incomplete, as while `kinit` writes it.
const NO_TICKET_IN_CACHE: &[&str] = &[
    "no credentials cache found",
    "no kerberos credentials available",
    "matching credential not found",
    "end of credential cache",
    "bad format in credentials cache",
    "credentials cache i/o operation failed",
    "credentials cache file",
];

fn of_connection(error: &std::io::Error) -> (StoreErrorKind, Option<&'static str>) {
    let text = error.to_string();
    let hint = match error.kind() {
        _ if text.contains("lookup address") => Some(UNKNOWN_HOST),
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::TimedOut => {
            Some(NO_ANSWER)
        }
        _ => None,
    };
    (StoreErrorKind::Unavailable, hint)
}

fn of_server(exception: &str, text: &str) -> (StoreErrorKind, Option<&'static str>) {
    use StoreErrorKind::{NotFound, Refused, Unavailable};
    match exception {
        "FileNotFoundException" => (NotFound, None),
        "AccessControlException" if text.contains("SIMPLE authentication is not enabled") => {
            (Refused, Some(KERBEROS))
        }
        "AccessControlException" | "AuthorizationException" => (Refused, Some(PERMISSION)),
        "SaslException" | "GSSException" | "InvalidToken" => (Refused, Some(KERBEROS)),
        "SafeModeException" => (Unavailable, Some(SAFE_MODE)),
        _ if text.contains("safe mode") => (Unavailable, Some(SAFE_MODE)),
        "StandbyException" => (Unavailable, Some(STANDBY)),
        _ if exception.contains("QuotaExceeded") => (Unavailable, Some(QUOTA)),
        _ if text.contains("could only be written to") => (Unavailable, Some(NO_DATANODE)),
        _ if text.contains("less than configured minimum value") => (Refused, Some(SMALLER_BLOCKS)),
        "RpcNoSuchMethodException" | "RpcNoSuchProtocolException" | "RPC$VersionMismatch" => {
            (Refused, Some(NOT_NAMENODE))
        }
        "InvalidPathException"
        | "ParentNotDirectoryException"
        | "PathIsNotDirectoryException"
        | "UnresolvedPathException"
        | "PathComponentTooLongException"
        | "MaxDirectoryItemsExceededException"
        | "IllegalArgumentException"
        | "HadoopIllegalArgumentException" => (Refused, None),
        _ => (Unavailable, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_server(class: &str, text: &str) -> StoreError {
        let error = HdfsError::RPCError(format!("org.apache.hadoop.{class}"), text.into());
        failure("writing", "/base/x", error.into())
    }

    #[test]
    fn what_a_server_refuses_is_classified_and_told_with_the_way_out() {
        use StoreErrorKind::{NotFound, Refused, Unavailable};
        for (class, text, kind, way_out) in [
            (
                "security.AccessControlException",
                "denied\n\tat x",
                Refused,
                "-chown",
            ),
            (
                "security.AccessControlException",
                "SIMPLE authentication is not enabled",
                Refused,
                "kerberos_keytab",
            ),
            (
                "hdfs.server.namenode.SafeModeException",
                "on",
                Unavailable,
                "-safemode leave",
            ),
            (
                "ipc.RetriableException",
                "Name node is in safe mode",
                Unavailable,
                "safe mode",
            ),
            ("ipc.StandbyException", "no", Unavailable, "haadmin"),
            (
                "hdfs.protocol.DSQuotaExceededException",
                "no",
                Unavailable,
                "quota",
            ),
            ("x.FileNotFoundException", "no", NotFound, ""),
            (
                "x.IOException",
                "could only be written to 0 of",
                Unavailable,
                "dfsadmin -report",
            ),
            ("x.SomethingNew", "no", Unavailable, ""),
        ] {
            let error = of_server(class, text);
            let shown = error.to_string();
            assert_eq!(error.kind, kind, "{shown}");
            assert!(
                shown.starts_with("writing /base/x") && shown.contains(way_out),
                "{shown}"
            );
            assert!(!shown.contains("\tat x"), "a stack trace: {shown}");
        }
        assert!(of_server("hdfs.protocol.NSQuotaExceededException", "").full);
        let missing: Failure =
            HdfsError::OperationFailed("Failed to load libgssapi_krb".into()).into();
        let shown = failure("writing", "/x", missing).to_string();
        assert!(shown.contains("libgssapi-krb5-2"), "{shown}");
    }

    #[test]
    fn a_name_node_that_is_silent_may_have_applied_the_write() {
        let error = failure("writing", "/x", Failure::Silent(Duration::from_secs(10)));
        assert!(error.timed_out && error.kind == StoreErrorKind::Unavailable);
    }

    /// Story: a sync that was too slow did not count as one that timed out, so as many puts as
    /// before were started, and none ended.
    #[test]
    fn a_sync_that_is_too_slow_has_timed_out() {
        let error = failure("writing", "/x", Failure::Unsynced(Duration::from_secs(10)));
        assert!(error.timed_out && error.kind == StoreErrorKind::Unavailable);
        assert!(error.to_string().contains("raise `timeout`"), "{error}");
    }

    /// Story: a connection that was opened while `kinit` wrote the cache, just after a ticket had
    /// expired, or while the KDC started, failed sinks and reads at once, as if a principal were
    /// wrong.
    #[test]
    fn what_a_ticket_or_a_kdc_cures_is_tried_again_and_what_is_wrong_is_not() {
        use StoreErrorKind::{Refused, Unavailable};
        const CACHE: &str = "FILE:/run/tickets";
        const KEYTAB: &str = "/etc/keytab";
        const NONE: &str = "there is no ticket";
        const WRONG: &str = "kerberos_keytab";
        for (text, place, kind, way_out) in [
            ("Ticket expired", CACHE, Unavailable, "expired: get"),
            ("credential has expired", CACHE, Unavailable, "expired: get"),
            ("No credentials cache found", CACHE, Unavailable, NONE),
            ("Bad format in credentials cache", CACHE, Unavailable, NONE),
            ("Matching credential not found", CACHE, Unavailable, NONE),
            (
                "Cannot contact any KDC for realm",
                KEYTAB,
                Unavailable,
                "krb5.conf",
            ),
            ("No Kerberos credentials available", KEYTAB, Refused, WRONG),
            ("Password has expired", KEYTAB, Refused, WRONG),
            (
                "it does not match desired name",
                CACHE,
                Refused,
                "another user",
            ),
            (
                "Client not found in Kerberos database",
                KEYTAB,
                Refused,
                WRONG,
            ),
            (
                "Server not found in Kerberos database",
                CACHE,
                Refused,
                WRONG,
            ),
        ] {
            let with = match place {
                CACHE => Credentials::Cache(CACHE.into()),
                _ => Credentials::Keytab(KEYTAB.into()),
            };
            let text = format!("Unspecified failure: {text}");
            let error = failure("writing", "/x", Failure::Kerberos { text, with });
            let shown = error.to_string();
            assert_eq!(error.kind, kind, "{shown}");
            assert!(shown.contains(way_out) && shown.contains(place), "{shown}");
        }
    }
}
