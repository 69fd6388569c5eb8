//! A recorder of metrics for a test, and a run that gives it all that there is.

use std::{convert::Infallible, future, num::NonZeroU32, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use metrics::{LocalRecorderGuard, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::time::{self, Instant};
use tower::{Layer, ServiceExt};
use tower_ploton::{
    ApiKey, Plan, PlotonAuth, PlotonRateLimit, PlotonStack, PlotonTaskLimit, TaskSlot,
    limit::MemoryStore,
    metrics::{BUCKETS, start},
    mock::{FakePloton, Fault},
    tasks::MemorySlots,
};

use crate::{KEY, PLOTON, create, key, scrape::Scrape};

/// A recorder of what this thread does.
pub(crate) struct Recording {
    pub(crate) text: PrometheusHandle,
    _guard: LocalRecorderGuard<'static>,
}

impl Recording {
    pub(crate) fn start() -> Self {
        let builder = PrometheusBuilder::new().set_buckets(BUCKETS).unwrap();
        Self::of(builder.build_recorder())
    }

    pub(crate) fn of(recorder: PrometheusRecorder) -> Self {
        let text = recorder.handle();
        let recorder: &'static dyn Recorder = Box::leak(Box::new(recorder));
        let guard = metrics::set_default_local_recorder(recorder);
        start();
        Self {
            text,
            _guard: guard,
        }
    }

    pub(crate) fn scrape(&self) -> Scrape {
        Scrape::read(&self.text.render())
    }
}

/// Does, one after the other, whatever there is a metric for.
pub(crate) async fn everything() {
    // Cut, refused, sent again; then a task that waits for a slot, and one that may not.
    let fake = FakePloton::new().plan(Plan::Prototyping);
    fake.fail_next(Fault::CutAfter);
    fake.fail_next(Fault::RateLimited {
        retry_after: Some(secs(2)),
    });
    let tasks = PlotonTaskLimit::with_capacity(NonZeroU32::MIN).max_wait(secs(20));
    let rate = PlotonRateLimit::new(Plan::Prototyping);
    let stack = stack().tasks(tasks).rate_limit(rate.max_wait(secs(30)));
    let handle = stack.rate_limit_handle();
    let service = stack.layer(fake);
    let created = service.clone().oneshot(create(PLOTON, "one")).await;
    let slot = created.unwrap().extensions().get::<TaskSlot>().cloned();
    let waits = tokio::spawn(service.clone().oneshot(create(PLOTON, "two")));
    time::sleep(secs(5)).await;
    slot.unwrap().release();
    waits.await.unwrap().unwrap();
    let late = service.clone().oneshot(create(PLOTON, "three")).await;
    assert!(late.is_err());
    // Nor may one wait for the end of this pause.
    handle.pause_until(Instant::now() + secs(60));
    let get = || Request::get(format!("{PLOTON}/v1/tasks")).body(Full::<Bytes>::default());
    assert!(service.clone().oneshot(get().unwrap()).await.is_err());
    time::sleep(secs(61)).await;
    handle.publish();

    // An outage: given up.
    let fake = FakePloton::new().fault_rate(Fault::Status(StatusCode::BAD_GATEWAY), 1.0);
    let stack = self::stack();
    let _ = stack.layer(fake).oneshot(create(PLOTON, "four")).await;

    // Stores that are shared.
    let rate = PlotonRateLimit::new(Plan::Production).shared(MemoryStore::new());
    let tasks = PlotonTaskLimit::new(Plan::Production).shared(MemorySlots::new());
    let stack = self::stack().rate_limit(rate).tasks(tasks);
    let service = stack.layer(FakePloton::new());
    service.oneshot(create(PLOTON, "five")).await.unwrap();

    // A source of keys.
    let source = || future::ready(Ok::<_, Infallible>(ApiKey::parse(KEY).unwrap()));
    let auth = PlotonAuth::from_source(source);
    let service = PlotonStack::new(auth, Plan::Production).layer(FakePloton::new());
    service.oneshot(get().unwrap()).await.unwrap();
}

fn stack() -> PlotonStack {
    PlotonStack::new(key(), Plan::Production)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
