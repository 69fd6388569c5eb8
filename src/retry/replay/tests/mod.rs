//! One body, several attempts.

use std::{
    error::Error,
    io,
    marker::PhantomPinned,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderValue, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Empty, Full};
use hyper::body::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_test::{assert_pending, task};
use tower::{BoxError, Layer, ServiceExt, service_fn};

use super::*;

mod cuts;
mod lengths;

type Feed = UnboundedSender<io::Result<Frame<Bytes>>>;

/// A body that yields what it is fed, and ends when the feed is dropped.
struct Fed {
    frames: UnboundedReceiver<io::Result<Frame<Bytes>>>,
    size: SizeHint,
}

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.frames.poll_recv(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

fn fed() -> (Feed, ReplayBody<Fed>) {
    fed_with_size(SizeHint::default())
}

fn fed_with_size(size: SizeHint) -> (Feed, ReplayBody<Fed>) {
    let (feed, frames) = unbounded_channel();
    (feed, ReplayBody::with_max_kept(Fed { frames, size }, 8))
}

fn data(text: &'static str) -> io::Result<Frame<Bytes>> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("digest", HeaderValue::from_static("abc"));
    trailers
}

/// An attempt that is polled by hand.
struct Attempt<B>(task::Spawn<ReplayBody<B>>);

impl<B> Attempt<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn of(body: ReplayBody<B>) -> Self {
        Self(task::spawn(body))
    }

    /// Another one, of a body that can be sent again.
    fn again(kept: &ReplayBody<B>) -> Self {
        Self::of(kept.try_clone().expect("a body for another attempt"))
    }

    fn next(&mut self) -> Poll<Option<Result<Frame<Bytes>, ReplayError>>> {
        self.0.enter(|cx, body| body.poll_frame(cx))
    }

    fn frame(&mut self) -> Frame<Bytes> {
        match self.next() {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => panic!("no frame but {other:?}"),
        }
    }

    fn data(&mut self) -> Bytes {
        self.frame().into_data().expect("data")
    }

    fn waits(&mut self) {
        assert_pending!(self.next());
    }

    fn ends(&mut self) {
        let next = self.next();
        assert!(matches!(next, Poll::Ready(None)), "{next:?}");
        assert!(self.0.is_end_stream());
        assert_eq!(self.0.size_hint().exact(), Some(0));
    }

    /// Fails, and promised nothing before.
    fn fails(&mut self) -> ReplayError {
        assert!(!self.0.is_end_stream());
        assert_eq!(self.0.size_hint().exact(), None);
        match self.next() {
            Poll::Ready(Some(Err(error))) => {
                self.ends();
                error
            }
            other => panic!("no error but {other:?}"),
        }
    }
}

#[test]
fn the_first_attempt_streams_through_without_waiting_and_nothing_is_copied() {
    let (feed, body) = fed();
    let kept = body.try_clone().unwrap();
    let mut first = Attempt::of(body);
    first.waits();
    let chunk = Bytes::from(vec![1, 2, 3]);
    feed.send(Ok(Frame::data(chunk.clone()))).unwrap();
    assert!(first.0.is_woken());
    assert_eq!(first.data().as_ptr(), chunk.as_ptr());
    first.waits();
    assert_eq!(Attempt::again(&kept).data().as_ptr(), chunk.as_ptr());
}

#[test]
fn a_retry_in_the_middle_sends_what_was_kept_and_reads_on_where_the_attempt_before_it_stopped() {
    let (feed, body) = fed();
    let kept = body.try_clone().unwrap();
    let mut first = Attempt::of(body);
    feed.send(data("ab")).unwrap();
    feed.send(data("c")).unwrap();
    feed.send(data("de")).unwrap();
    assert_eq!(first.data(), "ab");
    assert_eq!(first.data(), "c");
    drop(first);

    let mut second = Attempt::again(&kept);
    for chunk in ["ab", "c", "de"] {
        assert_eq!(second.data(), chunk);
    }
    second.waits();
    feed.send(data("f")).unwrap();
    assert!(second.0.is_woken());
    assert_eq!(second.data(), "f");
    drop(feed);
    second.ends();
}

/// linkerd2#15649: there the first chunk came twice.
#[test]
fn a_retry_before_anything_was_read_begins_with_the_first_chunk_once() {
    for polled in [false, true] {
        let (feed, body) = fed();
        let kept = body.try_clone().unwrap();
        let mut first = Attempt::of(body);
        if polled {
            first.waits();
        }
        drop(first);
        feed.send(data("a")).unwrap();
        feed.send(data("b")).unwrap();
        drop(feed);
        for _ in 0..2 {
            let mut again = Attempt::again(&kept);
            assert_eq!(again.data(), "a");
            assert_eq!(again.data(), "b");
            again.ends();
        }
    }
}

#[test]
fn a_retry_takes_the_body_over_from_an_attempt_that_is_still_being_sent() {
    let (feed, body) = fed();
    let kept = body.try_clone().unwrap();
    let mut first = Attempt::of(body);
    feed.send(data("a")).unwrap();
    assert_eq!(first.data(), "a");
    first.waits();

    let mut second = Attempt::again(&kept);
    assert!(first.0.is_woken(), "or its connection would wait for ever");
    // More than is kept: it might read that in the delay before the second attempt, and end both.
    feed.send(data("bcdefghijk")).unwrap();
    assert!(first.fails().is_taken_over());
    assert_eq!(second.data(), "a");
    assert_eq!(second.data(), "bcdefghijk");
    drop(feed);
    second.ends();
}

