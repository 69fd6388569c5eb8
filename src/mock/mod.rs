//! A fake Ploton, to test against: in memory or on a loopback port.
//!
//! [`FakePloton`] behaves as the API's reference page says. It has tasks (create, get, list, cancel), keys, the page's
//! errors, idempotency keys for 24 hours, rate limits, a limit on running tasks, and [faults](Fault) on demand or by
//! chance. It records what reached it, so that a test can count.
//!
//! It tells time by tokio's clock, so that a test with paused time sees minutes pass at once.
//!
//! # What the page leaves open
//!
//! - Rate limits are per account: all keys share one. A request without a valid key costs nothing, a replay costs one.
//! - An idempotency key belongs to its `Authorization` value and its path. Only answers that are 2xx are stored; a key that
//!   comes again with another body gets a 422 `invalid_request`. A replay has `Idempotent-Replayed: true`.
//! - An unknown endpoint is a 404 `invalid_request`, and so is an unknown method.
//! - A `Content-Type` other than JSON is refused, a missing one is not.
//! - Tasks are listed in the order of their creation.
//!
//! # Example
//!
//! ```
//! use {
//!     bytes::Bytes,
//!     http::{Request, StatusCode},
//!     http_body_util::Full,
//!     tower::ServiceExt,
//!     tower_ploton::mock::{FakePloton, Fault},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let fake = FakePloton::new();
//! fake.fail_next(Fault::CutAfter);
//!
//! let create = || {
//!     Request::post("https://api.ploton.ai/v1/tasks")
//!         .header("authorization", "Bearer pk_test_4f9d0c2b")
//!         .header("idempotency-key", "invoice-42")
//!         .body(Full::new(Bytes::from(r#"{"prompt":"Pay invoice 42"}"#)))
//! };
//! assert!(fake.clone().oneshot(create()?).await.is_err());
//! let again = fake.clone().oneshot(create()?).await?;
//! assert_eq!(again.status(), StatusCode::CREATED);
//! assert_eq!(again.headers()["idempotent-replayed"], "true");
//! assert_eq!(fake.counts().created, 1);
//! # Ok(())
//! # }
//! ```

#![allow(
    clippy::result_large_err,
    reason = "a refusal is an answer like any other, and nobody counts a fake's nanoseconds"
)]

mod answer;
mod body;
mod fault;
mod keys;
mod limit;
mod record;
mod replay;
mod server;
mod state;
mod tasks;

