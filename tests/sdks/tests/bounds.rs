//! What the layers ask of the services and bodies around them, by the compiler's word: what they take, what they refuse,
//! and the way there for what they refuse.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    convert::Infallible,
    future::Ready,
    io,
    marker::{PhantomData, PhantomPinned},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt as _,
    buffer::{Buffer, BufferLayer},
    util::{BoxCloneService, BoxCloneSyncService, BoxService},
};
use tower_ploton::{
    Plan, PlotonAuth, PlotonIdempotency, PlotonReplay, PlotonRetry, PlotonStack,
    api::{ErrorsFuture, ErrorsService, PlotonService},
    auth::{self, AuthService},
    base_url::{self, BaseUrlService},
    idempotency::{self, IdempotencyService},
    limit::{self, RateLimitService},
    mock::{FakeBody, FakePloton, Fault},
    retry::{
        self, CloningRetryService, MapReplayService, ReplayBody, ReplayService, RetryBody,
        RetryService,
    },
    stack::{self, StackService},
    tasks::{self, TaskLimitService},
};

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}
fn is_unpin<T: Unpin>() {}
fn is_clone<T: Clone>() {}

/// A body that is nothing but a body.
struct Bare(
    #[allow(dead_code, reason = "neither Send nor Sync")] Rc<()>,
    #[allow(dead_code, reason = "not Unpin")] PhantomPinned,
);

impl http_body::Body for Bare {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

/// The same, with a copy.
struct Copied(
    #[allow(dead_code, reason = "neither Send nor Sync")] Rc<()>,
    #[allow(dead_code, reason = "not Unpin")] PhantomPinned,
);

impl Clone for Copied {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomPinned)
    }
}

/// No body at all.
struct Thing;

/// An error that no `BoxError` can hold.
struct Local(#[allow(dead_code, reason = "neither Send nor Sync")] Rc<()>);

/// Answers with `R`, or fails with `E`.
struct Server<R, E>(PhantomData<fn() -> (R, E)>);

impl<R, E> Clone for Server<R, E> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<B, R, E> Service<Request<B>> for Server<R, E> {
    type Response = Response<R>;
    type Error = E;
    type Future = Ready<Result<Response<R>, E>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        unreachable!("only its type counts")
    }
}

/// The same, and there is only one of it.
struct Single<R, E>(Server<R, E>);

impl<B, R, E> Service<Request<B>> for Single<R, E> {
    type Response = Response<R>;
    type Error = E;
    type Future = Ready<Result<Response<R>, E>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        Service::<Request<B>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.call(request)
    }
}

/// Says whether a type has a trait: the inherent constant, where its bound holds, comes before the trait's.
macro_rules! has {
    ($type:ty: $($bound:tt)+) => {{
        #[allow(dead_code, reason = "not used where the bound holds")]
        trait Lacks {
            const HAS: bool = false;
        }
        impl<T: ?Sized> Lacks for T {}
        struct Asked<T: ?Sized>(PhantomData<T>);
        #[allow(dead_code, reason = "not used where the bound does not hold")]
        impl<T: ?Sized + $($bound)+> Asked<T> {
            const HAS: bool = true;
        }
        <Asked<$type>>::HAS
    }};
}

/// What `$layer`'s service takes, as a row of a table: a request with a bare body, with one that can be cloned, and with
/// something that is no body; then, with a body that all take, an answer without a body, an error that is local, and a
/// service that can't be cloned.
macro_rules! row {
    ($service:ident) => {
        row!($service, Empty<Bytes>)
    };
    ($service:ident, $easy:ty) => {
        [
            has!($service<Server<Full<Bytes>, Infallible>>: Service<Request<Bare>>),
            has!($service<Server<Full<Bytes>, Infallible>>: Service<Request<Copied>>),
            has!($service<Server<Full<Bytes>, Infallible>>: Service<Request<Thing>>),
            has!($service<Server<Thing, Infallible>>: Service<Request<$easy>>),
            has!($service<Server<Full<Bytes>, Local>>: Service<Request<$easy>>),
            has!($service<Single<Full<Bytes>, Infallible>>: Service<Request<$easy>>),
        ]
    };
}

type ByHand<S> = CloningRetryService<S, Thing>;
type Map<S> = MapReplayService<S, fn(ReplayBody<Bare>) -> Full<Bytes>>;

