//! hyper-util's client, over TLS by hyper-rustls and in the clear, by HTTP/1.1 and by HTTP/2.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[allow(unreachable_pub, reason = "as its user would write it")]
#[path = "../snippets/hyper_util.rs"]
mod snippet;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_ploton::{
    PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonReplay, PlotonRetry, mock::FakePloton,
};
use tower_ploton_sdks::{
    Server, Tls, assert_created_once, assert_reused, create, every_fault, json, key, plan, stack,
};

/// A connector that trusts `tls`, and speaks what the server prefers.
fn https(tls: &Tls) -> HttpsConnector<HttpConnector> {
    hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls.client())
        .https_only()
        .enable_all_versions()
        .build()
}

const PROTOCOLS: [(&str, Version); 2] = [("h2", Version::HTTP_2), ("http/1.1", Version::HTTP_11)];

async fn creates_once<S>(service: S, server: &Server, fake: &FakePloton)
where
    S: Service<Request<Full<Bytes>>, Response = Response<hyper::body::Incoming>>,
    S::Error: Into<BoxError>,
{
    server.fail(every_fault());
    let response = service.oneshot(create(server.url(), "one")).await;
    let response = response.map_err(Into::into).unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(json(response).await["id"], fake.tasks()[0].id);
    assert_created_once(server, fake);
    assert_reused(server);
}

#[tokio::test]
async fn the_stack_creates_once_over_tls() {
    let tls = Tls::new();
    for (protocol, version) in PROTOCOLS {
        let fake = FakePloton::new();
        let server = Server::start_tls(fake.clone(), &tls, &[protocol]).await;
        let service = snippet::ploton(https(&tls), &stack(&server));
        creates_once(service, &server, &fake).await;
        assert!(server.seen().iter().all(|seen| seen.version == version));
    }
}

#[tokio::test]
async fn the_four_layers_create_once_in_the_clear() {
    for http2 in [false, true] {
        let fake = FakePloton::new();
        let server = Server::start(fake.clone()).await;
        let service = ServiceBuilder::new()
            .layer(PlotonIdempotency::new())
            .layer(PlotonRetry::new())
            .layer(PlotonRateLimit::new(plan()).origin(server.origin()))
            .layer(PlotonAuth::new(key()).origin(server.origin()))
            .service(
                Client::builder(TokioExecutor::new())
                    .http2_only(http2)
                    .build_http(),
            );
        creates_once(service, &server, &fake).await;
    }
}

/// One request to another origin by the same service: it goes there without a key, and is not limited.
#[tokio::test]
async fn no_key_reaches_another_origin() {
    let tls = Tls::new();
    for (protocol, _) in PROTOCOLS {
        let server = Server::start_tls(FakePloton::new(), &tls, &[protocol]).await;
        let foreign = Server::start_tls(FakePloton::new(), &tls, &[protocol]).await;
        let stack = stack(&server);
        let service = snippet::ploton(https(&tls), &stack);
        for (url, status) in [(server.url(), 201), (foreign.url(), 401)] {
            let response = service.clone().oneshot(create(url, "one")).await.unwrap();
            assert_eq!(response.status(), status);
        }
        assert_eq!(server.credentials().len(), 1);
        assert_eq!(foreign.credentials(), Vec::<String>::new());
        assert_eq!(foreign.seen().len(), 1);
    }
}

/// A body that is a stream, and so neither `Clone` nor of a known length.
#[tokio::test]
async fn a_streaming_body_is_sent_again() {
    let tls = Tls::new();
    for (protocol, _) in PROTOCOLS {
        let fake = FakePloton::new();
        let server = Server::start_tls(fake.clone(), &tls, &[protocol]).await;
        server.fail(every_fault());
        let service = ServiceBuilder::new()
            .layer(PlotonReplay::new())
            .layer(stack(&server))
            .service(Client::builder(TokioExecutor::new()).build(https(&tls)));
        let (head, _) = create(server.url(), "").into_parts();
        let (begin, end) = (r#"{"prompt":"#, r#""streamed"}"#);
        let chunks = [begin, end].map(|chunk| Ok::<_, BoxError>(Frame::data(Bytes::from(chunk))));
        let body = StreamBody::new(tokio_stream::iter(chunks)).boxed_unsync();
        let response = service
            .oneshot(Request::from_parts(head, body))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(fake.tasks()[0].prompt, "streamed");
        assert_created_once(&server, &fake);
    }
}

/// A certificate that nobody trusts: nothing is sent, and nothing is tried again.
#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing() {
    let server = Server::start_tls(FakePloton::new(), &Tls::new(), &["h2"]).await;
    let service = snippet::ploton(https(&Tls::new()), &stack(&server));
    let error = service.oneshot(create(server.url(), "one")).await;
    assert!(error.unwrap_err().is::<hyper_util::client::legacy::Error>());
    assert_eq!((server.seen().len(), server.connections()), (0, 1));
}
