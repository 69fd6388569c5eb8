//! Follows a task to its end: its slot is free then.

use std::time::Duration;

use tokio::time::sleep;
use tower::BoxError;
use tower_ploton::{
    Plan,
    api::{Error, ErrorCode, Ploton, PlotonService, TaskId},
};

use super::{
    journal::{Created, Journal},
    progress::{Progress, story},
};

/// How often a task is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    first: Duration,
    pub(crate) longest: Duration,
}

impl Pauses {
    /// In the long run as many tasks as `plan` allows take half of its requests, and leave the rest for new ones.
    pub(crate) fn of(plan: Plan) -> Self {
        let tasks = f64::from(plan.concurrent_tasks().get());
        let requests = f64::from(plan.requests_per_minute().get());
        let longest = Duration::from_secs_f64((tasks / requests * 120.0).min(60.0));
        Self {
            first: longest.min(Duration::from_secs(1)),
            longest,
        }
    }
}

/// Follows a task; its end is written down where it is of a line of ours, `known`, and wanted.
pub(crate) async fn follow<S: PlotonService>(
    ploton: Ploton<S>,
    pauses: Pauses,
    id: TaskId,
    known: Option<Created>,
    journal: &Journal,
    progress: &Progress,
) -> Result<(), BoxError> {
    let mut failures = 0;
    loop {
        let end = ploton.wait_for(&id).first_pause(pauses.first);
        match end.longest_pause(pauses.longest).await {
            Ok(task) => {
                if let Some(known) = known {
                    journal.result(known.number, &known.key, &task).await?;
                    progress.ended(&task.status);
                }
                return Ok(());
            }
            Err(Error::StillRunning(_)) => {}
            Err(error) => {
                failures += 1;
                let is_gone = error.code() == Some(&ErrorCode::TaskNotFound);
                if is_gone || failures == MOST_FAILURES {
                    progress.say(&format!("{id} is not followed any more: {}", story(&error)));
                    return Ok(());
                }
                sleep(Duration::from_secs(10)).await;
            }
        }
    }
}

const MOST_FAILURES: u32 = 30;
