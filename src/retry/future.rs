//! One logical request on its way: attempts, and the delays between them.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{BoxError, Service};
use tracing::{Span, field};

use super::{
    AttemptsFailed, DeadlinePassed, PlotonRetry, RetryBody,
    classify::{self, Outcome},
    discarded::Discarded,
    kept::Kept,
};
use crate::{
    headers::{self, retry_after::Hint},
    idempotency_key::IDEMPOTENCY_KEY,
    logical::Attempts,
};

pin_project! {
    /// The future of [`RetryService`](super::RetryService); dropping it cancels the request.
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S::Future, R>,
        // `Some` once something had to wait: the deadline while an attempt is on its way, the delay between two.
        #[pin]
        timer: Option<Sleep>,
        service: S,
        progress: Progress<B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, R> {
        /// An attempt is on its way.
        Sent { #[pin] response: F },
        /// The delay before the next attempt; what is left of the last answer is read meanwhile.
        Waiting { until: Instant, #[pin] discarded: Discarded<R> },
        /// Back to the executor once: a drained HTTP/1 connection returns to its pool in a task of its own.
        Yielding,
        /// The next attempt waits until the service is ready again.
        GettingReady,
        /// The deadline had passed before the first attempt.
        Expired,
    }
}

/// All that is known of the logical request; it outlives the attempts.
pub(super) struct Progress<B> {
    kept: Kept<B>,
    /// `Some` from the decision to send it again until that is done.
    again: Option<Request<B>>,
    layer: PlotonRetry,
    started: Instant,
    /// `None` where it is beyond every clock.
    deadline: Option<Instant>,
    made: u32,
    last_hint: Option<Duration>,
    last_status: Option<StatusCode>,
    span: Span,
}

/// How an attempt ended.
#[derive(Clone, Copy)]
enum End {
    Answer(StatusCode),
    /// The kind of the error, in a word: its text may hold anything.
    Error(&'static str),
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    /// `first` is `None` where it was not sent.
    pub(super) fn new(first: Option<S::Future>, service: S, mut progress: Progress<B>) -> Self {
        progress.made = u32::from(first.is_some());
        Self {
            state: match first {
                Some(response) => State::Sent { response },
                None => State::Expired,
            },
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
    B: RetryBody,
    R: Body,
{
    type Output = Result<Response<R>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let progress = this.progress;
        let span = progress.span.clone();
        let _entered = span.enter();
        loop {
            let next = match this.state.as_mut().project() {
                // Sent => (Waiting | done)
                StateProj::Sent { response } => {
                    let Poll::Ready(result) = response.poll(cx) else {
                        ready!(progress.poll_deadline(this.timer.as_mut(), cx));
                        return Poll::Ready(Err(progress.deadline_passed()));
                    };
                    let result = result.map_err(Into::into);
                    let now = Instant::now();
                    let Some(until) = progress.send_again_at(&result, now) else {
                        return Poll::Ready(progress.done(result, now));
                    };
                    State::Waiting {
                        until,
                        discarded: Discarded::new(result.ok(), now),
                    }
                }
                // Waiting => Yielding
                StateProj::Waiting {
                    until,
                    mut discarded,
                } => {
                    let now = Instant::now();
                    discarded.as_mut().poll_drain(cx, now);
                    if now < *until {
                        let wake = discarded.gives_up().map_or(*until, |at| at.min(*until));
                        ready!(poll_until(this.timer.as_mut(), wake, cx));
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
                        ready!(progress.poll_deadline(this.timer.as_mut(), cx));
                        return Poll::Ready(Err(progress.deadline_passed()));
                    };
                    if let Err(error) = result {
                        return Poll::Ready(Err(progress.failed(error.into())));
                    }
                    let Some(request) = progress.again.take() else {
                        return Poll::Ready(Err(progress.failed(ALREADY_SENT.into())));
                    };
                    let service = &mut *this.service;
                    let Some(response) = progress.send(Instant::now(), || service.call(request))
                    else {
                        return Poll::Ready(Err(progress.deadline_passed()));
                    };
                    progress.made = progress.made.saturating_add(1);
                    State::Sent { response }
                }
                // Expired => done
                StateProj::Expired => return Poll::Ready(Err(progress.deadline_passed())),
            };
            this.state.set(next);
        }
    }
}

impl<B: RetryBody> Progress<B> {
    /// Decides whether there is another attempt, and when it is sent.
    fn send_again_at<R>(
        &mut self,
        result: &Result<Response<R>, BoxError>,
        now: Instant,
    ) -> Option<Instant> {
        let (outcome, end, hint) = match result {
            Ok(response) => self.look_at(response, now),
            Err(error) => {
                let (outcome, kind) = classify::error(&**error);
                (outcome, End::Error(kind), None)
            }
        };
        let may = outcome.allows_another(self.kept.is_repeatable())
            && self.made < self.kept.most_attempts;
        let again = may.then(|| self.kept.request()).flatten()?;
        let refused = outcome == Outcome::Refused;
        let retries = self.made.saturating_sub(1);
        let backoff = &self.layer.backoff;
        let delay = backoff.delay(hint, refused, retries, rand::random())?;
        let at = now.checked_add(delay)?;
        if self.deadline.is_some_and(|deadline| at >= deadline) {
            return None;
        }
        self.tell(delay, hint, end);
        self.again = Some(again);
        Some(at)
    }
}

impl<B> Progress<B> {
    pub(super) const fn new(
        kept: Kept<B>,
        layer: PlotonRetry,
        started: Instant,
        deadline: Option<Instant>,
        span: Span,
    ) -> Self {
        Self {
            kept,
            again: None,
            layer,
            started,
            deadline,
            made: 0,
            last_hint: None,
            last_status: None,
            span,
        }
    }

    /// Sends an attempt, unless the deadline has passed.
    pub(super) fn send<F>(&self, now: Instant, attempt: impl FnOnce() -> F) -> Option<F> {
        let in_time = self.deadline.is_none_or(|deadline| now < deadline);
        in_time.then(|| self.span.in_scope(attempt))
    }

    fn look_at<R>(&mut self, response: &Response<R>, now: Instant) -> (Outcome, End, Option<Hint>) {
        let (status, headers) = (response.status(), response.headers());
        let hint = headers::hint(status, headers, &self.layer.wall, now);
        self.last_status = Some(status);
        self.last_hint = hint.map(|hint| hint.wait).or(self.last_hint);
        (classify::answer(status, headers), End::Answer(status), hint)
    }

    /// Says in the span how the logical request ended; attempts on the way have events.
    fn record(&self, end: End) {
        if let Some(status) = end.status() {
            self.span.record("http.response.status_code", status);
        }
        if let Some(kind) = end.error() {
            self.span.record("error.type", kind);
        }
        if self.made > 1 {
            self.span
                .record("http.request.resend_count", self.made.saturating_sub(1));
        }
    }

    /// The one event of a retry.
    fn tell(&self, delay: Duration, hint: Option<Hint>, end: End) {
        tracing::info!(
            http.request.resend_count = self.made,
            http.response.status_code = end.status(),
            "error.type" = end.error(),
            delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            delay_from = hint.map_or("backoff", |hint| hint.source.name()),
            "sending the request again after a delay",
        );
    }

    fn done<R>(
        &self,
        result: Result<Response<R>, BoxError>,
        now: Instant,
    ) -> Result<Response<R>, BoxError> {
        match result {
            Ok(mut response) => {
                self.record(End::Answer(response.status()));
                if !response.status().is_success() {
                    response.extensions_mut().insert(self.story(now));
                }
                Ok(response)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, source: BoxError) -> BoxError {
        self.record(End::Error(classify::error(&*source).1));
        if self.made == 1 {
            return source;
        }
        let attempts = self.story(Instant::now());
        AttemptsFailed { attempts, source }.into()
    }

    fn deadline_passed(&self) -> BoxError {
        let now = Instant::now();
        self.record(End::Error("deadline"));
        DeadlinePassed {
            attempts: self.story(now),
            deadline: self
                .deadline
                .unwrap_or(now)
                .saturating_duration_since(self.started),
            last_status: self.last_status,
        }
        .into()
    }

    fn story(&self, now: Instant) -> Attempts {
        Attempts {
            made: self.made,
            elapsed: now.saturating_duration_since(self.started),
            last_hint: self.last_hint,
            idempotency_key: self.kept.idempotency_key(),
        }
    }

    fn poll_deadline(&self, timer: Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
        match self.deadline {
            Some(deadline) => poll_until(timer, deadline, cx),
            None => Poll::Pending,
        }
    }
}

/// Polls the one timer, moved to `until` first where it stands elsewhere.
fn poll_until(
    mut timer: Pin<&mut Option<Sleep>>,
    until: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    match timer.as_mut().as_pin_mut() {
        Some(sleep) if sleep.deadline() == until => {}
        Some(sleep) => sleep.reset(until),
        None => timer.set(Some(sleep_until(until))),
    }
    match timer.as_pin_mut() {
        Some(sleep) => sleep.poll(cx),
        None => Poll::Ready(()),
    }
}

impl End {
    fn status(self) -> Option<u16> {
        match self {
            Self::Answer(status) => Some(status.as_u16()),
            Self::Error(_) => None,
        }
    }

    const fn error(self) -> Option<&'static str> {
        match self {
            Self::Answer(_) => None,
            Self::Error(kind) => Some(kind),
        }
    }
}

/// The span of a logical request, with the names of OpenTelemetry's HTTP conventions. No query: it may hold anything.
pub(super) fn span<B>(request: &Request<B>, key_in_span: bool) -> Span {
    let key = request
        .headers()
        .get(IDEMPOTENCY_KEY)
        .filter(|_| key_in_span);
    tracing::info_span!(
        "request",
        http.request.method = request.method().as_str(),
        server.address = request.uri().host(),
        url.path = request.uri().path(),
        ploton.idempotency_key = key.and_then(|key| key.to_str().ok()),
        http.request.resend_count = field::Empty,
        http.response.status_code = field::Empty,
        "error.type" = field::Empty,
    )
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("attempts", &self.progress.made)
            .finish_non_exhaustive()
    }
}

/// Not to be seen: the states leave no way to it.
const ALREADY_SENT: &str = "the request was already sent again";
