//! Deadlines: what is sent before them, and what the caller gets at them.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_hint_above_the_cap_or_past_the_deadline_hands_the_answer_back_at_once() {
    let deadline = PlotonRetry::new().deadline(Duration::from_secs(10));
    for (layer, hint) in [
        (PlotonRetry::new(), 121),
        (deadline, 10),
        (PlotonRetry::new(), 999_999_999),
    ] {
        let mut server = spawn(layer);
        let mut call = server.call(get());
        server
            .next()
            .await
            .1
            .send_response(refusal(hint.to_string().as_bytes()));
        let response = assert_ready_ok!(call.poll());
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let story = response.extensions().get::<Attempts>().unwrap();
        assert_eq!(story.last_hint(), Some(Duration::from_secs(hint)));
        assert_eq!(story.made(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn settings_beyond_every_clock_are_no_panic() {
    let layer = PlotonRetry::new()
        .deadline(Duration::MAX)
        .max_hint(Duration::MAX);
    let layer = layer
        .base_delay(Duration::MAX)
        .max_delay(Duration::MAX)
        .attempts(0);
    let mut server = spawn(layer.attempts(u32::MAX));
    for response in [refusal(b"18446744073709551615"), answer(500)] {
        let mut call = server.call(get());
        server.next().await.1.send_response(response);
        let _ = call.poll();
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_during_an_attempt_is_an_error_with_its_story() {
    let mut server = spawn(PlotonRetry::new());
    let mut call = server.call(keyed_post());
    let _held = server.next().await;
    assert_pending!(call.poll());
    time::advance(Duration::from_secs(150)).await;
    let error = assert_ready_err!(call.poll())
        .downcast::<DeadlinePassed>()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "deadline of 150 s passed after 1 attempt in 150.0 s"
    );
    assert_eq!(error.attempts().idempotency_key().unwrap().as_str(), "mine");
    assert_eq!(error.last_status(), None);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_holds_while_the_inner_service_is_not_ready() {
    let mut server = spawn(PlotonRetry::new().deadline(Duration::from_secs(5)));
    let mut call = server.call(get());
    server.next().await.1.send_response(answer(503));
    server.handle.allow(0);
    for _ in 0..200 {
        assert_pending!(call.poll());
        time::advance(Duration::from_millis(1)).await;
    }
    time::advance(Duration::from_secs(5)).await;
    let error = assert_ready_err!(call.poll())
        .downcast::<DeadlinePassed>()
        .unwrap();
    assert_eq!(error.last_status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(error.attempts().made(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_brings_limits_of_its_own() {
    let mut server = spawn(PlotonRetry::new());
    let mut request = get();
    request
        .extensions_mut()
        .insert(MaxAttempts(NonZeroU32::new(2).unwrap()));
    let mut call = server.call(request);
    server.next().await.1.send_response(answer(500));
    server
        .wait_for(&mut call)
        .await
        .1
        .send_response(answer(500));
    let response = assert_ready_ok!(call.poll());
    assert_eq!(response.extensions().get::<Attempts>().unwrap().made(), 2);

    let mut request = get();
    let deadline = Deadline(Instant::now() + Duration::from_secs(7));
    request.extensions_mut().insert(deadline);
    let mut call = server.call(request);
    server.next().await.1.send_response(refusal(b"7"));
    assert_eq!(assert_ready_ok!(call.poll()).status(), 429);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_the_deadline() {
    let mut server = spawn(PlotonRetry::new());
    let mut request = get();
    request.extensions_mut().insert(Deadline(Instant::now()));
    let mut call = server.call(request);
    let error = assert_ready_err!(call.poll())
        .downcast::<DeadlinePassed>()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "deadline of 0 s passed after 0 attempts in 0.0 s"
    );
    server.is_left_alone().await;

    // The inner service is ready again only at the deadline.
    let mut server = spawn(PlotonRetry::new().deadline(Duration::from_secs(5)));
    let mut call = server.call(get());
    server.next().await.1.send_response(answer(503));
    server.handle.allow(0);
    for _ in 0..200 {
        assert_pending!(call.poll());
        time::advance(Duration::from_millis(1)).await;
    }
    time::advance(Duration::from_secs(5)).await;
    server.handle.allow(1);
    assert!(assert_ready_err!(call.poll()).is::<DeadlinePassed>());
    assert_pending!(task::spawn(server.handle.next_request()).poll());
}

#[tokio::test(start_paused = true)]
async fn a_retry_tells_the_layers_inside_its_deadline() {
    let mut server = spawn(PlotonRetry::new().deadline(Duration::from_secs(90)));
    let deadline = Instant::now() + Duration::from_secs(90);
    let told =
        |request: &Request<String>| LogicalRequest::of(request.extensions()).map(|l| l.deadline);
    let mut call = server.call(get());
    let (first, answers) = server.next().await;
    assert_eq!(told(&first), None, "the usual request carries nothing");
    answers.send_response(answer(503));
    for _ in 0..200 {
        assert_pending!(call.poll());
        time::advance(Duration::from_millis(1)).await;
    }
    let (second, _) = server.next().await;
    assert_eq!(told(&second), Some(Some(deadline)));
}

/// A timer fires up to a millisecond late: the retry was slept for, and then came after the deadline.
#[tokio::test(start_paused = true)]
async fn a_delay_that_ends_within_the_deadlines_last_millisecond_is_not_slept() {
    let layer = PlotonRetry::new()
        .deadline(Duration::from_millis(100))
        .without_jitter();
    for (hint, again) in [("97.5", true), ("99.5", false), ("100", false)] {
        let mut server = spawn(layer.clone());
        let mut call = server.call(get());
        let mut failed = answer(503);
        let hint = hint.parse().unwrap();
        failed.headers_mut().insert("retry-after-ms", hint);
        server.next().await.1.send_response(failed);
        if again {
            let (_, sent) = server.wait_for(&mut call).await;
            sent.send_response(answer(200));
            assert_eq!(assert_ready_ok!(call.poll()).status(), 200);
        } else {
            assert_eq!(assert_ready_ok!(call.poll()).status(), 503);
        }
    }
}
