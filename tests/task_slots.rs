//! As many tasks as the plan allows, and never one more: on a fake that refuses the eleventh.
#![cfg(feature = "json")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::Full;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt};
use tower_ploton::{
    Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonRetry, PlotonStack,
    PlotonTaskLimit, TaskLimitHandle, TaskSlot,
    api::{NewTask, Ploton, TaskId, TaskStatus},
    mock::{FakePloton, Fault, TaskRecord, TaskStatus as Status},
};

use support::{create, json, key};

const PLOTON: &str = "https://api.ploton.ai";
const TASKS: usize = 1_000;
const AT_ONCE: usize = 10;

/// Ten tasks at once, and requests without end.
fn plan() -> Plan {
    Plan::Enterprise {
        requests_per_minute: NonZeroU32::new(600_000).unwrap(),
        concurrent_tasks: NonZeroU32::new(10).unwrap(),
    }
}

fn fake() -> FakePloton {
    FakePloton::new().concurrent_tasks(plan().concurrent_tasks())
}

fn running(fake: &FakePloton) -> usize {
    let runs = |task: &TaskRecord| task.status == Status::Running;
    fake.tasks().iter().filter(|task| runs(task)).count()
}

/// Creates a task and waits until the server has ended it, which the limit is told at once.
async fn one_task<S, R>(
    service: S,
    fake: FakePloton,
    limit: TaskLimitHandle,
    n: usize,
    runs: Duration,
) where
    S: Service<http::Request<Full<Bytes>>, Response = http::Response<R>, Error = BoxError>,
    R: http_body::Body<Error: std::fmt::Debug>,
{
    let request = create(PLOTON, &format!("task {n}"));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let slot: TaskSlot = response.extensions().get().cloned().expect("a slot");
    let task = json(response).await;
    let id = task["id"].as_str().unwrap();
    slot.bind(id);
    sleep(runs).await;
    fake.finish(id);
    limit.finished(id);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_tasks_ten_at_a_time_none_refused_and_always_ten_while_work_waits() {
    let fake = fake().latency(Duration::from_millis(20));
    let limit = PlotonTaskLimit::new(plan());
    let handle = limit.handle();
    let service = PlotonStack::new(key(), plan())
        .tasks(limit)
        .layer(fake.clone());
    let mut random = StdRng::seed_from_u64(10);
    let mut calls = JoinSet::new();
    for n in 0..TASKS {
        // On the beat of a tenth of a second, between which is looked at what runs.
        let runs = Duration::from_millis(100 * random.random_range(1..60) - 20);
        calls.spawn(one_task(
            service.clone(),
            fake.clone(),
            handle.clone(),
            n,
            runs,
        ));
    }
    let (looker, seen) = (fake.clone(), handle.clone());
    let looks = tokio::spawn(async move {
        let mut looks = 0;
        loop {
            sleep(Duration::from_millis(if looks == 0 { 50 } else { 500 })).await;
            let (now, running) = (seen.snapshot(), running(&looker));
            if now.waiting == 0 {
                return looks;
            }
            assert_eq!((running, now.running), (AT_ONCE, AT_ONCE));
            looks += 1;
        }
    });
    calls.join_all().await;

    let looks = looks.await.unwrap();
    assert!(looks > 500, "{looks} looks");
    let counts = fake.counts();
    assert_eq!((counts.created, counts.refused), (1_000, 0));
    assert_eq!(counts.attempts, 1_000);
    // First come, first served; those whose turn came at one instant may overtake each other.
    let mut created: Vec<_> = fake
        .tasks()
        .into_iter()
        .map(|task| (task.created_at, task.prompt))
        .collect();
    created.sort_by_key(|(at, prompt)| (*at, prompt["task ".len()..].parse::<usize>().unwrap()));
    for (n, (_, prompt)) in created.iter().enumerate() {
        assert_eq!(*prompt, format!("task {n}"));
    }
    let now = handle.snapshot();
    assert_eq!((now.running, now.waiting), (0, 0));
}

/// Real threads, and no clock: what is waited for is only what the others do.
#[test]
fn clones_on_many_threads_share_the_slots() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let fake = fake();
        let limit = PlotonTaskLimit::new(plan());
        let handle = limit.handle();
        let most = Arc::new(AtomicUsize::new(0));
        let mut calls = JoinSet::new();
        for n in 0..TASKS {
            let service = limit.layer(fake.clone());
            let (fake, handle, most) = (fake.clone(), handle.clone(), most.clone());
            calls.spawn(async move {
                let mut request = create(PLOTON, &format!("task {n}"));
                let bearer = format!("Bearer {}", support::KEY).parse().unwrap();
                request.headers_mut().insert("authorization", bearer);
                let response = service.oneshot(request).await.unwrap();
                most.fetch_max(running(&fake), Ordering::Relaxed);
                let slot: TaskSlot = response.extensions().get().cloned().expect("a slot");
                let task = json(response).await;
                fake.finish(task["id"].as_str().unwrap());
                if n % 2 == 0 {
                    slot.release();
                } else {
                    slot.bind(task["id"].as_str().unwrap());
                    handle.finished(task["id"].as_str().unwrap());
                }
            });
        }
        let done = timeout(Duration::from_secs(300), calls.join_all()).await;
        done.expect("nobody waits for ever");
        let counts = fake.counts();
        assert_eq!((counts.created, counts.refused), (1_000, 0));
        assert!(most.load(Ordering::Relaxed) <= AT_ONCE);
        let now = handle.snapshot();
        assert_eq!((now.running, now.waiting), (0, 0));
    });
}

