//! The keys that all services of one layer share: the one in force, and a few before it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::{Extensions, HeaderValue};
use tokio::time::Instant;

use super::{renewal::Renewal, source::FreshKey};
use crate::{
    key::{ApiKey, WrongKeyKind},
    logical::LogicalRequest,
};

/// Reading takes no lock: a request looks at an unchanging history behind one atomic pointer.
#[derive(Debug)]
pub(super) struct Keys {
    /// `None` until a source gave its first key.
    history: ArcSwapOption<History>,
    /// Held while one history takes the place of another.
    change: Mutex<()>,
    /// `Some` where a source can be asked for a key.
    pub(super) renewal: Option<Renewal>,
}

/// The key in force, and those before it.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) current: Issued,
    /// The oldest first.
    former: Vec<Former>,
}

/// A key that was given.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) key: ApiKey,
    /// Counts from 0 with each change.
    pub(super) generation: u64,
    /// `Some` where something is due at some time.
    times: Option<Times>,
}

/// A key that was followed by another.
#[derive(Clone, Debug)]
struct Former {
    key: ApiKey,
    generation: u64,
    /// Since when its successor was waited for, or in force.
    until: Instant,
}

/// When what is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    /// The source is asked beside the requests.
    renew: Instant,
    /// The source is asked before a request.
    stale: Instant,
    /// The key is not used any more; `None` where it does not end.
    expires: Option<Instant>,
}

/// A key to send a request with.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) bearer: HeaderValue,
    pub(super) generation: u64,
    /// It is used for now, and should be renewed beside the requests.
    pub(super) renew: bool,
}

impl Keys {
    pub(super) fn fixed(key: ApiKey) -> Self {
        let history = History::of(FreshKey::from(key), Instant::now());
        Self {
            history: ArcSwapOption::from_pointee(history),
            change: Mutex::default(),
            renewal: None,
        }
    }

    pub(super) fn from_source(renewal: Renewal) -> Self {
        Self {
            history: ArcSwapOption::empty(),
            change: Mutex::default(),
            renewal: Some(renewal),
        }
    }

    /// The key for the request with these `extensions` that is sent now; `None` where the source must be asked first.
    pub(super) fn choose(&self, extensions: &Extensions) -> Option<Chosen> {
        let history = self.history.load();
        let history = history.as_deref()?;
        if let Some(pinned) = pinned(extensions).and_then(|at| history.former_at(at)) {
            return Some(pinned);
        }
        let current = &history.current;
        let Some(times) = current.times else {
            return Some(current.chosen(false));
        };
        let now = Instant::now();
        (now < times.stale).then(|| current.chosen(now >= times.renew))
    }

    /// The key in force.
    pub(super) fn current(&self) -> Option<Issued> {
        self.history
            .load()
            .as_ref()
            .map(|history| history.current.clone())
    }

    /// Whether another key than that of `generation` is in force.
    pub(super) fn changed_since(&self, generation: u64) -> bool {
        let history = self.history.load();
        history
            .as_ref()
            .is_some_and(|history| history.current.generation != generation)
    }

    /// Puts a key in force.
    pub(super) fn put(&self, fresh: FreshKey, now: Instant) -> Result<(), WrongKeyKind> {
        let _changing = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match self.history.load().as_deref() {
            None => History::of(fresh, now),
            Some(history) => history.followed_by(fresh, now)?,
        };
        self.history.store(Some(next.into()));
        Ok(())
    }

    /// Leaves the source alone until `delay` has passed, and goes on with the key for as long again before a request waits
    /// for another, unless the key ends before that.
    pub(super) fn postpone(&self, delay: Duration, now: Instant) {
        let _changing = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let history = self.history.load();
        let Some(history) = history.as_deref() else {
            return;
        };
        let mut next = history.clone();
        if let Some(times) = &mut next.current.times {
            let later = now.checked_add(delay).unwrap_or(now);
            times.renew = times.renew.max(later);
            times.stale = times.stale.max(later.checked_add(delay).unwrap_or(later));
            times.stale = times.expires.into_iter().fold(times.stale, Instant::min);
        }
        self.history.store(Some(next.into()));
    }
}

/// When the attempt was sent whose key a repetition needs.
fn pinned(extensions: &Extensions) -> Option<Instant> {
    LogicalRequest::of(extensions)?.pinned
}

