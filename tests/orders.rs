//! The four layers in each of their 24 orders: no POST creates two tasks, no key reaches another origin, nothing hangs.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{Either, Full};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_ploton::{
    Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonRetry, RateLimitHandle,
    mock::{Attempt, FakePloton, Fault, Outcome},
};

use support::{Probe, create, key};

const PLOTON: &str = "https://api.ploton.ai";
const TASKS: usize = 25;

/// One of each layer, and a server behind them.
struct Parts {
    idempotency: PlotonIdempotency,
    retry: PlotonRetry,
    limit: PlotonRateLimit,
    auth: PlotonAuth,
    fake: FakePloton,
    /// Requests that reached another origin, and how many of them carried a key.
    elsewhere: Arc<[AtomicUsize; 2]>,
}

impl Parts {
    fn new() -> Self {
        let cut = |fault| (fault, 0.08);
        let faults = [
            cut(Fault::CutBefore),
            cut(Fault::CutAfter),
            cut(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR)),
            cut(Fault::Status(StatusCode::SERVICE_UNAVAILABLE)),
            cut(Fault::Delay(Duration::from_secs(3))),
            (
                Fault::RateLimited {
                    retry_after: Some(Duration::from_secs(2)),
                },
                0.03,
            ),
        ];
        let fake = faults
            .into_iter()
            .fold(FakePloton::new().seed(7), |fake, (fault, rate)| {
                fake.fault_rate(fault, rate)
            });
        Self {
            idempotency: PlotonIdempotency::new(),
            retry: PlotonRetry::new().attempts(10),
            limit: PlotonRateLimit::new(Plan::Production),
            auth: PlotonAuth::new(key()),
            fake,
            elsewhere: Arc::default(),
        }
    }

    /// The network: Ploton and everybody else.
    fn network(
        &self,
    ) -> impl Service<
        Request<Full<Bytes>>,
        Response = Response<
            impl http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + use<>,
        >,
        Error = BoxError,
        Future: Send,
    > + Clone
    + Send
    + use<> {
        let (fake, elsewhere) = (self.fake.clone(), self.elsewhere.clone());
        Probe::new(service_fn(move |request: Request<Full<Bytes>>| {
            let (fake, elsewhere) = (fake.clone(), elsewhere.clone());
            async move {
                if request.uri().host() == Some("api.ploton.ai") {
                    let response = fake.oneshot(request).await?;
                    return Ok::<_, BoxError>(response.map(Either::Left));
                }
                elsewhere[0].fetch_add(1, Ordering::Relaxed);
                if request.headers().contains_key(AUTHORIZATION) {
                    elsewhere[1].fetch_add(1, Ordering::Relaxed);
                }
                Ok(Response::new(Either::Right(Full::<Bytes>::default())))
            }
        }))
    }
}

/// Sends POSTs to Ploton and to another origin through `service`, all at once, and looks at what reached the servers.
async fn drive<S, R>(service: S, parts: &Parts)
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = BoxError>,
    S: Clone + Send + 'static,
    S::Future: Send,
    R: Send + 'static,
{
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..TASKS {
        let service = service.clone();
        calls.spawn(async move {
            let created = service
                .clone()
                .oneshot(create(PLOTON, &format!("task {n}")))
                .await;
            let other = service.oneshot(create("https://other.example", "x")).await;
            assert_eq!(other.unwrap().status(), StatusCode::OK);
            created.is_ok_and(|response| response.status() == StatusCode::CREATED)
        });
    }
    let done = tokio::time::timeout(Duration::from_secs(3_600), calls.join_all()).await;
    let created = done
        .expect("nothing hangs")
        .into_iter()
        .filter(|created| *created)
        .count();

    let counts = parts.fake.counts();
    assert_eq!(created, TASKS);
    assert_eq!(counts.created, TASKS as u64);
    assert_eq!(counts.duplicated, 0);
    assert!(counts.attempts > TASKS as u64, "there were faults");
    let attempts = parts.fake.attempts();
    assert!(attempts.iter().all(|attempt| attempt.authorized));
    assert!(
        attempts
            .iter()
            .any(|attempt| attempt.outcome == Outcome::CutAfter)
    );
    assert_eq!(parts.elsewhere[0].load(Ordering::Relaxed), TASKS);
    assert_eq!(
        parts.elsewhere[1].load(Ordering::Relaxed),
        0,
        "a key got elsewhere"
    );
    is_idle(&parts.limit.handle());
}

