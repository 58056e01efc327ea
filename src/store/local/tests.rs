//! Tests of the file system backend beyond the conformance suite.

use std::fs::{self, File};
use std::path::Path;

use bytes::Bytes;

use super::error::failure;
use super::{LocalStore, WriteMode};
use crate::config::units::SizeOrPercent;
use crate::id::{DaemonId, ExchangeId, SegmentId};
use crate::store::StoreErrorKind::{Corrupt, NotFound, Refused, Unavailable};
use crate::store::{DeleteOutcome, Precondition, Store, keys};

fn exchange() -> ExchangeId {
    "query_1-x".parse().unwrap()
}

fn key(sequence: u64) -> keys::Key {
    keys::segment(
        &exchange(),
        SegmentId {
            daemon: DaemonId(1),
            sequence,
        },
    )
}

fn bytes() -> Vec<Bytes> {
    vec![Bytes::from_static(b"some "), Bytes::from_static(b"bytes")]
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn assert_only_the_reserve_is_left(root: &Path) {
    assert_eq!(names(root), ["v2"]);
    assert_eq!(names(&root.join("v2")), ["markers"]);
    assert_eq!(names(&root.join("v2/markers")), [".keep"]);
}

#[tokio::test]
async fn a_put_leaves_the_file_under_its_name_and_nothing_else() {
    for writing in [WriteMode::Direct, WriteMode::Cached, WriteMode::Unsynced] {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::new(folder.path().join("base"), writing, 7);
        store.put(&key(1), bytes()).await.unwrap();
        store.put(&key(1), bytes()).await.unwrap();
        let segments = folder
            .path()
            .join("base")
            .join(keys::segments(&exchange()).as_str());
        assert_eq!(names(&segments), ["0000000000000001-000000000001.seg"]);
        assert_eq!(
            fs::read(segments.join(&names(&segments)[0])).unwrap(),
            b"some bytes"
        );
    }
}

#[tokio::test]
async fn the_remains_of_an_interrupted_put_are_no_object_and_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().into(), WriteMode::Direct, 7);
    store.put(&key(1), bytes()).await.unwrap();
    let path = folder.path().join(key(2).as_str());
    fs::write(path.with_extension("seg.0000000000000009-0.tmp"), b"half").unwrap();
    let empty = folder
        .path()
        .join(keys::segments(&"other".parse().unwrap()).as_str());
    fs::create_dir_all(&empty).unwrap();
    let all = keys::all_segments();
    assert_eq!(store.list(&all).await.unwrap().len(), 1);
    assert_eq!(
        store
            .remove_stale_temporaries(&keys::all_segments())
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        names(path.parent().unwrap()),
        ["0000000000000001-000000000001.seg"]
    );
    assert_eq!(
        names(&folder.path().join(all.as_str())),
        [path
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()],
        "folders that it created are removed too"
    );
}

#[tokio::test]
async fn a_temporary_that_a_process_is_writing_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().into(), WriteMode::Direct, 7);
    store.put(&key(1), bytes()).await.unwrap();
    let path = folder
        .path()
        .join(key(2).as_str())
        .with_extension("seg.0000000000000009-0.tmp");
    // A lock belongs to the open file: for another handle, even in this process, it is locked.
    let writing = File::create(&path).unwrap();
    writing.try_lock().unwrap();
    assert_eq!(
        store
            .remove_stale_temporaries(&keys::all_segments())
            .await
            .unwrap(),
        0
    );
    assert!(path.exists());
    drop(writing);
    assert_eq!(
        store
            .remove_stale_temporaries(&keys::all_segments())
            .await
            .unwrap(),
        1
    );
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_succeed_while_stale_temporaries_are_removed_continuously() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().into(), WriteMode::Unsynced, 7);
    let puts = async {
        for n in 0..500 {
            store.put(&key(n), bytes()).await.unwrap();
            store.delete(vec![key(n)]).await.unwrap();
        }
    };
    let sweeps = async {
        loop {
            store
                .remove_stale_temporaries(&keys::all_segments())
                .await
                .unwrap();
        }
    };
    tokio::select! {
        biased;
        () = puts => {}
        () = sweeps => {}
    }
    assert_only_the_reserve_is_left(folder.path());
}

