//! A store of slots that is not always there, and what a server counts then.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time::sleep};
use tower::{Layer, ServiceExt, service_fn};

use super::{
    service::create,
    shared::{MILLISECOND, SECOND, limit},
};
use crate::{
    TaskSlot,
    tasks::{
        Binding, MemorySlots, Outage, Release, Renewal, Renewed, SharedSlots, SlotRequest,
        SlotsTaken, StoreError, StoreFuture,
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Fine,
    /// Carries calls out, and answers none.
    Silent,
    /// Does nothing, and says so.
    Refusing,
    /// Any of these, after up to 150 ms.
    Moody,
    /// Does all, in 150 ms.
    Far,
}

/// A store that is not always there.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) slots: MemorySlots,
    /// How long a call may take.
    pub(super) timeout: Duration,
    mood: Arc<Mutex<Mood>>,
    random: Arc<Mutex<StdRng>>,
    pub(super) calls: Arc<AtomicU32>,
}

impl Store {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slots: MemorySlots::new(),
            timeout: MILLISECOND * 100,
            mood: Arc::new(Mutex::new(Mood::Fine)),
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            calls: Arc::default(),
        }
    }

    pub(super) fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut mood = *self.mood.lock().unwrap();
        if mood == Mood::Moody {
            let (before, after) = {
                let mut random = self.random.lock().unwrap();
                mood = match random.random_range(0..10) {
                    0 => Mood::Silent,
                    1 => Mood::Refusing,
                    _ => Mood::Fine,
                };
                (random.random_range(0..75), random.random_range(0..75))
            };
            sleep(MILLISECOND * before).await;
            let answer = self.answer(mood, call).await;
            sleep(MILLISECOND * after).await;
            return answer;
        }
        self.answer(mood, call).await
    }

    async fn answer<T>(
        &self,
        mood: Mood,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match mood {
            Mood::Refusing => Err(StoreError::new("away")),
            Mood::Silent => {
                let _ = call.await;
                std::future::pending().await
            }
            Mood::Far => {
                sleep(MILLISECOND * 75).await;
                let answer = call.await;
                sleep(MILLISECOND * 75).await;
                answer
            }
            _ => call.await,
        }
    }
}

impl SharedSlots for Store {
    fn take(&self, ask: SlotRequest) -> StoreFuture<'_, SlotsTaken> {
        Box::pin(self.call(self.slots.take(ask)))
    }

    fn renew(&self, renewal: Renewal) -> StoreFuture<'_, Renewed> {
        Box::pin(self.call(self.slots.renew(renewal)))
    }

    fn bind(&self, binding: Binding) -> StoreFuture<'_, bool> {
        Box::pin(self.call(self.slots.bind(binding)))
    }

    fn release(&self, release: Release) -> StoreFuture<'_, ()> {
        Box::pin(self.call(self.slots.release(release)))
    }

    fn call_timeout(&self) -> Duration {
        self.timeout
    }
}

/// What a server would count, in whatever comes: lost calls and answers, slow ones, stores that lose all, requests that fail
/// or are dropped, tasks whose end another process sees.
#[tokio::test(start_paused = true)]
async fn no_more_tasks_than_the_capacity_run_whatever_becomes_of_the_calls() {
    for seed in 0..6 {
        let store = Store::new(seed);
        store.is(Mood::Moody);
        let limits = [(); 4].map(|()| limit(5, &store).on_outage(Outage::Wait));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let total = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for caller in 0..24_u64 {
            let limit = limits[caller as usize % 4].clone();
            let other = limits[(caller as usize + 1) % 4].handle();
            let (running, most, total) = (running.clone(), most.clone(), total.clone());
            let mut random = StdRng::seed_from_u64(seed * 100 + caller);
            callers.spawn(async move {
                for round in 0.. {
                    let task = format!("task_{caller}_{round}");
                    let (patience, takes) =
                        (random.random_range(0..3_000), random.random_range(0..2_000));
                    let how = random.random_range(0..10);
                    let takes_to_create = MILLISECOND * random.random_range(0..300);
                    let (running, most, total) = (&running, &most, &total);
                    let server = service_fn(move |_: Request<()>| async move {
                        sleep(takes_to_create).await;
                        if how == 0 {
                            let mut refusal = Response::new(());
                            *refusal.status_mut() = http::StatusCode::BAD_REQUEST;
                            return Ok::<_, Infallible>(refusal);
                        }
                        total.fetch_add(1, Ordering::Relaxed);
                        let now = running.fetch_add(1, Ordering::Relaxed) + 1;
                        most.fetch_max(now, Ordering::Relaxed);
                        Ok(Response::new(()))
                    });
                    let limit = limit.clone().max_wait(MILLISECOND * patience);
                    let Ok(response) = limit.layer(server).oneshot(create()).await else {
                        continue;
                    };
                    let Some(slot) = response.extensions().get::<TaskSlot>() else {
                        continue;
                    };
                    slot.bind(&task);
                    sleep(MILLISECOND * takes).await;
                    running.fetch_sub(1, Ordering::Relaxed);
                    if how < 5 {
                        limit.handle().finished(&task);
                    } else {
                        other.finished(&task);
                    }
                }
            });
        }
        for minute in 1..=4 {
            sleep(15 * SECOND).await;
            if minute == 2 {
                store.slots.clear();
            }
        }
        let (most, total) = (most.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
        assert!(most <= 5, "seed {seed}: {most}");
        assert!(total >= 20, "seed {seed}: {total}");
    }
}
