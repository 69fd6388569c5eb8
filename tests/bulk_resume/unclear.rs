//! Lines of which nobody knows whether they have a task.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use tower_ploton::mock::Fault;

use crate::{job::Job, prompts};

/// The refusal of a repeat says nothing of what was sent before it: the line was taken for one that was never sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_repeat_leaves_a_line_unknown() {
    let job = Job::new("repeat_refused", &prompts(1)).await;
    // Created, and without an answer.
    assert_eq!(job.run(&[]).code(), 0);
    job.write("results.jsonl", "");
    job.fake
        .fail_next(Fault::Status(StatusCode::UNPROCESSABLE_ENTITY));
    let run = job.run(&["--no-count"]);
    assert_eq!((run.code(), run.count("failed")), (1, 1));
    let journal = job.lines("results.jsonl.journal").into_iter();
    let old = journal.map(|mut line| {
        if line.get("sent").is_some() {
            line["sent"] = "2020-01-01T00:00:00Z".into();
        }
        format!("{line}\n")
    });
    job.write("results.jsonl.journal", &old.collect::<String>());
    let run = job.run(&[]);
    assert_eq!((run.code(), run.count("unknown")), (1, 1));
    assert_eq!(job.posts(), 2);
}

/// The first call created it, and its answer broke off; the second was refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_after_an_answer_that_broke_off_leaves_a_line_unknown() {
    let job = Job::new("broken_refused", &prompts(1)).await;
    job.fake.fail_next(Fault::TruncatedBody);
    job.fake.fail_next(Fault::Status(StatusCode::FORBIDDEN));
    let run = job.run(&["--no-count"]);
    assert_eq!((run.code(), run.count("failed")), (1, 1));
    let journal = job.lines("results.jsonl.journal");
    assert!(
        journal.iter().all(|line| line.get("refused").is_none()),
        "{journal:?}"
    );
    assert_eq!(job.run(&[]).code(), 0);
    job.assert_each_once();
}

/// The clock was ahead when it was sent: how long ago that was, nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_in_the_future_is_unknown() {
    let job = Job::new("future", &prompts(1)).await;
    assert_eq!(job.run(&[]).code(), 0);
    job.write("results.jsonl", "");
    let sent_in = |seconds| {
        let mut line = job.lines("results.jsonl.journal").remove(0);
        let at = SystemTime::now() + Duration::from_secs(seconds);
        line["sent"] = humantime::format_rfc3339_seconds(at).to_string().into();
        job.write("results.jsonl.journal", &format!("{line}\n"));
    };
    sent_in(2 * 3_600);
    let run = job.run(&[]);
    assert_eq!((run.code(), run.count("unknown"), job.posts()), (1, 1, 1));
    sent_in(30);
    assert_eq!(job.run(&[]).code(), 0);
    job.assert_each_once();
}

/// Nobody reads which task was created: its slot was kept for an hour, and the next line with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_whose_answers_all_break_off_stops_no_other() {
    let mut job = Job::new("unread", &prompts(2)).await;
    job.plan = "60000/1";
    for _ in 0..4 {
        job.fake.fail_next(Fault::TruncatedBody);
    }
    let run = job.run(&["--no-count"]);
    // A list may have had one of the faults, or let the second line in between.
    assert!(run.code() <= 1, "{}", run.stderr());
    assert_eq!(run.count("left"), 0);
    assert_eq!(job.run(&[]).code(), 0);
    job.assert_each_once();
}

/// The tasks of the fake were taken for real ones: nothing was sent, and the program said that all was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_fake_has_created_is_created_for_real_afterwards() {
    let job = Job::new("tried", &prompts(2)).await;
    let tried = job.run(&["--fake"]);
    assert!(tried.code() <= 1 && tried.count("created") > 0);
    assert_eq!(job.posts(), 0);
    let run = job.run(&[]);
    assert_eq!((run.code(), run.count("created")), (0, 2));
    assert_eq!(job.fake.counts().created, 2);
}
