//! The service that waits for its turn, and its future.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{BoxError, Service};

use super::{PlotonRateLimit, in_flight::InFlight, place::Place};
use crate::logical::LogicalRequest;

/// The service that [`PlotonRateLimit`] makes. A clone shares the bucket, never a place in the queue.
#[derive(Debug)]
pub struct RateLimitService<S> {
    inner: S,
    place: Place,
    /// `Some` where it was ready to say that it does not wait.
    refused: Option<BoxError>,
    layer: PlotonRateLimit,
}

impl<S> RateLimitService<S> {
    pub(super) const fn new(inner: S, place: Place, layer: PlotonRateLimit) -> Self {
        Self {
            inner,
            place,
            refused: None,
            layer,
        }
    }
}

impl<S: Clone> Clone for RateLimitService<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.place.another(), self.layer.clone())
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
        // Own queue first: no readiness of the inner service is held while a token is awaited. That one request may not
        // wait is no error of the service, so the call says it.
        self.refused = ready!(self.place.poll_turn(None, cx)).err();
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let refused = self.refused.take();
        let state = if !self.layer.acts_for(&request) {
            self.place.leave();
            State::Sent {
                response: self.inner.call(request),
                in_flight: None,
            }
        } else if let Some(in_flight) = self.place.take_token(&request) {
            State::Sent {
                response: self.inner.call(request),
                in_flight: Some(in_flight),
            }
        } else {
            // The inner service's readiness is given back: the clone has none.
            let service = self.inner.clone();
            self.inner = service.clone();
            let another = self.place.another();
            match refused {
                Some(error) => State::Refused { error: Some(error) },
                None => State::Waiting {
                    place: mem::replace(&mut self.place, another),
                    deadline: LogicalRequest::deadline(request.extensions()),
                    service,
                    request: Some(request),
                },
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
        Waiting { place: Place, deadline: Option<Instant>, service: S, request: Option<Request<B>> },
        /// It may not wait.
        Refused { error: Option<BoxError> },
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
                    deadline,
                    service,
                    request,
                } => {
                    ready!(place.poll_turn(*deadline, cx))?;
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        place.leave();
                        return Poll::Ready(Err(error.into()));
                    }
                    let Some(waiting) = request.take() else {
                        return Poll::Pending;
                    };
                    let Some(in_flight) = place.take_token(&waiting) else {
                        *request = Some(waiting);
                        *service = service.clone();
                        continue;
                    };
                    State::Sent {
                        response: service.call(waiting),
                        in_flight: Some(in_flight),
                    }
                }
                // Refused => done
                StateProj::Refused { error } => {
                    return error
                        .take()
                        .map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
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
