//! A real Redis that is 75 ms away, behind a proxy on loopback.

use std::{num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tower::{Layer, ServiceExt};
use tower_ploton::{
    Plan, PlotonRateLimit, PlotonTaskLimit,
    mock::{FakePloton, Outcome, RateLimitModel},
    redis::RedisStore,
};

use super::{scope, server::Redis};

const WAY: Duration = Duration::from_millis(75);
const WINDOW: Duration = Duration::from_secs(10);
const N: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// A test that hangs on a busy machine ends.
const PATIENCE: Duration = Duration::from_secs(60);

/// Passes on what comes, each way so much later. Returns where it listens.
async fn proxy(redis: &Redis) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    let there = redis.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                // The handshake's way.
                sleep(2 * WAY).await;
                let server = TcpStream::connect(("127.0.0.1", there)).await.unwrap();
                let ((from_client, to_client), (from_server, to_server)) =
                    (split(client), split(server));
                tokio::join!(
                    pass_on(from_client, to_server),
                    pass_on(from_server, to_client)
                );
            });
        }
    });
    format!("redis://{here}/")
}

async fn pass_on(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let reads = async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(many @ 1..) = from.read(&mut buffer).await {
            let _ = sender.send((Instant::now() + WAY, buffer[..many].to_vec()));
        }
    };
    let writes = async move {
        while let Some((at, bytes)) = receiver.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reads, writes);
}

fn store(url: &str) -> RedisStore {
    let client = redis::Client::open(url).unwrap();
    let connect = move || {
        let client = client.clone();
        async move { client.get_multiplexed_async_connection().await }
    };
    RedisStore::connect_with(connect, scope())
}

/// Sends all that it may.
fn sends(limit: &PlotonRateLimit, fake: &FakePloton) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let service = limit.layer(fake.clone());
        callers.spawn(async move {
            loop {
                let request = Request::get("https://api.ploton.ai/v1/tasks");
                let request = request.body(Full::<Bytes>::default()).unwrap();
                drop(service.clone().oneshot(request).await);
            }
        });
    }
    callers
}

fn limit() -> PlotonRateLimit {
    let plan = Plan::Enterprise {
        requests_per_minute: N,
        concurrent_tasks: N,
    };
    PlotonRateLimit::new(plan).window(WINDOW)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_use_the_plan_by_a_redis_that_is_far_if_they_may_wait_for_it() {
    let redis = Redis::start().await;
    let url = proxy(&redis).await;
    let fake = FakePloton::new().rate_limit(RateLimitModel::fixed_window(N, WINDOW));
    let impatient = limit().shared(store(&url));
    let callers = sends(&impatient, &fake);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(fake.counts().attempts, 0);
    assert!(impatient.handle().store_error().is_some());
    drop((callers, impatient));

    let far = || store(&url).timeout(Duration::from_millis(500));
    let tasks = PlotonTaskLimit::with_capacity(NonZeroU32::MIN).shared(far());
    let create = Request::post("https://api.ploton.ai/v1/tasks");
    let create = create
        .body(Full::<Bytes>::from(r#"{"goal":"one"}"#))
        .unwrap();
    // An empty store lets nobody have a slot for six seconds.
    let task = tokio::spawn(tasks.layer(FakePloton::new()).oneshot(create));
    let limits = [(); 2].map(|()| limit().shared(far()));
    let _callers = limits.each_ref().map(|limit| sends(limit, &fake));
    let start = Instant::now();
    let mut best: f64 = 0.0;
    while best < 0.97 {
        assert!(
            Instant::now() - start < PATIENCE,
            "{best:.3} of the plan used"
        );
        sleep(Duration::from_secs(1)).await;
        let attempts = fake.attempts();
        let from = Instant::now() - WINDOW;
        let used = attempts.iter().filter(|attempt| attempt.at > from).count();
        best = best.max(used as f64 / f64::from(N.get()));
    }
    eprintln!(
        "{best:.3} of the plan used after {:.1?}",
        Instant::now().duration_since(start)
    );
    let refusal = Outcome::Answered(StatusCode::TOO_MANY_REQUESTS);
    assert!(
        fake.attempts()
            .iter()
            .all(|attempt| attempt.outcome != refusal)
    );
    for limit in &limits {
        assert_eq!(limit.handle().snapshot().store.unwrap().processes, 2);
    }

    drop(task.await.unwrap().unwrap());
    assert_eq!(tasks.handle().snapshot().store.unwrap().processes, 1);
}
