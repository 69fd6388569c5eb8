//! kube: its client over the layers, and a cluster of one resource.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "kube/exec.rs"]
mod exec;
#[allow(unreachable_pub, reason = "as its user would write it")]
#[path = "../snippets/kube.rs"]
mod snippet;
#[path = "kube/tls.rs"]
mod tls;
#[path = "kube/watch.rs"]
mod watch;

use std::{collections::BTreeMap, convert::Infallible};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, PostParams},
    client::{Body, ClientBuilder, middleware::BaseUriLayer},
};
use tower::{buffer::BufferLayer, service_fn};
use tower_ploton::{PlotonAuth, PlotonRetry, retry::AttemptsFailed};
use tower_ploton_sdks::{Fault, Once, Server, Tls, bearer, every_fault, key};

/// The resource named `bulk`.
fn bulk() -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some("bulk".to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("prompt".to_owned(), "one".to_owned())])),
        ..ConfigMap::default()
    }
}

/// A cluster: what is created is as it was sent, and what is read is `bulk`.
async fn cluster(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = if request.method() == Method::GET {
        serde_json::to_vec(&bulk()).unwrap().into()
    } else {
        request.into_body().collect().await.unwrap().to_bytes()
    };
    Ok(Response::new(body.into()))
}

/// Of a cluster in the clear.
fn config(server: &Server) -> Config {
    config_that_trusts(&Tls::new(), server)
}

fn config_that_trusts(tls: &Tls, server: &Server) -> Config {
    let mut config = Config::new(server.url().parse().unwrap());
    config.root_cert = Some(vec![tls.certificate().to_vec()]);
    config
}

fn client(server: &Server, of: &Server) -> Client {
    snippet::client(&config(server), &of.origin(), key()).unwrap()
}

fn config_maps(client: Client) -> Api<ConfigMap> {
    Api::default_namespaced(client)
}

#[tokio::test]
async fn a_resource_is_created_once_through_every_fault() {
    let once = Once::new(service_fn(cluster));
    let server = Server::start(once.clone()).await;
    let client = client(&server, &server);

    server.fail(every_fault());
    let params = PostParams::default();
    let created = config_maps(client).create(&params, &bulk()).await.unwrap();
    assert_eq!(created, bulk());
    server.assert_one_request(4);
    assert_eq!(server.seen()[3].authorization, bearer());
    assert_eq!(once.done(), 1);
}

#[tokio::test]
async fn what_is_read_has_no_idempotency_key_and_is_read_again() {
    let server = Server::start(service_fn(cluster)).await;
    let client = client(&server, &server);
    server.fail(every_fault());
    let read = config_maps(client).get("bulk").await.unwrap();
    assert_eq!(read, bulk());
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|seen| seen.idempotency_key.is_none()));
    assert_eq!(seen[0].path, "/api/v1/namespaces/default/configmaps/bulk");
}

#[tokio::test]
async fn attempts_are_ours_alone_and_end_in_the_servers_answer() {
    let server = Server::start(service_fn(cluster)).await;
    let client = client(&server, &server);
    server.fail(vec![Fault::Status(503); 20]);
    let error = config_maps(client).get("bulk").await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.code == 503));
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn an_error_of_all_attempts_comes_through() {
    let server = Server::start(service_fn(cluster)).await;
    let client = client(&server, &server);
    server.fail(vec![Fault::CutBefore; 20]);
    let error = config_maps(client).get("bulk").await.unwrap_err();
    let kube::Error::Service(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        error
            .downcast::<AttemptsFailed>()
            .unwrap()
            .attempts()
            .made(),
        4
    );
}

#[tokio::test]
async fn another_cluster_gets_no_key() {
    let (server, other) = (
        Server::start(service_fn(cluster)).await,
        Server::start(service_fn(cluster)).await,
    );
    let client = client(&other, &server);
    config_maps(client).get("bulk").await.unwrap();
    assert_eq!(other.seen().len(), 1);
    assert!(other.credentials().is_empty());
    assert!(server.seen().is_empty());
}

/// Over kube's own service, which has its TLS, its credentials and its retries, and is not `Clone`.
fn over_kubes_own(config: Config, server: &Server) -> Client {
    let base = BaseUriLayer::new(server.url().parse().unwrap());
    ClientBuilder::try_from(config)
        .unwrap()
        .with_layer(&BufferLayer::new(1_024))
        .with_layer(&PlotonAuth::new(key()).origin(server.origin()))
        .with_layer(&PlotonRetry::new().clone_body_with(Body::try_clone))
        .with_layer(&base)
        .build()
}

#[tokio::test]
async fn kubes_own_retry_beneath_ours_makes_several_attempts_of_one() {
    for (own_retry, attempts, succeeds) in [(false, 4, false), (true, 7, true)] {
        let server = Server::start(service_fn(cluster)).await;
        let mut config = config(&server);
        config.default_retry = own_retry;
        let client = over_kubes_own(config, &server);
        server.fail(vec![Fault::Status(503); 6]);
        let read = config_maps(client).get("bulk").await;
        assert_eq!(read.is_ok(), succeeds);
        assert_eq!(server.seen().len(), attempts);
        assert_eq!(server.seen()[0].authorization, bearer());
    }
}

/// As a real cluster does: it knows no idempotency keys.
#[tokio::test]
async fn without_an_idempotency_layer_what_may_have_been_created_is_not_created_again() {
    let once = Once::new(service_fn(cluster));
    let server = Server::start(once.clone()).await;
    let mut config = config(&server);
    config.default_retry = false;
    let config_maps = config_maps(over_kubes_own(config, &server));
    let params = PostParams::default();

    server.fail([Fault::RateLimited { retry_after: 1 }, Fault::CutAfter]);
    config_maps.create(&params, &bulk()).await.unwrap_err();
    assert_eq!((server.seen().len(), once.done()), (2, 1));
}
