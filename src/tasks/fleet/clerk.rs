//! Makes the calls of the store, in a task that ends with the last who shares the slots.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tracing::field;

use super::{Errand, Fleet};
use crate::tasks::{
    shared::{Shared, State},
    store::{Binding, Release, Renewal, Renewed, SharedSlots, SlotRequest, SlotsTaken, StoreError},
};

/// What the slots know of the task that makes their calls.
#[derive(Debug)]
pub(in crate::tasks) struct Clerk {
    store: Arc<dyn SharedSlots>,
    bell: Arc<Bell>,
    shared: Weak<Shared>,
    at: At,
    /// Since when the task works, if it does.
    since: Instant,
    /// Why the store gave no answer last; `None` once it did.
    error: Option<Arc<StoreError>>,
}

/// Where the task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// It was not started yet, or its runtime ended.
    Nowhere,
    /// It looks for itself when it has done what it does.
    Work,
    /// It sleeps until then, or until the bell rings.
    Rest(Option<Instant>),
}

#[derive(Debug, Default)]
struct Bell {
    rung: Notify,
    /// The last thing to be done; `Some` when all who shared the slots are gone.
    farewell: Mutex<Option<Release>>,
}

/// The task is to be started, or woken: once the lock is released.
#[derive(Debug)]
#[must_use]
pub(in crate::tasks) enum Call {
    Start(Task, Handle),
    Ring(Ringing),
}

#[derive(Debug)]
pub(in crate::tasks) struct Ringing(Arc<Bell>);

impl Call {
    pub(in crate::tasks) fn make(self) {
        match self {
            Self::Start(task, runtime) => drop(runtime.spawn(task.run())),
            Self::Ring(Ringing(bell)) => bell.rung.notify_one(),
        }
    }
}

impl Clerk {
    pub(in crate::tasks) fn new(store: Arc<dyn SharedSlots>, shared: Weak<Shared>) -> Self {
        Self {
            store,
            bell: Arc::default(),
            shared,
            at: At::Nowhere,
            since: Instant::now(),
            error: None,
        }
    }

    pub(in crate::tasks) fn error(&self) -> Option<Arc<StoreError>> {
        self.error.clone()
    }

    /// Whether the task need not be told of a change: it looks for itself.
    pub(in crate::tasks) fn is_at_work(&self, now: Instant) -> bool {
        self.at == At::Work && !self.is_stuck(now)
    }

    /// Whether what the task has to do is long overdue: nobody drives its runtime.
    fn is_stuck(&self, now: Instant) -> bool {
        let due = match self.at {
            At::Work => self.since,
            At::Rest(Some(by_itself)) => by_itself,
            At::Nowhere | At::Rest(None) => return false,
        };
        now.saturating_duration_since(due) > STUCK
    }

    /// There is something to be done at `at`.
    pub(in crate::tasks) fn is_due(&mut self, at: Instant, now: Instant) -> Option<Call> {
        if self.is_stuck(now) && Handle::try_current().is_ok() {
            // Whenever that one goes on, it sees that there is another.
            self.bell = Arc::default();
            self.at = At::Nowhere;
        }
        match self.at {
            At::Work => None,
            At::Rest(Some(by_itself)) if by_itself <= at => None,
            At::Rest(_) => {
                self.works(now);
                Some(Call::Ring(Ringing(self.bell.clone())))
            }
            At::Nowhere => {
                // Without a runtime, as where a handle is used outside of it, it waits for somebody who has one.
                let runtime = Handle::try_current().ok()?;
                self.works(now);
                let task = Task {
                    store: self.store.clone(),
                    bell: self.bell.clone(),
                    shared: self.shared.clone(),
                };
                Some(Call::Start(task, runtime))
            }
        }
    }

    const fn works(&mut self, now: Instant) {
        self.at = At::Work;
        self.since = now;
    }

    /// Nobody is there any more.
    pub(in crate::tasks) fn end(&self, fleet: &mut Fleet) {
        if self.at == At::Nowhere {
            return;
        }
        let farewell = self.bell.farewell.lock();
        *farewell.unwrap_or_else(PoisonError::into_inner) = Some(fleet.leave());
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.bell.rung.notify_one();
    }
}

/// Makes one call at a time.
#[derive(Debug)]
pub(in crate::tasks) struct Task {
    store: Arc<dyn SharedSlots>,
    bell: Arc<Bell>,
    shared: Weak<Shared>,
}

impl Task {
    async fn run(self) {
        while let Some(next) = self.next() {
            match next {
                Ok(errand) => self.make(errand).await,
                Err(None) => self.bell.rung.notified().await,
                Err(Some(at)) => {
                    let rung = self.bell.rung.notified();
                    // Either is a reason to look again.
                    drop(timeout_at(at, rung).await);
                }
            }
        }
        let farewell = self.bell.farewell.lock();
        let farewell = farewell.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(release) = farewell {
            drop(timeout(PATIENCE, self.store.release(release)).await);
        }
    }

