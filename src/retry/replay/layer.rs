//! The layers around a retry layer that make any body one that can be sent again.

use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower::{Layer, Service};

use super::ReplayBody;

/// Makes any request body one that can be sent again: outside of [`PlotonRetry`](crate::PlotonRetry), for bodies that are not
/// [`Clone`].
///
/// What the layers inside of it see is a [`ReplayBody`]. Where the innermost service takes one type of body only,
/// [`PlotonReplay::map`], inside of the retry layer, makes that one of it.
///
/// # Example
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
/// use tower_ploton::{PlotonReplay, PlotonRetry, retry::ReplayBody};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BoxError> {
/// /// A body whose type says nothing of what is in it: not `Clone`.
/// type Boxed = UnsyncBoxBody<Bytes, BoxError>;
///
/// let service = ServiceBuilder::new()
///     .layer(PlotonReplay::new())
///     .layer(PlotonRetry::new().attempts(2))
///     .layer(PlotonReplay::map(|body: ReplayBody<Boxed>| Boxed::new(body.map_err(BoxError::from))))
///     .service(service_fn(async |request: Request<Boxed>| {
///         let body = request.into_body().collect().await?.to_bytes();
///         assert_eq!(body, "whole, each time");
///         Ok::<_, BoxError>(Response::builder().status(503).body(String::new())?)
///     }));
///
/// let body = Boxed::new(Full::from("whole, each time").map_err(BoxError::from));
/// let response = service.oneshot(Request::put("/v1/tasks/1").body(body)?).await?;
/// assert_eq!(response.status(), 503);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonReplay {
    max_kept: usize,
}

impl PlotonReplay {
    /// Keeps up to 64 KiB of each body.
    pub const fn new() -> Self {
        Self {
            max_kept: 64 * 1024,
        }
    }

    /// How much of a body is kept, in bytes: a request with a longer one is sent once. Chunks are kept as they are, with the
    /// buffers that they are in. Default: 65,536.
    pub const fn max_kept(mut self, bytes: usize) -> Self {
        self.max_kept = bytes;
        self
    }

    /// The layer for the other side of the retry layer, the inside: makes each attempt's body, by `map`, one of the type that
    /// the service takes.
    pub const fn map<F>(map: F) -> MapReplay<F> {
        MapReplay { map }
    }
}

impl Default for PlotonReplay {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for PlotonReplay {
    type Service = ReplayService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ReplayService {
            inner,
            layer: *self,
        }
    }
}

/// The service that [`PlotonReplay`] makes.
#[derive(Clone, Debug)]
pub struct ReplayService<S> {
    inner: S,
    layer: PlotonReplay,
}

impl<S, B, R> Service<Request<B>> for ReplayService<S>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>>,
    B: Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let max_kept = self.layer.max_kept;
        self.inner
            .call(request.map(|body| ReplayBody::new(body, max_kept)))
    }
}

/// The inner half of [`PlotonReplay`], for services of a fixed body type: made by [`PlotonReplay::map`].
#[derive(Clone, Copy)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct MapReplay<F> {
    map: F,
}

impl<F> std::fmt::Debug for MapReplay<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MapReplay").finish_non_exhaustive()
    }
}

impl<S, F: Clone> Layer<S> for MapReplay<F> {
    type Service = MapReplayService<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        MapReplayService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`MapReplay`] makes.
#[derive(Clone, Debug)]
pub struct MapReplayService<S, F> {
    inner: S,
    layer: MapReplay<F>,
}

impl<S, F, B, C> Service<Request<ReplayBody<B>>> for MapReplayService<S, F>
where
    S: Service<Request<C>>,
    F: Fn(ReplayBody<B>) -> C,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReplayBody<B>>) -> Self::Future {
        self.inner.call(request.map(&self.layer.map))
    }
}
