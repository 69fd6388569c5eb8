//! `examples/bulk_submit`, killed and begun again: each line has its task, once.
#![cfg(all(feature = "json", feature = "mock"))]
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

#[path = "../../examples/bulk_submit/bulk/mod.rs"]
mod bulk;
mod job;
#[path = "../support/mod.rs"]
mod support;
mod unclear;

use std::{
    collections::HashSet,
    env, fs,
    process::{Child, Command, exit},
    thread::{self, sleep},
    time::{Duration, SystemTime},
};

use http::StatusCode;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tower_ploton::mock::Fault;

use job::{Job, Run};
use support::KEY;

/// Where the child finds its arguments.
const ARGS: &str = "BULK_SUBMIT_ARGS";

/// Not a test but the program, where this executable was started to be it.
#[test]
fn the_program() {
    if let Ok(args) = env::var(ARGS) {
        // Far longer than it needs: it outlives neither a test that fails nor its own mistakes.
        thread::spawn(|| {
            sleep(Duration::from_secs(180));
            exit(99);
        });
        let args: Vec<String> = serde_json::from_str(&args).unwrap();
        // One thread for the tests, as with one core: then this line already says which test runs.
        println!();
        exit(bulk::main(args.into_iter().map(Into::into)).into());
    }
}

fn prompts(count: usize) -> String {
    (1..=count)
        .map(|n| format!("Summarise invoice {n}\n"))
        .collect()
}

