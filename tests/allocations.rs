//! What the limiter allocates for a request that need not wait, and the auth layer for one that has a key: nothing.
#![allow(
    clippy::expect_used,
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
use tower_ploton::{ApiKey, Plan, PlotonAuth, PlotonRateLimit, auth::FreshKey};

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
