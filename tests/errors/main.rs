//! What each kind of failure is taken for, made on real sockets by a real hyper client.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod connections;
mod http2;

use std::{
    convert::Infallible,
    error::Error,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_ploton::{
    Origin, Plan, PlotonRateLimit, PlotonRetry, PlotonStack,
    retry::{AttemptEnd, Outcome},
};

use support::{create, key};

type Http = Client<HttpConnector, Full<Bytes>>;

fn client(http2: bool) -> Http {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

/// What the first attempt of `request` through `service` is taken for, and its status.
async fn taken_for<S, B>(service: S, request: Request<Full<Bytes>>) -> (Outcome, Option<u16>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>> + Clone,
    S::Error: Into<BoxError>,
    B: http_body::Body,
{
    let seen = Arc::new(Mutex::new(None));
    let note = seen.clone();
    let retry = PlotonRetry::new().classify_with(move |end: &AttemptEnd<'_>| {
        let status = end.status().map(|status| status.as_u16());
        *note.lock().unwrap() = Some((end.outcome(), status));
        Outcome::Final
    });
    let _ = retry.layer(service).oneshot(request).await;
    let taken = seen.lock().unwrap().take();
    taken.expect("an attempt was made")
}

/// Serves connections one after the other; says where.
async fn serve<F>(mut connection: impl FnMut(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            connection(socket).await;
        }
    });
    url
}

/// Reads until the request's body has come: JSON that ends in a string.
async fn read_request(socket: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.windows(2).any(|end| end == b"\"}") {
        let mut buffer = [0; 1_024];
        let n = socket.read(&mut buffer).await.unwrap();
        assert_ne!(n, 0, "the request did not come whole");
        read.extend_from_slice(&buffer[..n]);
    }
}

const AMBIGUOUS: (Outcome, Option<u16>) = (Outcome::Ambiguous, None);
const NOT_SENT: (Outcome, Option<u16>) = (Outcome::NotSent, None);
const FINAL: (Outcome, Option<u16>) = (Outcome::Final, None);

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    // It has its port, so that nobody else gets that, and does not listen.
    let server = TcpSocket::new_v4().unwrap();
    server.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    assert_eq!(
        taken_for(client(false), create(&url, "one")).await,
        NOT_SENT
    );
}

