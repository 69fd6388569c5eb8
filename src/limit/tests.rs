//! The service, on small inner services and paused time.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, Request, Response, StatusCode};
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{BoxError, Layer, Service, ServiceExt, limit::ConcurrencyLimit, service_fn};
use tower_test::mock;

use super::*;

mod bounds;
mod cancelled;
mod composed;
mod parked;
mod queue;
mod reported;
mod resets;
mod settings;
mod threads;
mod wakeups;

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

/// At most `n` arrivals in any minute.
fn assert_within(n: usize, arrivals: &Mutex<Vec<Instant>>) {
    for window in arrivals.lock().unwrap().windows(n + 1) {
        assert!(window[n] - window[0] > 60 * SECOND, "{} in a minute", n + 1);
    }
}

/// A plan of `n` requests a minute.
fn requests(n: u32) -> Plan {
    Plan::Enterprise {
        requests_per_minute: NonZeroU32::new(n).unwrap(),
        concurrent_tasks: NonZeroU32::MIN,
    }
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
        let mut tasks = JoinSet::new();
        for _ in 0..40 {
            let service = service.clone();
            tasks.spawn(async move {
                for _ in 0..25 {
                    service.clone().oneshot(get()).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        assert_within(100, &arrivals);
        let arrivals = arrivals.lock().unwrap();
        assert_eq!(arrivals.len(), 1_000);
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
async fn a_503_pauses_by_retry_after_alone() {
    for (names_a_wait, pauses) in [(true, true), (false, true), (true, false)] {
        let (limit, _, _) = answered_once().await;
        let limit = limit.pause_on_503(pauses);
        let service = limit.layer(service_fn(move |_: Request<()>| async move {
            let mut response = answer(StatusCode::SERVICE_UNAVAILABLE);
            let headers = response.headers_mut();
            for (name, value) in [("limit", 100), ("remaining", 0), ("reset", 20)] {
                let name: HeaderName = format!("x-ratelimit-{name}").parse().unwrap();
                headers.insert(name, value.into());
            }
            if names_a_wait {
                headers.insert("retry-after", 20.into());
            }
            Ok::<_, BoxError>(response)
        }));
        service.oneshot(get()).await.unwrap();
        let paused = limit.handle().snapshot().paused_until.is_some();
        assert_eq!(paused, names_a_wait && pauses);
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
