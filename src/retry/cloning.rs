//! The retry layer for bodies that are cloned as the user says.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

use super::{PlotonRetry, ResponseFuture, kept::CloneBody};

/// A [`PlotonRetry`] for bodies that are not [`RetryBody`](super::RetryBody): made by
/// [`PlotonRetry::clone_body_with`].
///
/// Its [bounds](PlotonRetry#bounds) are those of `PlotonRetry`, but for the request's body, which may be anything.
#[must_use = "a layer does nothing until a service is made with it"]
pub struct CloningRetry<B> {
    layer: PlotonRetry,
    clone: Arc<dyn Fn(&B) -> Option<B> + Send + Sync>,
}

impl<B> CloningRetry<B> {
    pub(super) const fn new(
        layer: PlotonRetry,
        clone: Arc<dyn Fn(&B) -> Option<B> + Send + Sync>,
    ) -> Self {
        Self { layer, clone }
    }
}

impl<B> Clone for CloningRetry<B> {
    fn clone(&self) -> Self {
        Self::new(self.layer.clone(), self.clone.clone())
    }
}

impl<B> fmt::Debug for CloningRetry<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloningRetry")
            .field("layer", &self.layer)
            .finish_non_exhaustive()
    }
}

impl<S, B> Layer<S> for CloningRetry<B> {
    type Service = CloningRetryService<S, B>;

    fn layer(&self, inner: S) -> Self::Service {
        CloningRetryService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`CloningRetry`] makes.
#[derive(Debug)]
pub struct CloningRetryService<S, B> {
    inner: S,
    layer: CloningRetry<B>,
}

impl<S: Clone, B> Clone for CloningRetryService<S, B> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S, B, R> Service<Request<B>> for CloningRetryService<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let CloningRetry { layer, clone } = &self.layer;
        let given = CloneBody::Given(clone.clone());
        layer.start(&mut self.inner, Instant::now(), request, false, given)
    }
}
