//! The checks of a folder of this machine, which no server is in front of.
//!
//! Does: what `checks` does with servers, where it can be done with files. Does not: soak, or run
//! Trino (`checks`). Invariant: an outcome is what was observed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use stopover::config::BaseDirectoryConfig;
use stopover::id::ExchangeId;

use crate::checks::{
    Check, DELETED, conforms, daemon, found_by_reader, one_of_many, printed_of, probed,
    put_segments, sent,
};

fn base(work: &Path) -> Result<BaseDirectoryConfig> {
    let folder = work.join("data");
    let folder = folder.to_str().context("a path in UTF-8")?;
    Ok(BaseDirectoryConfig {
        uri: format!("file://{folder}"),
        name: "tried".into(),
        options: BTreeMap::new(),
    })
}

pub async fn run(check: Check, work: &Path) -> Result<String> {
    let base = base(work)?;
    match check {
        Check::Conformance => {
            conforms(base).await?;
            Ok("passed".into())
        }
        Check::ConditionalWrites => one_of_many(base).await,
        Check::BulkDelete => bulk_delete(base, work).await,
        Check::Checksums => damaged_file(&base, work).await,
        Check::Versioning => {
            let table = format!("[[base_directory]]\nuri = \"{}\"\n", base.uri);
            let told = printed_of(&table, work)?;
            ensure!(!told.contains("versions"), "of a folder: {told}");
            Ok("it keeps none".into())
        }
        Check::Encryption => Ok("an option of S3".into()),
        Check::Soak | Check::Trino => bail!("{check:?} is a program of its own"),
    }
}

/// There is no request to count: all files of an exchange are gone, and their folder.
async fn bulk_delete(base: BaseDirectoryConfig, work: &Path) -> Result<String> {
    let storage = probed(base).await?;
    let exchange: ExchangeId = "bulk".parse()?;
    put_segments(&storage, &exchange, DELETED).await?;
    ensure!(storage.remove_exchange(&exchange).await? == DELETED);
    let mut left = Vec::new();
    segments(&work.join("data"), &mut left)?;
    ensure!(left.is_empty(), "left: {left:?}");
    Ok("without requests".into())
}

/// A byte changes on the disk, after the upload.
async fn damaged_file(base: &BaseDirectoryConfig, work: &Path) -> Result<String> {
    let (writer, reader) = (daemon(base, 7)?, daemon(base, 8)?);
    let sink = sent(&writer).await?;
    writer.ingest.finish(&sink, None).await?;
    let mut found = Vec::new();
    segments(&work.join("data"), &mut found)?;
    let [file] = &found[..] else {
        bail!("{found:?} instead of one segment");
    };
    let mut content = std::fs::read(file)?;
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(file, content)?;
    found_by_reader(&reader, &sink).await
}

/// The files with segments below a folder.
fn segments(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            segments(&path, found)?;
        } else if path.extension().is_some_and(|end| end == "seg") {
            found.push(path);
        }
    }
    Ok(())
}
