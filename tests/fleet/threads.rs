//! Real threads and runtimes, in real time.

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use http::{Request, Response};
use tokio::{
    runtime::{self, Runtime},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_ploton::{
    Plan, PlotonRateLimit,
    limit::{Lease, LeaseRequest, MemoryStore, Pause, SharedStore, StoreFuture, Unused},
};

const SECOND: Duration = Duration::from_secs(1);

fn limit(store: &(impl SharedStore + Clone)) -> PlotonRateLimit {
    let plan = Plan::Enterprise {
        requests_per_minute: NonZeroU32::new(200).unwrap(),
        concurrent_tasks: NonZeroU32::MIN,
    };
    PlotonRateLimit::new(plan)
        .window(SECOND)
        .shared(store.clone())
}

/// As many workers as are said send 20 requests each.
async fn send(limit: &PlotonRateLimit, workers: usize) {
    let service = limit.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let service = service.clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                let request = Request::get("/v1/tasks").body(()).unwrap();
                service.clone().oneshot(request).await.unwrap();
            }
        });
    }
    let all = timeout(120 * SECOND, tasks.join_all());
    all.await.expect("somebody waits for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_share_a_store_are_all_served() {
    let store = MemoryStore::new();
    let mut processes = JoinSet::new();
    for _ in 0..4 {
        let limit = limit(&store);
        processes.spawn(async move {
            send(&limit, 5).await;
            limit.handle().snapshot().in_flight
        });
    }
    assert_eq!(processes.join_all().await, [0; 4]);
}

/// The task that makes the calls ends with the runtime that it was started on.
#[test]
fn a_limiter_outlives_its_runtime() {
    let limit = limit(&MemoryStore::new());
    limit.handle().set_plan(Plan::Production);
    for _ in 0..3 {
        let mut runtime = runtime::Builder::new_current_thread();
        runtime
            .enable_time()
            .build()
            .unwrap()
            .block_on(send(&limit, 2));
        limit.handle().set_plan(Plan::Production);
    }
    assert_eq!(limit.handle().snapshot().store.unwrap().processes, 1);
}

/// A store that, told so, gives its next caller no answer, and then says so.
#[derive(Clone, Debug, Default)]
struct Silent {
    store: MemoryStore,
    is_silent: Arc<AtomicBool>,
}

impl SharedStore for Silent {
    fn lease(&self, ask: LeaseRequest) -> StoreFuture<'_, Lease> {
        if self.is_silent.swap(false, Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.store.lease(ask)
    }

    fn pause(&self, pause: Pause) -> StoreFuture<'_, ()> {
        self.store.pause(pause)
    }

    fn give_back(&self, unused: Unused) -> StoreFuture<'_, ()> {
        self.store.give_back(unused)
    }
}

/// What the first gave no answer to was held against the second.
#[tokio::test(start_paused = true)]
async fn a_store_that_was_changed_for_another_is_not_listened_to_any_more() {
    let store = Silent::default();
    let limit = limit(&store);
    store.is_silent.store(true, Ordering::SeqCst);
    let sent = {
        let limit = limit.clone();
        tokio::spawn(async move { send(&limit, 1).await })
    };
    sleep(SECOND / 20).await;
    let limit = limit.shared(MemoryStore::new());
    sleep(SECOND / 10).await;
    let store = limit.handle().snapshot().store.unwrap();
    assert_eq!((store.processes, store.away_since), (1, None));
    assert!(limit.handle().store_error().is_none());
    sent.await.unwrap();
}

/// It counted there for half a minute more, and each of the others got less meanwhile.
#[tokio::test(start_paused = true)]
async fn who_changes_its_store_for_another_leaves_the_first() {
    let store = MemoryStore::new();
    let (goes, stays) = (limit(&store), limit(&store));
    for limit in [&goes, &stays] {
        send(limit, 1).await;
    }
    sleep(SECOND).await;
    send(&stays, 1).await;
    let processes = || stays.handle().snapshot().store.unwrap().processes;
    assert_eq!(processes(), 2);
    let goes = goes.shared(MemoryStore::new());
    send(&goes, 1).await;
    sleep(SECOND).await;
    send(&stays, 1).await;
    assert_eq!(processes(), 1);
}

fn current_thread() -> Runtime {
    let mut runtime = runtime::Builder::new_current_thread();
    runtime.enable_time().build().unwrap()
}

/// One waits on another runtime while the first, with the task, ends. It waited for a minute.
#[test]
fn a_runtime_that_ends_in_the_middle_of_a_call_stops_nobody_on_another() {
    let store = Silent::default();
    let limit = limit(&store);
    let first = Runtime::new().unwrap();
    first.block_on(send(&limit, 1));
    store.is_silent.store(true, Ordering::SeqCst);
    let second = {
        let limit = limit.clone();
        thread::spawn(move || {
            let sent = async { timeout(20 * SECOND, send(&limit, 1)).await };
            current_thread().block_on(sent)
        })
    };
    while store.is_silent.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    drop(first);
    second.join().unwrap().expect("it waits for the first");
}

/// As a program has it that is not async, and makes a runtime for each of its threads. It waited for ever.
#[test]
fn a_runtime_that_nobody_drives_stops_nobody_on_another() {
    let limit = limit(&MemoryStore::new());
    let idle = current_thread();
    idle.block_on(send(&limit, 1));
    let sent = async { timeout(20 * SECOND, send(&limit, 1)).await };
    current_thread()
        .block_on(sent)
        .expect("it waits for the first");
    idle.block_on(send(&limit, 1));
}
