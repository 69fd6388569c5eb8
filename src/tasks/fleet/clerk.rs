//! Makes the calls of the store, in a task that ends with the last who shares the slots.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{Errand, Fleet};
use crate::{
    store::{
        in_time,
        worker::{self, Bell, Worker},
    },
    tasks::{
        events::{self, Lost},
        shared::{Shared, State},
        store::{
            Binding, Release, Renewal, Renewed, SharedSlots, SlotRequest, SlotsTaken, StoreError,
        },
    },
};

/// What the slots know of the task that makes their calls.
#[derive(Debug)]
pub(in crate::tasks) struct Clerk {
    store: Arc<dyn SharedSlots>,
    /// How long a call may take.
    patience: Duration,
    shared: Weak<Shared>,
    worker: Worker<Release>,
    /// Why the store gave no answer last; `None` once it did.
    error: Option<Arc<StoreError>>,
}

pub(in crate::tasks) type Call = worker::Call<Release>;

impl Clerk {
    pub(in crate::tasks) fn new(
        store: Arc<dyn SharedSlots>,
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

    pub(in crate::tasks) fn error(&self) -> Option<Arc<StoreError>> {
        self.error.clone()
    }

    /// Whether the task need not be told of a change: it looks for itself.
    pub(in crate::tasks) fn is_at_work(&self, now: Instant) -> bool {
        self.worker.is_at_work(now)
    }

    /// There is something to be done at `at`.
    pub(in crate::tasks) fn is_due(&mut self, at: Instant, now: Instant) -> Option<Call> {
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
    pub(in crate::tasks) fn end(&self, fleet: &mut Fleet) {
        self.worker.leave(|| fleet.leave());
    }
}

/// Makes one call at a time.
#[derive(Debug)]
struct Task {
    store: Arc<dyn SharedSlots>,
    patience: Duration,
    shared: Weak<Shared>,
    bell: Arc<Bell<Release>>,
}

impl Task {
    async fn run(self) {
        while let Some(next) = self.next() {
            match next {
                Ok(errand) => self.make(errand).await,
                Err(until) => self.bell.rest(until).await,
            }
        }
        if let Some(release) = self.bell.farewell() {
            drop(in_time(self.patience, self.store.release(release)).await);
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
            sharing.clerk.worker.works(now);
            if let Err(until) = next {
                sharing.clerk.worker.rests(until);
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
            events::store_is_back(away, waiting);
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
            let lost = Lost {
                outage,
                processes,
                share: outage.share(state.slots.capacity(), processes),
            };
            is_new.then(|| (lost, state.queue.waiting()))
        });
        if let Some((lost, waiting)) = lost {
            events::store_is_away(&error, lost, waiting);
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
        if let Some(shared) = self.shared.upgrade() {
            shared.with_sharing(|sharing| {
                if self.is_of(&sharing.clerk) {
                    sharing.clerk.worker.is_gone();
                }
            });
        }
    }
}
