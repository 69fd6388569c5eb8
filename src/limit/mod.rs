//! Lets requests leave at the pace of the plan, so that the server has no reason to refuse one.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tower::Layer;

mod bucket;
mod clock;
mod credit;
mod cut;
mod events;
mod fleet;
mod handle;
mod in_flight;
mod jump;
mod neighbours;
mod pacer;
mod pause;
mod place;
mod queue;
#[cfg(feature = "redis")]
mod redis;
mod ring;
mod rule;
mod said;
mod service;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod tickets;
mod time;
mod view;
mod wait;
mod window;

use self::{
    fleet::clerk::Clerk,
    place::{Bounds, Place},
    shared::Shared,
};
pub use self::{
    fleet::{MemoryStore, outage::Outage},
    handle::{RateLimitHandle, RateLimitSnapshot, Reported, StoreState},
    rule::{Mode, Rule},
    service::{RateLimitService, ResponseFuture},
    store::{
        Lease, LeaseRequest, Pause, Seen, SharedStore, StoreError, StoreFuture, StoreTime, Turn,
        Unused, WindowSeen,
    },
};
pub use crate::no_turn::{DeadlineTooSoon, QueueFull, WaitTooLong};
use crate::{origin::Origin, plan::Plan, store::patience};

#[cfg(doc)]
#[doc = include_str!("../../docs/rate-limit.md")]
pub mod rules {}

/// A client-side token bucket, matched to a [`Plan`], fed by the server's rate headers and shared by all services that one
/// layer makes.
///
/// Requests are [`Paced`](Mode::Paced) to begin with: at most as many as the plan allows arrive at the server in any 60
/// seconds, whatever window it counts in and however long requests take. They leave in even steps, first come first
/// served, and none leaves while as many as the plan allows are on their way or were answered within the last minute. After
/// idleness a few leave at once. Where the headers prove that the server counts in [windows](Mode::Window), what is left
/// of one leaves at once, and never more than the server's own Remaining. Where they show that others use the same key,
/// it is [`Shared`](Mode::Shared): the less is left, the longer the steps. A 429 pauses all clones until its hint has
/// passed; then one request goes ahead alone. So does the very first one. All [the
/// rules](rules), and what becomes of them on each kind of server, have a page of their own.
///
/// A place in the queue is taken in `poll_ready`; the token itself is taken at the instant of sending, never earlier, so
/// it can't grow old. A service that is ready but not called within 50 ms may be passed by the next, and its call then
/// waits in its future. A dropped service or future leaves the queue.
///
/// The layer acts for Ploton's own [`Origin`], and for URIs without an authority: requests for others wait in no queue
/// beyond `poll_ready`, take no token, and their answers are not looked at. Inside [`PlotonRetry`](crate::PlotonRetry)
/// each attempt takes a token; outside it, each logical request does. It needs a tokio runtime with time enabled.
///
/// A hint of more than an hour counts as an hour, so that a nonsense one stops nobody for ever.
///
/// # Who need not wait
///
/// [`max_wait`](Self::max_wait) and [`max_waiting`](Self::max_waiting) bound the queue, and a request whose
/// [`Deadline`](crate::Deadline) is before its turn fails at once. `poll_ready` knows no request, and its error would mean
/// that the service is dead. So a service that may not wait says that it is ready, and its call fails; and a deadline
/// counts from the call on.
///
/// tower's `load_shed` outside sheds whatever is not ready: everything that would have to wait at all. Behind tower's
/// `buffer` one request at a time asks for its turn, so there the buffer's size is the bound.
///
/// # Errors
///
/// The service's error is a [`BoxError`](tower::BoxError): the inner service's own, or of a request that did not wait
/// [`QueueFull`], [`WaitTooLong`] or [`DeadlineTooSoon`]. It was not sent then, and took no token.
///
/// # Bounds
///
/// The inner service is `Clone`, since a request that was passed in the queue waits with a clone of its own, and its error
/// is `Into<BoxError>`, beside this layer's own. One that can't be cloned comes in through tower's `buffer`, another error
/// through `map_err` inside. Bodies are of any type.
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
    bounds: Bounds,
}

impl PlotonRateLimit {
    /// As many requests a minute as `plan` allows. Clones of the layer, and all services that it makes, share them.
    pub fn new(plan: Plan) -> Self {
        Self {
            shared: Arc::new(Shared::new(plan.requests_per_minute())),
            origin: Arc::new(Origin::default()),
            bounds: Bounds::default(),
        }
    }

    /// Learns the plan from the server: begins with the smallest, [`Plan::Prototyping`], and takes what `X-RateLimit-Limit`
    /// says once a whole window of that size is seen to open. Limit alone is not believed, since it may be the size of a
    /// burst.
    pub fn learn() -> Self {
        let layer = Self::new(Plan::Prototyping);
        layer.shared.change(|state, _, _| state.bucket.learn());
        layer
    }

