//! Nothing is sent with a key that the server may have forgotten.

use std::time::SystemTime;

use super::*;
use crate::headers::date::Wall;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// The server may have forgotten the key after 24 hours, and would then process the request a second time.
#[tokio::test(start_paused = true)]
async fn a_request_with_a_key_is_not_sent_again_23_hours_later() {
    const HOUR: u64 = 60 * 60;
    let patient = PlotonRetry::new()
        .deadline(Duration::MAX)
        .max_hint(Duration::MAX)
        .without_jitter();
    for (request, seconds, again) in [
        (keyed_post(), 23 * HOUR - 1, true),
        (keyed_post(), 23 * HOUR, false),
        (post(), 23 * HOUR, true),
        (get(), 23 * HOUR, true),
    ] {
        let mut server = spawn(patient.clone());
        let mut call = server.call(request);
        let hint = seconds.to_string();
        server
            .next()
            .await
            .1
            .send_response(refusal(hint.as_bytes()));
        match call.poll() {
            Poll::Pending => assert!(again, "{seconds}"),
            Poll::Ready(response) => {
                assert!(!again, "{seconds}");
                assert_eq!(response.unwrap().status(), 429);
            }
        }
    }
}

/// The inner service was not ready for a day, and then the request was sent.
#[tokio::test(start_paused = true)]
async fn a_request_with_a_key_is_not_sent_when_the_service_is_ready_a_day_later() {
    let patient = PlotonRetry::new().deadline(Duration::MAX);
    for (request, sent) in [(keyed_post(), false), (get(), true)] {
        let mut server = spawn(patient.clone());
        let mut call = server.call(request);
        server.next().await.1.send_response(answer(503));
        server.handle.allow(0);
        for _ in 0..200 {
            assert_pending!(call.poll());
            time::advance(Duration::from_millis(1)).await;
        }
        time::advance(Duration::from_secs(24 * 60 * 60)).await;
        server.handle.allow(1);
        if sent {
            assert_pending!(call.poll());
            server.next().await;
        } else {
            assert!(assert_ready_err!(call.poll()).is::<DeadlinePassed>());
        }
    }
}

/// A layer by whose wall clock it is `hours` after 1970.
fn at(hours: u32) -> PlotonRetry {
    let wall = SystemTime::UNIX_EPOCH + HOUR * hours;
    PlotonRetry::new().with(|settings| settings.wall = Wall::set(wall, Instant::now()))
}

/// A key that was first used 1,000 hours after 1970.
fn old_key() -> IdempotencyKey {
    IdempotencyKey::derive("invoice-42").first_used(SystemTime::UNIX_EPOCH + HOUR * 1_000)
}

fn with_extension(mut request: Request<String>, key: IdempotencyKey) -> Request<String> {
    request.extensions_mut().insert(key);
    request
}

