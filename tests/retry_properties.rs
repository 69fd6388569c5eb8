//! What holds of retries whatever the server answers: on paused time.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "support/script.rs"]
mod script;

use std::{collections::HashSet, time::Duration};

use http::{HeaderMap, HeaderValue, Response};
use proptest::prelude::*;
use tokio::{runtime, time::Instant};
use tower::{Layer, ServiceExt};
use tower_ploton::{Attempts, PlotonRetry};

use script::{Answer, Script, answer, keyed_post, millis};

/// The server's clock in these tests, as `Date` and as an epoch.
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const EPOCH: u64 = 784_111_777;

/// A wait that a server names, and the headers that name it.
fn hint() -> impl Strategy<Value = (Duration, HeaderMap)> {
    let seconds = 1_u64..=120;
    let form = 0..8;
    (seconds, 0_u64..1_000, form).prop_map(|(seconds, fraction, form)| {
        let whole = Duration::from_secs(seconds);
        let exact = whole + millis(fraction);
        let (name, value, wait) = match form {
            0 => ("retry-after", seconds.to_string(), whole),
            1 => ("retry-after", format!("{seconds}.{fraction:03}"), exact),
            2 => ("retry-after-ms", exact.as_millis().to_string(), exact),
            3 => {
                let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH + seconds);
                ("retry-after", httpdate::fmt_http_date(at), whole)
            }
            4 => ("ratelimit", format!("\"a\";r=0;t={seconds}"), whole),
            5 => (
                "ratelimit",
                format!("limit=9, remaining=0, reset={seconds}"),
                whole,
            ),
            6 => ("x-ratelimit-reset", seconds.to_string(), whole),
            _ => (
                "x-ratelimit-reset",
                format!("{seconds}.{fraction:03}"),
                exact,
            ),
        };
        let mut headers = HeaderMap::new();
        headers.insert("date", HeaderValue::from_static(DATE));
        headers.insert(name, value.parse().unwrap());
        (wait, headers)
    })
}

fn an_answer() -> impl Strategy<Value = Answer> {
    let statuses = prop::sample::select(vec![200_u16, 404, 408, 429, 500, 502, 503, 504]);
    prop_oneof![
        6 => (statuses, prop::option::of(hint())).prop_map(|(status, hint)| {
            let mut response = answer(status);
            *response.headers_mut() = hint.map_or_else(HeaderMap::new, |(_, headers)| headers);
            Ok(response)
        }),
        1 => Just(Err("cut")),
    ]
}

/// Runs on a clock that stands still unless all wait.
fn on_paused_time<T>(future: impl Future<Output = T>) -> T {
    let mut builder = runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

fn copy(answer: &Answer) -> Answer {
    let response = answer.as_ref().map_err(|error| *error)?;
    let mut copy = Response::new(response.body().clone());
    *copy.status_mut() = response.status();
    *copy.headers_mut() = response.headers().clone();
    Ok(copy)
}

proptest! {
    #[test]
    fn a_retry_is_never_sent_before_its_hint((wait, headers) in hint(), status in prop::sample::select(vec![429_u16, 503])) {
        let mut refused = answer(status);
        *refused.headers_mut() = headers;
        if status == 503 && !refused.headers().contains_key("retry-after") {
            refused.headers_mut().insert("x-ratelimit-remaining", 0.into());
        }
        let script = Script::new([refused, answer(200)]);
        on_paused_time(PlotonRetry::new().layer(script.clone()).oneshot(keyed_post())).unwrap();
        let arrivals = script.arrivals();
        if wait > Duration::from_secs(120) {
            prop_assert_eq!(arrivals.len(), 1, "it is handed back");
        } else if let [first, second] = arrivals[..] {
            prop_assert!(second - first >= wait, "{:?} is before {wait:?}", second - first);
            prop_assert!(second - first <= wait + Duration::from_secs(7));
        } else {
            // A date gets a second more, and is then over the longest wait.
            prop_assert!(wait >= Duration::from_secs(119), "{wait:?} was not waited for");
        }
    }

    #[test]
    fn no_wait_passes_the_deadline_and_no_attempt_the_limit(
        answers in prop::collection::vec(an_answer(), 1..8),
        attempts in 0_u32..6,
        deadline in 0_u64..200_000,
        quota in 0_u32..100,
    ) {
        let layer = PlotonRetry::new().attempts(attempts).deadline(millis(deadline)).quota(quota);
        let handle = layer.handle();
        let script = Script::of(answers.iter().map(copy)).watching(&handle);
        let (result, elapsed) = on_paused_time(async {
            let start = Instant::now();
            let result = layer.layer(script.clone()).oneshot(keyed_post()).await;
            (result, Instant::now() - start)
        });
        let made = script.arrivals().len();
        prop_assert!(elapsed <= millis(deadline), "{elapsed:?}");
        prop_assert!(made <= attempts.max(1) as usize);
        prop_assert!(handle.quota_left() <= quota);
        if made == 0 {
            prop_assert_eq!(deadline, 0);
        } else if let Some(Ok(last)) = answers.get(made - 1) {
            // The last real answer, as it came.
            let response = result.unwrap();
            prop_assert_eq!(response.status(), last.status());
            prop_assert_eq!(response.headers(), last.headers());
            prop_assert_eq!(response.body(), last.body());
            let story = response.extensions().get::<Attempts>();
            prop_assert_eq!(story.map(|story| story.made() as usize), (!last.status().is_success()).then_some(made));
            prop_assert!(story.is_none_or(|story| story.elapsed() == elapsed));
        } else {
            prop_assert!(result.is_err());
        }
    }
}

/// tower's own backoff gives all requests of a process the same delays.
#[test]
fn no_two_requests_share_their_delays() {
    let layer = PlotonRetry::new().quota(u32::MAX);
    let mut seen = HashSet::new();
    for _ in 0..200 {
        let script = Script::new([500; 4].map(answer));
        on_paused_time(layer.layer(script.clone()).oneshot(keyed_post())).unwrap();
        seen.insert(script.delays());
    }
    // Of 80,000 equally likely ones in whole milliseconds and more, a few may be the same by chance.
    assert!(seen.len() >= 195, "{} of 200", seen.len());
}
