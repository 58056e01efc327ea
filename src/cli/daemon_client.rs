//! Requests of commands to a running daemon.
//!
//! Does: find its address, certificate and a token, from flags or from its configuration; send one
//! request and read the whole answer, over TLS if configured (`client_tls`). Does not: retry, or
//! need an async runtime. Invariant: every wait is bounded by a timeout, an answer that ends early
//! is an error, and the token is never printed.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;

use super::client_tls::{self, TlsFiles};
use super::{ConfigArgs, EXIT_USAGE, failure};
use crate::config::{Secret, ServerConfig};
use crate::http::scopes::Scopes;
use crate::http::tokens::{TokenFile, Tokens};
use crate::telemetry::logs::printable;

/// To connect, and for the answer of a probe.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// For an answer that needs requests to the base directories.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer that is read.
const MAX_RESPONSE_SIZE: u64 = 256 << 20;

/// Where a daemon is.
#[derive(Args, Default)]
pub(super) struct AddressArgs {
    /// Address of the daemon; default: server.listen of the configuration
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Use TLS, and expect the certificate in this file (PEM); without --address, this is
    /// server.tls_certificate_file of the configuration
    #[arg(long, value_name = "FILE", requires = "address")]
    certificate: Option<PathBuf>,
    /// Configuration file (TOML) of the daemon, whose server.listen is used
    #[arg(long, value_name = "FILE", conflicts_with = "address")]
    config: Option<PathBuf>,
}

/// The address of a daemon, and the credentials for it.
#[derive(Args, Default)]
pub(super) struct DaemonArgs {
    #[command(flatten)]
    at: AddressArgs,
    /// File with a token, or with several as for server.token_file: the first with scope admin is
    /// sent; without --address, this is server.token_file of the configuration
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate of this client (PEM), for a daemon with server.tls_client_ca_file
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// Private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
}

/// A daemon to which requests can be sent.
#[derive(Debug)]
pub(super) struct DaemonClient {
    /// As it was named, for `Host` and for messages.
    host: String,
    addresses: Vec<SocketAddr>,
    tls: Option<TlsFiles>,
    token: Option<Secret>,
    timeout: Duration,
}

/// An answer in whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub body: String,
}

impl AddressArgs {
    /// A client without a token, for the probes.
    ///
    /// # Errors
    /// The exit code; the reason has been printed to stderr.
    pub(super) fn probe(self) -> Result<DaemonClient, ExitCode> {
        let (client, _) = self.resolve()?;
        Ok(client)
    }

    fn resolve(self) -> Result<(DaemonClient, Option<ServerConfig>), ExitCode> {
        let (host, certificate, server) = match self.address {
            Some(address) => (address, self.certificate, None),
            None => {
                let config = ConfigArgs {
                    config: self.config,
                    ..ConfigArgs::default()
                };
                let server = config.load_settings()?.config.server;
                let address = reachable(server.listen).to_string();
                (address, server.tls_certificate_file.clone(), Some(server))
            }
        };
        let addresses = host.to_socket_addrs().map_err(|error| {
            eprintln!("stopover: --address {}: {error}", printable(&host));
            match error.kind() {
                io::ErrorKind::InvalidInput => ExitCode::from(EXIT_USAGE),
                _ => ExitCode::FAILURE,
            }
        })?;
        let client = DaemonClient {
            host,
            addresses: addresses.map(reachable).collect(),
            tls: certificate.map(|expected| TlsFiles {
                expected,
                own: None,
            }),
            token: None,
            timeout: PROBE_TIMEOUT,
        };
        Ok((client, server))
    }
}

impl DaemonArgs {
    /// A client with all that the daemon requires.
    ///
    /// # Errors
    /// The exit code; the reason has been printed to stderr.
    pub(super) fn client(self) -> Result<DaemonClient, ExitCode> {
        let (mut client, server) = self.at.resolve()?;
        let given = self.token_file.map(|path| ("--token-file", path));
        let configured = || Some(("server.token_file", server?.token_file?));
        if let Some((setting, path)) = given.or_else(configured) {
            let file = TokenFile { setting, path };
            let tokens = file.read().and_then(|text| Tokens::parse(&text, &file));
            let tokens = tokens.map_err(|error| {
                eprintln!("stopover: {error}");
                ExitCode::from(EXIT_USAGE)
            })?;
            client.token = Some(tokens.text_with(Scopes::ADMIN).into());
        }
        if let Some(tls) = &mut client.tls {
            tls.own = self.client_certificate.zip(self.client_key);
        }
        client.timeout = ANSWER_TIMEOUT;
        Ok(client)
    }
}

/// A daemon that listens on every address is reached through loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

