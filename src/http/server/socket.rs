//! A socket that disconnects stalled clients and closes without losing the last response.
//!
//! Does: fail a write that has made no progress for the stall timeout, so that the response and its
//! memory are dropped. When closing, read on for a short time, because the kernel discards sent
//! bytes that the client has not read yet if a socket is closed while received bytes are unread.
//! Does not: bound reads (hyper and the body extractors do).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::http::stall::StallPolicy;

/// How long a closing connection is read.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes of it are read at most.
const LINGER_BYTES: usize = 256 << 20;

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A socket with a stall timeout.
pub struct GuardedIo {
    stream: TcpStream,
    stall_policy: StallPolicy,
    /// Runs while a write is pending.
    stall: Option<Timer>,
    /// Runs since the write side was closed.
    linger: Option<Timer>,
    drained: usize,
    /// Connections do not linger once the daemon stops.
    stop: CancellationToken,
}

impl GuardedIo {
    /// Guards a socket.
    pub fn new(stream: TcpStream, stall_policy: StallPolicy, stop: CancellationToken) -> Self {
        Self {
            stream,
            stall_policy,
            stall: None,
            linger: None,
            drained: 0,
            stop,
        }
    }

    /// Returns the outcome of a write, or an error once writes have been pending for the stall
    /// timeout.
    fn guard<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let policy = &self.stall_policy;
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(policy.clone().expired()));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client read nothing for limits.response_stall_timeout",
        )))
    }

    /// Reads and discards until the client has closed its side.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 16 << 10];
        while self.drained < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.drained += buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if self.stop.is_cancelled() => return Poll::Ready(()),
                Poll::Pending => {
                    let linger = self.linger.as_mut().expect("set before draining");
                    return linger.as_mut().poll(cx);
                }
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for GuardedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for GuardedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.guard(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.guard(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.guard(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            let clock = self.stall_policy.clock().clone();
            self.linger = Some(Box::pin(async move { clock.sleep(LINGER).await }));
        }
        ready!(self.poll_drain(cx));
        Poll::Ready(Ok(()))
    }
}