    /// What to do now, or until when to rest; `None` when all who shared the slots are gone.
    fn next(&self) -> Option<Result<Errand, Option<Instant>>> {
        let shared = self.shared.upgrade()?;
        shared.change(|state, now, wakers| {
            // Whoever was called up and did nothing is passed first, and wants no slot then.
            let outlook = state.outlook(now);
            state.queue.serve(outlook, wakers);
            let demand = state.demand();
            let State { slots, sharing, .. } = state;
            let sharing = sharing
                .as_mut()
                .filter(|sharing| self.is_of(&sharing.clerk))?;
            let next = sharing.fleet.next(slots, demand, now);
            let next = next.map(|due| sharing.fleet.begin(due, slots, demand, now));
            sharing.clerk.works(now);
            if let Err(until) = next {
                sharing.clerk.at = At::Rest(until);
            }
            Some(next)
        })
    }

    /// The store may have been changed for another.
    fn is_of(&self, clerk: &Clerk) -> bool {
        Arc::ptr_eq(&self.bell, &clerk.bell)
    }

    async fn make(&self, errand: Errand) {
        let asked = Instant::now();
        let call = async {
            Ok(match errand {
                Errand::Take(ask) => Answer::Taken(ask, self.store.take(ask).await?),
                Errand::Renew(renewal) => {
                    let renewed = self.store.renew(renewal.clone()).await?;
                    Answer::Renewed(renewal, renewed)
                }
                Errand::Bind(binding) => {
                    let runs = self.store.bind(binding.clone()).await?;
                    Answer::Bound(binding, runs)
                }
                Errand::Release(release) => {
                    self.store.release(release).await?;
                    Answer::Released
                }
            })
        };
        let answer = timeout(PATIENCE, call).await;
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        match answer {
            Ok(Ok(answer)) => self.answered(&shared, answer, asked),
            Ok(Err(error)) => self.failed(&shared, error),
            Err(_) => self.failed(&shared, StoreError::late(NoAnswer)),
        }
    }

    fn answered(&self, shared: &Shared, answer: Answer, asked: Instant) {
        let back = shared.change(|state, now, _| {
            let State { slots, sharing, .. } = state;
            let sharing = sharing
                .as_mut()
                .filter(|sharing| self.is_of(&sharing.clerk))?;
            sharing.clerk.error = None;
            let fleet = &mut sharing.fleet;
            let mut since = None;
            match answer {
                Answer::Taken(ask, taken) => {
                    fleet.taken(ask, taken, asked, now, rand::random());
                }
                Answer::Renewed(renewal, renewed) => {
                    since = fleet.renewed(&renewal, &renewed, asked, now);
                    for task in &renewed.ended {
                        slots.finished(task);
                    }
                }
                Answer::Bound(binding, runs) => {
                    fleet.bound(&binding, runs);
                    if !runs {
                        slots.finished(&binding.task);
                    }
                }
                Answer::Released => fleet.released(now),
            }
            let away = now.saturating_duration_since(since?);
            Some((away, state.queue.waiting()))
        });
        if let Some((away, waiting)) = back {
            let away_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(away_ms, waiting, "the store of task slots answers again");
        }
    }

    fn failed(&self, shared: &Shared, error: StoreError) {
        let error = Arc::new(error);
        let lost = shared.change(|state, now, _| {
            let sharing = state.sharing.as_mut();
            let sharing = sharing.filter(|sharing| self.is_of(&sharing.clerk))?;
            let is_new = sharing.fleet.failed(now);
            sharing.clerk.error = Some(error.clone());
            let (outage, processes) = (sharing.fleet.outage(), sharing.fleet.sharers());
            let share = outage.share(state.slots.capacity(), processes);
            is_new.then(|| (outage, processes, share, state.queue.waiting()))
        });
        if let Some((outage, processes, share, waiting)) = lost {
            tracing::warn!(
                error = error.source().map(field::display),
                on_outage = %outage,
                processes,
                share,
                waiting,
                "the store of task slots gives no answer: until it does, at most this share of tasks is begun"
            );
        }
    }
}

enum Answer {
    Taken(SlotRequest, SlotsTaken),
    Renewed(Renewal, Renewed),
    Bound(Binding, bool),
    Released,
}

impl Drop for Task {
    fn drop(&mut self) {
        // Its runtime ends: the next who is there starts another.
        if let Some(shared) = self.shared.upgrade() {
            shared.with_sharing(|sharing| {
                if self.is_of(&sharing.clerk) {
                    sharing.clerk.at = At::Nowhere;
                }
            });
        }
    }
}

#[derive(Debug)]
struct NoAnswer;

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {} ms", PATIENCE.as_millis())
    }
}

impl Error for NoAnswer {}

/// How long a call may take.
const PATIENCE: Duration = Duration::from_millis(100);
/// A task that is so much later than that, or than its timer, may never go on.
const STUCK: Duration = Duration::from_secs(2);
