//! What may have been processed is held to the key that it was sent with, and nothing else is.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_ploton::{
    MaxAttempts, Plan, PlotonAuth, PlotonIdempotency, PlotonRateLimit, PlotonRetry,
    auth::FreshKey,
    mock::{FakePloton, Fault},
    retry::Outcome,
};

use super::{PLOTON, credentials, key, millis, name, stack, support::create};

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
                .classify_with(|_| Outcome::Ambiguous)
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

/// Sends a POST that waits for the limiter between its call and its sending, while key 1 is set, and whose answer is lost.
async fn set_while_it_waits<S, R>(mut service: S, fake: &FakePloton, set: impl FnOnce()) -> usize
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = BoxError> + Clone,
    S::Future: Send + 'static,
    R: Send + 'static,
{
    tokio::time::advance(millis(1)).await;
    let other = service.clone();
    service.ready().await.unwrap();
    fake.fail_next(Fault::RateLimited {
        retry_after: Some(millis(5_000)),
    });
    let mut once = list();
    once.extensions_mut().insert(MaxAttempts(NonZeroU32::MIN));
    other.oneshot(once).await.unwrap();
    // It was ready before the pause.
    let call = tokio::spawn(service.call(create(PLOTON, "one")));
    tokio::time::sleep(millis(1_000)).await;
    assert_eq!(fake.attempts().len(), 1, "it waits");
    set();
    fake.fail_next(Fault::CutAfter);
    assert!(call.await.unwrap().is_ok());
    assert_eq!(fake.attempts().len(), 3);
    fake.tasks().len()
}

/// The attempt carried the key of its sending, its repetition that of its call: a second task.
#[tokio::test(start_paused = true)]
async fn what_waited_for_the_limiter_is_held_to_the_key_that_it_was_sent_with() {
    let limit = || PlotonRateLimit::new(Plan::Production);
    let retry = || {
        let retry = PlotonRetry::new().base_delay(millis(1_000));
        let idempotency = ServiceBuilder::new().layer(PlotonIdempotency::new());
        idempotency.layer(retry.without_jitter())
    };

    let (fake, auth) = (FakePloton::new(), PlotonAuth::new(key(0)));
    let handle = auth.key_handle();
    let service = retry().layer(limit()).layer(auth).service(fake.clone());
    let tasks = set_while_it_waits(service, &fake, || handle.set(key(1)).unwrap()).await;
    assert_eq!((tasks, credentials(&fake)), (1, vec![0, 1, 1]));

    // The other way round it was given its key at the call.
    let (fake, auth) = (FakePloton::new(), PlotonAuth::new(key(0)));
    let handle = auth.key_handle();
    let service = retry().layer(auth).layer(limit()).service(fake.clone());
    let tasks = set_while_it_waits(service, &fake, || handle.set(key(1)).unwrap()).await;
    assert_eq!((tasks, credentials(&fake)), (1, vec![0, 0, 0]));
}
