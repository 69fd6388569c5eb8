//! Calls that stream from the server, and both ways at once.

use std::{fmt::Debug, time::Duration};

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, body::Body, client::Grpc, transport::Endpoint};
use tower::{BoxError, Service, ServiceBuilder, service_fn};
use tower_ploton::{PlotonReplay, PlotonStack, retry::AttemptsFailed};
use tower_ploton_sdks::{
    FREE, Fault, LATER, Once, SOON, Server, TIMEOUT, bearer, every_fault, key, timed,
};

use super::{TAIL, TALK, Text, endpoint, serve, snippet, unary};

/// What tonic's client takes; it has an alias that nobody can name.
pub(crate) trait Http:
    Service<http::Request<Body>, Response = http::Response<Body>, Error: Into<BoxError> + Debug>
{
}

impl<S> Http for S where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error: Into<BoxError> + Debug>
{
}

/// Says "first", and "second" after `pause`.
pub(crate) async fn tail(
    grpc: &mut Grpc<impl Http>,
    pause: Duration,
) -> Result<Streaming<String>, Status> {
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static(TAIL);
    let pause =
        u64::try_from(pause.as_millis()).map_or_else(|_| String::new(), |ms| ms.to_string());
    let answer = grpc
        .server_streaming(Request::new(pause), path, Text)
        .await?;
    Ok(answer.into_inner())
}

/// A call both ways: what is said to it, and what it says.
struct Talk {
    says: mpsc::Sender<String>,
    hears: Streaming<String>,
}

impl Talk {
    /// Begins with `first`, and hears it.
    async fn begin(grpc: &mut Grpc<impl Http>, first: &str) -> Result<Self, Status> {
        grpc.ready().await.unwrap();
        let (says, said) = mpsc::channel(1);
        says.send(first.to_owned()).await.unwrap();
        let path = PathAndQuery::from_static(TALK);
        let said = Request::new(ReceiverStream::new(said));
        let hears = grpc.streaming(said, path, Text).await?.into_inner();
        let mut talk = Self { says, hears };
        assert_eq!(talk.hears.message().await?.unwrap(), first);
        Ok(talk)
    }

    async fn says(&mut self, text: &str) {
        self.says.send(text.to_owned()).await.unwrap();
        assert_eq!(self.hears.message().await.unwrap().unwrap(), text);
    }

    async fn ends(mut self) {
        drop(self.says);
        assert!(self.hears.message().await.unwrap().is_none());
    }
}

/// A channel through `stack`.
fn through(stack: &PlotonStack, endpoint: &Endpoint) -> Grpc<impl Http + use<>> {
    let service = ServiceBuilder::new()
        .layer(PlotonReplay::new())
        .layer(stack)
        .layer(PlotonReplay::map(Body::new))
        .service(endpoint.connect_lazy());
    Grpc::with_origin(service, endpoint.uri().clone())
}

#[tokio::test]
async fn a_stream_from_the_server_begins_once_through_every_fault() {
    let once = Once::new(service_fn(serve));
    let server = Server::start(once.clone()).await;
    let mut grpc = snippet::client(endpoint(&server), server.origin(), key());
    server.fail(every_fault());
    let mut said = tail(&mut grpc, SOON).await.unwrap();
    assert_eq!(said.message().await.unwrap().unwrap(), "first");
    assert_eq!(said.message().await.unwrap().unwrap(), "second");
    assert!(said.message().await.unwrap().is_none());
    server.assert_one_request(4);
    assert_eq!(server.credentials(), bearer().as_slice());
    assert_eq!(once.done(), 1);
}

/// Where the server says so before it has read all, which would take as long as the call.
#[tokio::test]
async fn a_call_both_ways_begins_through_faults_and_loses_nothing_that_was_said() {
    let server = Server::start(service_fn(serve)).await;
    let mut grpc = snippet::client(endpoint(&server), server.origin(), key());
    server.fail([Fault::Unread(503), Fault::CutBefore, Fault::Unread(500)]);
    let mut talk = Talk::begin(&mut grpc, "one").await.unwrap();
    server.assert_one_request(4);
    talk.says("two").await;
    talk.says("three").await;
    talk.ends().await;
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_call_both_ways_that_never_begins_ends_in_our_error() {
    let server = Server::start(service_fn(serve)).await;
    let mut grpc = snippet::client(endpoint(&server), server.origin(), key());
    server.fail(vec![Fault::CutBefore; 4]);
    let status = Talk::begin(&mut grpc, "one").await.map(drop).unwrap_err();
    let failed = std::error::Error::source(&status).unwrap();
    let failed = failed.downcast_ref::<AttemptsFailed>().unwrap();
    assert_eq!(failed.attempts().made(), 4);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_the_callers() {
    let server = Server::start(service_fn(serve)).await;
    let mut grpc = snippet::client(endpoint(&server), server.origin(), key());
    let mut said = tail(&mut grpc, Duration::MAX).await.unwrap();
    assert_eq!(said.message().await.unwrap().unwrap(), "first");
    server.cut_connections();
    said.message().await.unwrap_err();
    assert_eq!(server.seen().len(), 1, "nothing is repeated");

    let mut talk = Talk::begin(&mut grpc, "one").await.unwrap();
    server.cut_connections();
    talk.hears.message().await.unwrap_err();
    assert_eq!(server.seen().len(), 2);

    assert_eq!(unary(&mut grpc, "one").await.unwrap(), "created one");
    assert_eq!(server.seen().len(), 3);
}

/// The time of the stack, and that of tonic's own timeout.
#[tokio::test]
async fn streams_go_on_after_the_time_for_their_head_and_are_no_longer_in_flight() {
    let server = Server::start(service_fn(serve)).await;
    let stack = timed(&server);
    let mut grpc = through(&stack, &endpoint(&server).timeout(TIMEOUT));
    let mut said = tail(&mut grpc, LATER).await.unwrap();
    let mut talk = Talk::begin(&mut grpc, "one").await.unwrap();
    assert_eq!(said.message().await.unwrap().unwrap(), "first");
    assert_eq!(stack.rate_limit_handle().snapshot().in_flight, 0);
    assert_eq!(said.message().await.unwrap().unwrap(), "second");
    assert!(said.message().await.unwrap().is_none());
    talk.says("two").await;
    talk.ends().await;
}

/// The first request of all goes ahead alone, until its answer's head is there.
#[tokio::test]
async fn an_open_call_holds_back_nobody() {
    let server = Server::start(service_fn(serve)).await;
    let mut grpc = snippet::client(endpoint(&server), server.origin(), key());
    let mut ahead = Talk::begin(&mut grpc, "one").await.unwrap();
    let next = tokio::time::timeout(FREE, unary(&mut grpc, "two"));
    assert_eq!(next.await.unwrap().unwrap(), "created two");
    ahead.says("three").await;
    ahead.ends().await;
}

/// `PlotonReplay` keeps 64 KiB of what is sent.
#[tokio::test]
async fn a_call_says_more_than_is_kept() {
    let server = Server::start(service_fn(serve)).await;
    let mut grpc = snippet::client(endpoint(&server), server.origin(), key());
    server.fail([Fault::Unread(503)]);
    let text = "x".repeat(10_000);
    let mut talk = Talk::begin(&mut grpc, &text).await.unwrap();
    for _ in 0..20 {
        talk.says(&text).await;
    }
    talk.ends().await;
    server.assert_one_request(2);
}
