//! An HDFS that wants Kerberos, with a KDC of its own.
//!
//! Does: start both, use a base directory there with a keytab, and without what it needs. Does not:
//! set variables of this process: the library of Kerberos reads `KRB5_CONFIG`, so a daemon of its
//! own does all of it.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cluster::{Cluster, needed};
use crate::smoke;

const REALM: &str = "EXAMPLE.COM";

/// A running KDC.
struct Kdc(Child);

impl Drop for Kdc {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Kdc {
    /// Starts one whose keytab in this folder has the servers and the user `stopover`.
    fn start(folder: &Path) -> Self {
        let properties = folder.join("kdc.properties");
        let settings = "org.name=EXAMPLE\norg.domain=COM\nkdc.bind.address=localhost\n\
                        kdc.port=0\ninstance=DefaultKrbServer\nmax.ticket.lifetime=86400000\n\
                        max.renewable.lifetime=604800000\ntransport=TCP\ndebug=false\n";
        std::fs::write(&properties, settings).unwrap();
        let java = needed("STOPOVER_TEST_JDK", "jdk").join("bin/java");
        let jars = needed("STOPOVER_TEST_KDC", "minikdc");
        let mut process = Command::new(java)
            .args([
                "-Xmx200m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
            ])
            .arg(format!("{}/*", jars.display()))
            .arg("org.apache.hadoop.minikdc.MiniKdc")
            .arg(folder)
            .arg(&properties)
            .arg(folder.join("keytab"))
            .args(["hdfs/localhost", "HTTP/localhost", "stopover"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        let kdc = Self(process);
        let ready = |line: &String| line.contains("CTRL-C");
        let ready = said.lines().map(Result::unwrap).any(|line| ready(&line));
        assert!(
            ready,
            "the KDC has ended: run its command by hand to see why"
        );
        kdc
    }
}

/// The file of this name below a folder.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap());
    entries.into_iter().find_map(|entry| match entry.path() {
        path if path.is_dir() => find(&path, name),
        path => path.ends_with(name).then_some(path),
    })
}

fn write_site(path: &Path, properties: &[(&str, &str)]) {
    let mut text = "<configuration>\n".to_owned();
    for (name, value) in properties {
        let _ = writeln!(
            text,
            "<property><name>{name}</name><value>{value}</value></property>"
        );
    }
    text += "</configuration>\n";
    std::fs::write(path, text).unwrap();
}

/// What `check` says of a base directory, and whether it works.
fn checked(table: &str, folder: &Path, variables: &[(&str, &str)]) -> (bool, String) {
    let path = folder.join("tried.toml");
    std::fs::write(&path, table).unwrap();
    let output = smoke::command("check", &path, variables).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// With this protection of what is sent: `authentication`, `integrity` or `privacy`.
pub fn all(protection: &str) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (client, keytab) = (at("client"), at("keytab"));
    let kdc = Kdc::start(folder.path());
    let krb5 = find(folder.path(), "krb5.conf").expect("the KDC writes one");
    let krb5 = krb5.display().to_string();
    let shared = [
        ("hadoop.security.authentication", "kerberos"),
        ("hadoop.rpc.protection", protection),
        ("dfs.data.transfer.protection", protection),
    ];
    std::fs::create_dir(&client).unwrap();
    write_site(&folder.path().join("client/core-site.xml"), &shared);
    let (server, web) = (
        format!("hdfs/localhost@{REALM}"),
        format!("HTTP/localhost@{REALM}"),
    );
    let servers = [
        ("hadoop.security.authorization", "true"),
        ("dfs.block.access.token.enable", "true"),
        ("ignore.secure.ports.for.testing", "true"),
        ("dfs.namenode.kerberos.principal", &server),
        ("dfs.namenode.keytab.file", &keytab),
        ("dfs.datanode.kerberos.principal", &server),
        ("dfs.datanode.keytab.file", &keytab),
        ("dfs.web.authentication.kerberos.principal", &web),
        ("dfs.web.authentication.kerberos.keytab", &keytab),
    ];
    let site = folder.path().join("servers.xml");
    write_site(&site, &[&shared[..], &servers].concat());
    let option = format!("-Djava.security.krb5.conf={krb5}");
    let arguments = ["--datanodes", "1", "--conf", site.to_str().unwrap()];
    let data = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_in(data, &[&option], &arguments);
    cluster.run("mkdir /spool");
    cluster.run("chown stopover /spool");

    let port = cluster.name_nodes[0];
    let table = |path: &str, more: &str| {
        format!(
            "[[base_directory]]\nuri = \"hdfs://localhost:{port}{path}\"\n\
             config_dir = \"{client}\"\n{more}"
        )
    };
    let signed =
        format!("kerberos_principal = \"stopover@{REALM}\"\nkerberos_keytab = \"{keytab}\"\n");
    // No tickets of whoever runs the tests.
    let cache = format!("FILE:{}", at("no-cache"));
    let variables = [("KRB5_CONFIG", &*krb5), ("KRB5CCNAME", &*cache)];
    smoke::passes(&table("/spool/base", &signed), &variables);
    let (works, said) = checked(&table("/spool/base", &signed), folder.path(), &variables);
    assert!(works, "{said}");
    // Without a ticket; as somebody whom the keytab does not have; where the user may not write.
    let other = signed.replace("stopover@", "nobody@");
    for (path, credentials, way_out) in [
        ("/spool/base", "", "kerberos_keytab"),
        ("/spool/base", &*other, "kerberos_keytab"),
        (
            "/elsewhere/base",
            &*signed,
            "give the daemon's HDFS user the right",
        ),
    ] {
        let (works, said) = checked(&table(path, credentials), folder.path(), &variables);
        assert!(
            !works && said.contains(way_out),
            "{path} {credentials}: {said}"
        );
    }
    drop(kdc);
}
