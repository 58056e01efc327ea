//! An HDFS that wants Kerberos, with a KDC of its own.
//!
//! Does: start both, use a base directory there with a keytab, and without what it needs. Does not:
//! set variables of this process: the library of Kerberos reads `KRB5_CONFIG`, so a daemon of its
//! own does all of it.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

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

/// A KDC, and an HDFS where its users sign in.
struct Secure {
    folder: tempfile::TempDir,
    krb5: String,
    cluster: Cluster,
    _kdc: Kdc,
}

impl Secure {
    /// With this protection of what is sent: `authentication`, `integrity` or `privacy`.
    fn start(protection: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kdc = Kdc::start(folder.path());
        let krb5 = find(folder.path(), "krb5.conf").expect("the KDC writes one");
        let krb5 = krb5.display().to_string();
        let shared = [
            ("hadoop.security.authentication", "kerberos"),
            ("hadoop.rpc.protection", protection),
            ("dfs.data.transfer.protection", protection),
        ];
        std::fs::create_dir(folder.path().join("client")).unwrap();
        write_site(&folder.path().join("client/core-site.xml"), &shared);
        let (server, web) = (
            format!("hdfs/localhost@{REALM}"),
            format!("HTTP/localhost@{REALM}"),
        );
        let keytab = folder.path().join("keytab").display().to_string();
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
        Self {
            folder,
            krb5,
            cluster,
            _kdc: kdc,
        }
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The table of a base directory.
    fn table(&self, path: &str, more: &str) -> String {
        let (port, client) = (self.cluster.name_nodes[0], self.at("client"));
        format!(
            "[[base_directory]]\nuri = \"hdfs://localhost:{port}{path}\"\n\
             config_dir = \"{client}\"\n{more}"
        )
    }

    /// No tickets of the user who runs the tests.
    fn variables(&self) -> [(&'static str, String); 2] {
        let cache = format!("FILE:{}", self.at("no-cache"));
        [("KRB5_CONFIG", self.krb5.clone()), ("KRB5CCNAME", cache)]
    }

    fn smoke_passes(&self, table: &str) {
        let variables = self.variables();
        let variables = variables.each_ref().map(|(name, value)| (*name, &**value));
        smoke::passes(table, &variables);
    }

    /// What `check` says of a base directory, and whether it works.
    fn checked(&self, table: &str) -> (bool, String) {
        let variables = self.variables();
        let variables = variables.each_ref().map(|(name, value)| (*name, &**value));
        checked(table, self.folder.path(), &variables)
    }

    /// Gets a ticket that lives so long into a cache.
    fn kinit(&self, cache: &str, principal: &str, lifetime: &str) {
        let program = needed("STOPOVER_TEST_KINIT", "kinit");
        let mut command = Command::new(&program);
        // Where the package was only unpacked.
        let unpacked = program.parent().and_then(Path::parent).unwrap();
        if !unpacked.starts_with("/usr") {
            let library = find(&unpacked.join("lib"), "libkrb5.so.3").expect("its libraries");
            command.env("LD_LIBRARY_PATH", library.parent().unwrap());
        }
        command
            .args(["-k", "-t", &self.at("keytab"), "-c", cache])
            .args(["-l", lifetime, &format!("{principal}@{REALM}")])
            .env("KRB5_CONFIG", &self.krb5);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// With this protection of what is sent.
pub fn all(protection: &str) {
    let secure = Secure::start(protection);
    let signed = format!(
        "kerberos_principal = \"stopover@{REALM}\"\nkerberos_keytab = \"{}\"\n",
        secure.at("keytab")
    );
    secure.smoke_passes(&secure.table("/spool/base", &signed));
    let (works, said) = secure.checked(&secure.table("/spool/base", &signed));
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
        let (works, said) = secure.checked(&secure.table(path, credentials));
        assert!(
            !works && said.contains(way_out),
            "{path} {credentials}: {said}"
        );
    }
}

/// Tickets in a cache that `kinit` fills, as a job beside the daemon does.
pub fn tickets() {
    let mut secure = Secure::start("authentication");
    let cache = format!("FILE:{}", secure.at("tickets"));
    let options = format!(
        "kerberos_principal = \"stopover@{REALM}\"\nkerberos_cache = \"{cache}\"\n\
         timeout = \"10s\"\n[lease]\nsweep_interval = \"3s\"\n"
    );
    let table = secure.table("/spool/base", &options);
    let is_told = |secure: &Secure, way_out: &str| {
        let (works, said) = secure.checked(&table);
        !works && said.contains(way_out) && said.contains("kerberos_cache")
    };
    assert!(is_told(&secure, "there is no ticket of Kerberos"));
    secure.kinit(&cache, "hdfs/localhost", "1h");
    assert!(is_told(
        &secure,
        "is of another user than kerberos_principal"
    ));
    secure.kinit(&cache, "stopover", "25s");
    let variables = secure.variables();
    let variables = variables.each_ref().map(|(name, value)| (*name, &**value));
    let daemons = smoke::Daemons::start(&table, &variables);
    daemons.pass();
    const EXPIRED: &str = "the ticket of Kerberos has expired: get a new one with kinit";
    let give_up = Instant::now() + Duration::from_secs(60);
    while !is_told(&secure, EXPIRED) {
        assert!(Instant::now() < give_up, "{:?}", secure.checked(&table));
        std::thread::sleep(Duration::from_secs(1));
    }
    // A connection outlives its ticket; another one needs a new ticket.
    secure.cluster.run("restart-namenode 0");
    daemons.wait_until(Err(EXPIRED));
    secure.kinit(&cache, "stopover", "1h");
    daemons.wait_until(Ok(()));
    daemons.pass();
    drop(daemons);
    a_cache_that_is_being_written_fails_no_sink(&secure, &options, &cache);
}

/// A way to a NameNode on which every connection can be cut.
struct Way {
    port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(name_node: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Self {
            port: listener.local_addr().unwrap().port(),
            open: Arc::default(),
        };
        let open = Arc::clone(&way.open);
        std::thread::spawn(move || {
            for client in listener.incoming().map(Result::unwrap) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", name_node)) else {
                    continue;
                };
                let copy = |stream: &TcpStream| stream.try_clone().unwrap();
                open.lock().extend([copy(&client), copy(&server)]);
                for (mut from, mut to) in [(copy(&client), copy(&server)), (server, client)] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        way
    }

    fn cut(&self) {
        for stream in self.open.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Story: a connection that was opened while `kinit` wrote the cache was refused for good, and
/// with it the sinks that needed it.
fn a_cache_that_is_being_written_fails_no_sink(secure: &Secure, options: &str, cache: &str) {
    const SINKS: u32 = 30;
    const LONGEST: Duration = Duration::from_secs(120);
    let way = Way::to(secure.cluster.name_nodes[0]);
    let client = secure.at("client");
    let table = format!(
        "[[base_directory]]\nuri = \"hdfs://localhost:{}/spool/rewritten\"\n\
         config_dir = \"{client}\"\n{options}",
        way.port
    );
    let variables = secure.variables();
    let variables = variables.each_ref().map(|(name, value)| (*name, &**value));
    let daemons = smoke::Daemons::start(&table, &variables);
    daemons.wait_until(Ok(()));
    let address = daemons.addresses().next().unwrap();
    let file = cache.trim_start_matches("FILE:");
    let done = AtomicBool::new(false);
    let failed = std::thread::scope(|scope| {
        let rewriting = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::fs::write(file, "").unwrap();
                way.cut();
                std::thread::sleep(Duration::from_millis(300));
                secure.kinit(cache, "stopover", "1h");
                std::thread::sleep(Duration::from_millis(700));
            }
        });
        let announced = write(address, "PUT /v1/exchanges/rewritten", ANNOUNCED, LONGEST);
        let failed = announced.err().or_else(|| {
            (0..SINKS).find_map(|task| {
                let sink = format!("POST /v1/exchanges/rewritten/sinks/{task}/0");
                let page = write(
                    address,
                    &format!("{sink}/pages?partition=0"),
                    "a page",
                    LONGEST,
                );
                let finish = || write(address, &format!("{sink}/finish"), ONE_PAGE, LONGEST);
                page.and_then(|()| finish()).err()
            })
        });
        done.store(true, Ordering::Relaxed);
        rewriting.join().unwrap();
        failed
    });
    assert_eq!(failed, None);
}

const ANNOUNCED: &str = "{\"partitions\": 1, \"ordered\": false}";
const ONE_PAGE: &str = "{\"batches\": 1, \"pages\": 1, \"bytes\": 6}";

/// Sends a request with a body until it succeeds; fails with an answer that asks for no retry, or
/// the last one after this time.
fn write(address: &str, request: &str, body: &str, within: Duration) -> Result<(), String> {
    let give_up = Instant::now() + within;
    let kind = match body.starts_with('{') {
        true => "application/json",
        false => "application/octet-stream",
    };
    let head = format!("Content-Type: {kind}\r\nContent-Length: {}", body.len());
    let request = format!("{request} HTTP/1.0\r\n{head}\r\n\r\n{body}");
    loop {
        let answered = answer(address, &request, within);
        if answered.starts_with("HTTP/1.0 20") {
            return Ok(());
        }
        let may_retry = answered.contains("\"retryable\":true");
        if !may_retry || Instant::now() >= give_up {
            return Err(answered);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// A KDC that takes every request and answers none.
struct SilentKdc {
    listener: TcpListener,
    _socket: UdpSocket,
}

impl SilentKdc {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _socket = UdpSocket::bind(listener.local_addr().unwrap()).unwrap();
        Self { listener, _socket }
    }

    /// The configuration of Kerberos that names it.
    fn krb5(&self) -> String {
        let address = self.listener.local_addr().unwrap();
        format!(
            "[libdefaults]\ndefault_realm = {REALM}\ndns_lookup_kdc = false\n\
             [realms]\n{REALM} = {{\nkdc = {address}\n}}\n"
        )
    }
}

/// Story: the library of Kerberos waited for the KDC on the threads that serve requests. With as
/// many connections of HDFS as there are such threads, nobody was answered, `/healthz` included.
pub fn a_silent_kdc() {
    /// Without the threads of its own, a request waits as long as the library of Kerberos does.
    const LONGEST: Duration = Duration::from_secs(10);
    let secure = Secure::start("authentication");
    let kdc = SilentKdc::start();
    let krb5 = secure.at("silent.conf");
    std::fs::write(&krb5, kdc.krb5()).unwrap();
    let local = secure.at("local");
    let signed = format!(
        "kerberos_principal = \"stopover@{REALM}\"\nkerberos_keytab = \"{}\"\ntimeout = \"9s\"\n\
         [[base_directory]]\nuri = \"file://{local}\"\n[server]\nstart_timeout = \"5s\"\n",
        secure.at("keytab")
    );
    let table = secure.table("/spool/base", &signed);
    // One thread serves requests, so that one call that blocks it is enough.
    let variables = [
        ("KRB5_CONFIG", &*krb5),
        ("KRB5CCNAME", "FILE:/nonexistent/cache"),
        ("TOKIO_WORKER_THREADS", "1"),
    ];
    let daemons = smoke::Daemons::start(&table, &variables);
    let give_up = Instant::now() + Duration::from_secs(40);
    let mut number = 0;
    // Meanwhile each daemon opens connections of HDFS: for probes, and for these exchanges.
    while Instant::now() < give_up {
        for address in daemons.addresses() {
            let send = |request: &str| answer(address, request, LONGEST);
            let alive = send("GET /healthz HTTP/1.0\r\n\r\n");
            assert!(alive.starts_with("HTTP/1.0 200"), "{alive}");
            let ready = send("GET /readyz HTTP/1.0\r\n\r\n");
            assert!(ready.starts_with("HTTP/1.0 200"), "{ready}");
            // What is announced meanwhile lies in the other base directory, and does not wait.
            let exchange = format!("/v1/exchanges/query-{number}");
            let sink = format!("{exchange}/sinks/0/0");
            for (request, body) in [
                (format!("PUT {exchange}"), ANNOUNCED),
                (format!("POST {sink}/pages?partition=0"), "a page"),
                (format!("POST {sink}/finish"), ONE_PAGE),
            ] {
                assert_eq!(write(address, &request, body, LONGEST), Ok(()), "{request}");
            }
            number += 1;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The answer of a daemon, which comes within this time.
fn answer(address: &str, request: &str, within: Duration) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(within)).unwrap();
    let request = request.replacen("\r\n", &format!("\r\nHost: {address}\r\n"), 1);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer in time");
    answer
}
