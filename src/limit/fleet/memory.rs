//! A store for the layers of one process.

use std::{
    future,
    sync::{Arc, PoisonError},
};

use tokio::time::Instant;

use super::ledger::Ledger;
use crate::{
    limit::store::{Lease, LeaseRequest, Pause, SharedStore, StoreError, StoreFuture, Unused},
    sync::{Mutex, MutexGuard},
};

/// A [`SharedStore`] in memory: for several layers in one process that use one plan, and for tests. Clones share it.
///
/// Layers that can be clones of each other need none: clones share their plan anyway, and their queue too.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    ledger: Arc<Mutex<Ledger>>,
    start: Instant,
}

impl MemoryStore {
    /// A store in which nothing is reserved.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ledger: Arc::default(),
            start: Instant::now(),
        }
    }

    /// Forgets all that was reserved and who was there, as a store does that loses its data.
    pub fn clear(&self) {
        *self.ledger() = Ledger::default();
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, call: impl FnOnce(&mut Ledger, u64) -> T) -> Result<T, StoreError> {
        let mut ledger = self.ledger();
        let since = Instant::now().saturating_duration_since(self.start);
        let now = u64::try_from(since.as_micros()).map_err(StoreError::new)?;
        Ok(call(&mut ledger, now.saturating_add(BEGINNING)))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl SharedStore for MemoryStore {
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'_, Lease> {
        let lease = self.with(|ledger, now| ledger.lease(ask, now));
        Box::pin(future::ready(lease))
    }

    fn pause(&self, pause: Pause) -> StoreFuture<'_, ()> {
        let paused = self.with(|ledger, now| ledger.pause(pause, now));
        Box::pin(future::ready(paused))
    }

    fn give_back(&self, unused: Unused) -> StoreFuture<'_, ()> {
        let given = self.with(|ledger, _| ledger.give_back(unused));
        Box::pin(future::ready(given))
    }
}

/// So that no instant is 0, which means never.
const BEGINNING: u64 = 1;