use std::{
    fmt,
    future::{self, Future},
    io,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use {
    bytes::Bytes,
    http::{Request, Response, StatusCode},
    http_body::Body,
    http_body_util::{BodyExt, LengthLimitError, Limited},
    tokio::time::Instant,
    tower::{BoxError, Service},
};

use self::{
    answer::{Answer, ErrorCode},
    limit::Limiter,
    state::State,
};
pub use self::{
    body::FakeBody,
    fault::Fault,
    limit::RateLimitModel,
    record::{Attempt, Counts, Outcome},
    server::FakeServer,
    state::RateHeaders,
    tasks::{TaskRecord, TaskStatus},
};
use crate::{Plan, headers::date::Wall};

/// The longest request body that is read.
const MAX_BODY: usize = 1024 * 1024;

/// A fake Ploton: a tower service, and a server with [`listen`](Self::listen).
///
/// Clones are the same Ploton: they share settings, tasks and records, so a setting can be changed while a clone is in use.
///
/// As a service it ignores the host it is called by, except that plain HTTP to a host that is not this machine is a 400. It is
/// always ready. Its error is an [`io::Error`]: a connection that was cut, or a request body that failed.
#[derive(Clone)]
pub struct FakePloton {
    state: Arc<Mutex<State>>,
    start: Instant,
}

impl FakePloton {
    /// A Ploton that takes every well-formed key, has no limits, and never fails.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(0))),
            start: Instant::now(),
        }
    }

    /// Takes `key`, and only the keys named so.
    #[must_use]
    pub fn accept_key(self, key: impl Into<String>) -> Self {
        self.set(|state| state.keys.accept(&key.into()))
    }

    /// Limits the rate by `model`, afresh. None by default.
    #[must_use]
    pub fn rate_limit(self, model: RateLimitModel) -> Self {
        let start = self.start;
        self.set(|state| state.limiter = Some(Limiter::new(model, start)))
    }

    /// Says on which answers the rate headers are sent. Always by default.
    #[must_use]
    pub fn rate_headers(self, when: RateHeaders) -> Self {
        self.set(|state| state.rate_headers = when)
    }

    /// Lets at most `limit` tasks run at once. No limit by default.
    #[must_use]
    pub fn concurrent_tasks(self, limit: impl Into<Option<NonZeroU32>>) -> Self {
        self.set(|state| state.concurrent_tasks = limit.into())
    }

    /// Answers a task too many with `status`. 429 by default, with a `Retry-After` of 1 second.
    #[must_use]
    pub fn refuse_tasks_with(self, status: StatusCode) -> Self {
        self.set(|state| state.task_refusal = status)
    }

    /// Has the limits of `plan`: its requests in fixed windows of a minute, and its concurrent tasks.
    #[must_use]
    pub fn plan(self, plan: Plan) -> Self {
        self.rate_limit(RateLimitModel::for_plan(plan))
            .concurrent_tasks(plan.concurrent_tasks())
    }

    /// Completes each task created from now on after `duration`. By default a task runs until it is cancelled or
    /// [finished](Self::finish).
    #[must_use]
    pub fn task_duration(self, duration: impl Into<Option<Duration>>) -> Self {
        self.set(|state| state.task_duration = duration.into())
    }

    /// Draws the faults of [`fault_rate`](Self::fault_rate) from `seed`. 0 by default.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.set(|state| state.faults.seed(seed))
    }

    /// Lets each attempt suffer `fault` with this probability, of 0 to 1. Of several rates, each is drawn in the order
    /// given, until one hits.
    #[must_use]
    pub fn fault_rate(self, fault: Fault, probability: f64) -> Self {
        self.set(|state| state.faults.rate(fault, probability))
    }

    /// Delays every answer, after the work is done. Zero by default.
    #[must_use]
    pub fn latency(self, latency: Duration) -> Self {
        self.set(|state| state.latency = latency)
    }

    /// Whether a 5xx of [`Fault::Status`] given to a POST with an `Idempotency-Key` is stored, and replayed to whoever comes
    /// with this key. `false` by default.
    #[must_use]
    pub fn replay_errors(self, replay: bool) -> Self {
        self.set(|state| state.replay_errors = replay)
    }

    /// Sets the server's clock to `time`. This machine's by default.
    #[must_use]
    pub fn clock(self, time: SystemTime) -> Self {
        self.set(|state| state.wall = Wall::set(time, Instant::now()))
    }

    /// Lets the next attempt that arrives suffer `fault`; called again, the one after it, and so on.
    pub fn fail_next(&self, fault: Fault) {
        self.with(|state| state.faults.queue(fault));
    }

    /// Takes `key` no longer.
    pub fn revoke_key(&self, key: &str) {
        self.revoke_key_after(key, Duration::ZERO);
    }

    /// Takes `key` for `grace` yet, and then no longer, as when it was replaced.
    pub fn revoke_key_after(&self, key: &str, grace: Duration) {
        let at = limit::later(Instant::now(), grace);
        self.with(|state| state.keys.revoke(key, at));
    }

    /// Completes a task; `false` if no task of this id runs.
    #[allow(clippy::must_use_candidate, reason = "the change is what counts")]
    pub fn finish(&self, id: &str) -> bool {
        self.with(|state| state.tasks.end(id, TaskStatus::Complete, Instant::now()))
    }

    /// Lets a task fail; `false` if no task of this id runs.
    #[allow(clippy::must_use_candidate, reason = "the change is what counts")]
    pub fn fail(&self, id: &str) -> bool {
        self.with(|state| state.tasks.end(id, TaskStatus::Failed, Instant::now()))
    }

    /// Every attempt so far, in the order of arrival.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.with(|state| state.attempts.clone())
    }

    /// Every task so far, in the order of creation.
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskRecord> {
        self.with(|state| state.tasks.records(Instant::now()))
    }

    /// The sums over all attempts and tasks so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.with(|state| Counts::of(&state.attempts, &state.tasks.records(Instant::now())))
    }

    /// Serves on a free port of 127.0.0.1, until the [`FakeServer`] is dropped.
    ///
    /// # Errors
    ///
    /// The port can't be opened.
    pub async fn listen(&self) -> io::Result<FakeServer> {
        self.listen_on((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Serves on `addr`, until the [`FakeServer`] is dropped.
    ///
    /// # Errors
    ///
    /// The port can't be opened.
    pub async fn listen_on(&self, addr: SocketAddr) -> io::Result<FakeServer> {
        FakeServer::listen(self.clone(), addr).await
    }

    async fn serve<B>(self, request: Request<B>) -> io::Result<Response<FakeBody>>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let arrival = self.with(|state| state.arrive(&head, Instant::now()));
        match arrival.fault {
            Some(Fault::CutBefore) => {
                self.with(|state| state.end(&arrival, Outcome::CutBefore));
                return Err(cut());
            }
            Some(Fault::Hang) => return future::pending().await,
            _ => {}
        }
        let body = read(body).await?;
        let (answer, latency) = self.with(|state| {
            let answer = state.work(&arrival, &head, body, Instant::now());
            (answer, state.latency)
        });
        let delay = match arrival.fault {
            Some(Fault::Delay(delay)) => latency.saturating_add(delay),
            _ => latency,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let outcome = match arrival.fault {
            Some(Fault::CutAfter) => Outcome::CutAfter,
            Some(Fault::TruncatedBody) => Outcome::Truncated,
            _ => Outcome::Answered(answer.status),
        };
        self.with(|state| state.end(&arrival, outcome));
        if outcome == Outcome::CutAfter {
            return Err(cut());
        }
        Ok(answer.into_response(outcome == Outcome::Truncated))
    }

    fn set(self, change: impl FnOnce(&mut State)) -> Self {
        self.with(change);
        self
    }

    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for FakePloton {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FakePloton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakePloton").finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for FakePloton
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<FakeBody>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Response<FakeBody>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        Box::pin(self.clone().serve(request))
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection cut")
}

/// Reads a request's body; an answer where it is too long, an error where it does not arrive.
async fn read<B>(body: B) -> io::Result<Result<Bytes, Answer>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(Ok(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(Answer::error(
            ErrorCode::InvalidRequest,
            "the body is longer than 1 MiB",
        ))),
        Err(error) => Err(io::Error::other(error)),
    }
}
