//! Keys that change while requests are on their way: on real sockets under load, and in every situation a request can be in.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

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
    ApiKey, Attempts, Origin, PlotonAuth, PlotonIdempotency, PlotonRetry,
    auth::{FreshKey, KeyHandle, KeyRenewed},
    mock::{FakePloton, Fault, Outcome},
};

use support::create;

const PLOTON: &str = "https://api.ploton.ai";

fn name(n: usize) -> String {
    format!("pk_test_{n:016}")
}

fn key(n: usize) -> ApiKey {
    ApiKey::parse(&name(n)).unwrap()
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Retries quickly, and never for want of a quota.
fn retry() -> PlotonRetry {
    PlotonRetry::new()
        .attempts(20)
        .base_delay(millis(1))
        .max_delay(millis(5))
        .quota(u32::MAX)
}

/// A source that gives `pk_test_0`, then `pk_test_1` and so on, and counts.
fn counting() -> (PlotonAuth, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let auth = PlotonAuth::from_source(move || {
        let n = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            tokio::time::sleep(millis(20)).await;
            Ok::<_, BoxError>(key(n))
        }
    });
    (auth, asked)
}

/// The key of each attempt so far, by the order in which the server first saw it; the first attempts' are 0.
fn credentials(fake: &FakePloton) -> Vec<usize> {
    let attempts = fake.attempts();
    attempts
        .iter()
        .map(|attempt| attempt.credential.expect("a key"))
        .collect()
}

fn idempotency_keys(fake: &FakePloton) -> HashSet<Option<String>> {
    let attempts = fake.attempts();
    attempts
        .into_iter()
        .map(|attempt| attempt.idempotency_key)
        .collect()
}

