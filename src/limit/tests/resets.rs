//! What a Reset says, by whose clock, and when it is not believed.

use super::*;

/// In 2096: whoever reads it by the local clock waits for long.
const RESET: u64 = 4_000_000_000;

/// Sends one request of 300 a minute that is answered with `headers`.
async fn send(limit: &PlotonRateLimit, status: u16, headers: &[(&'static str, String)]) {
    let headers = headers.to_vec();
    let service = limit.layer(service_fn(move |_: Request<()>| {
        let mut response = Response::builder().status(status);
        for (name, value) in &headers {
            response = response.header(*name, value);
        }
        async { response.body(()) }
    }));
    service.oneshot(get()).await.unwrap();
}

/// Remaining of 300, and a Reset.
fn left(remaining: u32, reset: impl ToString) -> [(&'static str, String); 3] {
    [
        ("x-ratelimit-limit", "300".to_owned()),
        ("x-ratelimit-remaining", remaining.to_string()),
        ("x-ratelimit-reset", reset.to_string()),
    ]
}

fn reset(at: impl ToString) -> [(&'static str, String); 1] {
    [("x-ratelimit-reset", at.to_string())]
}

/// Asserts that nothing leaves for `seconds`, or a second more, and what is added at random.
#[track_caller]
fn assert_paused_for(limit: &PlotonRateLimit, seconds: u32) {
    let until = limit.handle().snapshot().paused_until.unwrap();
    let pause = until - Instant::now();
    let least = seconds * SECOND;
    let most = least + SECOND;
    let most = most + (most / 5).min(5 * SECOND);
    assert!(pause >= least && pause <= most, "{pause:?} for {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn an_undated_refusal_is_read_by_the_servers_own_clock() {
    for refusal in [left(0, RESET).to_vec(), reset(RESET).to_vec()] {
        let limit = PlotonRateLimit::new(requests(300));
        // The window opens, so its Reset is a whole one away.
        send(&limit, 200, &left(299, RESET)).await;
        time::advance(40 * SECOND).await;
        send(&limit, 429, &refusal).await;
        // A second for how Reset was rounded, and one for how it is read.
        assert_paused_for(&limit, 22);
    }
}

#[tokio::test(start_paused = true)]
async fn an_undated_refusal_before_all_answers_is_read_by_the_local_clock_for_a_window_at_most() {
    let limit = PlotonRateLimit::new(requests(300));
    let local = limit.shared.wall.since_epoch(Instant::now()).as_secs_f64();
    send(&limit, 429, &reset(local + 20.0)).await;
    assert_paused_for(&limit, 20);
    for far in [local + 64.0, RESET as f64, local - 3_600.0] {
        for refusal in [left(0, far).to_vec(), reset(far).to_vec()] {
            let limit = PlotonRateLimit::new(requests(300));
            send(&limit, 429, &refusal).await;
            assert_paused_for(&limit, 60);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_names_a_wait_or_a_date_of_its_own_is_believed_to_the_letter() {
    let dated = |seconds: u32| {
        // Tue, 02 Oct 2096 07:06:40 GMT is the Reset.
        let date = format!("Tue, 02 Oct 2096 07:{:02}:40 GMT", 6 - seconds / 60);
        [reset(RESET).to_vec(), vec![("date", date)]].concat()
    };
    for (refusal, seconds) in [
        (reset(37).to_vec(), 37),
        (reset(200).to_vec(), 200),
        (dated(240), 241),
    ] {
        let limit = PlotonRateLimit::new(requests(300));
        send(&limit, 200, &left(299, RESET)).await;
        time::advance(SECOND).await;
        send(&limit, 429, &refusal).await;
        assert_paused_for(&limit, seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn without_headers_retry_after_is_obeyed_and_no_reset() {
    let retry_after = ("retry-after", "12".to_owned());
    for (refusal, seconds) in [
        (left(0, 30).to_vec(), 60),
        (vec![("ratelimit", "\"default\";r=0;t=30".to_owned())], 60),
        ([left(0, 30).to_vec(), vec![retry_after]].concat(), 12),
    ] {
        let limit = PlotonRateLimit::new(requests(300)).without_headers();
        send(&limit, 429, &refusal).await;
        assert_paused_for(&limit, seconds);
    }
}

/// A limiter of 10 a minute to which a window of its own opened just now, a minute after the one before. The windows'
/// Resets are what `says` makes of how many seconds passed, and of how many minutes the Reset is later.
async fn after_a_jump(says: impl Fn(u64, u64) -> u64) -> PlotonRateLimit {
    let limit = PlotonRateLimit::new(requests(10));
    let start = Instant::now();
    let passed = || (Instant::now() - start).as_secs();
    for remaining in (1..=9).rev() {
        send(&limit, 200, &of_ten(remaining, says(passed(), 0))).await;
        time::advance(6 * SECOND).await;
    }
    send(&limit, 200, &of_ten(9, says(passed(), 1))).await;
    limit
}

fn of_ten(remaining: u32, reset: u64) -> Vec<(&'static str, String)> {
    let mut headers = left(remaining, reset);
    headers[0].1 = "10".to_owned();
    headers.to_vec()
}

#[tokio::test(start_paused = true)]
async fn seconds_to_go_that_are_more_than_a_window_are_none_of_a_window() {
    let mode = async |first: u64| {
        let limit = after_a_jump(|passed, minutes| first + 60 * minutes - passed).await;
        limit.handle().snapshot().mode
    };
    assert_eq!(mode(56).await, Mode::Window);
    assert_eq!(mode(3_600).await, Mode::Paced);
}

#[tokio::test(start_paused = true)]
async fn a_reset_that_stands_still_after_its_window_is_none_of_a_window() {
    // Every hour, though the Reset before was one of a minute.
    let hour = RESET + 3_600;
    let limit = after_a_jump(|_, minutes| RESET + 3_600 * minutes).await;
    let opened = Instant::now();
    assert_eq!(limit.handle().snapshot().mode, Mode::Window);
    // A second more is for how it is rounded.
    time::advance(60 * SECOND + Duration::from_millis(500)).await;
    send(&limit, 200, &of_ten(8, hour)).await;
    assert_eq!(limit.handle().snapshot().mode, Mode::Window);
    send(&limit, 200, &of_ten(7, hour)).await;
    assert_ne!(limit.handle().snapshot().mode, Mode::Window);
    assert!(Instant::now() - opened < 68 * SECOND);
    // What it told of the server's clock is forgotten too: by that, this Reset would be past.
    send(&limit, 429, &of_ten(0, hour)).await;
    let until = limit.handle().snapshot().paused_until.unwrap();
    assert!(until - Instant::now() > 40 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn windows_of_another_length_are_learned_anew() {
    let limit = after_a_jump(|_, minutes| RESET + 60 * minutes).await;
    let told = async |seconds: u32, remaining| {
        let policy = ("ratelimit-policy", format!("10;w={seconds}"));
        let headers = [of_ten(remaining, RESET + 60), vec![policy]].concat();
        send(&limit, 200, &headers).await;
        limit.handle().snapshot().mode
    };
    assert_eq!(told(60, 8).await, Mode::Window);
    assert_eq!(told(30, 7).await, Mode::Paced);
    // By windows of 30 s the server's clock was that long before this Reset, by those of a minute it is a minute.
    assert_eq!(told(60, 6).await, Mode::Paced);
    let end = Instant::now() + 60 * SECOND;
    send(&limit, 429, &reset(RESET + 60)).await;
    assert!(limit.handle().snapshot().paused_until.unwrap() >= end);
}
