//! The settings of a bucket of Google Cloud Storage that no other answer shows.
//!
//! Does: ask once, in the background, whether the bucket keeps what is deleted. Does not: warn
//! (`storage`). Invariant: there is one request for each base directory and process at most, and no
//! operation waits for it or fails because the settings cannot be read: that is a permission of its
//! own (`storage.buckets.get`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::client::{HttpClient, HttpError, HttpRequest, HttpRequestBody};
use object_store::gcp::GcpCredentialProvider;
use serde_json::Value;

use super::answers::Seen;
use crate::runtime::{Clock, TaskGroup};
use crate::store::BACKGROUND_LIMIT;

/// The parts of the settings that are asked for.
const FIELDS: &str = "softDeletePolicy,versioning";

/// Asks for the settings of one bucket.
pub struct BucketSettings {
    credentials: Option<GcpCredentialProvider>,
    http: HttpClient,
    url: String,
    clock: Clock,
    tasks: TaskGroup,
    asked: AtomicBool,
}

/// Without anything secret.
impl fmt::Debug for BucketSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BucketSettings({})", self.url)
    }
}

/// Why the settings cannot be read, without anything that the server wrote.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("the URL cannot be sent")]
    Url,
    #[error("there are no credentials")]
    Credentials(#[source] object_store::Error),
    #[error("the token cannot be sent")]
    Token,
    #[error("the server did not answer")]
    Http(#[from] HttpError),
    #[error("the server answered HTTP {0}")]
    Status(u16),
    #[error("the answer is no JSON object")]
    NotObject,
}

/// What the settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    versions: bool,
    deleted: bool,
}

impl BucketSettings {
    /// Of a bucket at the JSON interface of this endpoint; unsigned without credentials. `tasks`
    /// runs the request.
    pub(super) fn new(
        endpoint: &str,
        bucket: &str,
        credentials: Option<GcpCredentialProvider>,
        http: HttpClient,
        clock: Clock,
        tasks: TaskGroup,
    ) -> Self {
        let endpoint = endpoint.trim_end_matches('/');
        Self {
            credentials,
            http,
            url: format!("{endpoint}/storage/v1/b/{bucket}?fields={FIELDS}"),
            clock,
            tasks,
            asked: AtomicBool::new(false),
        }
    }

    /// Asks for them in the background and notes what they show, unless that was tried before.
    pub(super) fn note_in_background(self: &Arc<Self>, seen: &Arc<Seen>) {
        if self.asked.swap(true, Ordering::Relaxed) {
            return;
        }
        let (settings, seen) = (Arc::clone(self), Arc::clone(seen));
        self.tasks.spawn(async move { settings.note(&seen).await });
    }

    async fn note(&self, seen: &Seen) {
        match self.clock.within(BACKGROUND_LIMIT, self.ask()).await {
            Some(Ok(kept)) => seen.note_settings(kept.versions, kept.deleted),
            Some(Err(reason)) => tracing::debug!(
                settings = ?self,
                %reason,
                "cannot read whether the bucket keeps what is deleted"
            ),
            None => tracing::debug!(settings = ?self, "the settings of the bucket came too late"),
        }
    }

    async fn ask(&self) -> Result<Kept, Unreadable> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = self.url.parse().map_err(|_| Unreadable::Url)?;
        if let Some(credentials) = &self.credentials {
            let credential = credentials.get_credential().await;
            let credential = credential.map_err(Unreadable::Credentials)?;
            let value = format!("Bearer {}", credential.bearer).parse();
            let value = value.map_err(|_| Unreadable::Token)?;
            request.headers_mut().insert("authorization", value);
        }
        let answer = self.http.execute(request).await?;
        if !answer.status().is_success() {
            return Err(Unreadable::Status(answer.status().as_u16()));
        }
        let body = answer.into_body().bytes().await?;
        kept(&body).ok_or(Unreadable::NotObject)
    }
}

/// Reads the answer, in which numbers may be strings.
fn kept(body: &[u8]) -> Option<Kept> {
    let settings: Value = serde_json::from_slice(body).ok()?;
    let settings = settings.as_object()?;
    let part = |name: &str, field: &str| settings.get(name)?.get(field);
    let seconds = match part("softDeletePolicy", "retentionDurationSeconds") {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(other) => other.as_u64().unwrap_or(0),
        None => 0,
    };
    Some(Kept {
        versions: part("versioning", "enabled").and_then(Value::as_bool) == Some(true),
        deleted: seconds > 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_tell_what_is_kept_for_any_time_at_all() {
        let soft = |seconds: &str| {
            format!("{{\"softDeletePolicy\": {{\"retentionDurationSeconds\": {seconds}}}}}")
        };
        for (text, versions, deleted) in [
            (soft("\"604800\""), false, true),
            (soft("604800"), false, true),
            (soft("\"0\""), false, false),
            (soft("null"), false, false),
            ("{}".into(), false, false),
            ("{\"versioning\": {\"enabled\": true}}".into(), true, false),
            (
                "{\"versioning\": {\"enabled\": false}}".into(),
                false,
                false,
            ),
        ] {
            let expected = Kept { versions, deleted };
            assert_eq!(kept(text.as_bytes()), Some(expected), "{text}");
        }
        for other in ["", "[]", "<html>", "7"] {
            assert_eq!(kept(other.as_bytes()), None, "{other}");
        }
    }
}
