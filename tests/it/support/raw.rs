//! HTTP clients that write byte by byte, to send what a well-behaved client would not.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection, with or without TLS.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// An HTTP/1.1 client on one connection.
pub struct RawClient {
    stream: BufReader<Box<dyn Io>>,
}

#[derive(Debug)]
pub struct RawAnswer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// A header's value; `name` is compared case-insensitively.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The type of the problem document in the body, without the URN prefix.
    pub fn problem_type(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        let kind = problem["type"].as_str().unwrap();
        kind.strip_prefix("urn:stopover:problem:")
            .unwrap()
            .to_owned()
    }
}

impl RawClient {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Uses an existing connection.
    pub fn over(stream: impl Io + 'static) -> Self {
        Self {
            stream: BufReader::new(Box::new(stream)),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .get_mut()
            .write_all(bytes.as_ref())
            .await
            .unwrap();
    }

    /// Sends as much as possible: the daemon may refuse and close the connection early.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.get_mut().write_all(bytes.as_ref()).await;
    }

    /// Sends a request head with these headers.
    pub async fn send_head(&mut self, line: &str, headers: &[(&str, &str)]) {
        let mut head = format!("{line} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        self.send(head).await;
    }

    /// Reads one answer, with a body of the announced length.
    pub async fn answer(&mut self) -> RawAnswer {
        let answer = tokio::time::timeout(Duration::from_secs(20), self.read_answer()).await;
        answer.expect("no answer within 20 s")
    }

    /// Reads only the head of an answer, as after a HEAD request or for `100 Continue`.
    pub async fn answer_head(&mut self) -> RawAnswer {
        let head = tokio::time::timeout(Duration::from_secs(20), self.read_head()).await;
        head.expect("no answer within 20 s")
    }

    /// The status of the next answer; `None` if the connection ends before.
    pub async fn status(&mut self) -> Option<u16> {
        let mut head = [0; 12];
        self.stream.read_exact(&mut head).await.ok()?;
        std::str::from_utf8(&head[9..]).ok()?.parse().ok()
    }

    async fn read_head(&mut self) -> RawAnswer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(
                self.stream
                    .read_u8()
                    .await
                    .expect("the connection closed within a head"),
            );
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        RawAnswer {
            status,
            head,
            body: Vec::new(),
        }
    }

    async fn read_answer(&mut self) -> RawAnswer {
        let mut answer = self.read_head().await;
        let length = answer
            .header("content-length")
            .map_or(0, |l| l.parse().unwrap());
        answer.body = vec![0; length];
        self.stream.read_exact(&mut answer.body).await.unwrap();
        answer
    }

    /// Closes the sending side; answers can still be received.
    pub async fn close_sending(&mut self) {
        self.stream.get_mut().shutdown().await.unwrap();
    }

    /// Everything that arrives until the daemon closes the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        let _ = tokio::time::timeout(Duration::from_secs(20), read)
            .await
            .expect("the connection is still open after 20 s");
        rest
    }

    /// Whether the daemon closes the connection without sending another byte.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0; 1];
        let read = self.stream.read(&mut byte);
        match tokio::time::timeout(Duration::from_secs(20), read).await {
            Ok(read) => read.is_ok_and(|n| n == 0),
            Err(_) => false,
        }
    }
}

/// An HTTP/2 client that sends one request per connection.
pub struct Http2Client(Box<dyn Io>);

impl Http2Client {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// Uses an existing connection.
    pub async fn over(mut stream: impl Io + 'static) -> Self {
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let mut client = Self(Box::new(stream));
        client.send_frame(4, 0, 0, b"").await;
        client
    }

    async fn send_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// Sends a request with a body of at most 16 KiB and reads nothing of the answer.
    pub async fn send_request(&mut self, path: &str, media_type: &str, body: &[u8]) {
        let head = head_block("POST", path, media_type, body.len());
        self.send_frame(1, 4, 1, &head).await;
        self.send_frame(0, 1, 1, body).await;
    }

    /// Sends a request with a body of at most 16 KiB and returns the answer's body.
    pub async fn post(&mut self, path: &str, media_type: &str, body: &[u8]) -> Vec<u8> {
        self.send_request(path, media_type, body).await;
        let answer = tokio::time::timeout(Duration::from_secs(20), self.data_of_stream_1()).await;
        answer.expect("no answer within 20 s")
    }

    /// Sends a request's head, waits for the whole answer, and only then sends the body. Returns
    /// the types of all frames received until the daemon answered a ping.
    pub async fn post_late(&mut self, path: &str, media_type: &str, body: &[u8]) -> Vec<u8> {
        let head = head_block("POST", path, media_type, body.len());
        self.send_frame(1, 4, 1, &head).await;
        let mut kinds = Vec::new();
        let mut answered = false;
        loop {
            let next = tokio::time::timeout(Duration::from_secs(20), self.frame()).await;
            let (kind, flags, stream, _) = next.expect("no answer within 20 s");
            kinds.push(kind);
            if stream == 1 && matches!(kind, 0 | 1) && flags & 1 == 1 && !answered {
                answered = true;
                self.send_frame(0, 1, 1, body).await;
                self.send_frame(6, 0, 0, b"whatever").await;
            }
            if (kind, flags) == (6, 1) {
                return kinds;
            }
        }
    }

    async fn frame(&mut self) -> (u8, u8, u8, Vec<u8>) {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        (head[3], head[4], head[8], payload)
    }

    async fn data_of_stream_1(&mut self) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            let (kind, flags, stream, payload) = self.frame().await;
            if (kind, stream) == (0, 1) {
                data.extend(payload);
            }
            if kind <= 1 && stream == 1 && flags & 1 == 1 {
                return data;
            }
        }
    }
}

/// A header block that encodes a request head (RFC 7541).
fn head_block(method: &str, path: &str, media_type: &str, length: usize) -> Vec<u8> {
    let length = length.to_string();
    let mut block = Vec::new();
    for (name, value) in [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", media_type),
        ("content-length", &length),
    ] {
        // A literal field without indexing (6.2.2); both strings are short and not Huffman-coded.
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}
