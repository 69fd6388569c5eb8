//! octocrab: its client over the layers, and a fake Ploton.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[allow(unreachable_pub, reason = "as its user would write it")]
#[path = "../snippets/octocrab.rs"]
mod snippet;

use http::Version;
use http_body_util::BodyExt;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use octocrab::{
    AuthState, OctoBody, Octocrab, OctocrabBuilder, service::middleware::base_uri::BaseUriLayer,
};
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_ploton::{
    PlotonAuth, PlotonIdempotency, PlotonReplay, PlotonRetry, mock::FakePloton,
    retry::AttemptsFailed,
};
use tower_ploton_sdks::{Fault, Server, Tls, assert_created_once, every_fault, key};

async fn create(octocrab: &Octocrab) -> octocrab::Result<Value> {
    let task = json!({ "prompt": "one" });
    octocrab.post("/v1/tasks", Some(&task)).await
}

/// A connector that trusts `tls`, speaks what the server prefers, and goes to servers in the clear too.
fn https(tls: &Tls) -> HttpsConnector<HttpConnector> {
    hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls.client())
        .https_or_http()
        .enable_all_versions()
        .build()
}

fn client(server: &Server, of: &Server) -> Octocrab {
    client_that_trusts(&Tls::new(), server, of)
}

fn client_that_trusts(tls: &Tls, server: &Server, of: &Server) -> Octocrab {
    let base = server.url().parse().unwrap();
    snippet::client(https(tls), base, &of.origin(), key())
}

#[tokio::test]
async fn a_task_is_created_once_through_every_fault() {
    let fake = FakePloton::new();
    let server = Server::start(fake.clone()).await;
    server.fail(every_fault());
    let created = create(&client(&server, &server)).await.unwrap();
    assert_eq!(created["id"], fake.tasks()[0].id);
    assert_eq!(fake.tasks()[0].prompt, "one", "the body was whole");
    assert_created_once(&server, &fake);
}

#[tokio::test]
async fn a_task_is_created_once_through_every_fault_over_tls() {
    tokio::join!(
        creates_once("h2", Version::HTTP_2),
        creates_once("http/1.1", Version::HTTP_11),
    );
}

async fn creates_once(protocol: &str, version: Version) {
    let (tls, fake) = (Tls::new(), FakePloton::new());
    let server = Server::start_tls(fake.clone(), &tls, &[protocol]).await;
    server.fail(every_fault());
    let octocrab = client_that_trusts(&tls, &server, &server);
    create(&octocrab).await.unwrap();
    assert_eq!(fake.tasks()[0].prompt, "one", "the body was whole");
    assert_created_once(&server, &fake);
    assert!(server.seen().iter().all(|seen| seen.version == version));
}

/// Nothing is sent, and nothing is tried again.
#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing() {
    let server = Server::start_tls(FakePloton::new(), &Tls::new(), &["h2"]).await;
    let error = create(&client(&server, &server)).await.unwrap_err();
    assert!(
        matches!(error, octocrab::Error::Service { .. }),
        "{error:?}"
    );
    assert_eq!((server.seen().len(), server.connections()), (0, 1));
}

#[tokio::test]
async fn what_is_read_is_read_again() {
    let server = Server::start(FakePloton::new()).await;
    let octocrab = client(&server, &server);
    create(&octocrab).await.unwrap();
    server.fail(every_fault());
    let tasks: Value = octocrab.get("/v1/tasks", None::<&()>).await.unwrap();
    assert_eq!(tasks["data"].as_array().unwrap().len(), 1);
    let seen = &server.seen()[1..];
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|seen| seen.idempotency_key.is_none()));
}

#[tokio::test]
async fn attempts_are_ours_alone_and_end_in_the_servers_answer_or_our_error() {
    let fake = FakePloton::new();
    let server = Server::start(fake.clone()).await;
    let octocrab = client(&server, &server);
    server.fail(vec![Fault::Status(503); 4]);
    let error = create(&octocrab).await.unwrap_err();
    let octocrab::Error::GitHub { source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.status_code, 503);
    assert_eq!(server.seen().len(), 4);

    server.fail(vec![Fault::CutBefore; 4]);
    let error = create(&octocrab).await.unwrap_err();
    let octocrab::Error::Service { source, .. } = error else {
        panic!("{error:?}");
    };
    assert!(source.is::<AttemptsFailed>(), "{source:?}");
    assert_eq!(server.seen().len(), 8);
    assert_eq!(fake.counts().created, 0);
}

#[tokio::test]
async fn another_server_gets_no_key() {
    let (server, other) = (
        Server::start(FakePloton::new()).await,
        Server::start(FakePloton::new()).await,
    );
    let octocrab = client(&server, &server);
    // As in a `next` link: octocrab keeps a URL that is whole.
    let url = format!("{}/v1/tasks", other.url());
    let answer = octocrab._get(url).await.unwrap();
    assert_eq!(answer.status(), 401, "it asks for a key");
    assert_eq!(other.seen().len(), 1);
    assert!(other.credentials().is_empty());
    assert!(server.seen().is_empty());
}

/// What the second attempt's body is where the layer clones it as `Clone` does.
#[tokio::test(start_paused = true)]
async fn a_clone_of_its_body_is_empty_once_the_body_was_sent() {
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new())
        .service(service_fn(async |request: http::Request<OctoBody>| {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let status = if body.is_empty() { 200 } else { 503 };
            http::Response::builder().status(status).body(String::new())
        }));
    let request = http::Request::post("/v1/tasks").body(OctoBody::from("whole"));
    let answer = service.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
}

/// A body that is not in memory, as that of an upload.
#[tokio::test]
async fn a_streaming_body_is_kept_by_a_replay_layer() {
    let fake = FakePloton::new();
    let server = Server::start(fake.clone()).await;
    let service = ServiceBuilder::new()
        .layer(BaseUriLayer::new(server.url().parse().unwrap()))
        .layer(PlotonReplay::new())
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new())
        .layer(PlotonAuth::new(key()).origin(server.origin()))
        .service(Client::builder(TokioExecutor::new()).build_http());
    let Ok(octocrab) = OctocrabBuilder::new_empty()
        .with_service(service)
        .with_auth(AuthState::None)
        .build();
    server.fail(every_fault());
    let body = OctoBody::new(http_body_util::Full::<bytes::Bytes>::from(
        r#"{"prompt":"one"}"#,
    ));
    assert!(body.try_clone().is_none());
    let request = http::Request::post("/v1/tasks")
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    let answer = octocrab.execute(request).await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_created_once(&server, &fake);
}
