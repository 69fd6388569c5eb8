//! tower's own layers above and below the four: each request does its work once, whatever happens on the way.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod repeated;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, uri::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    buffer::{Buffer, BufferLayer},
    discover::ServiceList,
    limit::ConcurrencyLimitLayer,
    load::{CompleteOnResponse, PendingRequestsDiscover},
    load_shed::{LoadShedLayer, error::Overloaded},
    timeout::{TimeoutLayer, error::Elapsed},
};
use tower_ploton::{
    PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonRetry, PlotonStack, PlotonTaskLimit,
    mock::FakePloton,
};
use tower_ploton_sdks::{
    Fault, Server, assert_created_once, create, every_fault, json, key, plan, stack,
};

type Http = Client<HttpConnector, Full<Bytes>>;

fn http() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// A fake Ploton, and the server that it is behind.
async fn ploton() -> (FakePloton, Server) {
    let fake = FakePloton::new();
    let server = Server::start(fake.clone()).await;
    (fake, server)
}

fn auth(server: &Server) -> PlotonAuth {
    PlotonAuth::new(key()).origin(server.origin())
}

/// Sends one request through `service` and every fault.
async fn creates_once<S>(service: S, server: &Server, fake: &FakePloton)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>>,
    S::Error: Into<BoxError>,
{
    server.fail(every_fault());
    let response = service.oneshot(create(server.url(), "one")).await;
    let response = response.map_err(Into::into).unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(json(response).await["id"], fake.tasks()[0].id);
    assert_created_once(server, fake);
}

/// Sends `count` requests at once through clones of `service`: how each of them ended.
async fn all<S>(service: &S, server: &Server, count: usize) -> Vec<Result<StatusCode, BoxError>>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let calls: tokio::task::JoinSet<_> = (0..count)
        .map(|n| {
            let call = service
                .clone()
                .oneshot(create(server.url(), &format!("task {n}")));
            async move {
                let response = call.await.map_err(Into::into)?;
                Ok(response.status())
            }
        })
        .collect();
    calls.join_all().await
}

#[tokio::test]
async fn a_buffer_may_stand_anywhere() {
    let buffer = || BufferLayer::new(8);

    let (fake, server) = ploton().await;
    let above = ServiceBuilder::new().layer(buffer()).layer(stack(&server));
    creates_once(above.service(http()), &server, &fake).await;

    let (fake, server) = ploton().await;
    let below = ServiceBuilder::new().layer(stack(&server)).layer(buffer());
    creates_once(below.service(http()), &server, &fake).await;

    let (fake, server) = ploton().await;
    let between = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(buffer())
        .layer(PlotonRetry::new())
        .layer(buffer())
        .layer(PlotonRateLimit::new(plan()).origin(server.origin()))
        .layer(buffer())
        .layer(auth(&server));
    creates_once(between.service(http()), &server, &fake).await;
}

#[tokio::test]
async fn a_concurrency_limit_above_counts_requests_and_below_it_counts_attempts() {
    for above in [true, false] {
        let (fake, server) = ploton().await;
        let one = ConcurrencyLimitLayer::new(1);
        let layers = ServiceBuilder::new()
            .layer(PlotonIdempotency::new())
            .option_layer(above.then(|| one.clone()))
            .layer(PlotonRetry::new())
            .layer(auth(&server))
            .option_layer((!above).then(|| one.clone()));
        let service = layers.service(http());
        server.fail([Fault::RateLimited { retry_after: 3 }]);
        let refused = tokio::spawn(service.clone().oneshot(create(server.url(), "refused")));
        while server.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let next = service.oneshot(create(server.url(), "next")).await;
        assert_eq!(next.unwrap().status(), StatusCode::CREATED);
        let refused = refused.await.unwrap().unwrap();
        assert_eq!(refused.status(), StatusCode::CREATED);
        let order: Vec<_> = fake.tasks().into_iter().map(|task| task.prompt).collect();
        // Below, nothing is held by a request that waits for its next attempt.
        let expected = if above {
            ["refused", "next"]
        } else {
            ["next", "refused"]
        };
        assert_eq!(order, expected);
    }
}

#[tokio::test]
async fn load_shed_above_sheds_requests_and_lets_through_what_it_let_in() {
    let (fake, server) = ploton().await;
    let layers = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(2))
        .layer(stack(&server));
    server.fail(every_fault());
    let ends = all(&layers.service(http()), &server, 10).await;
    let (let_in, shed): (Vec<_>, Vec<_>) = ends.into_iter().partition(Result::is_ok);
    // The rate limit's very first request goes alone, so it may have been one.
    assert!((1..=2).contains(&let_in.len()), "{let_in:?}");
    let overloaded = |end: &Result<_, BoxError>| end.as_ref().unwrap_err().is::<Overloaded>();
    assert!(shed.iter().all(overloaded));
    let counts = fake.counts();
    let created = let_in.len() as u64;
    assert_eq!((counts.created, counts.duplicated), (created, 0));
}

