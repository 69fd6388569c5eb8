//! What goes wrong, in the order that a test names, and what was seen of the requests.

use std::{
    collections::VecDeque,
    fmt, future, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version, header};
use http_body::Body;
use http_body_util::{BodyExt, Empty, combinators::UnsyncBoxBody};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// The body of an answer.
pub type Answer = UnsyncBoxBody<Bytes, BoxError>;

/// What one attempt suffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: an attempt between others that fail.
    None,
    /// Answers 429 with `Retry-After`; nothing is done.
    RateLimited {
        /// In seconds.
        retry_after: u32,
    },
    /// Answers with this status; nothing is done.
    Status(u16),
    /// Answers with this status before the request's body is read; nothing is done.
    Unread(u16),
    /// Sends the client elsewhere; nothing is done.
    Redirect {
        /// 302, 307 or another.
        status: u16,
        /// The `Location`.
        to: String,
    },
    /// Cuts the connection; nothing is done.
    CutBefore,
    /// Does the work, then cuts the connection without an answer.
    CutAfter,
    /// Never answers; nothing is done.
    Hang,
}

/// What was seen of one attempt.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When its head arrived.
    pub at: Instant,
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub path: String,
    /// The protocol that it came by.
    pub version: Version,
    /// All headers.
    pub headers: HeaderMap,
    /// Its `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Its `Authorization`.
    pub authorization: Option<String>,
    /// What it suffered.
    pub fault: Fault,
}

/// A layer for servers: lets attempts fail in the order given, and notes them all. Clones share both.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Fault>,
    seen: Vec<Seen>,
}

impl Faults {
    /// The first attempt suffers the first of `faults`, and so on; those after the last suffer nothing.
    #[must_use]
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        let state = State {
            queue: faults.into_iter().collect(),
            seen: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Lets more attempts fail, after those that are to fail already.
    pub fn then(&self, faults: impl IntoIterator<Item = Fault>) {
        self.lock().queue.extend(faults);
    }

    /// Every attempt so far, in the order of arrival.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    fn arrive<B>(&self, request: &Request<B>) -> Fault {
        let text = |name| {
            let value = request.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let mut state = self.lock();
        let fault = state.queue.pop_front().unwrap_or(Fault::None);
        state.seen.push(Seen {
            at: Instant::now(),
            method: request.method().clone(),
            path: request
                .uri()
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            version: request.version(),
            headers: request.headers().clone(),
            idempotency_key: text(header::HeaderName::from_static("idempotency-key")),
            authorization: text(header::AUTHORIZATION),
            fault: fault.clone(),
        });
        fault
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Faulty {
            inner,
            faults: self.clone(),
        }
    }
}

/// The service that [`Faults`] makes. Its error is a cut connection: [`Server`](crate::Server) cuts it.
#[derive(Clone)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").finish_non_exhaustive()
    }
}

impl<S, B, R> Service<Request<B>> for Faulty<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Answer>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let fault = self.faults.arrive(&request);
        match fault {
            Fault::None | Fault::CutAfter => {
                let response = self.inner.call(request);
                Box::pin(async move {
                    let response = response.await.map_err(Into::into)?;
                    if fault == Fault::CutAfter {
                        // The work is done only when the answer is there.
                        let _ = response.into_body().collect().await;
                        return Err(cut());
                    }
                    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
                })
            }
            Fault::CutBefore => Box::pin(future::ready(Err(cut()))),
            Fault::Hang => Box::pin(future::pending()),
            Fault::RateLimited { retry_after } => {
                let response = Response::builder()
                    .status(429)
                    .header(header::RETRY_AFTER, retry_after);
                answer(request, response)
            }
            Fault::Status(status) => answer(request, Response::builder().status(status)),
            Fault::Unread(status) => {
                Box::pin(future::ready(empty(Response::builder().status(status))))
            }
            Fault::Redirect { status, to } => {
                let response = Response::builder()
                    .status(status)
                    .header(header::LOCATION, to);
                answer(request, response)
            }
        }
    }
}

/// Reads the request, then answers in the service's place.
fn answer<B>(
    request: Request<B>,
    response: http::response::Builder,
) -> Pin<Box<dyn Future<Output = Result<Response<Answer>, BoxError>> + Send>>
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    Box::pin(async move {
        let _ = request.into_body().collect().await;
        empty(response)
    })
}

fn empty(response: http::response::Builder) -> Result<Response<Answer>, BoxError> {
    let empty = Empty::new().map_err(|never| match never {});
    Ok(response.body(empty.boxed_unsync())?)
}

fn cut() -> BoxError {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection cut").into()
}
