//! The memory that this process may use: the limit of its control group, or the machine's memory.
//!
//! Does: read `/proc` and `/sys/fs/cgroup` (versions 1 and 2). Does not: decide the budget; that is
//! [`auto_budget`], which is pure. Invariant: what cannot be read counts as "no limit known".

use std::path::Path;

/// Largest "auto" budget, bytes.
pub(super) const AUTO_BUDGET_MAX: u64 = 1 << 30;
/// Smallest "auto" budget, bytes: one batch and one read of default size fit into it.
pub(super) const AUTO_BUDGET_MIN: u64 = 64 << 20;

/// Memory limits of this process, bytes; `None` if unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Machine {
    /// Physical memory.
    pub memory: Option<u64>,
    /// Lowest limit of the control group and its ancestors.
    pub cgroup_limit: Option<u64>,
}

impl Machine {
    /// Reads the limits of the machine that this process runs on.
    pub fn detect() -> Self {
        Self::detect_under(Path::new("/"))
    }

    fn detect_under(root: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        Self {
            memory: read("proc/meminfo").and_then(|text| parse_meminfo(&text)),
            cgroup_limit: read("proc/self/cgroup").and_then(|text| cgroup_limit(root, &text)),
        }
    }

    /// The smaller of the two.
    pub fn usable(&self) -> Option<u64> {
        match (self.memory, self.cgroup_limit) {
            (Some(memory), Some(limit)) => Some(memory.min(limit)),
            (memory, limit) => memory.or(limit),
        }
    }
}

/// The meaning of `memory.budget = "auto"`: an eighth of the usable memory, at most 1 GiB (most of
/// the machine belongs to the worker beside the daemon), at least 64 MiB.
pub(super) fn auto_budget(machine: Machine) -> u64 {
    machine.usable().map_or(AUTO_BUDGET_MIN, |usable| {
        (usable / 8).clamp(AUTO_BUDGET_MIN, AUTO_BUDGET_MAX)
    })
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The lowest limit of the process's control group and its ancestors, in version 1 or 2.
fn cgroup_limit(root: &Path, memberships: &str) -> Option<u64> {
    memberships
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
            if controllers.is_empty() {
                lowest(&root.join("sys/fs/cgroup"), group, "memory.max")
            } else if controllers.split(',').any(|c| c == "memory") {
                let mount = root.join("sys/fs/cgroup/memory");
                lowest(&mount, group, "memory.limit_in_bytes")
            } else {
                None
            }
        })
        .min()
}

/// Walks from the group up to the mount. Inside a container the mount itself is the container's
/// group, and the path may name folders that are not visible there.
fn lowest(mount: &Path, group: &str, file: &str) -> Option<u64> {
    Path::new(group.trim_start_matches('/'))
        .ancestors()
        .filter(|path| !path.components().any(|c| c.as_os_str() == ".."))
        .filter_map(|path| std::fs::read_to_string(mount.join(path).join(file)).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        // Version 1 represents "no limit" as the largest multiple of the page size.
        .filter(|limit| *limit < 1 << 60)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       16777216 kB\nMemFree: 1 kB\n",
    );

    #[test]
    fn a_machine_without_limits_has_its_physical_memory() {
        let root = tree(&[MEMINFO, ("proc/self/cgroup", "0::/user.slice\n")]);
        let machine = Machine::detect_under(root.path());
        assert_eq!(
            (machine.memory, machine.cgroup_limit),
            (Some(16 << 30), None)
        );
        assert_eq!(auto_budget(machine), 1 << 30);
    }

    #[test]
    fn in_a_version_2_group_the_lowest_limit_up_the_tree_counts() {
        let root = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/pods/stopover\n"),
            ("sys/fs/cgroup/pods/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/pods/stopover/memory.max", "max\n"),
        ]);
        let machine = Machine::detect_under(root.path());
        assert_eq!(machine.cgroup_limit, Some(2 << 30));
        assert_eq!(auto_budget(machine), 256 << 20);
    }

    #[test]
    fn in_a_container_of_version_1_the_limit_lies_at_the_mount_although_the_path_is_the_hosts() {
        let root = tree(&[
            MEMINFO,
            (
                "proc/self/cgroup",
                "7:cpu,memory:/docker/0123\n1:name=x:/\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
        ]);
        let machine = Machine::detect_under(root.path());
        assert_eq!(machine.cgroup_limit, Some(1 << 30));
        assert_eq!(auto_budget(machine), 128 << 20);
    }

    #[test]
    fn the_version_1_number_for_no_limit_is_no_limit() {
        let root = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "7:memory:/\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert_eq!(Machine::detect_under(root.path()).cgroup_limit, None);
    }

    #[test]
    fn a_path_that_leaves_the_mount_is_not_followed() {
        let root = tree(&[
            ("proc/self/cgroup", "0::/../../outside\n"),
            ("sys/outside/memory.max", "5\n"),
        ]);
        assert_eq!(Machine::detect_under(root.path()).cgroup_limit, None);
    }

    #[test]
    fn tiny_and_unknown_machines_get_the_smallest_budget_that_works() {
        let tiny = Machine {
            memory: Some(256 << 20),
            cgroup_limit: None,
        };
        assert_eq!(auto_budget(tiny), AUTO_BUDGET_MIN);
        assert_eq!(auto_budget(Machine::default()), AUTO_BUDGET_MIN);
    }
}
