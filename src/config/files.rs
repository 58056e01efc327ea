//! Files that an operator names: the configuration itself, tokens, certificates, keys.
//!
//! Does: read one up to a limit, and tell whether every user may. Does not: check what it holds.
//! Invariant: no file, such as a device that never ends, takes more memory than the limit.

use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The largest file that is read. Bundles of all public CAs have a quarter of a MiB.
const MAX_FILE: u64 = 4 << 20;

/// The content of a file; may also be a pipe, which is read to its end.
///
/// # Errors
/// Those of the file system, and `FileTooLarge`.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read_file_up_to(path, MAX_FILE)
}

/// The same with a limit of its own, in bytes.
///
/// # Errors
/// As [`read_file`].
pub fn read_file_up_to(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        let what = format!("it has more than {} MiB", most >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(content)
}

/// The same as text.
///
/// # Errors
/// Also `InvalidData` if it is not UTF-8.
pub fn read_text_file(path: &Path) -> Result<String, io::Error> {
    let content = read_file(path)?;
    String::from_utf8(content).map_err(|_| {
        let what = "it is not text in UTF-8";
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// Permission bits of users other than owner and group.
const OTHERS: u32 = 0o007;

/// A warning about a file with a secret, if every user of the machine may read or change it. `what`
/// is what names the file.
pub fn exposure_warning(what: &str, path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let path = path.display();
    (mode & OTHERS != 0).then(|| {
        format!("every user of this machine may read or change {what} {path}: chmod o= it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_all_users_may_read_or_change_is_warned_about() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), permissions).unwrap();
            let warning = exposure_warning("a setting", file.path());
            assert_eq!(warning.is_some(), warned, "{mode:o}: {warning:?}");
        }
        assert_eq!(exposure_warning("a setting", Path::new("/no/such")), None);
    }

    /// Story: a setting that named `/dev/zero` took all memory of the machine.
    #[test]
    fn a_file_that_never_ends_is_refused_and_a_large_one_is_read() {
        let error = read_file(Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("more than 4 MiB"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![b'x'; 4 << 20]).unwrap();
        assert_eq!(read_text_file(file.path()).unwrap().len(), 4 << 20);
        std::fs::write(file.path(), b"\xff").unwrap();
        let error = read_text_file(file.path()).unwrap_err();
        assert!(error.to_string().contains("not text"), "{error}");
    }
}
