//! One Redis for all processes that use one plan (feature `redis`).
//!
//! [`RedisStore`] is a [`SharedStore`](crate::limit::SharedStore): processes on many machines that have one with the same
//! [`Scope`] send together what one plan allows. See [`PlotonRateLimit::shared`](crate::PlotonRateLimit::shared).
//!
//! One script does all that is to be done, whole: no two processes come between each other. It reads the server's clock and
//! answers durations, so the processes' clocks need not agree. A lease is one round trip. The keys are
//! `ploton:{scope}:tat`, a line of five numbers, and `ploton:{scope}:processes`, a sorted set; both end by themselves when
//! nobody uses them any more. No API key is among them. It is
//! a [`SharedSlots`](crate::tasks::SharedSlots) too: task slots have a script of their own, and keys that begin with
//! `ploton:{scope}:slots`.
//!
//! It needs Redis 6 or newer, or Valkey; it was tested on Redis 7.0, with redis-rs 1.2 and 1.8. Its user must be allowed
//! `EVALSHA`, `EVAL`, and in them `TIME`, `TYPE`, `GET`, `SET`, `DEL`, `PTTL`, `PEXPIRE`,
//! `ZADD`, `ZCARD`, `ZRANGE`, `ZRANGEBYSCORE`, `ZRANK`, `ZREM`, `ZREMRANGEBYSCORE` and `ZSCORE`, on keys that begin with `ploton:`.
//!
//! # When Redis fails
//!
//! - A call takes at most 100 ms, connecting included, or what [`RedisStore::timeout`] says. What got no answer in that time
//!   may have been done: its tokens count as spent.
//! - A connection that was lost, that hangs, or that leads to a server which can't do it (`READONLY` after a failover,
//!   `MASTERDOWN`, `LOADING`, `NOAUTH`, `MOVED`, `CLUSTERDOWN`) is made anew, at most every 3 s. A dead one is not waited for:
//!   calls fail at once meanwhile.
//! - The script is sent again to a server that does not know it. What is stored and is not the script's counts as lost.
//! - What was lost, by a restart, `FLUSHALL` or a failover to a replica that lagged behind, is told again by the first process
//!   that asks, as far as it knows.
//!
//! [Task slots](crate::PlotonTaskLimit::shared) are told again by each process that has some.
//!
//! What becomes of requests meanwhile, [`Outage`](crate::limit::Outage) says.
//!
//! # Cluster
//!
//! All keys of a scope have one hash tag, so they are in one slot, and redis-rs's `ClusterConnection`, which follows `MOVED` by
//! itself, is all that is needed. A plain connection to a node that has another slot gets no answer but `MOVED`.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use redis::{Value, aio::ConnectionLike};
use tower::BoxError;

mod error;
mod link;
mod scope;
mod script;
#[cfg(test)]
mod tests;

use self::link::{Connection, Link};
pub(crate) use self::script::Script;
pub use self::{
    error::{NoAnswer, NotConnected, UnexpectedReply},
    scope::{InvalidScope, Scope, scope_of},
};
use crate::store::{TIMEOUT, patience};

/// A place in a Redis that processes share: give each of them a store with the same [`Scope`].
///
/// Clones share one connection. It needs a tokio runtime with time enabled.
///
/// # Example
///
/// ```no_run
/// use tower_ploton::{
///     Plan, PlotonRateLimit,
///     redis::{RedisStore, Scope},
/// };
///
/// let client = redis::Client::open("redis://redis.internal/")?;
/// let connect = move || {
///     let client = client.clone();
///     async move { client.get_multiplexed_async_connection().await }
/// };
/// let store = RedisStore::connect_with(connect, Scope::parse("acme-production")?);
/// let limit = PlotonRateLimit::new(Plan::Production).shared(store);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RedisStore {
    link: Arc<Link>,
    scope: Scope,
    /// How long a call may take.
    pub(crate) timeout: Duration,
}

impl RedisStore {
    /// Connects by `connect`, for the first time when it is first asked for something, and again, at most every 3 s, when the
    /// connection is of no use any more.
    ///
    /// `connect` should look up anew where the primary is: by DNS, as `redis::Client` does, or at a sentinel. It has 3 s. What
    /// its errors say is logged, so it must be no secret.
    pub fn connect_with<F, Fut, C, E>(connect: F, scope: Scope) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C, E>> + Send + 'static,
        C: ConnectionLike + Clone + Send + 'static,
        E: Into<BoxError>,
    {
        let connect = move || {
            let connecting = connect();
            let connecting: link::Connecting = Box::pin(async move {
                let connection = connecting.await.map_err(Into::into)?;
                Ok(Box::new(connection) as Box<dyn Connection>)
            });
            connecting
        };
        Self {
            link: Link::new(Arc::new(connect)),
            scope,
            timeout: TIMEOUT,
        }
    }

    /// Uses `connection`, and no other, whatever it answers: what becomes of a lost one, and of a failover, is up to it. A
    /// `MultiplexedConnection` is never mended, and redis-rs's `ConnectionManager` mends a lost one but stays with a server
    /// that was demoted; so [`connect_with`](Self::connect_with) is the better one but for tests.
    pub fn from_connection<C>(connection: C, scope: Scope) -> Self
    where
        C: ConnectionLike + Clone + Send + 'static,
    {
        Self {
            link: Link::fixed(Box::new(connection)),
            scope,
            timeout: TIMEOUT,
        }
    }

    /// How long a call may take, connecting included: three times the way to Redis and back is a good value, for a first call
    /// connects and sends the script. At least 10 ms and at most 750 ms; what is less or more counts as that. Default: 100 ms.
    ///
    /// What got no answer in that time may have been done, and counts as spent. So a short time loses tokens to a slow Redis,
    /// and a long one lets requests wait for a Redis that hangs: each call for it then takes so long before
    /// [`Outage`](crate::limit::Outage) says what becomes of them, and when Redis is back, nothing is sent for a second and
    /// twice this time. Give all processes of a scope the same.
    ///
    /// redis-rs waits for 500 ms by itself. For more, set the response timeout of its connection too.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tower_ploton::redis::{RedisStore, Scope};
    /// # let client = redis::Client::open("redis://redis.internal/")?;
    /// # let connect = move || {
    /// #     let client = client.clone();
    /// #     async move { client.get_multiplexed_async_connection().await }
    /// # };
    /// // It is on another continent.
    /// let store = RedisStore::connect_with(connect, Scope::parse("acme-production")?)
    ///     .timeout(Duration::from_millis(500));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = patience(timeout);
        self
    }

    /// Whose state it is.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The key of one thing of the scope. The braces make all of a scope's keys fall into one slot of a cluster.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("ploton:{{{}}}:{name}", self.scope)
    }

    /// Runs a script, or fails in time. It may be dropped; the script may have run then.
    pub(crate) async fn run(
        &self,
        script: &Script,
        keys: &[String],
        args: &[String],
    ) -> Result<Value, BoxError> {
        self.link.run(self.timeout, script, keys, args).await
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("scope", &self.scope)
            .field("link", &self.link)
            .field("timeout", &self.timeout)
            .finish()
    }
}
