//! The URI of a base directory: the only file that defines its schemes and forms.
//!
//! Does: parse and normalise URIs; make local paths absolute. Does not: interpret options (`store`)
//! or access anything. Invariant: a parsed URI contains no credentials, and two with the same text
//! mean the same location.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use url::Url;

use super::secret::{shown_uri, user_part};

/// The kind of store behind a base directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A folder of a file system.
    File,
    /// S3 or a server that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
    /// A folder of HDFS.
    Hdfs,
    /// A folder of HDFS behind a mount table.
    ViewFs,
    /// The memory of this process, for tests.
    Memory,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::File,
        Self::S3,
        Self::Gs,
        Self::Az,
        Self::Hdfs,
        Self::ViewFs,
        Self::Memory,
    ];

    /// Whether a base directory of this scheme is a folder of HDFS.
    pub fn is_hdfs(self) -> bool {
        matches!(self, Self::Hdfs | Self::ViewFs)
    }

    /// The scheme that a URI has, even if the rest of it is wrong.
    pub fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some((name, _)) = split_scheme(text) else {
            return (!text.is_empty()).then_some(Self::File);
        };
        Self::ALL.into_iter().find(|scheme| scheme.name() == name)
    }

    /// The text before `://`.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
            Self::Hdfs => "hdfs",
            Self::ViewFs => "viewfs",
            Self::Memory => "memory",
        }
    }
}

/// Why a text is not the URI of a base directory, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseUriError {
    /// Nothing but blanks.
    #[error("it is empty: write file:///…, s3://bucket/prefix or a local path")]
    Empty,
    /// No scheme, where a local path is not allowed.
    #[error("it is not a URI: write for example file:///var/lib/stopover or s3://bucket/prefix")]
    NoScheme,
    /// A scheme that no store has.
    #[error("the scheme {scheme}:// is unknown: {hint}")]
    UnknownScheme {
        /// The invalid text.
        scheme: String,
        /// What to write instead.
        hint: String,
    },
    /// Not a URI.
    #[error("it is not a URI: {0}")]
    Malformed(#[from] url::ParseError),
    /// A user or password.
    #[error(
        "a URI must not contain credentials: give them as keys of the base directory or in the \
         environment"
    )]
    Credentials,
    /// Several URIs in one text.
    #[error(
        "it holds several URIs: write a [[base_directory]] for each, repeat --base-directory, or \
         list them in STOPOVER_BASE_DIRECTORIES"
    )]
    Several,
    /// A control character.
    #[error("it contains a control character, such as the end of a line: write it without")]
    ControlCharacter,
    /// The ARN of an access point.
    #[error(
        "it is an ARN, not the name of a bucket: for an access point, write its alias, such as \
         s3://NAME-…-s3alias/prefix"
    )]
    Arn,
    /// A query or fragment.
    #[error("a base directory has no ? or #: write options as keys beside the URI")]
    QueryOrFragment,
    /// No bucket.
    #[error("it names no bucket: write {}://bucket/prefix", .0.name())]
    NoBucket(Scheme),
    /// No NameNode.
    #[error(
        "it names no NameNode: write hdfs://nameservice/path, hdfs://host:8020/path or \
         viewfs://mounttable/path"
    )]
    NoNameNode,
    /// A nameservice or host that cannot be one.
    #[error(
        "the name of a nameservice, host or mount table has only letters, digits and . - _, and \
         only a host has a port"
    )]
    BadNameNode,
    /// A relative path without a folder that it is relative to.
    #[error(
        "it is a relative path, and the working directory does not exist any more: write an \
         absolute path"
    )]
    NoWorkingDirectory,
    /// A bucket that no cloud would have created.
    #[error("the name of a bucket or container has only letters, digits and . - _")]
    BadBucket,
    /// Not an absolute local path.
    #[error("it is not a local path: write file:/// and the absolute path of a folder")]
    NotLocal,
    /// `/`.
    #[error("the root of the file system cannot be a base directory: name a folder")]
    Root,
    /// A path that is not text.
    #[error("the path of a base directory must be UTF-8")]
    NotUtf8,
}

