//! Keys rotate under load.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_ploton::{
    Origin, PlotonAuth, PlotonIdempotency, PlotonRetry,
    auth::KeyHandle,
    mock::{FakePloton, Fault, Outcome},
};

use super::{PLOTON, key, millis, name, stack, support::create};

const REQUESTS: usize = 5_000;
const ROTATIONS: usize = 50;
const GRACE: Duration = millis(200);
/// Requests on their way at once.
const AT_ONCE: usize = 32;

/// Retries quickly, and never for want of a quota.
fn retry() -> PlotonRetry {
    PlotonRetry::new()
        .attempts(20)
        .base_delay(millis(1))
        .max_delay(millis(5))
        .quota(u32::MAX)
}

/// Puts the next key in force after every hundredth request; the one before it is taken for the grace.
struct Rotation {
    handle: KeyHandle,
    fake: FakePloton,
    done: AtomicUsize,
}

impl Rotation {
    fn done(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done % (REQUESTS / ROTATIONS) == 0 {
            let n = done / (REQUESTS / ROTATIONS);
            let _ = self.fake.clone().accept_key(name(n));
            self.handle.set(key(n)).unwrap();
            self.fake.revoke_key_after(&name(n - 1), GRACE);
        }
    }
}

/// Sends all requests through `service`, half of them POSTs; none ends in anything but what it is for.
async fn rotate<S, R>(service: S, url: &str, auth: &PlotonAuth, fake: &FakePloton)
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = BoxError>,
    S: Clone + Send + 'static,
    S::Future: Send,
    R: Send + 'static,
{
    let rotation = Arc::new(Rotation {
        handle: auth.key_handle(),
        fake: fake.clone(),
        done: AtomicUsize::new(0),
    });
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = JoinSet::new();
    for n in 0..REQUESTS {
        let (rotation, at_once) = (rotation.clone(), at_once.clone());
        let (request, expected) = if n % 2 == 0 {
            (create(url, &format!("task {n}")), StatusCode::CREATED)
        } else {
            let get = Request::get(format!("{url}/v1/tasks?limit=1"));
            (get.body(Full::default()).unwrap(), StatusCode::OK)
        };
        let call = service.clone().oneshot(request);
        calls.spawn(async move {
            let _turn = at_once.acquire().await.unwrap();
            let response = call.await.unwrap();
            assert_eq!(response.status(), expected, "request {n}");
            rotation.done();
        });
    }
    calls.join_all().await;

    let attempts = fake.attempts();
    assert!(attempts.iter().all(|attempt| attempt.authorized));
    let keys: HashSet<_> = attempts.iter().map(|attempt| attempt.credential).collect();
    // The last is set when the last request is done.
    assert_eq!(keys.len(), ROTATIONS, "each key was used");
    let prompts: HashSet<_> = fake.tasks().into_iter().map(|task| task.prompt).collect();
    assert_eq!(
        (prompts.len(), fake.tasks().len()),
        (REQUESTS / 2, REQUESTS / 2)
    );
}

fn refused_keys(fake: &FakePloton) -> usize {
    let refused = Outcome::Answered(StatusCode::UNAUTHORIZED);
    let attempts = fake.attempts();
    attempts
        .iter()
        .filter(|attempt| attempt.outcome == refused)
        .count()
}

#[tokio::test]
async fn keys_rotate_under_load_on_real_sockets() {
    for http2 in [false, true] {
        // What is cut is not created: however slow this machine is, no hold on a key outlives its grace for nothing.
        let fake = FakePloton::new()
            .accept_key(name(0))
            .fault_rate(Fault::CutBefore, if http2 { 0.002 } else { 0.02 })
            .fault_rate(Fault::Status(StatusCode::SERVICE_UNAVAILABLE), 0.02);
        let server = fake.listen().await.unwrap();
        let auth = PlotonAuth::new(key(0)).origin(Origin::parse(&server.url()).unwrap());
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new())
            .http2_only(http2)
            .build_http();
        let service = ServiceBuilder::new()
            .layer(PlotonIdempotency::new())
            .layer(retry())
            .layer(auth.clone())
            .service(client);
        rotate(service, &server.url(), &auth, &fake).await;
    }
}

/// The same by a clock that no load can hold up: the grace covers every request, and every hold on a key.
#[tokio::test(start_paused = true)]
async fn keys_rotate_under_load_and_the_server_refuses_none() {
    let fake = FakePloton::new()
        .accept_key(name(0))
        .seed(3)
        .latency(millis(2))
        .fault_rate(Fault::CutBefore, 0.02)
        .fault_rate(Fault::CutAfter, 0.02)
        .fault_rate(Fault::Delay(millis(30)), 0.02)
        .fault_rate(Fault::Status(StatusCode::SERVICE_UNAVAILABLE), 0.02);
    let auth = PlotonAuth::new(key(0));
    rotate(stack(retry(), auth.clone(), &fake), PLOTON, &auth, &fake).await;
    let counts = fake.counts();
    assert!(counts.replayed > 0, "answers were lost, and made good");
    assert_eq!(refused_keys(&fake), 0);
}
