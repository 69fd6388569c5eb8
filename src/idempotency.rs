//! Gives every POST one `Idempotency-Key`.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Span;

use crate::{
    idempotency_key::{IDEMPOTENCY_KEY, IdempotencyKey},
    logical::{KEY_FIELD, LogicalRequest},
};

/// Adds an `Idempotency-Key` to every POST that has none, so that a repeated attempt creates nothing twice.
///
/// The key is the caller's header where there is one, else the [`IdempotencyKey`] in the request's extensions, else a
/// [random](IdempotencyKey::random) one. It is the same for every attempt of one logical request, whether this layer
/// stands outside [`PlotonRetry`](crate::PlotonRetry) (recommended) or inside it. It is sent even where nothing retries:
/// connection pools repeat requests too.
///
/// The inner service's error is kept as it is. An answer that is not 2xx has the key in its extensions.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ploton::PlotonIdempotency;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = ServiceBuilder::new()
///     .layer(PlotonIdempotency::new())
///     .service(service_fn(async |request: Request<String>| {
///         assert!(request.headers().contains_key("idempotency-key"));
///         Ok::<_, Infallible>(Response::new(()))
///     }));
///
/// service.oneshot(Request::post("/v1/tasks").body("{}".to_owned())?).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonIdempotency {
    key_in_span: bool,
}

impl PlotonIdempotency {
    /// A key for every POST, recorded in the tracing span.
    pub fn new() -> Self {
        Self { key_in_span: true }
    }

    /// Whether the key is recorded in the current tracing span, as `ploton.idempotency_key`; by default it is.
    /// [`PlotonRetry`](crate::PlotonRetry) inside this layer has a span and a
    /// [switch](crate::PlotonRetry::key_in_span) of its own.
    pub fn key_in_span(mut self, recorded: bool) -> Self {
        self.key_in_span = recorded;
        self
    }
}

impl Default for PlotonIdempotency {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for PlotonIdempotency {
    type Service = IdempotencyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdempotencyService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service that [`PlotonIdempotency`] makes.
#[derive(Clone, Debug)]
pub struct IdempotencyService<S> {
    inner: S,
    layer: PlotonIdempotency,
}

impl<S, B, R> Service<Request<B>> for IdempotencyService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let key = (request.method() == Method::POST)
            .then(|| give_key(&mut request))
            .flatten();
        if let Some(key) = key.as_ref().filter(|_| self.layer.key_in_span) {
            Span::current().record(KEY_FIELD, key.as_str());
        }
        ResponseFuture {
            response: self.inner.call(request),
            key,
        }
    }
}

/// The key that `request` now carries; `None` where the caller's own header can't be one.
fn give_key<B>(request: &mut Request<B>) -> Option<IdempotencyKey> {
    let own = request.headers().get(IDEMPOTENCY_KEY);
    if own.is_some_and(|own| !own.is_empty()) {
        return IdempotencyKey::of(request.headers());
    }
    let extensions = request.extensions();
    let make = || {
        extensions
            .get()
            .cloned()
            .unwrap_or_else(IdempotencyKey::random)
    };
    let key = match LogicalRequest::of(extensions) {
        Some(logical) => logical.key_or(make),
        None => make(),
    };
    request.headers_mut().insert(IDEMPOTENCY_KEY, key.header());
    Some(key)
}

