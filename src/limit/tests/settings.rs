//! The layer's settings, and what the handle shows.

use std::time::SystemTime;

use super::*;

/// Sends one request that is answered with Limit 300, `remaining`, and a Reset that is `reset` seconds after 1970.
async fn send(limit: &PlotonRateLimit, remaining: u32, reset: u64) {
    let service = limit.layer(service_fn(move |_: Request<()>| async move {
        Response::builder()
            .header("x-ratelimit-limit", 300)
            .header("x-ratelimit-remaining", remaining)
            .header("x-ratelimit-reset", reset)
            .body(())
    }));
    service.oneshot(get()).await.unwrap();
}

const RESET: u64 = 1_718_459_532;

#[tokio::test(start_paused = true)]
async fn the_handle_shows_what_the_server_said_and_how_the_limiter_goes_on() {
    let limit = PlotonRateLimit::new(requests(300));
    assert_eq!(limit.handle().snapshot().server, None);
    assert_eq!(limit.handle().snapshot().mode, Mode::Paced);
    send(&limit, 10, RESET).await;
    let reported = limit.handle().snapshot().server.unwrap();
    assert_eq!((reported.limit, reported.remaining), (300, 10));
    let reset = SystemTime::UNIX_EPOCH + Duration::from_secs(RESET);
    assert_eq!(reported.reset, Some(reset));
    assert_eq!(limit.handle().snapshot().others, 289);
    assert_eq!(limit.handle().snapshot().mode, Mode::Shared);
}

#[tokio::test(start_paused = true)]
async fn the_handle_shows_how_long_a_key_counts_as_shared_when_nobody_else_is_seen_any_longer() {
    let limit = PlotonRateLimit::new(requests(300));
    assert_eq!(limit.handle().snapshot().shared_until, None);
    send(&limit, 10, RESET).await;
    let (seen, while_windows) = (Instant::now(), 5 * Duration::from_millis(60_012));
    time::advance(2 * SECOND).await;
    send(&limit, 299, RESET + 60).await;
    let snapshot = limit.handle().snapshot();
    assert_eq!((snapshot.others, snapshot.mode), (0, Mode::Paced));
    assert_eq!(snapshot.shared_until, Some(seen + while_windows));
    time::advance(while_windows).await;
    assert_eq!(limit.handle().snapshot().shared_until, None);
    // Others whom the last answer showed are there until another shows that they are gone.
    send(&limit, 10, RESET + 360).await;
    time::advance(2 * while_windows).await;
    let snapshot = limit.handle().snapshot();
    assert_eq!(snapshot.mode, Mode::Shared);
    assert_eq!(snapshot.shared_until, Some(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn without_headers_nothing_that_they_say_counts() {
    let limit = PlotonRateLimit::new(requests(300)).without_headers();
    send(&limit, 10, RESET).await;
    let snapshot = limit.handle().snapshot();
    assert_eq!((snapshot.server, snapshot.others), (None, 0));
    assert_eq!(snapshot.mode, Mode::Paced);
}

#[tokio::test(start_paused = true)]
async fn the_burst_is_as_large_as_it_is_set_to() {
    let limit = || PlotonRateLimit::new(requests(300));
    let seven = NonZeroU32::new(7).unwrap();
    for (limit, burst) in [(limit(), 75), (limit().burst(seven), 7)] {
        time::advance(120 * SECOND).await;
        send(&limit, 299, RESET).await;
        time::advance(120 * SECOND).await;
        assert_eq!(limit.handle().snapshot().at_once, burst);
    }
}

#[tokio::test(start_paused = true)]
async fn the_plan_is_learned_when_a_whole_window_opens_and_not_before() {
    for (limit, learned) in [
        (PlotonRateLimit::learn(), 300),
        (PlotonRateLimit::new(Plan::Prototyping), 100),
    ] {
        // The end of one window and the beginning of the next, too near for a bucket to have filled.
        for remaining in [12, 11, 10] {
            send(&limit, remaining, RESET).await;
        }
        assert_eq!(limit.handle().snapshot().limit, 100);
        time::advance(2 * SECOND).await;
        send(&limit, 299, RESET + 60).await;
        assert_eq!(limit.handle().snapshot().limit, learned);
    }
}

#[tokio::test(start_paused = true)]
async fn a_503_with_a_hint_pauses_unless_that_is_turned_off() {
    for (pauses, hint, pause) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
    ] {
        let limit = PlotonRateLimit::new(Plan::Production).pause_on_503(pauses);
        let service = limit.layer(service_fn(move |_: Request<()>| async move {
            let mut response = answer(StatusCode::SERVICE_UNAVAILABLE);
            if hint {
                response
                    .headers_mut()
                    .insert("retry-after", "12".parse().unwrap());
            }
            Ok::<_, Infallible>(response)
        }));
        let start = Instant::now();
        service.oneshot(get()).await.unwrap();
        let until = limit.handle().snapshot().paused_until;
        assert_eq!(
            until.is_some_and(|until| until >= start + 12 * SECOND),
            pause
        );
        assert_eq!(limit.handle().snapshot().in_flight, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn another_window_is_paced_by_its_own_length() {
    let arrivals = Arc::default();
    let limit = PlotonRateLimit::new(requests(20)).window(2 * SECOND);
    let service = limit.layer(server(&arrivals, |_| 1));
    let mut calls: JoinSet<_> = (0..100).map(|_| service.clone().oneshot(get())).collect();
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    let arrivals = arrivals.lock().unwrap();
    for window in arrivals.windows(21) {
        assert!(window[20] - window[0] > 2 * SECOND);
    }
    let took = arrivals[99] - arrivals[0];
    assert!(took < 13 * SECOND, "{took:?}");
}
