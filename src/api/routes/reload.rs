//! Reading the configuration again, at the request of an operator.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::authorization::caller::Caller;
use crate::api::extract::NoQuery;
use crate::api::problem::{Problem, ProblemResponse, ProblemType};
use crate::api::state::SharedState;
use crate::config;
use crate::reload::{ReloadError, ReloadReport};

/// A setting that was edited. Secrets are not shown.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EditedSetting {
    /// `section.key`, or `base_directory.N.option`.
    key: String,
    /// The value in effect before.
    from: String,
    /// The value that is configured now.
    to: String,
}

/// What a reload did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reloaded {
    /// In effect now.
    applied: Vec<EditedSetting>,
    /// In effect after the next start of the daemon.
    needs_restart: Vec<EditedSetting>,
    /// Notices about the configuration, for the operator.
    notices: Vec<String>,
}

impl From<config::Change> for EditedSetting {
    fn from(config::Change { key, from, to }: config::Change) -> Self {
        Self { key, from, to }
    }
}

impl From<ReloadReport> for Reloaded {
    fn from(report: ReloadReport) -> Self {
        let settings = |changes: Vec<config::Change>| changes.into_iter().map(Into::into).collect();
        Self {
            applied: settings(report.changes.live),
            needs_restart: settings(report.changes.restart),
            notices: report.notices,
        }
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Configuration(errors) => {
                Self::new(ProblemType::InvalidConfiguration, errors.to_string())
            }
            ReloadError::Storage(error) => {
                Self::new(ProblemType::InvalidConfiguration, error.to_string())
            }
            ReloadError::Log(error) => Self::internal(error.to_string()),
        }
    }
}

/// Reads the configuration, the tokens and the certificates again, as SIGHUP does.
///
/// A configuration with a problem changes nothing.
#[utoipa::path(
    post,
    path = "/v1/admin/reload",
    tag = "operations",
    responses(
        (status = 200, description = "What was applied, and what needs a restart",
            body = Reloaded),
        ProblemResponse,
    )
)]
pub(crate) async fn reload(
    State(state): State<SharedState>,
    caller: Caller,
    _: NoQuery,
) -> Result<Json<Reloaded>, Problem> {
    let Some(reloader) = state.reloader.get().cloned() else {
        let detail = "this daemon was not started from a configuration";
        return Err(Problem::new(ProblemType::InvalidConfiguration, detail));
    };
    tracing::info!(client = %caller, "reloading the configuration");
    let reloading = tokio::task::spawn_blocking(move || reloader.reload());
    let report = reloading.await;
    let report = report.map_err(|error| Problem::internal(error.to_string()))?;
    Ok(Json(report?.into()))
}