#[test]
fn each_layer_asks_for_what_its_page_says_and_no_more() {
    const YES: bool = true;
    const NO: bool = false;
    // Request: bare body, cloned body, no body. Then: answer without a body, local error, service that is not Clone.
    assert_eq!(row!(IdempotencyService), [YES, YES, YES, YES, YES, YES]);
    assert_eq!(row!(AuthService), [YES, YES, YES, YES, NO, NO]);
    assert_eq!(row!(RateLimitService), [YES, YES, YES, YES, NO, NO]);
    assert_eq!(row!(TaskLimitService), [YES, YES, YES, YES, NO, NO]);
    assert_eq!(row!(RetryService), [NO, YES, NO, NO, NO, NO]);
    assert_eq!(row!(StackService), [NO, YES, NO, NO, NO, NO]);
    assert_eq!(row!(ByHand, Thing), [NO, NO, YES, NO, NO, NO]);
    assert_eq!(row!(BaseUrlService), [YES, NO, NO, YES, NO, YES]);
    assert_eq!(row!(ErrorsService), [YES, YES, YES, NO, NO, YES]);
    assert_eq!(row!(ReplayService), [YES, NO, NO, YES, YES, YES]);
    let map = row!(Map, ReplayBody<Bare>);
    assert_eq!(map, [NO, NO, NO, YES, YES, YES]);
}

/// The typed client can be spawned, whatever it does, and so must be what it is made of.
#[test]
fn the_typed_client_takes_what_can_be_cloned_and_sent() {
    type Boxed = BoxCloneService<Request<Full<Bytes>>, Response<FakeBody>, BoxError>;
    type Alone = BoxService<Request<Full<Bytes>>, Response<FakeBody>, BoxError>;
    assert!(has!(StackService<FakePloton>: PlotonService));
    assert!(has!(StackService<Boxed>: PlotonService));
    assert!(has!(Boxed: PlotonService));
    assert!(
        has!(Buffer<Request<Full<Bytes>>, <Alone as Service<Request<Full<Bytes>>>>::Future>: PlotonService)
    );
    assert!(!has!(Alone: PlotonService));
    assert!(
        !has!(Server<Bare, Infallible>: PlotonService),
        "an answer that is not Send"
    );
    assert!(!has!(Server<Full<Bytes>, Local>: PlotonService));
}

/// Services are `Clone`, `Send`, `Sync` and `Unpin` where those inside them are: for every `S`.
#[allow(dead_code, reason = "compiled for every type that fits")]
fn services_are_what_those_inside_are<S: Clone + Send + Sync + Unpin>() {
    macro_rules! all {
        ($($service:ty),*) => {$(
            is_clone::<$service>();
            is_send::<$service>();
            is_sync::<$service>();
            is_unpin::<$service>();
        )*};
    }
    all!(
        IdempotencyService<S>,
        AuthService<S>,
        RateLimitService<S>,
        TaskLimitService<S>,
        RetryService<S>,
        CloningRetryService<S, Bare>,
        StackService<S>,
        BaseUrlService<S>,
        ErrorsService<S>,
        ReplayService<S>,
        MapReplayService<S, fn(ReplayBody<Bare>) -> Bare>
    );
}

/// Futures are `Send` where the service inside, its future, and both bodies are.
#[allow(dead_code, reason = "compiled for every type that fits")]
fn futures_are_send_where_those_inside_are<S, B, R>()
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send,
    B: RetryBody + Send,
    R: http_body::Body + Send,
{
    is_send::<idempotency::ResponseFuture<S::Future>>();
    is_send::<auth::ResponseFuture<S, B>>();
    is_send::<limit::ResponseFuture<S, B>>();
    is_send::<tasks::ResponseFuture<S, B>>();
    is_send::<retry::ResponseFuture<S, B, R>>();
    is_send::<stack::ResponseFuture<S, B, R>>();
    is_send::<base_url::ResponseFuture<S::Future>>();
    is_send::<ErrorsFuture<S::Future, R>>();
}

/// Futures are `Unpin` where those inside are; a body that one reads must be, too.
#[allow(dead_code, reason = "compiled for every type that fits")]
fn futures_are_unpin_where_those_inside_are<S, B, R>()
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>, Future: Unpin> + Clone,
    B: RetryBody,
    R: http_body::Body + Unpin,
{
    is_unpin::<idempotency::ResponseFuture<S::Future>>();
    is_unpin::<auth::ResponseFuture<S, B>>();
    is_unpin::<limit::ResponseFuture<S, B>>();
    is_unpin::<tasks::ResponseFuture<S, B>>();
    is_unpin::<retry::ResponseFuture<S, B, R>>();
    is_unpin::<stack::ResponseFuture<S, B, R>>();
    is_unpin::<base_url::ResponseFuture<S::Future>>();
    is_unpin::<ErrorsFuture<S::Future, R>>();
}

