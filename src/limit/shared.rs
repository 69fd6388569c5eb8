//! The bucket and the queue behind one short lock.

use std::{num::NonZeroU32, sync::PoisonError, time::Duration};

use tokio::time::Instant;

use super::{
    RateLimitSnapshot,
    bucket::Bucket,
    events::{News, Seen},
    queue::{Outlook, Queue, Wakers},
};
use crate::{
    headers::date::Wall,
    sync::{Mutex, MutexGuard},
};

/// What all services made by one layer share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) wall: Wall,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) bucket: Bucket,
    pub(super) queue: Queue,
    pub(super) pauses_on_503: bool,
    /// What the log was told of last.
    seen: Seen,
}

impl Shared {
    pub(super) fn new(plan: NonZeroU32) -> Self {
        let bucket = Bucket::new(plan, WINDOW);
        let seen = Seen::at(&bucket, Instant::now());
        Self {
            state: Mutex::new(State {
                bucket,
                queue: Queue::default(),
                pauses_on_503: true,
                seen,
            }),
            wall: Wall::anchored(),
        }
    }

    /// Looks at the state, and changes nothing that others wait for.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State, Instant, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::default();
        let mut state = self.lock();
        // Read under the lock, so that time goes back for no thread.
        let now = Instant::now();
        let result = look(&mut state, now, &mut wakers);
        let news = state.news(now);
        drop(state);
        wakers.wake();
        news.tell();
        result
    }

    /// Changes the state, and then serves those who wait.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut State, Instant, &mut Wakers) -> T,
    ) -> T {
        self.with(|state, now, wakers| {
            let result = change(state, now, wakers);
            // What the bucket would say need not be worked out for nobody.
            if !state.queue.is_empty() {
                state.queue.serve(state.outlook(now), wakers);
            }
            result
        })
    }

    pub(super) fn snapshot(&self) -> RateLimitSnapshot {
        let state = self.lock();
        let now = Instant::now();
        RateLimitSnapshot::new(&state.bucket, state.queue.waiting(), now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn outlook(&self, now: Instant) -> Outlook {
        Outlook {
            now,
            verdict: self.bucket.verdict(now),
            pace: self.bucket.pace(now),
        }
    }

    fn news(&mut self, now: Instant) -> News {
        self.seen.news(&self.bucket, self.queue.waiting(), now)
    }
}

/// Ploton counts requests a minute.
const WINDOW: Duration = Duration::from_secs(60);
