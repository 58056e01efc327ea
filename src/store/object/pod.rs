//! Credentials for the token of a pod, which Kubernetes keeps in a file.
//!
//! Does: exchange the token at STS, at the agent of EKS, or at Microsoft's login service, as the
//! stores' clients would. Does not: read the file (`token_file`), or keep what it gets (`renewed`).
//! Invariant: the file is read for each exchange, and no token panics a client: those of the stores
//! send the file as it is, and one of them panics at the end of a line.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::AwsCredential;
use object_store::azure::AzureCredential;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::signer::HeaderValue;
use serde::Deserialize;
use url::{Url, form_urlencoded};

use super::exchange::{
    Answer, Issuer, LONGEST, answer_to, failed, form_request, lifetime, no_credentials,
};
use super::progress::is_loopback;
use super::renewed::CredentialSource;
use super::role::{sts_credentials, sts_form};
use super::token_file::TokenFile;
use crate::config::Secret;

/// How long credentials count as valid if the service does not say: the shortest that AWS gives.
const SHORTEST: Duration = Duration::from_secs(900);

async fn token(file: &Arc<TokenFile>, store: &'static str) -> Result<String, object_store::Error> {
    file.current()
        .await
        .map_err(|error| match error.is_missing() {
            true => failed(store, error),
            false => object_store::Error::Unauthenticated {
                path: "token".into(),
                source: error.into(),
            },
        })
}

fn parsed<'a, T: Deserialize<'a>>(
    answer: &'a Answer,
    issuer: Issuer,
    action: &str,
) -> object_store::Result<T> {
    // Without what serde says: it may quote the answer.
    let parsed = serde_json::from_str(&answer.body).ok();
    parsed.ok_or_else(|| no_credentials(issuer, action))
}

/// The role of a service account: `AssumeRoleWithWebIdentity`.
pub(super) struct WebIdentity {
    pub token: Arc<TokenFile>,
    pub http: HttpClient,
    /// The URL of STS.
    pub endpoint: String,
    pub role: String,
    /// The name by which AWS's logs show who uses the role.
    pub session: String,
}

#[async_trait]
impl CredentialSource for WebIdentity {
    type Credential = AwsCredential;
    const SERVICE: &'static str = "STS";

    async fn fetch(&self) -> object_store::Result<(AwsCredential, Duration)> {
        const ACTION: &str = "AssumeRoleWithWebIdentity";
        let token = token(&self.token, "S3").await?;
        let more = [("WebIdentityToken", &*token)];
        let form = sts_form(ACTION, &self.role, &self.session, &more);
        let request = form_request(&self.endpoint, form).map_err(|e| failed("S3", e))?;
        let answer = answer_to(&self.http, request, Issuer::WebIdentity, ACTION).await?;
        sts_credentials(&answer, Issuer::WebIdentity, ACTION)
    }
}

/// What is shown to an agent.
pub(super) enum AgentToken {
    /// The content of a file, as on EKS.
    File(Arc<TokenFile>),
    Text(Secret),
    /// Nothing: only who runs on its machine reaches it.
    None,
}

/// Hosts besides loopback whose agents are asked without TLS: those of ECS and of EKS.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

/// Whether an agent may be asked at this URL: its answer is secret, so only this machine or TLS
/// carries it.
pub(super) fn is_agent(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| {
        let known = url.host_str().is_some_and(|host| AGENTS.contains(&host));
        url.scheme() == "https" || known || is_loopback(&url)
    })
}

/// The Pod Identity of EKS, and what is like it elsewhere: an agent answers with credentials.
pub(super) struct PodIdentity {
    pub token: AgentToken,
    pub http: HttpClient,
    /// The URL of the agent.
    pub url: String,
}

/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentAnswer {
    access_key_id: String,
    secret_access_key: String,
    token: String,
    expiration: Option<String>,
}

#[async_trait]
impl CredentialSource for PodIdentity {
    type Credential = AwsCredential;
    const SERVICE: &'static str = "the agent with the pod's credentials";

    async fn fetch(&self) -> object_store::Result<(AwsCredential, Duration)> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = self.url.parse().map_err(|e| failed("S3", e))?;
        let shown = match &self.token {
            AgentToken::File(file) => Some(token(file, "S3").await?),
            AgentToken::Text(text) => Some(text.expose().to_owned()),
            AgentToken::None => None,
        };
        if let Some(shown) = shown {
            let mut value = HeaderValue::from_str(&shown).map_err(|e| failed("S3", e))?;
            value.set_sensitive(true);
            request.headers_mut().insert("authorization", value);
        }
        let action = format!("GET {}", self.url);
        let answer = answer_to(&self.http, request, Issuer::PodAgent, &action).await?;
        let given: AgentAnswer = parsed(&answer, Issuer::PodAgent, &action)?;
        let lifetime = lifetime(given.expiration.as_deref(), answer.date).unwrap_or(SHORTEST);
        let credential = AwsCredential {
            key_id: given.access_key_id,
            secret_key: given.secret_access_key,
            token: Some(given.token),
        };
        Ok((credential, lifetime))
    }
}

