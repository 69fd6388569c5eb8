//! The service, on small inner services and paused time.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Wake},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use tokio::time::{self, Instant};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, limit::ConcurrencyLimit, service_fn};
use tower_test::mock;

use super::*;

const STEP: Duration = Duration::from_nanos(602_620_000);
const SECOND: Duration = Duration::from_secs(1);

fn get() -> Request<()> {
    Request::get("https://api.ploton.ai/v1/tasks")
        .body(())
        .unwrap()
}

fn answer(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

fn refusal(retry_after: &str) -> Response<()> {
    let mut response = answer(StatusCode::TOO_MANY_REQUESTS);
    response
        .headers_mut()
        .insert("retry-after", retry_after.parse().unwrap());
    response
}

/// When requests arrived at a server that answers each after a delay of `millis(n)`.
fn server(
    arrivals: &Arc<Mutex<Vec<Instant>>>,
    millis: fn(usize) -> u64,
) -> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<> {
    let arrivals = arrivals.clone();
    service_fn(move |_: Request<()>| {
        let mut arrivals = arrivals.lock().unwrap();
        arrivals.push(Instant::now());
        let delay = Duration::from_millis(millis(arrivals.len()));
        async move {
            time::sleep(delay).await;
            Ok(Response::new(()))
        }
    })
}

#[tokio::test(start_paused = true)]
async fn no_window_of_a_minute_sees_more_than_the_plan() {
    // What is on its way for long counts for as much longer: the price of a guarantee that needs no bound on delays.
    let delays: [(fn(usize) -> u64, f64); 3] = [
        (|_| 20, 0.98),
        (|n| 50 * (n as u64 % 7), 0.98),
        (|n| (n as u64 % 10) * 1_000, 0.92),
    ];
    for (delay, least_used) in delays {
        let arrivals = Arc::default();
        let limit = PlotonRateLimit::new(Plan::Prototyping);
        let service = limit.layer(server(&arrivals, delay));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..40 {
            let service = service.clone();
            tasks.spawn(async move {
                for _ in 0..25 {
                    service.clone().oneshot(get()).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        let arrivals = arrivals.lock().unwrap();
        assert_eq!(arrivals.len(), 1_000);
        for window in arrivals.windows(101) {
            assert!(window[100] - window[0] > 60 * SECOND, "101 in a minute");
        }
        let used = 1_000.0 / ((arrivals[999] - arrivals[0]).as_secs_f64() / 60.0 * 100.0);
        assert!(used > least_used, "{used}");
        assert_eq!(limit.handle().snapshot().in_flight, 0);
        assert_eq!(limit.handle().snapshot().waiting, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_request_goes_alone_and_the_next_ones_in_even_steps() {
    let arrivals = Arc::default();
    let service = PlotonRateLimit::new(Plan::Prototyping).layer(server(&arrivals, |_| 1_500));
    let start = Instant::now();
    let calls = (0..5).map(|_| tokio::spawn(service.clone().oneshot(get())));
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    let arrivals = arrivals.lock().unwrap();
    assert_eq!(arrivals[0], start);
    let second = Duration::from_millis(1_500);
    assert!(arrivals[1] - start >= second, "after the first answer");
    assert!(arrivals[1] - start < second + Duration::from_millis(10));
    for pair in arrivals[1..].windows(2) {
        let step = pair[1] - pair[0];
        assert!(
            step + Duration::from_millis(5) >= STEP && step < STEP + Duration::from_millis(5),
            "{step:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_request_that_is_not_answered_stops_nobody_after_two_seconds() {
    let arrivals = Arc::default();
    let service = PlotonRateLimit::new(Plan::Prototyping).layer(server(&arrivals, |_| 600_000));
    let _first = tokio::spawn(service.clone().oneshot(get()));
    let _second = tokio::spawn(service.clone().oneshot(get()));
    time::sleep(Duration::from_millis(1_990)).await;
    assert_eq!(arrivals.lock().unwrap().len(), 1);
    time::sleep(Duration::from_millis(20)).await;
    assert_eq!(arrivals.lock().unwrap().len(), 2);
}

/// A layer over a mock whose first request was sent and answered, so that only pacing is left.
async fn answered_once() -> (
    PlotonRateLimit,
    RateLimitService<mock::Mock<Request<()>, Response<()>>>,
    mock::Handle<Request<()>, Response<()>>,
) {
    let (inner, mut handle) = mock::pair();
    let limit = PlotonRateLimit::new(Plan::Prototyping);
    let service = limit.layer(inner);
    let mut first = task::spawn(service.clone().oneshot(get()));
    assert_pending!(first.poll());
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(answer(StatusCode::OK));
    assert_ready_ok!(first.poll());
    time::advance(2 * STEP).await;
    (limit, service, handle)
}

#[tokio::test(start_paused = true)]
async fn a_429_pauses_all_clones_until_its_hint_has_passed_and_then_one_goes_ahead() {
    let (limit, service, mut handle) = answered_once().await;
    let mut refused = task::spawn(service.clone().oneshot(get()));
    assert_pending!(refused.poll());
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(refusal("12"));
    assert_eq!(
        assert_ready_ok!(refused.poll()).status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    let paused = Instant::now();
    let until = limit.handle().snapshot().paused_until.unwrap();
    assert!(until >= paused + 12 * SECOND && until <= paused + Duration::from_millis(14_400));
    assert_eq!(limit.handle().snapshot().held_by, Some(Rule::Paused));

    let waiting: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(get())))
        .collect();
    let (_, probe) = handle.next_request().await.unwrap();
    assert!(Instant::now() >= until, "the probe leaves after the pause");
    assert!(Instant::now() <= until + Duration::from_millis(2));
    assert_eq!(limit.handle().snapshot().held_by, Some(Rule::Probe));
    time::sleep(SECOND).await;
    assert_pending!(task::spawn(handle.next_request()).poll());
    probe.send_response(answer(StatusCode::OK));
    for _ in 0..2 {
        handle
            .next_request()
            .await
            .unwrap()
            .1
            .send_response(answer(StatusCode::OK));
    }
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_without_a_hint_pauses_until_the_reset_or_for_a_window() {
    for (reset, pause) in [(Some("20"), 20), (None, 60), (Some("soon"), 60)] {
        let (limit, service, mut handle) = answered_once().await;
        let mut refused = task::spawn(service.clone().oneshot(get()));
        assert_pending!(refused.poll());
        let mut response = refusal("0");
        if let Some(reset) = reset {
            response
                .headers_mut()
                .insert("x-ratelimit-reset", reset.parse().unwrap());
        }
        handle
            .next_request()
            .await
            .unwrap()
            .1
            .send_response(response);
        assert_ready_ok!(refused.poll());
        let until = limit.handle().snapshot().paused_until.unwrap() - Instant::now();
        assert!(
            until >= pause * SECOND && until <= (pause + 5) * SECOND + Duration::from_millis(20),
            "{until:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_came_first_are_sent_first_across_clones() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let inner = service_fn(move |request: Request<usize>| {
        seen.lock().unwrap().push(*request.body());
        async { Ok::<_, Infallible>(Response::new(())) }
    });
    let service = PlotonRateLimit::new(Plan::Production).layer(inner);
    let mut calls: Vec<_> = (0..200)
        .map(|n| {
            let mut call = task::spawn(service.clone().oneshot(Request::new(n)));
            let _ = call.poll();
            call
        })
        .collect();
    // Polled in an order that is not theirs, and only when woken.
    for _ in 0..200 {
        time::advance(Duration::from_millis(70)).await;
        calls.reverse();
        calls.retain_mut(|call| !call.is_woken() || call.poll().is_pending());
    }
    let order = order.lock().unwrap();
    assert_eq!(order.len(), 200);
    assert!(order.is_sorted(), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn another_origin_takes_no_token_and_is_not_looked_at() {
    let (limit, mut service, mut handle) = answered_once().await;
    let before = limit.handle().snapshot();
    task::spawn(()).enter(|cx, _| assert_ready_ok!(service.poll_ready(cx)));
    let other = Request::get("https://other.example/").body(()).unwrap();
    let mut call = task::spawn(service.call(other));
    assert_pending!(call.poll());
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(refusal("100"));
    assert_ready_ok!(call.poll());
    assert_eq!(limit.handle().snapshot(), before);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_dropped_leaves_and_the_others_go_on() {
    let (limit, service, mut handle) = answered_once().await;
    let mut context = task::spawn(());
    let mut poll = |service: &mut RateLimitService<_>| {
        context.enter(|cx, _| service.poll_ready(cx).is_ready())
    };

    // Ready and not called; waiting in the queue; waiting in its future; on its way.
    let mut ready = service.clone();
    assert!(poll(&mut ready));
    let mut waiting = service.clone();
    assert!(!poll(&mut waiting));
    let in_future = waiting.call(get());
    let mut in_future = task::spawn(in_future);
    assert_pending!(in_future.poll());
    let mut last = task::spawn(service.clone().oneshot(get()));
    assert_pending!(last.poll());
    assert_eq!(
        limit.handle().snapshot().waiting,
        2,
        "the ready one does not"
    );
    drop(ready);
    drop(waiting);
    drop(in_future);
    assert_eq!(limit.handle().snapshot().waiting, 0, "its turn has come");
    assert!(last.is_woken());
    assert_pending!(last.poll());
    let (_, sent) = handle.next_request().await.unwrap();
    assert_eq!(limit.handle().snapshot().in_flight, 1);
    drop(last);
    drop(sent);
    let snapshot = limit.handle().snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
    assert_eq!(snapshot.remaining, 98, "it may have arrived, so it counts");
}

#[tokio::test(start_paused = true)]
async fn a_ready_service_that_is_not_called_stops_nobody_and_is_served_later() {
    let (_limit, service, mut handle) = answered_once().await;
    let mut context = task::spawn(());
    let mut parked = service.clone();
    context.enter(|cx, _| assert_ready_ok!(parked.poll_ready(cx)));
    let start = Instant::now();
    let other = tokio::spawn(service.clone().oneshot(get()));
    let (_, sent) = handle.next_request().await.unwrap();
    assert!(Instant::now() - start <= Duration::from_millis(52));
    sent.send_response(answer(StatusCode::OK));
    other.await.unwrap().unwrap();

    let late = tokio::spawn(parked.call(get()));
    let (_, sent) = handle.next_request().await.unwrap();
    assert!(
        Instant::now() - start >= STEP,
        "its token was taken by the other"
    );
    sent.send_response(answer(StatusCode::OK));
    late.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_readiness_of_the_inner_service_is_held_while_a_token_is_awaited() {
    let (limit, other, mut handle) = answered_once().await;
    let inner = ConcurrencyLimit::new(server(&Arc::default(), |_| 20), 1);
    let mut permit = inner.clone();
    let mut context = task::spawn(());
    let mut is_free =
        |permit: &mut ConcurrencyLimit<_>| context.enter(|cx, _| permit.poll_ready(cx).is_ready());
    let mut parked = limit.layer(inner);
    task::spawn(()).enter(|cx, _| assert_ready_ok!(parked.poll_ready(cx)));
    assert!(!is_free(&mut permit), "the parked service has it");

    // Another takes the token, so the call waits.
    time::advance(Duration::from_millis(60)).await;
    let mut quicker = task::spawn(other.clone().oneshot(get()));
    assert_pending!(quicker.poll());
    let mut call = task::spawn(parked.call(get()));
    assert_pending!(call.poll());
    assert!(is_free(&mut permit), "given back before the wait");

    // Its turn comes while the permit is taken, and passes.
    time::advance(2 * STEP).await;
    assert_pending!(call.poll());
    time::advance(Duration::from_millis(60)).await;
    let mut quicker_again = task::spawn(other.clone().oneshot(get()));
    assert_pending!(quicker_again.poll());
    drop(permit.call(get()));
    assert_pending!(call.poll());
    assert!(is_free(&mut permit), "given back when the token was gone");
    drop(permit);

    for _ in 0..2 {
        handle
            .next_request()
            .await
            .unwrap()
            .1
            .send_response(answer(StatusCode::OK));
    }
    time::advance(2 * STEP).await;
    assert_eq!(call.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_head_whose_inner_service_is_busy_stops_nobody() {
    let (limit, other, mut handle) = answered_once().await;
    let inner = ConcurrencyLimit::new(server(&Arc::default(), |_| 20), 1);
    let mut permit = inner.clone();
    permit.ready().await.unwrap();
    let busy = tokio::spawn(limit.layer(inner).oneshot(get()));
    tokio::task::yield_now().await;
    let quicker = tokio::spawn(other.oneshot(get()));
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(answer(StatusCode::OK));
    quicker.await.unwrap().unwrap();
    drop(permit);
    busy.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_larger_plan_is_for_those_who_wait_too() {
    let (limit, service, mut handle) = answered_once().await;
    let calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(service.clone().oneshot(get())))
        .collect();
    tokio::task::yield_now().await;
    limit.handle().set_plan(Plan::Production);
    assert_eq!(limit.handle().snapshot().limit, 1_000);
    let start = Instant::now();
    for _ in 0..3 {
        handle
            .next_request()
            .await
            .unwrap()
            .1
            .send_response(answer(StatusCode::OK));
    }
    // One step of the old plan was already charged.
    assert!(Instant::now() - start < STEP + Duration::from_millis(70));
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_counts_as_sent_and_is_handed_on() {
    let (limit, service, mut handle) = answered_once().await;
    let mut call = task::spawn(service.clone().oneshot(get()));
    assert_pending!(call.poll());
    handle.next_request().await.unwrap().1.send_error("cut");
    match call.poll() {
        Poll::Ready(Err(error)) => assert_eq!(error.to_string(), "cut"),
        other => panic!("{other:?}"),
    }
    assert_eq!(limit.handle().snapshot().in_flight, 0);
    assert_eq!(limit.handle().snapshot().remaining, 98);
}

#[tokio::test(start_paused = true)]
async fn a_service_without_a_turn_waits_in_its_future() {
    let (_limit, service, mut handle) = answered_once().await;
    let mut unasked = service.clone();
    let mut call = task::spawn(unasked.call(get()));
    assert_pending!(call.poll());
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_response(answer(StatusCode::OK));
    assert_ready_ok!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_in_an_error_while_it_waits_leaves_the_queue_at_once() {
    let (limit, service, mut handle) = answered_once().await;
    let mut call = task::spawn(service.clone().call(get()));
    handle.send_error("closed");
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "closed");
    assert_eq!(limit.handle().snapshot().waiting, 0);
    drop(call);
}

/// A waiter that was passed once, and then asked again from behind another, was woken by nobody.
#[tokio::test(start_paused = true)]
async fn whoever_was_passed_and_waits_again_is_woken_again() {
    let limit = PlotonRateLimit::new(Plan::Enterprise {
        requests_per_minute: NonZeroU32::MIN,
        concurrent_tasks: NonZeroU32::MIN,
    });
    let service = limit.layer(server(&Arc::default(), |_| 10_000));
    service.clone().oneshot(get()).await.unwrap();
    let (mut head, mut passed) = (service.clone(), service.clone());
    task::spawn(()).enter(|cx, _| assert_pending!(head.poll_ready(cx)));
    passed.ready().await.unwrap();
    time::sleep(Duration::from_millis(60)).await;
    let quicker = tokio::spawn(service.clone().oneshot(get()));
    time::sleep(Duration::from_millis(10)).await;
    assert_eq!(limit.handle().snapshot().in_flight, 1);

    let head = tokio::spawn(head.oneshot(get()));
    time::sleep(Duration::from_millis(10)).await;
    let passed = tokio::spawn(passed.call(get()));
    for call in [quicker, head] {
        call.await.unwrap().unwrap();
    }
    time::timeout(300 * SECOND, passed)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

/// A waker that comes back to the limiter when it is dropped, as one that owns its task may.
struct ComesBack(RateLimitHandle);

impl Wake for ComesBack {
    fn wake(self: Arc<Self>) {}
}

impl Drop for ComesBack {
    fn drop(&mut self) {
        let _ = self.0.snapshot();
    }
}

/// Wakers were dropped under the lock, and a thread waited for itself.
#[test]
fn a_waker_that_comes_back_when_it_is_dropped_finds_no_lock() {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let limit = PlotonRateLimit::new(Plan::Prototyping);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let _entered = runtime.as_ref().unwrap().enter();
        let service = limit.layer(server(&Arc::default(), |_| 20));
        let poll = |service: &mut RateLimitService<_>| {
            let waker = Arc::new(ComesBack(limit.handle())).into();
            let _ = service.poll_ready(&mut Context::from_waker(&waker));
        };
        let mut services = [service.clone(), service.clone(), service.clone()];
        for _ in 0..2 {
            services.iter_mut().for_each(poll);
        }
        drop(services);
        done.send(limit.handle().snapshot().waiting).unwrap();
    });
    let waiting = finished.recv_timeout(Duration::from_secs(60));
    assert_eq!(waiting.expect("no deadlock"), 0);
}
