//! Trino's catalogs on the real systems, and the systems themselves.
//!
//! Does: write the catalog properties of each system. The systems run until [`Systems`] is dropped.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::databases::Database;
use crate::node::{Size, properties};
use crate::observed::Events;
use crate::store::Gateway;
use crate::traces::Traces;

/// A catalog's properties under `etc/catalog/`, and the plugins that it needs.
pub struct Catalog {
    pub name: &'static str,
    pub plugins: Vec<&'static str>,
    pub properties: String,
}

/// What nodes have beyond the minimum.
#[derive(Default)]
pub struct Extras {
    /// Catalogs besides tpch.
    pub catalogs: Vec<Catalog>,
    /// Where Trino sends its events, if anywhere.
    pub event_uri: Option<String>,
    /// Where Trino and the daemons send their spans, if anywhere.
    pub collector: Option<String>,
    /// The size of nodes and daemons.
    pub size: Size,
    many: bool,
}

impl Extras {
    /// Nothing but this size.
    pub fn sized(size: Size) -> Self {
        Self {
            size,
            ..Self::default()
        }
    }

    /// With a dozen plugins a node spends most of its time on loading classes, and the queries here
    /// are small: the C1 compiler alone halves the start-up time.
    pub fn jvm_options(&self) -> Vec<&'static str> {
        match self.many {
            true => vec!["-XX:TieredStopAtLevel=1"],
            false => Vec::new(),
        }
    }
}

/// Which systems a run needs; the bounded run of the test command needs fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// PostgreSQL, Iceberg and tpcds.
    Bounded,
    All,
}

/// The data that is written through Trino: databases, a bucket, a folder.
pub struct Systems {
    extent: Extent,
    postgresql: Database,
    mariadb: Option<Database>,
    lake: Gateway,
    warehouse: PathBuf,
    descriptions: PathBuf,
    events: Events,
    traces: Traces,
}

/// The tables that Iceberg's JDBC catalog expects in its database.
const ICEBERG_TABLES: &str = "\
CREATE TABLE iceberg_tables (catalog_name VARCHAR(255) NOT NULL, \
table_namespace VARCHAR(255) NOT NULL, table_name VARCHAR(255) NOT NULL, \
metadata_location VARCHAR(1000), previous_metadata_location VARCHAR(1000), \
iceberg_type VARCHAR(5), PRIMARY KEY (catalog_name, table_namespace, table_name));
CREATE TABLE iceberg_namespace_properties (catalog_name VARCHAR(255) NOT NULL, \
namespace VARCHAR(255) NOT NULL, property_key VARCHAR(255) NOT NULL, \
property_value VARCHAR(1000), PRIMARY KEY (catalog_name, namespace, property_key));
";

/// A topic that does not exist: the only statement on it is refused.
const KAFKA_TABLE: &str = r#"{"tableName": "events", "schemaName": "default",
  "topicName": "events", "message": {"dataFormat": "json", "fields": [
    {"name": "k", "mapping": "k", "type": "BIGINT"}]}}
"#;

const LAKE: &str = "lake";