#[tokio::test]
async fn deleting_the_last_object_removes_its_folders_but_not_the_base_directory() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().into(), WriteMode::Direct, 7);
    let marker = keys::marker(&exchange());
    store.put(&key(1), bytes()).await.unwrap();
    store.put(&marker, bytes()).await.unwrap();
    assert_eq!(store.delete(vec![key(1)]).await.unwrap(), 1);
    assert_eq!(names(&folder.path().join("v2")), ["markers"]);
    assert_eq!(
        store.delete(vec![marker, key(1)]).await.unwrap(),
        1,
        "one was missing already"
    );
    assert_only_the_reserve_is_left(folder.path());
}

#[tokio::test]
async fn a_base_directory_that_disappears_is_not_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    let store = LocalStore::new(base.clone(), WriteMode::Direct, 7);
    assert_eq!(
        store.list(&keys::all_segments()).await.unwrap(),
        [],
        "not created yet"
    );
    store.put(&key(1), bytes()).await.unwrap();
    fs::rename(&base, folder.path().join("moved")).unwrap();
    let error = store.list(&keys::all_segments()).await.unwrap_err();
    assert_eq!(error.kind, Unavailable);
    assert!(error.to_string().contains("still mounted"), "{error}");
}

#[tokio::test]
async fn a_file_in_place_of_the_folder_is_named_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base");
    fs::write(&base, b"a file").unwrap();
    let store = LocalStore::new(base.clone(), WriteMode::Direct, 7);
    let error = store.put(&key(1), bytes()).await.unwrap_err();
    assert_eq!(error.kind, Refused);
    assert!(
        error.to_string().contains(base.to_str().unwrap()),
        "{error}"
    );
    assert!(
        error.to_string().contains("is a file; remove it"),
        "{error}"
    );
}

/// Story: files were read, written and removed through a symbolic link in a base directory,
/// wherever it led.
#[tokio::test]
async fn no_symbolic_link_below_a_base_directory_is_followed() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let (base, outside) = (folder.path().join("base"), folder.path().join("outside"));
    let store = LocalStore::new(base.clone(), WriteMode::Cached, 7);
    let outer = LocalStore::new(outside.clone(), WriteMode::Cached, 7);
    let marker = keys::marker(&exchange());
    for key in [key(1), marker.clone()] {
        outer.put(&key, bytes()).await.unwrap();
    }
    let before = files_below(&outside);
    fs::create_dir_all(base.join("v2/segments")).unwrap();
    // The folder of an exchange's segments and that of all markers, then files in them, lead
    // outside.
    for is_file in [false, true] {
        for key in [key(1), marker.clone()] {
            let folder = Path::new(key.as_str()).parent().unwrap();
            if is_file {
                fs::remove_file(base.join(folder)).unwrap();
                fs::create_dir_all(base.join(folder)).unwrap();
                symlink(outside.join(key.as_str()), base.join(key.as_str())).unwrap();
            } else {
                symlink(outside.join(folder), base.join(folder)).unwrap();
            }
        }
        let refused = [
            store.get_range(&key(1), 0..4).await.unwrap_err(),
            store.get_tail(&key(1), 4).await.unwrap_err(),
            store.get_versioned(&marker).await.unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.kind, Refused, "{error}");
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
        let deleted = store.delete_if(&marker, None).await;
        assert!(matches!(deleted, Err(_) | Ok(DeleteOutcome::Absent)));
        assert_eq!(store.put(&key(1), bytes()).await.is_ok(), is_file);
        assert_eq!(store.delete(vec![key(1)]).await.is_ok(), is_file);
        let listed = store.list_folders(&keys::all_segments()).await.unwrap();
        assert!(listed.is_empty(), "{listed:?}");
        assert_eq!(files_below(&outside), before, "nothing outside has changed");
    }
}

#[tokio::test]
async fn the_base_directory_itself_may_be_a_symbolic_link() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let store = LocalStore::new(link, WriteMode::Direct, 7);
    store.put(&key(1), bytes()).await.unwrap();
    assert_eq!(store.list(&keys::all_segments()).await.unwrap().len(), 1);
    assert!(real.join(key(1).as_str()).exists());
}

