//! A middleware of reqwest-middleware that sends through the layers.

use std::{
    error::Error as StdError,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http::Extensions;
use reqwest::{Body, Request, Response};
use reqwest_middleware::{Error, Middleware, Next};
use tower::{BoxError, Layer, Service, ServiceExt};

use super::{IntoReqwest, IntoReqwestService, ReqwestBody};
use crate::retry::DEFAULT_MAX_KEPT;

/// Sends through a layer, such as a [`PlotonStack`](crate::PlotonStack) or several in a
/// [`Stack`](tower::layer::util::Stack), as a middleware of a [`reqwest_middleware::ClientWithMiddleware`].
///
/// Middlewares that were added before this one see a request once and its last answer, those that were added after it see each
/// attempt. reqwest-retry beside it would try again what is tried again already: it is left out.
///
/// Extensions of the request and those of [`with_extension`](reqwest_middleware::RequestBuilder::with_extension) reach the
/// layers: [`Deadline`](crate::Deadline), [`MaxAttempts`](crate::MaxAttempts), [`IdempotencyKey`](crate::IdempotencyKey).
/// Each attempt has a copy of its own, and what it leaves there is not seen outside.
///
/// The service that the layer makes lives for one request, while what its clones share lives in the layer. So a layer
/// whose inner service must be `'static`, such as tower's `buffer`, can't be had here.
///
/// # Errors
///
/// A request that was sent once fails with the [`Error`] that it met. Where the layers have more to say, it is
/// an [`Error::Middleware`] with a [`MiddlewareError`], whose source it is.
///
/// # Example
///
/// ```
/// use {
///     reqwest_middleware::{ClientBuilder, Error},
///     tower_ploton::{
///         ApiKey, Origin, Plan, PlotonRetry, PlotonStack,
///         mock::{FakePloton, Fault},
///         reqwest::PlotonMiddleware,
///         retry::AttemptsFailed,
///     },
/// };
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let fake = FakePloton::new();
/// let server = fake.listen().await?;
/// let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?;
/// let stack = PlotonStack::new(key, Plan::Production)
///     .origin(Origin::parse(&server.url())?)
///     .retry(PlotonRetry::new().attempts(2));
/// let client = ClientBuilder::new(reqwest::Client::builder().no_proxy().build()?)
///     .with(PlotonMiddleware::new(stack))
///     .build();
///
/// let create = || {
///     client
///         .post(format!("{}/v1/tasks", server.url()))
///         .header("content-type", "application/json")
///         .body(r#"{"prompt":"Pay invoice 42"}"#)
/// };
/// fake.fail_next(Fault::CutAfter);
/// assert_eq!(create().send().await?.status(), 201);
/// assert_eq!((fake.counts().attempts, fake.counts().created), (2, 1));
///
/// fake.fail_next(Fault::CutBefore);
/// fake.fail_next(Fault::CutBefore);
/// let Err(Error::Middleware(error)) = create().send().await else {
///     panic!("both attempts fail")
/// };
/// let failed = error.chain().find_map(|cause| cause.downcast_ref::<AttemptsFailed>());
/// assert_eq!(failed.unwrap().attempts().made(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PlotonMiddleware<L> {
    layer: L,
    max_kept: usize,
}

impl<L> PlotonMiddleware<L> {
    /// Sends through `layer`.
    #[must_use]
    pub const fn new(layer: L) -> Self {
        Self {
            layer,
            max_kept: DEFAULT_MAX_KEPT,
        }
    }

    /// How much of a streaming body is kept; a longer one is sent once. Default: 64 KiB.
    #[must_use]
    pub const fn max_kept(mut self, bytes: usize) -> Self {
        self.max_kept = bytes;
        self
    }
}

#[async_trait::async_trait]
impl<L> Middleware for PlotonMiddleware<L>
where
    L: for<'a> Layer<IntoReqwestService<NextService<'a>>> + Send + Sync + 'static,
    for<'a> <L as Layer<IntoReqwestService<NextService<'a>>>>::Service: Service<
            http::Request<ReqwestBody>,
            Response = http::Response<Body>,
            Error = BoxError,
            Future: Send,
        > + Send,
{
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let mut request = http::Request::<Body>::try_from(request)?;
        request.extensions_mut().extend(extensions.clone());
        let next = NextService {
            next,
            extensions: extensions.clone(),
        };
        let service = self.layer.layer(IntoReqwest::new().layer(next));
        let request = request.map(|body| ReqwestBody::new(body, self.max_kept));
        let response = service.oneshot(request).await.map_err(error)?;
        Ok(response.into())
    }
}

/// What stands inside the layer of [`PlotonMiddleware`], for one request: the middlewares after it, and the client.
#[derive(Clone)]
pub struct NextService<'a> {
    next: Next<'a>,
    extensions: Extensions,
}

impl<'a> Service<Request> for NextService<'a> {
    type Response = Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send + 'a>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self {
            next,
            mut extensions,
        } = self.clone();
        Box::pin(async move {
            next.run(request, &mut extensions)
                .await
                .map_err(|error| match error {
                    // The middleware's error shows only what is in it, not itself.
                    Error::Reqwest(error) => error.into(),
                    error @ Error::Middleware(_) => error.into(),
                })
        })
    }
}

impl fmt::Debug for NextService<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextService").finish_non_exhaustive()
    }
}

/// A request failed in the layers of a [`PlotonMiddleware`]; the source says how, for example
/// [`AttemptsFailed`](crate::retry::AttemptsFailed).
#[derive(Debug)]
pub struct MiddlewareError {
    cause: BoxError,
}

impl fmt::Display for MiddlewareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("request failed in the layers of a middleware")
    }
}

impl StdError for MiddlewareError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}

/// The error as reqwest-middleware has it.
fn error(error: BoxError) -> Error {
    let error = match error.downcast::<reqwest::Error>() {
        Ok(error) => return Error::Reqwest(*error),
        Err(error) => error,
    };
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(cause) => Error::middleware(MiddlewareError { cause }),
    }
}
