//! Mount tables: where a folder of `viewfs://` lies.
//!
//! Pure. Does: find the link above a folder. Does not: read files (`site`). Invariant: a folder is
//! resolved only if all below it lies in one place.

use super::site::Site;

/// Why a folder of a mount table is no base directory.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MountError {
    /// There are mount points below it.
    #[error("lies above the mount point /{0}: choose a folder below it")]
    Above(String),
    /// It leads nowhere.
    #[error("is below no mount point: {links}")]
    Below {
        /// Those that there are.
        links: String,
    },
    /// Not to HDFS.
    #[error("leads to {0}, which is not hdfs://")]
    Elsewhere(String),
}

/// Resolves a path of a mount table to a URI of HDFS.
///
/// # Errors
/// If not all below it lies in one place of HDFS.
pub(super) fn resolve(site: &Site, table: &str, path: &str) -> Result<String, MountError> {
    let prefix = format!("fs.viewfs.mounttable.{table}.");
    let mut links: Vec<(&str, &str)> = Vec::new();
    let mut fallback = None;
    for (name, target) in &site.properties {
        match name.strip_prefix(&prefix) {
            Some("linkMergeSlash") => links.push(("", target)),
            Some("linkFallback") => fallback = Some(target.as_str()),
            Some(rest) => {
                if let Some(mount) = rest.strip_prefix("link./") {
                    links.push((mount.trim_end_matches('/'), target));
                }
            }
            None => {}
        }
    }
    let path = path.trim_matches('/');
    let shown = || {
        let all: Vec<_> = links.iter().map(|(mount, _)| format!("/{mount}")).collect();
        match all.is_empty() {
            true => format!("the mount table {table} has no link ({})", site.shown()),
            false => format!("the mount table {table} has {}", all.join(", ")),
        }
    };
    let is_above = |mount: &str| below(path, mount).is_some_and(|rest| !rest.is_empty());
    if let Some((mount, _)) = links.iter().find(|(mount, _)| is_above(mount)) {
        return Err(MountError::Above((*mount).to_owned()));
    }
    let above = links
        .iter()
        .filter_map(|(mount, target)| Some((*target, below(mount, path)?)));
    let nearest = above.min_by_key(|(_, rest)| rest.len());
    let (target, rest) = match (nearest, fallback) {
        (Some(found), _) => found,
        (None, Some(target)) => (target, path),
        (None, None) => return Err(MountError::Below { links: shown() }),
    };
    if !target.starts_with("hdfs://") {
        return Err(MountError::Elsewhere(target.to_owned()));
    }
    Ok(format!("{}/{rest}", target.trim_end_matches('/')))
}

/// What a path has below another one; `None` if it lies elsewhere.
fn below<'a>(outer: &str, path: &'a str) -> Option<&'a str> {
    if outer.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(outer)?;
    match rest.strip_prefix('/') {
        Some(rest) => Some(rest),
        None => rest.is_empty().then_some(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(links: &[(&str, &str)]) -> Site {
        let prefix = "fs.viewfs.mounttable.cluster.";
        let properties = links
            .iter()
            .map(|(name, target)| (format!("{prefix}{name}"), (*target).to_owned()));
        Site {
            properties: properties.collect(),
            ..Site::default()
        }
    }

    #[test]
    fn the_nearest_link_above_a_folder_is_followed() {
        let site = site(&[
            ("link./data", "hdfs://one/d"),
            ("link./data/spool", "hdfs://two:8020/"),
            ("linkFallback", "hdfs://rest/all"),
        ]);
        let to = |path: &str| resolve(&site, "cluster", path);
        assert_eq!(to("data/x/y").unwrap(), "hdfs://one/d/x/y");
        assert_eq!(to("data/spool/x").unwrap(), "hdfs://two:8020/x");
        assert_eq!(to("database/x").unwrap(), "hdfs://rest/all/database/x");
        let error = to("data").unwrap_err().to_string();
        assert!(
            error.contains("above the mount point /data/spool"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_that_leads_nowhere_is_refused_with_the_links_that_there_are() {
        let site = site(&[
            ("link./data", "hdfs://one/d"),
            ("link./s3", "s3a://bucket/"),
        ]);
        let error = resolve(&site, "cluster", "spool").unwrap_err().to_string();
        assert!(
            error.contains("below no mount point") && error.contains("/data"),
            "{error}"
        );
        let error = resolve(&site, "other", "spool").unwrap_err().to_string();
        assert!(error.contains("mount table other has no link"), "{error}");
        let error = resolve(&site, "cluster", "s3/x").unwrap_err().to_string();
        assert!(error.contains("s3a://bucket/"), "{error}");
    }
}
