//! Futures that are dropped at any moment: nothing leaks, and the others go on.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_ploton::{
    Plan, PlotonStack,
    mock::{FakePloton, Fault},
};

use support::{Probe, create, key};

const PLOTON: &str = "https://api.ploton.ai";

/// A request whose life has every stage: a wait for a token, an answer that comes late, two kinds of delay.
fn troubled() -> FakePloton {
    let fake = FakePloton::new().latency(Duration::from_millis(300));
    fake.fail_next(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    fake.fail_next(Fault::CutAfter);
    fake.fail_next(Fault::RateLimited {
        retry_after: Some(Duration::from_secs(1)),
    });
    fake
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_at_any_moment_leaks_nothing_and_stops_nobody() {
    for millis in (0..6_000).step_by(23) {
        let fake = troubled();
        let stack = PlotonStack::new(key(), Plan::Prototyping);
        let service = stack.layer(Probe::new(fake.clone()));
        let dropped = tokio::spawn(service.clone().oneshot(create(PLOTON, "dropped")));
        let waiting = tokio::spawn(service.clone().oneshot(create(PLOTON, "other")));
        tokio::time::sleep(Duration::from_millis(millis)).await;
        dropped.abort();
        let response = waiting.await.unwrap().unwrap();
        assert_eq!(
            response.status(),
            StatusCode::CREATED,
            "dropped after {millis} ms"
        );

        let _ = dropped.await;
        let response = service.oneshot(create(PLOTON, "later")).await.unwrap();
        assert_eq!(
            response.status(),
            StatusCode::CREATED,
            "dropped after {millis} ms"
        );
        let limit = stack.rate_limit_handle().snapshot();
        assert_eq!(
            (limit.in_flight, limit.waiting),
            (0, 0),
            "dropped after {millis} ms"
        );
        assert_eq!(fake.counts().duplicated, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_never_polled_leaks_nothing() {
    let fake = FakePloton::new();
    let stack = PlotonStack::new(key(), Plan::Prototyping);
    let mut service = stack.layer(Probe::new(fake.clone()));
    for _ in 0..3 {
        let ready = ServiceExt::<Request<Full<Bytes>>>::ready(&mut service)
            .await
            .unwrap();
        drop(tower::Service::call(ready, create(PLOTON, "dropped")));
    }
    let response = service.oneshot(create(PLOTON, "later")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let limit = stack.rate_limit_handle().snapshot();
    assert_eq!((limit.in_flight, limit.waiting), (0, 0));
}
