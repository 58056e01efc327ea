//! Hadoop's configuration files.
//!
//! Does: find `core-site.xml` and `hdfs-site.xml` as Hadoop does, read their properties. Does not:
//! know what they mean (`open`, `mounts`) or read the environment (its variables are given).
//! Invariant: a file that cannot be read as Hadoop reads it is an error with its path and line, not
//! a smaller configuration.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::read_file_up_to;

/// The files of a folder that are read, in this order; later ones override earlier ones.
const FILES: [&str; 2] = ["core-site.xml", "hdfs-site.xml"];

/// Largest file that is read, in bytes.
const MAX_SIZE: u64 = 16 << 20;

/// How deep a file may include others.
const MAX_DEPTH: u32 = 8;

/// How many references to other properties a value may have, one after another (as in Hadoop).
const MAX_REFERENCES: u32 = 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SiteError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is too large.
    #[error("{path} is larger than 16 MiB: no configuration of Hadoop")]
    TooLarge { path: PathBuf },
    /// It is not XML.
    #[error("{path} is not XML: {source}")]
    Xml {
        path: PathBuf,
        #[source]
        source: roxmltree::Error,
    },
    /// Its outermost element is another one.
    #[error("{path} is no configuration of Hadoop: its outermost element is not <configuration>")]
    NoConfiguration { path: PathBuf },
    /// Files include each other.
    #[error("{path} is included too deeply: do files include each other?")]
    TooDeep { path: PathBuf },
    /// The folder has neither file.
    #[error("{path} has neither core-site.xml nor hdfs-site.xml")]
    Empty { path: PathBuf },
}

/// The properties of Hadoop's files.
#[derive(Debug, Clone, Default)]
pub(super) struct Site {
    pub properties: BTreeMap<String, String>,
    /// Where they come from.
    pub files: Vec<PathBuf>,
}

impl Site {
    /// Of a folder that the operator named, which must have one of the files.
    ///
    /// # Errors
    /// If it has none, or one cannot be read.
    pub(super) fn of_folder(folder: &Path) -> Result<Self, SiteError> {
        let site = Self::of_found(folder)?;
        match site.files.is_empty() {
            true => Err(SiteError::Empty {
                path: folder.to_owned(),
            }),
            false => Ok(site),
        }
    }