/// The four layers but the limiter, around a fake.
fn stack(
    retry: PlotonRetry,
    auth: PlotonAuth,
    fake: &FakePloton,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<impl http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Send + use<>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ use<> {
    ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(retry)
        .layer(auth)
        .service(fake.clone())
}

#[tokio::test(start_paused = true)]
async fn a_401_is_made_good_once_with_the_same_idempotency_key() {
    let (auth, asked) = counting();
    let fake = FakePloton::new();
    let service = stack(PlotonRetry::new(), auth, &fake);
    fake.revoke_key(&name(0));
    let start = tokio::time::Instant::now();
    let response = service.clone().oneshot(create(PLOTON, "one")).await;
    assert_eq!(response.unwrap().status(), StatusCode::CREATED);
    assert_eq!(credentials(&fake), [0, 1]);
    assert_eq!(idempotency_keys(&fake).len(), 1);
    // Twice the source, and what was left of the 401 was there at once.
    assert!(tokio::time::Instant::now() - start < millis(45));

    // The next key is refused as well: once is all.
    for revoked in [1, 2] {
        fake.revoke_key(&name(revoked));
    }
    let response = service.oneshot(create(PLOTON, "two")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.extensions().get::<Attempts>().unwrap().made(), 2);
    assert_eq!(credentials(&fake), [0, 1, 1, 2]);
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn sixty_four_401s_at_once_are_one_question_and_sixty_four_tasks() {
    let (auth, asked) = counting();
    let fake = FakePloton::new().latency(millis(10));
    let service = stack(PlotonRetry::new().quota(1), auth, &fake);
    fake.revoke_key(&name(0));
    let mut calls = JoinSet::new();
    for n in 0..64 {
        calls.spawn(service.clone().oneshot(create(PLOTON, &format!("{n}"))));
    }
    for response in calls.join_all().await {
        assert_eq!(response.unwrap().status(), StatusCode::CREATED);
    }
    assert_eq!(
        asked.load(Ordering::Relaxed),
        2,
        "the first key, and one more"
    );
    let counts = fake.counts();
    assert_eq!((counts.attempts, counts.created), (128, 64));
    assert_eq!(counts.duplicated, 0);
}

/// Nothing was sent: any request may wait for a source that comes back.
#[tokio::test(start_paused = true)]
async fn a_source_that_fails_for_a_while_is_waited_for() {
    let asked = AtomicUsize::new(0);
    let auth = PlotonAuth::from_source(move || {
        let n = asked.fetch_add(1, Ordering::Relaxed);
        std::future::ready(if n < 2 { Err("sealed") } else { Ok(key(n)) })
    });
    let fake = FakePloton::new();
    let service = ServiceBuilder::new()
        .layer(PlotonRetry::new().attempts(3))
        .layer(auth)
        .service(fake.clone());
    let response = service.oneshot(create(PLOTON, "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(fake.attempts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_retry_the_401_goes_back_and_the_next_request_has_the_new_key() {
    let (auth, _) = counting();
    let fake = FakePloton::new();
    let service = ServiceBuilder::new().layer(auth).service(fake.clone());
    fake.revoke_key(&name(0));
    let response = service
        .clone()
        .oneshot(create(PLOTON, "one"))
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.extensions().get::<KeyRenewed>().is_some());
    let response = service.oneshot(create(PLOTON, "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
}

/// Sends one request whose first attempt suffers `fault`; after that key 1 is set, and the second attempt follows.
async fn set_between_attempts(
    fake: &FakePloton,
    fault: Fault,
    request: Request<Full<Bytes>>,
    outside: bool,
) -> StatusCode {
    fake.fail_next(fault);
    let auth = PlotonAuth::new(key(0));
    let handle = auth.key_handle();
    let retry = PlotonRetry::new()
        .base_delay(millis(1_000))
        .without_jitter();
    tokio::time::advance(millis(1)).await;
    let call = if outside {
        let layers = ServiceBuilder::new().layer(auth).layer(retry);
        let service = layers.layer(PlotonIdempotency::new()).service(fake.clone());
        tokio::spawn(service.oneshot(request))
    } else {
        let layers = ServiceBuilder::new().layer(PlotonIdempotency::new());
        let service = layers.layer(retry).layer(auth).service(fake.clone());
        tokio::spawn(service.oneshot(request))
    };
    tokio::time::sleep(millis(500)).await;
    assert_eq!(fake.attempts().len(), 1);
    handle.set(key(1)).unwrap();
    call.await.unwrap().unwrap().status()
}

fn list() -> Request<Full<Bytes>> {
    let request = Request::get(format!("{PLOTON}/v1/tasks"));
    request.body(Full::default()).unwrap()
}

/// The fake knows idempotency keys by their caller: another API key would have created a second task.
#[tokio::test(start_paused = true)]
async fn what_may_have_been_processed_is_repeated_with_the_key_of_that_attempt() {
    for outside in [false, true] {
        let fake = FakePloton::new();
        let post = create(PLOTON, "one");
        let status = set_between_attempts(&fake, Fault::CutAfter, post, outside).await;
        assert_eq!(status, StatusCode::CREATED);
        assert_eq!(credentials(&fake), [0, 0], "outside: {outside}");
        assert_eq!(fake.tasks().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_processed_is_repeated_with_the_key_in_force() {
    let refused = || Fault::RateLimited { retry_after: None };
    let unavailable = Fault::Status(StatusCode::SERVICE_UNAVAILABLE);
    for (fault, request) in [
        (refused(), create(PLOTON, "one")),
        (refused(), list()),
        // A GET has no key to be known by.
        (unavailable, list()),
    ] {
        let fake = FakePloton::new();
        set_between_attempts(&fake, fault, request, false).await;
        assert_eq!(credentials(&fake), [0, 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn outside_retry_all_attempts_have_one_key() {
    for fault in [
        Fault::RateLimited { retry_after: None },
        Fault::CutBefore,
        Fault::CutAfter,
    ] {
        let fake = FakePloton::new();
        let post = create(PLOTON, "one");
        let status = set_between_attempts(&fake, fault, post, true).await;
        assert_eq!(status, StatusCode::CREATED);
        assert_eq!(credentials(&fake), [0, 0]);
    }
}

/// It was cut before it was processed, the key that it is held to is revoked, and the key in force takes over.
#[tokio::test(start_paused = true)]
async fn a_401_ends_the_hold_on_a_former_key() {
    let fake = FakePloton::new();
    fake.revoke_key_after(&name(0), millis(700));
    let post = create(PLOTON, "one");
    let status = set_between_attempts(&fake, Fault::CutBefore, post, false).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(credentials(&fake), [0, 0, 1]);
    assert_eq!(fake.tasks().len(), 1);
}

/// The key that it is held to ended meanwhile. Perhaps the server takes it yet; if not, a 401 says so.
#[tokio::test(start_paused = true)]
async fn a_key_that_expired_is_still_the_one_of_its_attempt() {
    let fake = FakePloton::new();
    fake.fail_next(Fault::CutAfter);
    let asked = AtomicUsize::new(0);
    let auth = PlotonAuth::from_source(move || {
        let n = asked.fetch_add(1, Ordering::Relaxed);
        let fresh = FreshKey::from(key(n)).expires_in(millis(1_000));
        std::future::ready(Ok::<_, BoxError>(fresh))
    });
    let retry = PlotonRetry::new()
        .base_delay(millis(2_000))
        .without_jitter();
    let service = stack(retry, auth.clone(), &fake);
    let response = service.oneshot(create(PLOTON, "one")).await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(auth.key_handle().key(), Some(key(1)), "it was renewed");
    assert_eq!(credentials(&fake), [0, 0]);
    assert_eq!(fake.tasks().len(), 1);
}

/// The hold is on the attempt that may have been processed, not on one before it that was refused.
#[tokio::test(start_paused = true)]
async fn a_refused_attempt_holds_nothing() {
    let fake = FakePloton::new();
    fake.fail_next(Fault::RateLimited { retry_after: None });
    let auth = PlotonAuth::new(key(0));
    let handle = auth.key_handle();
    let retry = PlotonRetry::new()
        .base_delay(millis(1_000))
        .without_jitter();
    let call = tokio::spawn(stack(retry, auth, &fake).oneshot(create(PLOTON, "one")));
    for n in 1..=2 {
        tokio::time::sleep(millis(900)).await;
        handle.set(key(n)).unwrap();
        fake.fail_next(Fault::CutAfter);
        tokio::time::sleep(millis(900)).await;
    }
    assert_eq!(call.await.unwrap().unwrap().status(), StatusCode::CREATED);
    let credentials = credentials(&fake);
    assert_eq!(credentials[0], 0);
    assert!(credentials[1..].iter().all(|&credential| credential == 1));
    assert!(credentials.len() > 2);
    assert_eq!(fake.tasks().len(), 1);
}

/// A second retry layer outside has its own hold on the key, and the inner one keeps to it.
#[tokio::test(start_paused = true)]
async fn two_retry_layers_hold_the_same_key() {
    let fake = FakePloton::new();
    for _ in 0..3 {
        fake.fail_next(Fault::CutAfter);
    }
    let auth = PlotonAuth::new(key(0));
    let handle = auth.key_handle();
    let inner = PlotonRetry::new()
        .attempts(2)
        .base_delay(millis(1_000))
        .without_jitter();
    let service = ServiceBuilder::new()
        .layer(PlotonIdempotency::new())
        .layer(
            PlotonRetry::new()
                .classify_with(|_| tower_ploton::retry::Outcome::Ambiguous)
                .attempts(2),
        )
        .layer(inner)
        .layer(auth)
        .service(fake.clone());
    let call = tokio::spawn(service.oneshot(create(PLOTON, "one")));
    tokio::time::sleep(millis(500)).await;
    handle.set(key(1)).unwrap();
    assert!(call.await.unwrap().is_ok());
    assert!(fake.attempts().len() >= 4);
    assert!(credentials(&fake).iter().all(|&credential| credential == 0));
    assert_eq!(fake.tasks().len(), 1);
}

const REQUESTS: usize = 5_000;
const ROTATIONS: usize = 50;
const GRACE: Duration = millis(200);
/// Requests on their way at once.
const AT_ONCE: usize = 32;

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
