//! The limiter's shared store, and what is said to it.

use std::time::Duration;

use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_ploton::{
    Plan, PlotonAuth, PlotonRateLimit,
    limit::{
        Lease, LeaseRequest, MemoryStore, Outage, Pause, Seen, SharedStore, StoreError,
        StoreFuture, StoreTime, Turn, Unused, WindowSeen,
    },
    mock::FakePloton,
};

use super::{PLOTON, Shown};
use crate::{create, key};

/// A store that is never there.
#[derive(Debug)]
struct Away;

impl SharedStore for Away {
    fn lease(&self, _: LeaseRequest) -> StoreFuture<'_, Lease> {
        Box::pin(async { Err(StoreError::new("connection refused")) })
    }

    fn pause(&self, _: Pause) -> StoreFuture<'_, ()> {
        Box::pin(async { Err(StoreError::new("connection refused")) })
    }

    fn give_back(&self, _: Unused) -> StoreFuture<'_, ()> {
        Box::pin(async { Err(StoreError::new("connection refused")) })
    }
}

pub(super) async fn show_all(shown: &mut Shown) {
    let store = MemoryStore::new();
    let limit = PlotonRateLimit::new(Plan::Production).shared(store.clone());
    let service = limit.layer(PlotonAuth::new(key()).layer(FakePloton::new()));
    service.oneshot(create(PLOTON, "one")).await.unwrap();
    shown.show(&limit);
    shown.show(&store);
    shown.show(&limit.handle().snapshot().store.unwrap());
    shown.show(&LeaseRequest::default());
    shown.show(&Lease::default());
    shown.show(&Pause::default());
    shown.show(&Unused::default());
    shown.show(&Seen::default());
    shown.show(&Turn::default());
    shown.show(&WindowSeen::default());
    shown.show(&StoreTime::default());
    shown.show(&Outage::Share);

    let limit = PlotonRateLimit::new(Plan::Production)
        .shared(Away)
        .on_outage(Outage::Local);
    let service = limit.layer(PlotonAuth::new(key()).layer(FakePloton::new()));
    service.oneshot(create(PLOTON, "one")).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    shown.error::<StoreError>(&StoreError::new("connection refused").into());
    shown.show(&limit.handle().store_error().unwrap());
}
