//! Bodies that can't be cloned, sent again on real sockets, HTTP/1.1 and HTTP/2.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "../support/mod.rs"]
mod support;

mod streams;

use std::{
    collections::VecDeque,
    convert::Infallible,
    error::Error,
    fmt, io, iter,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn as hyper_service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    net::TcpListener,
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    time::timeout,
};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_ploton::{
    Attempts, Origin, Plan, PlotonReplay, PlotonRetry, PlotonStack,
    mock::{FakePloton, FakeServer, Fault},
    retry::{ReplayBody, ReplayError, ReplayService, RetryService},
};

use support::{json, key};

type Feed = UnboundedSender<io::Result<Frame<Bytes>>>;

/// A body that yields what it is fed, and ends when the feed is dropped.
struct Fed(UnboundedReceiver<io::Result<Frame<Bytes>>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx)
    }
}

fn fed() -> (Feed, Fed) {
    let (feed, frames) = unbounded_channel();
    (feed, Fed(frames))
}

fn feed_data(feed: &Feed, bytes: &[u8]) {
    let frame = Frame::data(Bytes::copy_from_slice(bytes));
    feed.send(Ok(frame)).expect("the body is there");
}

/// A task's JSON in small chunks.
fn task() -> Fed {
    let (feed, body) = fed();
    for chunk in [r#"{"prom"#, r#"pt":"#, r#""one"}"#] {
        feed_data(&feed, chunk.as_bytes());
    }
    body
}

fn client<B>(http2: bool) -> Client<HttpConnector, B>
where
    B: Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

/// A fake Ploton that fails the first attempt once it has all of it, and the layers for it.
async fn failing_once() -> (FakePloton, FakeServer, PlotonStack) {
    let fake = FakePloton::new();
    fake.fail_next(Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    let server = fake.listen().await.unwrap();
    let stack = PlotonStack::new(key(), Plan::Production)
        .origin(Origin::parse(&server.url()).unwrap())
        .retry(PlotonRetry::new().base_delay(Duration::from_millis(1)));
    (fake, server, stack)
}

/// Creates a task through a service, which takes two attempts.
async fn creates_by_the_second_attempt<S, B, R>(
    (fake, server): (&FakePloton, &FakeServer),
    service: S,
    body: B,
) where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: fmt::Debug,
    R: Body,
    R::Error: fmt::Debug,
{
    let request = Request::post(format!("{}/v1/tasks", server.url()))
        .header("content-type", "application/json")
        .body(body);
    let response = service.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(json(response).await["id"], fake.tasks()[0].id);
    assert_eq!(fake.tasks()[0].prompt, "one");
    let counts = fake.counts();
    assert_eq!((counts.attempts, counts.created), (2, 1));
}

async fn is_sent_again_by_the_stack<B>(body: impl Fn() -> B)
where
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    for http2 in [false, true] {
        let (fake, server, stack) = failing_once().await;
        let service = PlotonReplay::new().layer(stack.layer(client::<ReplayBody<B>>(http2)));
        creates_by_the_second_attempt((&fake, &server), service, body()).await;
    }
}

#[tokio::test]
async fn axums_body_is_sent_again() {
    is_sent_again_by_the_stack(|| axum_core::body::Body::new(task())).await;
}

#[tokio::test]
async fn reqwests_body_is_sent_again() {
    is_sent_again_by_the_stack(|| reqwest::Body::wrap(task())).await;
    is_sent_again_by_the_stack(|| reqwest::Body::from(r#"{"prompt":"one"}"#)).await;
}

#[tokio::test]
async fn boxed_bodies_are_sent_again() {
    is_sent_again_by_the_stack(|| task().boxed()).await;
    is_sent_again_by_the_stack(|| task().boxed_unsync()).await;
}

#[tokio::test]
async fn a_client_of_axums_body_alone_gets_it() {
    let (fake, server, stack) = failing_once().await;
    let service = ServiceBuilder::new()
        .layer(PlotonReplay::new())
        .layer(stack)
        .layer(PlotonReplay::map(axum_core::body::Body::new))
        .service(client::<axum_core::body::Body>(false));
    let body = axum_core::body::Body::new(task());
    creates_by_the_second_attempt((&fake, &server), service, body).await;
}

#[tokio::test]
async fn reqwests_client_gets_its_own_body() {
    let (fake, server, stack) = failing_once().await;
    let reqwest = reqwest::Client::new();
    let reqwest = service_fn(move |request: Request<reqwest::Body>| {
        let reqwest = reqwest.clone();
        async move {
            let response = reqwest.execute(request.try_into()?).await?;
            Ok::<_, reqwest::Error>(Response::<reqwest::Body>::from(response))
        }
    });
    let service = ServiceBuilder::new()
        .layer(PlotonReplay::new())
        .layer(stack)
        .layer(PlotonReplay::map(reqwest::Body::wrap))
        .service(reqwest);
    creates_by_the_second_attempt((&fake, &server), service, task().boxed_unsync()).await;
}
