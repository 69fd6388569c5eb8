//! What was sent and what came of it, in this run and in earlier ones.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt, io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tower::BoxError;
use tower_ploton::{
    IdempotencyKey,
    api::{Task, TaskId, TaskStatus},
};

use super::{
    files::{self, Appender},
    input::Line,
};

#[derive(Debug)]
pub(crate) struct Journal {
    /// Lines that were sent: the time, before that was done first; and that a line was refused.
    sent: Appender,
    results: Appender,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By key: when it was sent first.
    sent: HashMap<String, SystemTime>,
    /// By key: the task.
    created: HashMap<String, Created>,
    /// The numbers of the lines that are to be sent.
    numbers: HashMap<String, u64>,
    /// What left in this run, or is about to.
    left: HashSet<String>,
    /// What was sent once only, by this run: no request before that one can have created it.
    sent_once: HashSet<String>,
}

/// What is known of a line's task.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    pub(crate) number: u64,
    pub(crate) key: String,
    pub(crate) id: TaskId,
    pub(crate) has_ended: bool,
}

/// What is to be done with a line.
pub(crate) enum Todo {
    /// It has its task.
    Nothing,
    /// It is sent with this key.
    Send(IdempotencyKey),
    /// It was sent so long ago that the server may have forgotten its key.
    Unknown(SystemTime),
}

impl Journal {
    /// Opens `out` and its journal.
    pub(crate) fn open(out: &Path) -> Result<Self, BoxError> {
        let mut path = out.as_os_str().to_owned();
        path.push(".journal");
        let mut state = State::default();
        let results = files::open(out, |line| state.read_result(line))?;
        let sent = files::open(Path::new(&path), |line| state.read_sent(line))?;
        Ok(Self {
            sent,
            results,
            state: Mutex::new(state),
        })
    }

    /// A journal that can't be written.
    #[cfg(test)]
    pub(crate) fn broken(file: &Path) -> Self {
        let file = || std::fs::File::open(file).unwrap();
        Self {
            sent: Appender::to(file()),
            results: Appender::to(file()),
            state: Mutex::default(),
        }
    }

    /// What is to be done with `line` at `now`. `force`: to send it, however long ago it was sent before.
    pub(crate) fn todo(&self, line: &Line, force: bool, now: SystemTime) -> Todo {
        let (key, mut state) = (line.key.as_str(), self.lock());
        if state.created.contains_key(key) {
            return Todo::Nothing;
        }
        state.numbers.insert(key.to_owned(), line.number);
        let Some(first) = state.sent.get(key).copied() else {
            return Todo::Send(line.key.clone());
        };
        // A clock that was set meanwhile says nothing of the age, unless by little.
        let is_young = match now.duration_since(first) {
            Ok(age) => age < KEY_LIFE,
            Err(ahead) => ahead.duration() < CLOCKS_DIFFER,
        };
        if is_young {
            return Todo::Send(line.key.clone().first_used(first));
        }
        if force {
            // It is sent as for the first time.
            state.sent.remove(key);
            return Todo::Send(line.key.clone());
        }
        Todo::Unknown(first)
    }

    /// The tasks that had not ended when the results were read.
    pub(crate) fn not_ended(&self) -> Vec<Created> {
        let state = self.lock();
        let open = state.created.values().filter(|task| !task.has_ended);
        open.cloned().collect()
    }

    /// Whether a request with this key has left in this run, or is about to.
    pub(crate) fn has_left(&self, key: &IdempotencyKey) -> bool {
        self.lock().left.contains(key.as_str())
    }

    /// To be called before a request leaves: it may when the time of its first is on the disk.
    pub(crate) async fn before_sending(&self, key: &str) -> Result<(), Broken> {
        let (number, now) = {
            let mut state = self.lock();
            state.left.insert(key.to_owned());
            if state.sent.contains_key(key) {
                state.sent_once.remove(key);
                return Ok(());
            }
            #[allow(
                clippy::disallowed_methods,
                reason = "the next run may be on another day, after another boot"
            )]
            let now = SystemTime::now();
            state.sent.insert(key.to_owned(), now);
            state.sent_once.insert(key.to_owned());
            (state.numbers.get(key).copied(), now)
        };
        let at = humantime::format_rfc3339_millis(now).to_string();
        let entry = json!({ "line": number, "key": key, "sent": at });
        let added = self.sent.add(&entry).await;
        added.map_err(|error| Broken("journal", error))
    }

    /// A line was refused. It was not created, and its key is as new, if no other request with it was ever sent: an earlier
    /// one may have created it all the same.
    pub(crate) async fn refused(&self, line: &Line, why: &str) -> Result<(), Broken> {
        if !self.lock().sent_once.contains(line.key.as_str()) {
            return Ok(());
        }
        let entry = json!({ "line": line.number, "key": line.key.as_str(), "refused": why });
        let added = self.sent.add(&entry).await;
        added.map_err(|error| Broken("journal", error))
    }

    /// A line has its task, which was created or has ended.
    pub(crate) async fn result(&self, number: u64, key: &str, task: &Task) -> Result<(), Broken> {
        let result = json!({
            "line": number,
            "key": key,
            "id": task.id,
            "status": task.status,
            "created_at": task.created_at,
        });
        let added = self.results.add(&result).await;
        added.map_err(|error| Broken("results", error))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read_result(&mut self, line: &Value) -> Option<()> {
        let text = |name| line.get(name)?.as_str();
        let created = Created {
            number: line.get("line")?.as_u64()?,
            key: text("key")?.to_owned(),
            id: TaskId::parse(text("id")?).ok()?,
            has_ended: TaskStatus::from(text("status")?).is_final(),
        };
        self.created.insert(text("key")?.to_owned(), created);
        Some(())
    }

    fn read_sent(&mut self, line: &Value) -> Option<()> {
        let text = |name| line.get(name)?.as_str();
        let key = text("key")?;
        if text("refused").is_some() {
            self.sent.remove(key);
        } else {
            let at = humantime::parse_rfc3339(text("sent")?).ok()?;
            self.sent.insert(key.to_owned(), at);
        }
        Some(())
    }
}

/// A file can't be written: nothing more may be sent.
#[derive(Debug)]
pub(crate) struct Broken(&'static str, io::Error);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} can't be written: {}", self.0, self.1)
    }
}

impl Error for Broken {}

/// Two looks at the clock that differ by less are of a clock that was put right by a bit.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// Servers know a key for 24 hours; an hour is for what is on its way, and for clocks.
const KEY_LIFE: Duration = Duration::from_secs(23 * 60 * 60);
