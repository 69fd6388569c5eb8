//! What metrics show of a store that a plan is shared by.

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
    Plan, PlotonRateLimit, PlotonStack,
    limit::{
        Lease, LeaseRequest, MemoryStore, Pause, SharedStore, StoreError, StoreFuture, Unused,
    },
    mock::FakePloton,
};

use crate::{PLOTON, create, key, recording::Recording};

/// A store that can be away.
#[derive(Clone, Debug, Default)]
struct Store {
    memory: MemoryStore,
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

#[tokio::test(start_paused = true)]
async fn a_gauge_shows_whether_the_shared_store_answers() {
    let recording = Recording::start();
    let up = || {
        let samples = recording.scrape().samples;
        let mut samples = samples.into_iter();
        let found = samples.find(|sample| sample.name == "ploton_rate_limit_store_up");
        found.map(|sample| sample.value)
    };
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
