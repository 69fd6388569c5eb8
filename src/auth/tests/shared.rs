//! An answer of the source is shared by those that it is good for, and waited for no longer than it can take.

use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, task};

use super::source::{Played, is_renewed, key, secs, settle, unavailable};

/// A caller may keep a call that it polls no more, as `select!` does in a loop.
#[tokio::test(start_paused = true)]
async fn a_call_that_asks_and_is_polled_no_more_stops_nobody_for_good() {
    let mut played = Played::new();
    let mut parked = task::spawn(played.call());
    assert_pending!(parked.poll());
    let answer = played.question().await;
    let start = Instant::now();
    for call in played.get_many(8) {
        let error = call.await.unwrap().unwrap_err();
        assert!(unavailable(&error).is_timeout());
    }
    assert_eq!((Instant::now() - start).as_secs(), 21);

    let call = played.get();
    played.answer(Ok(key("b"))).await;
    assert!(call.await.unwrap().is_ok());
    // What it was told so long ago is no news.
    answer.send(Ok(key("a"))).unwrap();
    assert_pending!(parked.poll());
    settle().await;
    assert!(parked.await.is_ok());
    assert_eq!(played.last_key(), "b");
    played.is_not_asked().await;
}

/// The source looked before the key was replaced there; the server refused it after that.
#[tokio::test(start_paused = true)]
async fn an_answer_from_before_a_401_is_none_to_it() {
    let mut played = Played::with(key("a").expires_in(secs(100))).await;
    advance(secs(80)).await;
    assert!(played.get().await.unwrap().is_ok());
    let early = played.question().await;
    played.api.refuse("a");
    let calls = played.get_many(64);
    settle().await;
    advance(secs(1)).await;
    settle().await;
    early.send(Ok(key("a"))).unwrap();
    played.answer(Ok(key("b"))).await;
    for call in calls {
        assert!(is_renewed(&call.await.unwrap().unwrap()));
    }
    played.is_not_asked().await;
}

#[tokio::test(start_paused = true)]
async fn who_says_that_the_key_changed_is_told_what_the_source_says_after_that() {
    let mut played = Played::new();
    let handle = played.auth.key_handle();
    let call = played.get();
    let early = played.question().await;
    let both = tokio::spawn(async move { tokio::join!(handle.renew(), handle.renew()) });
    settle().await;
    early.send(Ok(key("a"))).unwrap();
    played.answer(Ok(key("b"))).await;
    let (one, other) = both.await.unwrap();
    assert!(one.is_ok() && other.is_ok());
    assert!(call.await.unwrap().is_ok());
    assert!(played.get().await.unwrap().is_ok());
    assert_eq!(played.last_key(), "b");
    played.is_not_asked().await;
}