/// All files below a folder with their contents.
fn files_below(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push((path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    files.sort();
    files
}

/// Story: pages were stored in folders of mode 0755 and files of mode 0644, readable by every user
/// of the machine, and pages are not encrypted.
#[tokio::test]
async fn folders_and_files_are_the_owners_alone_or_the_groups_too() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let new = |name: &str| LocalStore::new(folder.path().join(name), WriteMode::Direct, 7);
    let stores = [
        ("alone/base", new("alone/base"), 0o700, 0o600),
        (
            "group/base",
            new("group/base").shared_with_group(),
            0o770,
            0o660,
        ),
    ];
    for (base, store, of_folders, of_files) in stores {
        store.put(&key(1), bytes()).await.unwrap();
        let marker = keys::marker(&exchange());
        let absent = crate::store::Precondition::Absent;
        assert!(
            store
                .put_if(&marker, Bytes::from_static(b"{}"), &absent)
                .await
                .unwrap()
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let base = folder.path().join(base);
        for key in [key(1), marker] {
            let file = base.join(key.as_str());
            assert_eq!(mode(&file), of_files, "{key}");
            for folder in file
                .ancestors()
                .skip(1)
                .take_while(|f| f.starts_with(&base))
            {
                assert_eq!(mode(folder), of_folders, "{}", folder.display());
            }
        }
    }
}

/// Story: `stopover check --base-directory /proc/x` never ended: the folder could not be created
/// although its parent exists, and creating it was retried for ever.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error() {
    let store = LocalStore::new("/proc/x".into(), WriteMode::Direct, 7);
    let error = store.put(&key(1), bytes()).await.unwrap_err();
    assert_eq!(error.kind, Unavailable);
    assert!(error.to_string().contains("/proc/x"), "{error}");
}

#[tokio::test]
async fn keys_cannot_leave_the_base_directory() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().join("base"), WriteMode::Direct, 7);
    for bad in ["../x", "v2/../../x", "/etc/passwd", "a//b", "", "."] {
        let key = keys::Key::listed(bad);
        assert_eq!(
            store.put(&key, bytes()).await.unwrap_err().kind,
            Refused,
            "{bad}"
        );
        assert_eq!(
            store.get_tail(&key, 1).await.unwrap_err().kind,
            Refused,
            "{bad}"
        );
        assert_eq!(
            store.delete(vec![key]).await.unwrap_err().kind,
            Refused,
            "{bad}"
        );
    }
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn failures_of_the_system_are_reported_with_a_hint() {
    let reported = |code| {
        let error = std::io::Error::from_raw_os_error(code);
        let error = failure("writing", Path::new("/base/v1/x"), error);
        assert!(
            error.to_string().starts_with("writing /base/v1/x: "),
            "{error}"
        );
        assert!(error.settled, "{error}");
        (error.kind, error.to_string())
    };
    for (code, kind, hint) in [
        (libc::ENOSPC, Unavailable, "free space"),
        (libc::EDQUOT, Unavailable, "quota"),
        (libc::EACCES, Refused, "give the daemon's user the right"),
        (libc::EROFS, Refused, "mount it writable"),
        (libc::ENOTDIR, Refused, "is a file"),
        (libc::EMFILE, Unavailable, "ulimit -n"),
        (libc::EIO, Unavailable, ""),
        (libc::ENOENT, NotFound, ""),
    ] {
        let (reported, message) = reported(code);
        assert_eq!(reported, kind, "{message}");
        assert!(message.contains(hint), "{message}");
    }
}

#[tokio::test]
async fn an_object_too_large_for_a_marker_is_not_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().into(), WriteMode::Unsynced, 7);
    let marker = keys::marker(&exchange());
    store
        .put(&marker, vec![Bytes::from(vec![0; 2 << 20])])
        .await
        .unwrap();
    assert_eq!(
        store.get_versioned(&marker).await.unwrap_err().kind,
        Corrupt
    );
}

/// Files and folders that resemble Stopover's but are foreign.
const FOREIGN: [&str; 13] = [
    "v1/q/exchange.json",
    "v2/foo/bar.txt",
    "v2/notes.tmp",
    "v2/markers/README",
    "v2/markers/query_1-x",
    "v2/markers/query_1-x.tmp",
    "v2/markers/a-folder-named-like-an-exchange/x",
    "v2/segments/other-folder/x",
    "v2/segments/0000-query_1-x/0000000000000001-000000000001.seg",
    "v2/segments/0000-query_1-x/0000000000000001-000000000001.seg.0000000000000009-0.tmp",
    "v2/probes/mine",
    "v2/probes/0000000000000001.tmp",
    "v3/markers/q",
];

