//! Makes the calls of the store, in a task that ends with the last who shares the limiter.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{Errand, Fleet, Heard, outage::Outage};
use crate::{
    limit::{
        events,
        shared::{Shared, State},
        store::{SharedStore, StoreError, Unused},
    },
    store::{
        in_time,
        worker::{self, Bell, Worker},
    },
};

/// What the limiter knows of the task that makes its calls.
#[derive(Debug)]
pub(in crate::limit) struct Clerk {
    store: Arc<dyn SharedStore>,
    /// How long a call may take.
    patience: Duration,
    shared: Weak<Shared>,
    worker: Worker<Unused>,
    /// Why the store gave no answer last; `None` once it did.
    error: Option<Arc<StoreError>>,
}

pub(in crate::limit) type Call = worker::Call<Unused>;

impl Clerk {
    pub(in crate::limit) fn new(
        store: Arc<dyn SharedStore>,
        patience: Duration,
        shared: Weak<Shared>,
    ) -> Self {
        Self {
            store,
            patience,
            shared,
            worker: Worker::new(),
            error: None,
        }
    }

    pub(in crate::limit) fn error(&self) -> Option<Arc<StoreError>> {
        self.error.clone()
    }

    /// Whether the task need not be told of a change: it looks for itself.
    pub(in crate::limit) fn is_at_work(&self, now: Instant) -> bool {
        self.worker.is_at_work(now)
    }

    /// There is something to be done at `at`.
    pub(in crate::limit) fn is_due(&mut self, at: Instant, now: Instant) -> Option<Call> {
        self.worker.is_due(at, now, |bell| {
            let task = Task {
                store: self.store.clone(),
                patience: self.patience,
                shared: self.shared.clone(),
                bell,
            };
            task.run()
        })
    }

    /// Nobody is there any more.
    pub(in crate::limit) fn end(&self, fleet: &Fleet) {
        self.worker.leave(|| fleet.leave(Instant::now()));
    }
}

/// Makes one call at a time.
#[derive(Debug)]
struct Task {
    store: Arc<dyn SharedStore>,
    patience: Duration,
    shared: Weak<Shared>,
    bell: Arc<Bell<Unused>>,
}

impl Task {
    async fn run(self) {
        while let Some(next) = self.next() {
            match next {
                Ok(errand) => self.make(errand).await,
                Err(until) => self.bell.rest(until).await,
            }
        }
        if let Some(unused) = self.bell.farewell() {
            drop(in_time(self.patience, self.store.give_back(unused)).await);
        }
    }

    /// What to do now, or until when to rest; `None` when all who shared the limiter are gone.
    fn next(&self) -> Option<Result<Errand, Option<Instant>>> {
        let shared = self.shared.upgrade()?;
        shared.with_fleet(|state, now| {
            let clerk = state.clerk.as_mut().filter(|clerk| self.is_of(clerk))?;
            let next = state.bucket.errand(state.queue.len(), now);
            clerk.worker.works(now);
            if let Err(until) = next {
                clerk.worker.rests(until);
            }
            if let (Ok(errand), Some(fleet)) = (next, state.bucket.fleet_mut()) {
                fleet.begin(errand);
            }
            Some(next)
        })
    }

    /// The store may have been changed for another.
    fn is_of(&self, clerk: &Clerk) -> bool {
        clerk.worker.is(&self.bell)
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
        let answer = in_time(self.patience, call).await;
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        match answer {
            Ok(answer) => self.answered(&shared, answer, asked),
            Err(error) => self.failed(&shared, error),
        }
    }

    fn answered(&self, shared: &Shared, answer: Answer, asked: Instant) {
        let told = shared.change(|state, now, _| {
            let clerk = state.clerk.as_mut().filter(|clerk| self.is_of(clerk))?;
            clerk.error = None;
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
            Some((back, pause, state.queue.waiting()))
        });
        let Some((back, pause, waiting)) = told else {
            return;
        };
        if let Some(away) = back {
            events::store_is_back(away, waiting);
        }
        if let Some(pause) = pause {
            events::paused_by_another(pause, waiting);
        }
    }

    fn failed(&self, shared: &Shared, error: StoreError) {
        let lossy = !error.is_late();
        let error = Arc::new(error);
        let told = shared.change(|state, now, _| {
            let clerk = state.clerk.as_mut().filter(|clerk| self.is_of(clerk))?;
            clerk.error = Some(error.clone());
            let is_new = state.bucket.store_failed(lossy, now);
            let waiting = state.queue.waiting();
            let lost = state.bucket.fleet().filter(|_| is_new).map(Lost::new);
            lost.zip(Some(waiting))
        });
        if let Some((lost, waiting)) = told {
            events::store_is_away(&error, lost, waiting);
        }
    }
}

enum Answer {
    Leased(super::LeaseRequest, super::Lease),
    Paused(super::Pause),
    Taken,
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
        if let Some(shared) = self.shared.upgrade() {
            shared.with_fleet(|state: &mut State, _| {
                if let Some(clerk) = state.clerk.as_mut().filter(|clerk| self.is_of(clerk)) {
                    clerk.worker.is_gone();
                }
            });
        }
    }
}
