//! Turns error answers into errors.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response, response::Parts};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

use super::{
    body::{Bounds, ReadBody},
    errors::ApiError,
};
use crate::{headers::date::Wall, idempotency_key::IdempotencyKey, origin::Origin};

/// Turns answers that are errors, 4xx and 5xx, into an [`ApiError`].
///
/// All others, and those of other origins than Ploton's own, stay as they are. Of an error's body at most 64 KiB are read,
/// for at most 5 s.
///
/// It belongs outside the other layers: inside a [`PlotonRetry`](crate::PlotonRetry) there would be no answers left to judge.
/// And outside of what makes a body readable, as a layer does that decompresses it.
///
/// # Errors
///
/// The service's error is a [`BoxError`]: the inner service's own, or [`ApiError`].
///
/// # Bounds
///
/// The answer's body is a [`Body`], whose error is `Into<BoxError>`: it is read. The request's is of any type. The inner
/// service need not be cloned; its error is `Into<BoxError>`, beside this layer's own.
///
/// # Example
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_ploton::{
///     ApiKey, Plan, PlotonStack,
///     api::{ApiError, ErrorCode, PlotonErrors},
///     mock::FakePloton,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let service = ServiceBuilder::new()
///     .layer(PlotonErrors::new())
///     .layer(PlotonStack::new(ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?, Plan::Production))
///     .service(FakePloton::new());
///
/// let request = Request::get("https://api.ploton.ai/v1/tasks/task_8xK2mP");
/// let error = service.oneshot(request.body(Full::<Bytes>::default())?).await.unwrap_err();
/// let error: &ApiError = error.downcast_ref().unwrap();
/// assert_eq!(error.code(), Some(&ErrorCode::TaskNotFound));
/// assert_eq!(error.attempts().unwrap().made(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonErrors {
    origin: Origin,
    wall: Wall,
}

impl Default for PlotonErrors {
    fn default() -> Self {
        Self::new()
    }
}

impl PlotonErrors {
    /// Reads the errors of `https://api.ploton.ai`.
    pub fn new() -> Self {
        Self {
            origin: Origin::default(),
            wall: Wall::anchored(),
        }
    }

    /// The origin whose errors are read, in the place of `https://api.ploton.ai`. A request that names no origin counts as
    /// one for it.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }
}

impl<S> Layer<S> for PlotonErrors {
    type Service = ErrorsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ErrorsService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`PlotonErrors`] makes.
#[derive(Clone, Debug)]
pub struct ErrorsService<S> {
    inner: S,
    layer: PlotonErrors,
}

impl<S, B, R> Service<Request<B>> for ErrorsService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ErrorsFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let uri = request.uri();
        let ours = uri.authority().is_none() || self.layer.origin.contains(uri);
        // Where the caller set it, it is known without the help of other layers.
        let key = IdempotencyKey::of(request.headers());
        ErrorsFuture {
            state: State::Sent {
                response: self.inner.call(request),
            },
            wall: ours.then_some(self.layer.wall),
            key,
        }
    }
}

pin_project! {
    /// The future of [`ErrorsService`]; dropping it cancels the request.
    pub struct ErrorsFuture<F, R> {
        #[pin]
        state: State<F, R>,
        // `Some` where the answer is read if it is an error.
        wall: Option<Wall>,
        // `Some` where the caller set one.
        key: Option<IdempotencyKey>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, R> {
        /// The request is on its way.
        Sent { #[pin] response: F },
        /// The answer is an error, and its body is being read.
        Reading { #[pin] body: ReadBody<R>, head: Box<Parts>, received: Instant, wall: Wall },
    }
}

impl<F, R, E> Future for ErrorsFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
    R: Body,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Sent { response } => {
                    let response = ready!(response.poll(cx)).map_err(Into::into)?;
                    let status = response.status();
                    match *this.wall {
                        // Sent => (Reading | done)
                        Some(wall) if status.is_client_error() || status.is_server_error() => {
                            let (head, body) = response.into_parts();
                            State::Reading {
                                body: ReadBody::new(body, Bounds::ERROR),
                                head: Box::new(head),
                                received: Instant::now(),
                                wall,
                            }
                        }
                        _ => return Poll::Ready(Ok(response)),
                    }
                }
                StateProj::Reading {
                    body,
                    head,
                    received,
                    wall,
                } => {
                    let body = ready!(body.poll(cx));
                    let error = ApiError::new(head, &body, wall, *received);
                    return Poll::Ready(Err(error.with_key(this.key.as_ref()).into()));
                }
            };
            this.state.set(next);
        }
    }
}

impl<F, R> fmt::Debug for ErrorsFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reading = matches!(self.state, State::Reading { .. });
        f.debug_struct("ErrorsFuture")
            .field("reading", &reading)
            .finish_non_exhaustive()
    }
}
