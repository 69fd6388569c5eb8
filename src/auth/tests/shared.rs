//! An answer of the source is shared by those that it is good for, and waited for no longer than it can take.

use tokio::time::Instant;
use tokio_test::{assert_pending, task};

use super::source::{Played, key, settle, unavailable};

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
