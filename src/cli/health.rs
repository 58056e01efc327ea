//! `stopover health`: one request to a running daemon, for container health checks.
//!
//! Does: GET `/healthz` or `/readyz`, over TLS if configured (`health_tls`), and evaluate the
//! status. Does not: need a token, a client certificate or an async runtime. Invariant: every wait
//! is bounded by a timeout.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{ConfigArgs, health_tls};

const TIMEOUT: Duration = Duration::from_secs(3);
const MAX_RESPONSE_SIZE: u64 = 64 << 10;

/// Arguments of `health`.
#[derive(Args)]
pub(super) struct HealthArgs {
    /// Address of the daemon; default: server.listen of the configuration
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    /// Check readiness (base directories usable, not stopping) instead of liveness
    #[arg(long)]
    ready: bool,
    /// Use TLS, and expect the certificate in this file (PEM); without --address, this is
    /// server.tls_certificate_file of the configuration
    #[arg(long, value_name = "FILE", requires = "address")]
    certificate: Option<PathBuf>,
    /// Configuration file (TOML) whose server.listen is used
    #[arg(long, value_name = "FILE", conflicts_with = "address")]
    config: Option<PathBuf>,
}

/// Sends the request and prints the result.
///
/// # Errors
/// The exit code; the reason has been printed to stderr.
pub(super) fn health(args: HealthArgs) -> Result<ExitCode, ExitCode> {
    let (address, certificate) = match args.address {
        Some(address) => (address, args.certificate),
        None => {
            let config = ConfigArgs {
                config: args.config,
                ..ConfigArgs::default()
            };
            let server = config.load_settings()?.config.server;
            (server.listen, server.tls_certificate_file)
        }
    };
    let address = reachable(address);
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let answer = request(address, path, certificate.as_deref());
    let scheme = certificate.map_or("http", |_| "https");
    let url = format!("{scheme}://{address}{path}");
    match answer {
        Ok(Answer { status: 200, .. }) => {
            println!("{url} answered 200");
            return Ok(ExitCode::SUCCESS);
        }
        Ok(Answer { status, body }) => {
            eprintln!("stopover: {url} answered {status}: {}", body.trim());
        }
        Err(error) => eprintln!("stopover: {url} did not answer: {}", explain(&error)),
    }
    Err(ExitCode::FAILURE)
}

/// What an error of the connection means for a daemon.
fn explain(error: &io::Error) -> String {
    let seconds = TIMEOUT.as_secs();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("nothing came within {seconds} s: the daemon hangs, is overloaded or stopped")
        }
        io::ErrorKind::ConnectionRefused => {
            "nothing listens there: the daemon does not run, or server.listen is another address"
                .to_owned()
        }
        _ => error.to_string(),
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

struct Answer {
    status: u16,
    body: String,
}

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

fn request(address: SocketAddr, path: &str, certificate: Option<&Path>) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut stream: Box<dyn Stream> = match certificate {
        Some(certificate) => Box::new(health_tls::within(stream, certificate)?),
        None => Box::new(stream),
    };
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    let read = stream.take(MAX_RESPONSE_SIZE).read_to_end(&mut answer);
    // Before the error: who speaks TLS closes the connection after its alert.
    if certificate.is_none() && is_tls(&answer) {
        let what = "the port speaks TLS: name its certificate with --certificate, or the daemon's \
                    configuration with --config";
        return Err(io::Error::other(what));
    }
    read?;
    parse(&String::from_utf8_lossy(&answer))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the response is not HTTP"))
}

/// Whether a response is a record of TLS: an alert or a handshake, in any version.
fn is_tls(answer: &[u8]) -> bool {
    matches!(answer, [0x15 | 0x16, 0x03, ..])
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some(Answer {
        status: status.parse().ok()?,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn one_answer(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).unwrap();
            assert!(request[..n].starts_with(b"GET /healthz HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn status_and_body_of_an_answer_are_told_apart() {
        let address = one_answer("HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nwhy");
        let answer = request(address, "/healthz", None).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "why"));
    }

    #[test]
    fn something_else_than_http_is_an_error() {
        let address = one_answer("220 smtp.example ready\r\n");
        assert!(request(address, "/healthz", None).is_err());
    }

    /// Story: a probe of a TLS port said "no HTTP answer".
    #[test]
    fn a_port_that_speaks_tls_is_recognised() {
        let address = one_answer("\u{15}\u{3}\u{3}\0\u{2}\u{2}\n");
        let Err(error) = request(address, "/healthz", None) else {
            panic!("an alert is no answer");
        };
        assert!(error.to_string().contains("--certificate"), "{error}");
    }

    /// Story: a probe of a daemon that hung said "os error 11".
    #[test]
    fn errors_of_the_connection_say_what_they_mean_for_a_daemon() {
        let of = |code| explain(&io::Error::from_raw_os_error(code));
        assert!(
            of(11).contains("within 3 s: the daemon hangs"),
            "{}",
            of(11)
        );
        assert!(of(111).contains("nothing listens there"), "{}", of(111));
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
