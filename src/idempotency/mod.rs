//! Gives every POST one `Idempotency-Key`.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Method, Request, Response, Uri, header::Entry};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::Span;

#[cfg(test)]
mod tests;

use crate::{
    idempotency_key::{IDEMPOTENCY_KEY, IdempotencyKey},
    logical::{KEY_FIELD, LogicalRequest},
    metrics,
};

/// Adds an `Idempotency-Key` to every POST that has none, so that a repeated attempt creates nothing twice. Other requests
/// get one by [`when`](Self::when).
///
/// The key is the caller's header where there is one, else the [`IdempotencyKey`] in the request's extensions, else a
/// [random](IdempotencyKey::random) one. It is the same for every attempt of one logical request, whether this layer
/// stands outside [`PlotonRetry`](crate::PlotonRetry) (recommended) or inside it. It is sent even where nothing retries:
/// connection pools repeat requests too.
///
/// The inner service's error is kept as it is. An answer that is not 2xx has the key in its extensions. The age of a key is
/// looked at by [`PlotonRetry`](crate::PlotonRetry) alone, since this layer has no error of its own: without a retry layer a
/// key is sent however old it is.
///
/// # What repeats requests
///
/// It belongs inside this layer, unless it is PlotonRetry: another retry layer, tower's `hedge`, a layer that follows
/// redirects. Outside it, each repetition is to this layer a request of its own and gets another key, and what may have been
/// done is done twice. Where that can't be otherwise, put an [`IdempotencyKey`] into the request's extensions: all copies of
/// the request have it then. A hedge needs a server that answers a key again while the first request with it is under way;
/// some answer 409.
///
/// # Bounds
///
/// None beyond a service of requests and responses: it need not be cloned, and bodies and errors are of any type.
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
#[derive(Clone)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonIdempotency {
    /// `None` for every POST.
    gets_key: Option<Arc<Predicate>>,
    key_in_span: bool,
}

type Predicate = dyn Fn(&Method, &Uri) -> bool + Send + Sync;

impl PlotonIdempotency {
    /// A key for every POST, recorded in the tracing span.
    pub fn new() -> Self {
        Self {
            gets_key: None,
            key_in_span: true,
        }
    }

    /// Which requests get a key, in the place of every POST. Requests with a safe method (`GET`, `HEAD`, `OPTIONS`, `TRACE`)
    /// get none, whatever it says.
    ///
    /// ```
    /// use http::Method;
    /// use tower_ploton::PlotonIdempotency;
    ///
    /// let idempotency = PlotonIdempotency::new().when(|method, uri| {
    ///     (method == Method::POST || method == Method::PATCH) && uri.host() == Some("api.ploton.ai")
    /// });
    /// # drop(idempotency);
    /// ```
    pub fn when(
        mut self,
        gets_key: impl Fn(&Method, &Uri) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.gets_key = Some(Arc::new(gets_key));
        self
    }

    /// Whether the key is recorded in the current tracing span, as `ploton.idempotency_key`; by default it is.
    /// [`PlotonRetry`](crate::PlotonRetry) inside this layer has a span and a
    /// [switch](crate::PlotonRetry::key_in_span) of its own.
    pub fn key_in_span(mut self, recorded: bool) -> Self {
        self.key_in_span = recorded;
        self
    }

    /// The key that `request` carries from now on, and is sent with at `now`; `None` where it needs none, or has a header
    /// that is no key.
    pub(crate) fn give_key<B>(
        &self,
        request: &mut Request<B>,
        now: Instant,
    ) -> Option<IdempotencyKey> {
        if !self.gives_key_to(request) {
            return None;
        }
        let extensions = request.extensions();
        let own = extensions.get().cloned();
        let logical = LogicalRequest::of(extensions).cloned();
        let key = key_in(request.headers_mut(), own, logical, now)?;
        if self.key_in_span {
            let span = Span::current();
            if !span.is_none() {
                span.record(KEY_FIELD, key.as_str());
            }
        }
        Some(key)
    }

    fn gives_key_to<B>(&self, request: &Request<B>) -> bool {
        let method = request.method();
        match &self.gets_key {
            Some(gets_key) => !method.is_safe() && gets_key(method, request.uri()),
            None => method == Method::POST,
        }
    }
}

impl fmt::Debug for PlotonIdempotency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlotonIdempotency")
            .field("when", &self.gets_key.is_some())
            .field("key_in_span", &self.key_in_span)
            .finish()
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
        let key = self.layer.give_key(&mut request, Instant::now());
        ResponseFuture {
            response: self.inner.call(request),
            key,
        }
    }
}

/// The key in the `headers` of a request that is sent at `now`, put there where none was; `None` where the caller's own can't
/// be one. `own` and `logical` are what its extensions hold.
fn key_in(
    headers: &mut HeaderMap,
    own: Option<IdempotencyKey>,
    logical: Option<LogicalRequest>,
    now: Instant,
) -> Option<IdempotencyKey> {
    let place = headers.entry(IDEMPOTENCY_KEY);
    if let Entry::Occupied(set) = &place {
        if !set.get().is_empty() {
            let sent = IdempotencyKey::read(set.get())?;
            let known = own.filter(|known| *known == sent);
            return Some(known.unwrap_or(sent).used_at(now));
        }
    }
    let make = || match own {
        Some(own) => own.used_at(now),
        None => {
            metrics::key_created(now);
            IdempotencyKey::sent_now(now)
        }
    };
    let key = match logical {
        Some(logical) => logical.key_or(make),
        None => make(),
    };
    match place {
        Entry::Vacant(place) => {
            place.insert(key.header());
        }
        Entry::Occupied(mut place) => {
            place.insert(key.header());
        }
    }
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
