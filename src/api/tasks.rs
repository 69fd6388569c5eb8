//! Tasks, in types.

use std::{
    error::Error,
    fmt::{self, Write as _},
    str::FromStr,
};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use crate::idempotency_key::IdempotencyKey;

/// A task, as Ploton shows it.
///
/// # Example
///
/// ```
/// use tower_ploton::api::{Task, TaskStatus};
///
/// let task: Task = serde_json::from_str(
///     r#"{"id":"task_8xK2mP","status":"running","tool":"crm","created_at":"2025-06-15T14:22:00Z","step":3}"#,
/// )?;
/// assert_eq!(task.id.as_str(), "task_8xK2mP");
/// assert_eq!(task.status, TaskStatus::Running);
/// assert_eq!(task.created_at, "2025-06-15T14:22:00Z".parse().ok());
/// assert_eq!(task.more["step"], 3);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[non_exhaustive]
pub struct Task {
    /// Its id, `task_…`.
    pub id: TaskId,
    /// How far it is.
    pub status: TaskStatus,
    /// The tool that it uses, where Ploton names one.
    #[serde(
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub tool: Option<String>,
    /// When it was created; `None` where Ploton does not say it in ISO 8601.
    #[serde(
        default,
        deserialize_with = "date",
        skip_serializing_if = "Option::is_none"
    )]
    pub created_at: Option<Timestamp>,
    /// What else Ploton says of it: fields that the API page does not name.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A task was created, whatever a field of little weight looks like: of another type than text, it is none.
fn text<'de, D: Deserializer<'de>>(field: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(field)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

fn date<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(text(field)?.and_then(|date| date.parse().ok()))
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskStatus {
    /// `running`
    Running,
    /// `complete`
    Complete,
    /// `failed`
    Failed,
    /// `cancelled`, or `canceled`: the API page does not say how it is spelled.
    Cancelled,
    /// A status that the API page does not name.
    Other(String),
}

impl TaskStatus {
    /// The status as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Other(status) => status,
        }
    }

    /// Whether the task has come to its end: complete, failed or cancelled. Of a status that the API page does not name
    /// nobody knows, so that is `false`.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Cancelled)
    }
}

impl From<&str> for TaskStatus {
    fn from(status: &str) -> Self {
        match status {
            "running" => Self::Running,
            "complete" => Self::Complete,
            "failed" => Self::Failed,
            "cancelled" | "canceled" => Self::Cancelled,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TaskStatus {
    fn deserialize<D: Deserializer<'de>>(status: D) -> Result<Self, D::Error> {
        let status = String::deserialize(status)?;
        Ok(status.as_str().into())
    }
}

impl Serialize for TaskStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The id of a task, such as `task_8xK2mP`: 1 to 255 characters of visible ASCII, though not `.` or `..`.
///
/// Wherever it stands in a path, what could change the path is escaped.
///
/// # Example
///
/// ```
/// use tower_ploton::api::TaskId;
///
/// let id: TaskId = "task_8xK2mP".parse()?;
/// assert_eq!(id.as_str(), "task_8xK2mP");
/// assert!(TaskId::parse("two words").is_err());
/// # Ok::<(), tower_ploton::api::InvalidTaskId>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Box<str>);

impl TaskId {
    /// Takes an id as it is.
    ///
    /// # Errors
    ///
    /// Where it is empty, longer than 255 characters, has a character that is not visible ASCII, or is `.` or `..`.
    pub fn parse(id: &str) -> Result<Self, InvalidTaskId> {
        let fits = (1..=255).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_graphic())
            // As part of a path these two are no names, escaped or not.
            && !matches!(id, "." | "..");
        fits.then(|| Self(id.into())).ok_or(InvalidTaskId(()))
    }

    /// The id as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TaskId {
    /// The id as one segment of a path: what is not unreserved is percent-encoded.
    pub(super) fn in_path(&self) -> String {
        let mut path = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                path.push(char::from(byte));
            } else {
                let _ = write!(path, "%{byte:02X}");
            }
        }
        path
    }
}

impl FromStr for TaskId {
    type Err = InvalidTaskId;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::parse(id)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(id: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(id)?).map_err(de::Error::custom)
    }
}

impl Serialize for TaskId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The text cannot be a task's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTaskId(());

impl fmt::Display for InvalidTaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task's id is 1 to 255 characters of visible ASCII, and neither . nor ..")
    }
}

impl Error for InvalidTaskId {}

/// A task that is to be created: its prompt has at most 10,000 characters.
///
/// # Example
///
/// ```
/// use tower_ploton::{IdempotencyKey, api::NewTask};
///
/// let task = NewTask::new("Pay invoice 42")?
///     .idempotency_key(IdempotencyKey::parse("invoice-42")?);
/// assert_eq!(serde_json::to_string(&task)?, r#"{"prompt":"Pay invoice 42"}"#);
///
/// assert!(NewTask::new("é".repeat(10_000)).is_ok());
/// assert_eq!(NewTask::new("é".repeat(10_001)).unwrap_err().characters(), 10_001);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewTask {
    prompt: String,
    #[serde(flatten)]
    more: Map<String, Value>,
    #[serde(skip)]
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

impl NewTask {
    /// A task with this prompt.
    ///
    /// # Errors
    ///
    /// Where the prompt has more than 10,000 characters: Ploton would refuse it.
    pub fn new(prompt: impl Into<String>) -> Result<Self, PromptTooLong> {
        let prompt = prompt.into();
        let characters = prompt.chars().count();
        if characters > MAX_PROMPT_CHARACTERS {
            return Err(PromptTooLong { characters });
        }
        Ok(Self {
            prompt,
            more: Map::new(),
            idempotency_key: None,
        })
    }

    /// The key that makes this the same task, however often it is created within 24 hours. Default: a random one for each
    /// call.
    #[must_use]
    pub fn idempotency_key(mut self, key: IdempotencyKey) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// A field that the API page does not name. `prompt` is not replaced.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let name = name.into();
        if name != "prompt" {
            self.more.insert(name, value.into());
        }
        self
    }

    /// The prompt.
    #[must_use]
    pub fn prompt(&self) -> &str {
        &self.prompt
    }
}

/// A prompt has more characters than Ploton takes. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptTooLong {
    characters: usize,
}

impl PromptTooLong {
    /// How many it has.
    #[must_use]
    pub const fn characters(&self) -> usize {
        self.characters
    }
}

impl fmt::Display for PromptTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the prompt has {} characters, and may have {MAX_PROMPT_CHARACTERS}",
            self.characters
        )
    }
}

impl Error for PromptTooLong {}

const MAX_PROMPT_CHARACTERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_measured_in_characters() {
        assert!(NewTask::new("\u{1f980}".repeat(10_000)).is_ok());
        let error = NewTask::new("\u{1f980}".repeat(10_001)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the prompt has 10001 characters, and may have 10000"
        );
        assert!(NewTask::new("").is_ok(), "the page does not forbid it");
    }

    #[test]
    fn an_id_is_visible_ascii_and_no_dot_segment() {
        let longest = "i".repeat(255);
        for id in ["task_8xK2mP", "7", "...", ".a", "a/b?c", &longest] {
            assert_eq!(TaskId::parse(id).unwrap().as_str(), id);
        }
        for id in [
            "",
            ".",
            "..",
            "two words",
            "tab\t",
            "\u{e9}",
            "\0",
            &"i".repeat(256),
        ] {
            assert!(TaskId::parse(id).is_err(), "{id:?}");
        }
    }
}
