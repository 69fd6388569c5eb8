//! The tasks, and the endpoints on them.

use std::time::Duration;

use {
    http::StatusCode,
    serde_json::{Value, json},
    tokio::time::Instant,
};

use super::answer::{Answer, ErrorCode};

const MAX_PROMPT_CHARACTERS: usize = 10_000;
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// A task that the fake Ploton created.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskRecord {
    /// Its id, `task_…`.
    pub id: String,
    /// Its status when it was asked for.
    pub status: TaskStatus,
    /// Its prompt.
    pub prompt: String,
    /// When it was created.
    pub created_at: Instant,
    /// The `Idempotency-Key` of the request that created it.
    pub idempotency_key: Option<String>,
}

/// The status of a task. The API page names the first three; how it words a cancelled task is a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskStatus {
    /// `running`
    Running,
    /// `complete`
    Complete,
    /// `failed`
    Failed,
    /// `cancelled`
    Cancelled,
}

impl TaskStatus {
    const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Clone, Debug)]
struct Task {
    id: String,
    prompt: String,
    created_at: Instant,
    date: String,
    idempotency_key: Option<String>,
    /// When it stops running and what it is then; `None` where nobody knows yet.
    end: Option<(Instant, TaskStatus)>,
}

impl Task {
    fn status(&self, now: Instant) -> TaskStatus {
        match self.end {
            Some((at, status)) if at <= now => status,
            _ => TaskStatus::Running,
        }
    }

    fn json(&self, now: Instant) -> Value {
        json!({
            "id": self.id,
            "status": self.status(now).name(),
            "tool": "crm",
            "created_at": self.date,
        })
    }
}

/// A task that is to be created.
#[derive(Debug)]
pub(super) struct NewTask {
    pub(super) prompt: String,
    pub(super) idempotency_key: Option<String>,
    /// How long it runs; `None` until somebody ends it.
    pub(super) duration: Option<Duration>,
    /// `created_at`, as the API writes it.
    pub(super) date: String,
}

/// All tasks, in the order of their creation.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    tasks: Vec<Task>,
    /// The places of the tasks that ran when it was last looked at, and of all created since.
    running: Vec<usize>,
}

impl Tasks {
    pub(super) fn records(&self, now: Instant) -> Vec<TaskRecord> {
        let record = |task: &Task| TaskRecord {
            id: task.id.clone(),
            status: task.status(now),
            prompt: task.prompt.clone(),
            created_at: task.created_at,
            idempotency_key: task.idempotency_key.clone(),
        };
        self.tasks.iter().map(record).collect()
    }

    pub(super) fn running(&mut self, now: Instant) -> usize {
        let tasks = &self.tasks;
        self.running.retain(|place| {
            tasks
                .get(*place)
                .is_some_and(|task| task.status(now) == TaskStatus::Running)
        });
        self.running.len()
    }

    /// Creates a task; its id and the answer.
    pub(super) fn create(&mut self, new: NewTask, now: Instant) -> (String, Answer) {
        let place = self.tasks.len();
        let end = new.duration.and_then(|duration| now.checked_add(duration));
        let task = Task {
            id: id_at(place),
            prompt: new.prompt,
            created_at: now,
            date: new.date,
            idempotency_key: new.idempotency_key,
            end: end.map(|at| (at, TaskStatus::Complete)),
        };
        let created = (
            task.id.clone(),
            Answer::json(StatusCode::CREATED, &task.json(now)),
        );
        self.running.push(place);
        self.tasks.push(task);
        created
    }

    pub(super) fn show(&mut self, id: &str, now: Instant) -> Answer {
        match self.find(id) {
            Some(task) => Answer::json(StatusCode::OK, &task.json(now)),
            None => not_found(),
        }
    }

