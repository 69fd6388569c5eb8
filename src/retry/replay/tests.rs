//! Bodies that are sent again, frame by frame.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Buf, Bytes};
use proptest::prelude::*;
use tokio_test::{assert_pending, task};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Data(&'static [u8]),
    Trailers,
    Fail,
    Wait,
}

/// A body that does as it is told; not `Clone`. It counts what was read of it.
#[derive(Debug)]
struct Told {
    steps: VecDeque<Step>,
    read: Arc<Mutex<Reads>>,
}

#[derive(Debug, Default)]
struct Reads {
    frames: usize,
    waiter: Option<Waker>,
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", 42.into());
    trailers
}

impl Told {
    fn bytes_left(&self) -> u64 {
        let len = |step: &Step| match step {
            Step::Data(data) => data.len() as u64,
            _ => 0,
        };
        self.steps.iter().map(len).sum()
    }
}

impl Body for Told {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let step = self.steps.pop_front();
        let mut read = self.read.lock().unwrap();
        read.frames += usize::from(step.is_some());
        Poll::Ready(match step {
            Some(Step::Data(data)) => Some(Ok(Frame::data(data.into()))),
            Some(Step::Trailers) => Some(Ok(Frame::trailers(trailers()))),
            Some(Step::Fail) => Some(Err(io::Error::other("the disk is gone"))),
            Some(Step::Wait) => {
                read.waiter = Some(cx.waker().clone());
                return Poll::Pending;
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left())
    }
}

fn told(steps: &[Step]) -> (ReplayBody<Told>, Arc<Mutex<Reads>>) {
    told_within(1_024, steps)
}

fn told_within(max: usize, steps: &[Step]) -> (ReplayBody<Told>, Arc<Mutex<Reads>>) {
    let read = Arc::<Mutex<Reads>>::default();
    let body = Told {
        steps: steps.iter().cloned().collect(),
        read: read.clone(),
    };
    (ReplayBody::new(body, max), read)
}

/// What an attempt sent.
#[derive(Debug, Default, PartialEq)]
struct Sent {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    error: Option<String>,
}

type Frames = Poll<Option<Result<Frame<Bytes>, ReplayError>>>;

fn poll(body: &mut ReplayBody<Told>) -> Frames {
    let mut context = task::spawn(());
    context.enter(|cx, _| Pin::new(body).poll_frame(cx))
}

impl Sent {
    /// Sends a frame; whether there may be more.
    fn send(&mut self, body: &mut ReplayBody<Told>) -> bool {
        let exact = body.size_hint().exact();
        match poll(body) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let after = body.size_hint().exact();
                    assert_eq!(
                        exact.zip(after).map(|(b, a)| b - a),
                        Some(data.remaining() as u64)
                    );
                    self.data.extend_from_slice(&data);
                }
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            },
            Poll::Ready(Some(Err(error))) => {
                self.error = Some(error.to_string());
                return false;
            }
            Poll::Ready(None) => {
                assert!(body.is_end_stream());
                return false;
            }
            Poll::Pending => return false,
        }
        true
    }

    fn all_of(body: &mut ReplayBody<Told>) -> Self {
        let mut sent = Self::default();
        while sent.send(body) {}
        sent
    }
}

const WHOLE: [Step; 4] = [
    Step::Data(b"one "),
    Step::Data(b"two "),
    Step::Data(b"three"),
    Step::Trailers,
];

fn whole() -> Sent {
    Sent {
        data: b"one two three".to_vec(),
        trailers: Some(trailers()),
        error: None,
    }
}

#[test]
fn every_attempt_sends_the_whole_and_the_inner_body_is_read_once() {
    let (mut first, read) = told(&WHOLE);
    let kept = first.try_clone().unwrap();
    assert_eq!(first.size_hint().exact(), Some(13));
    assert_eq!(Sent::all_of(&mut first), whole());
    for _ in 0..3 {
        let mut again = kept.try_clone().unwrap();
        assert_eq!(again.size_hint().exact(), Some(13));
        assert!(!again.is_end_stream());
        assert_eq!(Sent::all_of(&mut again), whole());
    }
    assert_eq!(read.lock().unwrap().frames, 4);
}

#[test]
fn the_first_attempt_streams_through_without_waiting() {
    let (mut first, read) = told(&WHOLE);
    let _kept = first.try_clone();
    for frames in 1..=4 {
        assert!(poll(&mut first).is_ready());
        assert_eq!(read.lock().unwrap().frames, frames);
    }
}

