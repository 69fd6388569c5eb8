//! The layers as a middleware of reqwest-middleware.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[allow(unreachable_pub, reason = "as its user would write it")]
#[path = "../snippets/reqwest_middleware.rs"]
mod snippet;

use std::{
    error::Error as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Extensions, StatusCode, Version};
use reqwest::{Body, Client, Request, Response};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Error, Middleware, Next};
use tower::layer::util::Stack;
use tower_ploton::{
    Attempts, Deadline, IdempotencyKey, PlotonAuth, PlotonIdempotency, PlotonRateLimit,
    PlotonRetry,
    mock::FakePloton,
    reqwest::PlotonMiddleware,
    retry::{AttemptsFailed, DeadlinePassed},
};
use tower_ploton_sdks::{Fault, Server, Tls, assert_created_once, every_fault, key, plan, stack};

/// A client that trusts `tls`, speaks what the server prefers, and knows no proxy, for whoever runs the tests behind one.
fn https(tls: &Tls) -> Client {
    let mut config = tls.client();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(config)
        .build()
        .unwrap()
}

/// For servers in the clear.
fn client() -> Client {
    https(&Tls::new())
}

async fn start() -> (FakePloton, Server) {
    let fake = FakePloton::new();
    let server = Server::start(fake.clone()).await;
    (fake, server)
}

#[tokio::test]
async fn the_stack_creates_once_over_tls() {
    let tls = Tls::new();
    for (protocol, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
        let fake = FakePloton::new();
        let server = Server::start_tls(fake.clone(), &tls, &[protocol]).await;
        server.fail(every_fault());
        let ploton = snippet::ploton(https(&tls), stack(&server));
        let response = snippet::create(&ploton, server.url()).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(
            response.url().as_str(),
            format!("{}/v1/tasks", server.url())
        );
        let task: serde_json::Value = response.json().await.unwrap();
        assert_eq!(task["id"], fake.tasks()[0].id);
        assert_created_once(&server, &fake);
        assert!(server.seen().iter().all(|seen| seen.version == version));
    }
}

/// Several layers in one, by tower's own `Stack`, whose first stands inside.
#[tokio::test]
async fn the_four_layers_create_once() {
    let (fake, server) = start().await;
    server.fail(every_fault());
    let layers = Stack::new(
        Stack::new(
            PlotonAuth::new(key()).origin(server.origin()),
            PlotonRateLimit::new(plan()).origin(server.origin()),
        ),
        Stack::new(PlotonRetry::new(), PlotonIdempotency::new()),
    );
    let ploton = ClientBuilder::new(client())
        .with(PlotonMiddleware::new(layers))
        .build();
    let response = snippet::create(&ploton, server.url()).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_created_once(&server, &fake);
}

/// Notes for each request that passes how many of its kind it has passed before, as its extensions say.
#[derive(Clone, Default)]
struct Note(Arc<Mutex<Vec<u32>>>);

#[derive(Clone)]
struct Passed(u32);

#[async_trait::async_trait]
impl Middleware for Note {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let before = extensions.get().map_or(0, |&Passed(before)| before);
        self.0.lock().unwrap().push(before);
        extensions.insert(Passed(before + 1));
        next.run(request, extensions).await
    }
}

