//! reqwest's client beneath the layers.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "reqwest/own_retries.rs"]
mod own_retries;
#[path = "reqwest/redirects.rs"]
mod redirects;
#[allow(unreachable_pub, reason = "as its user would write it")]
#[path = "../snippets/reqwest.rs"]
mod snippet;

use std::{sync::Arc, time::Duration};

use http::{StatusCode, Version};
use reqwest::{Body, Client, ClientBuilder, Request};
use tokio::net::TcpSocket;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_ploton::{
    Attempts, Deadline, Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonReplay,
    PlotonRetry, PlotonTaskLimit, TaskSlot,
    api::{ApiError, ErrorCode, NewTask, Ploton, PlotonErrors},
    mock::FakePloton,
    reqwest::{FromReqwest, IntoReqwest, ReqwestBody},
    retry::{AttemptsFailed, DeadlinePassed},
};
use tower_ploton_sdks::{
    Fault, Server, Tls, assert_created_once, assert_reused, create, every_fault, key, plan, stack,
};

/// A client that trusts `tls`, speaks what the server prefers, and knows no proxy, for whoever runs the tests behind one.
fn builder(tls: &Tls) -> ClientBuilder {
    let mut config = tls.client();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(config)
}

fn https(tls: &Tls) -> Client {
    builder(tls).build().unwrap()
}

/// For servers in the clear.
fn client() -> Client {
    https(&Tls::new())
}

/// A fake Ploton and the server it is behind.
async fn start() -> (FakePloton, Server) {
    let fake = FakePloton::new();
    let server = Server::start(fake.clone()).await;
    (fake, server)
}

/// A POST that creates a task, with `body`.
fn post(url: &str, body: impl Into<Body>) -> Request {
    client()
        .post(format!("{url}/v1/tasks"))
        .header("content-type", "application/json")
        .body(body)
        .build()
        .unwrap()
}

const TASK: &str = r#"{"prompt":"one"}"#;

#[tokio::test]
async fn the_stack_creates_once_over_tls() {
    let tls = Tls::new();
    for (protocol, version) in [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)] {
        let fake = FakePloton::new();
        let server = Server::start_tls(fake.clone(), &tls, &[protocol]).await;
        server.fail(every_fault());
        let client = https(&tls);
        let ploton = snippet::ploton(client.clone(), stack(&server));
        let response = snippet::create(&client, ploton, server.url())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(
            response.url().as_str(),
            format!("{}/v1/tasks", server.url())
        );
        let task: serde_json::Value = response.json().await.unwrap();
        assert_eq!(task["id"], fake.tasks()[0].id);
        assert_created_once(&server, &fake);
        assert!(server.seen().iter().all(|seen| seen.version == version));
        assert_reused(&server);
    }
}

#[tokio::test]
async fn the_four_layers_create_once() {
    let (fake, server) = start().await;
    server.fail(every_fault());
    let service = ServiceBuilder::new()
        .layer(FromReqwest::new())
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new())
        .layer(PlotonRateLimit::new(plan()).origin(server.origin()))
        .layer(PlotonAuth::new(key()).origin(server.origin()))
        .layer(IntoReqwest::new())
        .service(client());
    let response = service.oneshot(post(server.url(), TASK)).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_created_once(&server, &fake);
}

/// A body whose chunks come one after the other, each a little later.
fn stream(chunks: &[&'static str]) -> Body {
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let chunks = chunks.to_vec();
    tokio::spawn(async move {
        for chunk in chunks {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if send.send(Ok::<_, BoxError>(chunk)).await.is_err() {
                break;
            }
        }
    });
    Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receive))
}

