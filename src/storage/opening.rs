//! Whether new exchanges can be opened, and what prevents it.
//!
//! Does: decide that from the health of the base directories. Does not: test them (`base`) or
//! report it (`app`, `api`). Invariant: if there is no obstacle, the last read and the last put or
//! probe of at least one base directory succeeded.

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

/// An announcement needs one base directory that can be read and written: the others are left out
/// of the set.
fn obstacles(bases: &[BaseStatus]) -> Vec<String> {
    if bases
        .iter()
        .any(|base| base.healthy && base.unreadable.is_none())
    {
        return Vec::new();
    }
    let obstacle = |base: &BaseStatus| match &base.unreadable {
        Some(error) => format!("base directory {} cannot be read: {error}", base.name),
        None => {
            let error = base.error.as_deref().unwrap_or("not probed yet");
            format!("base directory {} cannot be written: {error}", base.name)
        }
    };
    bases.iter().map(obstacle).collect()
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
    fn one_base_directory_that_works_suffices_whatever_the_others_do() {
        let bases = [base("a", None, None), base("b", Some("disk full"), None)];
        assert_eq!(obstacles(&bases), [""; 0]);
        let full = [base("b", Some("disk full"), None)];
        assert_eq!(
            obstacles(&full),
            ["base directory b cannot be written: disk full"]
        );
    }

    #[test]
    fn if_none_works_each_is_named_with_its_reason() {
        let gone = Some("no such bucket");
        let bases = [base("a", None, None), base("b", gone, gone)];
        assert_eq!(obstacles(&bases), [""; 0]);
        let bases = [base("a", Some("disk full"), None), base("b", gone, gone)];
        assert_eq!(
            obstacles(&bases),
            [
                "base directory a cannot be written: disk full",
                "base directory b cannot be read: no such bucket"
            ]
        );
    }
}
