//! Makes the calls of the store, in a task that ends with the last who shares the limiter.

use std::{
    error::Error,
    fmt,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use super::{Errand, Fleet, Heard, outage::Outage};
use crate::{
    limit::{
        events,
        shared::{Shared, State},
        store::{SharedStore, StoreError, Unused},
        time::later,
    },
    sync::Mutex,
};

/// What the limiter knows of the task that makes its calls.
#[derive(Debug)]
pub(in crate::limit) struct Clerk {
    store: Arc<dyn SharedStore>,
    bell: Arc<Bell>,
    shared: Weak<Shared>,
    at: At,
    /// When the task was last given something to do.
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
    /// The last thing to be done; `Some` when all who shared the limiter are gone.
    farewell: Mutex<Option<Unused>>,
}

/// The task is to be started, or woken: once the lock is released.
#[derive(Debug)]
#[must_use]
pub(in crate::limit) enum Call {
    Start(Task, Handle),
    Ring(Ringing),
}

#[derive(Debug)]
pub(in crate::limit) struct Ringing(Arc<Bell>);

impl Call {
    pub(in crate::limit) fn make(self) {
        match self {
            Self::Start(task, runtime) => drop(runtime.spawn(task.run())),
            Self::Ring(Ringing(bell)) => bell.rung.notify_one(),
        }
    }
}

impl Clerk {
    pub(in crate::limit) fn new(store: Arc<dyn SharedStore>, shared: Weak<Shared>) -> Self {
        Self {
            store,
            bell: Arc::default(),
            shared,
            at: At::Nowhere,
            since: Instant::now(),
            error: None,
        }
    }

    pub(in crate::limit) fn error(&self) -> Option<Arc<StoreError>> {
        self.error.clone()
    }

    /// Whether the task need not be told of a change: it looks for itself.
    pub(in crate::limit) fn is_at_work(&self, now: Instant) -> bool {
        self.at == At::Work && !self.is_stuck(now)
    }

    /// Whether what the task has to do is long overdue: nobody drives its runtime.
    fn is_stuck(&self, now: Instant) -> bool {
        let due = match self.at {
            At::Work => self.since,
            At::Rest(Some(by_itself)) => by_itself,
            At::Nowhere | At::Rest(None) => return false,
        };
        later(due, STUCK) < now
    }

    /// There is something to be done at `at`.
    pub(in crate::limit) fn is_due(&mut self, at: Instant, now: Instant) -> Option<Call> {
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
                Some(Call::Start(self.task(), runtime))
            }
        }
    }

    const fn works(&mut self, now: Instant) {
        self.at = At::Work;
        self.since = now;
    }

    fn task(&self) -> Task {
        Task {
            store: self.store.clone(),
            bell: self.bell.clone(),
            shared: self.shared.clone(),
        }
    }

    /// Nobody is there any more.
    pub(in crate::limit) fn end(&self, fleet: &Fleet) {
        if self.at == At::Nowhere {
            return;
        }
        let unused = fleet.leave(Instant::now());
        let farewell = self.bell.farewell.lock();
        *farewell.unwrap_or_else(PoisonError::into_inner) = Some(unused);
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        self.bell.rung.notify_one();
    }
}

/// Makes one call at a time.
#[derive(Debug)]
pub(in crate::limit) struct Task {
    store: Arc<dyn SharedStore>,
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
        if let Some(unused) = farewell {
            drop(timeout(PATIENCE, self.store.give_back(unused)).await);
        }
    }

    /// What to do now, or until when to rest; `None` when all who shared the limiter are gone.
    fn next(&self) -> Option<Result<Errand, Option<Instant>>> {
        let shared = self.shared.upgrade()?;
        shared.with_fleet(|state, now| {
            let clerk = state.clerk.as_mut().filter(|clerk| self.is_of(clerk))?;
            let next = state.bucket.errand(state.queue.len(), now);
            clerk.works(now);
            if let Err(until) = next {
                clerk.at = At::Rest(until);
            }
            if let (Ok(errand), Some(fleet)) = (next, state.bucket.fleet_mut()) {
                fleet.begin(errand);
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
            match errand {
                Errand::Lease(ask) => {
                    let lease = self.store.lease(ask).await?;
                    Ok(Answer::Leased(ask, lease))
                }
                Errand::Pause(pause) => {
                    self.store.pause(pause).await?;
                    Ok(Answer::Paused(pause))
                }
                Errand::GiveBack(unused) => {
                    self.store.give_back(unused).await?;
                    Ok(Answer::Taken)
                }
            }
        };
        let answer = timeout(PATIENCE, call).await;
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        match answer {
            Ok(Ok(answer)) => answered(&shared, answer, asked),
            Ok(Err(error)) => failed(&shared, error),
            Err(_) => failed(&shared, StoreError::late(NoAnswer)),
        }
    }
}

enum Answer {
    Leased(super::LeaseRequest, super::Lease),
    Paused(super::Pause),
    Taken,
}

fn answered(shared: &Shared, answer: Answer, asked: Instant) {
    let (heard, pause, waiting) = shared.change(|state, now, _| {
        let heard = state.bucket.store_answered(|fleet| match answer {
            Answer::Leased(ask, lease) => fleet.leased(ask, lease, asked, now),
            Answer::Paused(pause) => Heard {
                back_since: fleet.paused(pause, asked, now),
                ..Heard::default()
            },
            Answer::Taken => Heard {
                back_since: fleet.answered(now),
                ..Heard::default()
            },
        });
        let pause = heard
            .paused_until
            .filter(|&until| state.bucket.paused_by_others(until, now));
        let pause = pause.map(|until| until.saturating_duration_since(now));
        let back = heard
            .back_since
            .map(|since| now.saturating_duration_since(since));
        if let Some(clerk) = &mut state.clerk {
            clerk.error = None;
        }
        (back, pause, state.queue.waiting())
    });
    if let Some(away) = heard {
        events::store_is_back(away, waiting);
    }
    if let Some(pause) = pause {
        events::paused_by_another(pause, waiting);
    }
}

fn failed(shared: &Shared, error: StoreError) {
    let lossy = !error.is_late();
    let error = Arc::new(error);
    let told = shared.change(|state, now, _| {
        let is_new = state.bucket.store_failed(lossy, now);
        if let Some(clerk) = &mut state.clerk {
            clerk.error = Some(error.clone());
        }
        let waiting = state.queue.waiting();
        let lost = state.bucket.fleet().filter(|_| is_new).map(Lost::new);
        lost.zip(Some(waiting))
    });
    if let Some((lost, waiting)) = told {
        events::store_is_away(&error, lost, waiting);
    }
}

/// What a process does without the store.
#[derive(Clone, Copy, Debug)]
pub(in crate::limit) struct Lost {
    pub(in crate::limit) outage: Outage,
    pub(in crate::limit) processes: u32,
    /// `None` where nothing is sent.
    pub(in crate::limit) pace: Option<Duration>,
}

impl Lost {
    fn new(fleet: &Fleet) -> Self {
        Self {
            outage: fleet.outage(),
            processes: fleet.sharers(),
            pace: fleet.pace_alone(),
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // Its runtime ends: the next who is there starts another.
        if let Some(shared) = self.shared.upgrade() {
            shared.with_fleet(|state: &mut State, _| {
                if let Some(clerk) = state.clerk.as_mut().filter(|clerk| self.is_of(clerk)) {
                    clerk.at = At::Nowhere;
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