#[tokio::test]
async fn a_streaming_body_is_sent_again() {
    let (fake, server) = start().await;
    server.fail(every_fault());
    let ploton = snippet::ploton(client(), stack(&server));
    let body = stream(&[r#"{"prompt""#, r#":"stre"#, r#"amed"}"#]);
    let response = ploton.oneshot(post(server.url(), body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(fake.tasks()[0].prompt, "streamed");
    assert_created_once(&server, &fake);
}

/// Longer than what is kept: sent once, and the refusal comes back with its story.
#[tokio::test]
async fn a_stream_over_the_cap_is_sent_once_and_bytes_of_any_length_again() {
    let (fake, server) = start().await;
    let layers = |max_kept| {
        ServiceBuilder::new()
            .layer(FromReqwest::new().max_kept(max_kept))
            .layer(stack(&server))
            .layer(IntoReqwest::new())
            .service(client())
    };
    let refused = [Fault::Status(500)];
    for (body, max_kept, status) in [
        (stream(&[TASK]), TASK.len() - 1, 500),
        (stream(&[TASK]), TASK.len(), 201),
        (Body::from(TASK), 0, 201),
    ] {
        server.fail(refused.clone());
        let service = layers(max_kept);
        let response = service.oneshot(post(server.url(), body)).await.unwrap();
        assert_eq!(response.status(), status);
        let story = response.extensions().get::<Attempts>();
        assert_eq!(story.map(Attempts::made), (status == 500).then_some(1));
    }
    assert_eq!((server.seen().len(), fake.tasks().len()), (5, 2));
}

/// The layers of a body that is `reqwest::Body` throughout: a copy for each attempt, or a replay.
#[tokio::test]
async fn http_requests_with_reqwests_body_go_without_the_outer_conversion() {
    let (fake, server) = start().await;
    let request = || {
        let (head, body) = create(server.url(), "one").into_parts();
        http::Request::from_parts(head, Body::wrap(body))
    };
    let copy = |body: &Body| body.as_bytes().map(|bytes| Body::from(bytes.to_vec()));
    let copying = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new().clone_body_with(copy))
        .layer(PlotonAuth::new(key()).origin(server.origin()))
        .layer(IntoReqwest::new())
        .service(client());
    let replaying = ServiceBuilder::new()
        .layer(PlotonReplay::new())
        .layer(stack(&server))
        .layer(PlotonReplay::map(Body::wrap))
        .layer(IntoReqwest::new())
        .service(client());
    server.fail([Fault::Status(503)]);
    let (head, _) = request().into_parts();
    let bytes = http::Request::from_parts(head, Body::from(TASK));
    assert_eq!(copying.oneshot(bytes).await.unwrap().status(), 201);
    server.fail([Fault::Status(503)]);
    assert_eq!(replaying.oneshot(request()).await.unwrap().status(), 201);
    assert_eq!((server.seen().len(), fake.tasks().len()), (4, 2));
}

#[tokio::test]
async fn the_typed_client_sends_by_reqwest() {
    let (fake, server) = start().await;
    server.fail(every_fault());
    let service = ServiceBuilder::new()
        .layer(stack(&server))
        .layer(IntoReqwest::new())
        .service(client());
    let base_url = format!("{}/v1", server.url());
    let ploton = Ploton::<_, ReqwestBody>::with_body(service);
    let ploton = ploton.base_url(base_url.parse().unwrap());
    let task = NewTask::new("one").unwrap();
    let task = ploton.create_task(&task).await.unwrap();
    assert_eq!(task.id.as_str(), fake.tasks()[0].id);
    assert_created_once(&server, &fake);
}

/// The layers beside the four: errors as types, and a slot for each task in the extensions of reqwest's response.
#[tokio::test]
async fn the_other_layers_stand_there_too() {
    let (_, server) = start().await;
    let limit = PlotonTaskLimit::new(plan());
    let ploton = ServiceBuilder::new()
        .layer(FromReqwest::new())
        .layer(PlotonErrors::new().origin(server.origin()))
        .layer(stack(&server).tasks(limit))
        .layer(IntoReqwest::new())
        .service(client());
    let create = |body: &'static str| ploton.clone().oneshot(post(server.url(), body));
    let created = create(TASK).await.unwrap();
    assert!(created.extensions().get::<TaskSlot>().is_some());
    let error = create("{").await.unwrap_err();
    let error = error.downcast_ref::<ApiError>().expect("an answer");
    assert_eq!(error.code(), Some(&ErrorCode::InvalidRequest));
}

#[tokio::test]
async fn no_key_reaches_another_origin() {
    let (_, server) = start().await;
    let (_, foreign) = start().await;
    let ploton = snippet::ploton(client(), stack(&server));
    for (url, status) in [(server.url(), 201), (foreign.url(), 401)] {
        let response = ploton.clone().oneshot(post(url, TASK)).await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(server.credentials().len(), 1);
    assert_eq!(foreign.credentials(), Vec::<String>::new());
}

/// Its timeout bounds each attempt, as the client's does; a deadline bounds them all.
#[tokio::test]
async fn a_requests_own_timeout_is_each_attempts_and_a_deadline_is_for_all() {
    let (fake, server) = start().await;
    // On a slow machine more attempts than those that hang take too long.
    let stack = stack(&server).retry(PlotonRetry::new().attempts(20));
    let ploton = snippet::ploton(client(), stack);
    server.fail([Fault::Hang, Fault::Hang]);
    let mut request = post(server.url(), TASK);
    *request.timeout_mut() = Some(Duration::from_millis(500));
    let response = ploton.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let attempts = server.seen().len();
    assert!(attempts >= 3, "{attempts}");
    server.assert_one_request(attempts);
    assert_eq!(fake.tasks().len(), 1);

    server.fail([Fault::Hang]);
    let mut request = http::Request::<Body>::try_from(post(server.url(), TASK)).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_millis(500);
    request.extensions_mut().insert(Deadline(deadline));
    let error = ploton.oneshot(request.try_into().unwrap()).await;
    assert!(error.unwrap_err().is::<DeadlinePassed>());
    assert_eq!(fake.tasks().len(), 1);
}

#[tokio::test]
async fn what_can_not_be_sent_is_not_tried_again() {
    let service = ServiceBuilder::new()
        .layer(FromReqwest::new())
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new())
        .layer(IntoReqwest::new())
        .service(client());
    let request = post("ftp://127.0.0.1", TASK);
    let error = service.oneshot(request).await.unwrap_err();
    let error = error.downcast::<reqwest::Error>().expect("tried once");
    assert!(error.is_builder(), "{error:?}");

    let untrusted = Server::start_tls(FakePloton::new(), &Tls::new(), &["h2"]).await;
    let service = snippet::ploton(https(&Tls::new()), stack(&untrusted));
    let error = service.oneshot(post(untrusted.url(), TASK)).await;
    let error = error.unwrap_err().downcast::<reqwest::Error>();
    assert!(error.expect("tried once").is_connect());
    assert_eq!((untrusted.seen().len(), untrusted.connections()), (0, 1));
}

#[tokio::test]
async fn what_was_not_sent_is_tried_again_even_without_a_key() {
    // It has its port, so that nobody else gets that, and does not listen.
    let server = TcpSocket::new_v4().unwrap();
    server.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let service = ServiceBuilder::new()
        .layer(FromReqwest::new())
        .layer(PlotonRetry::new().attempts(3))
        .layer(IntoReqwest::new())
        .service(client());
    let error = service.oneshot(post(&url, TASK)).await.unwrap_err();
    let failed = error.downcast_ref::<AttemptsFailed>().expect("tried again");
    assert_eq!(failed.attempts().made(), 3);
}

#[tokio::test]
async fn clones_share_the_rate_limit() {
    let (fake, server) = start().await;
    let stack = stack(&server).rate_limit(PlotonRateLimit::new(Plan::Production));
    let limit = stack.rate_limit_handle();
    let ploton = snippet::ploton(client(), stack);
    let url: Arc<str> = server.url().into();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (ploton, url) = (ploton.clone(), url.clone());
        calls.spawn(async move { ploton.oneshot(post(&url, TASK)).await.unwrap().status() });
    }
    let statuses = calls.join_all().await;
    assert_eq!(statuses, [StatusCode::CREATED; 8]);
    assert_eq!(fake.tasks().len(), 8);
    assert!(limit.snapshot().remaining <= 992);
}
