//! Task slots that processes share by a real Redis, and a fake Ploton that refuses one task more than it allows.

use std::{
    env, fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_ploton::{
    ApiKey, Origin, PlotonAuth, PlotonTaskLimit, TaskSlot,
    mock::{Attempt, FakePloton, FakeServer, Outcome},
    redis::RedisStore,
    tasks::{Outage, SharedSlots, SlotRequest},
};

use super::{patient_store, scope, server::Redis};

/// Where the fake Ploton is, the file that says where Redis is, and a worker's own key.
const PLOTON: &str = "TOWER_PLOTON_TEST_SLOTS_URL";
const REDIS: &str = "TOWER_PLOTON_TEST_SLOTS_REDIS";
const KEY: &str = "TOWER_PLOTON_TEST_SLOTS_KEY";

const CAPACITY: NonZeroU32 = NonZeroU32::new(10).unwrap();
const WORKERS: usize = 4;
/// How long a task runs.
const TASK: Duration = Duration::from_secs(1);

/// It ends with this value.
struct Worker(Child);

impl Worker {
    fn start(ploton: &str, redis: &Path, number: usize) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "slots::runs_all_tasks_it_may", "--nocapture"])
            .env(PLOTON, ploton)
            .env(REDIS, redis)
            .env(KEY, format!("pk_test_worker{number}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The worker: eight callers create one task after the other, and wait until it has ended. In the parent's own run of all
/// tests there is nothing to do.
#[tokio::test]
async fn runs_all_tasks_it_may() {
    let (Ok(ploton), Ok(redis), Ok(key)) = (env::var(PLOTON), env::var(REDIS), env::var(KEY))
    else {
        return;
    };
    let connect = move || {
        let client = redis::Client::open(fs::read_to_string(&redis).unwrap());
        async move { client?.get_multiplexed_async_connection().await }
    };
    let origin = Origin::parse(&ploton).unwrap();
    let limit = PlotonTaskLimit::with_capacity(CAPACITY)
        .origin(origin.clone())
        .shared(RedisStore::connect_with(connect, scope()))
        .on_outage(Outage::Wait);
    let handle = limit.handle();
    let service = ServiceBuilder::new()
        .layer(limit)
        .layer(PlotonAuth::new(ApiKey::parse(&key).unwrap()).origin(origin))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (service, url, handle) = (
            service.clone(),
            format!("{ploton}/v1/tasks"),
            handle.clone(),
        );
        callers.spawn(async move {
            loop {
                let request = Request::post(&url)
                    .header("content-type", "application/json")
                    .body(Full::from(r#"{"prompt":"one"}"#))
                    .unwrap();
                // The test ends, and its server with it.
                let Ok(answer) = service.clone().oneshot(request).await else {
                    return;
                };
                let Some(slot) = answer.extensions().get::<TaskSlot>().cloned() else {
                    continue;
                };
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                let task: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let task = task["id"].as_str().unwrap();
                slot.bind(task);
                let url = format!("{url}/{task}");
                loop {
                    sleep(TASK / 4).await;
                    let request = Request::get(&url).body(Full::default()).unwrap();
                    let Ok(answer) = service.clone().oneshot(request).await else {
                        return;
                    };
                    let Ok(body) = answer.into_body().collect().await else {
                        return;
                    };
                    let body: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap();
                    if body["status"] != "running" {
                        break;
                    }
                }
                handle.finished(task);
            }
        });
    }
    // The parent kills it; if that is killed, it ends by itself.
    let _ = timeout(Duration::from_secs(180), callers.join_all()).await;
}

/// The processes of one case, and their server.
struct Fleet {
    case: &'static str,
    fake: FakePloton,
    _server: FakeServer,
    workers: Vec<Worker>,
    address: PathBuf,
}

impl Fleet {
    async fn start(case: &'static str, redis: &Redis) -> Self {
        let name = format!("tower-ploton-slots-{}-{}", std::process::id(), redis.port());
        let address = env::temp_dir().join(name);
        fs::write(&address, redis.url()).unwrap();
        let fake = FakePloton::new()
            .concurrent_tasks(CAPACITY)
            .task_duration(TASK);
        let server = fake.listen().await.unwrap();
        let worker = |number| Worker::start(&server.url(), &address, number);
        let workers = (0..WORKERS).map(worker).collect();
        let fleet = Self {
            case,
            fake,
            _server: server,
            workers,
            address,
        };
        fleet.creates(20, 4).await;
        fleet
    }

    fn created(&self) -> Vec<Attempt> {
        let attempts = self.fake.attempts().into_iter();
        attempts
            .filter(|attempt| attempt.created.is_some())
            .collect()
    }

    /// Waits until so many more tasks were created, some by each of so many workers, and returns how many by each.
    async fn creates(&self, more: usize, by: usize) -> [usize; WORKERS] {
        let before = self.created().len();
        let begin = Instant::now();
        loop {
            let mut shares = [0; WORKERS];
            for attempt in self.created().into_iter().skip(before) {
                shares[attempt.credential.unwrap()] += 1;
            }
            let all: usize = shares.iter().sum();
            if all >= more && shares.iter().filter(|share| **share > 0).count() >= by {
                let rate = all as f64 / (Instant::now() - begin).as_secs_f64();
                eprintln!("{}: {shares:?} tasks, {rate:.1} a second", self.case);
                return shares;
            }
            assert!(
                Instant::now() - begin < Duration::from_secs(100),
                "{}: {shares:?}",
                self.case
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn expect_no_refusal(&self) {
        let refusal = Outcome::Answered(StatusCode::TOO_MANY_REQUESTS);
        let refused = self.fake.attempts().into_iter();
        let refused = refused.filter(|attempt| attempt.outcome == refusal).count();
        assert_eq!(refused, 0, "{}", self.case);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Before what they read is gone.
        self.workers.clear();
        let _ = fs::remove_file(&self.address);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_processes_never_run_one_task_too_many_and_take_turns() {
    let redis = Redis::start().await;
    let fleet = Fleet::start("undisturbed", &redis).await;
    let shares = fleet.creates(100, 4).await;
    let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
    assert!(most - least <= 15, "{shares:?}");
    fleet.expect_no_refusal();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_and_a_redis_that_loses_all_cost_no_refusal() {
    let redis = Redis::start().await;
    let mut fleet = Fleet::start("killed and flushed", &redis).await;
    fleet.workers[1].kill();
    fleet.creates(40, 3).await;
    for _ in 0..2 {
        redis.run("FLUSHALL").await;
        fleet.creates(40, 3).await;
    }
    fleet.expect_no_refusal();
    // Tasks that the killed one had are in its slots until they are seen to end, or by their time limit.
    let taken = redis.answer::<usize>("ZCARD ploton:{test}:slots").await;
    assert!(taken <= 10, "{taken}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_started_again_or_hangs_costs_no_refusal() {
    let mut redis = Redis::start().await;
    let fleet = Fleet::start("restarted", &redis).await;
    redis.kill();
    sleep(Duration::from_secs(2)).await;
    redis.restart().await;
    fleet.creates(40, 4).await;
    redis.hang();
    sleep(Duration::from_secs(2)).await;
    redis.go_on();
    fleet.creates(40, 4).await;
    redis.run("SCRIPT FLUSH").await;
    fleet.creates(20, 4).await;
    fleet.expect_no_refusal();
}

#[tokio::test]
async fn a_redis_that_knows_nothing_lets_nobody_begin_for_six_seconds() {
    let redis = Redis::start().await;
    let store = patient_store(&redis);
    let mut ask = SlotRequest::default();
    (ask.process, ask.wanted, ask.capacity) = (1, 1, 1);
    ask.keep = Duration::from_secs(30);
    let begin = Instant::now();
    let taken = store.take(ask).await.unwrap();
    assert_eq!(taken.granted, 0);
    assert!(taken.wait > Duration::from_secs(6) && taken.wait < Duration::from_secs(7));
    while store.take(ask).await.unwrap().granted == 0 {
        sleep(Duration::from_millis(50)).await;
    }
    // Two clocks are not exactly as fast.
    assert!(Instant::now() - begin > Duration::from_millis(5_900));
    // What somebody else wrote under the names is no reason to fail.
    for name in [
        "slots",
        "slots:line",
        "slots:waits",
        "slots:there",
        "slots:ended",
    ] {
        redis
            .run(&format!("SET ploton:{{test}}:{name} nonsense"))
            .await;
    }
    redis.run("DEL ploton:{test}:slots:open").await;
    redis.run("LPUSH ploton:{test}:slots:open nonsense").await;
    assert_eq!(store.take(ask).await.unwrap().granted, 0);
    // All keys end by themselves.
    let keys = redis.answer::<Vec<String>>("KEYS *").await;
    assert!(keys.len() >= 4, "{keys:?}");
    for key in keys {
        let left = redis.answer::<i64>(&format!("PTTL {key}")).await;
        assert!(left > 0, "{key} {left}");
    }
}
