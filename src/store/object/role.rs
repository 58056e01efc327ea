//! Credentials of a role of AWS that other credentials may assume.
//!
//! Does: ask STS for them, and again in time. Does not: know where the other credentials come from
//! (`s3`). Invariant: while the credentials at hand are valid, no request waits for or fails with
//! STS but the one that refreshes them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::signer::{HeaderValue, Method};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::form_urlencoded;

use super::answers::Seen;
use super::client_messages::{unescaped, xml_element};
use crate::runtime::Clock;

/// How long credentials are asked for: the longest that every role permits, also one that is
/// assumed by a role.
const DURATION: Duration = Duration::from_secs(3600);
/// They are refreshed at this age.
const REFRESH: Duration = Duration::from_secs(2700);
/// They are not used beyond this age.
const USABLE: Duration = Duration::from_secs(3500);
/// How long to go on with credentials that could not be refreshed.
const RETRY: Duration = Duration::from_secs(20);

/// Assumes a role.
pub(super) struct AssumedRole {
    /// Credentials that may assume it.
    pub with: AwsCredentialProvider,
    pub http: HttpClient,
    /// The URL of STS.
    pub endpoint: String,
    pub region: String,
    pub role: String,
    pub external_id: Option<String>,
    /// The name by which AWS's logs show who uses the role.
    pub session: String,
    pub clock: Clock,
    /// Knows when a server took the credentials for expired.
    pub seen: Arc<Seen>,
    pub current: Mutex<Option<Held>>,
}

/// Without anything secret.
impl std::fmt::Debug for AssumedRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AssumedRole").finish_non_exhaustive()
    }
}

/// Credentials that STS gave.
pub(super) struct Held {
    credential: Arc<AwsCredential>,
    refresh_at: Instant,
    usable_until: Instant,
    /// The number of expirations that were known when they were asked for.
    expirations: u64,
}

