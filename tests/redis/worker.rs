//! A process of a fleet: this test program, run again as a child.

use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_ploton::{ApiKey, Origin, PlotonAuth, PlotonRateLimit, redis::RedisStore};

use super::{
    fleet::{WINDOW, plan},
    scope,
};

/// Where the fake Ploton is.
const PLOTON: &str = "TOWER_PLOTON_TEST_URL";
/// The file that says where Redis is, as a name server would.
const REDIS: &str = "TOWER_PLOTON_TEST_REDIS";
/// Its own, so that the fake can tell the processes apart.
const KEY: &str = "TOWER_PLOTON_TEST_KEY";

/// It ends with this value.
pub(super) struct Worker(Child);

impl Worker {
    pub(super) fn start(ploton: &str, redis: &Path, number: usize) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "worker::sends_all_it_may", "--nocapture"])
            .env(PLOTON, ploton)
            .env(REDIS, redis)
            .env(KEY, format!("pk_test_worker{number}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// SIGKILL: it has no chance to give its tokens back.
    pub(super) fn kill(&mut self) {
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

/// A clock that all processes of the machine read alike.
pub(super) fn machine_clock() -> Duration {
    clock_gettime(ClockId::Monotonic).try_into().unwrap()
}

/// The worker: four callers send one request after the other, and say when each left, in its key. In the parent's own run of
/// all tests there is nothing to do.
#[tokio::test]
async fn sends_all_it_may() {
    let (Ok(ploton), Ok(redis), Ok(key)) = (env::var(PLOTON), env::var(REDIS), env::var(KEY))
    else {
        return;
    };
    let connect = move || {
        let client = redis::Client::open(fs::read_to_string(&redis).unwrap());
        async move { client?.get_multiplexed_async_connection().await }
    };
    let origin = Origin::parse(&ploton).unwrap();
    let service = ServiceBuilder::new()
        .layer(
            PlotonRateLimit::new(plan())
                .window(WINDOW)
                .origin(origin.clone())
                .shared(RedisStore::connect_with(connect, scope())),
        )
        .layer(PlotonAuth::new(ApiKey::parse(&key).unwrap()).origin(origin))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (mut service, url) = (service.clone(), format!("{ploton}/v1/tasks"));
        callers.spawn(async move {
            loop {
                let ready = service.ready().await.unwrap();
                let sent = machine_clock().as_micros();
                let request = Request::get(&url).header("idempotency-key", sent.to_string());
                let request = request.body(Full::default()).unwrap();
                // The test ends, and its server with it.
                let Ok(answer) = ready.call(request).await else {
                    return;
                };
                let _ = answer.into_body().collect().await;
            }
        });
    }
    // The parent kills it; if that is killed, it ends by itself.
    let _ = tokio::time::timeout(Duration::from_secs(180), callers.join_all()).await;
}