/// The workload identity of AKS: Microsoft's login service exchanges the token.
pub(super) struct WorkloadIdentity {
    pub token: Arc<TokenFile>,
    pub http: HttpClient,
    /// The URL of the tenant's token endpoint.
    pub url: String,
    pub client_id: String,
}

/// <https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow>
#[derive(Deserialize)]
struct LoginAnswer {
    access_token: String,
    expires_in: u64,
}

impl WorkloadIdentity {
    fn form(&self, token: &str) -> String {
        const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        form_urlencoded::Serializer::new(String::new())
            .append_pair("client_assertion_type", KIND)
            .append_pair("scope", "https://storage.azure.com/.default")
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", &self.client_id)
            .append_pair("client_assertion", token)
            .finish()
    }
}

#[async_trait]
impl CredentialSource for WorkloadIdentity {
    type Credential = AzureCredential;
    const SERVICE: &'static str = "the login service";

    async fn fetch(&self) -> object_store::Result<(AzureCredential, Duration)> {
        const STORE: &str = "MicrosoftAzure";
        const ACTION: &str = "the exchange of the pod's token";
        let token = token(&self.token, STORE).await?;
        let request = form_request(&self.url, self.form(&token)).map_err(|e| failed(STORE, e))?;
        let answer = answer_to(&self.http, request, Issuer::Federation, ACTION).await?;
        let given: LoginAnswer = parsed(&answer, Issuer::Federation, ACTION)?;
        let lifetime = Duration::from_secs(given.expires_in).min(LONGEST);
        Ok((AzureCredential::BearerToken(given.access_token), lifetime))
    }
}

#[cfg(test)]
mod tests {
    use super::super::role::tests::{STS_ANSWER, Service};
    use super::*;

    /// A file with this content, as an option names it.
    fn file(content: &str) -> (tempfile::NamedTempFile, Arc<TokenFile>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let token = Arc::new(TokenFile::new("`x`", file.path()));
        (file, token)
    }

    fn web(sts: &'static Service, token: Arc<TokenFile>) -> WebIdentity {
        WebIdentity {
            token,
            http: HttpClient::new(sts),
            endpoint: "https://sts.example".into(),
            role: "arn:aws:iam::1:role/x".into(),
            session: "stopover".into(),
        }
    }

    /// Story: Kubernetes replaces the token every hour; one that is read once expires.
    #[tokio::test]
    async fn a_token_is_read_again_for_each_exchange() {
        let sts = Service::new(200, STS_ANSWER);
        let (path, token) = file("first.token\n");
        let web = web(sts, token);
        let (credential, _) = web.fetch().await.unwrap();
        assert_eq!(credential.key_id, "key");
        let asked = sts.body();
        assert!(
            asked.contains("Action=AssumeRoleWithWebIdentity&"),
            "{asked}"
        );
        assert!(asked.ends_with("&WebIdentityToken=first.token"), "{asked}");
        std::fs::write(path.path(), " second.token\r\n").unwrap();
        web.fetch().await.unwrap();
        assert!(sts.body().ends_with("&WebIdentityToken=second.token"));
        let requests = sts.requests.lock();
        assert_eq!(
            requests[0].uri(),
            "https://sts.example/",
            "nothing secret in the URL"
        );
        assert!(!requests[0].headers().contains_key("authorization"));
    }

