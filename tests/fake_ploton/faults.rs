//! Faults on demand and by chance, in memory.

use std::{io, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use tokio::time;
use tower::ServiceExt;
use tower_ploton::mock::{FakePloton, Fault, Outcome};

use crate::{MINUTE, create, keyed, send};

#[tokio::test(start_paused = true)]
async fn every_fault_in_memory() {
    let fake = FakePloton::new().latency(Duration::from_secs(1));
    let start = time::Instant::now();
    send(&fake, create("latency")).await;
    assert_eq!((time::Instant::now() - start).as_secs(), 1);
    fake.fail_next(Fault::Delay(Duration::from_secs(5)));
    send(&fake, create("delay")).await;
    assert_eq!((time::Instant::now() - start).as_secs(), 7);

    for fault in [Fault::CutBefore, Fault::CutAfter] {
        fake.fail_next(fault);
        let error = fake.clone().oneshot(create("cut")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    fake.fail_next(Fault::TruncatedBody);
    let truncated = send(&fake, create("truncated")).await.into_body();
    assert_eq!(
        truncated.collect().await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );

    fake.fail_next(Fault::RateLimited {
        retry_after: Some(Duration::from_millis(11_500)),
    });
    assert_eq!(
        send(&fake, create("x")).await.headers()["retry-after"],
        "12"
    );

    let strange = HeaderValue::from_bytes(b"\xff").unwrap();
    let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, strange.clone())]);
    fake.fail_next(Fault::Respond(StatusCode::OK, headers));
    assert_eq!(
        send(&fake, create("x")).await.headers()["retry-after"],
        strange
    );

    fake.fail_next(Fault::Hang);
    time::timeout(10 * MINUTE, fake.clone().oneshot(create("x")))
        .await
        .unwrap_err();

    let outcomes: Vec<_> = fake
        .attempts()
        .iter()
        .map(|attempt| attempt.outcome)
        .collect();
    let answered = |status: u16| Outcome::Answered(StatusCode::from_u16(status).unwrap());
    let expected = [
        answered(201),
        answered(201),
        Outcome::CutBefore,
        Outcome::CutAfter,
        Outcome::Truncated,
        answered(429),
        answered(200),
        Outcome::Unanswered,
    ];
    assert_eq!(outcomes, expected);
    let prompts: Vec<_> = fake.tasks().into_iter().map(|task| task.prompt).collect();
    assert_eq!(prompts, ["latency", "delay", "cut", "truncated"]);
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_sequence_near_its_rates() {
    let mut sequences = Vec::new();
    for seed in [1, 1, 2] {
        let fake = FakePloton::new()
            .seed(seed)
            .fault_rate(Fault::CutBefore, 0.2);
        for _ in 0..1_000 {
            let _ = fake.clone().oneshot(create("x")).await;
        }
        let cut = fake.counts().cut;
        assert!((150..250).contains(&cut), "{cut}");
        let outcomes: Vec<_> = fake
            .attempts()
            .iter()
            .map(|attempt| attempt.outcome)
            .collect();
        sequences.push(outcomes);
    }
    assert_eq!(sequences[0], sequences[1]);
    assert_ne!(sequences[0], sequences[2]);
}

#[tokio::test(start_paused = true)]
async fn a_stored_500_is_replayed_where_that_is_asked_for() {
    for replay in [false, true] {
        let fake = FakePloton::new().replay_errors(replay);
        fake.fail_next(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
        send(&fake, keyed("one", "k")).await;
        let again = send(&fake, keyed("one", "k")).await;
        assert_eq!(again.status().is_server_error(), replay);
        assert_eq!(again.headers().contains_key("idempotent-replayed"), replay);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_hint_has_none() {
    let fake = FakePloton::new();
    fake.fail_next(Fault::RateLimited { retry_after: None });
    let refused = send(&fake, create("x")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    for name in ["retry-after", "x-ratelimit-reset", "x-ratelimit-remaining"] {
        assert!(!refused.headers().contains_key(name), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_known_from_the_work_on_not_from_the_answer() {
    let fake = FakePloton::new();
    fake.fail_next(Fault::Delay(MINUTE));
    let given_up = time::timeout(MINUTE / 2, send(&fake, keyed("one", "k"))).await;
    assert!(given_up.is_err());
    let again = send(&fake, keyed("one", "k")).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(fake.counts().created, 1);
    let first = &fake.attempts()[0];
    assert_eq!(first.outcome, Outcome::Unanswered);
    assert_eq!(first.created.as_ref(), Some(&fake.tasks()[0].id));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_cut_before_the_work_costs_no_request_of_the_limit() {
    let fake = FakePloton::new().plan(tower_ploton::Plan::Prototyping);
    for fault in [
        Fault::CutBefore,
        Fault::Status(StatusCode::BAD_GATEWAY),
        Fault::CutAfter,
    ] {
        fake.fail_next(fault);
        let _ = fake.clone().oneshot(create("x")).await;
    }
    let response = send(&fake, create("x")).await;
    assert_eq!(response.headers()["x-ratelimit-remaining"], "98");
    assert_eq!((fake.counts().cut, fake.counts().failed), (2, 1));
}
