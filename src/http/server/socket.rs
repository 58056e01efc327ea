//! A socket that gives up on a client which does not take what it is sent, and that closes
//! politely.
//!
//! Does: fail a write that has been stuck until patience was over, so that the response and its
//! memory go; and, when closing, read on for a moment, since closing a socket with unread bytes
//! makes the kernel discard the answer that the client has not read yet. Does not: bound reads
//! (hyper and the body readers do).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use tokio_util::sync::CancellationToken;

use crate::http::stall::StallPolicy;
use crate::runtime::Clock;

/// How long a closing connection reads on.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes it then reads at most.
const LINGER_BYTES: usize = 256 << 20;

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A guarded socket.
pub struct GuardedIo {
    stream: TcpStream,
    clock: Clock,
    patience: StallPolicy,
    /// Runs while a write is stuck.
    stuck: Option<Timer>,
    /// Runs once the write side is closed.
    linger: Option<Timer>,
    drained: usize,
    /// Once the daemon stops, no connection lingers.
    stop: CancellationToken,
}

impl GuardedIo {
    /// Guards a socket; a write may be stuck for as long as `patience` lasts.
    pub fn new(
        stream: TcpStream,
        patience: StallPolicy,
        clock: Clock,
        stop: CancellationToken,
    ) -> Self {
        Self {
            stream,
            clock,
            patience,
            stuck: None,
            linger: None,
            drained: 0,
            stop,
        }
    }

    fn timer(&self, duration: Duration) -> Timer {
        let clock = self.clock.clone();
        Box::pin(async move { clock.sleep(duration).await })
    }

    /// Passes on the outcome of a write, unless writes have been stuck for too long.
    fn guard<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let expired = || Box::pin(self.patience.clone().expired()) as Timer;
        let mut stuck = self.stuck.take().unwrap_or_else(expired);
        ready!({
            let polled = stuck.as_mut().poll(cx);
            self.stuck = Some(stuck);
            polled
        });
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client took nothing for limits.read_stall_timeout",
        )))
    }

    /// Reads and drops until the client has closed, too.
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
            self.linger = Some(self.timer(LINGER));
        }
        ready!(self.poll_drain(cx));
        Poll::Ready(Ok(()))
    }
}
