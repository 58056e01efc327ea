//! Credentials of a role of AWS that other credentials may assume.
//!
//! Does: ask STS for them. Does not: keep them (`renewed`), or know where the other credentials
//! come from (`s3`). Invariant: what STS is asked for is never part of a URL.

use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::HttpClient;
use url::form_urlencoded;

use super::client_messages::{unescaped, xml_element};
use super::exchange::{Answer, Issuer, answer_to, failed, form_request, lifetime, no_credentials};
use super::renewed::CredentialSource;

/// How long credentials are asked for: the longest that every role permits, also one that is
/// assumed by a role.
const DURATION: Duration = Duration::from_secs(3600);

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
}

/// What STS is asked for besides `more`.
pub(super) fn sts_form(action: &str, role: &str, session: &str, more: &[(&str, &str)]) -> String {
    let duration = DURATION.as_secs().to_string();
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", action)
        .append_pair("Version", "2011-06-15")
        .append_pair("RoleArn", role)
        .append_pair("RoleSessionName", session)
        .append_pair("DurationSeconds", &duration)
        .extend_pairs(more);
    form.finish()
}

/// The credentials in an answer of STS, and how long they are valid.
///
/// # Errors
/// If it has none.
pub(super) fn sts_credentials(
    answer: &Answer,
    issuer: Issuer,
    action: &str,
) -> object_store::Result<(AwsCredential, Duration)> {
    let element = |name| xml_element(&answer.body, name).map(unescaped);
    let credential = (|| {
        Some(AwsCredential {
            key_id: element("AccessKeyId")?,
            secret_key: element("SecretAccessKey")?,
            token: Some(element("SessionToken")?),
        })
    })();
    let credential = credential.ok_or_else(|| no_credentials(issuer, action))?;
    let lifetime = lifetime(element("Expiration").as_deref(), answer.date);
    Ok((credential, lifetime.unwrap_or(DURATION)))
}

#[async_trait]
impl CredentialSource for AssumedRole {
    type Credential = AwsCredential;
    const SERVICE: &'static str = "STS";

    async fn fetch(&self) -> object_store::Result<(AwsCredential, Duration)> {
        const ACTION: &str = "AssumeRole";
        let with = self.with.get_credential().await?;
        let id = self.external_id.as_deref().map(|id| ("ExternalId", id));
        let form = sts_form(ACTION, &self.role, &self.session, id.as_slice());
        let mut request = form_request(&self.endpoint, form).map_err(|e| failed("S3", e))?;
        AwsAuthorizer::new(&with, "sts", &self.region).try_authorize(&mut request, None)?;
        let answer = answer_to(&self.http, request, Issuer::Role, ACTION).await?;
        sts_credentials(&answer, Issuer::Role, ACTION)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use object_store::StaticCredentialProvider;
    use object_store::client::{
        HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    };
    use parking_lot::Mutex;

    use super::*;

    /// Answers every request with the same text, and remembers them.
    #[derive(Debug)]
    pub(in super::super) struct Service {
        pub status: u16,
        pub text: &'static str,
        pub requests: Mutex<Vec<HttpRequest>>,
    }

    impl Service {
        pub(in super::super) fn new(status: u16, text: &'static str) -> &'static Self {
            Box::leak(Box::new(Self {
                status,
                text,
                requests: Mutex::default(),
            }))
        }

        pub(in super::super) fn body(&self) -> String {
            let requests = self.requests.lock();
            let body = requests.last().unwrap().body().as_bytes().unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        }
    }

    #[async_trait]
    impl HttpService for &'static Service {
        async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
            self.requests.lock().push(request);
            let mut answer = HttpResponse::new(HttpResponseBody::from(self.text.to_owned()));
            *answer.status_mut() = self.status.try_into().unwrap();
            let date = object_store::signer::HeaderValue::from_static;
            let date = date("Sun, 29 Nov 2026 10:00:00 GMT");
            answer.headers_mut().insert("date", date);
            Ok(answer)
        }
    }

    pub(in super::super) const STS_ANSWER: &str = "\
        <Credentials><AccessKeyId>key</AccessKeyId><SecretAccessKey>s&amp;1</SecretAccessKey>\
        <SessionToken>t</SessionToken></Credentials>";

    fn role(sts: &'static Service) -> AssumedRole {
        let own = AwsCredential {
            key_id: "own-key".into(),
            secret_key: "hush".into(),
            token: None,
        };
        AssumedRole {
            with: Arc::new(StaticCredentialProvider::new(own)),
            http: HttpClient::new(sts),
            endpoint: "https://sts.example".into(),
            region: "eu-central-1".into(),
            role: "arn:aws:iam::1:role/x".into(),
            external_id: Some("7&8".into()),
            session: "stopover".into(),
        }
    }

    #[tokio::test]
    async fn a_role_is_assumed_with_the_credentials_that_may() {
        let sts = Service::new(200, STS_ANSWER);
        let (credential, lifetime) = role(sts).fetch().await.unwrap();
        assert_eq!(credential.secret_key, "s&1", "escapes are resolved");
        assert_eq!((&*credential.key_id, lifetime), ("key", DURATION));
        let asked = sts.body();
        for part in [
            "Action=AssumeRole&",
            "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx",
            "ExternalId=7%268",
        ] {
            assert!(asked.contains(part), "{part} is not in {asked}");
        }
        let requests = sts.requests.lock();
        let authorization = requests[0].headers()["authorization"].to_str().unwrap();
        assert!(
            authorization.contains("Credential=own-key/"),
            "{authorization}"
        );
    }

    #[tokio::test]
    async fn a_refusal_of_sts_and_its_failure_differ() {
        let refused = role(Service::new(403, "no")).fetch().await.unwrap_err();
        assert!(
            matches!(refused, object_store::Error::Unauthenticated { .. }),
            "{refused}"
        );
        const THROTTLED: &str = "<Error><Code>Throttling</Code></Error>";
        for (status, text, words) in [
            (503, "later", "503"),
            (400, THROTTLED, "Throttling"),
            (200, "<Other/>", "no credentials"),
        ] {
            let error = role(Service::new(status, text)).fetch().await.unwrap_err();
            assert!(
                matches!(error, object_store::Error::Generic { .. }),
                "{error}"
            );
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
