//! tonic: a channel beneath the layers, and a server of five methods.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[allow(unreachable_pub, reason = "as its user would write it")]
#[path = "../snippets/tonic.rs"]
mod snippet;
#[path = "tonic/streams.rs"]
mod streams;
#[path = "tonic/tls.rs"]
mod tls;

use std::{convert::Infallible, error::Error, time::Duration};

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use tokio_stream::{Stream, StreamExt};
use tonic::{
    Code, Request, Response, Status, Streaming,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server,
    transport::Endpoint,
};
use tower::{BoxError, Service, ServiceBuilder, service_fn};
use tower_ploton::{
    PlotonReplay, PlotonRetry,
    retry::{AttemptEnd, AttemptsFailed, Outcome},
};
use tower_ploton_sdks::{Fault, Once, Server, bearer, every_fault, key, stack};

/// Messages that are text.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let text = from.copy_to_bytes(from.remaining());
        let text = String::from_utf8(text.into()).map_err(|_| Status::internal("no text"))?;
        Ok(Some(text))
    }
}

/// Creates what it is asked to, or fails as it is told.
async fn create(request: Request<String>) -> Result<Response<String>, Status> {
    match request.into_inner().as_str() {
        "fail" => Err(Status::unavailable("try again")),
        prompt => Ok(Response::new(format!("created {prompt}"))),
    }
}

/// Creates one of many parts.
async fn upload(request: Request<Streaming<String>>) -> Result<Response<String>, Status> {
    let parts: Vec<_> = request.into_inner().collect::<Result<_, _>>().await?;
    Ok(Response::new(format!("created {}", parts.join(" "))))
}

/// Says one thing, and then fails.
async fn watch(
    _: Request<String>,
) -> Result<Response<impl Stream<Item = Result<String, Status>>>, Status> {
    let said = [Ok("first".to_owned()), Err(Status::unavailable("later"))];
    Ok(Response::new(tokio_stream::iter(said)))
}

/// Says one thing, and another after as many milliseconds as it is told; never without a number.
async fn tail(
    request: Request<String>,
) -> Result<Response<impl Stream<Item = Result<String, Status>>>, Status> {
    let pause = request.into_inner().parse();
    let pause = pause.map_or(Duration::MAX, Duration::from_millis);
    let said = tokio_stream::iter([(Duration::ZERO, "first"), (pause, "second")]);
    Ok(Response::new(said.then(|(pause, text)| async move {
        tokio::time::sleep(pause).await;
        Ok(text.to_owned())
    })))
}

/// Says what it hears, as it hears it.
async fn talk(
    request: Request<Streaming<String>>,
) -> Result<Response<impl Stream<Item = Result<String, Status>>>, Status> {
    Ok(Response::new(request.into_inner()))
}

/// The methods, as a generated server would have them.
async fn serve(request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    let mut grpc = server::Grpc::new(Text);
    Ok(match request.uri().path() {
        CREATE => grpc.unary(service_fn(create), request).await,
        UPLOAD => grpc.client_streaming(service_fn(upload), request).await,
        WATCH => grpc.server_streaming(service_fn(watch), request).await,
        TAIL => grpc.server_streaming(service_fn(tail), request).await,
        TALK => grpc.streaming(service_fn(talk), request).await,
        other => panic!("{other}"),
    })
}

const CREATE: &str = "/tasks.Tasks/Create";
const UPLOAD: &str = "/tasks.Tasks/Upload";
const WATCH: &str = "/tasks.Tasks/Watch";
const TAIL: &str = "/tasks.Tasks/Tail";
const TALK: &str = "/tasks.Tasks/Talk";

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::from_shared(server.url().to_owned()).unwrap()
}