/// linkerd2#15649: the first chunk came twice where the retry began before anything was read.
#[test]
fn a_retry_before_anything_was_read_doubles_nothing() {
    let (first, _) = told(&WHOLE);
    let kept = first.try_clone().unwrap();
    drop(first);
    let mut again = kept.try_clone().unwrap();
    assert_eq!(Sent::all_of(&mut again), whole());
}

#[test]
fn a_retry_in_the_middle_reads_on_where_the_first_attempt_stopped() {
    for frames in 0..=4 {
        for dropped in [true, false] {
            let (mut first, read) = told(&WHOLE);
            let kept = first.try_clone().unwrap();
            let mut sent = Sent::default();
            for _ in 0..frames {
                assert!(sent.send(&mut first));
            }
            // An early answer: the first attempt's body may still be held.
            let held = (!dropped).then_some(first);
            let mut again = kept.try_clone().unwrap();
            assert_eq!(again.size_hint().exact(), Some(13));
            assert_eq!(Sent::all_of(&mut again), whole(), "after {frames} frames");
            assert_eq!(read.lock().unwrap().frames, 4);
            drop(held);
        }
    }
}

#[test]
fn an_attempt_whose_place_is_taken_ends_in_an_error_and_is_woken_to_see_it() {
    let steps = [Step::Data(b"one "), Step::Wait, Step::Data(b"two")];
    let (mut first, _) = told(&steps);
    let kept = first.try_clone().unwrap();
    let mut reading = task::spawn(async {
        let mut sent = Vec::new();
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut first).poll_frame(cx)).await;
            match frame.unwrap() {
                Ok(frame) => sent.extend(frame.into_data().unwrap()),
                Err(error) => return (sent, error),
            }
        }
    });
    assert_pending!(reading.poll());
    let mut again = kept.try_clone().unwrap();
    assert!(reading.is_woken());
    let Poll::Ready((sent, error)) = reading.poll() else {
        panic!("it still waits");
    };
    assert_eq!(sent, b"one ");
    assert_eq!(error.to_string(), "request body is read by a later attempt");
    assert_eq!(Sent::all_of(&mut again).data, b"one two");
}

/// As above, by an attempt that was made before the first one began, and begins later.
#[test]
fn an_attempt_that_begins_later_wakes_the_one_whose_place_it_takes() {
    let steps = [Step::Data(b"one "), Step::Wait, Step::Data(b"two")];
    let (mut first, _) = told(&steps);
    let mut other = first.try_clone().unwrap();
    let mut reading = task::spawn(());
    let mut next =
        |body: &mut ReplayBody<Told>| reading.enter(|cx, _| Pin::new(body).poll_frame(cx));
    assert!(next(&mut first).is_ready());
    assert!(next(&mut first).is_pending());
    assert_eq!(Sent::all_of(&mut other).data, b"one two");
    assert!(reading.is_woken());
    assert!(matches!(poll(&mut first), Poll::Ready(Some(Err(_)))));
}

/// A body of endless empty chunks was read for ever in one poll.
#[test]
fn empty_chunks_are_handed_on_one_by_one_and_not_kept() {
    let (mut first, read) = told(&[Step::Data(b""), Step::Data(b""), Step::Data(b"one")]);
    let kept = first.try_clone().unwrap();
    for frames in 1..=2 {
        let Poll::Ready(Some(Ok(frame))) = poll(&mut first) else {
            panic!("no frame");
        };
        assert!(frame.data_ref().unwrap().is_empty());
        assert_eq!(read.lock().unwrap().frames, frames);
    }
    assert_eq!(Sent::all_of(&mut first).data, b"one");
    let mut again = kept.try_clone().unwrap();
    let Poll::Ready(Some(Ok(frame))) = poll(&mut again) else {
        panic!("no frame");
    };
    assert_eq!(frame.into_data().unwrap(), "one");
}

/// Two clones that are made before anything is read, and read at once: the later one reads on.
#[test]
fn two_at_once_never_share_out_the_frames() {
    let (mut first, _) = told(&WHOLE);
    let mut other = first.try_clone().unwrap();
    let mut sent = Sent::default();
    assert!(sent.send(&mut first));
    assert_eq!(Sent::all_of(&mut other), whole());
    assert!(!sent.send(&mut first));
    assert!(sent.error.is_some());
    assert_eq!(sent.data, b"one ");
}

