//! Adds the bearer key, to Ploton's own origin only.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response, header::AUTHORIZATION};
use pin_project_lite::pin_project;
use tower::{BoxError, Layer, Service};

pub use crate::origin::PlainHttpRefused;
use crate::{key::ApiKey, origin::Origin};

/// Adds `Authorization: Bearer …` to requests for Ploton's own [`Origin`], and to no others.
///
/// A request for another origin, or for none (a relative URI), passes untouched, and so does one that has an
/// `Authorization` header of its own. The header is marked sensitive; nothing that this crate prints holds the key.
///
/// # Errors
///
/// The service's error is a [`BoxError`]: the inner service's own, or [`PlainHttpRefused`] where a request was made for
/// the Ploton host by plain HTTP, on any port. That one was not sent.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ploton::{ApiKey, PlotonAuth, auth::PlainHttpRefused};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let service = ServiceBuilder::new()
///     .layer(PlotonAuth::new(ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?))
///     .service(service_fn(async |request: Request<()>| {
///         assert_eq!(request.headers()["authorization"], "Bearer pk_test_4f9d0c2b7a6e1583");
///         Ok::<_, Infallible>(Response::new(()))
///     }));
///
/// service.clone().oneshot(Request::get("https://api.ploton.ai/v1/tasks").body(())?).await?;
///
/// let refused = service.oneshot(Request::get("http://api.ploton.ai/v1/tasks").body(())?).await;
/// assert!(refused.unwrap_err().is::<PlainHttpRefused>());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonAuth {
    key: ApiKey,
    origin: Origin,
}

impl PlotonAuth {
    /// Adds `key` to requests for `https://api.ploton.ai`.
    pub fn new(key: ApiKey) -> Self {
        Self {
            key,
            origin: Origin::default(),
        }
    }

    /// The origin that gets the key, in the place of `https://api.ploton.ai`: a proxy of your own, or a test server.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    fn is_in_the_clear<B>(&self, request: &Request<B>) -> bool {
        let uri = request.uri();
        self.origin.is_in_the_clear(uri) || Origin::default().is_in_the_clear(uri)
    }
}

impl<S> Layer<S> for PlotonAuth {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`PlotonAuth`] makes.
#[derive(Clone, Debug)]
pub struct AuthService<S> {
    inner: S,
    layer: PlotonAuth,
}

impl<S, B, R> Service<Request<B>> for AuthService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if self.layer.is_in_the_clear(&request) {
            return ResponseFuture {
                state: State::Refused,
            };
        }
        if self.layer.origin.contains(request.uri())
            && !request.headers().contains_key(AUTHORIZATION)
        {
            request
                .headers_mut()
                .insert(AUTHORIZATION, self.layer.key.bearer());
        }
        ResponseFuture {
            state: State::Sent {
                response: self.inner.call(request),
            },
        }
    }
}

pin_project! {
    /// The future of [`AuthService`]; dropping it cancels the request.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        /// The request went on to the inner service.
        Sent { #[pin] response: F },
        /// Plain HTTP to the Ploton host: nothing was sent.
        Refused,
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project().state.project() {
            StateProj::Sent { response } => ready!(response.poll(cx)).map_err(Into::into),
            StateProj::Refused => Err(PlainHttpRefused::new().into()),
        })
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused = matches!(self.state, State::Refused);
        f.debug_struct("ResponseFuture")
            .field("refused", &refused)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
    use tower_test::mock;

    use super::*;

    const KEY: &str = "pk_test_hunter2hunter2hunter2";

    type Spawned = (
        mock::Spawn<AuthService<mock::Mock<Request<()>, Response<()>>>>,
        mock::Handle<Request<()>, Response<()>>,
    );

    fn spawn(origin: &str) -> Spawned {
        let layer = PlotonAuth::new(ApiKey::parse(KEY).unwrap());
        mock::spawn_layer(layer.origin(Origin::parse(origin).unwrap()))
    }

    /// Sends `request` and says what arrived at the inner service.
    async fn arrived((service, server): &mut Spawned, request: Request<()>) -> Request<()> {
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(request));
        assert_pending!(call.poll());
        let (arrived, answer) = server.next_request().await.unwrap();
        answer.send_response(Response::new(()));
        assert_ready_ok!(call.poll());
        arrived
    }

    fn get(uri: &str) -> Request<()> {
        Request::get(uri).body(()).unwrap()
    }

    #[tokio::test]
    async fn plotons_origin_gets_the_key_marked_sensitive() {
        let mut pair = spawn("https://api.ploton.ai");
        let request = arrived(&mut pair, get("https://api.ploton.ai/v1/tasks")).await;
        let value = &request.headers()[AUTHORIZATION];
        assert_eq!(value, &format!("Bearer {KEY}"));
        assert!(value.is_sensitive());
        assert!(!format!("{request:?} {:?}", pair.0.get_ref()).contains(KEY));
    }

    #[tokio::test]
    async fn another_origin_passes_untouched() {
        let mut pair = spawn("https://api.ploton.ai");
        for uri in [
            "https://evil.example/v1/tasks",
            "https://api.ploton.ai:8443/v1/tasks",
            "https://api.ploton.ai.evil.example/",
            "http://evil.example/",
            "/v1/tasks",
        ] {
            let request = arrived(&mut pair, get(uri)).await;
            assert!(request.headers().is_empty(), "{uri}");
        }
    }

    #[tokio::test]
    async fn a_callers_own_header_is_kept() {
        let mut pair = spawn("https://api.ploton.ai");
        let mut request = get("https://api.ploton.ai/v1/tasks");
        let own = HeaderValue::from_static("Bearer own");
        request.headers_mut().insert(AUTHORIZATION, own.clone());
        let request = arrived(&mut pair, request).await;
        assert_eq!(
            request
                .headers()
                .get_all(AUTHORIZATION)
                .iter()
                .collect::<Vec<_>>(),
            [own]
        );
    }

    #[tokio::test]
    async fn plain_http_to_the_host_is_refused_before_anything_is_sent() {
        for origin in ["https://api.ploton.ai", "http://127.0.0.1:8080"] {
            let (mut service, mut server) = spawn(origin);
            for uri in ["http://api.ploton.ai/", "http://API.ploton.ai.:8080/v1"] {
                assert_ready_ok!(service.poll_ready());
                let error = assert_ready_err!(task::spawn(service.call(get(uri))).poll());
                assert!(error.is::<PlainHttpRefused>(), "{uri}");
            }
            assert_pending!(task::spawn(server.next_request()).poll());
        }
    }

    #[tokio::test]
    async fn a_named_loopback_origin_gets_the_key_in_the_clear() {
        let mut pair = spawn("http://127.0.0.1:8080");
        let request = arrived(&mut pair, get("http://127.0.0.1:8080/v1/tasks")).await;
        assert!(request.headers().contains_key(AUTHORIZATION));
        let request = arrived(&mut pair, get("https://api.ploton.ai/v1/tasks")).await;
        assert!(request.headers().is_empty());
    }
}
