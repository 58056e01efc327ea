//! Opening `hdfs://nameservice/path`, `hdfs://host:port/path` and `viewfs://table/path`.
//!
//! Does: turn options and Hadoop's files into the settings of a client, find the NameNodes. Does
//! not: read the environment itself, or connect. Invariant: what no NameNode has to be asked for is
//! checked here, so that a configuration with a wrong name is refused at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::backend::HdfsStore;
use super::mounts;
use super::name_nodes::{NameNodes, Settings};
use super::site::Site;
use crate::config::{BaseUri, Scheme, Secret};
use crate::runtime::Runtime;
use crate::store::StoreLimits;
use crate::store::deadline::DeadlinePolicy;
use crate::store::opened::OpenedStore;
use crate::store::options::Options;

/// The port of a NameNode that Hadoop assumes.
const DEFAULT_PORT: u16 = 8020;

/// Where Hadoop's files are named in the environment, and the folder below that.
const VARIABLES: [(&str, &str); 2] = [("HADOOP_CONF_DIR", ""), ("HADOOP_HOME", "etc/hadoop")];

/// Opens a base directory; `None` if its options are wrong or contradict each other, which is
/// reported.
pub(in crate::store) fn open(
    uri: &BaseUri,
    options: &mut Options,
    deadline: DeadlinePolicy,
    runtime: &Runtime,
) -> Option<OpenedStore> {
    let variables =
        options.take_variables(|name| name.starts_with("HADOOP_").then(|| name.to_owned()));
    let site = find_site(options, &variables);
    let replication = options.take_number("replication");
    let user = text(options, "user").or_else(|| variable(&variables, "HADOOP_USER_NAME"));
    let mut settings = Settings {
        user: user.or_else(|| variable(&variables, "HADOOP_PROXY_USER")),
        ..kerberos(options)
    };
    let site = site?;
    let target = match uri.scheme() {
        Scheme::ViewFs => {
            match mounts::resolve(&site, uri.bucket(), &decoded(uri.path(), options)?) {
                Ok(target) => target,
                Err(reason) => {
                    options.fault("its `uri`", format!("it {reason}"));
                    return None;
                }
            }
        }
        _ => format!(
            "{}/{}",
            authority(uri.bucket(), uri.port()),
            decoded(uri.path(), options)?
        ),
    };
    let (url, path) = split(&target, options)?;
    settings.name_nodes = name_nodes(&url, &site, options)?;
    settings.url = match settings.name_nodes {
        Some(_) => url.clone(),
        None => address(&url, &site),
    };
    settings.properties = properties(&site, deadline.timeout);
    check_kerberos(&settings, options);
    if !options.is_sound() {
        return None;
    }
    let nodes = NameNodes::new(settings, deadline, runtime.clock.clone());
    let replication = replication.and_then(|copies| u32::try_from(copies).ok());
    let location = format!("{url}{path}");
    let store = HdfsStore::new(nodes, path, replication, runtime.random.next_u64());
    Some(OpenedStore {
        location,
        store: Arc::new(store),
        limits: StoreLimits {
            deadline,
            ..StoreLimits::REMOTE
        },
        validity: None,
    })
}

fn variable(variables: &[(String, Secret)], name: &str) -> Option<String> {
    let found = variables.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.expose().to_owned())
}

fn text(options: &mut Options, name: &str) -> Option<String> {
    options.take(name).map(|value| value.expose().to_owned())
}

fn kerberos(options: &mut Options) -> Settings {
    Settings {
        principal: text(options, "kerberos_principal"),
        keytab: text(options, "kerberos_keytab"),
        cache: text(options, "kerberos_cache"),
        ..Settings::default()
    }
}

/// Hadoop's files: those that are named here, else those that the environment names, else none.
fn find_site(options: &mut Options, variables: &[(String, Secret)]) -> Option<Site> {
    let folder = text(options, "config_dir");
    let files = text(options, "config_files");
    let (named, read) = match (folder, files) {
        (Some(_), Some(_)) => {
            options.refuse("config_dir", "and `config_files` contradict; set one");
            return None;
        }
        (Some(folder), None) => ("config_dir", Site::of_folder(Path::new(&folder))),
        (None, Some(files)) => {
            let files: Vec<PathBuf> = files.split(',').map(|file| file.trim().into()).collect();
            ("config_files", Site::of_files(&files))
        }
        (None, None) => {
            let found = VARIABLES
                .iter()
                .find_map(|(name, below)| Some((*name, variable(variables, name)?, below)));
            let Some((name, folder, below)) = found else {
                return Some(Site::default());
            };
            match Site::of_found(&Path::new(&folder).join(below)) {
                Ok(site) => return Some(site),
                Err(error) => {
                    options.fault(format!("environment variable {name}"), error.to_string());
                    return None;
                }
            }
        }
    };
    match read {
        Ok(site) => Some(site),
        Err(error) => {
            options.refuse(named, &error.to_string());
            None
        }
    }
}