#[async_trait]
impl CredentialProvider for AssumedRole {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut current = self.current.lock().await;
        let now = self.clock.now();
        let expirations = self.seen.expirations();
        let fresh = |held: &&Held| now < held.refresh_at && held.expirations == expirations;
        if let Some(held) = current.as_ref().filter(fresh) {
            return Ok(Arc::clone(&held.credential));
        }
        match (self.assume().await, current.as_mut()) {
            (Ok((credential, lifetime)), _) => {
                let credential = Arc::new(credential);
                *current = Some(Held {
                    credential: Arc::clone(&credential),
                    refresh_at: now + REFRESH.min(lifetime * 3 / 4),
                    usable_until: now + USABLE.min(lifetime),
                    expirations,
                });
                Ok(credential)
            }
            (Err(error), Some(held)) if now < held.usable_until => {
                tracing::warn!(
                    "the credentials of the role could not be refreshed, and are still \
                    used: {}",
                    kind(&error)
                );
                held.refresh_at = now + RETRY;
                held.expirations = expirations;
                Ok(Arc::clone(&held.credential))
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// What failed, without what the server said: an answer may repeat the request.
fn kind(error: &object_store::Error) -> &'static str {
    match error {
        object_store::Error::Unauthenticated { .. } => "STS refused them",
        _ => "STS did not answer",
    }
}

impl AssumedRole {
    fn form(&self) -> String {
        let duration = DURATION.as_secs().to_string();
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", "AssumeRole")
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", &self.role)
            .append_pair("RoleSessionName", &self.session)
            .append_pair("DurationSeconds", &duration);
        if let Some(id) = &self.external_id {
            form.append_pair("ExternalId", id);
        }
        form.finish()
    }

    /// New credentials, and for how long they are valid.
    async fn assume(&self) -> object_store::Result<(AwsCredential, Duration)> {
        let with = self.with.get_credential().await?;
        let mut request = HttpRequest::new(HttpRequestBody::from(self.form()));
        *request.method_mut() = Method::POST;
        let uri = self.endpoint.parse();
        *request.uri_mut() = uri.map_err(failed)?;
        let content_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert("content-type", content_type);
        AwsAuthorizer::new(&with, "sts", &self.region).try_authorize(&mut request, None)?;
        let answer = self.http.execute(request).await.map_err(failed)?;
        let status = answer.status();
        let body = answer.into_body().bytes().await.map_err(failed)?;
        let body = String::from_utf8_lossy(&body);
        if !status.is_success() {
            // In the words of the client, so that its other failures and this one are read alike.
            let text = format!("AssumeRole: Server returned non-2xx status code: {status}: {body}");
            return Err(match status.is_client_error() {
                true => object_store::Error::Unauthenticated {
                    path: "sts".into(),
                    source: text.into(),
                },
                false => failed(text),
            });
        }
        let element = |name| xml_element(&body, name).map(unescaped);
        let credential = (|| {
            Some(AwsCredential {
                key_id: element("AccessKeyId")?,
                secret_key: element("SecretAccessKey")?,
                token: Some(element("SessionToken")?),
            })
        })();
        let credential =
            credential.ok_or_else(|| failed("AssumeRole: the answer has no credentials"))?;
        Ok((credential, self.lifetime(element("Expiration"))))
    }

    /// How long credentials are valid that end at a time. A time that has passed by this machine's
    /// clock is ignored: the store says when they have ended.
    fn lifetime(&self, end: Option<String>) -> Duration {
        let end = end.and_then(|text| humantime::parse_rfc3339(&text).ok());
        let since = |end: SystemTime| end.duration_since(UNIX_EPOCH).ok();
        let now = Duration::from_millis(self.clock.wall_millis());
        let left = end.and_then(since).and_then(|end| end.checked_sub(now));
        left.filter(|left| !left.is_zero())
            .map_or(DURATION, |left| left.min(DURATION))
    }
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic {
        store: "S3",
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use object_store::StaticCredentialProvider;
    use object_store::client::{HttpError, HttpResponse, HttpResponseBody, HttpService};
    use parking_lot::Mutex as Lock;

    use super::*;
    use crate::runtime::Runtime;

    /// Answers with credentials whose number grows, or not at all.
    #[derive(Debug, Default)]
    struct Sts(Lock<Vec<String>>, std::sync::atomic::AtomicBool);

    #[async_trait]
    impl HttpService for &'static Sts {
        async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
            let authorization = request.headers()["authorization"].to_str().unwrap();
            assert!(
                authorization.contains("Credential=own-key/"),
                "{authorization}"
            );
            let body = request.body().as_bytes().unwrap().to_vec();
            let mut asked = self.0.lock();
            asked.push(String::from_utf8(body).unwrap());
            let (n, down) = (
                asked.len(),
                self.1.load(std::sync::atomic::Ordering::Relaxed),
            );
            let text = format!(
                "<Credentials><AccessKeyId>key-{n}</AccessKeyId><SecretAccessKey>s&amp;{n}\
                 </SecretAccessKey><SessionToken>t{n}</SessionToken></Credentials>"
            );
            let mut answer = HttpResponse::new(HttpResponseBody::from(text));
            if down {
                *answer.status_mut() = 503.try_into().unwrap();
            }
            Ok(answer)
        }
    }

    fn role() -> (AssumedRole, &'static Sts) {
        let sts: &'static Sts = Box::leak(Box::default());
        let own = AwsCredential {
            key_id: "own-key".into(),
            secret_key: "hush".into(),
            token: None,
        };
        let role = AssumedRole {
            with: Arc::new(StaticCredentialProvider::new(own)),
            http: HttpClient::new(sts),
            endpoint: "https://sts.example".into(),
            region: "eu-central-1".into(),
            role: "arn:aws:iam::1:role/x".into(),
            external_id: Some("7&8".into()),
            session: "stopover".into(),
            clock: Runtime::seeded(1).clock,
            seen: Arc::default(),
            current: Mutex::default(),
        };
        (role, sts)
    }

    async fn key(role: &AssumedRole) -> object_store::Result<String> {
        let credential = role.get_credential().await?;
        assert!(
            credential.secret_key.starts_with("s&"),
            "escapes are resolved"
        );
        Ok(credential.key_id.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_is_assumed_once_and_again_before_its_credentials_expire() {
        let (role, sts) = role();
        for _ in 0..3 {
            assert_eq!(key(&role).await.unwrap(), "key-1");
        }
        let asked = sts.0.lock()[0].clone();
        for part in [
            "Action=AssumeRole&",
            "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx",
            "7%268",
        ] {
            assert!(asked.contains(part), "{part} is not in {asked}");
        }
        tokio::time::sleep(REFRESH).await;
        assert_eq!(key(&role).await.unwrap(), "key-2");
    }

    #[tokio::test(start_paused = true)]
    async fn while_sts_is_down_valid_credentials_are_used_and_no_others() {
        let (role, sts) = role();
        assert_eq!(key(&role).await.unwrap(), "key-1");
        sts.1.store(true, std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(REFRESH).await;
        for _ in 0..3 {
            assert_eq!(key(&role).await.unwrap(), "key-1");
        }
        assert_eq!(sts.0.lock().len(), 2, "not every request asks again");
        tokio::time::sleep(USABLE - REFRESH).await;
        let error = key(&role).await.unwrap_err().to_string();
        assert!(error.contains("503"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_the_store_takes_for_expired_are_replaced() {
        let (role, _sts) = role();
        assert_eq!(key(&role).await.unwrap(), "key-1");
        role.seen.note_expired();
        assert_eq!(key(&role).await.unwrap(), "key-2");
        assert_eq!(key(&role).await.unwrap(), "key-2");
    }
}
