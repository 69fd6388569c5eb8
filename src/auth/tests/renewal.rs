//! A key is renewed ahead of its end, beside the requests.

use std::{error::Error, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, advance},
};

use super::{
    super::*,
    source::{Played, key, secs, settle},
};

#[tokio::test(start_paused = true)]
async fn a_key_is_renewed_ahead_of_its_end_and_no_request_waits() {
    let mut played = Played::with(key("a").expires_in(secs(100))).await;
    advance(secs(79)).await;
    assert!(played.get().await.unwrap().is_ok());
    played.is_not_asked().await;
    advance(secs(1)).await;
    for call in played.get_many(64) {
        assert!(call.await.unwrap().is_ok());
    }
    assert_eq!(played.last_key(), "a");
    let answer = played.question().await;
    played.is_not_asked().await;
    let tasks = Handle::current().metrics().num_alive_tasks();
    assert_eq!(tasks, 1, "one asks for all");
    answer.send(Ok(key("b").expires_in(secs(100)))).unwrap();
    settle().await;
    assert!(played.get().await.unwrap().is_ok());
    assert_eq!(played.last_key(), "b");
    played.is_not_asked().await;
}

/// The request that finds a renewal due is dropped at once: the renewal is not.
#[tokio::test(start_paused = true)]
async fn a_renewal_ahead_of_the_end_outlives_the_request_that_began_it() {
    let mut played = Played::with(key("a").expires_in(secs(100))).await;
    advance(secs(80)).await;
    let call = played.get();
    let answer = played.question().await;
    call.abort();
    settle().await;
    answer.send(Ok(key("b"))).unwrap();
    settle().await;
    assert!(played.get().await.unwrap().is_ok());
    assert_eq!(played.last_key(), "b");
}

#[tokio::test(start_paused = true)]
async fn while_there_is_a_key_to_go_on_with_a_failing_source_is_asked_less_and_less() {
    let mut played = Played::with(key("a").expires_in(secs(100))).await;
    let start = Instant::now() - Duration::from_millis(1);
    let mut asked = Vec::new();
    while Instant::now() - start < secs(98) {
        assert!(played.get().await.unwrap().is_ok());
        settle().await;
        if let Ok(answer) = played.questions.try_recv() {
            asked.push((Instant::now() - start).as_secs());
            answer.send(Err("sealed".into())).unwrap();
        }
        advance(Duration::from_millis(100)).await;
    }
    assert_eq!(asked, [80, 81, 83, 87, 95]);
    let failure = played.auth.key_handle().last_failure().unwrap();
    assert_eq!(failure.source().unwrap().to_string(), "sealed");

    advance(secs(3)).await;
    let call = played.get();
    played.answer(Err("sealed".into())).await;
    let error = call.await.unwrap().unwrap_err();
    assert!(error.is::<KeyUnavailable>(), "the key has expired");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_beside_the_requests_is_left_alone_for_a_second() {
    let mut played = Played::with(key("a").expires_in(secs(100))).await;
    advance(secs(80)).await;
    assert!(played.get().await.unwrap().is_ok());
    // It waits for this answer, and panics without it.
    drop(played.question().await);
    settle().await;
    assert!(played.get().await.unwrap().is_ok());
    played.is_not_asked().await;
    advance(secs(1)).await;
    assert!(played.get().await.unwrap().is_ok());
    played.answer(Ok(key("b"))).await;
    settle().await;
    assert!(played.get().await.unwrap().is_ok());
    assert_eq!(played.last_key(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_key_looked_at_long_ago_is_looked_at_before_the_next_request() {
    let mut played = Played::with(key("a").renew_after(secs(10))).await;
    advance(secs(10)).await;
    assert!(played.get().await.unwrap().is_ok());
    played.answer(Ok(key("b").renew_after(secs(10)))).await;
    settle().await;

    advance(secs(20)).await;
    let call = played.get();
    played.answer(Ok(key("c").renew_after(secs(10)))).await;
    assert!(call.await.unwrap().is_ok());
    assert_eq!(played.last_key(), "c");

    advance(secs(20)).await;
    let call = played.get();
    played.answer(Err("no file".into())).await;
    assert!(call.await.unwrap().is_ok(), "the key has no end");
    assert_eq!(played.last_key(), "c");
    assert!(played.get().await.unwrap().is_ok());
    played.is_not_asked().await;

    // A source that hangs holds up no more requests.
    advance(secs(1)).await;
    let start = Instant::now();
    assert!(played.get().await.unwrap().is_ok());
    let _hangs = played.question().await;
    assert!(played.get().await.unwrap().is_ok());
    assert!(Instant::now() - start < secs(1));
}
