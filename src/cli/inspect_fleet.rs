//! The output of `stopover inspect` for the objects that describe a base directory and its fleet.
//!
//! Does: decode an identity, a list of members or a digest, and format it as text or as JSON. Does
//! not: fetch it (`inspect`). Invariant: no key of an identity is printed.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::units::format_duration;
use crate::storage::identity::{Identity, IdentityError};
use crate::storage::{
    Digest, DigestEntry, DigestError, DigestMarkers, Membership, MembershipError,
};
use crate::store::keys::{self, Key};

/// Why an object does not match its key.
#[derive(Debug, thiserror::Error)]
pub(super) enum FleetObjectError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Members(#[from] MembershipError),
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// An object that describes a base directory or the fleet.
#[derive(Debug)]
pub(super) enum FleetObject {
    Identity(Identity),
    Members(Membership),
    Sweeper(Digest),
}

impl FleetObject {
    /// Decodes the object of this key.
    ///
    /// # Errors
    /// It is damaged, of another layout, or something else.
    pub(super) fn decode(key: &Key, bytes: &[u8]) -> Result<Self, FleetObjectError> {
        if *key == keys::identity() {
            return Ok(Self::Identity(Identity::decode(bytes)?));
        }
        if *key == keys::members() {
            return Ok(Self::Members(Membership::decode(bytes)?));
        }
        Ok(Self::Sweeper(Digest::decode(bytes)?))
    }

    /// The text form.
    pub(super) fn as_text(&self) -> String {
        let mut out = String::new();
        match self {
            Self::Identity(identity) => {
                let numbers = identity.keys.iter().map(|key| key.number.to_string());
                let numbers: Vec<_> = numbers.collect();
                let _ = writeln!(out, "base directory  {}", identity.id);
                let _ = writeln!(out, "name            {}", identity.name);
                let _ = writeln!(out, "keys            {}", numbers.join(", "));
            }
            Self::Members(list) => {
                let _ = writeln!(out, "generation  {}", list.generation);
                for member in &list.members {
                    let _ = writeln!(out, "{} {} {}", member.name, member.id, member.state);
                }
            }
            Self::Sweeper(digest) => digest_as_text(digest, &mut out),
        }
        out
    }

    /// The JSON form.
    pub(super) fn as_json(&self) -> String {
        let value = match self {
            Self::Identity(identity) => json!({
                "base_directory": identity.id.to_string(),
                "name": identity.name.as_str(),
                "keys": identity.keys.iter().map(|key| key.number).collect::<Vec<_>>(),
            }),
            Self::Members(list) => json!({
                "generation": list.generation,
                "members": list.members.iter().map(|member| json!({
                    "base_directory": member.id.to_string(),
                    "name": member.name.as_str(),
                    "state": member.state,
                })).collect::<Vec<_>>(),
            }),
            Self::Sweeper(digest) => digest_as_json(digest),
        };
        format!("{value:#}\n")
    }
}

fn state(entry: &DigestEntry) -> &'static str {
    match entry.markers {
        DigestMarkers::Open(_) => "open",
        DigestMarkers::Claimed(_) => "claimed",
        DigestMarkers::Missing => "orphaned",
    }
}

fn digest_as_text(digest: &Digest, out: &mut String) {
    let holder = digest.holder.map(|holder| format!("{holder:016x}"));
    let holder = holder.unwrap_or_else(|| "none: the last one has stopped".to_owned());
    let _ = writeln!(out, "sweeper     {holder}");
    let _ = writeln!(out, "interval    {}", format_duration(digest.interval));
    let _ = writeln!(out, "members     generation {}", digest.members);
    let complete = match digest.exchanges.is_complete() {
        true => "",
        false => ", not all that there are",
    };
    let listed = digest.exchanges.iter().count();
    let _ = writeln!(out, "exchanges   {listed}{complete}");
    for (hash, entry) in digest.exchanges.iter() {
        let whole_seconds = |time: Duration| Duration::from_secs(time.as_secs());
        let unrenewed = format_duration(whole_seconds(entry.unrenewed));
        let lease = entry
            .lease
            .map_or_else(|| "unknown".to_owned(), format_duration);
        let state = state(&entry);
        let _ = writeln!(
            out,
            "{hash:016x}  {state}, unchanged for {unrenewed}, lease {lease}"
        );
    }
}

fn digest_as_json(digest: &Digest) -> Value {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let exchanges = digest.exchanges.iter().map(|(hash, entry)| {
        json!({
            "hash": format!("{hash:016x}"),
            "state": state(&entry),
            "unrenewed_millis": millis(entry.unrenewed),
            "lease_millis": entry.lease.map(millis),
        })
    });
    json!({
        "sweeper": digest.holder.map(|holder| format!("{holder:016x}")),
        "interval_millis": millis(digest.interval),
        "members_generation": digest.members,
        "complete": digest.exchanges.is_complete(),
        "exchanges": exchanges.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_objects_of_the_fleet_are_printed_without_secrets() {
        let golden = |key: Key, bytes: &[u8]| FleetObject::decode(&key, bytes).unwrap();
        let identity = include_bytes!("../../tests/golden/identity-v2.txt");
        let identity = golden(keys::identity(), identity);
        let secret = "0707";
        for text in [identity.as_text(), identity.as_json()] {
            assert!(text.contains("main") && !text.contains(secret), "{text}");
        }
        let members = include_bytes!("../../tests/golden/members-v2.txt");
        let members = golden(keys::members(), members);
        assert!(members.as_text().contains("draining"), "{members:?}");
        assert!(members.as_json().contains("\"draining\""), "{members:?}");
        let digest = include_bytes!("../../tests/golden/sweeper-v2.txt");
        let digest = golden(keys::sweeper(), digest);
        let text = digest.as_text();
        for line in [
            "sweeper     000000000000feed",
            "exchanges   3",
            "78cc6101daed537b  open, unchanged for 2m, lease 15m",
            "aef0aaa66a2e8983  orphaned, unchanged for 2m, lease unknown",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let json: Value = serde_json::from_str(&digest.as_json()).unwrap();
        assert_eq!(json["exchanges"][1]["unrenewed_millis"], 120_000);
        assert!(FleetObject::decode(&keys::sweeper(), b"else").is_err());
    }
}
