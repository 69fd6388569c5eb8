//! The service that waits for its turn, and its future.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{BoxError, Service};

use super::{events, in_flight::InFlight, place::Place};
use crate::{logical::LogicalRequest, origin::Origin};

/// The service that [`PlotonRateLimit`](super::PlotonRateLimit) makes. A clone shares the bucket, never a place in the queue.
#[derive(Debug)]
pub struct RateLimitService<S> {
    inner: S,
    place: Place,
    /// `Some` where it was ready to say that it does not wait.
    refused: Option<BoxError>,
    origin: Arc<Origin>,
}

impl<S> RateLimitService<S> {
    pub(super) const fn new(inner: S, place: Place, origin: Arc<Origin>) -> Self {
        Self {
            inner,
            place,
            refused: None,
            origin,
        }
    }

    fn acts_for<B>(&self, request: &Request<B>) -> bool {
        let uri = request.uri();
        uri.authority().is_none() || self.origin.contains(uri)
    }
}

impl<S: Clone> Clone for RateLimitService<S> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.place.another(),
            self.origin.clone(),
        )
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
        // wait is no error of the service, so the call says it, and waits for nothing else either.
        self.refused = ready!(self.place.poll_turn(None, cx)).err();
        if self.refused.is_some() {
            return Poll::Ready(Ok(()));
        }
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let refused = self.refused.take();
        if !self.acts_for(&request) {
            let state = self.unlimited(request, refused.is_some());
            return ResponseFuture { state };
        }
        if let Some(error) = refused {
            let state = State::refused(error);
            return ResponseFuture { state };
        }
        let deadline = LogicalRequest::deadline(request.extensions());
        // The usual case stands here, so that the request is moved but once.
        let state = match self.place.take_token(&request, deadline) {
            Ok(Some(in_flight)) => State::Sent {
                response: self.inner.call(request),
                in_flight: Some(in_flight),
            },
            not_sent => self.not_sent(request, deadline, not_sent.err()),
        };
        ResponseFuture { state }
    }
}

impl<S> RateLimitService<S> {
    /// It waits on in its future, or may not wait.
    #[cold]
    fn not_sent<B>(
        &mut self,
        request: Request<B>,
        deadline: Option<Instant>,
        error: Option<BoxError>,
    ) -> State<S, S::Future, B>
    where
        S: Service<Request<B>> + Clone,
    {
        // The inner service's readiness is given back: the clone has none.
        let service = self.inner.clone();
        self.inner = service.clone();
        if let Some(error) = error {
            return State::refused(error);
        }
        let another = self.place.another();
        State::Waiting {
            place: mem::replace(&mut self.place, another),
            deadline,
            service,
            request: Some(Box::new(request)),
        }
    }

    /// `unready`: the inner service was not asked whether it is ready.
    fn unlimited<B>(&mut self, request: Request<B>, unready: bool) -> State<S, S::Future, B>
    where
        S: Service<Request<B>> + Clone,
    {
        self.place.leave();
        if unready {
            return State::Unready {
                service: self.inner.clone(),
                request: Some(Box::new(request)),
            };
        }
        State::Sent {
            response: self.inner.call(request),
            in_flight: None,
        }
    }
}

impl<S, F, B> State<S, F, B> {
    fn refused(error: BoxError) -> Self {
        events::rejected(&error);
        Self::Refused { error: Some(error) }
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

// What waits is boxed: every future is as large as the largest of its states.
pin_project! {
    #[project = StateProj]
    enum State<S, F, B> {
        /// The token was taken when its turn came, or none was needed.
        Sent { #[pin] response: F, in_flight: Option<InFlight> },
        /// The service was passed in the queue before it was called, or called without its turn.
        Waiting { place: Place, deadline: Option<Instant>, service: S, request: Option<Box<Request<B>>> },
        /// For another origin, through a service that asked for no readiness because it may not wait.
        Unready { service: S, request: Option<Box<Request<B>>> },
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
                    ready!(place.poll_turn(*deadline, cx)).inspect_err(events::rejected)?;
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        place.leave();
                        return Poll::Ready(Err(error.into()));
                    }
                    let Some(waiting) = request.take() else {
                        return Poll::Pending;
                    };
                    let taken = place.take_token(&waiting, *deadline);
                    let Some(in_flight) = taken.inspect_err(events::rejected)? else {
                        *request = Some(waiting);
                        *service = service.clone();
                        continue;
                    };
                    State::Sent {
                        response: service.call(*waiting),
                        in_flight: Some(in_flight),
                    }
                }
                // Unready => (Sent | done)
                StateProj::Unready { service, request } => {
                    ready!(service.poll_ready(cx)).map_err(Into::into)?;
                    let Some(request) = request.take() else {
                        return Poll::Pending;
                    };
                    State::Sent {
                        response: service.call(*request),
                        in_flight: None,
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
