//! What other clients' tests and documents say of retries, as tables, through the service and on paused time.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "support/script.rs"]
mod script;

use std::time::Duration;

use http::{StatusCode, header::RETRY_AFTER};
use tower::{Layer, ServiceExt};
use tower_ploton::{PlotonRetry, retry::RetryHandle};

use script::{Script, answer, keyed_post, millis};

/// One logical request through a layer whose server answers with `statuses`.
struct Case {
    script: Script,
    handle: RetryHandle,
    status: StatusCode,
    /// What was left of the quota when each attempt but the first arrived, and in the end.
    quota: Vec<u32>,
}

async fn run(layer: &PlotonRetry, statuses: &[u16]) -> Case {
    let handle = layer.handle();
    let script = Script::new(statuses.iter().map(|&status| answer(status))).watching(&handle);
    let response = layer.layer(script.clone()).oneshot(keyed_post()).await;
    let mut quota = script.quota_at_arrivals();
    quota.remove(0);
    quota.push(handle.quota_left());
    Case {
        status: response.unwrap().status(),
        handle,
        quota,
        script,
    }
}

fn exact() -> PlotonRetry {
    PlotonRetry::new().attempts(3).without_jitter()
}

/// The AWS SDKs' cases for their standard mode (version 2.1), with their costs, our base delay of 100 ms in the place of
/// their 50 ms, and without jitter, which their cases fix at its largest.
#[tokio::test(start_paused = true)]
async fn the_quota_is_paid_and_returned_as_in_the_aws_cases() {
    let table: [(&str, PlotonRetry, &[u16], &[u64], &[u32]); 9] = [
        (
            "eventually succeeds",
            exact(),
            &[500, 500, 200],
            &[100, 200],
            &[486, 472, 486],
        ),
        (
            "max attempts",
            exact(),
            &[500, 500, 500],
            &[100, 200],
            &[486, 472, 472],
        ),
        (
            "quota for one",
            exact().attempts(5).quota(14),
            &[500, 500],
            &[100],
            &[0, 0],
        ),
        ("no quota", exact().quota(0), &[500], &[], &[0]),
        (
            "a rest is no quota",
            exact().attempts(5).quota(20),
            &[500, 500],
            &[100],
            &[6, 6],
        ),
        (
            "quota for two",
            exact().attempts(5).quota(30),
            &[500, 500, 200],
            &[100, 200],
            &[16, 2, 16],
        ),
        ("throttled", exact(), &[429, 200], &[1_000], &[495, 500]),
        (
            "max delay",
            exact().attempts(5).max_delay(millis(200)),
            &[500; 5],
            &[100, 200, 200, 200],
            &[486, 472, 458, 444, 444],
        ),
        (
            "a base of its own",
            exact().attempts(4).base_delay(millis(25)),
            &[500; 4],
            &[25, 50, 100],
            &[486, 472, 458, 458],
        ),
    ];
    for (name, layer, statuses, delays, quota) in table {
        let case = run(&layer, statuses).await;
        assert_eq!(case.script.delays(), delays, "{name}");
        assert_eq!(case.quota, quota, "{name}");
        assert_eq!(Some(&case.status.as_u16()), statuses.last(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_returned_quota_pays_for_the_next_request() {
    let layer = exact().attempts(5).quota(30);
    assert_eq!(run(&layer, &[500, 500, 200]).await.quota, [16, 2, 16]);
    assert_eq!(run(&layer, &[500, 200]).await.quota, [2, 16]);
}

#[tokio::test(start_paused = true)]
async fn a_first_success_earns_one_and_a_plain_failure_nothing() {
    let layer = exact();
    run(&layer, &[500, 500, 500]).await;
    assert_eq!(run(&layer, &[200]).await.handle.quota_left(), 473);
    for status in [400, 404, 409, 422, 501] {
        assert_eq!(run(&layer, &[status]).await.handle.quota_left(), 473);
    }
    for _ in 0..27 {
        run(&layer, &[204]).await;
    }
    assert_eq!(
        run(&layer, &[200]).await.handle.quota_left(),
        500,
        "full is full"
    );
}

#[tokio::test(start_paused = true)]
async fn delays_double_up_to_the_cap() {
    let layer = exact().attempts(11).deadline(Duration::MAX);
    let case = run(&layer, &[500; 11]).await;
    let series = [
        100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 20_000, 20_000,
    ];
    assert_eq!(case.script.delays(), series);
    let case = run(&layer, &[429; 11]).await;
    let series = [
        1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000, 20_000, 20_000, 20_000,
    ];
    assert_eq!(case.script.delays(), series);
}

/// Every request fails: 17 use up both retries, and the quota ends in the 18th, as in AWS's arithmetic.
#[tokio::test(start_paused = true)]
async fn in_an_outage_the_quota_ends_retries_in_the_18th_request() {
    let layer = exact();
    for n in 1..=30 {
        let case = run(&layer, &[500; 3]).await;
        let retries = case.script.delays().len();
        let expected = match n {
            ..=17 => 2,
            18 => 1,
            _ => 0,
        };
        assert_eq!(retries, expected, "request {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn services_of_one_layer_share_its_quota() {
    let layer = exact().quota(14);
    assert_eq!(
        run(&layer.clone(), &[500, 500]).await.script.delays(),
        [100]
    );
    assert!(run(&layer, &[500]).await.script.delays().is_empty());
    assert_eq!(layer.handle().quota_capacity(), 14);
}

/// What became of a 429 with these `Retry-After` values and `Date`: the delay in milliseconds before the next attempt,
/// `None` where it was handed back at once.
async fn delay_of(values: &[&str], date: Option<&str>) -> Option<u64> {
    let mut refused = answer(429);
    for value in values {
        let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
        refused.headers_mut().append(RETRY_AFTER, value);
    }
    if let Some(date) = date {
        refused.headers_mut().insert("date", date.parse().unwrap());
    }
    let script = Script::new([refused, answer(200)]);
    let service = exact().layer(script.clone());
    service.oneshot(keyed_post()).await.unwrap();
    script.delays().first().copied()
}

/// The own delay after a 429 that names no wait.
const OWN: Option<u64> = Some(1_000);
/// A date says its instant to the second: one more is waited for.
const fn date_in(seconds: u64) -> Option<u64> {
    Some((seconds + 1) * 1_000)
}

/// The clock is the response's own `Date`, as in the libraries' own tests.
#[tokio::test(start_paused = true)]
async fn retry_after_is_read_as_in_the_stainless_table_but_for_the_cap() {
    let now = Some("Fri, 29 Sep 2023 16:26:37 GMT");
    for (value, delay) in [
        ("20", Some(20_000)),
        ("0", OWN),
        ("-10", OWN),
        ("60", Some(60_000)),
        ("61", Some(61_000)),
        ("120", Some(120_000)),
        ("121", None),
        ("Fri, 29 Sep 2023 16:26:57 GMT", date_in(20)),
        ("Fri, 29 Sep 2023 16:26:37 GMT", OWN),
        ("Fri, 29 Sep 2023 16:26:27 GMT", OWN),
        ("Fri, 29 Sep 2023 16:27:37 GMT", date_in(60)),
        ("Fri, 29 Sep 2023 16:28:36 GMT", date_in(119)),
        ("Fri, 29 Sep 2023 16:28:37 GMT", None), // theirs waits: ours is a second more, and over the longest wait
        ("Fri, 29 Sep 2023 16:28:38 GMT", None),
        ("99999999999999999999999999999999999", OWN),
        ("inf", OWN),
        ("nan", OWN),
        ("Zun, 29 Sep 2023 16:26:27 GMT", OWN),
        ("Fri, 29 Sep 100000 16:26:57 GMT", OWN),
        ("", OWN),
    ] {
        assert_eq!(delay_of(&[value], now).await, delay, "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_read_as_in_the_go_retryablehttp_table_but_where_it_wraps_or_the_first_is_not_the_longest()
 {
    let now = Some("Fri, 31 Dec 1999 23:59:57 GMT");
    let table: [(&[&str], Option<u64>); 10] = [
        (&["2"], Some(2_000)),
        (&["Fri, 31 Dec 1999 23:59:59 GMT"], date_in(2)),
        (&["Fri, 31 Dec 1999 23:59:00 GMT"], OWN),
        (&[], OWN),
        (&["2", "3"], Some(3_000)), // theirs takes the first
        (&[""], OWN),
        (&["-2"], OWN),
        (&["Fri, 32 Dec 1999 23:59:59 GMT"], OWN),
        (&["badbadbad"], OWN),
        (&["9223372037"], None), // theirs wraps, and fires at once
    ];
    for (values, delay) in table {
        assert_eq!(delay_of(values, now).await, delay, "{values:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_read_as_in_the_urllib3_table_but_no_value_is_an_error() {
    let now = Some("Mon, 03 Jun 2019 11:00:00 GMT");
    for (value, delay) in [
        ("0", OWN),
        ("\t42 ", Some(42_000)),
        ("100", Some(100_000)),
        ("1000", None),
        ("Mon, 03 Jun 2019 11:00:00 GMT", OWN),
        ("Mon, 03 Jun 2019 11:01:12 GMT", date_in(72)),
        ("Monday, 03-Jun-19 11:01:12 GMT", date_in(72)),
        ("Mon Jun  3 11:01:12 2019", date_in(72)),
        ("Mon, 03 Jun 2019 12:00:00 GMT", None),
        ("Mon, 3 Jun 2019 11:01:12 GMT", date_in(72)),
        ("Mon, 3 Jun 2019 11:01:12 UTC", date_in(72)),
        ("-1", OWN),
        ("+1", OWN),
        ("1.0", Some(1_000)), // theirs raises
        ("\u{b2}", OWN),
    ] {
        assert_eq!(delay_of(&[value], now).await, delay, "{value}");
    }
}

/// The three forms of one instant, and the rule for a year of two digits: more than 50 years ahead is in the past.
#[tokio::test(start_paused = true)]
async fn dates_are_read_as_the_rfc_says() {
    let now = Some("Sun, 06 Nov 1994 08:49:07 GMT");
    for value in [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ] {
        assert_eq!(delay_of(&[value], now).await, date_in(30), "{value}");
    }
    let now = Some("Wed, 25 Nov 2026 12:00:00 GMT");
    let ahead = "Wednesday, 25-Nov-76 12:00:00 GMT"; // exactly 50 years: still ahead
    assert_eq!(delay_of(&[ahead], now).await, None);
    let past = "Thursday, 25-Nov-77 12:00:00 GMT"; // 1977
    assert_eq!(delay_of(&[past], now).await, OWN);
}

/// The clock of Envoy's own tests is 1000000000, at which a number of that size is still a delta; ours is a second later.
#[tokio::test(start_paused = true)]
async fn hints_are_read_as_in_the_envoy_table_but_for_fractions_and_dates() {
    let now = Some("Sun, 09 Sep 2001 01:46:41 GMT");
    for (value, delay) in [
        ("5", Some(5_000)),
        ("2.5", Some(2_500)),                           // theirs reads none
        ("Sun, 09 Sep 2001 01:46:51 GMT", date_in(10)), // theirs reads none
        ("1000000008", date_in(7)),
        ("1000000001", OWN),
        ("1595320702.1234", None), // theirs reads none; ours is 18 years ahead
    ] {
        assert_eq!(delay_of(&[value], now).await, delay, "{value}");
    }
}

/// Epochs, as seen in the wild: Docker Hub's `Retry-After` is one.
#[tokio::test(start_paused = true)]
async fn an_epoch_in_retry_after_is_no_delta() {
    let now = Some("Mon, 31 Mar 2025 17:19:38 GMT");
    assert_eq!(delay_of(&["1743441608"], now).await, date_in(30));
    assert_eq!(delay_of(&["1743441608000"], now).await, date_in(30));
    assert_eq!(delay_of(&["1743441500"], now).await, OWN);
}

/// Envoy's lower bound: jitter is above the interval, never below, and at most half of it; ours is at most a fifth, and a
/// quarter of a second at the least.
#[tokio::test(start_paused = true)]
async fn jitter_is_above_the_hint_only() {
    for seconds in [1_u64, 12, 60] {
        let spread = (seconds * 200).clamp(250, 5_000);
        let mut seen = Vec::new();
        for _ in 0..200 {
            let mut refused = answer(429);
            refused.headers_mut().insert(RETRY_AFTER, seconds.into());
            let script = Script::new([refused, answer(200)]);
            let service = PlotonRetry::new().layer(script.clone());
            service.oneshot(keyed_post()).await.unwrap();
            seen.extend(script.delays());
        }
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        assert!(*least >= seconds * 1_000, "{least} ms");
        // One more: timers fire at the next millisecond.
        assert!(*most <= seconds * 1_000 + spread + 1, "{most} ms");
        assert!(
            most - least > spread / 2,
            "spread over {least} to {most} ms"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_another_status_names_is_kept_too() {
    for status in [500, 502, 503, 504, 408] {
        let mut failed = answer(status);
        failed.headers_mut().insert(RETRY_AFTER, 2.into());
        let script = Script::new([failed, answer(200)]);
        let service = exact().layer(script.clone());
        service.oneshot(keyed_post()).await.unwrap();
        assert_eq!(script.delays(), [2_000], "{status}");
    }
}
