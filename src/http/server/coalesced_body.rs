//! A response body in portions: many small pieces go to the socket at once.
//!
//! Does: gather what the body has ready, without a copy, for hyper, which otherwise writes as soon
//! as it holds 64 KiB, so a page or two at a time. Does not: wait for more than is ready, or change
//! a byte. Invariant: a portion that has begun is given before whatever ended it, be that trailers,
//! an error or the end.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

/// Bytes from which a portion is large enough. A client that stops reading holds about as many more
/// than the socket does, and one that reads is heard of once for each (`stall`).
const PORTION: usize = 256 << 10;

/// A body whose data come in portions.
#[derive(Debug)]
pub struct CoalescedBody<B: Body> {
    body: B,
    /// What came after the last portion and is to be given next.
    after: Option<Result<Frame<Portion>, B::Error>>,
    ended: bool,
}

/// Pieces of a body, one after another.
#[derive(Debug, Default)]
pub struct Portion {
    pieces: VecDeque<Bytes>,
    length: usize,
}

impl<B: Body> CoalescedBody<B> {
    /// The same body.
    pub fn of(body: B) -> Self {
        Self {
            body,
            after: None,
            ended: false,
        }
    }
}

impl<B> Body for CoalescedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Unpin,
{
    type Data = Portion;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Portion>, B::Error>>> {
        let mut portion = Portion::default();
        while portion.length < PORTION && self.after.is_none() && !self.ended {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending if portion.length == 0 => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(error))) => self.after = Some(Err(error)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => portion.push(piece),
                    Err(other) => {
                        self.after = other.into_trailers().ok().map(Frame::trailers).map(Ok);
                    }
                },
            }
        }
        match portion.length {
            0 => Poll::Ready(self.after.take()),
            _ => Poll::Ready(Some(Ok(Frame::data(portion)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.after.is_none() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Portion {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }
}

impl Buf for Portion {
    fn remaining(&self) -> usize {
        self.length
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.pieces);
        filled
            .map(|(slice, piece)| *slice = IoSlice::new(piece))
            .count()
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.length, "{count} of {} bytes", self.length);
        self.length -= count;
        let mut left = count;
        while let Some(front) = self.pieces.front_mut().filter(|_| left > 0) {
            if left < front.len() {
                front.advance(left);
                return;
            }
            left -= front.len();
            self.pieces.pop_front();
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

    fn data(piece: &[u8]) -> Given {
        Ok(Frame::data(Bytes::copy_from_slice(piece)))
    }

    /// What comes of frames, `None` for a moment in which nothing is ready.
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
        let mut portions = CoalescedBody::of(StreamBody::new(body));
        let mut out = Vec::new();
        futures::executor::block_on(async {
            while let Some(frame) = portions.frame().await {
                out.push(match frame.map(Frame::into_data) {
                    Ok(Ok(mut portion)) => Ok(portion.copy_to_bytes(portion.remaining()).to_vec()),
                    Ok(Err(_)) => Err("trailers".into()),
                    Err(error) => Err(error.to_owned()),
                });
            }
        });
        assert!(portions.is_end_stream());
        out
    }

    #[test]
    fn what_is_ready_goes_together_and_nothing_is_waited_for() {
        let frames = [Some(b"a"), Some(b"b"), None, Some(b"c")];
        let frames = frames.map(|piece| piece.map(|piece| data(piece)));
        assert_eq!(
            polled(frames.into()),
            [Ok(b"ab".to_vec()), Ok(b"c".to_vec())]
        );
        let large = vec![7; PORTION];
        let frames = [&large[1..], &large[..2], b"x"].map(|piece| Some(data(piece)));
        let lengths: Vec<_> = polled(frames.into())
            .into_iter()
            .map(|portion| portion.unwrap().len())
            .collect();
        assert_eq!(lengths, [PORTION + 1, 1]);
    }

    #[test]
    fn what_came_before_an_error_or_trailers_is_given_first() {
        let error = polled(vec![Some(data(b"a")), Some(Err("broken"))]);
        assert_eq!(error, [Ok(b"a".to_vec()), Err("broken".into())]);
        let trailers = Ok(Frame::trailers(axum::http::HeaderMap::new()));
        let trailers = polled(vec![Some(data(b"a")), Some(data(b"")), Some(trailers)]);
        assert_eq!(trailers, [Ok(b"a".to_vec()), Err("trailers".into())]);
        assert_eq!(polled(vec![Some(data(b""))]), []);
    }

    proptest! {
        #[test]
        fn a_portion_taken_in_any_steps_is_its_pieces(
            pieces: Vec<Vec<u8>>,
            steps in prop::collection::vec(1usize..40, 1..100),
        ) {
            let mut portion = Portion::default();
            pieces.iter().for_each(|piece| portion.push(piece.clone().into()));
            let mut taken = Vec::new();
            let mut steps = steps.iter().cycle();
            while portion.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = portion.chunks_vectored(&mut slices);
                prop_assert!(filled > 0 && slices[0].starts_with(portion.chunk()));
                let seen: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
                let step = (*steps.next().unwrap()).min(seen.len());
                taken.extend_from_slice(&seen[..step]);
                portion.advance(step);
            }
            prop_assert_eq!(taken, pieces.concat());
        }
    }
}
