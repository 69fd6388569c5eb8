//! From the layers' requests to reqwest's, and back with the answers.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use reqwest::{Body, Request, Response, ResponseBuilderExt};
use tower::{Layer, Service};

/// Gives the layers' requests to a [`reqwest::Client`], or to another service that takes reqwest's, inside of them.
///
/// Outside of it an `http::Request` may have any body that becomes a [`reqwest::Body`], such as a [`ReqwestBody`], and the
/// answer is an `http::Response` with a [`reqwest::Body`]. The typed client of the feature `json` sends through it as
/// `Ploton::<_, ReqwestBody>::with_body(service)`.
///
/// [`ReqwestBody`]: super::ReqwestBody
///
/// # Errors
///
/// The service's error is the inner service's own, or a [`reqwest::Error`] where a URI is no URL, as where it has no host; that
/// one was not sent.
///
/// # Example
///
/// ```
/// use tower::{BoxError, ServiceBuilder, ServiceExt};
/// use tower_ploton::{PlotonRetry, mock::FakePloton, reqwest::{IntoReqwest, ReqwestBody}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let server = FakePloton::new().listen().await?;
/// let service = ServiceBuilder::new()
///     .layer(PlotonRetry::new())
///     .layer(IntoReqwest::new())
///     .service(reqwest::Client::builder().no_proxy().build()?);
///
/// let request = http::Request::get(format!("{}/v1/tasks", server.url()))
///     .body(ReqwestBody::from(bytes::Bytes::new()))?;
/// let response: http::Response<reqwest::Body> = service.oneshot(request).await?;
/// assert_eq!(response.status(), 401);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "a layer does nothing until a service is made with it"]
#[non_exhaustive]
pub struct IntoReqwest;

impl IntoReqwest {
    /// Needs nothing.
    pub const fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for IntoReqwest {
    type Service = IntoReqwestService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IntoReqwestService { inner }
    }
}

/// The service that [`IntoReqwest`] makes.
#[derive(Clone, Debug)]
pub struct IntoReqwestService<S> {
    inner: S,
}

impl<S, B> Service<http::Request<B>> for IntoReqwestService<S>
where
    S: Service<Request, Response = Response>,
    S::Error: From<reqwest::Error>,
    B: Into<Body>,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = IntoReqwestFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let state = match Request::try_from(request) {
            Ok(request) => State::Sent {
                response: self.inner.call(request),
            },
            Err(error) => State::Refused {
                error: Some(error.into()),
            },
        };
        IntoReqwestFuture { state }
    }
}

pin_project! {
    /// The future of [`IntoReqwestService`]; dropping it cancels the request.
    pub struct IntoReqwestFuture<F, E> {
        #[pin]
        state: State<F, E>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, E> {
        Sent { #[pin] response: F },
        /// Its URI is no URL.
        Refused { error: Option<E> },
    }
}

impl<F, E> Future for IntoReqwestFuture<F, E>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = Result<http::Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Sent { response } => {
                Poll::Ready(ready!(response.poll(cx)).map(with_its_url))
            }
            StateProj::Refused { error } => error
                .take()
                .map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

/// The answer, whose URL reqwest would lose; from its extensions reqwest takes it back.
fn with_its_url(response: Response) -> http::Response<Body> {
    let url = http::Response::builder().url(response.url().clone());
    let mut response = http::Response::<Body>::from(response);
    if let Ok(url) = url.body(()) {
        response
            .extensions_mut()
            .extend(url.into_parts().0.extensions);
    }
    response
}

impl<F, E> fmt::Debug for IntoReqwestFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntoReqwestFuture").finish_non_exhaustive()
    }
}
