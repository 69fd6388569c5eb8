//! The store in memory, as processes see it through a network: late, sometimes not at all, and sometimes without a word of
//! what became of a call.

use std::{
    future::{self, Future},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};
use tower_ploton::limit::{
    Lease, LeaseRequest, MemoryStore, Pause, SharedStore, StoreError, StoreFuture, Unused,
};

/// How far away the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Rack,
    Zones,
    Regions,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Rack, Self::Zones, Self::Regions];

    /// For a reader.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rack => "0.2–1 ms",
            Self::Zones => "1–10 ms",
            Self::Regions => "10–45 ms, 1 in 200 lost",
        }
    }

    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Rack => "rack",
            Self::Zones => "zones",
            Self::Regions => "regions",
        }
    }

    /// One way.
    fn draw(self, random: &mut StdRng) -> Duration {
        let micros = match self {
            Self::Rack => 200..=1_000,
            Self::Zones => 1_000..=10_000,
            Self::Regions => 10_000..=45_000,
        };
        Duration::from_micros(random.random_range(micros))
    }

    fn loses(self, random: &mut StdRng) -> bool {
        self == Self::Regions && random.random_ratio(1, 200)
    }
}

/// The store itself.
#[derive(Debug)]
pub(crate) struct Center {
    memory: MemoryStore,
    way: Way,
    start: Instant,
    has_outages: bool,
    calls: AtomicU64,
    random: Mutex<StdRng>,
}

impl Center {
    pub(crate) fn new(way: Way, has_outages: bool, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::new(),
            way,
            start: Instant::now(),
            has_outages,
            calls: AtomicU64::new(0),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        })
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The last 10 s of every 120 s.
    fn is_away(&self) -> bool {
        let now = Instant::now() - self.start;
        self.has_outages && now.as_secs() % 120 >= 110
    }

    fn trip(&self) -> Trip {
        let mut random = self.random.lock().unwrap();
        let there = self.way.draw(&mut random);
        let back = self.way.draw(&mut random);
        if self.is_away() {
            // A server that is gone refuses; one that hangs, or is behind a broken network, may have heard.
            return match random.random_range(0..4) {
                0 | 1 => Trip::Refused(there),
                2 => Trip::Unanswered(there),
                _ => Trip::Lost,
            };
        }
        if self.way.loses(&mut random) {
            let heard = random.random_bool(0.5);
            return if heard {
                Trip::Unanswered(there)
            } else {
                Trip::Lost
            };
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        Trip::Answered(there, back)
    }
}

#[derive(Clone, Copy, Debug)]
enum Trip {
    Answered(Duration, Duration),
    Refused(Duration),
    /// It is carried out.
    Unanswered(Duration),
    Lost,
}

/// The store as one process sees it.
#[derive(Clone, Debug)]
pub(crate) struct FarStore {
    center: Arc<Center>,
    crashed: Arc<AtomicBool>,
}

impl FarStore {
    pub(crate) fn new(center: Arc<Center>) -> Self {
        Self {
            center,
            crashed: Arc::default(),
        }
    }

    /// Nothing that the process says from now on is heard, not even its farewell.
    pub(crate) fn crash(&self) {
        self.crashed.store(true, Ordering::Relaxed);
    }

    fn call<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> StoreFuture<'_, T> {
        let trip = if self.crashed.load(Ordering::Relaxed) {
            Trip::Lost
        } else {
            self.center.trip()
        };
        Box::pin(async move {
            match trip {
                // In a task: what is under way arrives, whether it is still waited for or not.
                Trip::Answered(there, back) => {
                    let arrives = tokio::spawn(after(there, work));
                    let answer = arrives.await.unwrap();
                    sleep(back).await;
                    answer
                }
                Trip::Unanswered(there) => {
                    drop(tokio::spawn(after(there, work)));
                    future::pending().await
                }
                Trip::Lost => future::pending().await,
                Trip::Refused(there) => {
                    sleep(there).await;
                    Err(StoreError::new("connection refused"))
                }
            }
        })
    }
}

async fn after<T>(delay: Duration, work: impl Future<Output = T>) -> T {
    sleep(delay).await;
    work.await
}

impl SharedStore for FarStore {
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'_, Lease> {
        let memory = self.center.memory.clone();
        self.call(async move { memory.lease(ask).await })
    }

    fn pause(&self, pause: Pause) -> StoreFuture<'_, ()> {
        let memory = self.center.memory.clone();
        self.call(async move { memory.pause(pause).await })
    }

    fn give_back(&self, unused: Unused) -> StoreFuture<'_, ()> {
        let memory = self.center.memory.clone();
        self.call(async move { memory.give_back(unused).await })
    }
}
