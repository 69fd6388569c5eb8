//! Lets requests leave at the pace of the plan, so that the server has no reason to refuse one.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

mod bucket;
mod clock;
mod credit;
mod cut;
mod jump;
mod neighbours;
mod pacer;
mod pause;
mod queue;
mod ring;
mod rule;
mod said;
mod shared;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod time;
mod view;
mod window;

pub use self::rule::{Mode, Rule};
use self::shared::{InFlight, Place, Shared};
use crate::{origin::Origin, plan::Plan};

/// A client-side token bucket, matched to a [`Plan`] and shared by all services that one layer makes.
///
/// At most as many requests as the plan allows arrive at the server in any 60 seconds, whatever window it counts in and
/// however long requests take: they leave in even steps, first come first served, and none leaves while as many as the
/// plan allows are on their way or were answered within the last minute. A 429 pauses all clones until its hint has
/// passed; then one request goes ahead alone. So does the very first one.
///
/// A place in the queue is taken in `poll_ready`; the token itself is taken at the instant of sending, never earlier, so
/// it can't grow old. A service that is ready but not called within 50 ms may be passed by the next, and its call then
/// waits in its future. A dropped service or future leaves the queue.
///
/// The layer acts for Ploton's own [`Origin`], and for URIs without an authority: requests for others wait in no queue
/// beyond `poll_ready`, take no token, and their answers are not looked at. Inside [`PlotonRetry`](crate::PlotonRetry)
/// each attempt takes a token; outside it, each logical request does. It needs a tokio runtime with time enabled.
///
/// A hint of more than an hour counts as an hour, so that a nonsense one stops nobody for ever. A
/// [`Deadline`](crate::Deadline) is not looked at: [`PlotonRetry`](crate::PlotonRetry) outside this layer gives up when it
/// passes, except while the first attempt is still in `poll_ready`.
///
/// # Errors
///
/// The service's error is a [`BoxError`]: the inner service's own.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ploton::{Plan, PlotonRateLimit};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let limit = PlotonRateLimit::new(Plan::Prototyping);
/// let handle = limit.handle();
/// let service = ServiceBuilder::new()
///     .layer(limit)
///     .service(service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(()))));
///
/// for _ in 0..3 {
///     service.clone().oneshot(Request::get("/v1/tasks").body(())?).await?;
/// }
/// assert_eq!(handle.snapshot().limit, 100);
/// assert_eq!(handle.snapshot().remaining, 97);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonRateLimit {
    shared: Arc<Shared>,
    origin: Arc<Origin>,
}

impl PlotonRateLimit {
    /// As many requests a minute as `plan` allows. Clones of the layer, and all services that it makes, share them.
    pub fn new(plan: Plan) -> Self {
        Self {
            shared: Arc::new(Shared::new(plan.requests_per_minute())),
            origin: Arc::new(Origin::default()),
        }
    }

    /// The origin whose requests are limited, in the place of `https://api.ploton.ai`.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Arc::new(origin);
        self
    }

    /// Shows what the limiter does, and changes its plan; works before and after services were made.
    #[must_use]
    pub fn handle(&self) -> RateLimitHandle {
        RateLimitHandle {
            shared: self.shared.clone(),
        }
    }

    fn acts_for<B>(&self, request: &Request<B>) -> bool {
        let uri = request.uri();
        uri.authority().is_none() || self.origin.contains(uri)
    }
}

impl<S> Layer<S> for PlotonRateLimit {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService {
            inner,
            place: Place::new(self.shared.clone()),
            layer: self.clone(),
        }
    }
}

/// Shows what a [`PlotonRateLimit`] does, and changes its plan.
#[derive(Clone, Debug)]
pub struct RateLimitHandle {
    shared: Arc<Shared>,
}

impl RateLimitHandle {
    /// The limiter as it is now.
    #[must_use]
    pub fn snapshot(&self) -> RateLimitSnapshot {
        self.shared.snapshot()
    }

    /// Changes the plan, for those who wait too.
    pub fn set_plan(&self, plan: Plan) {
        self.shared.set_plan(plan.requests_per_minute());
    }
}

/// A [`PlotonRateLimit`] at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimitSnapshot {
    /// Requests a minute that the plan allows.
    pub limit: u32,
    /// How many more would be within the plan now; they leave one after the other.
    pub remaining: u32,
    /// Requests on their way.
    pub in_flight: u32,
    /// Places taken in the queue.
    pub waiting: usize,
    /// Until when nothing leaves; `Some` after a 429.
    pub paused_until: Option<Instant>,
    /// The rule that would hold back a request now; `None` where one could leave.
    pub held_by: Option<Rule>,
}

/// The service that [`PlotonRateLimit`] makes. A clone shares the bucket, never a place in the queue.
#[derive(Debug)]
pub struct RateLimitService<S> {
    inner: S,
    place: Place,
    layer: PlotonRateLimit,
}

impl<S: Clone> Clone for RateLimitService<S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            place: self.place.another(),
            layer: self.layer.clone(),
        }
    }
}

impl<S, B, R> Service<Request<B>> for RateLimitService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Own queue first: no readiness of the inner service is held while a token is awaited.
        ready!(self.place.poll_turn(cx));
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let state = if !self.layer.acts_for(&request) {
            self.place.leave();
            State::Sent {
                response: self.inner.call(request),
                in_flight: None,
            }
        } else if let Some(in_flight) = self.place.take_token() {
            State::Sent {
                response: self.inner.call(request),
                in_flight: Some(in_flight),
            }
        } else {
            // The inner service's readiness is given back: the clone has none.
            let service = self.inner.clone();
            self.inner = service.clone();
            let another = self.place.another();
            State::Waiting {
                place: mem::replace(&mut self.place, another),
                service,
                request: Some(request),
            }
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The future of [`RateLimitService`]; dropping it cancels the request and leaves the queue.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, S::Future, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, B> {
        /// The token was taken when its turn came, or none was needed.
        Sent { #[pin] response: F, in_flight: Option<InFlight> },
        /// The service was passed in the queue before it was called, or called without its turn.
        Waiting { place: Place, service: S, request: Option<Request<B>> },
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let sent = match state.as_mut().project() {
                // Sent => done
                StateProj::Sent {
                    response,
                    in_flight,
                } => {
                    let result = ready!(response.poll(cx));
                    if let (Ok(response), Some(in_flight)) = (&result, in_flight.take()) {
                        in_flight.answered(response.status(), response.headers());
                    }
                    return Poll::Ready(result.map_err(Into::into));
                }
                // Waiting => (Waiting | Sent | done)
                StateProj::Waiting {
                    place,
                    service,
                    request,
                } => {
                    ready!(place.poll_turn(cx));
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        place.leave();
                        return Poll::Ready(Err(error.into()));
                    }
                    let Some(in_flight) = place.take_token() else {
                        *service = service.clone();
                        continue;
                    };
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    State::Sent {
                        response: service.call(request),
                        in_flight: Some(in_flight),
                    }
                }
            };
            state.set(sent);
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = matches!(self.state, State::Waiting { .. });
        f.debug_struct("ResponseFuture")
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}