/// A typed client over the whole stack.
fn ploton(
    fake: &FakePloton,
) -> (
    Ploton<impl tower_ploton::api::PlotonService + use<>>,
    TaskLimitHandle,
) {
    let limit = PlotonTaskLimit::new(plan());
    let handle = limit.handle();
    let stack = PlotonStack::new(key(), plan())
        .retry(PlotonRetry::new().attempts(3).quota(u32::MAX))
        .tasks(limit);
    let ploton = Ploton::new(stack.layer(fake.clone())).task_limit(handle.clone());
    (ploton, handle)
}

#[tokio::test(start_paused = true)]
async fn the_typed_client_frees_the_slot_of_each_task_that_it_sees_end() {
    let fake = fake().task_duration(Duration::from_millis(2_500));
    let (ploton, handle) = ploton(&fake);
    let mut calls = JoinSet::new();
    for n in 0..100 {
        let ploton = ploton.clone();
        calls.spawn(async move {
            let new = NewTask::new(format!("task {n}")).unwrap();
            let task = ploton.create_task(&new).await.unwrap();
            let id = task.id;
            while ploton.task(&id).await.unwrap().status == TaskStatus::Running {
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    calls.join_all().await;
    let counts = fake.counts();
    assert_eq!((counts.created, counts.refused), (100, 0));
    assert_eq!(handle.snapshot().running, 0);
}

#[tokio::test(start_paused = true)]
async fn the_typed_client_tells_of_ends_that_it_hears_of_by_errors() {
    let fake = fake();
    let (ploton, handle) = ploton(&fake);
    let task = ploton
        .create_task(&NewTask::new("one").unwrap())
        .await
        .unwrap();
    fake.finish(task.id.as_str());
    assert_eq!(handle.snapshot().running, 1);
    assert!(ploton.cancel_task(&task.id).await.is_err());
    assert_eq!(handle.snapshot().running, 0);

    handle.running("task_of_nobody");
    let id = TaskId::parse("task_of_nobody").unwrap();
    assert!(ploton.task(&id).await.is_err());
    assert_eq!(handle.snapshot().running, 0);
}

#[tokio::test(start_paused = true)]
async fn what_runs_at_start_up_is_counted() {
    let fake = fake().task_duration(Duration::from_secs(60));
    let (earlier, _) = ploton(&fake);
    for n in 0..7 {
        let new = NewTask::new(format!("earlier {n}")).unwrap();
        earlier.create_task(&new).await.unwrap();
    }
    let (ploton, handle) = ploton(&fake);
    assert_eq!(ploton.running_tasks().await.unwrap().len(), 7);
    assert_eq!(handle.snapshot().running, 7);
    let mut calls = JoinSet::new();
    for n in 0..5 {
        let new = NewTask::new(format!("later {n}")).unwrap();
        calls.spawn(ploton.create_task(&new));
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(handle.snapshot().waiting, 2);
    sleep(Duration::from_secs(60)).await;
    // Nobody asked for them meanwhile: a list tells that all have ended.
    assert_eq!(handle.snapshot().waiting, 2);
    assert_eq!(ploton.running_tasks().await.unwrap().len(), 0);
    calls.join_all().await;
    assert_eq!(handle.snapshot().running, 2);
    let counts = fake.counts();
    assert_eq!((counts.created, counts.refused), (12, 0));
}

/// Outside the retry layer, inside it and innermost: with the key that all attempts have, a task has one slot.
#[tokio::test(start_paused = true)]
async fn in_whatever_order_it_stands_no_task_is_refused_and_no_slot_is_doubled() {
    for place in 0..4 {
        let fake = fake()
            .seed(place)
            .latency(Duration::from_millis(50))
            .task_duration(Duration::from_secs(5))
            .fault_rate(Fault::CutBefore, 0.1)
            .fault_rate(Fault::CutAfter, 0.1)
            .fault_rate(Fault::Status(StatusCode::SERVICE_UNAVAILABLE), 0.1);
        let limit = PlotonTaskLimit::new(plan());
        let handle = limit.handle();
        let at = |n| (place == n).then(|| limit.clone());
        let service = ServiceBuilder::new()
            .option_layer(at(0))
            .layer(PlotonIdempotency::new())
            .option_layer(at(1))
            .layer(
                PlotonRetry::new()
                    .attempts(50)
                    .quota(u32::MAX)
                    .deadline(Duration::from_secs(3_600)),
            )
            .option_layer(at(2))
            .layer(PlotonRateLimit::new(plan()))
            .layer(PlotonAuth::new(key()))
            .option_layer(at(3))
            .map_err(BoxError::from)
            .service(fake.clone());
        let ploton = Ploton::new(service).task_limit(handle.clone());
        let mut calls = JoinSet::new();
        for n in 0..100 {
            let ploton = ploton.clone();
            calls.spawn(async move {
                let new = NewTask::new(format!("task {n}")).unwrap();
                let task = ploton.create_task(&new).await.unwrap();
                ploton.wait_for(&task.id).await.unwrap();
            });
        }
        calls.join_all().await;
        let counts = fake.counts();
        assert_eq!((counts.created, counts.duplicated), (100, 0), "{place}");
        assert_eq!(counts.refused, 0, "{place}");
        assert_eq!(handle.snapshot().running, 0, "{place}");
    }
}

/// An answer whose body breaks is asked for again, with the same key: not with a second slot.
#[tokio::test(start_paused = true)]
async fn a_task_whose_answer_breaks_in_the_body_has_one_slot() {
    let fake = fake().concurrent_tasks(NonZeroU32::MIN);
    let (ploton, handle) = ploton(&fake);
    handle.set_capacity(NonZeroU32::MIN);
    fake.fail_next(Fault::TruncatedBody);
    fake.fail_next(Fault::TruncatedBody);
    let task = ploton.create_task(&NewTask::new("one").unwrap());
    let task = timeout(Duration::from_secs(60), task).await;
    let task = task.expect("it waits for its own slot").unwrap();
    assert_eq!(handle.snapshot().running, 1);
    ploton.cancel_task(&task.id).await.unwrap();
    assert_eq!(handle.snapshot().running, 0);
}

/// Cuts, errors, refusals, and callers who give up: slots of an unknown fate are settled by listing what runs.
#[tokio::test(start_paused = true)]
async fn no_slot_is_lost_and_none_is_doubled_whatever_goes_wrong() {
    for seed in 0..10 {
        let refusal = Fault::Status(StatusCode::UNPROCESSABLE_ENTITY);
        let fake = fake()
            .seed(seed)
            .latency(Duration::from_millis(300))
            .task_duration(Duration::from_secs(20))
            .fault_rate(Fault::CutBefore, 0.1)
            .fault_rate(Fault::CutAfter, 0.1)
            .fault_rate(Fault::TruncatedBody, 0.1)
            .fault_rate(refusal, 0.05)
            .fault_rate(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR), 0.1);
        let (ploton, handle) = ploton(&fake);
        let mut random = StdRng::seed_from_u64(seed);
        let mut calls = JoinSet::new();
        for n in 0..100 {
            let call = ploton.create_task(&NewTask::new(format!("task {n}")).unwrap());
            let patience = Duration::from_millis(random.random_range(0..200_000));
            calls.spawn(async move { timeout(patience, call).await.is_ok() });
        }
        let (lister, looker) = (ploton.clone(), fake.clone());
        let listing = tokio::spawn(async move {
            loop {
                sleep(Duration::from_millis(1_234)).await;
                assert!(running(&looker) <= AT_ONCE);
                let _ = lister.running_tasks().await;
            }
        });
        calls.join_all().await;
        listing.abort();
        // None was refused for being one too many.
        let refused = |attempt: &tower_ploton::mock::Attempt| {
            attempt.method == Method::POST
                && attempt.outcome
                    == tower_ploton::mock::Outcome::Answered(StatusCode::TOO_MANY_REQUESTS)
        };
        assert!(!fake.attempts().iter().any(refused), "seed {seed}");

        sleep(Duration::from_secs(30)).await;
        while ploton.running_tasks().await.is_err() {}
        let now = handle.snapshot();
        assert_eq!((now.running, now.waiting), (0, 0), "seed {seed}");
        assert_eq!(fake.counts().duplicated, 0);
    }
}