impl DaemonClient {
    /// A path of the daemon in whole.
    pub(super) fn url(&self, path: &str) -> String {
        let scheme = self.tls.as_ref().map_or("http", |_| "https");
        format!("{scheme}://{}{path}", self.host)
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    /// No whole answer came.
    pub(super) fn send(&self, method: &str, path: &str) -> io::Result<Answer> {
        let stream = self.connect()?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let mut stream: Box<dyn Stream> = match &self.tls {
            Some(files) => Box::new(client_tls::within(stream, files)?),
            None => Box::new(stream),
        };
        let authorization = self.token.as_ref().map_or_else(String::new, |token| {
            format!("Authorization: Bearer {}\r\n", token.expose())
        });
        let host = &self.host;
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: {host}\r\n{authorization}Content-Length: 0\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        stream.flush()?;
        let mut answer = Vec::new();
        let read = stream.take(MAX_RESPONSE_SIZE).read_to_end(&mut answer);
        // Before the error: a TLS server closes the connection after its alert.
        if self.tls.is_none() && is_tls(&answer) {
            let what = "the port speaks TLS: name its certificate with --certificate, or the \
                        daemon's configuration with --config";
            return Err(io::Error::other(what));
        }
        read?;
        parse(&String::from_utf8_lossy(&answer))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut failed = io::ErrorKind::AddrNotAvailable.into();
        for address in &self.addresses {
            match TcpStream::connect_timeout(address, PROBE_TIMEOUT) {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Sends a request, and decodes the JSON of a successful response.
    ///
    /// # Errors
    /// The exit code; the reason has been printed to stderr.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
    ) -> Result<T, ExitCode> {
        let url = self.url(path);
        let answer = self.send(method, path).map_err(|error| {
            eprintln!("stopover: {url} did not answer: {}", self.explain(&error));
            ExitCode::FAILURE
        })?;
        if answer.status >= 300 {
            eprintln!("stopover: {url} answered {}", refusal(&answer));
            return Err(ExitCode::FAILURE);
        }
        serde_json::from_str(&answer.body).map_err(failure)
    }

    /// Explains an error of the connection.
    pub(super) fn explain(&self, error: &io::Error) -> String {
        let seconds = self.timeout.as_secs();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!(
                "nothing came within {seconds} s: the daemon hangs, is overloaded or stopped"
            ),
            io::ErrorKind::ConnectionRefused => {
                "nothing listens there: the daemon does not run, or server.listen is another \
                 address"
                    .to_owned()
            }
            _ => printable(&error.to_string()),
        }
    }
}

/// The status and the detail of a problem, and which flag may help.
fn refusal(answer: &Answer) -> String {
    let problem = serde_json::from_str::<serde_json::Value>(&answer.body);
    let detail = problem
        .ok()
        .and_then(|p| Some(p["detail"].as_str()?.to_owned()));
    let detail = detail.unwrap_or_else(|| answer.body.trim().to_owned());
    let hint = match answer.status {
        401 | 403 => " (--token-file names the token that is sent)",
        _ => "",
    };
    printable(&format!("{}: {detail}{hint}", answer.status))
}

/// Whether a response is a record of TLS: an alert or a handshake, in any version.
fn is_tls(answer: &[u8]) -> bool {
    matches!(answer, [0x15 | 0x16, 0x03, ..])
}

fn parse(answer: &str) -> io::Result<Answer> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the response is not HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(invalid)?;
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|line| line.split(' ').nth(1));
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let named = name.eq_ignore_ascii_case("content-length");
        value.trim().parse::<usize>().ok().filter(|_| named)
    });
    if length.is_some_and(|length| body.len() < length) {
        let what = "the answer ended early, or is larger than 256 MiB";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    Ok(Answer {
        status: status
            .and_then(|status| status.parse().ok())
            .ok_or_else(invalid)?,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn one_answer(answer: &'static str) -> DaemonClient {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).unwrap();
            assert!(request[..n].starts_with(b"GET /healthz HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        DaemonClient {
            host: address.to_string(),
            addresses: vec![address],
            tls: None,
            token: None,
            timeout: PROBE_TIMEOUT,
        }
    }

    #[test]
    fn status_and_body_of_a_response_are_separated() {
        let daemon = one_answer("HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nwhy");
        let answer = daemon.send("GET", "/healthz").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "why"));
    }

    #[test]
    fn something_else_than_http_is_an_error() {
        let daemon = one_answer("220 smtp.example ready\r\n");
        assert!(daemon.send("GET", "/healthz").is_err());
    }

    #[test]
    fn an_answer_that_ends_early_is_an_error() {
        let daemon = one_answer("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\":");
        let error = daemon.send("GET", "/healthz").unwrap_err();
        assert!(error.to_string().contains("ended early"), "{error}");
    }

    #[test]
    fn a_refusal_says_what_the_problem_says() {
        let answer = Answer {
            status: 401,
            body: "{\"detail\": \"send a token\"}".into(),
        };
        let text = refusal(&answer);
        assert!(text.starts_with("401: send a token"), "{text}");
        assert!(text.contains("--token-file"), "{text}");
    }

    /// Story: a probe of a TLS port said "no HTTP answer".
    #[test]
    fn a_port_that_speaks_tls_is_recognised() {
        let daemon = one_answer("\u{15}\u{3}\u{3}\0\u{2}\u{2}\n");
        let error = daemon.send("GET", "/healthz").unwrap_err();
        assert!(error.to_string().contains("--certificate"), "{error}");
    }

    /// Story: a probe of a daemon that hung said "os error 11".
    #[test]
    fn errors_of_the_connection_say_what_they_mean_for_a_daemon() {
        let daemon = one_answer("");
        let of = |code| daemon.explain(&io::Error::from_raw_os_error(code));
        assert!(
            of(11).contains("within 3 s: the daemon hangs"),
            "{}",
            of(11)
        );
        assert!(of(111).contains("nothing listens there"), "{}", of(111));
        let _ = daemon.send("GET", "/healthz");
    }

    #[test]
    fn a_daemon_on_every_address_is_reached_on_loopback() {
        let asked = reachable("0.0.0.0:7077".parse().unwrap());
        assert_eq!(asked, "127.0.0.1:7077".parse().unwrap());
        let asked = reachable("[::]:7077".parse().unwrap());
        assert_eq!(asked, "[::1]:7077".parse().unwrap());
        let asked = reachable("10.1.2.3:7077".parse().unwrap());
        assert_eq!(asked, "10.1.2.3:7077".parse().unwrap());
    }
}