impl Note {
    fn passed(&self) -> Vec<u32> {
        self.0.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn those_before_see_a_request_once_and_those_after_each_attempt() {
    let (fake, server) = start().await;
    server.fail(every_fault());
    let (before, after) = (Note::default(), Note::default());
    let ploton = ClientBuilder::new(client())
        .with(before.clone())
        .with(PlotonMiddleware::new(stack(&server)))
        .with(after.clone())
        .build();
    snippet::create(&ploton, server.url()).await.unwrap();
    assert_created_once(&server, &fake);
    assert_eq!(before.passed(), [0]);
    // Each attempt has the extensions as they were, without what another attempt left there.
    assert_eq!(after.passed(), [1, 1, 1, 1]);
}

fn post(ploton: &ClientWithMiddleware, server: &Server) -> reqwest_middleware::RequestBuilder {
    let url = format!("{}/v1/tasks", server.url());
    let body = r#"{"prompt":"one"}"#;
    ploton
        .post(url)
        .header("content-type", "application/json")
        .body(body)
}

#[tokio::test]
async fn extensions_reach_the_layers() {
    let (_, server) = start().await;
    let ploton = snippet::ploton(client(), stack(&server));
    let key = IdempotencyKey::derive("invoice-42");
    let request = post(&ploton, &server).with_extension(key.clone());
    assert_eq!(request.send().await.unwrap().status(), 201);
    assert_eq!(
        server.seen()[0].idempotency_key.as_deref(),
        Some(key.as_str())
    );

    server.fail([Fault::Hang]);
    let deadline = tokio::time::Instant::now() + Duration::from_millis(200);
    let request = post(&ploton, &server).with_extension(Deadline(deadline));
    let error = request.send().await.unwrap_err();
    let Error::Middleware(error) = error else {
        panic!("{error:?}")
    };
    assert!(error.chain().any(|cause| cause.is::<DeadlinePassed>()));
}

/// What came of it is told as reqwest-middleware tells it.
#[tokio::test]
async fn an_error_is_its_own_after_one_attempt_and_the_layers_after_more() {
    let (_, server) = start().await;
    let ploton = |attempts| {
        let stack = stack(&server).retry(PlotonRetry::new().attempts(attempts));
        snippet::ploton(client(), stack)
    };
    server.fail([Fault::CutBefore]);
    let error = post(&ploton(1), &server).send().await.unwrap_err();
    assert!(error.is_request(), "{error:?}");

    server.fail([Fault::CutBefore, Fault::CutBefore]);
    let error = post(&ploton(2), &server).send().await.unwrap_err();
    let Error::Middleware(error) = error else {
        panic!("{error:?}")
    };
    let failed = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<AttemptsFailed>());
    let failed = failed.expect("tried again");
    assert_eq!(failed.attempts().made(), 2);
    assert!(failed.source().unwrap().is::<reqwest::Error>());

    server.fail([Fault::Status(503), Fault::Status(503)]);
    let response = post(&ploton(2), &server).send().await.unwrap();
    let story = response.extensions().get::<Attempts>().unwrap();
    assert_eq!((response.status().as_u16(), story.made()), (503, 2));
}

/// Sends nothing.
struct Refuse;

#[async_trait::async_trait]
impl Middleware for Refuse {
    async fn handle(
        &self,
        _: Request,
        _: &mut Extensions,
        _: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        Err(Error::Middleware(anyhow::anyhow!("not today")))
    }
}

#[tokio::test]
async fn the_error_of_a_middleware_inside_is_handed_on() {
    let (_, server) = start().await;
    let stack = stack(&server).retry(PlotonRetry::new().attempts(1));
    let ploton = ClientBuilder::new(client())
        .with(PlotonMiddleware::new(stack))
        .with(Refuse)
        .build();
    let error = post(&ploton, &server).send().await.unwrap_err();
    assert_eq!(error.to_string(), "not today");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_streaming_body_is_sent_again_up_to_the_cap() {
    let (fake, server) = start().await;
    let task = r#"{"prompt":"streamed"}"#;
    for (max_kept, status) in [(task.len(), 201), (task.len() - 1, 500)] {
        server.fail([Fault::Status(500)]);
        let middleware = PlotonMiddleware::new(stack(&server)).max_kept(max_kept);
        let ploton = ClientBuilder::new(client()).with(middleware).build();
        let chunks = [Ok::<_, std::io::Error>(task)];
        let body = Body::wrap_stream(tokio_stream::iter(chunks));
        let response = post(&ploton, &server).body(body).send().await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!((server.seen().len(), fake.tasks().len()), (3, 1));
}

#[tokio::test]
async fn no_key_reaches_another_origin() {
    let (_, server) = start().await;
    let (_, foreign) = start().await;
    let ploton = snippet::ploton(client(), stack(&server));
    for (server, status) in [(&server, 201), (&foreign, 401)] {
        let response = post(&ploton, server).send().await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(server.credentials().len(), 1);
    assert_eq!(foreign.credentials(), Vec::<String>::new());
}

/// The state is in the layer, so that each request's own service shares it.
#[tokio::test]
async fn requests_at_once_share_the_rate_limit_and_a_dropped_one_leaves_nothing() {
    let (fake, server) = start().await;
    let stack = stack(&server);
    let limit = stack.rate_limit_handle();
    let ploton = snippet::ploton(client(), stack);
    server.fail([Fault::Hang]);
    let arrives = async {
        while server.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = post(&ploton, &server).send() => panic!("it hangs"),
        () = arrives => {}
    }
    assert_eq!(limit.snapshot().in_flight, 0);
    let before = limit.snapshot().remaining;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let request = post(&ploton, &server);
        calls.spawn(async move { request.send().await.unwrap().status() });
    }
    assert_eq!(calls.join_all().await, [StatusCode::CREATED; 8]);
    assert_eq!(fake.tasks().len(), 8);
    assert!(limit.snapshot().remaining < before);
}
