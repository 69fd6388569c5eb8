//! Slots for the layers of one process.

use std::{
    future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

use super::ledger::Ledger;
use crate::tasks::store::{
    Binding, Release, Renewal, Renewed, SharedSlots, SlotRequest, SlotsTaken, Standing, StoreError,
    StoreFuture,
};

/// [`SharedSlots`] in memory: for several layers in one process that use one account, and for tests. Clones share them.
///
/// Layers that can be clones of each other need none: clones share their slots anyway, and their queue too.
#[derive(Clone, Debug)]
pub struct MemorySlots {
    ledger: Arc<Mutex<Ledger>>,
    start: Instant,
}

impl MemorySlots {
    /// A store in which no slot is taken, and that knows it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ledger: Arc::new(Mutex::new(Ledger::new())),
            start: Instant::now(),
        }
    }

    /// Forgets all that was taken and who was there, as a store does that loses its data.
    pub fn clear(&self) {
        self.with(|ledger, _| *ledger = Ledger::default());
    }

    /// How it stands with all who use it.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.with(|ledger, now| ledger.standing_at(now))
    }

    fn with<T>(&self, call: impl FnOnce(&mut Ledger, u64) -> T) -> T {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let since = Instant::now().saturating_duration_since(self.start);
        let now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        call(&mut ledger, now)
    }
}

impl Default for MemorySlots {
    fn default() -> Self {
        Self::new()
    }
}

fn ready<T: Send + 'static>(answer: T) -> StoreFuture<'static, T> {
    Box::pin(future::ready(Ok::<_, StoreError>(answer)))
}

impl SharedSlots for MemorySlots {
    fn take(&self, ask: SlotRequest) -> StoreFuture<'_, SlotsTaken> {
        ready(self.with(|ledger, now| ledger.take(ask, now)))
    }

    fn renew(&self, renewal: Renewal) -> StoreFuture<'_, Renewed> {
        ready(self.with(|ledger, now| ledger.renew(renewal, now)))
    }

    fn bind(&self, binding: Binding) -> StoreFuture<'_, bool> {
        ready(self.with(|ledger, now| ledger.bind(binding, now)))
    }

    fn release(&self, release: Release) -> StoreFuture<'_, ()> {
        self.with(|ledger, now| ledger.release(release, now));
        ready(())
    }
}
