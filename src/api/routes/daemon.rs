//! What a client needs to know about a daemon: versions, limits, base directories.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::extract::NoQuery;
use crate::api::protocol::{DESCRIPTION, NEWEST_PROTOCOL, OLDEST_PROTOCOL};
use crate::api::state::SharedState;
use crate::catalog::handle;
use crate::storage::{BaseDescription, Member};

/// The versions that one side of the protocol supports.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Versions {
    oldest: u32,
    newest: u32,
}

/// The limits that a client plans with, in bytes unless stated otherwise.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Limits {
    max_batch_size: u64,
    max_page_size: u64,
    /// Number of partitions.
    max_partitions: u32,
}

/// A base directory of a daemon.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BaseDirectoryIdentity {
    name: String,
    /// URI without credentials.
    uri: String,
    /// The same at every daemon that has it; null until it was read.
    id: Option<String>,
    /// What the fleet does with it: `active`, `draining` or `abandoned`; null if it is not on the
    /// list of members.
    state: Option<String>,
}

/// A base directory that the fleet uses and this daemon does not have.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MissingBaseDirectory {
    name: String,
    id: String,
}

impl From<BaseDescription> for BaseDirectoryIdentity {
    fn from(base: BaseDescription) -> Self {
        Self {
            name: base.name.to_string(),
            uri: base.uri,
            id: base.id.map(|id| id.to_string()),
            state: base.state.map(|state| state.to_string()),
        }
    }
}

impl From<Member> for MissingBaseDirectory {
    fn from(member: Member) -> Self {
        Self {
            name: member.name.to_string(),
            id: member.id.to_string(),
        }
    }
}

/// A daemon.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DaemonInfo {
    /// Differs after each start; also the header `Stopover-Run` of every response.
    run: String,
    /// The name of its machine or pod.
    host: String,
    version: &'static str,
    protocol: Versions,
    /// Versions of source handles: it reads all of them and writes the newest.
    handles: Versions,
    limits: Limits,
    base_directories: Vec<BaseDirectoryIdentity>,
    /// Data in these cannot be read through this daemon.
    missing_base_directories: Vec<MissingBaseDirectory>,
    /// URIs by which nodes on other machines reach it; may be empty.
    advertise: Vec<String>,
    /// Its availability zone, if it has one.
    zone: Option<String>,
}

/// Describes this daemon.
#[utoipa::path(
    get,
    path = DESCRIPTION,
    tag = "operations",
    responses((status = 200, description = "This daemon", body = DaemonInfo))
)]
pub(crate) async fn describe(State(state): State<SharedState>, _: NoQuery) -> Json<DaemonInfo> {
    let storage = &state.parts.storage;
    Json(DaemonInfo {
        run: state.parts.ingest.daemon().to_string(),
        host: state.location.host.clone(),
        version: env!("CARGO_PKG_VERSION"),
        protocol: Versions {
            oldest: OLDEST_PROTOCOL,
            newest: NEWEST_PROTOCOL,
        },
        handles: Versions {
            oldest: u32::from(handle::VERSION),
            newest: u32::from(handle::VERSION),
        },
        limits: Limits {
            max_batch_size: state.body_limits.max_batch_size,
            max_page_size: state.body_limits.max_page_size,
            max_partitions: state.parts.exchanges.max_partitions(),
        },
        base_directories: storage.describe().into_iter().map(Into::into).collect(),
        missing_base_directories: storage
            .missing_members()
            .into_iter()
            .map(Into::into)
            .collect(),
        advertise: state.location.advertise.clone(),
        zone: state.location.zone.clone(),
    })
}
