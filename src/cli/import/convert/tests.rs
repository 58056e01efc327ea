//! Files as people have them, and what becomes of each of their lines.

use std::collections::BTreeSet;

use super::*;
use crate::cli::import::rules::RULES;

const S3: &str = "\
exchange-manager.name=filesystem
exchange.base-directories=s3://one/fte/,s3://two/fte
exchange.s3.region=EU-Central-1
exchange.s3.aws-access-key=AKIAEXAMPLE
exchange.s3.aws-secret-key=c2VjcmV0/key
exchange.s3.endpoint=http://minio:9000
exchange.s3.path-style-access=true
exchange.s3.sse.type=kms
exchange.s3.sse.kms-key-id=arn:aws:kms:key
exchange.s3.retry-mode=STANDARD
exchange.max-page-storage-size=64MB
exchange.source-concurrent-readers = 8
exchange.sink-max-file-size=1GB
";

fn daemon(text: &str) -> toml::Table {
    convert(text).unwrap().daemon(true).parse().unwrap()
}

fn with(lines: &str) -> String {
    format!("exchange-manager.name=filesystem\n{lines}\n")
}

#[test]
fn every_property_of_trino_has_one_rule_and_stands_in_the_docs() {
    let page = include_str!("../../../../docs/trino.md");
    let (_, table) = page.split_once("| Trino's | Stopover's |\n").unwrap();
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let mut documented = Vec::new();
    for row in rows.skip(1) {
        let properties = row.split('|').nth(1).unwrap();
        let spans = properties.split('`').skip(1).step_by(2);
        let is_property = |span: &&str| span.contains('.');
        documented.extend(spans.filter(is_property));
    }
    // The table has what a file may contain besides its name.
    let mut known: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
    known.retain(|name| *name != "exchange-manager.name");
    documented.sort_unstable();
    known.sort_unstable();
    assert_eq!(documented, known, "docs/trino.md and the rules differ");
    known.dedup();
    assert_eq!(known.len(), RULES.len() - 1, "two rules have one name");
}

#[test]
fn the_rules_name_the_properties_of_the_jars_of_trino_and_no_others() {
    // Trino reads the first one itself, to find the plugin; the rest is of exchange-hdfs.
    const OTHERS: [&str; 4] = [
        "exchange-manager.name",
        "exchange.hdfs.block-size",
        "exchange.hdfs.skip-directory-scheme-validation",
        "hdfs.config.resources",
    ];
    let golden = include_str!("../../../../tests/golden/trino-exchange-properties.txt");
    let rows = golden.lines().filter(|line| !line.starts_with('#'));
    let theirs = rows.filter_map(|row| row.split(' ').next());
    let theirs: BTreeSet<&str> = theirs.chain(OTHERS).collect();
    let ours: BTreeSet<&str> = RULES.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn a_file_for_s3_becomes_base_directories_settings_and_properties() {
    let converted = convert(S3).unwrap();
    let table = daemon(S3);
    let bases = table["base_directory"].as_array().unwrap();
    assert_eq!(bases.len(), 2);
    for (base, uri) in bases.iter().zip(["s3://one/fte", "s3://two/fte"]) {
        let base = base.as_table().unwrap();
        assert_eq!(base["uri"].as_str(), Some(uri));
        assert_eq!(base["region"].as_str(), Some("eu-central-1"));
        assert_eq!(base["secret_access_key"].as_str(), Some("c2VjcmV0/key"));
        assert_eq!(base["endpoint"].as_str(), Some("http://minio:9000"));
        assert_eq!(base["allow_http"].as_bool(), Some(true));
        assert_eq!(base["path_style"].as_bool(), Some(true));
        let encryption = base["aws_server_side_encryption"].as_str();
        assert_eq!(encryption, Some("aws:kms"));
    }
    assert_eq!(table["limits"]["max_page_size"].as_str(), Some("64MiB"));
    assert_eq!(table["limits"]["max_batch_size"].as_str(), Some("65MiB"));
    let plugin = converted.plugin();
    for line in [
        "exchange-manager.name=stopover",
        "stopover.max-page-size=64MB",
        "stopover.read-concurrency=8",
    ] {
        assert!(plugin.lines().any(|given| given == line), "{plugin}");
    }
    let notes: Vec<_> = converted.notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].starts_with("line 10: exchange.s3.retry-mode: no counterpart:"));
    assert!(notes[1].starts_with("line 13: exchange.sink-max-file-size: no counterpart:"));
}

