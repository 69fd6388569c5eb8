//! The service that waits for a slot, and its future.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{BoxError, Service};

use super::{
    PlotonTaskLimit, events,
    place::{Call, Place},
};
use crate::{idempotency_key::IdempotencyKey, logical::LogicalRequest};

/// The service that [`PlotonTaskLimit`] makes. A clone shares the slots.
#[derive(Clone, Debug)]
pub struct TaskLimitService<S> {
    inner: S,
    /// `None` in a stack without a limit.
    layer: Option<PlotonTaskLimit>,
}

impl<S> TaskLimitService<S> {
    pub(crate) const fn new(inner: S, layer: Option<PlotonTaskLimit>) -> Self {
        Self { inner, layer }
    }
}

impl<S, B, R> Service<Request<B>> for TaskLimitService<S>
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.layer.is_none() {
            return ResponseFuture::without_slot(self.inner.call(request));
        }
        self.call_within(request)
    }
}

impl<S> TaskLimitService<S> {
    // Apart, so that a stack without a limit moves neither the request nor the future once more.
    #[inline(never)]
    fn call_within<B, R>(&mut self, mut request: Request<B>) -> ResponseFuture<S, B>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone,
    {
        let layer = self.layer.as_ref();
        let Some(layer) = layer.filter(|layer| layer.acts_for(&request)) else {
            return ResponseFuture::without_slot(self.inner.call(request));
        };
        let key = IdempotencyKey::of(request.headers());
        let key = key.or_else(|| request.extensions().get().cloned());
        let deadline = LogicalRequest::deadline(request.extensions());
        let mut place = Place::new(layer.shared.clone(), key, layer.max_wait, deadline);
        let state = match place.slot_now() {
            Ok(Some(mut call)) => {
                events::waited(&request, Duration::ZERO);
                call.send(request.extensions_mut());
                State::Sent {
                    response: self.inner.call(request),
                    call: Some(call),
                }
            }
            failed_or_later => {
                // The inner service's readiness is given back: the clone has none.
                let not_ready = self.inner.clone();
                drop(mem::replace(&mut self.inner, not_ready.clone()));
                match failed_or_later {
                    Err(error) => {
                        events::rejected();
                        State::Refused {
                            error: Some(error.into()),
                        }
                    }
                    Ok(_) => State::Waiting {
                        place,
                        service: not_ready,
                        request: Some(request),
                    },
                }
            }
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The future of [`TaskLimitService`]; dropping it cancels the request and leaves the queue. A request that was sent
    /// keeps its slot then, as nobody knows its fate.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, S::Future, B>,
    }
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    const fn without_slot(response: S::Future) -> Self {
        Self {
            state: State::Sent {
                response,
                call: None,
            },
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, B> {
        /// It waits for a slot.
        Waiting { place: Place, service: S, request: Option<Request<B>> },
        /// It has a slot, and waits until the inner service is ready.
        GettingReady { call: Option<Call>, service: S, request: Option<Request<B>> },
        /// `call` is `None` where it needs no slot.
        Sent { #[pin] response: F, call: Option<Call> },
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
            let next = match state.as_mut().project() {
                // Waiting => (GettingReady | done)
                StateProj::Waiting {
                    place,
                    service,
                    request,
                } => {
                    let slot = ready!(place.poll_slot(cx));
                    let call = slot.inspect_err(|_| events::rejected())?;
                    if let Some(request) = request {
                        events::waited(request, place.waited());
                    }
                    State::GettingReady {
                        call: Some(call),
                        service: service.clone(),
                        request: request.take(),
                    }
                }
                // GettingReady => (Sent | done)
                StateProj::GettingReady {
                    call,
                    service,
                    request,
                } => {
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        // Its slot is free: nothing was sent.
                        drop(call.take());
                        return Poll::Ready(Err(error.into()));
                    }
                    let (Some(mut request), Some(mut call)) = (request.take(), call.take()) else {
                        return Poll::Pending;
                    };
                    call.send(request.extensions_mut());
                    State::Sent {
                        response: service.call(request),
                        call: Some(call),
                    }
                }
                // Sent => done
                StateProj::Sent { response, call } => {
                    if call.is_none() {
                        return response.poll(cx).map_err(Into::into);
                    }
                    let mut result = ready!(response.poll(cx)).map_err(Into::into);
                    match (&mut result, call.take()) {
                        (Ok(response), Some(call)) => {
                            let status = response.status();
                            call.answered(status, response.extensions_mut());
                        }
                        (Err(error), Some(call)) => call.failed(error),
                        (_, None) => {}
                    }
                    return Poll::Ready(result);
                }
                // Refused => done
                StateProj::Refused { error } => {
                    return error
                        .take()
                        .map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
                }
            };
            state.set(next);
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
