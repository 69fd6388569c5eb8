//! The layers on both sides of a retry layer that make any body one that can be sent again.

use std::{
    fmt,
    task::{Context, Poll},
};

use http::Request;
use http_body::Body;
use tower::{Layer, Service};

use super::{DEFAULT_MAX_KEPT, ReplayBody};

/// Makes every request body a [`ReplayBody`], which [`PlotonRetry`](crate::PlotonRetry) inside this layer can send again.
///
/// For bodies that can't be cloned: streams, boxed bodies, those of other crates. Inside this layer a `Request<B>` is a
/// `Request<ReplayBody<B>>`; where the innermost service takes one type of body only, [`map`](Self::map) is the way back.
///
/// # Bounds
///
/// The body is a [`Body`], whose error is `Into<BoxError>`; it need be neither `Clone` nor `Unpin` nor `Sync`. The inner
/// service need not be cloned, and its answers and errors are of any type.
///
/// # Example
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, StatusCode};
/// use http_body_util::{BodyExt, Full};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_ploton::{PlotonReplay, PlotonRetry, mock::{FakePloton, Fault}};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let fake = FakePloton::new();
/// fake.fail_next(Fault::Status(StatusCode::TOO_MANY_REQUESTS));
/// let service = ServiceBuilder::new()
///     .layer(PlotonReplay::new())
///     .layer(PlotonRetry::new())
///     .service(fake.clone());
///
/// let boxed = Full::<Bytes>::from(r#"{"prompt":"Pay invoice 42"}"#).boxed_unsync(); // is not Clone
/// let request = Request::post("https://api.ploton.ai/v1/tasks")
///     .header("authorization", "Bearer pk_test_4f9d0c2b")
///     .body(boxed)?;
/// assert_eq!(service.oneshot(request).await?.status(), StatusCode::CREATED);
/// assert_eq!(fake.counts().attempts, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonReplay {
    max_kept: usize,
}

impl PlotonReplay {
    /// Bodies of up to 64 KiB can be sent again.
    pub fn new() -> Self {
        Self {
            max_kept: DEFAULT_MAX_KEPT,
        }
    }

    /// How much of a body is kept; a longer one is sent once. Chunks are kept with the buffers that they are in, whatever
    /// their size. Default: 64 KiB.
    pub fn max_kept(mut self, bytes: usize) -> Self {
        self.max_kept = bytes;
        self
    }

    /// A layer for the place inside [`PlotonRetry`](crate::PlotonRetry): there `f` turns each attempt's body into the one
    /// type that the inner service takes.
    ///
    /// # Example
    ///
    /// ```
    /// use axum_core::body::Body;
    /// use http::{Request, Response};
    /// use http_body_util::BodyExt;
    /// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
    /// use tower_ploton::{PlotonReplay, PlotonRetry};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), BoxError> {
    /// let service = ServiceBuilder::new()
    ///     .layer(PlotonReplay::new())
    ///     .layer(PlotonRetry::new())
    ///     .layer(PlotonReplay::map(Body::new))
    ///     .service(service_fn(async |request: Request<Body>| {
    ///         Ok::<_, BoxError>(Response::new(request.into_body()))
    ///     }));
    ///
    /// let request = Request::post("https://api.ploton.ai/v1/tasks").body(Body::from("{}"))?;
    /// let echo = service.oneshot(request).await?.into_body().collect().await?;
    /// assert_eq!(echo.to_bytes(), "{}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn map<F>(f: F) -> MapReplay<F> {
        MapReplay { f }
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
            layer: self.clone(),
        }
    }
}

/// The service that [`PlotonReplay`] makes.
#[derive(Clone, Debug)]
pub struct ReplayService<S> {
    inner: S,
    layer: PlotonReplay,
}

impl<S, B> Service<Request<B>> for ReplayService<S>
where
    S: Service<Request<ReplayBody<B>>>,
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
            .call(request.map(|body| ReplayBody::with_max_kept(body, max_kept)))
    }
}

/// The layer that [`PlotonReplay::map`] makes.
#[derive(Clone)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct MapReplay<F> {
    f: F,
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

impl<F> fmt::Debug for MapReplay<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapReplay").finish_non_exhaustive()
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
        self.inner.call(request.map(&self.layer.f))
    }
}
