//! What the layers ask of the services and bodies around them: no more than hyper-util's client does.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::{
    cell::Cell,
    convert::Infallible,
    future,
    marker::PhantomPinned,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_ploton::{
    Plan, PlotonAuth, PlotonBaseUrl, PlotonIdempotency, PlotonRateLimit, PlotonRetry, PlotonStack,
    api::PlotonErrors,
};

use support::key;

/// A body that is neither `Unpin` nor `Sync`.
#[derive(Clone, Default)]
struct Narrow(
    #[allow(dead_code, reason = "not Sync")] Cell<u8>,
    PhantomPinned,
);

impl Body for Narrow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

fn request() -> Request<Narrow> {
    let request = Request::post("https://api.ploton.ai/v1/tasks");
    request.body(Narrow::default()).unwrap()
}

#[tokio::test]
async fn bodies_need_not_be_unpin_or_sync_and_the_future_is_send() {
    let inner = service_fn(|request: Request<Narrow>| {
        future::ready(Ok::<_, Infallible>(Response::new(request.into_body())))
    });
    let stack = PlotonStack::new(key(), Plan::Production).layer(inner);
    tokio::spawn(stack.oneshot(request()))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn services_need_not_be_send() {
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new())
        .layer(PlotonRateLimit::new(Plan::Production))
        .layer(PlotonAuth::new(key()))
        .service(service_fn(move |request: Request<Narrow>| {
            counted.set(counted.get() + 1);
            future::ready(Ok::<_, Infallible>(Response::new(request.into_body())))
        }));
    service.oneshot(request()).await.unwrap();
    assert_eq!(calls.get(), 1);
}

#[tokio::test]
async fn the_layers_around_the_four_ask_for_no_more() {
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let service = ServiceBuilder::new()
        .layer(PlotonBaseUrl::new())
        .layer(PlotonErrors::new())
        .service(service_fn(move |request: Request<Narrow>| {
            counted.set(counted.get() + 1);
            future::ready(Ok::<_, Infallible>(Response::new(request.into_body())))
        }));
    let request = Request::post("/tasks").body(Narrow::default());
    service.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(calls.get(), 1);
}

/// A request body that can't be cloned: three layers take it as it is, and only Retry needs to know how to repeat it.
#[tokio::test]
async fn only_retry_asks_for_a_body_that_can_be_made_again() {
    struct Once;
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(PlotonRateLimit::new(Plan::Production))
        .layer(PlotonAuth::new(key()))
        .service(service_fn(|_: Request<Once>| {
            future::ready(Ok::<_, Infallible>(Response::new(())))
        }));
    let request = Request::post("https://api.ploton.ai/v1/tasks").body(Once);
    service.oneshot(request.unwrap()).await.unwrap();
}