    /// Story: the stores' client panicked when it put such a token into a header.
    #[tokio::test]
    async fn a_token_with_a_control_character_is_refused_without_a_request() {
        let sts = Service::new(200, STS_ANSWER);
        let (path, token) = file("hush\nhush");
        let error = web(sts, Arc::clone(&token)).fetch().await.unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, object_store::Error::Unauthenticated { .. }),
            "{text}"
        );
        assert!(
            text.contains("`x`") && text.contains("control character"),
            "{text}"
        );
        assert!(!text.contains("hush"), "{text}");
        drop(path);
        let error = web(sts, token).fetch().await.unwrap_err();
        assert!(
            matches!(error, object_store::Error::Generic { .. }),
            "it may come later"
        );
        assert!(sts.requests.lock().is_empty());
    }

    const AGENT_ANSWER: &str = r#"{"AccessKeyId": "key", "SecretAccessKey": "s", "Token": "t",
        "AccountId": "1", "Expiration": "2026-11-29T12:00:00Z"}"#;

    fn agent(service: &'static Service, token: Arc<TokenFile>) -> PodIdentity {
        PodIdentity {
            token: AgentToken::File(token),
            http: HttpClient::new(service),
            url: "http://169.254.170.23/v1/credentials".into(),
        }
    }

    #[tokio::test]
    async fn the_agent_of_eks_gets_the_token_and_says_how_long_its_credentials_last() {
        let service = Service::new(200, AGENT_ANSWER);
        let (_path, token) = file("a.b\n");
        let (credential, lifetime) = agent(service, token).fetch().await.unwrap();
        assert_eq!(
            (&*credential.key_id, credential.token.as_deref()),
            ("key", Some("t"))
        );
        assert_eq!(
            lifetime,
            Duration::from_secs(7200),
            "by the clock of the agent"
        );
        let requests = service.requests.lock();
        assert_eq!(requests[0].headers()["authorization"], "a.b");
        assert!(requests[0].headers()["authorization"].is_sensitive());
    }

    /// Story: without a file for the token an agent was not asked at all, and the daemon used the
    /// role of its instance.
    #[tokio::test]
    async fn an_agent_is_shown_a_token_that_is_no_file_or_none() {
        let service = Service::new(200, AGENT_ANSWER);
        for (token, expected) in [
            (AgentToken::Text("Basic hush".into()), Some("Basic hush")),
            (AgentToken::None, None),
        ] {
            let http = HttpClient::new(service);
            let url = "http://127.0.0.1:7/x".into();
            let agent = PodIdentity { token, http, url };
            agent.fetch().await.unwrap();
            let requests = service.requests.lock();
            let shown = requests.last().unwrap().headers().get("authorization");
            assert_eq!(shown.map(|value| value.to_str().unwrap()), expected);
        }
    }

    /// As AWS's own tools decide it.
    #[test]
    fn an_agent_is_on_this_machine_or_at_an_address_of_aws_or_uses_tls() {
        for url in [
            "http://127.0.0.1:7/x",
            "http://127.9.9.9/x",
            "http://[::1]:7/x",
            "http://localhost/x",
            "http://169.254.170.2/x",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "https://agent.example/x",
        ] {
            assert!(is_agent(url), "{url}");
        }
        for url in ["http://agent.example/x", "http://10.0.0.1/x", "/x", ""] {
            assert!(!is_agent(url), "{url}");
        }
    }

    #[tokio::test]
    async fn an_agent_that_answers_otherwise_is_a_failure_that_shows_no_secret() {
        for (status, text, words) in [
            (404, "no association", "404"),
            (200, r#"{"AccessKeyId": "hush""#, "no credentials"),
        ] {
            let (_path, token) = file("a.b");
            let error = agent(Service::new(status, text), token)
                .fetch()
                .await
                .unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains(words) && text.contains("169.254.170.23"),
                "{text}"
            );
            assert!(!text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn a_lifetime_is_counted_by_the_clock_of_the_service_and_bounded() {
        let now = Some(Duration::from_secs(1000));
        assert_eq!(lifetime(None, now), None);
        assert_eq!(lifetime(Some("tomorrow"), now), None);
        assert_eq!(lifetime(Some("2026-11-29T12:00:00Z"), None), None);
        assert_eq!(lifetime(Some("9999-12-31T00:00:00Z"), now), Some(LONGEST));
        assert_eq!(
            lifetime(Some("1970-01-01T00:00:01Z"), now),
            Some(Duration::ZERO)
        );
    }

    #[tokio::test]
    async fn the_login_service_exchanges_the_token_for_a_bearer_token() {
        let answer = r#"{"token_type": "Bearer", "expires_in": 3599, "access_token": "given"}"#;
        let service = Service::new(200, answer);
        let (_path, token) = file("a.b\n");
        let identity = WorkloadIdentity {
            token,
            http: HttpClient::new(service),
            url: "https://login.example/tenant/oauth2/v2.0/token".into(),
            client_id: "me".into(),
        };
        let (credential, lifetime) = identity.fetch().await.unwrap();
        assert!(matches!(credential, AzureCredential::BearerToken(token) if token == "given"));
        assert_eq!(lifetime, Duration::from_secs(3599));
        let asked = service.body();
        assert!(
            asked.ends_with("&client_id=me&client_assertion=a.b"),
            "{asked}"
        );
    }
}
