//! tower's layers that send a request more than once: `retry` and `hedge`.

use std::{
    future::{self, Ready},
    num::NonZeroU32,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    buffer::Buffer,
    hedge::{self, Hedge},
    retry::{self, RetryLayer},
};
use tower_ploton::{
    IdempotencyKey, PlotonIdempotency, PlotonRateLimit, PlotonRetry, PlotonTaskLimit,
    mock::{self, FakePloton},
};
use tower_ploton_sdks::{Fault, Server, create, plan, stack};

use super::{auth, creates_once, http, ploton};

/// tower's retry with a policy of the simplest kind.
#[derive(Clone)]
struct Again(u32);

impl<E> retry::Policy<Request<Full<Bytes>>, Response<Incoming>, E> for Again {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<Incoming>, E>,
    ) -> Option<Self::Future> {
        let failed = |response: &mut Response<_>| !response.status().is_success();
        self.0 = self
            .0
            .checked_sub(u32::from(result.as_mut().map_or(true, failed)))?;
        result
            .as_mut()
            .map_or(true, failed)
            .then(|| future::ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn another_retry_layer_repeats_nothing_twice_where_the_key_is_made_outside_it() {
    let (fake, server) = ploton().await;
    let in_its_place = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(RetryLayer::new(Again(3)))
        .layer(PlotonRateLimit::new(plan()).origin(server.origin()))
        .layer(auth(&server));
    creates_once(in_its_place.service(http()), &server, &fake).await;

    let (fake, server) = ploton().await;
    let above = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(RetryLayer::new(Again(1)))
        .layer(stack(&server).retry(PlotonRetry::new().attempts(3)));
    creates_once(above.service(http()), &server, &fake).await;

    // tower's waits for nobody, so there is no 429 here.
    let (fake, server) = ploton().await;
    server.fail([Fault::Status(500), Fault::CutAfter, Fault::CutAfter]);
    let below = ServiceBuilder::new()
        .layer(stack(&server).retry(PlotonRetry::new().attempts(2)))
        .layer(RetryLayer::new(Again(2)));
    let call = below.service(http()).oneshot(create(server.url(), "one"));
    assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
    server.assert_one_request(4);
    assert_eq!(fake.counts().created, 1);
}

/// So the page of `PlotonIdempotency` says: what it is called twice for, is two requests to it.
#[tokio::test]
async fn another_retry_layer_outside_the_key_creates_twice() {
    let (fake, server) = ploton().await;
    server.fail([Fault::CutAfter]);
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(Again(1)))
        .layer(stack(&server).retry(PlotonRetry::new().attempts(1)))
        .service(http());
    let call = service.clone().oneshot(create(server.url(), "one"));
    assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(fake.counts().created, 2);

    // A key that the caller put in is the same for all clones.
    server.fail([Fault::CutAfter]);
    let mut request = create(server.url(), "another");
    let key = IdempotencyKey::random();
    request.extensions_mut().insert(key);
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(fake.counts().created, 3);
}

/// Hedges every request that can be cloned, which are all.
#[derive(Clone)]
struct Always;

impl hedge::Policy<Request<Full<Bytes>>> for Always {
    fn clone_request(&self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }

    fn can_retry(&self, _: &Request<Full<Bytes>>) -> bool {
        true
    }
}

/// Sends what takes longer than 10 ms a second time.
fn hedged<S>(service: S) -> Hedge<S, Always>
where
    S: Service<Request<Full<Bytes>>> + Clone,
    S::Error: Into<BoxError>,
{
    let period = Duration::from_secs(3_600);
    Hedge::new_with_mock_latencies(service, Always, 1, 0.9, period, &[10; 100])
}

const SLOW: mock::Fault = mock::Fault::Delay(Duration::from_secs(20));

/// How many attempts came and with how many keys, of one slow request that is sent through `service`.
async fn hedge<S>(service: S, server: &Server, fake: &FakePloton) -> (usize, usize)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>>,
    S::Error: Into<BoxError>,
{
    fake.fail_next(SLOW);
    let start = Instant::now();
    let response = service.oneshot(create(server.url(), "one")).await;
    let response = response.map_err(Into::into).unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let took = Instant::now().duration_since(start);
    assert!(took < Duration::from_secs(15), "the second is quicker");
    let seen = server.seen();
    let mut keys: Vec<_> = seen.iter().map(|seen| &seen.idempotency_key).collect();
    keys.sort();
    keys.dedup();
    assert!(keys.iter().all(|key| key.is_some()));
    (seen.len(), keys.len())
}

#[tokio::test]
async fn hedged_inside_the_key_a_request_creates_once() {
    let (fake, server) = ploton().await;
    let limit = PlotonRateLimit::new(plan()).origin(server.origin());
    let attempts = ServiceBuilder::new().layer(limit).layer(auth(&server));
    let hedged_attempts = hedged(attempts.service(http()));
    let service = PlotonIdempotency::new().layer(hedged_attempts);
    assert_eq!(hedge(service, &server, &fake).await, (2, 1));
    assert_eq!(fake.counts().created, 1);
    assert_eq!(fake.counts().replayed, 1);
}

/// The whole stack hedged from outside, under a key layer of its own: what is there already is kept.
#[tokio::test]
async fn a_hedged_stack_creates_once_under_a_key_layer_and_takes_one_task_slot() {
    let (fake, server) = ploton().await;
    let tasks = PlotonTaskLimit::with_capacity(NonZeroU32::MIN);
    let slots = tasks.handle();
    let hedged_stack = hedged(stack(&server).tasks(tasks).layer(http()));
    let service = PlotonIdempotency::new().layer(hedged_stack);
    assert_eq!(hedge(service, &server, &fake).await, (2, 1));
    assert_eq!(fake.counts().created, 1);
    assert_eq!(slots.snapshot().running, 1);
}

/// Retry tells all that is inside it of one key, even where two attempts are on their way at once.
#[tokio::test]
async fn hedged_between_retry_and_the_key_a_request_creates_once() {
    let (fake, server) = ploton().await;
    let keyed = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(auth(&server))
        .service(http());
    let buffered = Buffer::new(hedged(keyed), 8);
    let service = PlotonRetry::new().layer(buffered);
    assert_eq!(hedge(service, &server, &fake).await, (2, 1));
    assert_eq!(fake.counts().created, 1);
}

/// So the page of `PlotonIdempotency` says.
#[tokio::test]
async fn hedged_outside_the_key_a_request_creates_twice() {
    let (fake, server) = ploton().await;
    let service = hedged(stack(&server).layer(http()));
    assert_eq!(hedge(service, &server, &fake).await, (2, 2));
    assert_eq!(fake.counts().created, 2);
}