    /// The origin whose requests are limited, in the place of `https://api.ploton.ai`.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Arc::new(origin);
        self
    }

    /// How long a request waits for its turn at the most. One that would wait longer, or has, fails with [`WaitTooLong`].
    /// Default: none, it waits.
    ///
    /// Clones may have bounds of their own, and share the rate and the queue.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::{convert::Infallible, time::Duration};
    /// # use http::{Request, Response};
    /// # use tokio::time::Instant;
    /// # use tower::{Layer, ServiceExt, service_fn};
    /// use tower_ploton::{Plan, PlotonRateLimit, limit::WaitTooLong};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// let batch = PlotonRateLimit::new(Plan::Production);
    /// let interactive = batch.clone().max_wait(Duration::from_secs(5));
    ///
    /// batch.handle().pause_until(Instant::now() + Duration::from_secs(30));
    /// # let server = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    /// let service = interactive.layer(server);
    /// let error = service.oneshot(Request::get("/v1/tasks").body(())?).await.unwrap_err();
    /// let error = error.downcast::<WaitTooLong>()?;
    /// assert_eq!(error.wait(), Duration::from_secs(30));
    /// # Ok(())
    /// # }
    /// ```
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.bounds.max_wait = Some(wait);
        self
    }

    /// How many wait for their turn at the most. One more fails with [`QueueFull`]; with 0 nobody waits. Default: none,
    /// all wait.
    pub const fn max_waiting(mut self, waiting: usize) -> Self {
        self.bounds.max_waiting = Some(waiting);
        self
    }

    /// How many leave at once after idleness, at the most. Default: a quarter of the plan where answers carry rate headers,
    /// a twentieth where they don't.
    ///
    /// It holds for all clones, services and handles, since they share it. So do the settings below.
    pub fn burst(self, most: NonZeroU32) -> Self {
        self.shared.change(|state, _, _| state.bucket.burst(most));
        self
    }

    /// Goes by the plan alone, and believes no rate headers. Of a 429 or a 503 it still obeys `Retry-After`; a Reset is a
    /// rate header, so after a 429 without `Retry-After` it waits for a whole window. Default: it reads them.
    pub fn without_headers(self) -> Self {
        self.shared
            .change(|state, _, _| state.bucket.without_headers());
        self
    }

    /// How long the server's window is, for another server than Ploton's: as many requests as the plan names are let
    /// through in each. From 1 ms to a day. Default: 60 s.
    ///
    /// # Example
    ///
    /// ```
    /// use std::{num::NonZeroU32, time::Duration};
    /// use tower_ploton::{Origin, Plan, PlotonRateLimit};
    ///
    /// // 20 requests in 2 s.
    /// let plan = Plan::Enterprise {
    ///     requests_per_minute: NonZeroU32::new(20).unwrap(),
    ///     concurrent_tasks: NonZeroU32::MIN,
    /// };
    /// let limit = PlotonRateLimit::new(plan)
    ///     .window(Duration::from_secs(2))
    ///     .origin(Origin::parse("https://other.example")?);
    /// # Ok::<(), tower_ploton::InvalidOrigin>(())
    /// ```
    pub fn window(self, window: Duration) -> Self {
        self.shared
            .change(|state, _, _| state.bucket.set_window(window));
        self
    }

    /// Whether a 503 with a `Retry-After` pauses all requests, as a 429 does. Default: yes.
    pub fn pause_on_503(self, pause: bool) -> Self {
        self.shared
            .change(|state, _, _| state.pauses_on_503 = pause);
        self
    }

    /// Shares the plan with other processes, or with other layers, that use the same `store`: all of them together send what
    /// it allows, in even steps, and each about as much as the others, as far as it has so much to send. None waits in its
    /// own queue longer than the bounds say, whatever the store does; see [`on_outage`](Self::on_outage).
    ///
    /// Each process goes by tokens that it leases from the store, ahead of their time where requests wait. One that is there
    /// when a token comes uses it; nothing is saved up for bursts, but what an even pace could not use any more of a window
    /// of the server, where its answers prove that it counts in windows. A 429 that one sees pauses all, as soon as each has
    /// asked the store again: within a second, if it sends much. [What the rules become](rules) is on their page. A task makes
    /// the calls; it ends with the last clone, service and handle.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use http::{Request, Response};
    /// # use tower::{Layer, ServiceExt, service_fn};
    /// use tower_ploton::{Plan, PlotonRateLimit, limit::MemoryStore};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// let store = MemoryStore::new();
    /// let limits = [(); 2].map(|()| PlotonRateLimit::new(Plan::Production).shared(store.clone()));
    /// # let server = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    /// for limit in &limits {
    ///     let service = limit.layer(server);
    ///     service.oneshot(Request::get("/v1/tasks").body(())?).await?;
    /// }
    /// let state = limits[1].handle().snapshot().store.unwrap();
    /// assert_eq!((state.processes, state.away_since), (2, None));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shared(self, store: impl SharedStore) -> Self {
        let shared = Arc::downgrade(&self.shared);
        // Foreign code is not run under the lock.
        let patience = patience(store.call_timeout());
        let before = self.shared.change(|state, _, _| {
            let clerk = Clerk::new(Arc::new(store), patience, shared);
            let before = state.clerk.replace(clerk);
            if let (Some(clerk), Some(fleet)) = (&before, state.bucket.fleet_mut()) {
                clerk.end(fleet);
            }
            // Of 53 bits, which a store that counts in floating-point numbers keeps apart too.
            let process = rand::random::<u64>() >> 11;
            state.bucket.share(process, state.outage);
            if let Some(fleet) = state.bucket.fleet_mut() {
                fleet.set_patience(patience);
            }
            before
        });
        // It says farewell to its store, which is foreign code, and not run under the lock.
        drop(before);
        self
    }

    /// What becomes of requests while the shared store gives no answer. Default: [`Outage::Share`].
    pub fn on_outage(self, outage: Outage) -> Self {
        self.shared.change(|state, _, _| {
            state.outage = outage;
            if let Some(fleet) = state.bucket.fleet_mut() {
                fleet.set_outage(outage);
            }
        });
        self
    }

    /// Shows what the limiter does, and changes its plan; works before and after services were made.
    #[must_use]
    pub fn handle(&self) -> RateLimitHandle {
        RateLimitHandle {
            shared: self.shared.clone(),
        }
    }
}

impl<S> Layer<S> for PlotonRateLimit {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let place = Place::new(self.shared.clone(), self.bounds);
        RateLimitService::new(inner, place, self.origin.clone())
    }
}
