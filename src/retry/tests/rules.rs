//! When a request is sent again, and when it is given up.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::*;
use crate::retry::{AttemptEnd, Outcome};

/// How often a request is sent whose every attempt is answered with `status`.
async fn attempts_at(layer: &PlotonRetry, request: Request<String>, status: u16) -> u32 {
    let mut server = spawn(layer.clone());
    let mut call = server.call(request);
    server.next().await.1.send_response(answer(status));
    loop {
        if let Poll::Ready(result) = call.poll() {
            let story = result.unwrap().extensions().get::<Attempts>().cloned();
            return story.map_or(1, |story| story.made());
        }
        server
            .wait_for(&mut call)
            .await
            .1
            .send_response(answer(status));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_widens_and_narrows() {
    let layer = PlotonRetry::new().classify_with(|end: &AttemptEnd<'_>| {
        match end.status().map(|status| status.as_u16()) {
            Some(524) => Outcome::Ambiguous,
            Some(503) => Outcome::Final,
            Some(403) => Outcome::Refused,
            _ => end.outcome(),
        }
    });
    assert_eq!(attempts_at(&layer, keyed_post(), 524).await, 4);
    assert_eq!(attempts_at(&layer, post(), 524).await, 1);
    assert_eq!(attempts_at(&layer, keyed_post(), 503).await, 1);
    assert_eq!(attempts_at(&layer, post(), 403).await, 4);
    assert_eq!(attempts_at(&layer, keyed_post(), 500).await, 4);
    assert_eq!(attempts_at(&PlotonRetry::new(), keyed_post(), 524).await, 1);
}

#[tokio::test(start_paused = true)]
async fn no_hook_repeats_a_post_that_may_have_been_processed_but_the_users_word_does() {
    for said in [Outcome::NotSent, Outcome::Refused, Outcome::Ambiguous] {
        let layer = PlotonRetry::new().classify_with(move |_| said);
        for status in [201, 408, 500, 503, 520] {
            assert_eq!(attempts_at(&layer, post(), status).await, 1, "{status}");
        }
        let mut server = spawn(layer.clone());
        let mut call = server.call(post());
        server.next().await.1.send_error("cut");
        assert_eq!(assert_ready_err!(call.poll()).to_string(), "cut");
    }
    let layer = PlotonRetry::new().repeat_without_key(true);
    assert_eq!(attempts_at(&layer, post(), 500).await, 4);
    assert_eq!(attempts_at(&layer, post(), 400).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_hook_is_shown_what_is_known_of_the_attempt() {
    let seen = Arc::new(AtomicU32::new(0));
    let count = seen.clone();
    let layer = PlotonRetry::new().classify_with(move |end: &AttemptEnd<'_>| {
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        assert_eq!(end.number(), number);
        assert_eq!(end.method(), Method::POST);
        assert!(end.has_idempotency_key());
        if number == 1 {
            assert_eq!(end.error().unwrap().to_string(), "cut");
            assert_eq!((end.status(), end.headers()), (None, None));
        } else {
            assert_eq!(end.status(), Some(StatusCode::TOO_MANY_REQUESTS));
            assert_eq!(end.headers().unwrap()[RETRY_AFTER], "1");
            assert!(end.error().is_none());
        }
        end.outcome()
    });
    let mut server = spawn(layer);
    let mut call = server.call(keyed_post());
    server.next().await.1.send_error("cut");
    server
        .wait_for(&mut call)
        .await
        .1
        .send_response(refusal(b"1"));
    server
        .wait_for(&mut call)
        .await
        .1
        .send_response(refusal(b"1"));
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_repeated_only_where_the_key_is_in_progress() {
    let layer = PlotonRetry::new().in_progress_when(|headers| headers.contains_key(RETRY_AFTER));
    for (request, marked, attempts) in [
        (keyed_post(), true, 2),
        (keyed_post(), false, 1),
        (post(), true, 1),
    ] {
        let mut server = spawn(layer.clone());
        let mut call = server.call(request);
        let mut conflict = answer(409);
        if marked {
            conflict.headers_mut().insert(RETRY_AFTER, 1.into());
        }
        server.next().await.1.send_response(conflict);
        if attempts == 1 {
            assert_eq!(assert_ready_ok!(call.poll()).status(), 409);
        } else {
            let (waited, again) = server.wait_for(&mut call).await;
            assert!(waited >= Duration::from_secs(1));
            again.send_response(answer(201));
            assert_eq!(assert_ready_ok!(call.poll()).status(), 201);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stored_5xx_is_final() {
    let named = PlotonRetry::new().stored_answer_header(http::HeaderName::from_static("x-stored"));
    for (layer, header) in [
        (PlotonRetry::new(), "idempotent-replayed"),
        (named, "x-stored"),
    ] {
        let mut server = spawn(layer);
        let mut call = server.call(keyed_post());
        let mut stored = answer(500);
        stored.headers_mut().insert(header, "true".parse().unwrap());
        server.next().await.1.send_response(stored);
        assert_eq!(assert_ready_ok!(call.poll()).body(), "answer 500");
    }
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_quota_hands_back_the_last_answer_without_a_sleep() {
    let layer = PlotonRetry::new().quota(14);
    let handle = layer.handle();
    let mut server = spawn(layer);
    let mut call = server.call(keyed_post());
    server.next().await.1.send_response(answer(503));
    server
        .wait_for(&mut call)
        .await
        .1
        .send_response(answer(500));
    let response = assert_ready_ok!(call.poll());
    assert_eq!(response.body(), "answer 500");
    assert_eq!(response.extensions().get::<Attempts>().unwrap().made(), 2);
    assert_eq!((handle.quota_left(), handle.quota_capacity()), (0, 14));

    let mut call = server.call(keyed_post());
    server.next().await.1.send_error("cut");
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "cut");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_dropped_before_it_is_sent_costs_nothing() {
    let layer = PlotonRetry::new();
    let handle = layer.handle();
    let mut server = spawn(layer);
    let mut call = server.call(keyed_post());
    server.next().await.1.send_response(answer(503));
    assert_pending!(call.poll());
    assert_eq!(handle.quota_left(), 486, "checked before the sleep");
    drop(call);
    assert_eq!(handle.quota_left(), 500);

    // The deadline passes while the inner service is not ready.
    let mut request = keyed_post();
    let deadline = Instant::now() + Duration::from_secs(5);
    request.extensions_mut().insert(Deadline(deadline));
    let mut call = server.call(request);
    server.next().await.1.send_response(answer(503));
    server.handle.allow(0);
    assert_pending!(call.poll());
    time::advance(Duration::from_secs(1)).await;
    assert_pending!(call.poll());
    assert_pending!(call.poll());
    time::advance(Duration::from_secs(5)).await;
    assert!(assert_ready_err!(call.poll()).is::<DeadlinePassed>());
    drop(call);
    assert_eq!(handle.quota_left(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_zero_delay_takes_no_timer() {
    let layer = PlotonRetry::new().base_delay(Duration::ZERO);
    let mut server = spawn(layer);
    let mut call = server.call(keyed_post());
    server.next().await.1.send_response(answer(503));
    assert_pending!(call.poll());
    assert!(call.is_woken(), "it only yields once");
    assert_pending!(call.poll());
    let (_, again) = server.next().await;
    again.send_response(answer(201));
    assert_eq!(assert_ready_ok!(call.poll()).status(), 201);
}

/// Not `Clone`, and no [`RetryBody`].
struct Foreign(&'static str);

#[tokio::test(start_paused = true)]
async fn a_foreign_body_is_cloned_as_the_user_says() {
    let layer = PlotonRetry::new()
        .clone_body_with(|body: &Foreign| (body.0 != "once").then_some(Foreign(body.0)));
    let (mut service, mut handle) =
        mock::spawn_layer::<Request<Foreign>, Response<String>, _>(layer);
    for (body, attempts) in [("often", 2), ("once", 1)] {
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(Request::new(Foreign(body))));
        for number in 1..=attempts {
            assert_pending!(call.poll());
            time::advance(Duration::from_secs(2)).await;
            assert_pending!(call.poll());
            assert_pending!(call.poll());
            let (request, answers) = handle.next_request().await.unwrap();
            assert_eq!(request.body().0, body);
            let last = number == attempts;
            answers.send_response(answer(if last && attempts > 1 { 200 } else { 429 }));
        }
        let status = if attempts > 1 { 200 } else { 429 };
        assert_eq!(assert_ready_ok!(call.poll()).status(), status);
    }
}

/// The price of each retry came back with its 202, and the quota held nothing.
#[tokio::test(start_paused = true)]
async fn a_success_that_a_hook_asks_again_for_earns_nothing() {
    let layer = PlotonRetry::new()
        .quota(28)
        .classify_with(|_| Outcome::Ambiguous);
    let handle = layer.handle();
    attempts_at(&layer, keyed_post(), 202).await;
    assert_eq!(handle.quota_left(), 0);
}
