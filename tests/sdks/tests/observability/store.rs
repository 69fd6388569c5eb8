//! What metrics show of stores that a plan, and task slots, are shared by.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time;
use tower::{Layer, ServiceExt};
use tower_ploton::{
    Plan, PlotonRateLimit, PlotonStack, PlotonTaskLimit, TaskSlot,
    limit::{
        Lease, LeaseRequest, MemoryStore, Pause, SharedStore, StoreError, StoreFuture, Unused,
    },
    mock::FakePloton,
    tasks::{
        Binding, MemorySlots, Release, Renewal, Renewed, SharedSlots, SlotRequest, SlotsTaken,
    },
};

use crate::{PLOTON, create, key, recording::Recording};

/// A store that can be away.
#[derive(Clone, Debug, Default)]
struct Store {
    memory: MemoryStore,
    slots: MemorySlots,
    is_away: Arc<AtomicBool>,
}

impl Store {
    fn call<'a, T: Send + 'a>(&self, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        if self.is_away.load(Ordering::Relaxed) {
            return Box::pin(async { Err(StoreError::new("connection refused")) });
        }
        call
    }
}

impl SharedStore for Store {
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'_, Lease> {
        self.call(self.memory.lease(ask))
    }

    fn pause(&self, pause: Pause) -> StoreFuture<'_, ()> {
        self.call(self.memory.pause(pause))
    }

    fn give_back(&self, unused: Unused) -> StoreFuture<'_, ()> {
        self.call(self.memory.give_back(unused))
    }
}

impl SharedSlots for Store {
    fn take(&self, ask: SlotRequest) -> StoreFuture<'_, SlotsTaken> {
        self.call(self.slots.take(ask))
    }

    fn renew(&self, renewal: Renewal) -> StoreFuture<'_, Renewed> {
        self.call(self.slots.renew(renewal))
    }

    fn bind(&self, binding: Binding) -> StoreFuture<'_, bool> {
        self.call(self.slots.bind(binding))
    }

    fn release(&self, release: Release) -> StoreFuture<'_, ()> {
        self.call(self.slots.release(release))
    }
}

/// What a gauge shows; `None` where it was never set.
fn gauge(recording: &Recording, name: &str) -> Option<f64> {
    let samples = recording.scrape().samples;
    let mut found = samples.into_iter().filter(|sample| sample.name == name);
    found.next().map(|sample| sample.value)
}

#[tokio::test(start_paused = true)]
async fn a_gauge_shows_whether_the_shared_store_answers() {
    let recording = Recording::start();
    let up = || gauge(&recording, "ploton_rate_limit_store_up");
    let alone = PlotonStack::new(key(), Plan::Production);
    let alone = alone.layer(FakePloton::new());
    alone.oneshot(create(PLOTON, "one")).await.unwrap();
    assert_eq!(up(), None, "there is no store");

    let store = Store::default();
    let limit = PlotonRateLimit::new(Plan::Production).shared(store.clone());
    let stack = PlotonStack::new(key(), Plan::Production).rate_limit(limit);
    let service = stack.layer(FakePloton::new());
    for (is_away, expected) in [(false, 1.0), (true, 0.0), (false, 1.0)] {
        store.is_away.store(is_away, Ordering::Relaxed);
        for name in ["two", "three"] {
            let call = service.clone().oneshot(create(PLOTON, name));
            call.await.unwrap();
            time::sleep(Duration::from_secs(10)).await;
        }
        assert_eq!(up(), Some(expected), "away: {is_away}");
    }
}

#[tokio::test(start_paused = true)]
async fn gauges_show_whether_the_store_of_task_slots_answers_and_what_all_have_taken() {
    let recording = Recording::start();
    let up = || gauge(&recording, "ploton_task_slots_store_up");
    let taken = || gauge(&recording, "ploton_task_slots_store_taken");
    let stack = || PlotonStack::new(key(), Plan::Production);
    let alone = stack().layer(FakePloton::new());
    alone.oneshot(create(PLOTON, "one")).await.unwrap();
    assert_eq!((up(), taken()), (None, None), "there is no store");

    let store = Store::default();
    store.is_away.store(true, Ordering::Relaxed);
    let limit = || PlotonTaskLimit::new(Plan::Production).shared(store.clone());
    let (limit, other) = (limit(), limit());
    let mut calls = Vec::new();
    for (limit, name) in [(&limit, "two"), (&other, "three")] {
        let service = stack().tasks(limit.clone()).layer(FakePloton::new());
        calls.push(tokio::spawn(service.oneshot(create(PLOTON, name))));
    }
    time::sleep(Duration::from_secs(10)).await;
    assert_eq!((up(), taken()), (Some(0.0), None), "it never answered");

    store.is_away.store(false, Ordering::Relaxed);
    let mut slots = Vec::new();
    for call in calls {
        let created = call.await.unwrap().unwrap();
        slots.push(created.extensions().get::<TaskSlot>().cloned().unwrap());
    }
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!((up(), taken()), (Some(1.0), Some(2.0)));

    store.is_away.store(true, Ordering::Relaxed);
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!((up(), taken()), (Some(0.0), Some(2.0)));
    store.is_away.store(false, Ordering::Relaxed);
    slots.pop().unwrap().release();
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!((up(), taken()), (Some(1.0), Some(1.0)));
}
