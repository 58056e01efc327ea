//! What only MinIO of these servers has: roles whose requests it verifies, and object lock.
//!
//! Does: use base directories whose credentials come from MinIO's security token service, and one
//! in a bucket that locks new objects. Does not: test what a base directory does once it is open
//! (the conformance suite). Invariant: a signature that is wrong was tried as well.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use stopover::id::ExchangeId;
use stopover::runtime::Runtime;
use stopover::storage::Storage;
use stopover::store::Retention;

use crate::checks::{base_in, printed, probed, segment};
use crate::emulators::Emulator;

/// A role is assumed with a signed request, whose answer signs the requests of the base directory.
pub async fn assumed_role(emulator: &Emulator, bucket: &str) -> Result<()> {
    let endpoint = format!("http://127.0.0.1:{}", emulator.port);
    let role = [
        ("iam_role", "arn:aws:iam::123456789012:role/spool"),
        ("external_id", "of/the=partner"),
        ("aws_endpoint_url_sts", endpoint.as_str()),
    ];
    let storage = probed(base_in(emulator, bucket, &role)).await?;
    let (exchange, content): (ExchangeId, _) = ("assumed".parse()?, Bytes::from_static(b"x"));
    let put = storage.put_segment(&exchange, segment(1), vec![content.clone()]);
    let at = put.await?;
    ensure!(storage.get_range(&at, 0..1).await? == content);
    ensure!(storage.remove_exchange(&exchange).await? == 1);

    let wrong = [&role[..], &[("secret_access_key", "another secret")]].concat();
    let storage = Storage::open(&[base_in(emulator, bucket, &wrong)], &Runtime::seeded(7))?;
    let status = storage.probe().await.remove(0);
    let told = status.error.context("a wrong signature was accepted")?;
    ensure!(told.contains("role"), "of a wrong signature: {told}");
    Ok(())
}

/// A bucket that locks new objects is warned about; with `delete_versions` it is refused at start,
/// since no close would succeed.
pub async fn object_lock(emulator: &Emulator, work: &Path) -> Result<()> {
    let bucket = "locked";
    emulator.create_locked(bucket).await?;
    let storage = probed(base_in(emulator, bucket, &[])).await?;
    let seen = storage.status().remove(0).retention;
    ensure!(
        seen == Some(Retention::ObjectLock),
        "the probe has seen {seen:?} where objects are locked"
    );
    let told = printed(emulator, bucket, work)?;
    ensure!(told.contains("locks new objects"), "check: {told}");
    let deletes = [("delete_versions", "true")];
    let base = base_in(emulator, bucket, &deletes);
    let storage = Storage::open(&[base], &Runtime::seeded(7))?;
    let status = storage.probe().await.remove(0);
    let told = status.error.context("a locked version was deleted")?;
    ensure!(told.contains("lock"), "of a locked version: {told}");
    Ok(())
}