#[test]
fn over_the_bound_the_first_attempt_goes_on_and_there_is_no_other() {
    let endless = [Step::Data(b"12345"), Step::Data(b"67890"), Step::Data(b"!")];
    for max in [0, 5, 9, 10] {
        let read = Arc::<Mutex<Reads>>::default();
        let body = Unsized(Told {
            steps: endless.iter().cloned().collect(),
            read,
        });
        let mut first = ReplayBody::new(body, max);
        let kept = first.try_clone().expect("its length is not known yet");
        let mut data = Vec::new();
        let mut context = task::spawn(());
        while let Poll::Ready(Some(frame)) =
            context.enter(|cx, _| Pin::new(&mut first).poll_frame(cx))
        {
            data.extend(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(data, b"1234567890!", "{max}");
        assert!(kept.try_clone().is_none(), "{max}");
        let mut late = kept;
        let frame = context.enter(|cx, _| Pin::new(&mut late).poll_frame(cx));
        let Poll::Ready(Some(Err(error))) = frame else {
            panic!("a part of the body was sent as if it were the whole");
        };
        assert!(error.to_string().contains("longer than"), "{error}");
    }
    let (exact, _) = told_within(11, &endless);
    assert!(exact.try_clone().is_some());
    let (mut longer, _) = told_within(10, &endless);
    assert!(longer.try_clone().is_none(), "known from the start");
    assert_eq!(Sent::all_of(&mut longer).data, b"1234567890!");
}

/// A body that does not know its length.
#[derive(Debug)]
struct Unsized(Told);

impl Body for Unsized {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

#[test]
fn a_body_that_failed_is_not_sent_again() {
    let (mut first, _) = told(&[Step::Data(b"one "), Step::Fail]);
    let kept = first.try_clone().unwrap();
    let mut held = kept.try_clone().unwrap();
    assert!(poll(&mut first).is_ready());
    let Poll::Ready(Some(Err(error))) = poll(&mut first) else {
        panic!("no error");
    };
    assert!(error.is_inner());
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.to_string(), "the disk is gone");
    assert!(kept.try_clone().is_none());
    let late = Sent::all_of(&mut held);
    assert_eq!(late.data, b"", "no half of it");
    assert_eq!(late.error.unwrap(), "request body failed");
}

#[test]
fn an_empty_body_and_one_of_trailers_are_sent_again_too() {
    for steps in [
        &[][..],
        &[Step::Trailers],
        &[Step::Data(b""), Step::Trailers],
    ] {
        let (mut first, _) = told(steps);
        let kept = first.try_clone().unwrap();
        assert_eq!(first.is_end_stream(), steps.is_empty());
        let sent = Sent::all_of(&mut first);
        assert_eq!(sent.trailers.is_some(), !steps.is_empty());
        let mut again = kept.try_clone().unwrap();
        assert_eq!(again.is_end_stream(), steps.is_empty());
        assert_eq!(again.size_hint().exact(), Some(0));
        assert_eq!(Sent::all_of(&mut again), sent);
    }
}

proptest! {
    /// However it is cut into chunks, and wherever attempts stop: each sent a beginning of it, and the last one all.
    #[test]
    fn every_attempt_sends_a_beginning_and_the_last_one_all(
        chunks in prop::collection::vec(0_usize..20, 0..12),
        with_trailers: bool,
        stops in prop::collection::vec((0_usize..14, any::<bool>()), 0..5),
    ) {
        const TEXT: &[u8] = &{
            let mut text = [0; 240];
            let mut at = 0;
            while at < text.len() {
                text[at] = at as u8;
                at += 1;
            }
            text
        };
        let mut at = 0;
        let mut steps: Vec<_> = chunks.iter().map(|&len| {
            at += len;
            Step::Data(&TEXT[at - len..at])
        }).collect();
        if with_trailers {
            steps.push(Step::Trailers);
        }
        let all = &TEXT[..chunks.iter().sum()];
        let (mut attempt, _) = told(&steps);
        let kept = attempt.try_clone().unwrap();
        let mut held = Vec::new();
        for (frames, hold) in stops {
            let mut sent = Sent::default();
            for _ in 0..frames {
                if !sent.send(&mut attempt) {
                    break;
                }
            }
            prop_assert!(all.starts_with(&sent.data));
            prop_assert_eq!(sent.error, None);
            let next = kept.try_clone().unwrap();
            let last = std::mem::replace(&mut attempt, next);
            if hold {
                held.push(last);
            }
        }
        let sent = Sent::all_of(&mut attempt);
        prop_assert_eq!(sent.data, all);
        prop_assert_eq!(sent.trailers.is_some(), with_trailers);
        prop_assert_eq!(sent.error, None);
    }
}
