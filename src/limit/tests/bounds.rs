//! Requests that do not wait.

use super::*;
use crate::logical::{Deadline, LogicalRequest};

/// The error of a request that is sent through `service` now, and fails at once.
async fn refused<E: std::error::Error + 'static, S>(service: &S, request: Request<()>) -> E
where
    S: Service<Request<()>, Response = Response<()>, Error = BoxError> + Clone,
{
    let start = Instant::now();
    let call = time::timeout(SECOND, service.clone().oneshot(request)).await;
    let error = call.expect("at once").unwrap_err();
    assert_eq!(Instant::now(), start, "at once");
    *error.downcast().unwrap()
}

fn with_deadline(wait: Duration) -> Request<()> {
    let mut request = get();
    request
        .extensions_mut()
        .insert(Deadline(Instant::now() + wait));
    request
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_full_at_its_bound_and_says_how_long_the_wait_would_be() {
    let (limit, _, _handle) = answered_once().await;
    let limit = limit.max_waiting(3);
    let service = limit.layer(server(&Arc::default(), |_| 20));
    let calls: Vec<_> = (0..4)
        .map(|_| tokio::spawn(service.clone().oneshot(get())))
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(limit.handle().snapshot().waiting, 3);
    let full: QueueFull = refused(&service, get()).await;
    assert_eq!(full.waiting(), 3);
    assert!(full.wait() > 3 * STEP && full.wait() <= 4 * STEP, "{full}");
    assert_eq!(
        full.to_string(),
        "3 requests wait for the rate limit already, this one would wait 2.4 s"
    );
    assert_eq!(limit.handle().snapshot().waiting, 3, "it took no place");
    for call in calls {
        call.await.unwrap().unwrap();
    }
    service.oneshot(get()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_nobody_may_wait_only_those_are_sent_whose_turn_it_is() {
    let (limit, _, _handle) = answered_once().await;
    let service = limit.max_waiting(0).layer(server(&Arc::default(), |_| 20));
    service.clone().oneshot(get()).await.unwrap();
    let full: QueueFull = refused(&service, get()).await;
    assert_eq!(full.waiting(), 0);
    time::advance(STEP).await;
    service.oneshot(get()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_would_wait_too_long_fails_at_once() {
    let (limit, _, _handle) = answered_once().await;
    let patient = limit.layer(server(&Arc::default(), |_| 20));
    let service = limit
        .max_wait(2 * SECOND)
        .layer(server(&Arc::default(), |_| 20));
    let _calls: Vec<_> = (0..5)
        .map(|_| tokio::spawn(patient.clone().oneshot(get())))
        .collect();
    tokio::task::yield_now().await;
    let error: WaitTooLong = refused(&service, get()).await;
    assert_eq!(error.max(), 2 * SECOND);
    assert!(
        error.wait() > 4 * STEP && error.wait() <= 5 * STEP,
        "{error}"
    );
    time::sleep(2 * STEP).await;
    service.oneshot(get()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_begins_meanwhile_makes_nobody_wait_longer_than_it_may() {
    let (limit, _, _handle) = answered_once().await;
    let service = limit.clone().max_wait(2 * SECOND);
    let service = service.layer(server(&Arc::default(), |_| 20));
    let start = Instant::now();
    let calls: Vec<_> = (0..4)
        .map(|_| tokio::spawn(service.clone().oneshot(get())))
        .collect();
    time::sleep(SECOND).await;
    limit.handle().pause_until(start + 60 * SECOND);
    let mut failed = 0;
    for call in calls {
        if let Err(error) = call.await.unwrap() {
            error.downcast::<WaitTooLong>().unwrap();
            failed += 1;
        }
        assert!(Instant::now() - start <= Duration::from_millis(2_002));
    }
    assert_eq!(failed, 2);
    assert_eq!(limit.handle().snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_before_the_turn_fails_at_once_and_one_behind_it_waits() {
    let (limit, service, mut handle) = answered_once().await;
    limit.handle().pause_until(Instant::now() + 30 * SECOND);
    // A call without its turn waits in its future.
    let mut call = task::spawn(service.clone().call(with_deadline(29 * SECOND)));
    let error = assert_ready_err!(call.poll());
    let error = error.downcast::<DeadlineTooSoon>().unwrap();
    assert_eq!((error.wait(), error.left()), (30 * SECOND, 29 * SECOND));
    assert_eq!(
        error.to_string(),
        "request would wait 30.0 s for the rate limit, and its deadline is in 29.0 s"
    );
    let call = tokio::spawn(service.clone().call(with_deadline(31 * SECOND)));
    let (_, sent) = handle.next_request().await.unwrap();
    sent.send_response(answer(StatusCode::OK));
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_during_the_wait_ends_it() {
    let (limit, service, _handle) = answered_once().await;
    let start = Instant::now();
    let call = tokio::spawn({
        let mut service = service.clone();
        // The turn is there, and then it is gone.
        service.ready().await.unwrap();
        limit.handle().pause_until(start + SECOND);
        service.call(with_deadline(2 * SECOND))
    });
    tokio::task::yield_now().await;
    limit.handle().pause_until(start + 60 * SECOND);
    let error = call.await.unwrap().unwrap_err();
    error.downcast::<DeadlineTooSoon>().unwrap();
    assert!(Instant::now() - start <= Duration::from_millis(2_002));
}

/// Where there was a token, nobody looked at the deadline: it was taken, and the request was sent for nothing.
#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_takes_no_token_though_there_is_one() {
    let (limit, service, mut handle) = answered_once().await;
    let before = limit.handle().snapshot();
    assert_eq!(before.held_by, None);
    let mut ready = service.clone();
    task::spawn(()).enter(|cx, _| assert_ready_ok!(ready.poll_ready(cx)));
    // The one had its turn in `poll_ready`, the other asks for it in its future, and the third waits there for the inner
    // service until its deadline has passed.
    let mut calls = vec![
        task::spawn(ready.call(with_deadline(Duration::ZERO))),
        task::spawn(service.clone().call(with_deadline(Duration::ZERO))),
    ];
    handle.allow(0);
    let mut busy = task::spawn(service.clone().call(with_deadline(SECOND)));
    assert_pending!(busy.poll());
    time::advance(SECOND).await;
    handle.allow(1);
    calls.push(busy);
    for mut call in calls {
        let error = assert_ready_err!(call.poll());
        let late = error.downcast::<DeadlineTooSoon>().unwrap();
        assert_eq!(late.wait(), Duration::ZERO);
    }
    let after = limit.handle().snapshot();
    assert_eq!((after.remaining, after.waiting), (before.remaining, 0));
}

/// The refusal was forgotten while the inner service was busy: the request asked again, and waited once more as long.
#[tokio::test(start_paused = true)]
async fn one_that_may_not_wait_does_not_wait_for_the_inner_service_either() {
    let (limit, _, _handle) = answered_once().await;
    let inner = ConcurrencyLimit::new(server(&Arc::default(), |_| 20), 1);
    let mut permit = inner.clone();
    permit.ready().await.unwrap();
    let mut service = limit.clone().max_wait(SECOND).layer(inner);
    limit.handle().pause_until(Instant::now() + 10 * SECOND);
    let _: WaitTooLong = refused(&service, get()).await;

    // Another origin has no turn to wait for, but it needs the inner service.
    task::spawn(()).enter(|cx, _| assert_ready_ok!(service.poll_ready(cx)));
    let other = Request::get("https://other.example/").body(()).unwrap();
    let mut call = task::spawn(service.call(other));
    assert_pending!(call.poll());
    drop(permit);
    assert_pending!(call.poll());
    time::advance(SECOND).await;
    assert_ready_ok!(call.poll());
}

/// An error of `poll_ready` means that the service is dead, and a buffer's worker ends with it.
#[tokio::test(start_paused = true)]
async fn that_one_may_not_wait_is_no_error_of_the_service() {
    let (limit, _, _handle) = answered_once().await;
    let limit = limit.max_wait(SECOND);
    let mut service = limit.layer(server(&Arc::default(), |_| 20));
    let mut context = task::spawn(());
    let mut poll = |service: &mut RateLimitService<_>| {
        context.enter(|cx, _| service.poll_ready(cx).map(|ready| ready.unwrap()))
    };
    limit.handle().pause_until(Instant::now() + 10 * SECOND);
    assert!(poll(&mut service).is_ready());
    time::advance(10 * SECOND).await;
    assert!(
        poll(&mut service).is_ready(),
        "asked again, it waits for nothing"
    );
    service.call(get()).await.unwrap();

    limit.handle().pause_until(Instant::now() + 10 * SECOND);
    assert!(poll(&mut service).is_ready());
    let other = Request::get("https://other.example/").body(()).unwrap();
    service.call(other).await.unwrap();
    assert!(poll(&mut service).is_ready());
    let error = service.call(get()).await.unwrap_err();
    error.downcast::<WaitTooLong>().unwrap();
    assert_eq!(limit.handle().snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_retry_outside_counts_too() {
    let (limit, mut service, _handle) = answered_once().await;
    limit.handle().pause_until(Instant::now() + 30 * SECOND);
    let mut request = get();
    let deadline = Instant::now() + 20 * SECOND;
    LogicalRequest::get_or_insert(request.extensions_mut()).deadline = Some(deadline);
    let error = assert_ready_err!(task::spawn(service.call(request)).poll());
    let late = error.downcast::<DeadlineTooSoon>().unwrap();
    assert_eq!((late.wait(), late.left()), (30 * SECOND, 20 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_retry_layer_does_not_wait_for_one_that_may_not_wait() {
    let (limit, _, _handle) = answered_once().await;
    let limit = limit.max_wait(SECOND);
    limit.handle().pause_until(Instant::now() + 30 * SECOND);
    let service =
        crate::PlotonRetry::new().layer(limit.layer(service_fn(async |_: Request<String>| {
            Ok::<_, Infallible>(Response::new(String::new()))
        })));
    let start = Instant::now();
    let request = get().map(|()| String::new());
    let error = service.oneshot(request).await.unwrap_err();
    error.downcast::<WaitTooLong>().unwrap();
    assert_eq!(Instant::now(), start, "at once");
}

/// Until the first answer it was to be two seconds, which is only how long it is waited for.
#[tokio::test(start_paused = true)]
async fn a_probe_that_may_be_answered_in_time_refuses_nobody() {
    let limit = PlotonRateLimit::new(Plan::Production);
    let service = limit.clone().max_wait(SECOND);
    let service = service.layer(server(&Arc::default(), |_| 20));
    let probe = tokio::spawn(service.clone().oneshot(get()));
    tokio::task::yield_now().await;
    assert_eq!(limit.handle().snapshot().held_by, Some(Rule::Probe));
    let patient = tokio::spawn(service.clone().oneshot(get()));
    let deadline = service.clone().call(with_deadline(SECOND));
    deadline.await.unwrap();
    for call in [probe, patient] {
        call.await.unwrap().unwrap();
    }
}

/// It is not answered, and so nobody waits for longer than it may.
#[tokio::test(start_paused = true)]
async fn a_probe_that_is_not_answered_in_time_makes_nobody_wait_longer_than_it_may() {
    let limit = PlotonRateLimit::new(Plan::Production);
    let service = limit.clone().max_wait(SECOND);
    let service = service.layer(server(&Arc::default(), |_| 10_000));
    let start = Instant::now();
    let _probe = tokio::spawn(service.clone().oneshot(get()));
    tokio::task::yield_now().await;
    let error = service.clone().oneshot(get()).await.unwrap_err();
    error.downcast::<WaitTooLong>().unwrap();
    let late = Instant::now() - start;
    assert!(
        late >= SECOND && late <= Duration::from_millis(1_002),
        "{late:?}"
    );
}

/// A service that was ready and not called was taken for one that waited.
#[tokio::test(start_paused = true)]
async fn a_turn_that_was_not_used_is_no_part_of_the_longest_wait() {
    let (limit, _, _handle) = answered_once().await;
    let patient = limit.layer(server(&Arc::default(), |_| 20));
    let limit = limit.max_wait(2 * SECOND);
    let mut service = limit.layer(server(&Arc::default(), |_| 20));
    patient.clone().oneshot(get()).await.unwrap();
    service.ready().await.unwrap();
    time::sleep(10 * SECOND).await;
    let start = Instant::now();
    patient.oneshot(get()).await.unwrap();
    service.call(get()).await.unwrap();
    let waited = Instant::now() - start;
    assert!(waited >= STEP && waited < STEP + SECOND, "{waited:?}");

    service.ready().await.unwrap();
    time::sleep(10 * SECOND).await;
    limit.handle().pause_until(Instant::now() + 30 * SECOND);
    let error = service.call(get()).await.unwrap_err();
    let error = error.downcast::<WaitTooLong>().unwrap();
    let wait = error.wait();
    assert!(wait >= 30 * SECOND && wait < 31 * SECOND, "{error}");
}
