//! One connection for all who use a store: made anew when it no longer serves, but not all the time.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use redis::{Cmd, ErrorKind, RedisError, RedisFuture, Value, aio::ConnectionLike};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tower::BoxError;

use super::{
    error::{NoAnswer, NotConnected},
    script::Script,
};

/// A connection whose type is forgotten.
pub(super) trait Connection: Send {
    fn request<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value>;
    fn another(&self) -> Box<dyn Connection>;
}

impl<C: ConnectionLike + Clone + Send + 'static> Connection for C {
    fn request<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(command.query_async(self))
    }

    fn another(&self) -> Box<dyn Connection> {
        Box::new(self.clone())
    }
}

pub(super) type Connecting =
    Pin<Box<dyn Future<Output = Result<Box<dyn Connection>, BoxError>> + Send>>;

pub(super) type Connect = Arc<dyn Fn() -> Connecting + Send + Sync>;

pub(super) struct Link {
    /// `None` where the connection was given, and can't be made anew.
    connect: Option<Connect>,
    state: Mutex<State>,
    /// A try ended.
    tried: Notify,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// How many connections there were: what is said of an earlier one doesn't hold for the current.
    made: u64,
    /// A try is on its way.
    trying: bool,
    last_try: Option<Instant>,
    /// Why there is no connection, or another one is wanted; `None` where an answer or a try did not come in time.
    failure: Option<Arc<dyn Error + Send + Sync>>,
}

struct Current {
    connection: Box<dyn Connection>,
    health: Health,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Well,
    /// Another one is wanted. This one is used until then: it may only be slow.
    Doubtful,
    /// It can serve nobody.
    Dead,
}

impl Link {
    /// Connects when it is first used.
    pub(super) fn new(connect: Connect) -> Arc<Self> {
        Arc::new(Self {
            connect: Some(connect),
            state: Mutex::default(),
            tried: Notify::new(),
        })
    }

    pub(super) fn fixed(connection: Box<dyn Connection>) -> Arc<Self> {
        let state = State {
            current: Some(Current {
                connection,
                health: Health::Well,
            }),
            ..State::default()
        };
        Arc::new(Self {
            connect: None,
            state: Mutex::new(state),
            tried: Notify::new(),
        })
    }

    /// Runs a script, or fails within that time, connecting included.
    pub(super) async fn run(
        self: &Arc<Self>,
        patience: Duration,
        script: &Script,
        keys: &[String],
        args: &[String],
    ) -> Result<Value, BoxError> {
        let answer = timeout(patience, async {
            let (mut connection, number) = self.connection().await?;
            let mut waiting = Waiting {
                link: self,
                number,
                ended: false,
            };
            let result = script.run(&mut *connection, keys, args).await;
            waiting.ended = true;
            result.map_err(|error| {
                self.doubt(number, health_after(&error), Some(&error));
                error.into()
            })
        });
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(NoAnswer { after: patience }.into()),
        }
    }

    /// The connection to use now. Where there is none and one is being made, it waits for that.
    async fn connection(self: &Arc<Self>) -> Result<(Box<dyn Connection>, u64), NotConnected> {
        loop {
            // Made before the look, so that no end of a try is missed.
            let tried = self.tried.notified();
            match self.look(Instant::now()) {
                Look::Use(connection, number) => return Ok((connection, number)),
                Look::Wait => tried.await,
                Look::Fail(error) => return Err(error),
            }
        }
    }

    fn look(self: &Arc<Self>, now: Instant) -> Look {
        let mut state = self.lock();
        let health = state.current.as_ref().map(|current| current.health);
        let due = state.last_try.map_or(now, |at| at + BETWEEN_TRIES);
        // A try that lasts longer than it may is on a runtime that nobody drives.
        let tries = state.trying && now < due + BETWEEN_TRIES;
        let begins = health != Some(Health::Well) && !tries && due <= now;
        let connect = self.connect.as_ref().filter(|_| begins);
        if connect.is_some() {
            state.trying = true;
            state.last_try = Some(now);
        }
        let look = match &state.current {
            Some(current) if current.health != Health::Dead => {
                Look::Use(current.connection.another(), state.made)
            }
            _ if state.trying => Look::Wait,
            _ => Look::Fail(NotConnected {
                next_try: due - now,
                source: state.failure.clone(),
            }),
        };
        drop(state);
        if let Some(connect) = connect {
            // Without the lock: a runtime that ends drops the task here, and with it the try.
            tokio::spawn(attempt(connect.clone(), Try(Arc::downgrade(self))));
        }
        look
    }

    fn doubt(&self, number: u64, health: Health, error: Option<&RedisError>) {
        if self.connect.is_none() {
            // It may mend itself, as a `ConnectionManager` does, and there is no other.
            return;
        }
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(current) = state.current.as_mut().filter(|_| state.made == number) {
            if health > current.health {
                current.health = health;
                state.failure = error.map(|error| Arc::new(error.clone()) as _);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Look {
    Use(Box<dyn Connection>, u64),
    Wait,
    Fail(NotConnected),
}

/// An answer that is waited for. Whoever gives up waiting has doubts about the connection.
struct Waiting<'a> {
    link: &'a Link,
    number: u64,
    ended: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.link.doubt(self.number, Health::Doubtful, None);
        }
    }
}

