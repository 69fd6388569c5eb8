//! A 429 read by who knows more of the server's clock than the local one tells.

use super::{super::Undated, *};

/// The wait where the local clock stands an hour after the server's, which shows [`CLOCK`].
fn wait(fields: &[(&'static str, &str)]) -> Option<Duration> {
    let now = Instant::now();
    let wall = Wall::set(SystemTime::UNIX_EPOCH + secs(CLOCK + 3_600), now);
    let undated = Undated {
        shown: secs(CLOCK),
        farthest: secs(62),
    };
    super::super::refusal(&headers(fields), &wall, now, undated).map(|hint| hint.wait)
}

#[test]
fn an_undated_reset_is_read_by_the_clock_that_is_known_unless_it_is_too_far() {
    let epoch = |seconds: u64| (CLOCK + seconds).to_string();
    for (seconds, read) in [
        (32, Some(secs(33))),
        (61, Some(secs(62))),
        (62, None),
        (0, None),
    ] {
        let reset = epoch(seconds);
        assert_eq!(wait(&[("x-ratelimit-reset", &reset)]), read, "{seconds}");
        let draft = format!("\"default\";r=0;t={reset}");
        assert_eq!(wait(&[("ratelimit", &draft)]), read, "{seconds}");
    }
}

#[test]
fn a_date_of_its_own_a_delta_and_retry_after_are_read_as_ever() {
    let date = ("date", "Sat, 15 Jun 2024 13:51:40 GMT");
    let reset = ("x-ratelimit-reset", "1718460000");
    assert_eq!(wait(&[reset, date]), Some(secs(501)));
    assert_eq!(wait(&[("x-ratelimit-reset", "3000")]), Some(secs(3_000)));
    let after = ("retry-after", "3000");
    assert_eq!(wait(&[after, reset]), Some(secs(3_000)));
}