impl Systems {
    pub async fn start(extent: Extent, work: &Path) -> Result<Self> {
        let lake = work.join("lake");
        let warehouse = work.join("warehouse");
        let descriptions = work.join("kafka");
        for folder in [&lake.join(LAKE), &warehouse, &descriptions] {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(descriptions.join("events.json"), KAFKA_TABLE)?;
        Ok(Self {
            extent,
            postgresql: Database::postgresql(work, ICEBERG_TABLES).await?,
            mariadb: match extent {
                Extent::Bounded => None,
                Extent::All => Some(Database::mariadb(work).await?),
            },
            lake: Gateway::start("lake", &lake, work).await?,
            warehouse,
            descriptions,
            events: Events::listen().await?,
            traces: Traces::listen().await?,
        })
    }

    pub fn extras(&self) -> Extras {
        Extras {
            catalogs: self.catalogs(),
            event_uri: Some(self.events.uri.clone()),
            collector: Some(self.traces.url.clone()),
            size: Size::Small,
            many: self.extent == Extent::All,
        }
    }

    pub fn events(&self) -> Events {
        self.events.clone()
    }

    pub fn traces(&self) -> Traces {
        self.traces.clone()
    }

    fn catalogs(&self) -> Vec<Catalog> {
        let mut catalogs = vec![jmx(), self.tpcds(), self.postgresql(), self.iceberg()];
        if self.extent == Extent::All {
            catalogs.extend([self.delta(), self.hive(), self.duckdb(), self.kafka()]);
        }
        catalogs.extend(self.mariadb.iter().flat_map(mariadb));
        catalogs
    }

    pub fn logs(&self) -> Vec<(String, PathBuf)> {
        let databases = self.mariadb.iter().chain([&self.postgresql]);
        databases
            .map(Database::log)
            .chain([self.lake.log()])
            .collect()
    }

    fn tpcds(&self) -> Catalog {
        catalog(
            "tpcds",
            "tpcds",
            &[("tpcds.splits-per-node", "2".to_owned())],
        )
    }

    fn postgresql_url(&self) -> String {
        format!(
            "jdbc:postgresql://127.0.0.1:{}/postgres",
            self.postgresql.port
        )
    }

    fn postgresql(&self) -> Catalog {
        catalog(
            "postgresql",
            "postgresql",
            &[
                ("connection-url", self.postgresql_url()),
                ("connection-user", "trino".to_owned()),
            ],
        )
    }

    fn s3(&self) -> Vec<(&'static str, String)> {
        let (access_key, secret_key) = Gateway::KEYS;
        vec![
            ("fs.native-s3.enabled", "true".to_owned()),
            ("s3.endpoint", self.lake.url()),
            ("s3.region", "us-east-1".to_owned()),
            ("s3.path-style-access", "true".to_owned()),
            ("s3.aws-access-key", access_key.to_owned()),
            ("s3.aws-secret-key", secret_key.to_owned()),
        ]
    }

    fn iceberg(&self) -> Catalog {
        let mut pairs = self.s3();
        pairs.extend([
            ("iceberg.catalog.type", "jdbc".to_owned()),
            ("iceberg.jdbc-catalog.catalog-name", "lake".to_owned()),
            (
                "iceberg.jdbc-catalog.driver-class",
                "org.postgresql.Driver".to_owned(),
            ),
            ("iceberg.jdbc-catalog.connection-url", self.postgresql_url()),
            ("iceberg.jdbc-catalog.connection-user", "trino".to_owned()),
            (
                "iceberg.jdbc-catalog.connection-password",
                "none".to_owned(),
            ),
            (
                "iceberg.jdbc-catalog.default-warehouse-dir",
                format!("s3://{LAKE}/iceberg"),
            ),
        ]);
        catalog("iceberg", "iceberg", &pairs)
    }

    fn delta(&self) -> Catalog {
        let mut pairs = self.s3();
        pairs.extend([
            ("hive.metastore", "file".to_owned()),
            ("hive.metastore.catalog.dir", format!("s3://{LAKE}/delta")),
            ("hive.metastore.disable-location-checks", "true".to_owned()),
        ]);
        catalog("delta", "delta_lake", &pairs)
    }

    fn hive(&self) -> Catalog {
        catalog(
            "hive",
            "hive",
            &[
                ("hive.metastore", "file".to_owned()),
                ("hive.metastore.catalog.dir", "local:///hive".to_owned()),
                ("hive.metastore.disable-location-checks", "true".to_owned()),
                ("fs.native-local.enabled", "true".to_owned()),
                ("local.location", self.warehouse.display().to_string()),
            ],
        )
    }

    /// In memory: each node has its own database, which suffices for a refusal.
    fn duckdb(&self) -> Catalog {
        catalog(
            "duckdb",
            "duckdb",
            &[("connection-url", "jdbc:duckdb:".to_owned())],
        )
    }

    fn kafka(&self) -> Catalog {
        catalog(
            "kafka",
            "kafka",
            &[
                ("kafka.nodes", "127.0.0.1:9".to_owned()),
                ("kafka.table-names", "default.events".to_owned()),
                (
                    "kafka.table-description-dir",
                    self.descriptions.display().to_string(),
                ),
            ],
        )
    }
}

/// The same server through the MariaDB connector and through the MySQL connector.
fn jmx() -> Catalog {
    catalog("jmx", "jmx", &[])
}

fn mariadb(database: &Database) -> Vec<Catalog> {
    let user = |url: String| {
        [
            ("connection-url", url),
            ("connection-user", "trino".to_owned()),
            ("connection-password", "secret".to_owned()),
        ]
    };
    let address = format!("127.0.0.1:{}", database.port);
    vec![
        catalog(
            "mariadb",
            "mariadb",
            &user(format!("jdbc:mariadb://{address}")),
        ),
        catalog(
            "mysql",
            "mysql",
            &user(format!("jdbc:mysql://{address}?sslMode=DISABLED")),
        ),
    ]
}

fn catalog(name: &'static str, connector: &'static str, pairs: &[(&str, String)]) -> Catalog {
    let plugins = match connector {
        "delta_lake" => vec!["delta-lake"],
        // It does not load without the Geometry type.
        "postgresql" => vec!["postgresql", "geospatial"],
        _ => vec![connector],
    };
    let connector = ("connector.name", connector.to_owned());
    let mut all = vec![connector];
    all.extend(pairs.iter().cloned());
    Catalog {
        name,
        plugins,
        properties: properties(&all),
    }
}
