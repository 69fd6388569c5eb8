//! Real threads and runtimes, in real time.

use std::{convert::Infallible, num::NonZeroU32, time::Duration};

use http::{Request, Response};
use tokio::{runtime, task::JoinSet, time::timeout};
use tower::{Layer, ServiceExt, service_fn};
use tower_ploton::{Plan, PlotonRateLimit, limit::MemoryStore};

const SECOND: Duration = Duration::from_secs(1);

fn limit(store: &MemoryStore) -> PlotonRateLimit {
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