/// A path of a URI without its escapes.
fn decoded(path: &str, options: &mut Options) -> Option<String> {
    // What Hadoop refuses in names, and what would leave the folder.
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
    let Ok(decoded) = decoded else {
        options.fault("its `uri`", "the path of a base directory must be UTF-8");
        return None;
    };
    let bad = decoded
        .split('/')
        .any(|part| matches!(part, "" | "." | ".."));
    if bad || decoded.contains([':', '\0']) {
        options.fault(
            "its `uri`",
            "HDFS allows no empty part, `.`, `..` or `:` in a path",
        );
        return None;
    }
    Some(decoded.into_owned())
}

fn authority(host: &str, port: Option<u16>) -> String {
    match port {
        Some(port) => format!("hdfs://{host}:{port}"),
        None => format!("hdfs://{host}"),
    }
}

/// A URI of HDFS as its authority and its path.
fn split(target: &str, options: &mut Options) -> Option<(String, String)> {
    let rest = target.strip_prefix("hdfs://").unwrap_or(target);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let url = format!("hdfs://{host}");
    let path = path.trim_matches('/');
    if path.is_empty() {
        options.fault(
            "its `uri`",
            "the root of HDFS cannot be a base directory: name a folder",
        );
        return None;
    }
    match Url::parse(&url) {
        Ok(parsed) if parsed.host_str().is_some_and(|host| !host.is_empty()) => {
            Some((url, format!("/{path}")))
        }
        _ => {
            options.fault("its `uri`", format!("{url} names no NameNode"));
            None
        }
    }
}

/// The property that lists the NameNodes of a highly available nameservice, and the list; `None`
/// inside if it is none.
fn name_nodes(
    url: &str,
    site: &Site,
    options: &mut Options,
) -> Option<Option<(String, Vec<String>)>> {
    let host = url.trim_start_matches("hdfs://");
    let property = format!("dfs.ha.namenodes.{host}");
    let all = site.list(&property);
    if all.is_empty() {
        return check_nameservice(host, site, options).then_some(None);
    }
    for id in &all {
        let address = format!("dfs.namenode.rpc-address.{host}.{id}");
        if site.get(&address).is_none() {
            let shown = site.shown();
            options.fault(
                "its `uri`",
                format!("{property} names {id}, but there is no {address} ({shown})"),
            );
            return None;
        }
    }
    Some(Some((property, all)))
}

/// A name that is none of the nameservices, but nearly, is a misspelling: a host would be too far
/// from them. Another one may be a host.
fn check_nameservice(host: &str, site: &Site, options: &mut Options) -> bool {
    let known = site.list("dfs.nameservices");
    if host.contains([':', '.']) || known.iter().any(|name| name == host) {
        return true;
    }
    let near = |name: &&String| strsim::normalized_damerau_levenshtein(name, host) > 0.6;
    match known.iter().find(near) {
        Some(near) => {
            let shown = site.shown();
            let reason = format!("no nameservice is called {host}; did you mean {near}? ({shown})");
            options.fault("its `uri`", reason);
            false
        }
        None => true,
    }
}

/// The address of a single NameNode.
fn address(url: &str, site: &Site) -> String {
    let host = url.trim_start_matches("hdfs://");
    if host.contains(':') {
        return url.to_owned();
    }
    match site.get(&format!("dfs.namenode.rpc-address.{host}")) {
        Some(address) => format!("hdfs://{address}"),
        None => format!("hdfs://{host}:{DEFAULT_PORT}"),
    }
}

/// The properties of the client. Two are not the files': reads go to the active NameNode, as an
/// observer may not know yet what another daemon has written; and a DataNode that sends nothing for
/// a third of the timeout of the store is given up, so that another one can still answer.
fn properties(site: &Site, timeout: Duration) -> std::collections::BTreeMap<String, String> {
    let mut properties = site.properties.clone();
    properties.retain(|name, _| !name.starts_with("dfs.client.failover.proxy.provider."));
    let millis = (timeout / 3).as_millis().to_string();
    properties.insert("dfs.client.socket-timeout".into(), millis);
    properties
}

fn check_kerberos(settings: &Settings, options: &mut Options) {
    let secure = settings.properties.get("hadoop.security.authentication");
    let secure = secure.is_some_and(|value| value != "simple");
    let named = [
        ("kerberos_keytab", &settings.keytab),
        ("kerberos_cache", &settings.cache),
        ("kerberos_principal", &settings.principal),
    ];
    let Some((first, _)) = named.iter().find(|(_, value)| value.is_some()) else {
        return;
    };
    if !secure {
        let reason = "is set, but hadoop.security.authentication in core-site.xml is not kerberos";
        options.refuse(first, reason);
    } else if settings.principal.is_none() {
        options.refuse(first, "needs `kerberos_principal`");
    }
}
