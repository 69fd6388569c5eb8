//! Any body, cut off anywhere, any number of times.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Bytes;
use proptest::{collection::vec, option::weighted, prelude::*};

use super::{
    super::{ReplayBody, RetryBody},
    Attempt, trailers,
};

/// A body that says what it is told to say about itself.
#[derive(Debug)]
struct Script {
    /// `None`: not ready.
    frames: VecDeque<Option<Frame<Bytes>>>,
    states_length: bool,
    states_end: bool,
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.frames.pop_front() {
            Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.states_end && self.frames.iter().all(Option::is_none)
    }

    fn size_hint(&self) -> SizeHint {
        if !self.states_length {
            return SizeHint::default();
        }
        let frames = self.frames.iter().flatten();
        let bytes = frames.filter_map(|frame| Some(frame.data_ref()?.len() as u64));
        SizeHint::with_exact(bytes.sum())
    }
}

/// What a server gets of one attempt.
#[derive(Clone, Debug, Default, PartialEq)]
struct Received {
    bytes: Vec<u8>,
    trailers: Option<HeaderMap>,
}

struct Server<'a> {
    attempt: Attempt<Script>,
    received: Received,
    whole: &'a Received,
    states_length: bool,
    ended: bool,
}

impl Server<'_> {
    /// Polls the attempt, and compares what it says of itself with what comes.
    fn receive(&mut self, polls: usize) {
        for _ in 0..polls {
            let (received, whole) = (&mut self.received, self.whole);
            let left = (whole.bytes.len() - received.bytes.len()) as u64;
            let size = self.attempt.0.size_hint();
            assert!(size.lower() <= left && size.upper().is_none_or(|upper| left <= upper));
            assert!(!self.states_length || size.exact() == Some(left));
            assert!(!self.attempt.0.is_end_stream() || received == whole);
            match self.attempt.next() {
                Poll::Pending => {}
                Poll::Ready(None) => {
                    self.ended = true;
                    return self.attempt.ends();
                }
                Poll::Ready(Some(frame)) => match frame.unwrap().into_data() {
                    Ok(data) => {
                        received.bytes.extend_from_slice(&data);
                        assert!(whole.bytes.starts_with(&received.bytes));
                    }
                    Err(frame) => {
                        assert!(received.trailers.is_none());
                        received.trailers = frame.into_trailers().ok();
                    }
                },
            }
        }
    }
}

prop_compose! {
    fn bodies()(
        chunks in vec(weighted(0.8, vec(any::<u8>(), 0..12)), 0..10),
        has_trailers in any::<bool>(),
        states_length in any::<bool>(),
        states_end in any::<bool>(),
    ) -> (Script, Received) {
        let whole = Received {
            bytes: chunks.iter().flatten().flatten().copied().collect(),
            trailers: has_trailers.then(trailers),
        };
        let chunks = chunks.into_iter().map(|chunk| Some(Frame::data(Bytes::from(chunk?))));
        let trailers = whole.trailers.clone().map(|trailers| Some(Frame::trailers(trailers)));
        (Script { frames: chunks.chain(trailers).collect(), states_length, states_end }, whole)
    }
}

proptest! {
    #[test]
    fn however_it_is_cut_an_attempt_is_a_beginning_of_the_body_and_the_last_one_is_all_of_it(
        (script, whole) in bodies(),
        max_kept in 0..150_usize,
        cuts in vec((1..14_usize, any::<bool>()), 0..6),
    ) {
        let states_length = script.states_length;
        let kept = ReplayBody::with_max_kept(script, max_kept);
        let mut read = if states_length { whole.bytes.len() } else { 0 };
        let mut held = None;
        for (polls, is_held) in cuts.into_iter().chain([(usize::MAX, false)]) {
            let body = kept.try_clone();
            prop_assert_eq!(body.is_some(), read <= max_kept);
            let Some(body) = body else { break };
            let mut server = Server {
                attempt: Attempt::of(body),
                received: Received::default(),
                whole: &whole,
                states_length,
                ended: false,
            };
            server.receive(1);
            if let Some(mut before) = held.take() {
                let next = Attempt::next(&mut before);
                let refused = matches!(&next, Poll::Ready(Some(Err(error))) if error.is_taken_over());
                prop_assert!(refused || matches!(next, Poll::Ready(None)));
            }
            if !server.ended {
                server.receive(polls - 1);
            }
            read = read.max(server.received.bytes.len());
            prop_assert!(server.ended || polls < usize::MAX);
            prop_assert!(!server.ended || server.received == whole);
            held = is_held.then_some(server.attempt);
        }
    }
}