pin_project! {
    /// The future of [`IdempotencyService`]; dropping it cancels the request.
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        response: F,
        // `Some` until the answer came, where the request carries a key.
        key: Option<IdempotencyKey>,
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut result = ready!(this.response.poll(cx));
        if let (Ok(response), Some(key)) = (&mut result, this.key.take()) {
            if !response.status().is_success() {
                response.extensions_mut().insert(key);
            }
        }
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio_test::{assert_pending, assert_ready_ok, task};
    use tower_test::mock;

    use super::*;

    type Spawned = (
        mock::Spawn<IdempotencyService<mock::Mock<Request<()>, Response<()>>>>,
        mock::Handle<Request<()>, Response<()>>,
    );

    fn spawn() -> Spawned {
        mock::spawn_layer(PlotonIdempotency::new())
    }

    /// Sends `request`, answers it with `status`, and says what arrived and what came back.
    async fn sent(
        (service, server): &mut Spawned,
        request: Request<()>,
        status: StatusCode,
    ) -> (Request<()>, Response<()>) {
        assert_ready_ok!(service.poll_ready());
        let mut call = task::spawn(service.call(request));
        assert_pending!(call.poll());
        let (arrived, answer) = server.next_request().await.unwrap();
        let mut response = Response::new(());
        *response.status_mut() = status;
        answer.send_response(response);
        (arrived, assert_ready_ok!(call.poll()))
    }

    fn key(request: &Request<()>) -> &str {
        request.headers()[IDEMPOTENCY_KEY].to_str().unwrap()
    }

    #[tokio::test]
    async fn every_post_gets_a_key_of_its_own_and_no_other_method_does() {
        let mut pair = spawn();
        let (first, _) = sent(&mut pair, post(), StatusCode::OK).await;
        let (second, _) = sent(&mut pair, post(), StatusCode::OK).await;
        assert_ne!(key(&first), key(&second));
        for method in ["GET", "PUT", "PATCH", "DELETE", "HEAD"] {
            let request = Request::builder().method(method).body(()).unwrap();
            let (arrived, _) = sent(&mut pair, request, StatusCode::OK).await;
            assert!(arrived.headers().is_empty(), "{method}");
        }
    }

    #[tokio::test]
    async fn the_callers_header_is_kept_before_the_callers_extension() {
        let mut pair = spawn();
        let mine = IdempotencyKey::parse("mine").unwrap();
        let mut request = post();
        request.extensions_mut().insert(mine.clone());
        let (arrived, _) = sent(&mut pair, request, StatusCode::OK).await;
        assert_eq!(key(&arrived), "mine");

        let mut request = post();
        request.extensions_mut().insert(mine);
        request
            .headers_mut()
            .insert(IDEMPOTENCY_KEY, "header".parse().unwrap());
        let (arrived, _) = sent(&mut pair, request, StatusCode::OK).await;
        assert_eq!(key(&arrived), "header");
        assert_eq!(arrived.headers().len(), 1);
    }

    #[tokio::test]
    async fn attempts_that_share_a_cell_share_a_key() {
        let mut pair = spawn();
        let mut request = post();
        request.extensions_mut().insert(LogicalRequest::default());
        let (first, _) = sent(&mut pair, request.clone(), StatusCode::OK).await;
        let (second, _) = sent(&mut pair, request.clone(), StatusCode::OK).await;
        assert_eq!(key(&first), key(&second));
        let told = LogicalRequest::of(request.extensions()).unwrap().key();
        assert_eq!(told.unwrap().as_str(), key(&first));
    }

    #[tokio::test]
    async fn only_what_went_wrong_carries_the_key() {
        let mut pair = spawn();
        let (_, response) = sent(&mut pair, post(), StatusCode::CREATED).await;
        assert!(response.extensions().is_empty());
        let (arrived, response) = sent(&mut pair, post(), StatusCode::UNPROCESSABLE_ENTITY).await;
        let told = response.extensions().get::<IdempotencyKey>().unwrap();
        assert_eq!(told.as_str(), key(&arrived));
    }

    #[tokio::test]
    async fn an_empty_header_is_no_key_of_the_callers() {
        let mut pair = spawn();
        let mut request = post();
        let empty = http::HeaderValue::from_static("");
        request.headers_mut().insert(IDEMPOTENCY_KEY, empty);
        let (arrived, _) = sent(&mut pair, request, StatusCode::OK).await;
        assert!(key(&arrived).starts_with("req_"));
        assert_eq!(arrived.headers().len(), 1);
    }

    #[tokio::test]
    async fn a_header_that_is_no_text_is_left_as_it_is() {
        let mut pair = spawn();
        let mut request = post();
        let value = http::HeaderValue::from_bytes(b"\xff").unwrap();
        request.headers_mut().insert(IDEMPOTENCY_KEY, value.clone());
        let (arrived, response) = sent(&mut pair, request, StatusCode::BAD_REQUEST).await;
        assert_eq!(arrived.headers()[IDEMPOTENCY_KEY], value);
        assert!(response.extensions().is_empty());
    }

    fn post() -> Request<()> {
        Request::post("/v1/tasks").body(()).unwrap()
    }
}
