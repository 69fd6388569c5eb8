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

/// Those of the lines that hold `text`.
fn about(lines: &[String], text: &str) -> Vec<String> {
    let about = lines.iter().filter(|line| line.contains(text));
    about.cloned().collect()
}

/// The number that stands behind `field` in a line.
#[track_caller]
fn number(line: &str, field: &str) -> u64 {
    let (_, rest) = line.split_once(&format!(" {field}=")).expect(line);
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_more_than_100_ms_is_a_line_that_says_which_how_long_behind_how_many_and_why() {
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
    let waited = about(&lines, "a request waited for its turn");
    assert_eq!(waited.len(), 2, "{lines:?}");
    for (line, (ahead, wait)) in waited.iter().zip([(1, 120..130), (2, 180..190)]) {
        assert!(line.contains("DEBUG"), "{line}");
        assert!(line.contains("http.request.method=\"GET\""), "{line}");
        assert!(line.contains("url.path=\"/v1/tasks\""), "{line}");
        assert!(wait.contains(&number(line, "wait_ms")), "{line}");
        assert_eq!(number(line, "ahead"), ahead, "{line}");
        assert!(line.contains("rule=paced"), "{line}");
        assert!((60..190).contains(&number(line, "until_ms")), "{line}");
    }
    // Who comes and will wait for so long is told of when it comes.
    let wait = about(&lines, "a request waits for its turn");
    assert_eq!(wait.len(), 2, "{lines:?}");
    for (line, (ahead, expected)) in wait.iter().zip([(1, 120), (2, 180)]) {
        assert!(line.contains("TRACE"), "{line}");
        assert_eq!(number(line, "expected_ms"), expected, "{line}");
        assert_eq!(number(line, "ahead"), ahead, "{line}");
        assert!(line.contains("rule=paced until_ms=60"), "{line}");
    }
    assert_eq!(lines.len(), 4, "{lines:?}");
}

/// Who was called up is before whoever comes, and was not counted.
#[tokio::test(start_paused = true)]
async fn a_wait_behind_a_service_that_is_ready_is_told_when_it_begins() {
    let (log, _guard) = Log::capture();
    let service = PlotonRateLimit::new(Plan::Prototyping).layer(server(&Answers::default()));
    service.clone().oneshot(get()).await.unwrap();
    time::sleep(SECOND).await;
    let mut ready = service.clone();
    ready.ready().await.unwrap();
    service.clone().oneshot(get()).await.unwrap();
    let lines = lines(&log);
    let wait = about(&lines, "a request waits for its turn");
    assert_eq!(wait.len(), 1, "{lines:?}");
    assert_eq!(number(&wait[0], "expected_ms"), 602);
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_when_the_turn_comes_however_late_it_is_used() {
    let (log, _guard) = Log::capture();
    let mut service = PlotonRateLimit::new(Plan::Prototyping).layer(server(&Answers::default()));
    service.clone().oneshot(get()).await.unwrap();
    let ready = service.ready().await.unwrap();
    time::sleep(30 * SECOND).await;
    ready.call(get()).await.unwrap();
    let waited = about(&lines(&log), "a request waited for its turn");
    assert!((602..610).contains(&number(&waited[0], "wait_ms")));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_next_window_is_a_line_with_its_end() {
    let (log, _guard) = Log::capture();
    let answers = Answers::default();
    let service = PlotonRateLimit::new(plan(10)).layer(server(&answers));
    let left = |remaining: u32, reset: u32| {
        let (remaining, reset) = (remaining.to_string(), reset.to_string());
        let answer = answer(
            200,
            &[
                ("x-ratelimit-limit", "10"),
                ("x-ratelimit-remaining", &remaining),
                ("x-ratelimit-reset", &reset),
            ],
        );
        answers.lock().unwrap().push(answer);
    };
    for remaining in (1..=9).rev() {
        left(remaining, 1_718_459_532);
        service.clone().oneshot(get()).await.unwrap();
        time::advance(6 * SECOND).await;
    }
    // The jump; and of the window that it opened nothing is left for its last 40 seconds.
    left(9, 1_718_459_592);
    service.clone().oneshot(get()).await.unwrap();
    time::advance(20 * SECOND).await;
    for remaining in (0..9).rev() {
        left(remaining, 1_718_459_592);
        service.clone().oneshot(get()).await.unwrap();
    }
    left(9, 1_718_459_652);
    service.clone().oneshot(get()).await.unwrap();
    let lines = lines(&log);
    let windows = about(&lines, "what is left of the server's window leaves at once");
    assert_eq!(windows.len(), 1, "{lines:?}");
    for text in [
        "a request waits for its turn",
        "a request waited for its turn",
    ] {
        let told = about(&lines, text).pop().unwrap();
        assert!(told.contains("rule=window used up"), "{told}");
        assert!(
            (40_000..41_100).contains(&number(&told, "until_ms")),
            "{told}"
        );
    }
}

/// A plan of `n` requests a minute.
fn plan(n: u32) -> Plan {
    Plan::Enterprise {
        requests_per_minute: NonZeroU32::new(n).unwrap(),
        concurrent_tasks: NonZeroU32::MIN,
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
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[0].contains("WARN"), "{lines:?}");
        let text = format!("a {status} pauses all requests");
        assert!(lines[0].contains(&text), "{lines:?}");
        assert!(lines[0].contains(&format!("http.response.status_code={status}")));
        let pause = number(&lines[0], "pause_ms");
        assert!((12_000..14_401).contains(&pause), "{lines:?}");
        let hint = "hint_ms=12000 hint_from=\"retry-after\"";
        assert!(lines[0].contains(hint), "{lines:?}");
        assert!(
            lines[1].contains("a request waits for its turn"),
            "{lines:?}"
        );
        assert_eq!(number(&lines[1], "until_ms"), pause);
        assert!(lines[2].contains("the pause is over"), "{lines:?}");
        assert!(number(&lines[2], "ended_ms_ago") <= 5, "{lines:?}");
        assert!(lines[3].contains("rule=paused"), "{lines:?}");
        assert_eq!(number(&lines[3], "until_ms"), pause);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_pause_is_told_when_it_comes_though_another_rule_holds_whoever_waits() {
    let (log, _guard) = Log::capture();
    let limit = PlotonRateLimit::new(plan(1));
    let service = limit.layer(server(&Answers::default()));
    service.clone().oneshot(get()).await.unwrap();
    limit.handle().pause_until(Instant::now() + 12 * SECOND);
    let _waits_for_a_minute = tokio::spawn(service.oneshot(get()));
    time::sleep(15 * SECOND).await;
    let over = about(&lines(&log), "the pause is over");
    assert_eq!(over.len(), 1, "{:?}", lines(&log));
    assert!(number(&over[0], "ended_ms_ago") <= 5, "{over:?}");
    assert_eq!(number(&over[0], "waiting"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_pause_for_which_nobody_waited_is_told_with_the_next_request() {
    let (log, _guard) = Log::capture();
    let answers = Answers::default();
    let limit = PlotonRateLimit::new(Plan::Production);
    let service = limit.layer(server(&answers));
    answers
        .lock()
        .unwrap()
        .push(answer(429, &[("retry-after", "12")]));
    service.clone().oneshot(get()).await.unwrap();
    let end = limit.handle().snapshot().paused_until.unwrap();
    time::sleep(100 * SECOND).await;
    assert!(about(&lines(&log), "the pause is over").is_empty());
    service.oneshot(get()).await.unwrap();
    let over = about(&lines(&log), "the pause is over");
    assert_eq!(over.len(), 1);
    let ago = u64::try_from((Instant::now() - end).as_millis()).unwrap();
    assert_eq!(number(&over[0], "ended_ms_ago"), ago);
}

#[tokio::test(start_paused = true)]
async fn what_is_changed_by_hand_is_a_line() {
    let (log, _guard) = Log::capture();
    let limit = PlotonRateLimit::new(Plan::Production);
    limit.handle().set_plan(Plan::Prototyping);
    limit.handle().set_plan(Plan::Prototyping);
    limit.handle().pause_until(Instant::now() + 2 * SECOND);
    limit.handle().pause_until(Instant::now() + SECOND);
    limit.handle().pause_until(Instant::now());
    limit.handle().pause_until(Instant::now() - SECOND);
    let lines = lines(&log);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].contains("the plan changed") && lines[0].contains("plan=100 was=1000"));
    for line in &lines[1..] {
        assert!(line.contains("paused by hand") && line.contains("pause_ms=2000"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_lasts_longer_is_a_line() {
    let (log, _guard) = Log::capture();
    let answers = Answers::default();
    let limit = PlotonRateLimit::new(Plan::Production);
    let service = limit.layer(server(&answers));
    limit.handle().pause_until(Instant::now() + SECOND);
    limit.handle().pause_until(Instant::now() + 5 * SECOND);
    let longer = about(&lines(&log), "the pause lasts longer");
    assert_eq!(number(&longer[0], "pause_ms"), 5_000, "{longer:?}");
    service.oneshot(get()).await.unwrap();
    assert_eq!(about(&lines(&log), "the pause is over").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pace_that_falls_is_a_line_and_one_when_it_rises_again() {
    let (log, _guard) = Log::capture();
    let answers = Answers::default();
    let service = PlotonRateLimit::new(plan(10)).layer(server(&answers));
    for _ in 0..9 {
        service.clone().oneshot(get()).await.unwrap();
    }
    answers
        .lock()
        .unwrap()
        .push(answer(429, &[("retry-after", "12")]));
    service.clone().oneshot(get()).await.unwrap();
    let fell = about(&lines(&log), "the pace falls for a while");
    assert!(fell[0].contains("INFO"), "{fell:?}");
    assert!(fell[0].contains("paced_to=9 was=10 plan=10"), "{fell:?}");
    time::advance(3_600 * SECOND).await;
    service.clone().oneshot(get()).await.unwrap();
    let rose = about(&lines(&log), "the pace rises again");
    assert!(rose[0].contains("paced_to=10 was=9 plan=10"), "{rose:?}");
}

#[tokio::test(start_paused = true)]
async fn others_that_appear_are_a_line_and_one_when_they_are_gone() {
    let (log, _guard) = Log::capture();
    let answers = Answers::default();
    let service = PlotonRateLimit::new(Plan::Prototyping).layer(server(&answers));
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
    assert_eq!(number(about[0], "requests"), 59, "{lines:?}");
    assert!(
        about[1].contains("nobody else uses the rate limit any longer"),
        "{lines:?}"
    );
}