    pub(super) fn list(&self, query: Option<&str>, now: Instant) -> Answer {
        let Some((limit, offset)) = page(query.unwrap_or_default()) else {
            return Answer::error(
                ErrorCode::InvalidRequest,
                "limit must be 1 to 100, and offset 0 or more",
            );
        };
        let page: Vec<Value> = self
            .tasks
            .iter()
            .skip(offset)
            .take(limit)
            .map(|task| task.json(now))
            .collect();
        let has_more = self.tasks.len().saturating_sub(offset) > limit;
        Answer::json(StatusCode::OK, &json!({"data": page, "has_more": has_more}))
    }

    pub(super) fn cancel(&mut self, id: &str, now: Instant) -> Answer {
        if self.find(id).is_none() {
            return not_found();
        }
        if !self.end(id, TaskStatus::Cancelled, now) {
            return Answer::error(
                ErrorCode::TaskAlreadyComplete,
                "the task has already finished",
            );
        }
        self.show(id, now)
    }

    /// Ends a running task; `false` where none of this id runs.
    pub(super) fn end(&mut self, id: &str, status: TaskStatus, now: Instant) -> bool {
        match self.find(id) {
            Some(task) if task.status(now) == TaskStatus::Running => {
                task.end = Some((now, status));
                true
            }
            _ => false,
        }
    }

    fn find(&mut self, id: &str) -> Option<&mut Task> {
        let number: usize = id.strip_prefix("task_")?.parse().ok()?;
        let task = self.tasks.get_mut(number.checked_sub(1)?)?;
        (task.id == id).then_some(task)
    }
}

fn id_at(place: usize) -> String {
    format!("task_{:06}", place + 1)
}

fn not_found() -> Answer {
    Answer::error(ErrorCode::TaskNotFound, "no such task")
}

/// The prompt in the body of a request for a task.
pub(super) fn prompt(body: &[u8]) -> Result<String, Answer> {
    let refuse = |message| Answer::error(ErrorCode::InvalidRequest, message);
    let body: Value = serde_json::from_slice(body).map_err(|_| refuse("the body is not JSON"))?;
    let prompt = body
        .get("prompt")
        .and_then(Value::as_str)
        .ok_or_else(|| refuse("prompt is missing or no string"))?;
    if prompt.chars().count() > MAX_PROMPT_CHARACTERS {
        return Err(Answer::error(
            ErrorCode::PromptTooLong,
            "the prompt has more than 10,000 characters",
        ));
    }
    Ok(prompt.to_owned())
}

/// `limit` and `offset` of a query; `None` where one is out of range. Other parameters are ignored.
fn page(query: &str) -> Option<(usize, usize)> {
    let (mut limit, mut offset) = (DEFAULT_LIMIT, 0);
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("limit", value)) => limit = value.parse().ok()?,
            Some(("offset", value)) => offset = value.parse().ok()?,
            _ => {}
        }
    }
    (1..=MAX_LIMIT).contains(&limit).then_some((limit, offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_20_by_default_and_100_at_most() {
        assert_eq!(page(""), Some((20, 0)));
        assert_eq!(page("offset=7&colour=red&limit=100"), Some((100, 7)));
        for query in ["limit=101", "limit=0", "limit=-1", "limit=", "offset=x"] {
            assert_eq!(page(query), None, "{query}");
        }
    }

    #[test]
    fn a_prompt_is_measured_in_characters() {
        let body = |count| json!({"prompt": "\u{e9}".repeat(count)}).to_string();
        assert!(prompt(body(10_000).as_bytes()).is_ok());
        let refused = prompt(body(10_001).as_bytes()).unwrap_err();
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[test]
    fn an_id_is_found_only_as_it_was_given() {
        let mut tasks = Tasks::default();
        let new = NewTask {
            prompt: String::new(),
            idempotency_key: None,
            duration: None,
            date: String::new(),
        };
        let (id, _) = tasks.create(new, Instant::now());
        assert!(tasks.find(&id).is_some());
        for other in [
            "task_1",
            "task_+1",
            "task_000000",
            "task_000002",
            "user_000001",
            "",
        ] {
            assert!(tasks.find(other).is_none(), "{other}");
        }
    }
}
