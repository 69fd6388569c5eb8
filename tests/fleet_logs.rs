//! What is logged of a store that a plan, or task slots, are shared by: each change once.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "support/log.rs"]
mod log;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use tokio::time;
use tower::{Layer, ServiceExt, service_fn};
use tower_ploton::{
    Plan, PlotonRateLimit, PlotonTaskLimit,
    limit::{
        Lease, LeaseRequest, MemoryStore, Pause, SharedStore, StoreError, StoreFuture, Unused,
    },
    tasks::{
        Binding, MemorySlots, Release, Renewal, Renewed, SharedSlots, SlotRequest, SlotsTaken,
    },
};

use log::Log;

const SECOND: Duration = Duration::from_secs(1);

/// The lines logged that hold `text`.
fn about(log: &Log, text: &str) -> Vec<String> {
    let logged = log.text();
    let about = logged.lines().filter(|line| line.contains(text));
    about.map(str::to_owned).collect()
}

/// A store that can be away.
#[derive(Clone, Debug, Default)]
struct Store {
    memory: MemoryStore,
    slots: MemorySlots,
    away: Arc<AtomicBool>,
}

impl Store {
    fn call<'a, T: Send + 'a>(&self, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        if self.away.load(Ordering::Relaxed) {
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

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_a_line_and_one_when_it_is_back() {
    let (log, _guard) = Log::capture();
    let (store, refuses) = (Store::default(), AtomicBool::new(false));
    let refuses = &refuses;
    let limits = [(); 2].map(|()| PlotonRateLimit::new(Plan::Production).shared(store.clone()));
    let server = service_fn(async |_: Request<()>| {
        let refused = refuses.swap(false, Ordering::Relaxed);
        let answer = Response::builder().status(if refused { 429 } else { 200 });
        Ok::<_, Infallible>(answer.header("retry-after", 3).body(()).unwrap())
    });
    let services = limits.each_ref().map(|limit| limit.layer(server));
    let send_for = async |seconds: u32| {
        for _ in 0..seconds {
            for service in &services {
                let request = Request::get("/v1/tasks").body(()).unwrap();
                service.clone().oneshot(request).await.unwrap();
            }
            time::sleep(SECOND).await;
        }
    };
    send_for(5).await;
    assert_eq!(about(&log, "shared store"), [""; 0]);

    store.away.store(true, Ordering::Relaxed);
    send_for(10).await;
    let away = about(&log, "the shared store gives no answer");
    assert_eq!(away.len(), 2, "{away:?}");
    assert!(away[0].contains(" WARN ") && away[0].contains("error=connection refused"));
    assert!(away[0].contains("on_outage=share processes=2 pace_ms=120"));

    store.away.store(false, Ordering::Relaxed);
    send_for(10).await;
    let back = about(&log, "the shared store answers again");
    assert_eq!(back.len(), 2, "{back:?}");
    assert!(back[0].contains(" INFO ") && back[0].contains("away_ms="));

    refuses.store(true, Ordering::Relaxed);
    send_for(5).await;
    assert_eq!(about(&log, "a 429 pauses all requests").len(), 1);
    assert_eq!(about(&log, "another process was refused").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_of_task_slots_that_is_away_is_a_line_and_one_when_it_is_back() {
    let (log, _guard) = Log::capture();
    let store = Store::default();
    let limits = [(); 2].map(|()| PlotonTaskLimit::new(Plan::Prototyping).shared(store.clone()));
    let server = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
    let mut slots = Vec::new();
    for limit in &limits {
        let request = Request::post("/v1/tasks").body(()).unwrap();
        slots.push(limit.layer(server).oneshot(request).await.unwrap());
    }
    time::sleep(3 * SECOND).await;
    assert_eq!(about(&log, "store of task slots"), [""; 0]);

    store.away.store(true, Ordering::Relaxed);
    time::sleep(5 * SECOND).await;
    let away = about(&log, "the store of task slots gives no answer");
    assert_eq!(away.len(), 2, "{away:?}");
    assert!(away[0].contains(" WARN ") && away[0].contains("error=connection refused"));
    assert!(away[0].contains("on_outage=share processes=2 share=5 waiting=0"));

    store.away.store(false, Ordering::Relaxed);
    time::sleep(5 * SECOND).await;
    let back = about(&log, "the store of task slots answers again");
    assert_eq!(back.len(), 2, "{back:?}");
    assert!(back[0].contains(" INFO ") && back[0].contains("away_ms="));
}