/// As where a retry inside of a retry keeps a clone of what it is given.
#[test]
fn a_clone_of_an_attempt_that_has_not_begun_takes_nothing_from_it() {
    let (feed, body) = fed();
    let kept = body.try_clone().unwrap();
    feed.send(data("a")).unwrap();
    feed.send(data("b")).unwrap();
    assert_eq!(Attempt::of(body).data(), "a");
    let second = kept.try_clone().unwrap();
    let kept_inside = second.try_clone().unwrap();
    let mut second = Attempt::of(second);
    assert_eq!(second.data(), "a");
    assert_eq!(second.data(), "b");
    let mut third = Attempt::again(&kept_inside);
    assert!(second.fails().is_taken_over());
    assert_eq!(third.data(), "a");
}

#[test]
fn an_attempt_that_was_made_before_takes_the_body_over_when_it_begins() {
    let (feed, body) = fed();
    let kept = body.try_clone().unwrap();
    let mut first = Attempt::of(body);
    let mut second = Attempt::of(kept);
    feed.send(data("a")).unwrap();
    assert_eq!(first.data(), "a");
    first.waits();
    assert!(!first.0.is_woken());
    assert_eq!(second.data(), "a");
    assert!(first.0.is_woken());
    feed.send(data("b")).unwrap();
    assert!(first.fails().is_taken_over());
    assert_eq!(second.data(), "b");
}

#[test]
fn of_two_that_take_over_the_later_one_reads() {
    let (feed, body) = fed();
    let kept = body.try_clone().unwrap();
    let (mut second, mut third) = (Attempt::again(&kept), Attempt::again(&kept));
    feed.send(data("a")).unwrap();
    assert_eq!(third.data(), "a");
    assert_eq!(second.data(), "a");
    assert!(third.fails().is_taken_over());
    assert_eq!(Attempt::of(body).data(), "a");
    assert!(second.fails().is_taken_over());
}

#[test]
fn every_later_attempt_is_whole() {
    let (feed, body) = fed();
    let kept = body.try_clone().unwrap();
    feed.send(data("a")).unwrap();
    feed.send(data("b")).unwrap();
    feed.send(Ok(Frame::trailers(trailers()))).unwrap();
    let mut attempt = Attempt::of(body);
    for stops_early in [true, false, false, true, false] {
        assert_eq!(attempt.data(), "a");
        if !stops_early {
            assert_eq!(attempt.data(), "b");
            assert!(!attempt.0.is_end_stream());
            assert_eq!(attempt.frame().into_trailers().unwrap(), trailers());
            attempt.ends();
        }
        attempt = Attempt::again(&kept);
    }
}

#[test]
fn after_an_error_of_the_body_every_attempt_ends_in_it_before_its_first_frame() {
    let (feed, body) = fed();
    let (kept, waiting) = (body.try_clone().unwrap(), body.try_clone().unwrap());
    let mut first = Attempt::of(body);
    feed.send(data("a")).unwrap();
    assert_eq!(first.data(), "a");
    let gone = io::Error::from(io::ErrorKind::NotFound);
    feed.send(Err(gone)).unwrap();
    feed.send(data("b")).unwrap();
    let next = first.next();
    assert!(matches!(next, Poll::Ready(Some(Err(_)))), "{next:?}");
    first.ends();

    assert!(kept.try_clone().is_none());
    for attempt in [waiting, kept] {
        let error = Attempt::of(attempt).fails();
        let source = error.source().unwrap().downcast_ref::<io::Error>();
        assert_eq!(source.unwrap().kind(), io::ErrorKind::NotFound);
        assert!(!error.is_over_cap() && !error.is_taken_over());
    }
}

#[test]
fn a_body_that_panicked_is_not_polled_again() {
    struct Panics;
    impl Body for Panics {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            panic!("by itself");
        }
    }
    let body = ReplayBody::new(Panics);
    let waiting = body.try_clone().unwrap();
    let mut first = Attempt::of(body);
    panic::catch_unwind(AssertUnwindSafe(|| first.next())).unwrap_err();
    assert!(waiting.try_clone().is_none());
    for mut attempt in [Attempt::of(waiting), first] {
        let text = "request body panicked in an earlier attempt";
        assert_eq!(attempt.fails().to_string(), text);
    }
}

#[test]
fn a_body_dropped_half_way_stays_while_there_may_be_another_attempt() {
    let (feed, body) = fed();
    let kept = body.try_clone().unwrap();
    let mut first = Attempt::of(body);
    feed.send(data("a")).unwrap();
    assert_eq!(first.data(), "a");
    drop(first);
    assert!(!feed.is_closed());
    drop(kept);
    assert!(feed.is_closed());
}

#[test]
fn the_body_inside_need_be_neither_unpin_nor_sync() {
    struct Narrow(
        #[allow(dead_code, reason = "not Sync")] std::cell::Cell<u8>,
        #[allow(dead_code, reason = "not Unpin")] PhantomPinned,
    );
    const fn is_wide<T: Send + Sync + Unpin + 'static>() {}
    is_wide::<ReplayBody<Narrow>>();
}

#[tokio::test]
async fn the_layer_keeps_as_much_as_it_is_told_and_the_inner_service_gets_what_the_map_makes() {
    for (layer, longest) in [
        (PlotonReplay::new(), 64 * 1024),
        (PlotonReplay::new().max_kept(3), 3),
        (PlotonReplay::new().max_kept(0), 0),
    ] {
        for (len, fits) in [(longest, true), (longest + 1, false)] {
            let map = PlotonReplay::map(|body: ReplayBody<Full<Bytes>>| body.try_clone().is_some());
            let service = layer.layer(map.layer(service_fn(async |request: Request<bool>| {
                Ok::<_, io::Error>(request.into_body())
            })));
            let body = Full::new(Bytes::from(vec![0; len]));
            assert_eq!(service.oneshot(Request::new(body)).await.unwrap(), fits);
        }
    }
}
