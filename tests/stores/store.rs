//! The stores that have a row in the table.

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::emulators::Kind;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// A folder of this machine.
    Folder,
    Server(Kind),
}

impl Store {
    pub const ALL: [Self; 6] = [
        Self::Server(Kind::Versitygw),
        Self::Server(Kind::Minio),
        Self::Server(Kind::Azurite),
        Self::Server(Kind::FakeGcs),
        Self::Server(Kind::Hadoop),
        Self::Folder,
    ];

    /// What the tests call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Folder => "local",
            Self::Server(kind) => kind.name(),
        }
    }

    /// The service whose interface it has.
    pub fn service(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Server(kind) => kind.service(),
        }
    }

    /// Of a folder, the system that has it: which file system it is on differs between machines.
    pub fn version(self) -> Result<String> {
        match self {
            Self::Folder => Ok("Linux".into()),
            Self::Server(kind) => kind.version(),
        }
    }
}

impl ValueEnum for Store {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let value = PossibleValue::new(self.name());
        Some(match self {
            Self::Server(Kind::Hadoop) => value.alias("hdfs"),
            _ => value,
        })
    }
}
