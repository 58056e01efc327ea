//! Errors of HDFS.
//!
//! Does: decide the kind of a failure and what the operator can do. Does not: decide what is
//! retried. Invariant: every error names the path; a write whose answer was lost may have been
//! applied.

use std::io::ErrorKind;
use std::time::Duration;

use hdfs_native::HdfsError;

use crate::store::{StoreError, StoreErrorKind};

/// Why something failed in HDFS.
#[derive(Debug)]
pub(super) enum Failure {
    /// As the client says.
    Hdfs(HdfsError),
    /// The NameNode did not answer within this time.
    Silent(Duration),
}

impl From<HdfsError> for Failure {
    fn from(error: HdfsError) -> Self {
        Self::Hdfs(error)
    }
}

impl Failure {
    /// Whether there is no such file or folder.
    pub(super) fn is_missing(&self) -> bool {
        match self {
            Self::Hdfs(HdfsError::FileNotFound(_)) => true,
            Self::Hdfs(error) => exception(error) == "FileNotFoundException",
            Self::Silent(_) => false,
        }
    }

    /// Whether the NameNode refused a name because there is something already.
    pub(super) fn is_in_the_way(&self) -> bool {
        match self {
            Self::Hdfs(HdfsError::AlreadyExists(_)) => true,
            // A folder that is not empty.
            Self::Hdfs(error) => {
                exception(error) == "IOException" && text(error).contains("not empty")
            }
            Self::Silent(_) => false,
        }
    }

    /// Whether a file is being written by a client that is alive.
    pub(super) fn is_being_written(&self) -> bool {
        matches!(self, Self::Hdfs(HdfsError::AlreadyExists(_)))
    }

    /// Whether the lease of a file's writer had run out, and the file is being closed for it.
    pub(super) fn is_recovering(&self) -> bool {
        match self {
            Self::Hdfs(error) => exception(error) == "RecoveryInProgressException",
            Self::Silent(_) => false,
        }
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
        // Its own text begins with numbers.
        HdfsError::GSSAPIError(_, _, text) => format!("Kerberos: {text}"),
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
    9000), not of its pages (9870)";
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
const NO_GSSAPI: &str = "Kerberos needs the library libgssapi_krb5.so.2: install libgssapi-krb5-2 \
    (Debian) or krb5-libs (Red Hat)";
const SMALLER_BLOCKS: &str = "dfs.namenode.fs-limits.min-block-size is larger than 1 MiB there: \
    lower it";

/// The error of a failed operation on a path.
pub(super) fn failure(doing: &str, path: &str, failure: Failure) -> StoreError {
    let message = format!("{doing} {path}");
    let error = match failure {
        Failure::Silent(limit) => {
            let seconds = limit.as_secs_f64();
            return StoreError {
                timed_out: true,
                hint: Some(NO_ANSWER),
                ..StoreError::new(
                    StoreErrorKind::Unavailable,
                    format!("{message}: the NameNode did not answer within {seconds:.0} s"),
                )
            };
        }
        Failure::Hdfs(error) => error,
    };
    let (kind, hint) = classify(&error);
    let text = text(&error);
    StoreError {
        hint,
        full: matches!(hint, Some(QUOTA | NO_DATANODE)),
        credentials_expired: text.to_ascii_lowercase().contains("ticket expired"),
        ..StoreError::new(kind, format!("{message}: {text}"))
    }
}

fn classify(error: &HdfsError) -> (StoreErrorKind, Option<&'static str>) {
    use StoreErrorKind::{Corrupt, NotFound, Refused, Unavailable};
    match error {
        HdfsError::FileNotFound(_) => (NotFound, None),
        HdfsError::IOError(error) => of_connection(error),
        HdfsError::InvalidRPCResponse(_) => (Refused, Some(NOT_NAMENODE)),
        HdfsError::SASLError(_) | HdfsError::NoSASLMechanism => (Refused, Some(KERBEROS)),
        HdfsError::GSSAPIError(_, _, text) => (Refused, Some(of_kerberos(text))),
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

/// What to do, by the words of MIT's library.
fn of_kerberos(text: &str) -> &'static str {
    let text = text.to_lowercase();
    let has = |words: &str| text.contains(words);
    match () {
        () if has("expired") => TICKET_EXPIRED,
        () if has("does not match desired name") => OTHER_PRINCIPAL,
        () if has("no credentials cache found") => NO_TICKET,
        () => KERBEROS,
    }
}

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
}