fn is_idle(limit: &RateLimitHandle) {
    let snapshot = limit.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
}

macro_rules! orders {
    ($($name:ident: $a:ident $b:ident $c:ident $d:ident;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            let parts = Parts::new();
            let service = ServiceBuilder::new()
                .map_err(BoxError::from)
                .layer(parts.$a.clone())
                .layer(parts.$b.clone())
                .layer(parts.$c.clone())
                .layer(parts.$d.clone())
                .service(parts.network());
            drive(service, &parts).await;
        }
    )*};
}

orders! {
    idempotency_retry_limit_auth: idempotency retry limit auth;
    idempotency_retry_auth_limit: idempotency retry auth limit;
    idempotency_limit_retry_auth: idempotency limit retry auth;
    idempotency_limit_auth_retry: idempotency limit auth retry;
    idempotency_auth_retry_limit: idempotency auth retry limit;
    idempotency_auth_limit_retry: idempotency auth limit retry;
    retry_idempotency_limit_auth: retry idempotency limit auth;
    retry_idempotency_auth_limit: retry idempotency auth limit;
    retry_limit_idempotency_auth: retry limit idempotency auth;
    retry_limit_auth_idempotency: retry limit auth idempotency;
    retry_auth_idempotency_limit: retry auth idempotency limit;
    retry_auth_limit_idempotency: retry auth limit idempotency;
    limit_idempotency_retry_auth: limit idempotency retry auth;
    limit_idempotency_auth_retry: limit idempotency auth retry;
    limit_retry_idempotency_auth: limit retry idempotency auth;
    limit_retry_auth_idempotency: limit retry auth idempotency;
    limit_auth_idempotency_retry: limit auth idempotency retry;
    limit_auth_retry_idempotency: limit auth retry idempotency;
    auth_idempotency_retry_limit: auth idempotency retry limit;
    auth_idempotency_limit_retry: auth idempotency limit retry;
    auth_retry_idempotency_limit: auth retry idempotency limit;
    auth_retry_limit_idempotency: auth retry limit idempotency;
    auth_limit_idempotency_retry: auth limit idempotency retry;
    auth_limit_retry_idempotency: auth limit retry idempotency;
}

#[tokio::test]
#[should_panic = "called without its own poll_ready"]
async fn the_probe_finds_a_service_that_is_called_unasked() {
    let mut probe = Probe::new(service_fn(async |()| Ok::<_, Infallible>(())));
    probe.ready().await.unwrap();
    let _ = probe.clone().call(()).await;
}

/// The inner retry layer made a new cell for each attempt of the outer one, and the key in it a new task.
#[tokio::test(start_paused = true)]
async fn two_retry_layers_agree_on_one_key() {
    let fake = FakePloton::new();
    fake.fail_next(Fault::CutAfter);
    fake.fail_next(Fault::RateLimited {
        retry_after: Some(Duration::from_secs(1)),
    });
    let service = ServiceBuilder::new()
        .layer(PlotonRetry::new())
        .layer(PlotonRetry::new().attempts(2))
        .layer(PlotonIdempotency::new())
        .layer(PlotonAuth::new(key()))
        .service(fake.clone());
    let response = service.oneshot(create(PLOTON, "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(fake.tasks().len(), 1);
}

/// A retry layer took a PUT for repeatable and told a key layer inside nothing: each attempt got a key of its own.
#[tokio::test(start_paused = true)]
async fn every_method_that_gets_a_key_keeps_it_inside_and_outside_a_retry_layer() {
    let idempotency = PlotonIdempotency::new().when(|_, _| true);
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for outside in [true, false] {
            let fake = FakePloton::new();
            for _ in 0..3 {
                fake.fail_next(Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
            }
            let network = PlotonAuth::new(key()).layer(fake.clone());
            let mut request = create(PLOTON, "one");
            *request.method_mut() = method.parse().unwrap();
            let sent = if outside {
                let retry = PlotonRetry::new().layer(network);
                idempotency.layer(retry).oneshot(request).await
            } else {
                let inside = idempotency.layer(network);
                PlotonRetry::new().layer(inside).oneshot(request).await
            };
            sent.unwrap();
            let attempts = fake.attempts();
            assert_eq!(attempts.len(), 4, "{method}");
            let first = &attempts[0].idempotency_key;
            assert!(first.is_some(), "{method}");
            let same = |attempt: &Attempt| attempt.idempotency_key == *first;
            assert!(attempts.iter().all(same), "{method}, outside: {outside}");
        }
    }
}
