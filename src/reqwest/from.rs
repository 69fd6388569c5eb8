//! From reqwest's requests to those of the layers, and back with the answers.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use reqwest::{Body, Request, Response};
use tower::{Layer, Service};

use super::ReqwestBody;
use crate::retry::DEFAULT_MAX_KEPT;

/// Takes reqwest's requests and gives reqwest's responses, outside the layers; inside of it a [`reqwest::Request`] is an
/// `http::Request` with a [`ReqwestBody`].
///
/// A request keeps what it says, its own timeout too.
///
/// # Errors
///
/// The service's error is the inner service's own, or a [`reqwest::Error`] where a URL is no URI; that one was not sent.
///
/// # Example
///
/// A [`reqwest::Request`] hides its extensions; an `http::Request` that becomes one brings them along:
///
/// ```
/// use std::time::Duration;
/// use tokio::time::Instant;
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
/// use tower_ploton::{Deadline, PlotonIdempotency, reqwest::{FromReqwest, ReqwestBody}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let service = ServiceBuilder::new()
///     .layer(FromReqwest::new().max_kept(1024 * 1024))
///     .layer(PlotonIdempotency::new())
///     .service(service_fn(async |request: http::Request<ReqwestBody>| {
///         assert!(request.headers().contains_key("idempotency-key"));
///         assert!(request.extensions().get::<Deadline>().is_some());
///         Ok::<_, BoxError>(http::Response::new("created"))
///     }));
///
/// let request = http::Request::post("https://api.ploton.ai/v1/tasks")
///     .extension(Deadline(Instant::now() + Duration::from_secs(20)))
///     .body(r#"{"prompt":"Pay invoice 42"}"#)?;
/// let response = service.oneshot(reqwest::Request::try_from(request)?).await?;
/// assert_eq!(response.text().await?, "created");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct FromReqwest {
    max_kept: usize,
}

impl FromReqwest {
    /// Streams of up to 64 KiB can be sent again, and bytes of any length.
    pub fn new() -> Self {
        Self {
            max_kept: DEFAULT_MAX_KEPT,
        }
    }

    /// How much of a streaming body is kept; a longer one is sent once. Default: 64 KiB.
    pub fn max_kept(mut self, bytes: usize) -> Self {
        self.max_kept = bytes;
        self
    }
}

impl Default for FromReqwest {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for FromReqwest {
    type Service = FromReqwestService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FromReqwestService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`FromReqwest`] makes.
#[derive(Clone, Debug)]
pub struct FromReqwestService<S> {
    inner: S,
    layer: FromReqwest,
}

impl<S, R> Service<Request> for FromReqwestService<S>
where
    S: Service<http::Request<ReqwestBody>, Response = http::Response<R>>,
    S::Error: From<reqwest::Error>,
    R: Into<Body>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = FromReqwestFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let max_kept = self.layer.max_kept;
        let state = match http::Request::<Body>::try_from(request) {
            Ok(request) => State::Sent {
                response: self
                    .inner
                    .call(request.map(|body| ReqwestBody::new(body, max_kept))),
            },
            Err(error) => State::Refused {
                error: Some(error.into()),
            },
        };
        FromReqwestFuture { state }
    }
}

pin_project! {
    /// The future of [`FromReqwestService`]; dropping it cancels the request.
    pub struct FromReqwestFuture<F, E> {
        #[pin]
        state: State<F, E>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, E> {
        Sent { #[pin] response: F },
        /// Its URL is no URI.
        Refused { error: Option<E> },
    }
}

impl<F, E, R> Future for FromReqwestFuture<F, E>
where
    F: Future<Output = Result<http::Response<R>, E>>,
    R: Into<Body>,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Sent { response } => {
                Poll::Ready(ready!(response.poll(cx)).map(Response::from))
            }
            StateProj::Refused { error } => error
                .take()
                .map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

impl<F, E> fmt::Debug for FromReqwestFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromReqwestFuture").finish_non_exhaustive()
    }
}