#[tokio::test]
async fn a_name_that_nobody_knows_was_not_sent() {
    let request = create("http://no-such-host.invalid", "one");
    assert_eq!(taken_for(client(false), request).await, NOT_SENT);
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_ambiguous() {
    let url = serve(async |mut socket| read_request(&mut socket).await).await;
    assert_eq!(
        taken_for(client(false), create(&url, "one")).await,
        AMBIGUOUS
    );
}

#[tokio::test]
async fn a_connection_that_is_reset_is_ambiguous() {
    let url = serve(async |mut socket| {
        read_request(&mut socket).await;
        socket.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(
        taken_for(client(false), create(&url, "one")).await,
        AMBIGUOUS
    );
}

#[tokio::test]
async fn half_an_answer_is_ambiguous_and_so_is_none_at_all() {
    for answer in ["HTTP/1.1 201 Cre", "SSH-2.0-OpenSSH_9.2\r\n\r\n"] {
        let url = serve(async move |mut socket| {
            read_request(&mut socket).await;
            socket.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        assert_eq!(
            taken_for(client(false), create(&url, "one")).await,
            AMBIGUOUS
        );
    }
}

/// The server reads, and never answers.
async fn hangs() -> String {
    serve(async |mut socket| {
        read_request(&mut socket).await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await
}

#[tokio::test]
async fn a_timeout_is_ambiguous_whoever_counts_it() {
    let short = Duration::from_millis(100);
    let url = hangs().await;
    let tower = tower::timeout::Timeout::new(client(false), short);
    assert_eq!(taken_for(tower, create(&url, "one")).await, AMBIGUOUS);

    // tower-http answers in the server's place, with a body that it can make.
    let status = StatusCode::REQUEST_TIMEOUT;
    let tower_http = ServiceBuilder::new()
        .layer(tower_http::timeout::TimeoutLayer::with_status_code(
            status, short,
        ))
        .map_response(|response: Response<_>| response.map(|_| Full::<Bytes>::default()))
        .service(client(false));
    let taken = taken_for(tower_http, create(&url, "one")).await;
    assert_eq!(taken, (Outcome::Ambiguous, Some(408)));

    let inner = client(false);
    let tokio = service_fn(move |request| {
        let answer = inner.clone().oneshot(request);
        async move {
            let answer = tokio::time::timeout(short, answer)
                .await
                .map_err(BoxError::from)?;
            answer.map_err(BoxError::from)
        }
    });
    assert_eq!(taken_for(tokio, create(&url, "one")).await, AMBIGUOUS);
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_final() {
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        // By name: with all features there are two to choose from.
        .with_provider_and_webpki_roots(tokio_rustls::rustls::crypto::ring::default_provider())
        .unwrap()
        .https_only()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(https);
    let url = serve(async |mut socket| {
        let _ = socket.read(&mut [0; 1_024]).await;
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let request = create(&url.replace("http:", "https:"), "one");
    assert_eq!(taken_for(client, request).await, FINAL);
}

#[tokio::test]
async fn what_the_client_refuses_to_send_is_final() {
    for uri in ["/v1/tasks", "*"] {
        let request = Request::get(uri).body(Full::default()).unwrap();
        assert_eq!(taken_for(client(false), request).await, FINAL, "{uri}");
    }
}

/// A body that ends in an error after its first chunk.
#[derive(Clone, Debug)]
struct Broken(u8);

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        self.0 += 1;
        std::task::Poll::Ready(Some(if self.0 == 1 {
            Ok(http_body::Frame::data(Bytes::from_static(b"{")))
        } else {
            Err(io::Error::other("the disk is gone"))
        }))
    }
}

#[tokio::test]
async fn a_request_whose_own_body_fails_is_final() {
    let url = serve(async |mut socket| drop(socket.read_to_end(&mut Vec::new()).await)).await;
    for http2 in [false, true] {
        let client: Client<HttpConnector, Broken> = Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .build_http();
        let service = PlotonRetry::new().layer(client);
        let request = Request::put(format!("{url}/v1")).body(Broken(0)).unwrap();
        let error = service.oneshot(request).await.unwrap_err();
        assert!(
            error.is::<hyper_util::client::legacy::Error>(),
            "tried once: {error:?}"
        );
    }
}

#[tokio::test]
async fn our_own_errors_are_final() {
    let never = service_fn(
        async |_: Request<Full<Bytes>>| -> Result<Response<Full<Bytes>>, Infallible> {
            panic!("nothing may be sent")
        },
    );
    // A stack inside a retry layer has already tried all there is to try.
    let stack = PlotonStack::new(key(), Plan::Production);
    let request = create("http://api.ploton.ai", "one");
    assert_eq!(
        taken_for(stack.layer(never), request).await,
        FINAL,
        "plain HTTP"
    );

    let url = hangs().await;
    let inner = ServiceBuilder::new()
        .layer(PlotonRetry::new().deadline(Duration::from_millis(100)))
        .service(client(false));
    assert_eq!(
        taken_for(inner, create(&url, "one")).await,
        FINAL,
        "deadline"
    );

    let inner = ServiceBuilder::new()
        .layer(PlotonRetry::new().attempts(2))
        .layer(
            PlotonRateLimit::new(Plan::Production)
                .origin(Origin::parse("http://127.0.0.1:1").unwrap()),
        )
        .service(service_fn(async |_: Request<Full<Bytes>>| {
            Err::<Response<Full<Bytes>>, _>(io::Error::from(io::ErrorKind::ConnectionReset))
        }));
    let get = Request::get("http://127.0.0.1:9/")
        .body(Full::default())
        .unwrap();
    assert_eq!(taken_for(inner, get).await, FINAL, "attempts failed");
}

#[tokio::test]
async fn what_nobody_knows_is_ambiguous_and_kept_with_its_type() {
    #[derive(Debug)]
    struct Strange;
    impl std::fmt::Display for Strange {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("strange")
        }
    }
    impl Error for Strange {}
    let service = service_fn(async |_: Request<Full<Bytes>>| {
        Err::<Response<Full<Bytes>>, _>(BoxError::from(Strange))
    });
    let request = create("http://127.0.0.1:9", "one");
    assert_eq!(taken_for(service, request).await, AMBIGUOUS);
    let request = create("http://127.0.0.1:9", "one");
    let error = PlotonRetry::new()
        .layer(service)
        .oneshot(request)
        .await
        .unwrap_err();
    assert!(error.is::<Strange>(), "a POST without a key is sent once");
}
