//! Keeps tasks waiting on this side while as many run as the plan allows.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use http::{Method, Request};
use tower::Layer;

mod events;
mod fleet;
mod handle;
mod place;
mod queue;
#[cfg(feature = "redis")]
mod redis;
mod service;
mod shared;
mod slots;
mod store;
#[cfg(test)]
mod tests;

pub use self::{
    fleet::MemorySlots,
    handle::{StoreState, TaskLimitHandle, TaskLimitSnapshot, TaskSlot},
    service::{ResponseFuture, TaskLimitService},
    store::{
        Binding, Release, Renewal, Renewed, SharedSlots, SlotName, SlotRequest, SlotsTaken,
        Standing, StoreError, StoreFuture,
    },
};
use self::{
    fleet::{Fleet, clerk::Clerk},
    shared::{Shared, Sharing},
};
pub use crate::{no_turn::NoTaskSlot, store::Outage};
use crate::{origin::Origin, plan::Plan, store::patience};

/// Lets at most as many tasks run at once as a [`Plan`] allows: a request that would create one more waits, first come
/// first served, until another has ended.
///
/// Only `POST …/tasks` at its [`Origin`] takes a slot, and so does one whose URI has no authority; everything else passes
/// untouched. A slot belongs to the task, not to the request, so somebody must say when the task has ended:
///
/// - the typed client does, of every task that it reads (feature `json`);
/// - without it, read the [`TaskSlot`] in the answer's extensions: [`bind`](TaskSlot::bind) it to the task's id and tell
///   the [handle](Self::handle) what becomes of that id, or [`release`](TaskSlot::release) it yourself.
///
/// | a request's end | its slot |
/// |---|---|
/// | 2xx | kept until its task has ended |
/// | a 4xx but 408 and 409, a failed connection, a wait that was refused, shed by tower's `load_shed`; dropped before it was sent | free at once |
/// | 3xx, 408, 409, 5xx, a cut, a timeout, dropped on its way | kept until its fate is settled: by a request with the same idempotency key, which takes no slot of its own; by a [list](TaskLimitHandle::listed) of what runs; by [`release`](TaskSlot::release) |
///
/// Every slot ends by its [time limit](Self::time_limit), counted from when its task was last heard of, so that news that
/// never come stop nobody for ever.
///
/// It belongs outside [`PlotonRetry`](crate::PlotonRetry): one slot for all attempts, and the wait for it is not part of the
/// deadline for them. Each attempt is looked at then: a 429 after a timeout frees nothing. [`PlotonStack::tasks`](crate::PlotonStack::tasks)
/// puts it outermost. A slot is taken before the token of the rate limit, which is not held by those who wait.
///
/// The layer needs a tokio runtime with time enabled.
///
/// # Errors
///
/// The service's error is a [`BoxError`](tower::BoxError): the inner service's own, or [`NoTaskSlot`] of a request that
/// waited for [`max_wait`](Self::max_wait) or until its [`Deadline`](crate::Deadline). It was not sent then.
///
/// # Bounds
///
/// The inner service is `Clone`, since a request that waits for its slot waits with a clone of its own, and its error is
/// `Into<BoxError>`, beside this layer's own. One that can't be cloned comes in through tower's `buffer`, another error
/// through `map_err` inside. Bodies are of any type.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ploton::{Plan, PlotonTaskLimit, TaskSlot};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower::BoxError> {
/// let limit = PlotonTaskLimit::new(Plan::Prototyping);
/// let handle = limit.handle();
/// let service = ServiceBuilder::new()
///     .layer(limit)
///     .service(service_fn(async |_: Request<String>| {
///         Ok::<_, Infallible>(Response::new(r#"{"id":"task_8xK2mP","status":"running"}"#))
///     }));
///
/// let request = Request::post("https://api.ploton.ai/v1/tasks").body("{}".to_owned())?;
/// let response = service.oneshot(request).await?;
/// assert_eq!(handle.snapshot().running, 1);
///
/// let slot = response.extensions().get::<TaskSlot>().expect("it was created");
/// slot.bind("task_8xK2mP"); // the id in the body
/// handle.finished("task_8xK2mP");
/// assert_eq!(handle.snapshot().running, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonTaskLimit {
    shared: Arc<Shared>,
    origin: Arc<Origin>,
    max_wait: Option<Duration>,
}

impl PlotonTaskLimit {
    /// As many tasks at once as `plan` allows. Clones of the layer, and all services that it makes, share them.
    pub fn new(plan: Plan) -> Self {
        Self::with_capacity(plan.concurrent_tasks())
    }

    /// At most `capacity` tasks at once, for example a share of the plan.
    pub fn with_capacity(capacity: NonZeroU32) -> Self {
        Self {
            shared: Arc::new(Shared::new(capacity.get())),
            origin: Arc::new(Origin::default()),
            max_wait: None,
        }
    }

