//! A worker: creates one task after the other, as fast as the plan that it shares lets it.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{BoxError, Layer, ServiceExt, util::BoxCloneSyncService};
use tower_ploton::{
    ApiKey, Origin, PlotonRateLimit, PlotonRetry, PlotonStack,
    limit::RateLimitHandle,
    redis::{RedisStore, Scope},
};

use crate::{KEY, PLAN};

pub(crate) struct Options {
    pub(crate) number: u32,
    /// The first of its jobs that is not known to be done.
    pub(crate) first: u64,
    pub(crate) ploton: String,
    pub(crate) redis: String,
    pub(crate) scope: Scope,
}

type Ploton = BoxCloneSyncService<Request<Full<Bytes>>, StatusCode, BoxError>;

/// Works until its standard input ends: when its parent closes it, or is no more.
pub(crate) async fn run(options: &Options) -> Result<u8, BoxError> {
    let (ploton, limit) = ploton(options)?;
    let ended = input_ends();
    let next = Arc::new(AtomicU64::new(options.first));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (ploton, next, ended) = (ploton.clone(), next.clone(), ended.clone());
        let (number, url) = (options.number, format!("{}/v1/tasks", options.ploton));
        callers.spawn(async move {
            while !*ended.borrow() {
                let job = next.fetch_add(1, Ordering::Relaxed);
                let created = create(ploton.clone(), &url, number, job).await;
                match created {
                    Ok(()) => say(&format!("done {job}")),
                    Err(error) => say(&format!("failed {job} {error}")),
                }
            }
        });
    }
    let watcher = tokio::spawn(watch_store(limit));
    let mut over = ended;
    // An error is an end too.
    let _ = over.wait_for(|ended| *ended).await;
    // What is under way is finished, or else begun again by whoever reads what was said.
    let _ = timeout(FAREWELL, callers.join_all()).await;
    watcher.abort();
    Ok(0)
}

fn ploton(options: &Options) -> Result<(Ploton, RateLimitHandle), BoxError> {
    let client = redis::Client::open(options.redis.as_str())?;
    let connect = move || {
        let client = client.clone();
        async move { client.get_multiplexed_async_connection().await }
    };
    let store = RedisStore::connect_with(connect, options.scope.clone());
    let limit = PlotonRateLimit::new(PLAN).shared(store);
    let stack = PlotonStack::new(ApiKey::parse(KEY)?, PLAN)
        .origin(Origin::parse(&options.ploton)?)
        .rate_limit(limit.clone())
        // The fake fails often.
        .retry(PlotonRetry::new().attempts(10));
    let service = stack.layer(Client::builder(TokioExecutor::new()).build_http());
    let service = service.and_then(async |answer: http::Response<hyper::body::Incoming>| {
        let (head, body) = answer.into_parts();
        body.collect().await?;
        Ok(head.status)
    });
    Ok((BoxCloneSyncService::new(service), limit.handle()))
}

/// Creates the task of a job. Its idempotency key is the job's own, so that it is the same after a crash.
async fn create(ploton: Ploton, url: &str, worker: u32, job: u64) -> Result<(), BoxError> {
    let prompt = format!("Job {job} of worker {worker}");
    let request = Request::post(url)
        .header("content-type", "application/json")
        .header("idempotency-key", format!("fleet-{worker}-{job}"))
        .body(Full::from(json!({ "prompt": prompt }).to_string()))?;
    match ploton.oneshot(request).await? {
        StatusCode::CREATED => Ok(()),
        status => Err(status.to_string().into()),
    }
}

/// Says whether Redis answers, whenever that changes.
async fn watch_store(limit: RateLimitHandle) {
    let mut said = None;
    loop {
        let store = limit.snapshot().store;
        let answers = store.is_some_and(|store| store.processes > 0 && store.away_since.is_none());
        if said != Some(answers) {
            said = Some(answers);
            say(if answers { "store here" } else { "store away" });
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn input_ends() -> watch::Receiver<bool> {
    let (ends, ended) = watch::channel(false);
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = ends.send(true);
    });
    ended
}

/// To the parent, if it is still there.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

const CALLERS: u32 = 4;
/// How long it finishes what it began.
const FAREWELL: Duration = Duration::from_secs(20);
