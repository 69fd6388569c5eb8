use tokio::time::Instant;
use tower::Layer;

use super::*;
use crate::{
    ApiKey, Plan, PlotonStack, PlotonTaskLimit,
    api::{Error, ErrorCode, NewTask, Ploton, PlotonService, TaskId, TaskStatus},
    mock::FakePloton,
};

fn over(fake: &FakePloton, plan: Plan) -> Ploton<impl PlotonService> {
    let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583").unwrap();
    Ploton::new(PlotonStack::new(key, plan).layer(fake.clone()))
}

async fn create<S: PlotonService>(ploton: &Ploton<S>) -> TaskId {
    let task = NewTask::new("p").unwrap();
    ploton.create_task(&task).await.unwrap().id
}

/// When each look came, from `start`.
fn looks(fake: &FakePloton, start: Instant) -> Vec<f64> {
    let attempts = fake.attempts();
    let gets = attempts.iter().filter(|attempt| attempt.method == "GET");
    gets.map(|attempt| (attempt.at - start).as_secs_f64())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn it_looks_slower_and_slower_until_the_task_has_ended() {
    let fake = FakePloton::new().task_duration(Duration::from_secs(600));
    let ploton = over(&fake, Plan::Production);
    let id = create(&ploton).await;
    let start = Instant::now();
    let task = ploton.wait_for(&id).await.unwrap();
    assert_eq!(task.status, TaskStatus::Complete);
    let looks = looks(&fake, start);
    let mut before = 0.0;
    let mut pause = 1.0_f64;
    for at in &looks {
        let waited = at - before;
        assert!(
            (0.74 * pause..=1.26 * pause).contains(&waited),
            "{waited} for {pause}: {looks:?}"
        );
        before = *at;
        pause = (1.5 * pause).min(30.0);
    }
    assert!((600.0..640.0).contains(&before));
    assert!((20..40).contains(&looks.len()));
}

/// Half as long again as no pause is no pause: it asked as fast as the answers came.
#[tokio::test(start_paused = true)]
async fn pauses_grow_from_zero_too() {
    for first in [Duration::ZERO, Duration::from_nanos(1)] {
        let fake = FakePloton::new().task_duration(Duration::from_secs(600));
        let ploton = over(&fake, Plan::Production);
        let id = create(&ploton).await;
        let start = Instant::now();
        ploton.wait_for(&id).first_pause(first).await.unwrap();
        let looks = looks(&fake, start);
        // The rate limit paces them, too.
        assert!(looks[0] < 0.1 && looks[1] - looks[0] > 0.07, "{looks:?}");
        assert!((20..60).contains(&looks.len()), "{}", looks.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_failed_is_no_error_of_the_wait() {
    let fake = FakePloton::new();
    let ploton = over(&fake, Plan::Production);
    let id = create(&ploton).await;
    fake.fail(id.as_str());
    assert_eq!(
        ploton.wait_for(&id).await.unwrap().status,
        TaskStatus::Failed
    );
    let none = TaskId::parse("task_9").unwrap();
    let error = ploton.wait_for(&none).await.unwrap_err();
    assert_eq!(error.code(), Some(&ErrorCode::TaskNotFound));
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_the_time_is_up_with_a_last_look() {
    let fake = FakePloton::new();
    let ploton = over(&fake, Plan::Production);
    let id = create(&ploton).await;
    for within in [0, 1, 100, 3600] {
        let start = Instant::now();
        let wait = ploton.wait_for(&id);
        let wait = if within == 3600 {
            wait
        } else {
            wait.within(Duration::from_secs(within))
        };
        let error = wait.await.unwrap_err();
        assert_eq!((Instant::now() - start).as_secs(), within);
        assert_eq!(looks(&fake, start).last().unwrap().round() as u64, within);
        // The limiter holds a look back for some milliseconds.
        let text = format!("task {id} is still running after {within}.");
        assert!(error.to_string().starts_with(&text), "{error}");
        let Error::StillRunning(still) = error else {
            panic!("{error}")
        };
        assert_eq!((&still.task().id, still.waited().as_secs()), (&id, within));
    }
}

#[tokio::test(start_paused = true)]
async fn many_waits_keep_within_the_plan_and_do_not_ask_together() {
    let fake = FakePloton::new()
        .plan(Plan::Prototyping)
        .concurrent_tasks(None);
    let fake = fake.task_duration(Duration::from_secs(300));
    let ploton = over(&fake, Plan::Prototyping);
    let mut waits = tokio::task::JoinSet::new();
    for _ in 0..60 {
        let id = create(&ploton).await;
        waits.spawn(ploton.wait_for(&id).into_future());
    }
    let mut ended = 0;
    while let Some(task) = waits.join_next().await {
        assert_eq!(task.unwrap().unwrap().status, TaskStatus::Complete);
        ended += 1;
    }
    assert_eq!(ended, 60);
    assert_eq!(fake.counts().refused, 0, "the limiter held the looks back");
}

#[tokio::test(start_paused = true)]
async fn odd_pauses_are_no_trap() {
    let fake = FakePloton::new().task_duration(Duration::from_millis(5));
    let ploton = over(&fake, Plan::Production);
    for (first, longest) in [
        (Duration::MAX, Duration::MAX),
        (Duration::ZERO, Duration::ZERO),
    ] {
        let id = create(&ploton).await;
        let wait = ploton
            .wait_for(&id)
            .first_pause(first)
            .longest_pause(longest);
        let task = wait.within(Duration::from_millis(50)).await.unwrap();
        assert_eq!(task.status, TaskStatus::Complete);
    }
}

/// A status is text of the server's as any other.
#[tokio::test(start_paused = true)]
async fn a_status_that_nobody_knows_is_shown_in_one_line_and_without_a_key() {
    let body = TASK.replace("running", r"queued\nERROR pk_live_4f9d0c2b7a6e1583");
    let server = Server::new(move |_, _| answer(200, Scripted::whole(&body)));
    let id = TaskId::parse("task_8xK2mP").unwrap();
    let wait = Ploton::new(server).wait_for(&id).within(Duration::ZERO);
    assert_eq!(
        wait.await.unwrap_err().to_string(),
        r"task task_8xK2mP is still queued\nERROR pk_live_… after 0.0 s"
    );
}

/// It is asked for again and again, so its slot does not end by the time limit.
#[tokio::test(start_paused = true)]
async fn a_task_that_is_queued_for_hours_keeps_its_slot() {
    let body = TASK.replace("running", "queued");
    let server = Server::new(move |_, _| answer(200, Scripted::whole(&body)));
    let limit = PlotonTaskLimit::new(Plan::Prototyping).handle();
    let ploton = Ploton::new(server).task_limit(limit.clone());
    let id = TaskId::parse("task_8xK2mP").unwrap();
    for running in [0, 1] {
        let wait = ploton.wait_for(&id).within(Duration::from_secs(10_000));
        assert!(matches!(wait.await, Err(Error::StillRunning(_))));
        assert_eq!(limit.snapshot().running, running);
        limit.running(id.as_str());
    }
}
