//! Earlier versions of objects in a bucket of S3.
//!
//! Does: list and delete them after the objects were deleted. Does not: delete the objects
//! themselves (`deleting`). Invariant: no version becomes visible that was not: the marks that hide
//! an object are deleted last, and a version that was written since the list is left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer};

use super::client_messages::{unescaped, xml_element};
use super::exchange::failed;

/// What the client of the store failed with, or would have failed with.
type Result<T> = object_store::Result<T>;

/// How long a signature is valid.
const VALID: Duration = Duration::from_secs(300);
/// Deletes at a time.
const CONCURRENT: usize = 20;
/// Most lists of versions in one delete. A thousand versions each: more is a bucket where the
/// option was set late, and the next delete goes on.
const MAX_LISTS: usize = 100;

pub(super) const ADVICE: &str = "delete_versions = true needs permission to list and delete \
    versions (s3:ListBucketVersions, s3:DeleteObjectVersion), and cannot work in a bucket that \
    locks new objects: use one without a default retention";

/// Deletes the versions of objects.
#[derive(Debug)]
pub struct Versions {
    /// Signs requests with the credentials of the base directory.
    pub signer: Box<dyn Signer>,
    /// Sends them.
    pub http: HttpClient,
}

/// One version of an object.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    key: String,
    id: String,
    /// It says that the object was deleted.
    hides: bool,
}

/// One answer to a list.
#[derive(Debug, Default)]
struct Listed {
    versions: Vec<Version>,
    /// Where the next one begins: a key and a version.
    next: Option<(String, String)>,
}

impl Versions {
    /// Deletes all versions that these objects have now.
    ///
    /// # Errors
    /// If they cannot be listed or deleted. Those that are left are hidden.
    pub(super) async fn delete(&self, paths: &[Path]) -> Result<()> {
        let mut below: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
        for path in paths {
            let folder = path.as_ref().rfind('/').map_or(0, |slash| slash + 1);
            below
                .entry(&path.as_ref()[..folder])
                .or_default()
                .push(path);
        }
        for (folder, paths) in below {
            let prefix = match paths[..] {
                [path] => path.as_ref(),
                _ => folder,
            };
            let mut found = self.list(prefix).await?;
            found.retain(|version| paths.iter().any(|path| path.as_ref() == version.key));
            let (hide, hidden): (Vec<_>, Vec<_>) = found.into_iter().partition(|v| v.hides);
            self.delete_all(hidden).await?;
            self.delete_all(hide).await?;
        }
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Version>> {
        let (mut found, mut next) = (Vec::new(), None);
        for _ in 0..MAX_LISTS {
            let mut query = vec![("versions", String::new()), ("prefix", prefix.to_owned())];
            if let Some((key, id)) = next {
                query.push(("key-marker", key));
                query.push(("version-id-marker", id));
            }
            let bucket = Path::default();
            let text = self.send(Method::GET, &bucket, query).await?;
            let listed = parse(&String::from_utf8_lossy(&text));
            found.extend(listed.versions);
            next = listed.next;
            if next.is_none() {
                break;
            }
        }
        Ok(found)
    }

    async fn delete_all(&self, versions: Vec<Version>) -> Result<()> {
        let deletes = versions
            .into_iter()
            .map(|Version { key, id, .. }| async move {
                let query = vec![("versionId", id)];
                let path = Path::from(key);
                self.send(Method::DELETE, &path, query).await
            });
        let mut deletes = futures::stream::iter(deletes).buffer_unordered(CONCURRENT);
        while let Some(deleted) = deletes.next().await {
            deleted?;
        }
        Ok(())
    }

    /// The answer to a request; a failure is one of the store's client, in its words.
    async fn send(&self, method: Method, path: &Path, query: Vec<(&str, String)>) -> Result<Bytes> {
        let options = SignedUrlOptions::new().with_query(query);
        let signed = self
            .signer
            .signed_url_opts(method.clone(), path, VALID, &options);
        let url = signed.await?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = url.as_str().parse().map_err(|error| failed("S3", error))?;
        let answer = self.http.execute(request).await;
        let answer = answer.map_err(|error| failed("S3", error))?;
        let status = answer.status();
        let body = answer.into_body().bytes().await;
        let body = body.map_err(|error| failed("S3", error))?;
        if status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body);
        let text = format!("Server returned non-2xx status code: {status}: {text}");
        Err(failed("S3", text))
    }
}

/// Reads the answer to a list of versions.
fn parse(text: &str) -> Listed {
    let mut listed = Listed::default();
    for (name, hides) in [("Version", false), ("DeleteMarker", true)] {
        let start = format!("<{name}>");
        let parts = text.split(&start).skip(1);
        listed.versions.extend(parts.filter_map(|part| {
            Some(Version {
                key: unescaped(xml_element(part, "Key")?),
                id: unescaped(xml_element(part, "VersionId")?),
                hides,
            })
        }));
    }
    if xml_element(text, "IsTruncated") == Some("true") {
        let marker = |name| xml_element(text, name).map(unescaped);
        listed.next = marker("NextKeyMarker")
            .map(|key| (key, marker("NextVersionIdMarker").unwrap_or_default()));
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_versions_is_read() {
        let text = "<ListVersionsResult><IsTruncated>true</IsTruncated>\
            <NextKeyMarker>p/b</NextKeyMarker><NextVersionIdMarker>7</NextVersionIdMarker>\
            <Version><Key>p/a&amp;b</Key><VersionId>1</VersionId></Version>\
            <DeleteMarker><Key>p/b</Key><VersionId>2</VersionId></DeleteMarker>\
            </ListVersionsResult>";
        let listed = parse(text);
        let version = |key: &str, id: &str, hides| Version {
            key: key.into(),
            id: id.into(),
            hides,
        };
        let expected = [version("p/a&b", "1", false), version("p/b", "2", true)];
        assert_eq!(listed.versions, expected);
        assert_eq!(listed.next, Some(("p/b".into(), "7".into())));
        assert_eq!(parse("<ListVersionsResult/>").next, None);
    }
}
