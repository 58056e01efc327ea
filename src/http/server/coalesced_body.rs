//! A response body that combines small data frames into large ones, for fewer socket writes.
//!
//! Does: collect the frames that are ready, without copying. On its own, hyper would write as soon
//! as it holds 64 KiB, which is a page or two. Does not: wait for more than is ready, or change a
//! byte. Invariant: collected data are returned before the trailers, error or end of the body that
//! ended their collection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

/// Bytes that are collected for one frame. A client that stops reading holds about this much
/// besides the socket buffer, and a reading client resets its stall timeout once per frame.
const TARGET_SIZE: usize = 256 << 10;
/// Buffers that are collected for one frame. Each uses 32 bytes besides its data, which the reads
/// reserve; a single write cannot contain more buffers anyway.
const MAX_BUFFERS: usize = 128;

/// A body with combined data frames.
#[derive(Debug)]
pub(super) struct CoalescedBody<B: Body> {
    body: B,
    /// What ended the last collection, to be returned next.
    pending: Option<Result<Frame<Buffers>, B::Error>>,
    ended: bool,
}

/// The data of consecutive frames.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    buffers: VecDeque<Bytes>,
    length: usize,
}

impl<B: Body> CoalescedBody<B> {
    /// Wraps a body.
    pub(super) fn of(body: B) -> Self {
        Self {
            body,
            pending: None,
            ended: false,
        }
    }
}

impl<B> Body for CoalescedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Unpin,
{
    type Data = Buffers;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Buffers>, B::Error>>> {
        let mut buffers = Buffers::default();
        while buffers.has_room() && self.pending.is_none() && !self.ended {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending if buffers.length == 0 => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(error))) => self.pending = Some(Err(error)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(buffer) => buffers.push(buffer),
                    Err(other) => {
                        self.pending = other.into_trailers().ok().map(Frame::trailers).map(Ok);
                    }
                },
            }
        }
        match buffers.length {
            0 => Poll::Ready(self.pending.take()),
            _ => Poll::Ready(Some(Ok(Frame::data(buffers)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pending.is_none() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Buffers {
    fn has_room(&self) -> bool {
        self.length < TARGET_SIZE && self.buffers.len() < MAX_BUFFERS
    }

    fn push(&mut self, buffer: Bytes) {
        self.length += buffer.len();
        if !buffer.is_empty() {
            self.buffers.push_back(buffer);
        }
    }
}

impl Buf for Buffers {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.buffers.front().map_or(&[], |buffer| buffer)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.buffers);
        filled
            .map(|(slice, buffer)| *slice = IoSlice::new(buffer))
            .count()
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.length, "{count} of {}", self.length);
        self.length -= count;
        let mut left = count;
        while let Some(front) = self.buffers.front_mut().filter(|_| left > 0) {
            if left < front.len() {
                front.advance(left);
                return;
            }
            left -= front.len();
            self.buffers.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use proptest::prelude::*;

    type Given = Result<Frame<Bytes>, &'static str>;

    fn data(buffer: &[u8]) -> Given {
        Ok(Frame::data(Bytes::copy_from_slice(buffer)))
    }

    /// The frames of the combined body; `None` is a poll at which nothing is ready.
    fn polled(frames: Vec<Option<Given>>) -> Vec<Result<Vec<u8>, String>> {
        let mut frames = frames.into_iter();
        let body = stream::poll_fn(move |cx| match frames.next() {
            None => Poll::Ready(None),
            Some(Some(frame)) => Poll::Ready(Some(frame)),
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        });
        let mut coalesced = CoalescedBody::of(StreamBody::new(body));
        let mut out = Vec::new();
        futures::executor::block_on(async {
            while let Some(frame) = coalesced.frame().await {
                out.push(match frame.map(Frame::into_data) {
                    Ok(Ok(mut combined)) => {
                        Ok(combined.copy_to_bytes(combined.remaining()).to_vec())
                    }
                    Ok(Err(_)) => Err("trailers".into()),
                    Err(error) => Err(error.to_owned()),
                });
            }
        });
        assert!(coalesced.is_end_stream());
        out
    }

    #[test]
    fn ready_frames_are_combined_without_waiting_for_more() {
        let frames = [Some(b"a"), Some(b"b"), None, Some(b"c")];
        let frames = frames.map(|buffer| buffer.map(|buffer| data(buffer)));
        assert_eq!(
            polled(frames.into()),
            [Ok(b"ab".to_vec()), Ok(b"c".to_vec())]
        );
        let large = vec![7; TARGET_SIZE];
        let frames = [&large[1..], &large[..2], b"x"].map(|buffer| Some(data(buffer)));
        let lengths: Vec<_> = polled(frames.into())
            .into_iter()
            .map(|combined| combined.unwrap().len())
            .collect();
        assert_eq!(lengths, [TARGET_SIZE + 1, 1]);
    }

    /// Story: pages of one byte were collected to 256 KiB, and used 8 MiB of memory in addition.
    #[test]
    fn tiny_buffers_are_bounded_by_their_number() {
        let frames = (0..300).map(|_| Some(data(b"x")));
        let combined = polled(frames.collect()).into_iter();
        let lengths: Vec<_> = combined.map(|combined| combined.unwrap().len()).collect();
        assert_eq!(lengths, [MAX_BUFFERS, MAX_BUFFERS, 300 - 2 * MAX_BUFFERS]);
    }

    #[test]
    fn data_before_an_error_or_trailers_are_returned_first() {
        let error = polled(vec![Some(data(b"a")), Some(Err("broken"))]);
        assert_eq!(error, [Ok(b"a".to_vec()), Err("broken".into())]);
        let trailers = Ok(Frame::trailers(axum::http::HeaderMap::new()));
        let trailers = polled(vec![Some(data(b"a")), Some(data(b"")), Some(trailers)]);
        assert_eq!(trailers, [Ok(b"a".to_vec()), Err("trailers".into())]);
        assert_eq!(polled(vec![Some(data(b""))]), []);
    }

    proptest! {
        #[test]
        fn buffers_read_in_any_steps_keep_their_bytes(
            buffers: Vec<Vec<u8>>,
            steps in prop::collection::vec(1usize..40, 1..100),
        ) {
            let mut combined = Buffers::default();
            buffers.iter().for_each(|buffer| combined.push(buffer.clone().into()));
            let mut taken = Vec::new();
            let mut steps = steps.iter().cycle();
            while combined.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = combined.chunks_vectored(&mut slices);
                prop_assert!(filled > 0 && slices[0].starts_with(combined.chunk()));
                let seen: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
                let step = (*steps.next().unwrap()).min(seen.len());
                taken.extend_from_slice(&seen[..step]);
                combined.advance(step);
            }
            prop_assert_eq!(taken, buffers.concat());
        }
    }
}
