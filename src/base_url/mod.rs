//! Completes requests that say only a path.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, USER_AGENT},
};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

#[cfg(test)]
mod tests;
mod url;

pub use self::url::{BaseUrl, InvalidBaseUrl, PathRefused};

/// Completes requests: `/tasks` becomes `https://api.ploton.ai/v1/tasks`, with the headers that the API wants.
///
/// A relative URI gets scheme, host and the path's beginning, and that once: `/v1/tasks` is as good as `/tasks`. Its query is
/// kept as it is. An absolute URI is never changed. Requests for the [`BaseUrl`]'s origin get
/// `Content-Type: application/json` where they have a body, `Accept: application/json`, and a `User-Agent` that names this
/// crate; headers of the caller's own are kept. Requests for other origins pass untouched.
///
/// It belongs outside the other layers, as they look at where a request goes: a relative one gets no key.
///
/// # Errors
///
/// The service's error is a [`BoxError`]: the inner service's own, or [`PathRefused`] where a relative URI could lead out of
/// the base URL, as `/tasks/../keys` does in whatever encoding, or does not begin with a slash. That one was not sent.
///
/// # Bounds
///
/// The request's body is a [`Body`], since only one that has something in it gets a `Content-Type`. The inner service need not
/// be cloned; its error is `Into<BoxError>`, beside this layer's own.
///
/// # Example
///
/// ```
/// use http::{Request, Response};
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
/// use tower_ploton::{ApiKey, Plan, PlotonBaseUrl, PlotonStack, base_url::PathRefused};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// let service = ServiceBuilder::new()
///     .layer(PlotonBaseUrl::new())
///     .layer(PlotonStack::new(ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?, Plan::Production))
///     .service(service_fn(async |request: Request<String>| {
///         assert_eq!(request.uri(), "https://api.ploton.ai/v1/tasks?limit=100");
///         assert!(request.headers().contains_key("authorization"));
///         Ok::<_, BoxError>(Response::new(String::new()))
///     }));
///
/// service.clone().oneshot(Request::get("/tasks?limit=100").body(String::new())?).await?;
///
/// let refused = service.oneshot(Request::get("/tasks/%2e%2e/keys").body(String::new())?).await;
/// assert!(refused.unwrap_err().is::<PathRefused>());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonBaseUrl {
    base_url: BaseUrl,
    /// `None` where none is added.
    user_agent: Option<HeaderValue>,
}

impl Default for PlotonBaseUrl {
    fn default() -> Self {
        Self::new()
    }
}

impl PlotonBaseUrl {
    /// Completes requests for `https://api.ploton.ai/v1`.
    pub fn new() -> Self {
        Self {
            base_url: BaseUrl::default(),
            user_agent: Some(own_user_agent()),
        }
    }

    /// Where relative requests go, in the place of `https://api.ploton.ai/v1`.
    pub fn base_url(mut self, base_url: BaseUrl) -> Self {
        self.base_url = base_url;
        self
    }

    /// The `User-Agent` of requests that have none, or `None` to add none. Default: `tower-ploton/` and the version.
    pub fn user_agent(mut self, user_agent: impl Into<Option<HeaderValue>>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    fn complete<B: Body>(&self, request: &mut Request<B>) -> Result<(), PathRefused> {
        let uri = request.uri();
        match (uri.scheme(), uri.authority(), uri.path_and_query()) {
            (None, None, Some(path)) => *request.uri_mut() = self.base_url.uri(path)?,
            // `tasks` without a slash reads as the host of that name.
            (None, ..) if request.method() != Method::CONNECT => return Err(PathRefused::new()),
            _ if !self.base_url.origin().contains(uri) => return Ok(()),
            _ => {}
        }
        let has_body = !request.body().is_end_stream();
        let headers = request.headers_mut();
        if has_body {
            add(headers, CONTENT_TYPE, &JSON);
        }
        add(headers, ACCEPT, &JSON);
        if let Some(user_agent) = &self.user_agent {
            add(headers, USER_AGENT, user_agent);
        }
        Ok(())
    }
}

fn add(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    headers.entry(name).or_insert_with(|| value.clone());
}

/// What this crate calls itself.
pub(crate) fn own_user_agent() -> HeaderValue {
    HeaderValue::from_static(concat!("tower-ploton/", env!("CARGO_PKG_VERSION")))
}

#[allow(
    clippy::declare_interior_mutable_const,
    reason = "a static text, never changed"
)]
const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl<S> Layer<S> for PlotonBaseUrl {
    type Service = BaseUrlService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BaseUrlService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`PlotonBaseUrl`] makes.
#[derive(Clone, Debug)]
pub struct BaseUrlService<S> {
    inner: S,
    layer: PlotonBaseUrl,
}

impl<S, B, R> Service<Request<B>> for BaseUrlService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: Body,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let state = match self.layer.complete(&mut request) {
            Ok(()) => State::Sent {
                response: self.inner.call(request),
            },
            Err(refused) => State::Refused { refused },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The future of [`BaseUrlService`]; dropping it cancels the request.
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        /// The request went on to the inner service.
        Sent { #[pin] response: F },
        /// Nothing was sent.
        Refused { refused: PathRefused },
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProj::Sent { response } => ready!(response.poll(cx)).map_err(Into::into),
            StateProj::Refused { refused } => Err((*refused).into()),
        })
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = matches!(self.state, State::Refused { .. });
        f.debug_struct("ResponseFuture")
            .field("refused", &refused)
            .finish_non_exhaustive()
    }
}
