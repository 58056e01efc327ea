//! The cheapest HTTP/1.1 client that does the job: one blocking connection, one buffer.
//!
//! Does: send requests with a known length, read answers of a known length or in chunks. Does not:
//! look at what it reads, or repeat anything. Invariant: an answer that is not 2xx, or ends early,
//! is an error.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result, bail, ensure};

const BUFFER: usize = 256 << 10;

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// How long the body of an answer is.
enum Length {
    Known(usize),
    Chunked,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
        })
    }

    /// Sends a request and answers the body of a short answer.
    pub fn call(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        self.stream(method, path, kind, body, |bytes| {
            answer.extend_from_slice(bytes)
        })?;
        Ok(answer)
    }

    /// Sends a request and gives the body of the answer away as it comes.
    pub fn stream(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
        take: impl FnMut(&[u8]),
    ) -> Result<()> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {kind}\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        let answer = self.answer(take);
        answer.with_context(|| format!("{method} {path}"))
    }

    fn answer(&mut self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let status = self.line()?;
        let mut length = Length::Known(0);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            } else if let Some(value) = line.strip_prefix("content-length:") {
                length = Length::Known(value.trim().parse()?);
            } else if line == "transfer-encoding: chunked" {
                length = Length::Chunked;
            }
        }
        let mut failure = Vec::new();
        let good = status.starts_with("HTTP/1.1 2");
        let mut keep = |bytes: &[u8]| failure.extend_from_slice(bytes);
        let take: &mut dyn FnMut(&[u8]) = if good { &mut take } else { &mut keep };
        match length {
            Length::Known(length) => self.body(length, take)?,
            Length::Chunked => loop {
                let line = self.line()?;
                let size = usize::from_str_radix(&line, 16).context("the size of a chunk")?;
                self.body(size, take)?;
                let end = self.line()?;
                ensure!(end.is_empty(), "a chunk does not end where it should");
                if size == 0 {
                    break;
                }
            },
        }
        if !good {
            bail!("{status}: {}", String::from_utf8_lossy(&failure));
        }
        Ok(())
    }

    fn body(&mut self, mut left: usize, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        while left > 0 {
            if self.start == self.end {
                self.fill()?;
            }
            let here = left.min(self.end - self.start);
            take(&self.buffer[self.start..self.start + here]);
            self.start += here;
            left -= here;
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            if self.start == self.end {
                self.fill()?;
            }
            let byte = self.buffer[self.start];
            self.start += 1;
            match byte {
                b'\n' => return Ok(String::from_utf8(line)?),
                b'\r' => {}
                byte => line.push(byte),
            }
        }
    }

    fn fill(&mut self) -> Result<()> {
        self.start = 0;
        self.end = self.stream.read(&mut self.buffer)?;
        ensure!(self.end > 0, "the server closed the connection");
        Ok(())
    }
}