/// A normalised, absolute URI without a final slash.
#[derive(Debug, Clone)]
pub struct BaseUri {
    scheme: Scheme,
    text: String,
    url: Url,
}

impl BaseUri {
    /// Parses a URI or a local path; relative paths (`./data`, `file:data`) are below `cwd`.
    ///
    /// # Errors
    /// If it is not the URI of a base directory.
    pub fn resolve(text: &str, cwd: &Path) -> Result<Self, BaseUriError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BaseUriError::Empty);
        }
        if holds_several(text) {
            return Err(BaseUriError::Several);
        }
        if has_user(text) {
            return Err(BaseUriError::Credentials);
        }
        let relative = match split_scheme(text) {
            None => Some(text),
            Some(("file", rest)) => {
                // After two slashes comes a host, unless it is `.` or `..`.
                let path = match rest.strip_prefix("//") {
                    Some(path) if path.starts_with('.') => path,
                    Some(_) => return Self::parse(text),
                    None => rest,
                };
                if path.contains(['?', '#']) {
                    return Err(BaseUriError::QueryOrFragment);
                }
                (!path.starts_with('/')).then_some(path)
            }
            Some(_) => None,
        };
        // A path without an authority is taken literally; in a URI it may hold escapes such as %20.
        let Some(path) = relative.map(Path::new) else {
            return Self::parse(text);
        };
        match path.is_absolute() || cwd.is_absolute() {
            true => Self::local(&cwd.join(path)),
            false => Err(BaseUriError::NoWorkingDirectory),
        }
    }

    /// Parses an absolute URI.
    ///
    /// # Errors
    /// If it is not the URI of a base directory.
    pub fn parse(text: &str) -> Result<Self, BaseUriError> {
        if text.contains(char::is_control) {
            return Err(BaseUriError::ControlCharacter);
        }
        let (name, rest) = split_scheme(text).ok_or(BaseUriError::NoScheme)?;
        if has_user(text) {
            return Err(BaseUriError::Credentials);
        }
        if rest.starts_with("//arn:") || name == "arn" {
            return Err(BaseUriError::Arn);
        }
        let known = Scheme::ALL.into_iter().find(|known| known.name() == name);
        let scheme = known.ok_or_else(|| unknown_scheme(name, rest))?;
        let url = Url::parse(text)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BaseUriError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BaseUriError::QueryOrFragment);
        }
        let no_host = url.host_str().is_none_or(str::is_empty);
        match scheme {
            Scheme::File if !no_host || !rest.starts_with('/') => Err(BaseUriError::NotLocal),
            Scheme::File => Self::local(&url.to_file_path().map_err(|()| BaseUriError::NotLocal)?),
            _ if scheme.is_hdfs() => Self::of_hdfs(scheme, text, url),
            _ if no_host => Err(BaseUriError::NoBucket(scheme)),
            _ if !url.host_str().is_some_and(is_bucket) || url.port().is_some() => {
                Err(BaseUriError::BadBucket)
            }
            _ => Ok(Self {
                scheme,
                text: text.trim_end_matches('/').to_owned(),
                url,
            }),
        }
    }

    fn of_hdfs(scheme: Scheme, text: &str, url: Url) -> Result<Self, BaseUriError> {
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() {
            return Err(BaseUriError::NoNameNode);
        }
        if !is_bucket(host) || (scheme == Scheme::ViewFs && url.port().is_some()) {
            return Err(BaseUriError::BadNameNode);
        }
        if url.path().trim_matches('/').is_empty() {
            return Err(BaseUriError::Root);
        }
        Ok(Self {
            scheme,
            text: text.trim_end_matches('/').to_owned(),
            url,
        })
    }

    fn local(path: &Path) -> Result<Self, BaseUriError> {
        if path
            .to_str()
            .is_some_and(|text| text.contains(char::is_control))
        {
            return Err(BaseUriError::ControlCharacter);
        }
        let mut whole = PathBuf::new();
        for part in path.components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => {
                    whole.pop();
                }
                other => whole.push(other),
            }
        }
        if whole.to_str().is_none() {
            return Err(BaseUriError::NotUtf8);
        }
        if whole.parent().is_none() {
            return Err(BaseUriError::Root);
        }
        let url = Url::from_file_path(&whole).map_err(|()| BaseUriError::NotLocal)?;
        Ok(Self {
            scheme: Scheme::File,
            text: url.to_string(),
            url,
        })
    }

    /// The kind of store.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The port of a NameNode, if it is named.
    pub fn port(&self) -> Option<u16> {
        self.url.port()
    }

    /// The bucket, container, nameservice or host; empty for a folder.
    pub fn bucket(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The path, percent-encoded, without slashes at its ends.
    pub fn path(&self) -> &str {
        self.url.path().trim_matches('/')
    }

    /// The folder of a `file://` URI.
    pub fn folder(&self) -> Option<PathBuf> {
        self.url.to_file_path().ok()
    }

    /// How another URI of the same store relates to this one, if they share a key space.
    pub fn overlap(&self, other: &Self) -> Option<Overlap> {
        let within = |outer: &str, inner: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        if self.text == other.text {
            Some(Overlap::Same)
        } else if within(&self.text, &other.text) {
            Some(Overlap::Within)
        } else if within(&other.text, &self.text) {
            Some(Overlap::Encloses)
        } else {
            None
        }
    }
}