    /// The origin whose tasks are counted, in the place of `https://api.ploton.ai`.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Arc::new(origin);
        self
    }

    /// How long a request waits for a slot at the most; then it fails with [`NoTaskSlot`]. Default: none, it waits.
    ///
    /// Clones may have bounds of their own, and share the slots and the queue.
    pub const fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }

    /// How long a slot is kept of whose task nothing is heard: longer than tasks run, or than the pauses in which they are
    /// asked for. It holds for all clones. Default: 1 h.
    pub fn time_limit(self, limit: Duration) -> Self {
        self.shared
            .change(|state, _, _| state.slots.set_time_limit(limit));
        self
    }

    /// Shares the capacity with other processes, or with other layers, that use the same `store`: all of them together run as
    /// many tasks as it allows.
    ///
    /// In this process it stays first come, first served; between processes slots go around in turn. One that finds none asks
    /// again by itself, after a fifth of a second at first, and later the more there are before it, up to about six seconds.
    /// No request waits for the store beyond [`max_wait`](Self::max_wait), whatever that does; see
    /// [`on_outage`](Self::on_outage). Whichever process sees a task [end](TaskLimitHandle::finished) frees its slot, and
    /// whoever holds it too hears of that within a second.
    ///
    /// | | its slots |
    /// |---|---|
    /// | a process lives | the store is told of all of them each second, so one that lost its data knows them again |
    /// | it dies | those of requests on their way are free after 30 s; those of tasks, and of requests that may have created one, when somebody sees the task end, or by the [time limit](Self::time_limit) |
    /// | it is stopped for more than 30 s | as if it died; when it goes on, it counts again with what it holds, even beyond the capacity |
    ///
    /// A store that knows nothing lets nobody begin for six seconds: those who run tasks tell it of them first. A task makes
    /// the calls; it ends with the last clone, service, handle and slot.
    ///
    /// # Example
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use http::{Request, Response};
    /// # use tower::{Layer, ServiceExt, service_fn};
    /// # use std::time::Duration;
    /// use tower_ploton::{Plan, PlotonTaskLimit, tasks::{MemorySlots, NoTaskSlot}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// let store = MemorySlots::new();
    /// let limit = || PlotonTaskLimit::new(Plan::Prototyping).shared(store.clone());
    /// let (here, there) = (limit(), limit().max_wait(Duration::from_secs(1)));
    /// # let server = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    /// # let create = || Request::post("/v1/tasks").body(());
    /// for _ in 0..10 {
    ///     here.layer(server).oneshot(create()?).await?;
    /// }
    /// let error = there.layer(server).oneshot(create()?).await.unwrap_err();
    /// assert_eq!(error.downcast::<NoTaskSlot>()?.running(), 10);
    /// # Ok(())
    /// # }
    /// ```
    pub fn shared(self, store: impl SharedSlots) -> Self {
        let shared = Arc::downgrade(&self.shared);
        // Foreign code is not run under the lock.
        let patience = patience(store.call_timeout());
        let before = self.shared.change(|state, _, _| {
            // Of 53 bits, which a store that counts in floating-point numbers keeps apart too.
            let process = rand::random::<u64>() >> 11;
            state.sharing.replace(Box::new(Sharing {
                fleet: Fleet::new(process, state.outage),
                clerk: Clerk::new(Arc::new(store), patience, shared),
            }))
        });
        // It says farewell to its store, which is foreign code, and not run under the lock.
        drop(before);
        self
    }

    /// What becomes of requests when the shared store has given no answer for a second. Default: [`Outage::Share`], as many
    /// tasks as the capacity divided by the processes that were there. Whoever runs more already keeps them, so that all together may run
    /// more than the capacity until those have ended.
    pub fn on_outage(self, outage: Outage) -> Self {
        self.shared.change(|state, _, _| {
            state.outage = outage;
            if let Some(sharing) = &mut state.sharing {
                sharing.fleet.set_outage(outage);
            }
        });
        self
    }

    /// Tells the layer what becomes of tasks, and shows its slots; works before and after services were made.
    #[must_use]
    pub fn handle(&self) -> TaskLimitHandle {
        TaskLimitHandle {
            shared: self.shared.clone(),
        }
    }

    fn acts_for<B>(&self, request: &Request<B>) -> bool {
        let uri = request.uri();
        request.method() == Method::POST
            && uri.path().trim_end_matches('/').ends_with("/tasks")
            && (uri.authority().is_none() || self.origin.contains(uri))
    }
}

impl<S> Layer<S> for PlotonTaskLimit {
    type Service = TaskLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TaskLimitService::new(inner, Some(self.clone()))
    }
}
