//! `stopover inspect`: prints the footer of one segment, an object that describes the fleet, or
//! what the base directories hold of an exchange, as text or JSON.
//!
//! Does: determine from the argument what to print, fetch the tail of a file or object and decode
//! it. Does not: read pages, or decode offsets (`segment` does). Invariant: only what passed every
//! check of the format is printed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;

use super::inspect_exchange::inspect_exchange;
use super::inspect_fleet::FleetObject;
use super::inspect_footer::{InspectError, read_footer};
use super::inspect_text::{Inspected, as_json, as_text};
use super::{ConfigArgs, async_runtime, print};
use crate::config::{BaseDirectoryConfig, Config};
use crate::id::{ExchangeId, SegmentAddress};
use crate::runtime::Runtime;
use crate::storage::{Identification, Storage, Tail};
use crate::store::keys::{self, Key, OwnObject};

/// Arguments of `inspect`.
#[derive(Args)]
pub(super) struct InspectArgs {
    /// An exchange, by its id: what the configured base directories hold of it, without a daemon.
    /// Or a segment, or the identity, members or sweeper of a base directory: a path, or the URI of
    /// an object such as s3://bucket/prefix/v2/segments/…/….seg or s3://bucket/prefix/v2/sweeper.
    /// Options and credentials are those of the configured base directory that contains it, or else
    /// come from the environment
    #[arg(value_name = "EXCHANGE|OBJECT|FILE")]
    what: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// List every block, not only sums by partition
    #[arg(long)]
    blocks: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Prints the footer.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn inspect(args: InspectArgs) -> Result<ExitCode, ExitCode> {
    let (what, blocks) = (&args.what, args.blocks);
    if let Some(exchange) = exchange_id(what) {
        return inspect_exchange(&exchange, args.json, &args.config.load()?.config);
    }
    if let Some(key) = fleet_key(what) {
        let fetched = match local_path(what) {
            Some(path) => std::fs::read(path).map(Bytes::from).map_err(Into::into),
            None => fetch_fleet_object(what, &key, &args.config.load()?.config),
        };
        let decoded = fetched.and_then(|bytes| Ok(FleetObject::decode(&key, &bytes)?));
        let object = decoded.map_err(|why| refused(what, &why))?;
        print(&match args.json {
            true => object.as_json(),
            false => object.as_text(),
        });
        return Ok(ExitCode::SUCCESS);
    }
    let found = match local_path(what) {
        Some(path) => inspect_file(&path),
        None => inspect_object(what, &args.config.load()?.config),
    };
    let found = found.map_err(|why| refused(what, &why))?;
    print(&match args.json {
        true => as_json(&found, blocks),
        false => as_text(&found, blocks),
    });
    Ok(ExitCode::SUCCESS)
}

/// The exchange that is meant, unless there is a file of this name.
fn exchange_id(what: &str) -> Option<ExchangeId> {
    let exchange = what.parse().ok()?;
    (!Path::new(what).exists()).then_some(exchange)
}

fn refused(what: &str, why: &InspectError) -> ExitCode {
    eprintln!("stopover: {what} cannot be inspected: {why}");
    ExitCode::FAILURE
}

/// The key of an object that describes a base directory or the fleet, if this is the name of one.
fn fleet_key(what: &str) -> Option<Key> {
    let (_, name) = what.rsplit_once("/v2/")?;
    Some(Key::listed(format!("v2/{name}"))).filter(keys::is_administrative)
}

fn fetch_fleet_object(uri: &str, key: &Key, config: &Config) -> Result<Bytes, InspectError> {
    let base = uri.strip_suffix(key.as_str()).unwrap_or(uri);
    async_runtime::block_on(async {
        let storage = open_for(base.trim_end_matches('/').to_owned(), config)?;
        Ok(storage.get_administrative(key).await?)
    })?
}

/// The path, or `None` for the URI of an object.
fn local_path(what: &str) -> Option<PathBuf> {
    match url::Url::parse(what) {
        Ok(url) if url.scheme() == "file" => url.to_file_path().ok(),
        Ok(_) if what.contains("://") => None,
        _ => Some(what.into()),
    }
}

fn inspect_file(path: &Path) -> Result<Inspected, InspectError> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let tail = async |max: u64| {
        let length = max.min(size);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        file.seek(SeekFrom::Start(size - length))?;
        file.by_ref().take(length).read_to_end(&mut bytes)?;
        Ok(Tail {
            bytes: bytes.into(),
            object_size: size,
        })
    };
    futures::executor::block_on(read_footer(tail))
}

fn inspect_object(uri: &str, config: &Config) -> Result<Inspected, InspectError> {
    let (base, exchange, segment) = locate(uri)?;
    async_runtime::block_on(async {
        let storage = open_for(base, config)?;
        let status = storage.status();
        let base = status.first().expect("one base directory was opened");
        let address = SegmentAddress {
            exchange,
            base: base.name.clone(),
            segment,
        };
        read_footer(async |max| Ok(storage.get_tail(&address, max).await?)).await
    })?
}

