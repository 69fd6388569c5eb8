//! Asks a source for keys: one question at a time, however many wait for the answer.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use http::Extensions;
use tokio::{
    runtime::Handle,
    sync,
    time::{Instant, sleep_until, timeout},
};

use super::{
    keys::Keys,
    source::{AnySource, KeySource},
};
use crate::{key::KeyUnavailable, metrics};

/// A source, and how asking it went.
pub(super) struct Renewal {
    source: Box<dyn AnySource>,
    /// Held by the one that asks. Dropped half-way, the next takes its place; polled no more, it loses it to another lock.
    turn: Mutex<Arc<sync::Mutex<()>>>,
    /// Whether a task of its own asks, or is about to.
    in_background: AtomicBool,
    /// How often an answer came, or was given up.
    ended: AtomicU64,
    last: Mutex<Last>,
}

/// How the last question ended.
#[derive(Clone, Debug, Default)]
struct Last {
    /// `None` before the first.
    at: Option<Instant>,
    /// `None` where it gave a key.
    failure: Option<KeyUnavailable>,
    /// Failures since the last key.
    failures: u32,
    /// `Some` where it was asked since the key of this generation was answered with a 401.
    refused: Option<u64>,
}

impl Renewal {
    pub(super) fn of(source: impl KeySource) -> Self {
        Self {
            source: Box::new(source),
            turn: Mutex::default(),
            in_background: AtomicBool::new(false),
            ended: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    pub(super) fn last_failure(&self) -> Option<KeyUnavailable> {
        self.last().failure.clone()
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    fn turn(&self) -> MutexGuard<'_, Arc<sync::Mutex<()>>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn from whoever holds `turn` longer than a question takes.
    fn abandon(&self, turn: &Arc<sync::Mutex<()>>) {
        let mut current = self.turn();
        if Arc::ptr_eq(&current, turn) {
            *current = Arc::default();
        }
    }

    /// What [`ended`](Self::ended) is when nothing that was asked before now is on its way any more.
    fn asked_till_now(&self) -> u64 {
        let is_asked = self.turn().try_lock().is_err();
        self.ended().saturating_add(u64::from(is_asked))
    }

    /// How the last question ended, where it was asked a moment ago because the key of `generation` was refused.
    fn just_asked(&self, generation: u64, now: Instant) -> Option<Result<(), KeyUnavailable>> {
        let last = self.last();
        let since = now.saturating_duration_since(last.at?);
        (last.refused == Some(generation) && since < HOLD_OFF)
            .then(|| last.failure.clone().map_or(Ok(()), Err))
    }

    /// How the last question ended, where that is an answer to who needs another key than that of generation `refused`.
    fn shared(&self, keys: &Keys, refused: Option<u64>) -> Option<Result<(), KeyUnavailable>> {
        let last = self.last();
        if let Some(failure) = &last.failure {
            return Some(Err(failure.clone()));
        }
        // Else it was asked before the key was refused, and may have given that very key.
        let is_news = |generation| last.refused == refused || keys.changed_since(generation);
        refused.is_none_or(is_news).then_some(Ok(()))
    }

    /// Asks for a key and puts it in force. Whoever comes while a question is on its way shares its answer: `seen` is what
    /// [`ended`](Self::ended) was when the caller found that it needs another key, `refused` the key's generation where a
    /// 401 said so.
    async fn ask(
        &self,
        keys: &Keys,
        seen: u64,
        refused: Option<u64>,
        limit: Duration,
    ) -> Result<(), KeyUnavailable> {
        // One may be on its way to its limit, after a pause.
        let patience = limit.saturating_mul(2).saturating_add(HOLD_OFF);
        let turn = self.turn().clone();
        let Ok(_turn) = timeout(patience, turn.lock()).await else {
            self.abandon(&turn);
            keys.postpone(HOLD_OFF, Instant::now());
            return Err(KeyUnavailable::timed_out(patience));
        };
        let before = self.ended();
        if before > seen {
            if let Some(answer) = self.shared(keys, refused) {
                return answer;
            }
        }
        let last = self.last().clone();
        if let (Some(at), Some(_)) = (last.at, last.failure) {
            sleep_until(at + HOLD_OFF).await;
        }
        let answer = match timeout(limit, self.source.fetch_boxed()).await {
            // The turn was lost, and another has an answer that is newer.
            _ if self.ended() != before => return self.last().failure.clone().map_or(Ok(()), Err),
            Err(_) => Err(KeyUnavailable::timed_out(limit)),
            Ok(Err(error)) => Err(KeyUnavailable::source_failed(error)),
            Ok(Ok(fresh)) => keys
                .put(fresh, Instant::now())
                .map_err(KeyUnavailable::wrong_kind),
        };
        self.end(keys, answer.clone().err(), refused);
        answer
    }

    fn end(&self, keys: &Keys, failure: Option<KeyUnavailable>, refused: Option<u64>) {
        metrics::api_key_asked_for(failure.is_none());
        let now = Instant::now();
        let mut last = self.last();
        let failures = last.failures.saturating_add(1);
        if let Some(failure) = &failure {
            let doubled = HOLD_OFF.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
            keys.postpone(doubled.min(LONGEST_DELAY), now);
            tracing::warn!(
                reason = failure.kind(),
                failures,
                "no new API key to be had"
            );
        }
        *last = Last {
            at: Some(now),
            failures: failure.as_ref().map_or(0, |_| failures),
            failure,
            refused,
        };
        drop(last);
        self.ended.fetch_add(1, Ordering::Release);
    }
}

/// Waits until there is a key to send the request with that found none.
pub(super) async fn key_needed(keys: Arc<Keys>, limit: Duration) -> Result<(), KeyUnavailable> {
    let Some(renewal) = &keys.renewal else {
        return Ok(());
    };
    let seen = renewal.ended();
    // It may have come since the caller looked.
    if keys.choose(&Extensions::new()).is_some() {
        return Ok(());
    }
    renewal.ask(&keys, seen, None, limit).await
}

/// Asks for another key in the place of that of `generation`, which was answered with a 401; whether there is one.
pub(super) async fn was_refused(
    keys: Arc<Keys>,
    generation: u64,
    limit: Duration,
) -> Result<bool, KeyUnavailable> {
    if let Some(renewal) = &keys.renewal {
        let seen = renewal.ended();
        if !keys.changed_since(generation) {
            match renewal.just_asked(generation, Instant::now()) {
                // A source that has nothing better is not asked by every answer.
                Some(answer) => answer?,
                None => renewal.ask(&keys, seen, Some(generation), limit).await?,
            }
        }
    }
    Ok(keys.changed_since(generation))
}

/// Asks for the next key in a task of its own, unless one does already.
pub(super) fn in_background(keys: &Arc<Keys>, limit: Duration) {
    let Some(renewal) = &keys.renewal else {
        return;
    };
    // Without a runtime of tokio's the request that finds the key stale asks.
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    if renewal.in_background.swap(true, Ordering::AcqRel) {
        return;
    }
    let background = Background(keys.clone());
    let seen = renewal.ended();
    // It may be done since the caller looked.
    let is_due = keys
        .choose(&Extensions::new())
        .is_some_and(|chosen| chosen.renew);
    if !is_due {
        return;
    }
    runtime.spawn(async move {
        let keys = &background.0;
        if let Some(renewal) = &keys.renewal {
            // How it ended is told where it is noted.
            let _ = renewal.ask(keys, seen, None, limit).await;
        }
    });
}

/// Asks for a key because the user says so.
pub(super) async fn now(keys: &Arc<Keys>, limit: Duration) -> Result<(), KeyUnavailable> {
    match &keys.renewal {
        Some(renewal) => {
            // What is on its way may have been answered before the key changed.
            let seen = renewal.asked_till_now();
            renewal.ask(keys, seen, None, limit).await
        }
        None => Ok(()),
    }
}

/// The task that asks, as long as it lives: a runtime that shuts down drops it half-way.
struct Background(Arc<Keys>);

impl Drop for Background {
    fn drop(&mut self) {
        // A source that panics has not answered, and would be asked again by each request.
        if thread::panicking() {
            self.0.postpone(HOLD_OFF, Instant::now());
        }
        if let Some(renewal) = &self.0.renewal {
            renewal.in_background.store(false, Ordering::Release);
        }
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal")
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}

/// A source that failed is left alone for so long, and one that has no better key than the one that was refused.
const HOLD_OFF: Duration = Duration::from_secs(1);
/// While there is a key to go on with, a source that fails is asked less and less often, down to this.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
