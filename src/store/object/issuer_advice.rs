//! What an operator can do about the failure of a service that gives out credentials.
//!
//! Does: tell these services apart, and what each can be missing. Does not: notice a failure
//! (`exchange`, `client_messages`). Invariant: permissions for the objects are not blamed, as the
//! store has not been asked.

use std::borrow::Cow;

use super::exchange::{Issuer, IssuerFault};

/// What happened, and the way out.
type CauseAndHint = (Cow<'static, str>, &'static str);

/// Advice for a failure with this status and this error code.
pub(super) fn issuer_advice(
    issuer: Issuer,
    fault: IssuerFault,
    status: Option<u16>,
    code: Option<&str>,
) -> CauseAndHint {
    let what = match (fault, status) {
        (IssuerFault::Refused, _) => return refused(issuer, code),
        (IssuerFault::NoCredentials, _) => "answered without credentials",
        (IssuerFault::Unreachable, None) => "could not be reached",
        (IssuerFault::Failed, _) | (IssuerFault::Unreachable, Some(_)) => "failed",
    };
    (format!("{} {what}", name(issuer)).into(), address(issuer))
}

fn name(issuer: Issuer) -> &'static str {
    match issuer {
        Issuer::Role | Issuer::WebIdentity => "STS, which gives out the credentials of the role,",
        Issuer::PodAgent => "the agent that gives out the credentials of the pod",
        Issuer::Federation | Issuer::ClientSecret => "Microsoft's login service",
        Issuer::Google => "Google's token service",
    }
}

/// What decides where it is asked.
fn address(issuer: Issuer) -> &'static str {
    match issuer {
        Issuer::Role | Issuer::WebIdentity => {
            "check whether this machine may reach it, region, and aws_endpoint_url_sts if that is \
             set"
        }
        Issuer::PodAgent => {
            "check whether it runs on this node (the add-on EKS Pod Identity Agent), and \
             AWS_CONTAINER_CREDENTIALS_FULL_URI"
        }
        Issuer::Federation | Issuer::ClientSecret => {
            "check whether this machine may reach it, and azure_authority_host if that is set"
        }
        Issuer::Google => "check whether this machine may reach oauth2.googleapis.com",
    }
}

fn refused(issuer: Issuer, code: Option<&str>) -> CauseAndHint {
    let (cause, hint) = match issuer {
        Issuer::Role if is_about_keys(code) => (
            "STS does not accept the credentials that are to assume iam_role",
            "check access_key_id, secret_access_key, session_token and region, or what gives out \
             the credentials of this machine",
        ),
        Issuer::Role => (
            "the role could not be assumed",
            "the trust policy of iam_role must allow sts:AssumeRole to the credentials at hand, \
             and external_id must be the one that it demands; permissions for the bucket come \
             after that",
        ),
        Issuer::WebIdentity => (
            "the role could not be assumed with the pod's token",
            "the trust policy of aws_role_arn must allow sts:AssumeRoleWithWebIdentity to the \
             service account of this pod; permissions for the bucket come after that",
        ),
        Issuer::PodAgent => (
            "the agent that gives out the credentials of the pod refused its token",
            "the service account of this pod needs a pod identity association in EKS, with a role \
             whose trust policy allows sts:AssumeRole and sts:TagSession to \
             pods.eks.amazonaws.com; permissions for the bucket come after that",
        ),
        Issuer::Federation => (
            "Microsoft's login service did not exchange the pod's token",
            "the application of client_id in the tenant of tenant_id needs a federated credential \
             for the issuer, namespace and service account of this pod; roles on the container \
             come after that",
        ),
        Issuer::ClientSecret => (
            "Microsoft's login service did not accept the application",
            "check client_id, tenant_id and client_secret, which may have expired; roles on the \
             container come after that",
        ),
        Issuer::Google => (
            "Google's token service did not accept the key of the service account",
            "the key may be deleted or its service account disabled, or this machine's clock be \
             wrong; permissions for the bucket come after that",
        ),
    };
    (cause.into(), hint)
}

/// Whether an error code of STS is about the credentials that sign the request.
fn is_about_keys(code: Option<&str>) -> bool {
    matches!(
        code,
        Some(
            "InvalidClientTokenId"
                | "SignatureDoesNotMatch"
                | "IncompleteSignature"
                | "ExpiredToken"
                | "RequestExpired"
        )
    )
}
