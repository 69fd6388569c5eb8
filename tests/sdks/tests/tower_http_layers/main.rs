//! tower-http's layers above and below the four: each request does its work once, and no key reaches another origin.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod redirects;

use std::{
    collections::HashSet,
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, USER_AGENT},
};
use http_body::Body;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::{
    compression::CompressionLayer,
    decompression::DecompressionLayer,
    set_header::SetRequestHeaderLayer,
    timeout::TimeoutLayer,
    trace::{DefaultMakeSpan, DefaultOnRequest, DefaultOnResponse, TraceLayer},
};
use tower_ploton::{
    api::{ApiError, ErrorCode, PlotonErrors},
    mock::FakePloton,
};
use tower_ploton_sdks::{
    Fault, KEY, Server, assert_created_once, create, every_fault, json, stack,
};

type Http<B = Full<Bytes>> = Client<HttpConnector, B>;

fn http<B>() -> Http<B>
where
    B: Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new()).build_http()
}

/// A fake Ploton, and the server that it is behind.
async fn ploton() -> (FakePloton, Server) {
    let fake = FakePloton::new();
    let server = Server::start(fake.clone()).await;
    (fake, server)
}

/// Sends one request through `service` and every fault.
async fn creates_once<S, R>(service: S, server: &Server, fake: &FakePloton)
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: std::fmt::Debug,
{
    server.fail(every_fault());
    let response = service.oneshot(create(server.url(), "one")).await;
    let response = response.map_err(Into::into).unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(json(response).await["id"], fake.tasks()[0].id);
    assert_created_once(server, fake);
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_trace_layer_tells_requests_above_and_attempts_below_and_no_key() {
    for (above, told) in [(true, 1), (false, 4)] {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let _default = tower_ploton_sdks::subscribe(subscriber);
        let trace = TraceLayer::new_for_http()
            .make_span_with(DefaultMakeSpan::new().include_headers(true))
            .on_request(DefaultOnRequest::new())
            .on_response(DefaultOnResponse::new().include_headers(true));
        let (fake, server) = ploton().await;
        if above {
            let layers = ServiceBuilder::new().layer(trace).layer(stack(&server));
            creates_once(layers.service(http()), &server, &fake).await;
        } else {
            let layers = ServiceBuilder::new().layer(stack(&server)).layer(trace);
            creates_once(layers.service(http()), &server, &fake).await;
        }
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let started = log.matches("started processing request").count();
        assert_eq!(started, told, "{log}");
        assert_eq!(
            log.contains("\"authorization\": Sensitive"),
            !above,
            "{log}"
        );
        assert!(!log.contains(KEY), "{log}");
    }
}

/// A Ploton that compresses its answers, where a client says that it can read them.
async fn compressing() -> (FakePloton, Server) {
    let fake = FakePloton::new();
    let server = Server::start(CompressionLayer::new().layer(fake.clone())).await;
    (fake, server)
}

#[tokio::test]
async fn answers_may_be_decompressed_above_and_below() {
    let (fake, server) = compressing().await;
    let layers = ServiceBuilder::new()
        .layer(DecompressionLayer::new())
        .layer(stack(&server));
    creates_once(layers.service(http()), &server, &fake).await;
    assert!(server.seen().iter().all(asked_for_gzip));

    let (fake, server) = compressing().await;
    let layers = ServiceBuilder::new()
        .layer(stack(&server))
        .layer(DecompressionLayer::new());
    creates_once(layers.service(http()), &server, &fake).await;
    assert!(server.seen().iter().all(asked_for_gzip));

    // The server of this one does not, and the layer above does it in its place.
    let (fake, server) = ploton().await;
    let layers = ServiceBuilder::new()
        .layer(DecompressionLayer::new())
        .map_response(|response: Response<_>| {
            assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
            response
        })
        .layer(CompressionLayer::new())
        .layer(stack(&server));
    creates_once(layers.service(http()), &server, &fake).await;
}

fn asked_for_gzip(seen: &tower_ploton_sdks::Seen) -> bool {
    let asked = seen.headers.get(ACCEPT_ENCODING);
    asked.is_some_and(|asked| asked == "gzip")
}

/// What reads answers belongs outside of what makes them readable.
#[tokio::test]
async fn errors_are_read_above_the_decompression() {
    let code = async |above: bool| {
        let (_, server) = compressing().await;
        let errors = PlotonErrors::new().origin(server.origin());
        let request = Request::get(format!("{}/v1/tasks/task_8xK2mP", server.url()));
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let error = if above {
            let layers = ServiceBuilder::new()
                .layer(errors)
                .layer(DecompressionLayer::new())
                .layer(stack(&server));
            layers.service(http()).oneshot(request).await.err()
        } else {
            let layers = ServiceBuilder::new()
                .layer(DecompressionLayer::new())
                .layer(errors)
                .layer(stack(&server));
            layers.service(http()).oneshot(request).await.err()
        };
        let error = error.expect("it has no such task").downcast::<ApiError>();
        let error = error.unwrap();
        assert_eq!(error.status(), StatusCode::NOT_FOUND);
        error.code().cloned()
    };
    assert_eq!(code(true).await, Some(ErrorCode::TaskNotFound));
    assert_eq!(code(false).await, None);
}

/// A new value each time.
fn numbered(
    name: HeaderName,
) -> SetRequestHeaderLayer<impl FnMut(&Request<Full<Bytes>>) -> Option<HeaderValue> + Clone> {
    let count = Arc::new(Mutex::new(0));
    SetRequestHeaderLayer::overriding(name, move |_: &Request<Full<Bytes>>| {
        let mut count = count.lock().unwrap();
        *count += 1;
        Some(HeaderValue::from(*count))
    })
}

#[tokio::test]
async fn a_header_that_is_set_above_is_one_for_all_attempts_and_below_each_has_its_own() {
    for (above, values) in [(true, 1), (false, 4)] {
        let (fake, server) = ploton().await;
        let name = HeaderName::from_static("x-request-number");
        if above {
            let layers = ServiceBuilder::new()
                .layer(numbered(name))
                .layer(stack(&server));
            creates_once(layers.service(http()), &server, &fake).await;
        } else {
            let layers = ServiceBuilder::new()
                .layer(stack(&server))
                .layer(numbered(name));
            creates_once(layers.service(http()), &server, &fake).await;
        }
        let seen = server.seen();
        let numbers: HashSet<_> = seen
            .iter()
            .map(|seen| &seen.headers["x-request-number"])
            .collect();
        assert_eq!(numbers.len(), values);
    }
}

/// An `Authorization` from above is the caller's own, and is kept: it takes the key's place at every origin.
#[tokio::test]
async fn an_authorization_that_is_set_above_takes_the_place_of_the_key() {
    let (_, server) = ploton().await;
    let own = HeaderValue::from_static("Bearer pk_test_0000000000000000");
    let layers = ServiceBuilder::new()
        .layer(SetRequestHeaderLayer::overriding(AUTHORIZATION, own))
        .layer(SetRequestHeaderLayer::if_not_present(
            USER_AGENT,
            HeaderValue::from_static("mine/1"),
        ))
        .layer(stack(&server));
    let call = layers.service(http()).oneshot(create(server.url(), "one"));
    assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(server.credentials(), ["Bearer pk_test_0000000000000000"]);
    assert_eq!(server.seen()[0].headers[USER_AGENT], "mine/1");
}

#[tokio::test]
async fn a_timeout_that_answers_above_ends_all_attempts_and_below_it_ends_one() {
    /// tower-http's timeout makes an answer of its own, so the body must have a default.
    fn boxed(response: Response<Incoming>) -> Response<UnsyncBoxBody<Bytes, hyper::Error>> {
        response.map(BodyExt::boxed_unsync)
    }
    for status in [StatusCode::REQUEST_TIMEOUT, StatusCode::GATEWAY_TIMEOUT] {
        let (fake, server) = ploton().await;
        server.fail([Fault::RateLimited { retry_after: 2 }]);
        let short = TimeoutLayer::with_status_code(status, Duration::from_millis(300));
        let above = ServiceBuilder::new()
            .layer(short)
            .layer(stack(&server))
            .map_response(boxed);
        let call = above.service(http()).oneshot(create(server.url(), "one"));
        assert_eq!(call.await.unwrap().status(), status);
        let sent = server.seen().len();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(server.seen().len(), sent);
        assert_eq!(fake.counts().created, 0);

        let (fake, server) = ploton().await;
        server.fail([Fault::Hang]);
        let below = ServiceBuilder::new()
            .layer(stack(&server))
            .layer(TimeoutLayer::with_status_code(
                status,
                Duration::from_secs(4),
            ))
            .map_response(boxed);
        let call = below.service(http()).oneshot(create(server.url(), "one"));
        assert_eq!(call.await.unwrap().status(), StatusCode::CREATED);
        server.assert_one_request(2);
        assert_eq!(fake.counts().created, 1);
    }
}