#[tokio::test]
async fn foreign_files_and_folders_survive_every_removal() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().into(), WriteMode::Direct, 7);
    let in_segments = [keys::segments(&exchange()).as_str(), "/notes.txt"].concat();
    let foreign = FOREIGN.into_iter().chain([in_segments.as_str()]);
    let foreign: Vec<_> = foreign.map(|name| folder.path().join(name)).collect();
    for path in &foreign {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "mine").unwrap();
    }
    let empty = [
        "v2/empty",
        "v2/markers/empty",
        "v2/segments/empty",
        "v2/probes/empty",
    ];
    let empty: Vec<_> = empty.iter().map(|name| folder.path().join(name)).collect();
    empty
        .iter()
        .for_each(|path| fs::create_dir_all(path).unwrap());
    store.put(&key(1), bytes()).await.unwrap();
    let marker = keys::marker(&exchange());
    store.put(&marker, bytes()).await.unwrap();
    store.delete(vec![key(1), marker]).await.unwrap();
    for below in [keys::markers(), keys::all_segments(), keys::probes()] {
        store.remove_stale_temporaries(&below).await.unwrap();
    }
    for path in foreign {
        assert_eq!(fs::read(&path).unwrap(), b"mine", "{}", path.display());
    }
    for path in empty {
        assert!(path.is_dir(), "{}", path.display());
    }
}

#[tokio::test]
async fn symbolic_links_are_neither_listed_nor_followed_nor_removed() {
    use std::os::unix::fs::symlink;
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (root, target) = (folder.path(), elsewhere.path());
    let store = LocalStore::new(root.into(), WriteMode::Direct, 7);
    // A link to a folder of segments, to a segment, and to a marker.
    let segments = keys::segments(&exchange());
    let name = key(1).as_str().rsplit_once('/').unwrap().1.to_owned();
    fs::write(target.join(&name), "mine").unwrap();
    fs::create_dir_all(root.join(keys::all_segments().as_str())).unwrap();
    symlink(target, root.join(segments.as_str())).unwrap();
    assert_eq!(store.list(&keys::all_segments()).await.unwrap(), []);
    assert_eq!(
        store.list_folders(&keys::all_segments()).await.unwrap(),
        [""; 0]
    );
    let listed = store.list(&segments).await.unwrap_err();
    assert!(
        listed.to_string().contains("is a symbolic link"),
        "{listed}"
    );
    assert_eq!(store.delete(vec![key(1)]).await.unwrap_err().kind, Refused);
    store.remove_stale_temporaries(&segments).await.unwrap_err();
    fs::remove_file(root.join(segments.as_str())).unwrap();

    let marker = keys::marker(&exchange());
    for key in [key(1), marker.clone()] {
        let path = root.join(key.as_str());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target.join(&name), path).unwrap();
    }
    assert_eq!(store.list(&segments).await.unwrap(), []);
    assert_eq!(store.list(&keys::markers()).await.unwrap(), []);
    assert_eq!(store.delete(vec![key(1), marker.clone()]).await.unwrap(), 0);
    store.delete_if(&marker, None).await.unwrap();
    for key in [key(1), marker] {
        assert!(root.join(key.as_str()).is_symlink(), "{key}");
    }
    assert_eq!(fs::read(target.join(&name)).unwrap(), b"mine");
}

