//! A socket that reports when its client reads nothing, and closes without losing the last
//! response.
//!
//! Does: record at the connection whether writes are blocked. When closing, read on for a short
//! time, because the kernel discards sent bytes that the client has not read yet if a socket is
//! closed while received bytes are unread. Does not: end the connection (`serve` does).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::http::connection::Connection;

/// How long a closing connection is read.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes of it are read at most.
const LINGER_BYTES: usize = 256 << 20;

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A socket of a connection.
pub(super) struct GuardedIo<S> {
    stream: S,
    connection: Connection,
    /// Runs since the write side was closed.
    linger: Option<Timer>,
    drained: usize,
    /// Connections do not linger once the daemon stops.
    stop: CancellationToken,
}

impl<S: AsyncRead + AsyncWrite + Unpin> GuardedIo<S> {
    /// Guards a socket.
    pub(super) fn new(stream: S, connection: Connection, stop: CancellationToken) -> Self {
        Self {
            stream,
            connection,
            linger: None,
            drained: 0,
            stop,
        }
    }

    fn record<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.connection.set_blocked(written.is_pending());
        written
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for GuardedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.record(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.record(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.record(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            let clock = self.connection.clock().clone();
            self.linger = Some(Box::pin(async move { clock.sleep(LINGER).await }));
        }
        ready!(self.poll_drain(cx));
        Poll::Ready(Ok(()))
    }
}
