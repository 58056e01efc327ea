//! What survives a power failure, derived from the order of the file system calls.
//!
//! Story: neither a put without the sync of its file, nor one without the sync of its folder, nor a
//! removal without the sync of its folder failed any test, as the page cache outlives a process.
//!
//! A disk may write what is not synced in any order, or not at all. So a file must be synced whole
//! before it has its name, and a folder after a name in it has changed.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::calls::record::{self, Call};
use super::root::Root;
use crate::id::{DaemonId, SegmentId};
use crate::store::{DeleteOutcome, Precondition, keys};

const WRITER: u64 = 7;

fn root(folder: &tempfile::TempDir) -> Root {
    Root::new(folder.path().join("base"), true, true, WRITER)
}

fn content(text: &str) -> Vec<Bytes> {
    let (first, second) = text.split_at(text.len() / 2);
    [first, second]
        .map(|part| Bytes::copy_from_slice(part.as_bytes()))
        .into()
}

/// The calls of an operation in this thread.
fn calls_of<T>(operation: impl FnOnce() -> T) -> (T, Vec<Call>) {
    record::take();
    let result = operation();
    (result, record::take())
}

fn position(calls: &[Call], of: impl Fn(&Call) -> bool) -> Option<usize> {
    calls.iter().position(of)
}

/// Checks that a file of this length was synced, then named, and that its folder and all folders
/// above it, up to the one that holds the base directory, were synced after that.
fn assert_durably_named(root: &Root, path: &Path, length: u64, calls: &[Call]) {
    let named = position(
        calls,
        |call| matches!(call, Call::Named { to, .. } if to == path),
    );
    let named = named.unwrap_or_else(|| panic!("never named: {calls:#?}"));
    let Call::Named { from, .. } = &calls[named] else {
        unreachable!("just matched");
    };
    let whole = Call::FileSynced(from.clone(), length);
    assert!(
        calls[..named].contains(&whole),
        "named before its {length} bytes were synced: {calls:#?}"
    );
    assert_synced_up_to_root(root, path, &calls[named..]);
}

fn assert_synced_up_to_root(root: &Root, path: &Path, calls: &[Call]) {
    for folder in path.ancestors().skip(1) {
        assert!(
            calls.contains(&Call::FolderSynced(folder.into())),
            "{} is not synced after the change: {calls:#?}",
            folder.display()
        );
        if folder == root.folder {
            break;
        }
    }
}

/// Checks that the folder which held the last name that was removed is synced after that.
fn assert_durably_removed(path: &Path, calls: &[Call]) {
    assert!(
        calls.contains(&Call::Removed(path.into())),
        "never removed: {calls:#?}"
    );
    let removed = |call: &Call| match call {
        Call::Removed(path) => Some(path.clone()),
        _ => None,
    };
    let last = calls.iter().filter_map(removed).next_back().unwrap();
    let at = position(calls, |call| *call == Call::Removed(last.clone())).unwrap();
    let folder = last.parent().unwrap();
    assert!(
        calls[at..].contains(&Call::FolderSynced(folder.into())),
        "{} is not synced after the removal: {calls:#?}",
        folder.display()
    );
}

/// Two files of a base directory, in folders of their own.
fn paths(root: &Root) -> [PathBuf; 2] {
    ["x/segments/1.seg", "y/segments/2.seg"].map(|path| root.folder.join(path))
}

#[test]
fn a_put_syncs_its_file_before_it_has_its_name_and_its_folders_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = root(&folder);
    for (number, path) in paths(&root).iter().enumerate() {
        let (put, calls) = calls_of(|| root.put(path, &content("some bytes").into()));
        put.unwrap();
        assert_durably_named(&root, path, 10, &calls);
        // The first put of a process syncs the name of the base directory, too.
        let above = Call::FolderSynced(folder.path().into());
        assert_eq!(calls.contains(&above), number == 0, "{calls:#?}");
    }
}

#[test]
fn a_put_into_a_folder_that_another_process_has_just_created_syncs_the_folders_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = root(&folder);
    let path = root.folder.join("x/segments/1.seg");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let (put, calls) = calls_of(|| root.put(&path, &content("some bytes").into()));
    put.unwrap();
    assert_durably_named(&root, &path, 10, &calls);
}

#[test]
fn a_large_put_that_bypasses_the_page_cache_is_synced_whole_before_it_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = root(&folder);
    let path = root.folder.join("x/segments/1.seg");
    let text = "0123456789".repeat(250_001);
    let (put, calls) = calls_of(|| root.put(&path, &content(&text).into()));
    put.unwrap();
    assert_durably_named(&root, &path, 2_500_010, &calls);
}

#[test]
fn a_conditional_put_is_as_durable_as_a_plain_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = root(&folder);
    let path = root.folder.join("x/marker");
    let put_if = |text: &'static str, expected: Precondition| {
        calls_of(|| {
            root.put_if(
                &path,
                &vec![Bytes::from_static(text.as_bytes())].into(),
                &expected,
            )
            .unwrap()
        })
    };
    let (created, calls) = put_if("created", Precondition::Absent);
    assert!(created);
    assert_durably_named(&root, &path, 7, &calls);
    let version = super::swap::read(&root, &path).unwrap().version;
    let (replaced, calls) = put_if("replaced by this", Precondition::Version(version));
    assert!(replaced);
    assert_durably_named(&root, &path, 16, &calls);
}

#[test]
fn a_removal_is_durable_once_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let root = root(&folder);
    let segment = |exchange: &str| {
        let id = SegmentId {
            daemon: DaemonId(1),
            sequence: 1,
        };
        root.path(&keys::segment(&exchange.parse().unwrap(), id))
            .unwrap()
    };
    let [one, other, kept] = ["x", "y", "z"].map(segment);
    let marker = root.path(&keys::marker(&"x".parse().unwrap())).unwrap();
    for path in [&one, &other, &kept, &marker] {
        root.put(path, &content("some bytes").into()).unwrap();
    }
    // Its folder becomes empty and is removed with it; the one above remains.
    let (removed, calls) = calls_of(|| root.delete(std::slice::from_ref(&one)));
    assert_eq!(removed.unwrap(), 1);
    assert_durably_removed(&one, &calls);
    let (removed, calls) = calls_of(|| root.delete_if(&marker, None));
    assert_eq!(removed.unwrap(), DeleteOutcome::Removed);
    assert_durably_removed(&marker, &calls);
    // The last segment of the base directory: the folder of all segments is removed, too.
    root.delete(std::slice::from_ref(&kept)).unwrap();
    let (removed, calls) = calls_of(|| root.delete(std::slice::from_ref(&other)));
    assert_eq!(removed.unwrap(), 1);
    assert_durably_removed(&other, &calls);
    assert!(calls.contains(&Call::FolderSynced(root.folder.join("v2"))));
}

#[test]
fn a_base_directory_without_fsync_syncs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::new(folder.path().join("base"), false, false, WRITER);
    let path = root.folder.join("x/segments/1.seg");
    let (_, calls) = calls_of(|| {
        root.put(&path, &content("some bytes").into()).unwrap();
        root.delete(std::slice::from_ref(&path)).unwrap();
    });
    let synced = |call: &Call| matches!(call, Call::FileSynced(..) | Call::FolderSynced(_));
    assert!(!calls.iter().any(synced), "{calls:#?}");
}