impl History {
    fn of(fresh: FreshKey, now: Instant) -> Self {
        Self {
            current: Issued::of(fresh, 0, now),
            former: Vec::new(),
        }
    }

    fn followed_by(&self, fresh: FreshKey, now: Instant) -> Result<Self, WrongKeyKind> {
        let current = &self.current;
        if current.key.kind() != fresh.key.kind() {
            return Err(WrongKeyKind {
                in_force: current.key.kind(),
                given: fresh.key.kind(),
            });
        }
        if current.key == fresh.key {
            return Ok(Self {
                current: Issued::of(fresh, current.generation, now),
                former: self.former.clone(),
            });
        }
        let stale = current.times.map(|times| times.stale);
        let replaced = Former {
            key: current.key.clone(),
            generation: current.generation,
            // What was called since waited for its successor.
            until: stale.into_iter().fold(now, Instant::min),
        };
        let too_many = (self.former.len() + 1).saturating_sub(MOST_FORMER);
        let kept = self.former.iter().skip(too_many).cloned();
        Ok(Self {
            current: Issued::of(fresh, current.generation.saturating_add(1), now),
            former: kept.chain([replaced]).collect(),
        })
    }

    /// The key in force at `at`, where it is known and another is in force now.
    fn former_at(&self, at: Instant) -> Option<Chosen> {
        let place = self.former.iter().position(|former| at < former.until)?;
        let former = self.former.get(place)?;
        // Of the oldest it is not known when it came, unless it was the first of all.
        (place > 0 || former.generation == 0).then(|| Chosen {
            bearer: former.key.bearer(),
            generation: former.generation,
            renew: false,
        })
    }
}

impl Issued {
    fn of(fresh: FreshKey, generation: u64, now: Instant) -> Self {
        Self {
            times: Times::of(&fresh, now),
            key: fresh.key,
            generation,
        }
    }

    fn chosen(&self, renew: bool) -> Chosen {
        Chosen {
            bearer: self.key.bearer(),
            generation: self.generation,
            renew,
        }
    }
}

impl Times {
    fn of(fresh: &FreshKey, now: Instant) -> Option<Self> {
        let life = fresh.life.map(|life| life.max(SHORTEST_LIFE));
        let ahead = life.map(|life| life.saturating_sub((life / 5).min(LONGEST_AHEAD)));
        let asked = fresh.renew_after.map(|after| after.max(SHORTEST_LIFE));
        let renew = ahead.into_iter().chain(asked).min()?;
        // Asked for by the source: a second time as long without a request, and the next one waits for the answer.
        let stale = asked.map(|asked| asked.saturating_mul(2));
        let stale = stale.into_iter().chain(life).min()?;
        Some(Self {
            // Beyond every clock is never.
            renew: now.checked_add(renew)?,
            stale: now.checked_add(stale)?,
            expires: life.and_then(|life| now.checked_add(life)),
        })
    }
}