fn with_header(mut request: Request<String>, key: &IdempotencyKey) -> Request<String> {
    let value = key.as_str().parse().unwrap();
    request.headers_mut().insert(IDEMPOTENCY_KEY, value);
    request
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_too_old_is_not_sent_even_once() {
    let both = with_header(with_extension(post(), old_key()), &old_key());
    for request in [with_extension(post(), old_key()), both] {
        let mut server = spawn(at(1_023));
        let error = assert_ready_err!(server.call(request).poll());
        let expired = error.downcast_ref::<KeyExpired>().expect("typed");
        assert_eq!(expired.idempotency_key(), &old_key());
        assert_eq!(expired.age(), HOUR * 23);
        assert_eq!(expired.attempts().made(), 0);
        let by_another_retry = classify::error(&*error);
        assert_eq!(by_another_retry, (Outcome::Final, "key_expired"));
        assert_eq!(
            expired.to_string(),
            "idempotency key first used 23.0 h ago, too old to be sent after 23 h"
        );
        server.is_left_alone().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_key_that_the_request_does_not_carry_is_no_matter() {
    let other_header = with_extension(keyed_post(), old_key());
    for request in [other_header, with_extension(get(), old_key())] {
        let mut server = spawn(at(1_030));
        let mut call = server.call(request);
        assert_pending!(call.poll(), "not refused");
        server.next().await.1.send_response(answer(200));
        assert_eq!(assert_ready_ok!(call.poll()).status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stated_first_use_leaves_only_the_rest_of_23_hours() {
    let patient = at(1_022)
        .deadline(Duration::MAX)
        .max_hint(Duration::MAX)
        .without_jitter();
    for (hint, again) in [("3598", true), ("3600", false)] {
        let mut server = spawn(patient.clone());
        let mut call = server.call(with_header(with_extension(post(), old_key()), &old_key()));
        let refusal = refusal(hint.as_bytes());
        server.next().await.1.send_response(refusal);
        assert_eq!(call.poll().is_pending(), again, "{hint}");
    }
}

/// A job was run again 22 hours after its first, and its request waited inside for two hours before it was sent.
#[tokio::test(start_paused = true)]
async fn a_first_attempt_with_a_used_key_waits_no_longer_than_the_key_lives() {
    for (request, waits) in [
        (
            with_header(with_extension(post(), old_key()), &old_key()),
            false,
        ),
        (with_extension(post(), old_key()), false),
        (keyed_post(), true),
    ] {
        let mut server = spawn(at(1_022).deadline(HOUR * 100));
        let mut call = server.call(request);
        assert_pending!(call.poll());
        time::advance(HOUR - Duration::from_secs(1)).await;
        assert_pending!(call.poll());
        time::advance(Duration::from_secs(2)).await;
        match call.poll() {
            Poll::Pending => assert!(waits),
            Poll::Ready(result) => {
                assert!(!waits && result.unwrap_err().is::<DeadlinePassed>());
            }
        }
    }
}

/// The layers inside were told the deadline that the request had before its key was looked at.
#[tokio::test(start_paused = true)]
async fn the_layers_inside_are_told_when_the_key_dies() {
    let mut server = spawn(at(1_022).deadline(HOUR * 100).without_jitter());
    let death = Instant::now() + HOUR;
    let mut call = server.call(with_header(with_extension(post(), old_key()), &old_key()));
    server.next().await.1.send_response(answer(503));
    for _ in 0..200 {
        assert_pending!(call.poll());
        time::advance(Duration::from_millis(1)).await;
    }
    let (second, _) = server.next().await;
    let told = LogicalRequest::of(second.extensions()).unwrap();
    assert_eq!(told.deadline, Some(death));
}

/// A caller who makes the same request again, with the key of what went wrong, starts no new 23 hours.
#[tokio::test(start_paused = true)]
async fn a_key_from_the_story_is_as_old_as_its_first_attempt() {
    let mut server = spawn(PlotonRetry::new());
    let mut call = server.call(keyed_post());
    server.next().await.1.send_response(answer(422));
    let response = assert_ready_ok!(call.poll());
    let story = response.extensions().get::<Attempts>().unwrap();
    let key = story.idempotency_key().unwrap().clone();
    let again = || with_header(with_extension(post(), key.clone()), &key);

    time::advance(HOUR * 22).await;
    let mut call = server.call(again());
    assert_pending!(call.poll(), "not refused");
    server.next().await.1.send_response(answer(201));
    assert_ready_ok!(call.poll());

    time::advance(HOUR).await;
    let error = assert_ready_err!(server.call(again()).poll());
    assert!(error.is::<KeyExpired>());
}

#[tokio::test(start_paused = true)]
async fn every_request_that_may_get_a_key_inside_gets_a_cell_for_it() {
    let mut server = spawn(PlotonRetry::new());
    for (method, has_cell) in [
        (Method::POST, true),
        (Method::PUT, true),
        (Method::PATCH, true),
        (Method::DELETE, true),
        (Method::GET, false),
        (Method::HEAD, false),
        (Method::OPTIONS, false),
    ] {
        let mut request = get();
        *request.method_mut() = method.clone();
        let _call = server.call(request);
        let (first, _) = server.next().await;
        let cell = LogicalRequest::of(first.extensions());
        assert_eq!(cell.is_some(), has_cell, "{method}");
    }
}
