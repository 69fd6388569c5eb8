//! A job that is killed in the middle of 200 submissions and run again from its start creates each task exactly once: its
//! keys are derived from what it does. The job is this executable, run again as a child; the fake Ploton is in the parent,
//! and real sockets are between them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::{
    env, io,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tower::{ServiceBuilder, ServiceExt};
use tower_ploton::{
    IdempotencyKey, Origin, PlotonAuth, PlotonIdempotency, PlotonRetry,
    mock::{FakeBody, FakePloton, Fault},
};

use support::{create, key};

const TASKS: usize = 200;
/// Requests on their way at once.
const AT_ONCE: usize = 8;
/// How often the job is killed.
const KILLS: u32 = 5;
/// Tells the child where the server is.
const URL: &str = "TOWER_PLOTON_TEST_URL";
/// No round takes as long; a test that hangs ends.
const PATIENCE: Duration = Duration::from_secs(120);

/// The job. In the parent's own run of all tests there is nothing to do.
#[tokio::test]
async fn the_child_submits_everything() {
    let Ok(url) = env::var(URL) else { return };
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let retry = PlotonRetry::new()
        .attempts(20)
        .quota(u32::MAX)
        .base_delay(Duration::from_millis(1))
        .max_delay(Duration::from_millis(8));
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(retry)
        .layer(PlotonAuth::new(key()).origin(Origin::parse(&url).unwrap()))
        .service(client);
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut submissions = JoinSet::new();
    for n in 0..TASKS {
        let (service, at_once, url) = (service.clone(), at_once.clone(), url.clone());
        submissions.spawn(async move {
            let _turn = at_once.acquire().await.unwrap();
            loop {
                let mut request = create(&url, &format!("task {n}"));
                let key = IdempotencyKey::derive(&format!("crash test, task {n}"));
                request.extensions_mut().insert(key);
                let response = service.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::CREATED);
                // A body that is cut off tells no id: the job asks again.
                if response.into_body().collect().await.is_ok() {
                    break;
                }
            }
        });
    }
    submissions.join_all().await;
}

/// Lets so many requests through to the fake, and then holds all up: the child is killed when `reached` says so.
#[derive(Debug)]
struct Gate {
    left: AtomicU32,
    reached: Notify,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            left: AtomicU32::new(0),
            reached: Notify::new(),
        })
    }

    fn open_for(&self, requests: u32) {
        self.left.store(requests, Ordering::SeqCst);
    }

    /// Serves a request. The last one that is let through does its work and gets no answer; those after it do nothing.
    async fn serve(
        &self,
        fake: FakePloton,
        request: Request<Incoming>,
    ) -> io::Result<Response<FakeBody>> {
        let take = |left: u32| left.checked_sub(1);
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        let answer = match left {
            Ok(_) => fake.oneshot(request).await,
            Err(_) => std::future::pending().await,
        };
        if left == Ok(1) {
            self.reached.notify_one();
            std::future::pending().await
        }
        answer
    }
}

async fn accept(listener: TcpListener, fake: FakePloton, gate: Arc<Gate>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (fake, gate) = (fake.clone(), gate.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (fake, gate) = (fake.clone(), gate.clone());
                async move { gate.serve(fake, request).await }
            });
            let builder = Builder::new(TokioExecutor::new());
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// The job's process. It ends with the test, however that ends.
struct Job(Child);

impl Job {
    fn start(url: &str) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_child_submits_everything", "--nocapture"])
            .env(URL, url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    /// SIGKILL: the process has no chance to do anything about it.
    fn kill(&mut self) -> ExitStatus {
        self.0.kill().unwrap();
        self.0.wait().unwrap()
    }

    async fn ended(mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn was_killed(status: ExitStatus) -> bool {
    #[cfg(unix)]
    return std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
    #[cfg(not(unix))]
    return !status.success();
}

/// A fake with faults of every kind.
fn troubled(seed: u64) -> FakePloton {
    let mut hint = HeaderMap::new();
    hint.insert("retry-after-ms", 2.into());
    [
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::TruncatedBody,
        Fault::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
        Fault::Respond(StatusCode::TOO_MANY_REQUESTS, hint),
    ]
    .into_iter()
    .fold(FakePloton::new().seed(seed), |fake, fault| {
        fake.fault_rate(fault, 0.02)
    })
}

#[tokio::test]
async fn a_job_that_is_killed_and_run_again_creates_each_task_exactly_once() {
    if env::var(URL).is_ok() {
        return;
    }
    let seed = rand::random();
    let fake = troubled(seed);
    let gate = Gate::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(accept(listener, fake.clone(), gate.clone()));

    for _ in 0..KILLS {
        // Faults only add requests: the job can't be done before the gate closes.
        let requests = rand::random_range(1..=TASKS as u32);
        gate.open_for(requests);
        let mut job = Job::start(&url);
        tokio::time::timeout(PATIENCE, gate.reached.notified())
            .await
            .expect("the job does not reach the gate");
        assert!(was_killed(job.kill()), "seed {seed}, after {requests}");
    }
    gate.open_for(u32::MAX);
    let job = Job::start(&url);
    let status = tokio::time::timeout(PATIENCE, job.ended()).await.unwrap();
    assert!(status.success(), "seed {seed}: {status}");

    let counts = fake.counts();
    assert_eq!(counts.created, TASKS as u64, "seed {seed}: {counts:?}");
    assert_eq!(counts.duplicated, 0, "seed {seed}: {counts:?}");
    assert!(counts.replayed > 0, "seed {seed}: {counts:?}");
    serving.abort();
}