/// Futures are `Sync` where those inside are.
#[allow(dead_code, reason = "compiled for every type that fits")]
fn futures_are_sync_where_those_inside_are<S, B, R>()
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>, Future: Sync>
        + Clone
        + Sync,
    B: RetryBody + Sync,
    R: http_body::Body + Sync,
{
    is_sync::<idempotency::ResponseFuture<S::Future>>();
    is_sync::<auth::ResponseFuture<S, B>>();
    is_sync::<limit::ResponseFuture<S, B>>();
    is_sync::<tasks::ResponseFuture<S, B>>();
    is_sync::<retry::ResponseFuture<S, B, R>>();
    is_sync::<stack::ResponseFuture<S, B, R>>();
    is_sync::<base_url::ResponseFuture<S::Future>>();
    is_sync::<ErrorsFuture<S::Future, R>>();
}

/// A replayed body hides what the body inside lacks: it is always `Unpin`, and `Send` and `Sync` where the other is `Send`.
#[allow(dead_code, reason = "compiled for every type that fits")]
fn a_replayed_body_asks_for_send_alone<B: Send>() {
    is_send::<ReplayBody<B>>();
    is_sync::<ReplayBody<B>>();
    is_unpin::<ReplayBody<Bare>>();
}

fn stack() -> PlotonStack {
    PlotonStack::new(tower_ploton_sdks::key(), Plan::Production)
}

/// Creates a task through `service` though the first attempt is cut.
async fn creates_once<S, B, R>(service: S, fake: &FakePloton, body: B)
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    fake.fail_next(Fault::CutAfter);
    let request = Request::post("https://api.ploton.ai/v1/tasks").body(body);
    let response = service.oneshot(request.unwrap()).await;
    let response = response.map_err(Into::into).unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let counts = fake.counts();
    assert_eq!((counts.attempts, counts.created), (2, 1));
}

fn body() -> Full<Bytes> {
    tower_ploton_sdks::task("one").into()
}

#[tokio::test(start_paused = true)]
async fn boxed_services_may_stand_inside_and_outside() {
    let fake = FakePloton::new();
    let inside = BoxCloneService::new(fake.clone());
    creates_once(stack().layer(inside), &fake, body()).await;

    let fake = FakePloton::new();
    let inside = BoxCloneSyncService::new(fake.clone());
    creates_once(stack().layer(inside), &fake, body()).await;

    let fake = FakePloton::new();
    let outside = BoxCloneService::new(stack().layer(fake.clone()));
    creates_once(outside, &fake, body()).await;

    let fake = FakePloton::new();
    let outside = BoxCloneSyncService::new(stack().layer(fake.clone()));
    creates_once(outside, &fake, body()).await;

    let fake = FakePloton::new();
    let layered = ServiceBuilder::new().boxed_clone().layer(stack());
    creates_once(layered.service(fake.clone()), &fake, body()).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_cant_be_cloned_comes_in_through_a_buffer() {
    let fake = FakePloton::new();
    let single = BoxService::new(fake.clone());
    let service = ServiceBuilder::new()
        .layer(stack())
        .layer(BufferLayer::new(16))
        .service(single);
    creates_once(service, &fake, body()).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cant_be_cloned_comes_in_through_a_replay_layer() {
    fn boxed() -> UnsyncBoxBody<Bytes, Infallible> {
        body().boxed_unsync()
    }
    let fake = FakePloton::new();
    let service = ServiceBuilder::new()
        .layer(PlotonReplay::new())
        .layer(stack())
        .service(fake.clone());
    creates_once(service, &fake, boxed()).await;

    let fake = FakePloton::new();
    let again = |_: &UnsyncBoxBody<Bytes, Infallible>| Some(boxed());
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(PlotonRetry::new().clone_body_with(again))
        .layer(PlotonAuth::new(tower_ploton_sdks::key()))
        .service(fake.clone());
    creates_once(service, &fake, boxed()).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_or_an_answer_of_another_kind_is_mapped_inside() {
    let fake = FakePloton::new();
    let service = ServiceBuilder::new()
        .layer(stack())
        .map_response(|response: Response<Thing>| response.map(|Thing| Empty::<Bytes>::new()))
        .map_err(|Local(_)| "of another kind")
        // Of another kind:
        .map_response(|response: Response<FakeBody>| response.map(|_| Thing))
        .map_err(|_: io::Error| Local(Rc::default()))
        .service(fake.clone());
    creates_once(service, &fake, body()).await;
}

/// Nothing asks for `'static`.
#[tokio::test(start_paused = true)]
async fn a_body_may_be_borrowed() {
    let fake = FakePloton::new();
    let text = tower_ploton_sdks::task("one");
    let server = ServiceBuilder::new()
        .map_request(|request: Request<&str>| {
            request.map(|text| Full::<Bytes>::from(text.to_owned()))
        })
        .service(fake.clone());
    creates_once(stack().layer(server), &fake, text.as_str()).await;
}
