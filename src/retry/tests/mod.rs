//! The service, on a mock of the inner one and paused time.

mod deadline;
mod discarded;
mod key_age;
mod rules;

use std::{num::NonZeroU32, task::Poll, time::Duration};

use http::{Method, Request, Response, StatusCode, header::RETRY_AFTER};
use tokio::time::{self, Instant};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{BoxError, Layer, Service};
use tower_test::mock::{self, Handle, Mock, SendResponse, Spawn};

use super::*;
use crate::{Attempts, Deadline, IdempotencyKey, MaxAttempts, idempotency_key::IDEMPOTENCY_KEY};

type Inner = Mock<Request<String>, Response<String>>;
type Call = task::Spawn<ResponseFuture<Inner, String, String>>;

struct Server {
    service: Spawn<RetryService<Inner>>,
    handle: Handle<Request<String>, Response<String>>,
}

fn spawn(layer: PlotonRetry) -> Server {
    let (service, handle) = mock::spawn_layer(layer);
    Server { service, handle }
}

impl Server {
    fn call(&mut self, request: Request<String>) -> Call {
        assert_ready_ok!(self.service.poll_ready());
        task::spawn(self.service.call(request))
    }

    async fn next(&mut self) -> (Request<String>, SendResponse<Response<String>>) {
        self.handle.next_request().await.expect("a request")
    }

    /// Advances time until the next request arrives, and says how long that took.
    async fn wait_for(&mut self, call: &mut Call) -> (Duration, SendResponse<Response<String>>) {
        let start = Instant::now();
        for _ in 0..400_000 {
            assert_pending!(call.poll());
            if let Poll::Ready(Some((_, answer))) = task::spawn(self.handle.next_request()).poll() {
                return (since(start), answer);
            }
            time::advance(Duration::from_millis(1)).await;
        }
        panic!("no request came");
    }

    /// Nothing more arrives, however long one waits.
    async fn is_left_alone(&mut self) {
        time::advance(Duration::from_secs(1_000)).await;
        assert_pending!(task::spawn(self.handle.next_request()).poll());
    }
}

fn since(start: Instant) -> Duration {
    Instant::now() - start
}

fn get() -> Request<String> {
    Request::get("https://api.ploton.ai/v1/tasks?secret=1")
        .body("body".to_owned())
        .unwrap()
}

fn post() -> Request<String> {
    let mut request = get();
    *request.method_mut() = Method::POST;
    request
}

fn keyed_post() -> Request<String> {
    let mut request = post();
    request
        .headers_mut()
        .insert(IDEMPOTENCY_KEY, "mine".parse().unwrap());
    request
}

fn answer(status: u16) -> Response<String> {
    Response::builder()
        .status(status)
        .body(format!("answer {status}"))
        .unwrap()
}

