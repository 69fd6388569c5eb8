//! What an HTTP/2 server says with frames of its own.

use super::*;

/// An HTTP/2 server in bytes: reads the request, then writes `frame`.
async fn answers_with(frame: &'static [u8]) -> String {
    serve(async move |mut socket| {
        socket.write_all(&EMPTY_SETTINGS).await.unwrap();
        read_request(&mut socket).await;
        socket.write_all(frame).await.unwrap();
        // Until the client closes.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    })
    .await
}

const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// RST_STREAM of stream 1.
const fn reset(code: u8) -> [u8; 13] {
    [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, code]
}

/// GOAWAY whose last stream is `last`.
const fn go_away(last: u8, code: u8) -> [u8; 17] {
    [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, code]
}

const NO_ERROR: u8 = 0;
const INTERNAL_ERROR: u8 = 2;
const REFUSED_STREAM: u8 = 7;
const CANCEL: u8 = 8;

#[tokio::test]
async fn a_refused_stream_was_not_sent_and_one_that_is_reset_otherwise_is_ambiguous() {
    for (frame, outcome) in [
        (const { &reset(REFUSED_STREAM) }, NOT_SENT),
        (const { &reset(INTERNAL_ERROR) }, AMBIGUOUS),
        (const { &reset(CANCEL) }, AMBIGUOUS),
        (const { &reset(NO_ERROR) }, AMBIGUOUS),
    ] {
        let url = answers_with(frame).await;
        let taken = taken_for(client(true), create(&url, "one")).await;
        assert_eq!(taken, outcome, "{frame:?}");
    }
}

#[tokio::test]
async fn a_stream_above_the_last_of_a_goaway_was_not_sent() {
    let url = answers_with(const { &go_away(0, NO_ERROR) }).await;
    assert_eq!(taken_for(client(true), create(&url, "one")).await, NOT_SENT);
}

#[tokio::test]
async fn a_goaway_that_says_nothing_of_the_stream_leaves_it_ambiguous() {
    // It counts the stream in, and then the connection ends.
    let url = serve(async |mut socket| {
        socket.write_all(&EMPTY_SETTINGS).await.unwrap();
        read_request(&mut socket).await;
        socket.write_all(&go_away(1, NO_ERROR)).await.unwrap();
    })
    .await;
    assert_eq!(
        taken_for(client(true), create(&url, "one")).await,
        AMBIGUOUS
    );
    // With an error, hyper does not tell apart which streams it counts in.
    let url = answers_with(const { &go_away(0, INTERNAL_ERROR) }).await;
    assert_eq!(
        taken_for(client(true), create(&url, "one")).await,
        AMBIGUOUS
    );
}