/// Waits until something is so; whether the child still ran then.
fn wait_until(child: &mut Child, is_so: impl Fn() -> bool) -> bool {
    while !is_so() {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        sleep(Duration::from_millis(1));
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_prompts_and_twenty_kills_and_each_is_created_once() {
    let mut job = Job::new("killed", &prompts(500)).await;
    job.fake = job
        .fake
        .clone()
        .latency(Duration::from_millis(5))
        .fault_rate(Fault::CutAfter, 0.02)
        .fault_rate(Fault::CutBefore, 0.02)
        .fault_rate(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR), 0.02);
    let mut random = StdRng::seed_from_u64(500);
    let (mut kills, mut untold) = (0, 0);
    while kills < 20 {
        let mut child = job.start(&[]);
        let posts = job.posts() + random.random_range(1..25);
        let runs = wait_until(&mut child, || job.posts() >= posts);
        child.kill().unwrap();
        let end = child.wait().unwrap();
        assert!(
            runs && !end.success(),
            "it was done before it was killed {kills} times"
        );
        kills += 1;
        let told = job.lines("results.jsonl").len();
        untold += usize::from(told < job.fake.tasks().len());

        // What left was written down before.
        let journal = job.lines("results.jsonl.journal");
        let written: HashSet<_> = journal
            .iter()
            .filter_map(|line| line["key"].as_str())
            .collect();
        for attempt in job.fake.attempts() {
            let key = attempt.idempotency_key.as_deref();
            assert!(key.is_none_or(|key| written.contains(key)), "{key:?}");
        }
        assert_eq!(
            written.len(),
            journal.len(),
            "a line is written down at its first sending only"
        );
    }
    assert!(
        untold > 0,
        "it was never killed between a task and its result"
    );
    let before = job.fake.tasks().len();
    assert!((20..500).contains(&before), "{before} were created by then");
    let mut run = job.run(&[]);
    // A line that failed four times is for the next run.
    for _ in 0..5 {
        if run.code() == 0 {
            break;
        }
        assert_eq!(
            (run.code(), run.count("unknown")),
            (1, 0),
            "{}",
            run.stderr()
        );
        run = job.run(&[]);
    }
    assert_eq!(run.count("created") + run.count("created.earlier"), 500);
    assert_eq!(job.fake.counts().created, 500);
    job.assert_each_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_line_at_the_end_of_a_file_is_cut_off() {
    let job = Job::new("half", &prompts(3)).await;
    assert_eq!(job.run(&[]).code(), 0);
    let results = fs::read_to_string(job.folder.join("results.jsonl")).unwrap();
    job.write("results.jsonl", &results[..results.len() - 20]);
    let journal = fs::read_to_string(job.folder.join("results.jsonl.journal")).unwrap();
    job.write(
        "results.jsonl.journal",
        &format!("{journal}{{\"line\":4,\"ke"),
    );
    let run = job.run(&[]);
    assert_eq!(run.code(), 0, "{}", run.stderr());
    assert_eq!((run.count("created"), run.count("created.earlier")), (1, 2));
    job.assert_each_once();
    assert_eq!(job.lines("results.jsonl.journal").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_too_long_ago_is_told_and_sent_by_force_only() {
    let job = Job::new("unknown", &prompts(2)).await;
    assert_eq!(job.run(&[]).code(), 0);
    let sent = |hours: u64| {
        let at = SystemTime::now() - Duration::from_secs(hours * 3_600);
        let at = humantime::format_rfc3339_seconds(at).to_string();
        let lines = job
            .lines("results.jsonl.journal")
            .into_iter()
            .map(|mut line| {
                line["sent"] = at.clone().into();
                format!("{line}\n")
            });
        lines.collect::<String>()
    };
    // Neither is known to have a task.
    job.write("results.jsonl.journal", &sent(24));
    job.write("results.jsonl", "");
    let (run, posts) = (job.run(&[]), job.posts());
    assert_eq!((run.code(), run.count("unknown"), posts), (1, 2, 2));
    assert!(run.stderr().contains("line 2: sent at"), "{}", run.stderr());

    job.write("results.jsonl.journal", &sent(22));
    let run = job.run(&[]);
    assert_eq!((run.code(), run.count("created")), (0, 2));
    job.assert_each_once();

    job.write("results.jsonl.journal", &sent(24));
    job.write("results.jsonl", "");
    let run = job.run(&["--force"]);
    assert_eq!((run.code(), run.count("created")), (0, 2));
    // It is as new again.
    job.write("results.jsonl", "");
    assert_eq!(job.run(&[]).code(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_lines_are_told_with_their_numbers_and_the_rest_is_done() {
    let lines = format!("first\n\n{}\nfourth", "x".repeat(10_001));
    let job = Job::new("bad", &lines).await;
    let run = job.run(&[]);
    assert_eq!(
        (run.code(), run.count("bad"), run.count("created")),
        (1, 1, 2)
    );
    assert!(
        run.stderr()
            .contains("line 3: the prompt has 10001 characters"),
        "{}",
        run.stderr()
    );

    let lines = "{\"prompt\":\"one\",\"tool\":\"crm\"}\n\"two\"\n{\"promt\":\"three\"}\n[4]\n{\n";
    let job = Job::new("json", lines).await;
    let run = job.run(&["--json-lines"]);
    assert_eq!(
        (run.code(), run.count("bad"), run.count("created")),
        (1, 3, 2)
    );
    for number in 3..=5 {
        assert!(
            run.stderr().contains(&format!("line {number}: ")),
            "{}",
            run.stderr()
        );
    }
    let mut created: Vec<_> = job
        .fake
        .tasks()
        .into_iter()
        .map(|task| task.prompt)
        .collect();
    created.sort();
    assert_eq!(created, ["one", "two"]);
}

/// The first line was no JSON, or said something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_windows_puts_around_lines_is_no_part_of_them() {
    for (name, lines) in [
        ("windows", "\u{feff}one\r\ntwo\r\n"),
        (
            "windows.jsonl",
            "\u{feff}\"one\"\r\n{\"prompt\":\"two\"}\r\n",
        ),
    ] {
        let job = Job::new(name, lines).await;
        let more: &[&str] = if name == "windows" {
            &[]
        } else {
            &["--json-lines"]
        };
        let run = job.run(more);
        assert_eq!(
            (run.code(), run.count("created")),
            (0, 2),
            "{}",
            run.stderr()
        );
        let tasks = job.fake.tasks().into_iter();
        let mut created: Vec<_> = tasks.map(|task| task.prompt).collect();
        created.sort();
        assert_eq!(created, ["one", "two"]);
    }
}

/// A pipe was read to its end, and then nothing of it was sent.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_is_refused() {
    let job = Job::new("pipe", "").await;
    let prompts = job.folder.join("prompts.txt");
    fs::remove_file(&prompts).unwrap();
    std::os::unix::fs::symlink("/dev/null", &prompts).unwrap();
    let run = job.run(&[]);
    assert_eq!(run.code(), 2);
    assert!(run.stderr().contains("read twice"), "{}", run.stderr());
}

/// The slot of a line that may have a task was kept, and the next line waited for an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_fails_stops_no_other() {
    let mut job = Job::new("settled", &prompts(3)).await;
    job.plan = "60000/1";
    for _ in 0..4 {
        job.fake.fail_next(Fault::CutAfter);
        job.fake.fail_next(Fault::Status(StatusCode::BAD_GATEWAY));
    }
    let run = job.run(&["--no-count"]);
    assert_eq!(run.code(), 1, "{}", run.stderr());
    assert!(run.count("failed") > 0 && run.count("created") > 0);
    assert_eq!(job.run(&[]).code(), 0);
    job.assert_each_once();
}

/// A refusal is no unclear end, however long ago it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_was_refused_is_sent_again() {
    let job = Job::new("refused", &prompts(2)).await;
    let refusal = || job.fake.fail_next(Fault::Status(StatusCode::FORBIDDEN));
    refusal();
    refusal();
    let run = job.run(&["--no-count"]);
    assert_eq!((run.code(), run.count("failed")), (1, 2));
    assert!(run.stderr().contains("line 1: 403"), "{}", run.stderr());
    let journal = job.lines("results.jsonl.journal");
    let old = journal.into_iter().map(|mut line| {
        if line.get("sent").is_some() {
            line["sent"] = "2020-01-01T00:00:00Z".into();
        }
        format!("{line}\n")
    });
    job.write("results.jsonl.journal", &old.collect::<String>());
    assert_eq!(job.run(&[]).code(), 0);
    job.assert_each_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_are_followed_to_their_end_also_those_of_an_earlier_run() {
    let mut job = Job::new("followed", &prompts(20)).await;
    job.fake = job.fake.clone().task_duration(None);
    let mut child = job.start(&["--wait"]);
    let are_told = || job.posts() >= 20 && job.lines("results.jsonl").len() >= 20;
    assert!(wait_until(&mut child, are_told));
    child.kill().unwrap();
    child.wait().unwrap();
    for (place, task) in job.fake.tasks().iter().enumerate() {
        let fails = place == 7;
        assert!(if fails {
            job.fake.fail(&task.id)
        } else {
            job.fake.finish(&task.id)
        });
    }
    let run = job.run(&["--wait"]);
    assert_eq!((run.code(), run.count("created.earlier")), (0, 20));
    assert_eq!(run.count("tasks.complete"), 19);
    assert_eq!(run.count("tasks.failed_or_cancelled"), 1);
    let results = job.lines("results.jsonl");
    let ended: HashSet<_> = results[20..]
        .iter()
        .map(|line| line["line"].as_u64())
        .collect();
    assert_eq!((results.len(), ended.len()), (40, 20));
    // Nothing is left to follow.
    assert_eq!(job.run(&["--wait"]).code(), 0);
    assert_eq!(job.lines("results.jsonl").len(), 40);
}

/// Ten slots are taken by tasks that never end: the rest waits, and is not sent any more.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_it_cleanly_and_the_same_command_goes_on() {
    let mut job = Job::new("stopped", &prompts(100)).await;
    job.fake = job.fake.clone().task_duration(None);
    let mut child = job.start(&[]);
    let are_told = || job.posts() >= 50 && job.lines("results.jsonl").len() >= 50;
    assert!(wait_until(&mut child, are_told));
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupt.unwrap().success());
    let run = Run(child.wait_with_output().unwrap());
    assert_eq!(run.code(), i32::from(bulk::INTERRUPTED), "{}", run.stderr());
    assert_eq!((run.count("created"), run.count("left")), (50, 50));
    assert!(
        !run.stderr().contains("had no answer"),
        "it waited for what was never sent"
    );
    assert_eq!(job.posts(), 50);
    for task in job.fake.tasks() {
        job.fake.finish(&task.id);
    }
    job.fake = job.fake.clone().task_duration(Duration::from_millis(50));
    assert_eq!(job.run(&[]).code(), 0);
    job.assert_each_once();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_cannot_begin_with_is_told_and_nothing_is_sent() {
    let job = Job::new("broken", &prompts(2)).await;
    job.write("results.jsonl", "{\"line\":1}\n");
    let run = job.run(&[]);
    assert_eq!(run.code(), 2);
    assert!(
        run.stderr().contains("line 1: this is none of ours"),
        "{}",
        run.stderr()
    );
    job.write("results.jsonl", "");
    job.write("results.jsonl.journal", "nonsense\n");
    let run = job.run(&[]);
    assert_eq!(run.code(), 2);
    assert!(run.stderr().contains("line 1"), "{}", run.stderr());
    assert_eq!(job.run(&["--plan", "many"]).code(), 2);
    assert!(job.fake.attempts().is_empty());
    job.fake.revoke_key(KEY);
    job.write("results.jsonl.journal", "");
    let run = job.run(&[]);
    assert_eq!(run.code(), 2);
    assert!(
        run.stderr().contains("401 invalid_api_key"),
        "{}",
        run.stderr()
    );
    assert!(!run.stderr().contains("4f9d0c2b"), "a key was printed");
    assert_eq!(job.posts(), 0);
}
