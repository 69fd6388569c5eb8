//! One logical request on its way: attempts, and the delays between them.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{BoxError, Service};

use super::{discarded::Discarded, progress::Progress};
use crate::logical::Watch;

pin_project! {
    /// The future of [`RetryService`](super::RetryService); dropping it cancels the request.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S::Future, R>,
        // `Some` once something had to wait: the deadline while an attempt is on its way, the delay between two. Boxed,
        // since a request that waits for nothing is larger by it.
        timer: Option<Pin<Box<Sleep>>>,
        service: S,
        progress: Progress<B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, R> {
        /// An attempt is on its way.
        Sent { #[pin] response: F },
        /// The delay before the next attempt; what is left of the last answer is read meanwhile, and a little longer.
        Waiting { until: Instant, #[pin] discarded: Discarded<R> },
        /// Back to the executor once: a drained HTTP/1 connection returns to its pool in a task of its own.
        Yielding,
        /// The next attempt waits until the service is ready again.
        GettingReady,
        /// The first attempt came too late: after its deadline, or with a key that is too old.
        TooLate,
    }
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    /// The first attempt was sent by `service`.
    #[inline(always)]
    pub(super) fn sent(response: S::Future, service: S, progress: Progress<B>) -> Self {
        Self {
            state: State::Sent { response },
            timer: None,
            service,
            progress,
        }
    }

    /// The first attempt was not sent.
    pub(super) fn too_late(service: S, progress: Progress<B>) -> Self {
        Self {
            state: State::TooLate,
            timer: None,
            service,
            progress,
        }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let progress = this.progress;
        let _entered = progress.enter();
        // To a retry layer outside, all attempts of this one are one.
        let watch = Watch::begin();
        loop {
            let next = match this.state.as_mut().project() {
                // Sent => (Waiting | done)
                StateProj::Sent { response } => {
                    watch.look();
                    let polled = {
                        let _entered = progress.enter_attempt();
                        response.poll(cx)
                    };
                    let seen = watch.seen();
                    progress.key_was_chosen(seen.key_chosen);
                    let Poll::Ready(result) = polled else {
                        // A timer that ends the attempt before the deadline is enough.
                        if seen.ends_by.is_some_and(|end| progress.is_in_time(end)) {
                            return Poll::Pending;
                        }
                        ready!(poll_deadline(progress.deadline(), this.timer, cx));
                        return Poll::Ready(Err(progress.attempt_too_long()));
                    };
                    let result = result.map_err(Into::into);
                    if progress.succeeds(&result) {
                        return Poll::Ready(result);
                    }
                    let now = Instant::now();
                    let Some(until) = progress.send_again_at(&result, now) else {
                        return Poll::Ready(progress.done(result, now));
                    };
                    let deadline = progress.deadline();
                    State::Waiting {
                        until,
                        discarded: Discarded::new(result.ok(), now, until, deadline),
                    }
                }
                // Waiting => Yielding
                StateProj::Waiting {
                    until,
                    mut discarded,
                } => {
                    let now = Instant::now();
                    discarded.as_mut().poll_drain(cx, now);
                    let delay = (now < *until).then_some(*until);
                    if let Some(wake) = discarded.gives_up().or(delay) {
                        ready!(poll_until(this.timer, wake, cx));
                        continue;
                    }
                    State::Yielding
                }
                // Yielding => GettingReady
                StateProj::Yielding => {
                    this.state.set(State::GettingReady);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // GettingReady => (Sent | done)
                StateProj::GettingReady => {
                    let Poll::Ready(result) = this.service.poll_ready(cx) else {
                        ready!(poll_deadline(progress.deadline(), this.timer, cx));
                        return Poll::Ready(Err(progress.deadline_passed()));
                    };
                    if let Err(error) = result {
                        return Poll::Ready(Err(progress.failed(error.into())));
                    }
                    let service = &mut *this.service;
                    let now = Instant::now();
                    let Some(response) = progress.send_again(now, |request| service.call(request))
                    else {
                        return Poll::Ready(Err(progress.deadline_passed()));
                    };
                    State::Sent { response }
                }
                // TooLate => done
                StateProj::TooLate => return Poll::Ready(Err(progress.not_sent())),
            };
            this.state.set(next);
        }
    }
}

fn poll_deadline(
    deadline: Option<Instant>,
    timer: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    match deadline {
        Some(deadline) => poll_until(timer, deadline, cx),
        None => Poll::Pending,
    }
}

/// Polls the one timer, moved to `until` first where it stands elsewhere.
fn poll_until(
    timer: &mut Option<Pin<Box<Sleep>>>,
    until: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
    if timer.deadline() != until {
        timer.as_mut().reset(until);
    }
    timer.as_mut().poll(cx)
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("attempts", &self.progress.made())
            .finish_non_exhaustive()
    }
}
