//! A 401 is made good once, by one question to the source.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::StatusCode;
use tokio::task::JoinSet;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_ploton::{Attempts, PlotonAuth, PlotonRetry, auth::KeyRenewed, mock::FakePloton};

use super::{PLOTON, credentials, key, millis, name, stack, support::create};

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

fn idempotency_keys(fake: &FakePloton) -> HashSet<Option<String>> {
    let attempts = fake.attempts();
    attempts
        .into_iter()
        .map(|attempt| attempt.idempotency_key)
        .collect()
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