    /// Of a folder that the environment names, as far as it has the files.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(super) fn of_found(folder: &Path) -> Result<Self, SiteError> {
        let files = FILES.map(|name| folder.join(name));
        let files: Vec<_> = files.into_iter().filter(|file| file.exists()).collect();
        Self::of_files(&files)
    }

    /// Of these files.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(super) fn of_files(files: &[PathBuf]) -> Result<Self, SiteError> {
        let mut site = Self::default();
        for file in files {
            read(file, 0, &mut site.properties)?;
            site.files.push(file.clone());
        }
        let expanded = site.properties.iter();
        let expanded = expanded.map(|(name, value)| (name.clone(), site.expand(value)));
        site.properties = expanded.collect();
        Ok(site)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.properties.get(name)?.as_str();
        (!value.is_empty()).then_some(value)
    }

    /// The parts of a list that commas separate.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let value = self.get(name).unwrap_or_default();
        let parts = value.split(',').map(str::trim);
        parts
            .filter(|part| !part.is_empty())
            .map(Into::into)
            .collect()
    }

    /// The files, for messages.
    pub(super) fn shown(&self) -> String {
        match self.files.is_empty() {
            true => "no file of Hadoop's configuration was found (set config_dir, config_files or \
                     HADOOP_CONF_DIR)"
                .into(),
            false => {
                let files = self.files.iter().map(|file| file.display().to_string());
                format!("read from {}", files.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Replaces references to other properties, `${name}`; unknown ones stay. What the system
    /// properties of Java would be is not known here.
    fn expand(&self, value: &str) -> String {
        let mut value = value.to_owned();
        for _ in 0..MAX_REFERENCES {
            let Some(start) = value.find("${") else { break };
            let Some(length) = value[start..].find('}') else {
                break;
            };
            let name = &value[start + 2..start + length];
            let Some(known) = self.properties.get(name) else {
                break;
            };
            value = format!("{}{known}{}", &value[..start], &value[start + length + 1..]);
        }
        value
    }
}

fn read(
    path: &Path,
    depth: u32,
    properties: &mut BTreeMap<String, String>,
) -> Result<(), SiteError> {
    let own = || path.to_owned();
    if depth > MAX_DEPTH {
        return Err(SiteError::TooDeep { path: own() });
    }
    let unreadable = |source| SiteError::Read {
        path: own(),
        source,
    };
    let content = read_file_up_to(path, MAX_SIZE).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => SiteError::TooLarge { path: own() },
        _ => unreadable(error),
    })?;
    let text = String::from_utf8(content);
    let text =
        text.map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error)))?;
    let options = roxmltree::ParsingOptions {
        allow_dtd: true,
        ..Default::default()
    };
    let document = roxmltree::Document::parse_with_options(&text, options);
    let document = document.map_err(|source| SiteError::Xml {
        path: own(),
        source,
    })?;
    let root = document.root_element();
    if root.tag_name().name() != "configuration" {
        return Err(SiteError::NoConfiguration { path: own() });
    }
    for element in root.children().filter(roxmltree::Node::is_element) {
        match element.tag_name().name() {
            "property" => add(&element, properties),
            "include" => {
                let file = element.attribute("href").unwrap_or_default();
                let folder = path.parent().unwrap_or(Path::new("/"));
                read(&folder.join(file), depth + 1, properties)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// One `<property>`; a value that was marked as final is not replaced by a later one, as long as it
/// is in the same place, so the mark is not read: daemons have no files of their own after these.
fn add(property: &roxmltree::Node<'_, '_>, properties: &mut BTreeMap<String, String>) {
    let text = |name: &str| {
        let element = property.children().find(|c| c.tag_name().name() == name);
        let text = element.map(|element| element.text().unwrap_or_default().trim().to_owned());
        text.or_else(|| property.attribute(name).map(|text| text.trim().to_owned()))
    };
    if let (Some(name), Some(value)) = (text("name"), text("value"))
        && !name.is_empty()
    {
        properties.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn site(text: &str) -> Result<Site, SiteError> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("hdfs-site.xml"), text).unwrap();
        Site::of_folder(folder.path())
    }

    #[test]
    fn properties_are_read_as_hadoop_reads_them() {
        let site = site(
            "<?xml version=\"1.0\"?>\n<!-- comment -->\n<configuration>
              <property><name> a </name><value>\n one \n</value></property>
              <property><name>list</name><value>x, y ,,z</value><final>true</final></property>
              <property name=\"b\" value=\"${a}:${c}\"/>
              <property><name>c</name><value>2</value></property>
              <property><name>unknown</name><value>${user.home}/x</value></property>
              <property><name>empty</name><value></value></property>
            </configuration>",
        );
        let site = site.unwrap();
        assert_eq!(site.get("a"), Some("one"));
        assert_eq!(site.get("b"), Some("one:2"));
        assert_eq!(site.get("unknown"), Some("${user.home}/x"));
        assert_eq!(site.get("empty"), None);
        assert_eq!(site.list("list"), ["x", "y", "z"]);
    }

    #[test]
    fn the_later_file_overrides_the_earlier_and_included_files_count() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, body: &str| {
            let text = format!("<configuration>{body}</configuration>");
            fs::write(folder.path().join(name), text).unwrap();
        };
        let property = |name: &str, value: &str| {
            format!("<property><name>{name}</name><value>{value}</value></property>")
        };
        write("core-site.xml", &(property("a", "1") + &property("b", "1")));
        let include =
            "<xi:include xmlns:xi=\"http://www.w3.org/2001/XInclude\" href=\"more.xml\"/>";
        write("hdfs-site.xml", &(property("b", "2") + include));
        write("more.xml", &property("c", "3"));
        let site = Site::of_folder(folder.path()).unwrap();
        assert_eq!(
            [site.get("a"), site.get("b"), site.get("c")],
            [Some("1"), Some("2"), Some("3")]
        );
        write("more.xml", include);
        let error = Site::of_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains("more.xml is included too deeply"), "{error}");
    }

    /// Story: the size of a device is 0, and what it gives never ends.
    #[test]
    fn a_device_that_never_ends_is_larger_than_any_configuration() {
        let error = Site::of_files(&["/dev/zero".into()]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/dev/zero is larger than 16 MiB"), "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_with_its_place() {
        let error = site("<configuration><property></configuration>").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("hdfs-site.xml is not XML") && text.contains("1:"),
            "{text}"
        );
        let error = site("<html/>").unwrap_err().to_string();
        assert!(error.contains("is not <configuration>"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        let error = Site::of_folder(empty.path()).unwrap_err().to_string();
        assert!(
            error.contains("neither core-site.xml nor hdfs-site.xml"),
            "{error}"
        );
        assert!(Site::of_found(empty.path()).unwrap().files.is_empty());
    }
}