/// What was shed below the retry layer never left, whatever its method and key, and is sent again.
#[tokio::test]
async fn load_shed_below_is_one_more_reason_to_try_again() {
    let (fake, server) = ploton().await;
    let layers = ServiceBuilder::new()
        .layer(PlotonRetry::new().attempts(100).quota(u32::MAX))
        .layer(auth(&server))
        .layer(LoadShedLayer::new())
        .layer(ConcurrencyLimitLayer::new(2));
    let service = layers.service(http());
    let ends = all(&service, &server, 8).await;
    for end in ends {
        assert_eq!(end.unwrap(), StatusCode::CREATED);
    }
    let counts = fake.counts();
    assert_eq!((counts.created, counts.duplicated), (8, 0));
    assert_eq!(counts.attempts, 8, "without a key each was sent once");
}

/// It never left, so its slot is free.
#[tokio::test]
async fn load_shed_below_keeps_no_task_slot() {
    for attempts in [1, 2] {
        let (_, server) = ploton().await;
        let tasks = PlotonTaskLimit::new(plan()).origin(server.origin());
        let slots = tasks.handle();
        let service = ServiceBuilder::new()
            .layer(tasks)
            .option_layer((attempts > 1).then(|| PlotonRetry::new().attempts(attempts)))
            .layer(LoadShedLayer::new())
            .layer(ConcurrencyLimitLayer::new(1))
            .service(http());
        server.fail([Fault::Hang]);
        let hung = tokio::spawn(service.clone().oneshot(create(server.url(), "hangs")));
        while server.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let shed = service.oneshot(create(server.url(), "shed")).await;
        shed.unwrap_err();
        assert_eq!(slots.snapshot().running, 1, "that of the first");
        hung.abort();
    }
}

#[tokio::test]
async fn a_timeout_above_ends_all_attempts_and_below_it_ends_one() {
    let short = TimeoutLayer::new(Duration::from_millis(300));

    let (fake, server) = ploton().await;
    let stack = stack(&server);
    let limit = stack.rate_limit_handle();
    server.fail([Fault::RateLimited { retry_after: 2 }]);
    let above = ServiceBuilder::new().layer(short.clone()).layer(stack);
    let call = above.service(http()).oneshot(create(server.url(), "one"));
    assert!(call.await.unwrap_err().is::<Elapsed>());
    let sent = server.seen().len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.seen().len(), sent);
    let snapshot = limit.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0));
    assert_eq!(fake.counts().created, 0);

    let (fake, server) = ploton().await;
    server.fail([Fault::Hang]);
    let below = ServiceBuilder::new()
        .layer(tower_ploton_sdks::stack(&server))
        .layer(TimeoutLayer::new(Duration::from_secs(4)));
    let call = below.service(http()).oneshot(create(server.url(), "one"));
    assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
    server.assert_one_request(2);
    assert_eq!(fake.counts().created, 1);
}

/// The same request for the server at `url`.
fn redirected<B>(mut request: Request<B>, url: &Uri) -> Request<B> {
    let mut parts = Parts::from(request.uri().clone());
    parts.scheme = url.scheme().cloned();
    parts.authority = url.authority().cloned();
    *request.uri_mut() = Uri::from_parts(parts).unwrap();
    request
}

/// A balancer over the servers, each behind what `endpoint` makes of its client.
fn balanced<S, E>(
    servers: &[Server; 2],
    endpoint: E,
) -> impl Service<Request<Full<Bytes>>, Response = Response<Incoming>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ use<S, E>
where
    E: Fn(Http, &Server) -> S,
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    let endpoints = servers.each_ref().map(|server| {
        let url: Uri = server.url().parse().unwrap();
        let to_server = move |request| redirected(request, &url);
        ServiceBuilder::new()
            .map_request(to_server)
            .service(endpoint(http(), server))
    });
    let discover =
        PendingRequestsDiscover::new(ServiceList::new(endpoints), CompleteOnResponse::default());
    Buffer::new(Balance::new(discover), 64)
}

#[tokio::test]
async fn a_balancer_below_spreads_attempts_and_above_it_spreads_requests() {
    fn patient(server: &Server) -> PlotonStack {
        stack(server).retry(PlotonRetry::new().attempts(10))
    }
    for below in [true, false] {
        let fake = FakePloton::new();
        let servers = [
            Server::start(fake.clone()).await,
            Server::start(fake.clone()).await,
        ];
        for server in &servers {
            server.fail(every_fault());
        }
        let ends = if below {
            let balanced = balanced(&servers, |http, _| http);
            let service = patient(&servers[0]).layer(balanced);
            all(&service, &servers[0], 12).await
        } else {
            let limit = PlotonRateLimit::new(plan());
            let stack = move |http: Http, server: &Server| {
                patient(server).rate_limit(limit.clone()).layer(http)
            };
            let service = PlotonIdempotency::new().layer(balanced(&servers, stack));
            all(&service, &servers[0], 12).await
        };
        for end in ends {
            assert_eq!(end.unwrap(), StatusCode::CREATED);
        }
        let counts = fake.counts();
        assert_eq!((counts.created, counts.duplicated), (12, 0));
        for server in &servers {
            assert!(!server.seen().is_empty(), "it has its share");
            assert_eq!(server.credentials().len(), 1);
        }
    }
}
