//! The store that task slots are shared by, and what is said to it.

use std::time::Duration;

use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_ploton::{
    Plan, PlotonAuth, PlotonTaskLimit,
    mock::FakePloton,
    tasks::{
        Binding, MemorySlots, Outage, Release, Renewal, Renewed, SharedSlots, SlotName,
        SlotRequest, SlotsTaken, Standing, StoreError, StoreFuture,
    },
};

use super::{PLOTON, Shown};
use crate::{create, key};

/// A store that is never there.
#[derive(Debug)]
struct Away;

impl SharedSlots for Away {
    fn take(&self, _: SlotRequest) -> StoreFuture<'_, SlotsTaken> {
        Box::pin(async { Err(StoreError::new("connection refused")) })
    }

    fn renew(&self, _: Renewal) -> StoreFuture<'_, Renewed> {
        Box::pin(async { Err(StoreError::new("connection refused")) })
    }

    fn bind(&self, _: Binding) -> StoreFuture<'_, bool> {
        Box::pin(async { Err(StoreError::new("connection refused")) })
    }

    fn release(&self, _: Release) -> StoreFuture<'_, ()> {
        Box::pin(async { Err(StoreError::new("connection refused")) })
    }
}

pub(super) async fn show_all(shown: &mut Shown) {
    let store = MemorySlots::new();
    let limit = PlotonTaskLimit::new(Plan::Production).shared(store.clone());
    let service = limit.layer(PlotonAuth::new(key()).layer(FakePloton::new()));
    service.oneshot(create(PLOTON, "one")).await.unwrap();
    shown.show(&limit);
    shown.show(&store);
    shown.show(&limit.handle().snapshot().store.unwrap());
    shown.show(&SlotRequest::default());
    shown.show(&SlotsTaken::default());
    shown.show(&Standing::default());
    shown.show(&SlotName::Task("task_1".into()));
    shown.show(&Renewal::default());
    shown.show(&Renewed::default());
    shown.show(&Binding::new(1, 2, "task_1", Duration::ZERO));
    shown.show(&Release::default());

    let limit = PlotonTaskLimit::new(Plan::Production)
        .shared(Away)
        .on_outage(Outage::Local);
    let service = limit.layer(PlotonAuth::new(key()).layer(FakePloton::new()));
    service.oneshot(create(PLOTON, "one")).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    shown.show(&limit.handle().store_error().unwrap());
}
