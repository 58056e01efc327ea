//! Whether new exchanges can be opened, and what prevents it.
//!
//! Does: decide that from the health of the base directories. Does not: test them (`base`) or
//! report it (`app`, `api`). Invariant: if it says that nothing prevents it, the last read of every
//! base directory and the last put or probe of at least one succeeded.

use super::base::BaseStatus;
use super::facade::Storage;

impl Storage {
    /// What prevents new exchanges from being opened, for people; nothing if they can be opened.
    /// Does no I/O.
    pub fn opening_obstacles(&self) -> Vec<String> {
        obstacles(&self.status())
    }

    /// Waits until the health of a base directory has changed since the last call. For one caller.
    pub async fn health_changed(&self) {
        self.inner.health_changed.notified().await;
    }
}

/// An announcement reads the markers in all base directories and writes one into any of them.
fn obstacles(bases: &[BaseStatus]) -> Vec<String> {
    let unreadable = bases.iter().filter_map(|base| {
        let error = base.unreadable.as_ref()?;
        Some(format!(
            "base directory {} cannot be read: {error}",
            base.name
        ))
    });
    let mut obstacles: Vec<String> = unreadable.collect();
    if obstacles.is_empty() && !bases.iter().any(|base| base.healthy) {
        obstacles.extend(bases.iter().map(|base| {
            let error = base.error.as_deref().unwrap_or("not probed yet");
            format!("base directory {} cannot be written: {error}", base.name)
        }));
    }
    obstacles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(name: &str, error: Option<&str>, unreadable: Option<&str>) -> BaseStatus {
        BaseStatus {
            name: name.parse().unwrap(),
            uri: format!("memory://{name}"),
            healthy: error.is_none(),
            full: false,
            error: error.map(str::to_owned),
            unreadable: unreadable.map(str::to_owned),
            ignores_preconditions: false,
            retention: None,
        }
    }

    #[test]
    fn one_base_directory_that_can_be_written_suffices_if_all_can_be_read() {
        let bases = [base("a", None, None), base("b", Some("disk full"), None)];
        assert_eq!(obstacles(&bases), [""; 0]);
        let full = [base("b", Some("disk full"), None)];
        assert_eq!(
            obstacles(&full),
            ["base directory b cannot be written: disk full"]
        );
    }

    #[test]
    fn one_that_cannot_be_read_prevents_it_and_is_named() {
        let gone = Some("no such bucket");
        let bases = [base("a", None, None), base("b", gone, gone)];
        assert_eq!(
            obstacles(&bases),
            ["base directory b cannot be read: no such bucket"]
        );
    }
}