async fn unary<S>(grpc: &mut Grpc<S>, prompt: &str) -> Result<String, Status>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Error: Into<BoxError> + std::fmt::Debug,
{
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(CREATE);
    let answer = grpc
        .unary(Request::new(prompt.to_owned()), path, Text)
        .await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn a_call_is_done_once_through_every_fault() {
    let once = Once::new(service_fn(serve));
    let server = Server::start(once.clone()).await;
    let mut grpc = snippet::client(endpoint(&server), server.origin(), key());
    server.fail(every_fault());
    assert_eq!(unary(&mut grpc, "one").await.unwrap(), "created one");
    server.assert_one_request(4);
    assert_eq!(server.credentials(), bearer().as_slice());
    assert_eq!(once.done(), 1);
}

#[tokio::test]
async fn a_call_that_streams_to_the_server_is_done_once_through_every_fault() {
    let once = Once::new(service_fn(serve));
    let server = Server::start(once.clone()).await;
    let mut grpc = snippet::client(endpoint(&server), server.origin(), key());
    server.fail(every_fault());
    let parts = tokio_stream::iter(["one", "two", "three"].map(str::to_owned));
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(UPLOAD);
    let answer = grpc.client_streaming(Request::new(parts), path, Text).await;
    assert_eq!(answer.unwrap().into_inner(), "created one two three");
    server.assert_one_request(4);
    assert_eq!(once.done(), 1);
}

#[tokio::test]
async fn attempts_that_all_fail_end_in_a_status() {
    let server = Server::start(service_fn(serve)).await;
    let mut grpc = snippet::client(endpoint(&server), server.origin(), key());
    server.fail(vec![Fault::Status(503); 4]);
    let status = unary(&mut grpc, "one").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "as gRPC takes a 503");
    assert_eq!(server.seen().len(), 4);

    server.fail(vec![Fault::CutBefore; 4]);
    let status = unary(&mut grpc, "one").await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    let failed = status.source().unwrap().downcast_ref::<AttemptsFailed>();
    assert_eq!(failed.unwrap().attempts().made(), 4);
    assert_eq!(server.seen().len(), 8);
}

/// A gRPC status is no HTTP status: the layers see a 200.
#[tokio::test]
async fn a_grpc_status_is_not_seen_and_one_in_the_head_can_be() {
    let server = Server::start(service_fn(serve)).await;
    let mut grpc = snippet::client(endpoint(&server), server.origin(), key());
    let status = unary(&mut grpc, "fail").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(server.seen().len(), 1);

    // A status that comes without a message is in the head, where a hook sees it.
    let retry = PlotonRetry::new().classify_with(|end: &AttemptEnd<'_>| {
        let status = end.headers().and_then(|headers| headers.get("grpc-status"));
        match status.and_then(|status| status.to_str().ok()) {
            Some("14") => Outcome::Ambiguous,
            _ => end.outcome(),
        }
    });
    let service = ServiceBuilder::new()
        .layer(PlotonReplay::new())
        .layer(stack(&server).retry(retry))
        .layer(PlotonReplay::map(Body::new))
        .service(endpoint(&server).connect_lazy());
    let mut grpc = Grpc::with_origin(service, server.url().parse().unwrap());
    let status = unary(&mut grpc, "fail").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(server.seen().len(), 1 + 4);

    // One after a message is in the trailers, which no layer waits for.
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(WATCH);
    let answer = grpc
        .server_streaming(Request::new(String::new()), path, Text)
        .await;
    let mut said = answer.unwrap().into_inner();
    assert_eq!(said.message().await.unwrap().unwrap(), "first");
    assert_eq!(said.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.seen().len(), 1 + 4 + 1);
}

#[tokio::test]
async fn a_server_elsewhere_and_a_call_without_an_origin_get_no_key() {
    let (server, other) = (
        Server::start(service_fn(serve)).await,
        Server::start(service_fn(serve)).await,
    );
    let mut grpc = snippet::client(endpoint(&other), server.origin(), key());
    unary(&mut grpc, "one").await.unwrap();
    assert_eq!(other.seen().len(), 1);
    assert!(other.credentials().is_empty());

    let service = ServiceBuilder::new()
        .layer(PlotonReplay::new())
        .layer(stack(&server))
        .layer(PlotonReplay::map(Body::new))
        .service(endpoint(&server).connect_lazy());
    unary(&mut Grpc::new(service), "one").await.unwrap();
    assert_eq!(server.seen().len(), 1);
    assert!(server.credentials().is_empty());
}

#[tokio::test]
async fn a_call_that_could_not_be_sent_needs_no_idempotency_key_to_be_sent_again() {
    let gone = Server::start(service_fn(serve)).await;
    let endpoint = endpoint(&gone);
    drop(gone);
    let service = ServiceBuilder::new()
        .layer(PlotonReplay::new())
        .layer(PlotonRetry::new())
        .layer(PlotonReplay::map(Body::new))
        .service(endpoint.connect_lazy());
    let status = unary(&mut Grpc::new(service), "one").await.unwrap_err();
    let failed = status.source().unwrap().downcast_ref::<AttemptsFailed>();
    assert_eq!(failed.unwrap().attempts().made(), 4);
}
