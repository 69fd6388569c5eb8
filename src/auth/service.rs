//! The service that adds the key, and its future.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use http::{Request, Response, StatusCode, header::AUTHORIZATION};
use pin_project_lite::pin_project;
use tower::{BoxError, Service};

use super::{PlotonAuth, keys::Chosen, renewal};
use crate::{
    key::KeyUnavailable,
    logical::{KeyRenewed, Watch},
    origin::PlainHttpRefused,
};

/// The service that [`PlotonAuth`] makes.
#[derive(Clone, Debug)]
pub struct AuthService<S> {
    pub(super) inner: S,
    pub(super) layer: Arc<PlotonAuth>,
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
        if !self.layer.acts_for(&request) {
            let state = if self.layer.is_in_the_clear(&request) {
                // The inner service's readiness is given back: the clone has none.
                self.inner = self.inner.clone();
                State::InTheClear
            } else {
                State::Sent {
                    response: self.inner.call(request),
                    used: None,
                }
            };
            return ResponseFuture { state };
        }
        let Some(chosen) = self.layer.keys.choose(request.extensions()) else {
            // The inner service's readiness is given back: the clone has none.
            let service = self.inner.clone();
            self.inner = service.clone();
            let state = State::without_key(Unsent {
                service,
                layer: self.layer.clone(),
                request,
            });
            return ResponseFuture { state };
        };
        let generation = add_key(&mut request, &self.layer, chosen);
        ResponseFuture {
            state: State::Sent {
                response: self.inner.call(request),
                used: Some(Used::of(&self.layer, generation)),
            },
        }
    }
}

/// Adds the key to a request that is sent now, and returns its generation.
fn add_key<B>(request: &mut Request<B>, layer: &PlotonAuth, chosen: Chosen) -> u64 {
    let Chosen {
        bearer,
        generation,
        renew,
    } = chosen;
    if renew {
        renewal::in_background(&layer.keys, layer.source_timeout);
    }
    Watch::key_is_chosen();
    request.headers_mut().insert(AUTHORIZATION, bearer);
    generation
}

/// The key that a request was sent with.
struct Used {
    layer: Arc<PlotonAuth>,
    generation: u64,
}

impl Used {
    fn of(layer: &Arc<PlotonAuth>, generation: u64) -> Self {
        Self {
            layer: layer.clone(),
            generation,
        }
    }
}

/// What waits for a key.
struct Unsent<S, B> {
    service: S,
    layer: Arc<PlotonAuth>,
    request: Request<B>,
}

/// What the source will say. Nobody ever locks the lock: it makes the future around it `Sync`, whatever the source's is.
struct Waiting<T>(Mutex<Pin<Box<dyn Future<Output = Result<T, KeyUnavailable>> + Send>>>);