#[tokio::test]
async fn on_a_full_file_system_markers_are_replaced_and_created_with_the_reserve() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().into(), WriteMode::Cached, 7);
    let reserve = folder.path().join("v2/markers/.keep");
    let [one, two, three] = ["one", "two", "three"].map(|id| keys::marker(&id.parse().unwrap()));
    let written = |text: &'static str| Bytes::from_static(text.as_bytes());
    store.fill(true);
    assert!(
        !store.can_write_when_full().await,
        "there is no room for a reserve"
    );
    store.fill(false);
    assert!(
        store
            .put_if(&one, written("1"), &Precondition::Absent)
            .await
            .unwrap()
    );
    assert_eq!(fs::metadata(&reserve).unwrap().len(), 4096);
    store.fill(true);
    assert!(store.can_write_when_full().await);
    let refused = store.put(&key(1), bytes()).await.unwrap_err();
    assert!(refused.to_string().contains("free space"), "{refused}");
    // A replacement leaves a reserve for the next one, and one that does not happen does, too.
    for text in ["1.1", "1.2", "1.3"] {
        let version = store.get_versioned(&one).await.unwrap().version;
        let version = Precondition::Version(version);
        assert!(store.put_if(&one, written(text), &version).await.unwrap());
        assert_eq!(store.get_versioned(&one).await.unwrap().bytes, text);
        assert!(store.can_write_when_full().await, "{text}");
    }
    // A new marker needs the reserve for itself.
    assert!(
        store
            .put_if(&two, written("2"), &Precondition::Absent)
            .await
            .unwrap()
    );
    assert!(!reserve.exists() && !store.can_write_when_full().await);
    let refused = store
        .put_if(&three, written("3"), &Precondition::Absent)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Unavailable);
    assert_eq!(store.get_versioned(&one).await.unwrap().bytes, "1.3");
    assert_eq!(store.get_versioned(&two).await.unwrap().bytes, "2");
    assert_eq!(store.list(&keys::markers()).await.unwrap().len(), 2);
    // Once there is space, a delete creates the next one.
    store.fill(false);
    assert_eq!(
        store.delete_if(&two, None).await.unwrap(),
        DeleteOutcome::Removed
    );
    assert!(store.can_write_when_full().await);
}

#[tokio::test]
async fn a_reserve_that_still_is_a_marker_is_not_written_to() {
    // Story: a replacement gives the old file a second name before the new one takes its name. If
    // the process dies in between, the reserve is the marker.
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().into(), WriteMode::Cached, 7);
    let [one, two] = ["one", "two"].map(|id| keys::marker(&id.parse().unwrap()));
    let content = Bytes::from_static(b"the marker");
    assert!(
        store
            .put_if(&one, content.clone(), &Precondition::Absent)
            .await
            .unwrap()
    );
    let reserve = folder.path().join("v2/markers/.keep");
    fs::remove_file(&reserve).unwrap();
    fs::hard_link(folder.path().join(one.as_str()), &reserve).unwrap();
    store.fill(true);
    assert!(!store.can_write_when_full().await);
    let other = Bytes::from_static(b"another");
    store
        .put_if(&two, other, &Precondition::Absent)
        .await
        .unwrap_err();
    assert_eq!(store.get_versioned(&one).await.unwrap().bytes, content);
}

/// Story: a base directory on the disk of the operating system filled it to the last byte, and
/// everything else on that machine failed with it.
#[tokio::test]
async fn below_min_free_a_file_system_accepts_no_segments_but_all_that_empties_it() {
    let folder = tempfile::tempdir().unwrap();
    let min_free = SizeOrPercent::Percent(10.0);
    let new = || LocalStore::new(folder.path().into(), WriteMode::Cached, 7);
    let store = new().with_min_free(min_free);
    store.set_space(1000 << 20, 101 << 20);
    store.put(&key(1), bytes()).await.unwrap();
    store.set_space(1000 << 20, 100 << 20);
    let refused = store.put(&key(2), bytes()).await.unwrap_err();
    assert_eq!((refused.kind, refused.full), (Unavailable, true));
    let message = refused.to_string();
    assert!(
        message.contains("100MiB free, and 100MiB must stay free (min_free = 10%)"),
        "{message}"
    );
    // Markers are announced, renewed, claimed and removed; what is stored is read and removed.
    let marker = keys::marker(&exchange());
    let content = Bytes::from_static(b"{}");
    let absent = Precondition::Absent;
    assert!(store.put_if(&marker, content, &absent).await.unwrap());
    assert!(store.can_write_when_full().await);
    assert_eq!(store.get_range(&key(1), 0..2).await.unwrap().len(), 2);
    assert_eq!(store.delete(vec![key(1), marker]).await.unwrap(), 2);
    store.set_space(1000 << 20, 200 << 20);
    store.put(&key(2), bytes()).await.unwrap();
    // A file system without a size is not full, and without a limit the space is not read.
    store.set_space(0, 0);
    store.put(&key(3), bytes()).await.unwrap();
    let unlimited = new().with_min_free(SizeOrPercent::Size(0));
    unlimited.set_space(1 << 20, 0);
    unlimited.put(&key(4), bytes()).await.unwrap();
}

#[tokio::test]
async fn one_that_is_full_before_anything_was_written_makes_its_reserve_when_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::new(folder.path().into(), WriteMode::Cached, 7);
    assert!(store.can_write_when_full().await);
    assert!(folder.path().join("v2/markers/.keep").exists());
}