fn refusal(retry_after: &[u8]) -> Response<String> {
    let mut response = answer(429);
    let value = http::HeaderValue::from_bytes(retry_after).unwrap();
    response.headers_mut().insert(RETRY_AFTER, value);
    response
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_is_sent_once_more_no_earlier_than_its_hint() {
    for _ in 0..20 {
        let mut server = spawn(PlotonRetry::new());
        let mut call = server.call(post());
        server.next().await.1.send_response(refusal(b"3"));
        let (waited, again) = server.wait_for(&mut call).await;
        assert!(waited >= Duration::from_secs(3), "{waited:?}");
        assert!(waited <= Duration::from_millis(3_602), "{waited:?}");
        again.send_response(answer(201));
        let response = assert_ready_ok!(call.poll());
        assert_eq!(response.body(), "answer 201");
        assert!(response.extensions().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_date_is_a_hint_too() {
    let layer = PlotonRetry::new();
    let date = layer
        .settings
        .wall
        .at(Instant::now() + Duration::from_secs(10));
    let mut server = spawn(layer);
    let mut call = server.call(post());
    let refusal = refusal(httpdate::fmt_http_date(date).as_bytes());
    server.next().await.1.send_response(refusal);
    let (waited, _) = server.wait_for(&mut call).await;
    assert!(waited >= Duration::from_secs(10), "{waited:?}");
    assert!(waited <= Duration::from_millis(13_300), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_names_no_wait_gives_the_own_backoff() {
    for value in [
        b"".as_slice(),
        b"0",
        b"-5",
        b"nan",
        b"\xff",
        b"99999999999999999999999",
    ] {
        let mut server = spawn(PlotonRetry::new());
        let mut call = server.call(post());
        server.next().await.1.send_response(refusal(value));
        let (waited, _) = server.wait_for(&mut call).await;
        assert!(
            waited <= Duration::from_millis(1_001),
            "{value:?}: {waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_request_is_sent_again() {
    let mut server = spawn(PlotonRetry::new());
    let mut call = server.call(keyed_post());
    let (first, answers) = server.next().await;
    answers.send_response(answer(503));
    for _ in 0..200 {
        assert_pending!(call.poll());
        time::advance(Duration::from_millis(1)).await;
    }
    let (second, _) = server.next().await;
    assert_eq!(second.method(), first.method());
    assert_eq!(second.uri(), first.uri());
    assert_eq!(second.version(), first.version());
    assert_eq!(second.headers(), first.headers());
    assert_eq!(second.body(), first.body());
}

#[tokio::test(start_paused = true)]
async fn when_attempts_are_exhausted_the_last_answer_is_handed_back_whole() {
    let mut server = spawn(PlotonRetry::new());
    let start = Instant::now();
    let mut call = server.call(keyed_post());
    server.next().await.1.send_response(refusal(b"2"));
    for _ in 0..3 {
        let (_, again) = server.wait_for(&mut call).await;
        again.send_response(answer(500));
    }
    let response = assert_ready_ok!(call.poll());
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.body(), "answer 500");
    let story = response.extensions().get::<Attempts>().unwrap();
    assert_eq!(story.made(), 4);
    assert_eq!(story.elapsed(), since(start));
    assert_eq!(story.last_hint(), Some(Duration::from_secs(2)));
    assert_eq!(story.idempotency_key().unwrap().as_str(), "mine");
    server.is_left_alone().await;
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_post_is_repeated_only_with_a_key() {
    let mut server = spawn(PlotonRetry::new());
    for status in [408, 500, 502, 503, 504] {
        let mut call = server.call(post());
        server.next().await.1.send_response(answer(status));
        assert_eq!(assert_ready_ok!(call.poll()).status(), status);

        let mut call = server.call(keyed_post());
        server.next().await.1.send_response(answer(status));
        server
            .wait_for(&mut call)
            .await
            .1
            .send_response(answer(201));
        assert_eq!(assert_ready_ok!(call.poll()).status(), 201);
    }
    let mut call = server.call(post());
    server.next().await.1.send_error("cut");
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "cut");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_made_inside_makes_a_post_repeatable() {
    let mut server = spawn(PlotonRetry::new());
    let mut call = server.call(post());
    let (first, answers) = server.next().await;
    let told = LogicalRequest::of(first.extensions()).expect("a cell to tell it");
    let key = told.key_or(IdempotencyKey::random);
    answers.send_error("cut");
    for _ in 0..3 {
        server
            .wait_for(&mut call)
            .await
            .1
            .send_response(answer(500));
    }
    let response = assert_ready_ok!(call.poll());
    let story = response.extensions().get::<Attempts>().unwrap();
    assert_eq!(story.idempotency_key(), Some(&key));
}

#[tokio::test(start_paused = true)]
async fn a_final_answer_is_handed_back_at_once() {
    let mut server = spawn(PlotonRetry::new());
    for status in [200, 201, 301, 400, 401, 403, 404, 409, 422, 501, 505] {
        let mut call = server.call(get());
        server.next().await.1.send_response(answer(status));
        let response = assert_ready_ok!(call.poll());
        assert_eq!(response.status(), status);
        let story = response.extensions().get::<Attempts>();
        assert_eq!(story.map(Attempts::made), (status >= 300).then_some(1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_usual_request_carries_nothing() {
    let mut server = spawn(PlotonRetry::new());
    for request in [get(), keyed_post()] {
        let _call = server.call(request);
        assert!(server.next().await.0.extensions().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_kept_after_one_attempt_and_wrapped_after_more() {
    let mut server = spawn(PlotonRetry::new());
    let mut call = server.call(get());
    server.next().await.1.send_error("cut 1");
    for n in 2..=4 {
        server
            .wait_for(&mut call)
            .await
            .1
            .send_error(format!("cut {n}"));
    }
    let error = assert_ready_err!(call.poll())
        .downcast::<AttemptsFailed>()
        .unwrap();
    assert_eq!(error.attempts().made(), 4);
    assert!(
        error
            .to_string()
            .starts_with("request failed after 4 attempts in ")
    );
    assert_eq!(error.into_source().to_string(), "cut 4");

    let mut server = spawn(PlotonRetry::new().attempts(1));
    let mut call = server.call(get());
    server.next().await.1.send_error("cut");
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "cut");
}

#[tokio::test(start_paused = true)]
async fn the_callers_drop_ends_it_at_every_point() {
    // On its way.
    let mut server = spawn(PlotonRetry::new());
    let mut call = server.call(get());
    assert_pending!(call.poll());
    drop(call);
    let (_, sent) = server.next().await;
    sent.send_response(answer(500));
    server.is_left_alone().await;

    // In the delay, and while the inner service is not ready.
    for time in [Duration::ZERO, Duration::from_secs(2)] {
        let mut call = server.call(get());
        server.next().await.1.send_response(answer(429));
        server.handle.allow(0);
        assert_pending!(call.poll());
        time::advance(time).await;
        assert_pending!(call.poll());
        drop(call);
        server.handle.allow(100);
        server.is_left_alone().await;
    }
}

/// A body that can't be made twice.
struct Once;

impl RetryBody for Once {
    fn try_clone(&self) -> Option<Self> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_made_twice_is_sent_once() {
    let (mut service, mut handle) =
        mock::spawn_layer::<Request<Once>, Response<String>, _>(PlotonRetry::new());
    assert_ready_ok!(service.poll_ready());
    let mut call = task::spawn(service.call(Request::new(Once)));
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(answer(429));
    assert_eq!(assert_ready_ok!(call.poll()).status(), 429);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_the_inner_service_is_held_while_a_retry_sleeps() {
    let (mock, mut handle) = mock::pair::<Request<String>, Response<String>>();
    let limited = tower::limit::ConcurrencyLimit::new(mock, 1);
    let mut service = PlotonRetry::new().layer(limited);
    let mut other = service.clone();
    let mut context = task::spawn(());
    context.enter(|cx, _| assert_ready_ok!(service.poll_ready(cx)));
    let mut call = task::spawn(service.call(get()));
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(refusal(b"5"));
    assert_pending!(call.poll());
    context.enter(|cx, _| assert_ready_ok!(other.poll_ready(cx)));
}

#[tokio::test]
async fn an_error_of_the_inner_readiness_is_handed_on() {
    let mut server = spawn(PlotonRetry::new());
    server.handle.send_error("closed");
    let error: BoxError = assert_ready_err!(server.service.poll_ready());
    assert_eq!(error.to_string(), "closed");
}

#[tokio::test(start_paused = true)]
async fn an_empty_key_is_none() {
    let mut server = spawn(PlotonRetry::new());
    let mut request = post();
    request
        .headers_mut()
        .insert(IDEMPOTENCY_KEY, http::HeaderValue::from_static(""));
    let mut call = server.call(request);
    server.next().await.1.send_error("cut");
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "cut");
}