impl<T> Waiting<T> {
    fn on(answer: impl Future<Output = Result<T, KeyUnavailable>> + Send + 'static) -> Self {
        Self(Mutex::new(Box::pin(answer)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, KeyUnavailable>> {
        let answer = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        answer.as_mut().poll(cx)
    }
}

pin_project! {
    /// The future of [`AuthService`]; dropping it cancels the request.
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, S::Future, S::Response, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, R, B> {
        /// The request went on to the inner service; `used` is `Some` where it was given a key.
        Sent { #[pin] response: F, used: Option<Used> },
        /// Plain HTTP to the Ploton host: nothing was sent.
        InTheClear,
        /// The source is asked. `unsent` is `Some` until it answered.
        WithoutKey { answer: Waiting<()>, unsent: Option<Box<Unsent<S, B>>> },
        /// The source answered; `failure` is `Some` where it gave no key, and there may be one to go on with.
        GettingReady { unsent: Option<Box<Unsent<S, B>>>, failure: Option<KeyUnavailable> },
        /// A 401, held while the source is asked for another key. `response` is `Some` until it answered.
        Unauthorized { answer: Waiting<bool>, response: Option<Box<R>> },
    }
}

impl<S, F, R, B> State<S, F, R, B> {
    fn without_key(unsent: Unsent<S, B>) -> Self {
        let keys = unsent.layer.keys.clone();
        Self::WithoutKey {
            answer: Waiting::on(renewal::key_needed(keys, unsent.layer.source_timeout)),
            unsent: Some(Box::new(unsent)),
        }
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
                // Sent => (Unauthorized | done)
                StateProj::Sent { response, used } => {
                    let polled = response.poll(cx);
                    let is_unauthorized =
                        |response: &S::Response| response.status() == StatusCode::UNAUTHORIZED;
                    let response = match polled {
                        Poll::Ready(Ok(response)) if is_unauthorized(&response) => response,
                        polled => return polled.map_err(Into::into),
                    };
                    let Some(Used { layer, generation }) = used.take() else {
                        return Poll::Ready(Ok(response));
                    };
                    let keys = layer.keys.clone();
                    if keys.renewal.is_none() {
                        let renewed = keys.changed_since(generation);
                        return Poll::Ready(Ok(tell(response, Ok(renewed))));
                    }
                    let answer = renewal::was_refused(keys, generation, layer.source_timeout);
                    State::Unauthorized {
                        answer: Waiting::on(answer),
                        response: Some(Box::new(response)),
                    }
                }
                // InTheClear => done
                StateProj::InTheClear => {
                    return Poll::Ready(Err(PlainHttpRefused::new().into()));
                }
                // WithoutKey => GettingReady
                StateProj::WithoutKey { answer, unsent } => State::GettingReady {
                    failure: ready!(answer.poll(cx)).err(),
                    unsent: unsent.take(),
                },
                // GettingReady => (Sent | WithoutKey | done)
                StateProj::GettingReady { unsent, failure } => {
                    let Some(waiting) = unsent else {
                        return Poll::Pending;
                    };
                    let keys = &waiting.layer.keys;
                    let extensions = waiting.request.extensions();
                    if let (Some(failure), None) = (&*failure, keys.choose(extensions)) {
                        return Poll::Ready(Err(failure.clone().into()));
                    }
                    if let Err(error) = ready!(waiting.service.poll_ready(cx)) {
                        return Poll::Ready(Err(error.into()));
                    }
                    let chosen = keys.choose(waiting.request.extensions());
                    let Some(unsent) = unsent.take() else {
                        return Poll::Pending;
                    };
                    let Unsent {
                        mut service,
                        layer,
                        mut request,
                    } = *unsent;
                    match chosen {
                        Some(chosen) => {
                            let generation = add_key(&mut request, &layer, chosen);
                            State::Sent {
                                response: service.call(request),
                                used: Some(Used::of(&layer, generation)),
                            }
                        }
                        // It expired before the service was ready, whose readiness is given back.
                        None => State::without_key(Unsent {
                            service: service.clone(),
                            layer,
                            request,
                        }),
                    }
                }
                // Unauthorized => done
                StateProj::Unauthorized { answer, response } => {
                    let renewed = ready!(answer.poll(cx));
                    let Some(response) = response.take() else {
                        return Poll::Pending;
                    };
                    return Poll::Ready(Ok(tell(*response, renewed)));
                }
            };
            state.set(next);
        }
    }
}

/// Says in a 401 whether another key is in force now.
fn tell<R>(mut response: Response<R>, renewed: Result<bool, KeyUnavailable>) -> Response<R> {
    match renewed {
        Ok(true) => drop(response.extensions_mut().insert(KeyRenewed(()))),
        Ok(false) => {}
        Err(failure) => drop(response.extensions_mut().insert(failure)),
    }
    response
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Sent { .. } => "sent",
            State::InTheClear => "refused",
            State::WithoutKey { .. } => "waiting for a key",
            State::GettingReady { .. } => "getting ready",
            State::Unauthorized { .. } => "waiting for another key",
        };
        f.debug_struct("ResponseFuture")
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
