//! A store, or a service that issues credentials, whose answers a function makes.
//!
//! Invariant: it reads whole requests, so that no client sees a reset connection instead of the
//! answer.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Starts it for the rest of the process; `answer` makes the response of a request: its head and
/// its body.
pub fn start(answer: impl Fn(&str) -> String + Send + Clone + 'static) -> SocketAddr {
    listen(None, answer)
}

/// The same over TLS.
pub fn start_tls(
    tls: ServerConfig,
    answer: impl Fn(&str) -> String + Send + Clone + 'static,
) -> SocketAddr {
    listen(Some(Arc::new(tls)), answer)
}

fn listen(
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(&str) -> String + Send + Clone + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answer, tls) = (answer.clone(), tls.clone());
            std::thread::spawn(move || match tls {
                None => serve(stream, answer),
                Some(tls) => {
                    let connection = ServerConnection::new(tls).unwrap();
                    serve(StreamOwned::new(connection, stream), answer);
                }
            });
        }
    });
    address
}

fn serve(stream: impl Read + Write, answer: impl Fn(&str) -> String) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut line) = (String::new(), String::new());
        while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
            head.push_str(&line);
            line.clear();
        }
        if head.is_empty() {
            return;
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.lines().next()?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        let whole = reader.read_exact(&mut body).is_ok();
        let request = head + &String::from_utf8_lossy(&body);
        let answer = answer(&request);
        let stream = reader.get_mut();
        if !whole || stream.write_all(answer.as_bytes()).is_err() || stream.flush().is_err() {
            return;
        }
    }
}

/// A response with a body.
pub fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

/// The response of S3 for an error.
pub fn s3_error(status: &str, code: &str, message: &str) -> String {
    let body = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
    response(status, "Content-Type: application/xml\r\n", &body)
}