/// Enough for what is on its way when keys change quickly.
const MOST_FORMER: usize = 8;
/// A source that says less would be asked by every request.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);
/// A key that lives for a day need not be renewed hours ahead.
const LONGEST_AHEAD: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: u32) -> ApiKey {
        ApiKey::parse(&format!("pk_test_{name}")).unwrap()
    }

    const fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// A history of keys 0, 1, 2 … of which each is followed by the next after a second.
    fn history(start: Instant, keys: u32) -> History {
        let first = History::of(key(0).into(), start);
        (1..keys).fold(first, |history, n| {
            let now = start + secs(u64::from(n));
            history.followed_by(key(n).into(), now).unwrap()
        })
    }

    /// The number of the key in force at `at`, where that is known.
    fn at(history: &History, at: Instant) -> Option<String> {
        let chosen = history.former_at(at)?;
        let text = chosen.bearer.to_str().unwrap();
        Some(text.strip_prefix("Bearer pk_test_").unwrap().to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_former_key_is_known_by_its_time() {
        let start = Instant::now();
        let half = Duration::from_millis(500);
        let three = history(start, 3);
        assert_eq!(at(&three, start - half).as_deref(), Some("0"), "the first");
        assert_eq!(at(&three, start + half).as_deref(), Some("0"));
        assert_eq!(at(&three, start + secs(1)).as_deref(), Some("1"));
        assert_eq!(at(&three, start + secs(1) + half).as_deref(), Some("1"));
        assert_eq!(at(&three, start + secs(2)), None, "the one in force");
        assert_eq!(at(&three, start + secs(99)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn few_former_keys_are_kept_and_of_those_before_nothing_is_said() {
        let start = Instant::now();
        let many = history(start, 20);
        assert_eq!(many.former.len(), MOST_FORMER);
        let half = Duration::from_millis(500);
        // 19 is in force, 11 is the oldest kept: before 12 came it was in force, but since when is not known.
        assert_eq!(at(&many, start + secs(3)), None);
        assert_eq!(at(&many, start + secs(11) + half), None);
        assert_eq!(at(&many, start + secs(12) + half).as_deref(), Some("12"));
        assert_eq!(at(&many, start + secs(18) + half).as_deref(), Some("18"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_called_when_a_key_was_stale_was_sent_with_the_next() {
        let start = Instant::now();
        let expiring = FreshKey::from(key(0)).expires_in(secs(10));
        let stale = FreshKey::from(key(0)).renew_after(secs(5));
        for first in [expiring, stale] {
            let first = History::of(first, start);
            let both = first.followed_by(key(1).into(), start + secs(20)).unwrap();
            assert_eq!(at(&both, start + secs(9)).as_deref(), Some("0"));
            assert_eq!(at(&both, start + secs(15)), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_key_again_is_no_change() {
        let start = Instant::now();
        let first = History::of(FreshKey::from(key(0)).expires_in(secs(10)), start);
        let again = first.followed_by(key(0).into(), start + secs(5)).unwrap();
        assert_eq!((again.current.generation, again.former.len()), (0, 0));
        assert_eq!(again.current.times, None);
    }

    #[tokio::test(start_paused = true)]
    async fn test_and_live_keys_never_replace_each_other() {
        let keys = Keys::fixed(key(0));
        let live = || FreshKey::from(ApiKey::parse("pk_live_0").unwrap());
        let error = keys.put(live(), Instant::now()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a live key can't take the place of a test key"
        );
        assert!(!keys.changed_since(0));
        assert_eq!(keys.current().unwrap().key, key(0));
    }

    #[tokio::test(start_paused = true)]
    async fn times_follow_from_a_keys_life() {
        let now = Instant::now();
        let table = [
            // life, renew_after, renew, stale, expires
            (Some(100), None, 80, 100, Some(100)),
            (Some(86_400), None, 86_100, 86_400, Some(86_400)),
            (Some(0), None, 0, 1, Some(1)),
            (None, Some(10), 10, 20, None),
            (Some(100), Some(10), 10, 20, Some(100)),
            (Some(100), Some(90), 80, 100, Some(100)),
            (None, Some(0), 1, 2, None),
        ];
        for (life, renew_after, renew, stale, expires) in table {
            let mut fresh = FreshKey::from(key(0));
            fresh.life = life.map(secs);
            fresh.renew_after = renew_after.map(secs);
            let times = Times::of(&fresh, now).unwrap();
            let at = |n| now + secs(n);
            // A fifth of a second is no matter here.
            assert_eq!((times.renew - now).as_secs(), renew, "{fresh:?}");
            assert_eq!((times.stale, times.expires), (at(stale), expires.map(at)));
        }
        assert_eq!(Times::of(&key(0).into(), now), None);
        let endless = FreshKey::from(key(0)).expires_in(Duration::MAX);
        assert_eq!(Times::of(&endless, now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_postponed_renewal_is_never_later_than_the_keys_end() {
        let (start, none) = (Instant::now(), Extensions::new());
        let renewal = Renewal::of(|| async { Ok::<_, tower::BoxError>(key(0)) });
        let keys = Keys::from_source(renewal);
        assert!(keys.choose(&none).is_none());
        keys.put(FreshKey::from(key(0)).expires_in(secs(10)), start)
            .unwrap();
        tokio::time::advance(secs(8)).await;
        assert!(keys.choose(&none).unwrap().renew);
        keys.postpone(secs(5), start + secs(8));
        assert!(!keys.choose(&none).unwrap().renew);
        tokio::time::advance(secs(2)).await;
        assert!(keys.choose(&none).is_none());
    }
}
