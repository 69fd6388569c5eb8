//! What requests cost in allocations: nothing by the limiter where they need not wait, nothing by a key in force, one for
//! an idempotency key.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

use std::{
    convert::Infallible,
    future,
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::measure;
use http::{HeaderMap, Request, Response};
use tokio::time;
use tower::{Layer, Service, service_fn};
use tower_ploton::{
    ApiKey, Deadline, IdempotencyKey, Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit,
    PlotonStack, auth::FreshKey,
};

/// Allocations of the last of 400 requests, a second apart, that are answered with `headers`.
async fn last_request(headers: &[(&'static str, &'static str)], cloned: bool) -> u64 {
    let inner = service_fn(|response: Request<Response<()>>| {
        future::ready(Ok::<_, Infallible>(response.into_body()))
    });
    let mut service = PlotonRateLimit::new(Plan::Prototyping).layer(inner);
    let mut cx = Context::from_waker(Waker::noop());
    let mut allocations = 0;
    for _ in 0..400 {
        time::advance(Duration::from_secs(1)).await;
        let mut response = Response::new(());
        *response.headers_mut() = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>();
        let request = Request::new(response);
        let mut answer = None;
        let measured = measure(|| {
            let mut clone = cloned.then(|| service.clone());
            let service = clone.as_mut().unwrap_or(&mut service);
            assert!(service.poll_ready(&mut cx).is_ready());
            let mut call = std::pin::pin!(service.call(request));
            answer = Some(call.as_mut().poll(&mut cx));
        });
        assert!(matches!(answer, Some(Poll::Ready(Ok(_)))));
        allocations = measured.count_total;
    }
    allocations
}

/// Allocations of a request through `auth` by a clone of its service, the first of its thread left out.
fn request_with_key(auth: &PlotonAuth) -> u64 {
    let inner = service_fn(|_: Request<()>| future::ready(Ok::<_, Infallible>(Response::new(()))));
    let service = auth.layer(inner);
    let mut cx = Context::from_waker(Waker::noop());
    let mut allocations = 0;
    for _ in 0..2 {
        // With room for another header.
        let request = Request::get("https://api.ploton.ai/v1/tasks").header("accept", "*/*");
        let request = request.body(()).unwrap();
        let mut answer = None;
        let measured = measure(|| {
            let mut service = service.clone();
            assert!(service.poll_ready(&mut cx).is_ready());
            let mut call = std::pin::pin!(service.call(request));
            answer = Some(call.as_mut().poll(&mut cx));
        });
        assert!(matches!(answer, Some(Poll::Ready(Ok(_)))));
        allocations = measured.count_total;
    }
    allocations
}

#[tokio::test(start_paused = true)]
async fn a_key_in_force_costs_no_allocation() {
    let key = |name: &str| ApiKey::parse(&format!("pk_test_{name}")).unwrap();
    let auth = PlotonAuth::new(key("a"));
    assert_eq!(request_with_key(&auth), 0);
    auth.key_handle().set(key("b")).unwrap();
    assert_eq!(request_with_key(&auth), 0, "after a change");

    let auth = PlotonAuth::from_source(move || {
        let fresh = FreshKey::from(key("c")).expires_in(Duration::from_secs(3_600));
        future::ready(Ok::<_, Infallible>(fresh))
    });
    auth.key_handle().renew().await.unwrap();
    assert_eq!(request_with_key(&auth), 0, "from a source");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_need_not_wait_costs_no_allocation() {
    let answers: [&[(&str, &str)]; 7] = [
        &[],
        &[
            ("x-ratelimit-limit", "100"),
            ("x-ratelimit-remaining", "50"),
            ("x-ratelimit-reset", "1718459532"),
        ],
        &[
            ("x-ratelimit-limit", "100"),
            ("x-ratelimit-remaining", "50"),
            ("x-ratelimit-reset", "1718459532"),
            ("date", "Sat, 15 Jun 2024 13:51:40 GMT"),
        ],
        // The IETF's drafts 03, 06, 07, and from 08 on.
        &[
            ("ratelimit-limit", "100, 100;w=60"),
            ("ratelimit-remaining", "50"),
            ("ratelimit-reset", "30"),
        ],
        &[
            ("ratelimit-limit", "100"),
            ("ratelimit-remaining", "50"),
            ("ratelimit-reset", "30"),
            ("ratelimit-policy", "100;w=60"),
        ],
        &[
            ("ratelimit", "limit=100, remaining=50, reset=30"),
            ("ratelimit-policy", "100;w=60"),
        ],
        &[
            ("ratelimit", "\"default\";r=50;t=30"),
            ("ratelimit-policy", "\"default\";q=100;w=60"),
            ("date", "Sat, 15 Jun 2024 13:51:40 GMT"),
        ],
    ];
    for headers in answers {
        for cloned in [false, true] {
            let allocations = last_request(headers, cloned).await;
            assert_eq!(allocations, 0, "{headers:?}, cloned: {cloned}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_on_its_way_has_one_timer_and_two_where_its_deadline_is_soon() {
    let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
    let stack = PlotonStack::new(key, Plan::Production);
    let mut service = stack.layer(service_fn(|_: Request<String>| {
        future::pending::<Result<Response<String>, Infallible>>()
    }));
    let mut cx = Context::from_waker(Waker::noop());
    let now = time::Instant::now();
    // The timeout of an attempt is 30 s.
    for (seconds, timers) in [(31, 1), (29, 2)] {
        let deadline = Deadline(now + Duration::from_secs(seconds));
        let request = Request::get("https://api.ploton.ai/v1/tasks").extension(deadline);
        let request = request.body(String::new()).unwrap();
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut call = std::pin::pin!(service.call(request));
        let measured = measure(|| assert!(call.as_mut().poll(&mut cx).is_pending()));
        assert_eq!(measured.count_total, timers, "{seconds} s");
        let measured = measure(|| assert!(call.as_mut().poll(&mut cx).is_pending()));
        assert_eq!(measured.count_total, 0, "{seconds} s, polled again");
        time::advance(Duration::from_secs(1)).await;
    }
}

#[test]
fn a_random_key_is_one_allocation_and_its_clones_are_none() {
    drop(IdempotencyKey::random()); // a thread's first one makes its generator
    let mut key = None;
    assert_eq!(
        measure(|| key = Some(IdempotencyKey::random())).count_total,
        1
    );
    let mut clone = None;
    assert_eq!(measure(|| clone = key.clone()).count_total, 0);
    assert_eq!(clone, key);
}

/// Allocations of a POST through the layer, whose headers already have room for the key.
fn post(key: Option<IdempotencyKey>) -> u64 {
    let inner = service_fn(|request: Request<()>| {
        let header = request.headers().get("idempotency-key").cloned();
        future::ready(Ok::<_, Infallible>(Response::new(header)))
    });
    let mut service = PlotonIdempotency::new().layer(inner);
    let mut request = Request::post("/v1/tasks").body(()).unwrap();
    request.headers_mut().reserve(8);
    if let Some(key) = key {
        request.extensions_mut().insert(key);
    }
    let mut cx = Context::from_waker(Waker::noop());
    let mut answer = None;
    let measured = measure(|| {
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut call = std::pin::pin!(service.call(request));
        answer = Some(call.as_mut().poll(&mut cx));
    });
    let Some(Poll::Ready(Ok(response))) = answer else {
        panic!("not answered");
    };
    assert!(response.into_body().is_some());
    measured.count_total
}

#[test]
fn a_key_costs_a_post_one_allocation_whoever_made_it() {
    post(None); // a thread's first one makes its generator
    assert_eq!(post(None), 1);
    assert_eq!(post(Some(IdempotencyKey::random())), 1);
    assert_eq!(post(Some(IdempotencyKey::derive("invoice-42"))), 0);
}
