//! What the limiter logs: why requests waited, and what changed; nothing of those that did not wait, and no secret.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod support;

use std::{
    convert::Infallible,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use tokio::time::{self, Instant};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_ploton::{Plan, PlotonRateLimit};

use support::log::Log;

const SECOND: Duration = Duration::from_secs(1);

fn get() -> Request<()> {
    Request::get("https://api.ploton.ai/v1/tasks?token=hunter2")
        .header("authorization", "Bearer hunter2")
        .body(())
        .unwrap()
}

/// A server whose next answer is the last of those put in, else an empty 200.
type Answers = Arc<Mutex<Vec<Response<()>>>>;

fn server(
    answers: &Answers,
) -> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<> {
    let answers = answers.clone();
    service_fn(move |_: Request<()>| {
        let answer = answers.lock().unwrap().pop().unwrap_or_default();
        async { Ok(answer) }
    })
}

fn answer(status: u16, headers: &[(&str, &str)]) -> Response<()> {
    let mut response = Response::builder().status(status);
    for &(name, value) in headers {
        response = response.header(name, value);
    }
    response.body(()).unwrap()
}

/// The lines logged, none of which holds a secret.
fn lines(log: &Log) -> Vec<String> {
    let text = log.text();
    assert!(!text.contains("hunter2"), "{text}");
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_that_need_not_wait_is_no_line() {
    let (log, _guard) = Log::capture();
    let service = PlotonRateLimit::new(Plan::Production).layer(server(&Answers::default()));
    for _ in 0..10 {
        service.clone().oneshot(get()).await.unwrap();
        time::advance(SECOND).await;
    }
    assert_eq!(lines(&log), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_more_than_100_ms_is_a_line_that_says_how_long_behind_how_many_and_why() {
    let (log, _guard) = Log::capture();
    let service = PlotonRateLimit::new(Plan::Production).layer(server(&Answers::default()));
    let calls: Vec<_> = (0..4)
        .map(|_| tokio::spawn(service.clone().oneshot(get())))
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // They waited for 0, 60, 120 and 180 ms.
    let lines = lines(&log);
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, (ahead, wait)) in lines.iter().zip([(1, "wait_ms=12"), (2, "wait_ms=18")]) {
        assert!(line.contains("DEBUG"), "{line}");
        assert!(line.contains("a request waited for its turn"), "{line}");
        assert!(line.contains(wait), "{line}");
        assert!(line.contains(&format!("ahead={ahead}")), "{line}");
        assert!(line.contains("rule=paced"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_a_line_when_it_begins_and_one_when_it_is_over() {
    for status in [429, 503] {
        let (log, _guard) = Log::capture();
        let answers = Answers::default();
        let service = PlotonRateLimit::new(Plan::Production).layer(server(&answers));
        answers
            .lock()
            .unwrap()
            .push(answer(status, &[("retry-after", "12")]));
        service.clone().oneshot(get()).await.unwrap();
        service.clone().oneshot(get()).await.unwrap();
        let lines = lines(&log);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains("WARN"), "{lines:?}");
        let text = format!("a {status} pauses all requests");
        assert!(lines[0].contains(&text), "{lines:?}");
        assert!(lines[0].contains(&format!("http.response.status_code={status}")));
        assert!(lines[0].contains("pause_ms=1"), "{lines:?}");
        assert!(lines[0].contains("hint_ms=12000"), "{lines:?}");
        assert!(lines[1].contains("the pause is over"), "{lines:?}");
        assert!(lines[2].contains("rule=paused by a 429"), "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_changed_by_hand_is_a_line() {
    let (log, _guard) = Log::capture();
    let limit = PlotonRateLimit::new(Plan::Production);
    limit.handle().set_plan(Plan::Prototyping);
    limit.handle().set_plan(Plan::Prototyping);
    limit.handle().pause_until(Instant::now() + SECOND);
    let lines = lines(&log);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("the plan changed") && lines[0].contains("plan=100 was=1000"));
    assert!(lines[1].contains("paused by hand") && lines[1].contains("pause_ms=1000"));
}

#[tokio::test(start_paused = true)]
async fn others_that_appear_are_a_line_and_one_when_they_are_gone() {
    let (log, _guard) = Log::capture();
    let answers = Answers::default();
    let plan = Plan::Enterprise {
        requests_per_minute: NonZeroU32::new(100).unwrap(),
        concurrent_tasks: NonZeroU32::MIN,
    };
    let service = PlotonRateLimit::new(plan).layer(server(&answers));
    let left = |remaining: &str| {
        answer(
            200,
            &[
                ("x-ratelimit-limit", "100"),
                ("x-ratelimit-remaining", remaining),
                ("x-ratelimit-reset", "30"),
            ],
        )
    };
    for remaining in ["99", "40", "99"] {
        answers.lock().unwrap().push(left(remaining));
        service.clone().oneshot(get()).await.unwrap();
        time::sleep(400 * SECOND).await;
    }
    service.clone().oneshot(get()).await.unwrap();
    let lines = lines(&log);
    let about: Vec<_> = lines
        .iter()
        .filter(|line| line.contains("rate limit"))
        .collect();
    assert_eq!(about.len(), 2, "{lines:?}");
    assert!(
        about[0].contains("others use the same rate limit"),
        "{lines:?}"
    );
    assert!(
        about[1].contains("nobody else uses the rate limit any longer"),
        "{lines:?}"
    );
}
