//! A store on a network that can be slow, and away.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tower_ploton::limit::{
    Lease, LeaseRequest, MemoryStore, Pause, SharedStore, StoreError, StoreFuture, Unused,
};

/// A store as one process reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// Shared by all who reach it.
    store: Arc<Mutex<MemoryStore>>,
    /// How long each way takes: one of these after the other.
    ways: &'static [u64],
    /// How long a call may take.
    timeout: Duration,
    calls: Arc<Mutex<Calls>>,
}

#[derive(Debug, Default)]
struct Calls {
    made: u32,
    /// Calls fail from the one to the other.
    away: Option<(Instant, Instant)>,
    failure: Failure,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Failure {
    #[default]
    Refused,
    /// No answer at all.
    Silent,
    /// It is carried out, but the answer is lost.
    Answerless,
}

impl Remote {
    pub(crate) fn new(ways: &'static [u64]) -> Self {
        Self {
            store: Arc::default(),
            ways,
            timeout: Duration::from_millis(100),
            calls: Arc::default(),
        }
    }

    /// One that is waited for so long.
    pub(crate) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The same store, from another place.
    pub(crate) fn by(&self, ways: &'static [u64]) -> Self {
        Self {
            ways,
            ..self.another()
        }
    }

    /// The same store, as another process reaches it.
    pub(crate) fn another(&self) -> Self {
        Self {
            calls: Arc::default(),
            ..self.clone()
        }
    }

    /// All is lost.
    pub(crate) fn forget(&self) {
        self.store().clear();
    }

    /// All is lost, and the clock is set back.
    pub(crate) fn begin_anew(&self) {
        *self.store.lock().unwrap() = MemoryStore::new();
    }

    pub(crate) fn away(&self, from: Instant, to: Instant, failure: Failure) {
        let mut calls = self.calls.lock().unwrap();
        calls.away = Some((from, to));
        calls.failure = failure;
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls.lock().unwrap().made
    }

    fn store(&self) -> MemoryStore {
        self.store.lock().unwrap().clone()
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let (way, away, failure) = {
            let mut calls = self.calls.lock().unwrap();
            calls.made += 1;
            let now = Instant::now();
            let away = calls.away.is_some_and(|(from, to)| from <= now && now < to);
            (
                self.ways[calls.made as usize % self.ways.len()],
                away,
                calls.failure,
            )
        };
        sleep(Duration::from_millis(way)).await;
        match failure {
            _ if !away => {}
            Failure::Refused => return Err(StoreError::new("connection refused")),
            Failure::Silent => sleep(Duration::from_secs(3_600)).await,
            Failure::Answerless => {
                drop(call.await);
                return Err(StoreError::new("connection reset"));
            }
        }
        let answer = call.await;
        sleep(Duration::from_millis(way)).await;
        answer
    }
}

impl SharedStore for Remote {
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'_, Lease> {
        Box::pin(self.call(async move { self.store().lease(ask).await }))
    }

    fn pause(&self, pause: Pause) -> StoreFuture<'_, ()> {
        Box::pin(self.call(async move { self.store().pause(pause).await }))
    }

    fn give_back(&self, unused: Unused) -> StoreFuture<'_, ()> {
        Box::pin(self.call(async move { self.store().give_back(unused).await }))
    }

    fn call_timeout(&self) -> Duration {
        self.timeout
    }
}
