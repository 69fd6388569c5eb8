//! What becomes of an answer that is not handed back.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http_body::{Body, Frame};
use hyper::body::Bytes;

use super::*;

#[derive(Clone, Default, Debug)]
struct Log(Arc<Mutex<Vec<(&'static str, Instant)>>>);

impl Log {
    fn note(&self, what: &'static str) {
        self.0.lock().unwrap().push((what, Instant::now()));
    }

    fn count(&self, what: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|(noted, _)| *noted == what)
            .count()
    }

    fn first(&self, what: &str) -> Instant {
        let log = self.0.lock().unwrap();
        log.iter().find(|(noted, _)| *noted == what).expect(what).1
    }
}

/// An answer's body that says when it is read and dropped; it ends or, as told, waits for ever.
#[derive(Debug)]
struct Logged {
    frames: VecDeque<usize>,
    ends: bool,
    log: Log,
}

impl Body for Logged {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(len) => {
                self.log.note("read");
                Poll::Ready(Some(Ok(Frame::data(vec![0; len].into()))))
            }
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        self.log.note("dropped");
    }
}

/// Answers 429 with such a body, lets 3 s pass, and says what happened to the body and when.
async fn discarded(frames: &[usize], ends: bool) -> (Log, Instant) {
    let log = Log::default();
    let (mock, mut handle) = mock::pair::<Request<String>, Response<Logged>>();
    let mut service = mock::Spawn::new(PlotonRetry::new().layer(mock));
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(get()));
    let mut response = refusal(b"2").map(|_| Logged {
        frames: frames.iter().copied().collect(),
        ends,
        log: log.clone(),
    });
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let start = Instant::now();
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(response);
    for _ in 0..3_000 {
        assert_pending!(call.poll());
        time::advance(Duration::from_millis(1)).await;
    }
    assert_pending!(call.poll());
    log.note("sent again");
    handle.next_request().await.expect("sent again");
    (log, start)
}

#[tokio::test(start_paused = true)]
async fn a_discarded_answer_is_read_to_its_end_and_dropped_before_the_sleep() {
    let (log, start) = discarded(&[1_024, 1_024], true).await;
    assert_eq!(log.count("read"), 2);
    assert_eq!(log.first("dropped"), start);
}

#[tokio::test(start_paused = true)]
async fn a_discarded_answer_that_does_not_end_is_dropped_after_50_ms() {
    let (log, start) = discarded(&[1_024], false).await;
    let held = log.first("dropped") - start;
    assert!(held >= Duration::from_millis(50), "{held:?}");
    assert!(held <= Duration::from_millis(52), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn a_discarded_answer_is_read_up_to_64_kib() {
    let (log, start) = discarded(&[16 * 1_024; 100], true).await;
    assert_eq!(log.count("read"), 5, "four fill the bound, one is over it");
    assert_eq!(log.first("dropped"), start);
}

/// How long after a 503, which is to be tried again without delay, the next attempt is sent.
async fn sent_again_after(layer: PlotonRetry, ends: bool) -> Duration {
    let (mock, mut handle) = mock::pair::<Request<String>, Response<Logged>>();
    let layer = layer.base_delay(Duration::ZERO);
    let mut service = mock::Spawn::new(layer.layer(mock));
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(get()));
    let response = answer(503).map(|_| Logged {
        frames: [1_024].into(),
        ends,
        log: Log::default(),
    });
    let start = Instant::now();
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(response);
    for _ in 0..1_000 {
        // Twice, for the yield.
        assert_pending!(call.poll());
        assert_pending!(call.poll());
        if task::spawn(handle.next_request()).poll().is_ready() {
            return since(start);
        }
        time::advance(Duration::from_millis(1)).await;
    }
    panic!("not sent again");
}

/// The delay was over before an answer's body came, and each such retry cost a connection.
#[tokio::test(start_paused = true)]
async fn a_short_delay_is_stretched_while_there_is_more_of_the_answer_but_not_past_the_deadline() {
    let layer = PlotonRetry::new();
    assert_eq!(sent_again_after(layer.clone(), true).await, Duration::ZERO);
    let stretched = sent_again_after(layer.clone(), false).await;
    assert!(stretched >= Duration::from_millis(50), "{stretched:?}");
    assert!(stretched <= Duration::from_millis(52), "{stretched:?}");
    let hurried = layer.deadline(Duration::from_millis(51));
    assert_eq!(sent_again_after(hurried, false).await, Duration::ZERO);
}

#[derive(Debug)]
struct Endless {
    read: u32,
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.read += 1;
        assert!(self.read < 1_000_000, "read for ever");
        Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
    }
}

/// Only bytes were counted, and a discarded answer of empty frames was read for ever.
#[tokio::test(start_paused = true)]
async fn a_discarded_answer_of_empty_frames_is_dropped() {
    let (mock, mut handle) = mock::pair::<Request<String>, Response<Endless>>();
    let mut service = mock::Spawn::new(PlotonRetry::new().layer(mock));
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(get()));
    let response = answer(500).map(|_| Endless { read: 0 });
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(response);
    assert_pending!(call.poll());
}