/// Connects, in a task of its own: it may take longer than anybody waits.
async fn attempt(connect: Connect, this: Try) {
    let result = match timeout(BETWEEN_TRIES, connect()).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(Some(Arc::from(error))),
        Err(_) => Err(None),
    };
    if let Some(link) = this.0.upgrade() {
        let mut state = link.lock();
        match result {
            Ok(connection) => {
                state.made = state.made.wrapping_add(1);
                state.failure = None;
                state.current = Some(Current {
                    connection,
                    health: Health::Well,
                });
            }
            Err(failure) => state.failure = failure,
        }
    }
}

/// A try on its way: it ends even where it panics, or its runtime does.
struct Try(Weak<Link>);

impl Drop for Try {
    fn drop(&mut self) {
        if let Some(link) = self.0.upgrade() {
            link.lock().trying = false;
            link.tried.notify_waiters();
        }
    }
}

/// What an error says about the connection it came by.
fn health_after(error: &RedisError) -> Health {
    match error.kind() {
        ErrorKind::Io if error.is_timeout() => Health::Doubtful,
        ErrorKind::Io | ErrorKind::Parse => Health::Dead,
        // The server takes no long command from one who gave no password, and hangs up.
        _ if says(error, "unauthenticated") => Health::Dead,
        ErrorKind::ClusterConnectionNotFound | ErrorKind::AuthenticationFailed => Health::Doubtful,
        _ if is_of_the_wrong_server(error) => Health::Doubtful,
        _ => Health::Well,
    }
}

/// Whether another server, or this one by another connection, might have done it.
fn is_of_the_wrong_server(error: &RedisError) -> bool {
    let codes = [
        "READONLY",
        "MASTERDOWN",
        "LOADING",
        "NOAUTH",
        "MOVED",
        "ASK",
        "CLUSTERDOWN",
    ];
    // Before Redis 7 the error of a command in a script has the code ERR, and says its own in its text.
    codes.iter().any(|code| error.code() == Some(code))
        || says(error, "READONLY ")
        || says(error, "MASTERDOWN ")
}

fn says(error: &RedisError, words: &str) -> bool {
    error.detail().is_some_and(|text| text.contains(words))
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Link")
            .field("connected", &state.current.is_some())
            .field("trying", &state.trying)
            .finish_non_exhaustive()
    }
}

/// From one try to the next, and the most that one lasts.
pub(super) const BETWEEN_TRIES: Duration = Duration::from_secs(3);
