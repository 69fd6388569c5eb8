//! What requests cost in allocations: nothing by the limiter where they need not wait, one for an idempotency key.
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
use tower_ploton::{IdempotencyKey, Plan, PlotonIdempotency, PlotonRateLimit};

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

#[tokio::test(start_paused = true)]
async fn a_request_that_need_not_wait_costs_no_allocation() {
    let headers = [
        ("x-ratelimit-limit", "100"),
        ("x-ratelimit-remaining", "50"),
        ("x-ratelimit-reset", "1718459532"),
    ];
    for cloned in [false, true] {
        assert_eq!(last_request(&[], cloned).await, 0, "cloned: {cloned}");
        assert_eq!(last_request(&headers, cloned).await, 0, "cloned: {cloned}");
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