/// Opens the base directory of this URI, with the options of a configured one. Within a runtime.
fn open_for(uri: String, config: &Config) -> Result<Storage, InspectError> {
    let mut known = config.base_directories.iter();
    let known = known.find(|known| known.uri == uri);
    let base = known.cloned().unwrap_or_else(|| BaseDirectoryConfig {
        uri,
        ..BaseDirectoryConfig::default()
    });
    let skip = Identification::Skip;
    Ok(Storage::open_with(&[base], skip, &Runtime::system())?)
}

/// Splits the URI of an object into base directory, exchange and segment.
fn locate(uri: &str) -> Result<(String, ExchangeId, crate::id::SegmentId), InspectError> {
    let (base, key) = uri.rsplit_once("/v2/").ok_or(InspectError::UnknownName)?;
    match keys::parse(&Key::listed(format!("v2/{key}"))) {
        Some(OwnObject::Segment(exchange, segment)) => Ok((base.to_owned(), exchange, segment)),
        _ => Err(InspectError::UnknownName),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/segment-v1.seg");

    #[test]
    fn a_file_is_inspected_by_path_and_by_uri() {
        let path = local_path(GOLDEN).unwrap();
        let found = inspect_file(&path).unwrap();
        assert_eq!(found.size, std::fs::metadata(GOLDEN).unwrap().len());
        assert!(!found.footer.commits.is_empty());
        assert_eq!(local_path(&format!("file://{GOLDEN}")).unwrap(), path);
        assert_eq!(local_path("s3://bucket/x"), None);
    }

    #[test]
    fn a_file_that_was_cut_short_is_refused_with_a_reason() {
        let bytes = std::fs::read(GOLDEN).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        for length in [0, 10, bytes.len() - 1] {
            std::fs::write(file.path(), &bytes[..length]).unwrap();
            assert!(inspect_file(file.path()).is_err(), "{length}");
        }
    }

    #[test]
    fn the_uri_of_an_object_names_base_directory_exchange_and_segment() {
        let uri = "s3://bucket/some/prefix/v2/segments/78cc-q/000000000000feed-00000000002a.seg";
        let (base, exchange, segment) = locate(uri).unwrap();
        assert_eq!(base, "s3://bucket/some/prefix");
        assert_eq!(exchange.as_str(), "q");
        assert_eq!(segment.to_string(), "000000000000feed-00000000002a");
        for bad in [
            "s3://bucket/object",
            "s3://bucket/v1/segments/78cc-q/000000000000feed-00000000002a.seg",
            "s3://bucket/v2/segments/78cc-q/other.seg",
            "s3://bucket/v2/segments/0000-q/000000000000feed-00000000002a.seg",
            "s3://bucket/v2/78cc-q/000000000000feed-00000000002a.seg",
        ] {
            assert!(
                locate(bad)
                    .unwrap_err()
                    .to_string()
                    .contains("BASE-DIRECTORY"),
                "{bad}"
            );
        }
    }

    #[test]
    fn an_object_of_the_fleet_is_recognized_by_its_name_and_fetched_through_its_base_directory() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("v2");
        std::fs::create_dir_all(&folder).unwrap();
        let golden = include_bytes!("../../tests/golden/sweeper-v2.txt");
        std::fs::write(folder.join("sweeper"), golden).unwrap();
        let uri = format!("file://{}/v2/sweeper", dir.path().display());
        let key = fleet_key(&uri).unwrap();
        assert_eq!(key, keys::sweeper());
        let fetched = fetch_fleet_object(&uri, &key, &Config::default()).unwrap();
        assert_eq!(&fetched[..], golden);
        for other in [
            "sweeper",
            "/b/v2/markers/78cc-q",
            "s3://b/v2/segments/78cc-q/x.seg",
        ] {
            assert_eq!(fleet_key(other), None, "{other}");
        }
    }

    #[test]
    fn an_id_is_an_exchange_unless_a_file_has_this_name() {
        let id = "20261128_091503_00001_abcde-67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert_eq!(exchange_id(id).unwrap().as_str(), id);
        for other in ["src", GOLDEN, "s3://bucket/v2/sweeper"] {
            assert_eq!(exchange_id(other), None, "{other}");
        }
    }

    #[test]
    fn a_segment_is_inspected_through_the_storage_that_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let golden = inspect_file(Path::new(GOLDEN)).unwrap().footer;
        let folder = dir.path().join(keys::segments(&golden.exchange).as_str());
        std::fs::create_dir_all(&folder).unwrap();
        let name = format!("{}.seg", golden.segment);
        std::fs::copy(GOLDEN, folder.join(&name)).unwrap();
        let uri = format!("file://{}/{name}", folder.display());
        let config = Config::default();
        let found = inspect_object(&uri, &config).unwrap();
        assert_eq!(found.footer, golden);
    }
}