#[test]
fn secrets_are_masked_unless_they_are_asked_for() {
    let shown = convert(S3).unwrap().daemon(false);
    assert!(
        !shown.contains("c2VjcmV0") && shown.contains("AKIAEXAMPLE"),
        "{shown}"
    );
}

#[test]
fn gcs_azure_and_local_folders_are_converted() {
    let gcs = "exchange.base-directory=gs://spool/\nexchange.gcs.json-key-file-path=/key.json";
    let base = &daemon(&with(gcs))["base_directory"][0];
    assert_eq!(base["uri"].as_str(), Some("gs://spool"));
    assert_eq!(base["service_account_path"].as_str(), Some("/key.json"));

    let hmac = "exchange.base-directories=gs://spool\nexchange.s3.aws-access-key=GOOG1\n\
                exchange.s3.aws-secret-key=x\nexchange.s3.region=us-west1";
    let base = &daemon(&with(hmac))["base_directory"][0];
    assert_eq!(base["uri"].as_str(), Some("s3://spool"));
    assert_eq!(
        base["endpoint"].as_str(),
        Some("https://storage.googleapis.com")
    );

    let azure = "exchange.base-directories=abfss://c@acme.dfs.core.windows.net/fte\n\
                 exchange.azure.connection-string=AccountName=acme;AccountKey=a==";
    let base = &daemon(&with(azure))["base_directory"][0];
    assert_eq!(base["uri"].as_str(), Some("az://c/fte"));
    assert!(base.get("account").is_none(), "{base}");
    let given = Some("AccountName=acme;AccountKey=a==");
    assert_eq!(base["connection_string"].as_str(), given);

    let local = "exchange.base-directories=/tmp/trino-local-file-system-exchange-manager";
    let base = &daemon(&with(local))["base_directory"][0];
    let path = "/tmp/trino-local-file-system-exchange-manager";
    assert_eq!(base["uri"].as_str(), Some(path));
}

#[test]
fn values_from_the_environment_stay_there() {
    let text = with(
        "exchange.base-directories=s3://a,s3://b\nexchange.s3.region=us-east-1\n\
         exchange.s3.aws-secret-key=${ENV:AWS_SECRET}",
    );
    let converted = convert(&text).unwrap();
    assert!(
        daemon(&text)["base_directory"][1]
            .get("secret_access_key")
            .is_none()
    );
    let notes: Vec<_> = converted.notes.iter().map(ToString::to_string).collect();
    assert!(notes[1].contains("STOPOVER_BASE_DIRECTORIES__1__SECRET_ACCESS_KEY=${AWS_SECRET}"));
    let refused = convert(&with("exchange.base-directories=${ENV:PLACES}")).unwrap_err();
    assert!(
        refused[0]
            .to_string()
            .contains("write the value into the file"),
        "{refused:?}"
    );
}

#[test]
fn what_cannot_be_converted_is_named_all_at_once_without_values() {
    let text = "exchange-manager.name=stopover\nexchange.s3.sse.type=c2VjcmV0\n\
                exchange.max-output-partition-count=c2VjcmV0\nexchange.s3.region=a\n\
                exchange.base-directories=s3://b\nexchange.sink-max-files=1";
    let faults = convert(text).unwrap_err();
    let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults[1].starts_with("line 2: exchange.s3.sse.type:"));
    assert!(faults[2].starts_with("line 3:") && !faults[2].contains("c2VjcmV0"));
    let twice = convert("a=1\na=2\n").unwrap_err();
    assert!(twice[0].to_string().contains("also in line 1"), "{twice:?}");
}

#[test]
fn the_form_of_java_properties_is_read() {
    let text = "# comment\n! another\nexchange-manager.name: filesystem\n\
                exchange.base-directories = s3\\://a/\\\n    b\nexchange.s3.region eu-west-1\n";
    let base = &daemon(text)["base_directory"][0];
    assert_eq!(base["uri"].as_str(), Some("s3://a/b"));
    assert_eq!(base["region"].as_str(), Some("eu-west-1"));
}