impl fmt::Display for BaseUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How one base directory relates to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// Both are the same location.
    Same,
    /// It is below the earlier one.
    Within,
    /// The earlier one is below it.
    Encloses,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "is the same location as",
            Self::Within => "lies within",
            Self::Encloses => "encloses",
        })
    }
}

fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let is_scheme =
        |text: &str| text.len() > 1 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
    text.split_once(':').filter(|(scheme, _)| is_scheme(scheme))
}

/// Azure has containers such as `$web`.
fn is_bucket(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '$');
    name.chars().all(is_allowed)
}

/// Whether a text is a list of URIs or paths, rather than one whose name contains a comma.
fn holds_several(text: &str) -> bool {
    let mut later = text.split(',').skip(1).map(str::trim_start);
    later.any(|part| part.starts_with(['/', '.']) || part.contains("://"))
}

/// Whether a URI has a user part. In those of Azure's other tools, the container is in its place.
fn has_user(text: &str) -> bool {
    match text.split_once("://") {
        Some((scheme, _)) if OF_AZURE.contains(&scheme) => false,
        Some((_, rest)) => user_part(rest).is_some(),
        None => !text.starts_with(['/', '.']) && text.contains(':') && text.contains('@'),
    }
}

/// What other tools call `az://`.
const OF_AZURE: [&str; 5] = ["abfs", "abfss", "azure", "wasb", "wasbs"];

fn unknown_scheme(scheme: &str, rest: &str) -> BaseUriError {
    let names = || Scheme::ALL.into_iter().map(Scheme::name);
    let known = match scheme {
        "s3a" | "s3n" => Some("s3"),
        "gcs" => Some("gs"),
        azure if OF_AZURE.contains(&azure) => Some("az"),
        _ => names().find(|known| strsim::damerau_levenshtein(known, scheme) <= 1),
    };
    let hint = match known {
        Some("az") => "write az://container/prefix and the key account".to_owned(),
        Some(known) => format!("write {}", shown_uri(&format!("{known}:{rest}"))),
        None => format!("write one of {}", names().collect::<Vec<_>>().join(", ")),
    };
    let scheme = scheme.to_owned();
    BaseUriError::UnknownScheme { scheme, hint }
}
