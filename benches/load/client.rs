//! A minimal HTTP/1.1 client: one blocking connection, one buffer.
//!
//! Does: send requests of known length, read answers of known length or chunked. Does not: inspect
//! what it reads, or retry. Invariant: an answer that is not 2xx, or ends early, is an error.

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

/// The length of an answer's body.
enum Length {
    Known(usize),
    Chunked,
}

impl Client {
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

    /// Sends a request and returns the body of the answer, buffered.
    pub fn call(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        self.stream(method, path, kind, body, |bytes| {
            answer.extend_from_slice(bytes)
        })?;
        Ok(answer)
    }

    /// Sends a request and passes the body of the answer to `consume` as it arrives.
    pub fn stream(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
        consume: impl FnMut(&[u8]),
    ) -> Result<()> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        let answer = self.answer(consume);
        answer.with_context(|| format!("{method} {path}"))
    }

    fn answer(&mut self, mut consume: impl FnMut(&[u8])) -> Result<()> {
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
        let mut collect = |bytes: &[u8]| failure.extend_from_slice(bytes);
        let consume: &mut dyn FnMut(&[u8]) = if good { &mut consume } else { &mut collect };
        match length {
            Length::Known(length) => self.body(length, consume)?,
            Length::Chunked => loop {
                let line = self.line()?;
                let size = usize::from_str_radix(&line, 16).context("invalid chunk size")?;
                self.body(size, consume)?;
                let end = self.line()?;
                ensure!(end.is_empty(), "a chunk does not end with a line break");
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

    fn body(&mut self, mut left: usize, consume: &mut dyn FnMut(&[u8])) -> Result<()> {
        while left > 0 {
            if self.start == self.end {
                self.fill()?;
            }
            let count = left.min(self.end - self.start);
            consume(&self.buffer[self.start..self.start + count]);
            self.start += count;
            left -= count;
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
