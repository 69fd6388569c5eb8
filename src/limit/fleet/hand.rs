//! The tokens that a process has in hand.
#![warn(clippy::arithmetic_side_effects)]

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::limit::{
    store::StoreTime,
    time::{later, scaled},
};

/// Tokens by the instant from which on each may be used, the soonest first. One that is not used soon after is lost: to
/// use it later would bring more requests together than the server lets through.
#[derive(Debug)]
pub(super) struct Hand {
    leases: VecDeque<Held>,
    /// Between two tokens of all processes.
    step: Duration,
    use_within: Duration,
}

/// What is left of a lease.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// When its first token began, or does.
    began: Instant,
    /// When the first that is left begins.
    next: Instant,
    /// At least 1.
    left: u32,
    step: Duration,
    tat: StoreTime,
}

impl Held {
    fn begin(&self, token: u32) -> Instant {
        later(self.next, scaled(self.step, token, 1))
    }

    /// How many have begun at `now`.
    fn begun(&self, now: Instant) -> u32 {
        now.checked_duration_since(self.next)
            .map_or(0, |since| steps(since, self.step))
    }

    fn skip(&mut self, tokens: u32) {
        self.next = self.begin(tokens);
        self.left = self.left.saturating_sub(tokens);
    }

    /// How many can't be used any more at `now`.
    fn unusable(&self, use_within: Duration, now: Instant) -> u32 {
        let ends = later(self.next, use_within);
        match now.checked_duration_since(ends) {
            Some(since) if !since.is_zero() => steps(since, self.step).min(self.left),
            _ => 0,
        }
    }
}

/// How many steps have begun after `since`.
fn steps(since: Duration, step: Duration) -> u32 {
    let whole = since.as_nanos().checked_div(step.as_nanos());
    let whole = whole.and_then(|whole| u32::try_from(whole).ok());
    whole.map_or(u32::MAX, |whole| whole.saturating_add(1))
}

impl Hand {
    pub(super) const fn new(step: Duration, use_within: Duration) -> Self {
        Self {
            leases: VecDeque::new(),
            step,
            use_within,
        }
    }

    pub(super) const fn step(&self) -> Duration {
        self.step
    }

    /// Tokens that are there keep their begin.
    pub(super) const fn set_step(&mut self, step: Duration, use_within: Duration) {
        self.step = step;
        self.use_within = use_within;
    }

    pub(super) fn add(&mut self, begins: Instant, tokens: u32, step: Duration, tat: StoreTime) {
        self.leases.push_back(Held {
            began: begins,
            next: begins,
            left: tokens,
            step,
            tat,
        });
    }

    /// Tokens that all begin together. They come before those that have not begun.
    pub(super) fn add_at_once(&mut self, begins: Instant, tokens: u32) {
        self.leases.push_front(Held {
            began: begins,
            next: begins,
            left: tokens,
            step: Duration::ZERO,
            // They are never the last that were reserved.
            tat: StoreTime::default(),
        });
    }

    /// How many there are, that can be used at `now` or later.
    pub(super) fn tokens(&self, now: Instant) -> u32 {
        self.leases.iter().fold(0, |sum, held| {
            let left = held
                .left
                .saturating_sub(held.unusable(self.use_within, now));
            sum.saturating_add(left)
        })
    }

    /// How many can be used at `now`.
    pub(super) fn usable(&self, now: Instant) -> u32 {
        self.leases.iter().fold(0, |sum, held| {
            let begun = held.begun(now).min(held.left);
            let usable = begun.saturating_sub(held.unusable(self.use_within, now));
            sum.saturating_add(usable)
        })
    }

    /// When the next one begins, after `now`.
    pub(super) fn begins_after(&self, now: Instant) -> Option<Instant> {
        self.leases.iter().find_map(|held| {
            let begun = held.begun(now);
            (begun < held.left).then(|| held.begin(begun))
        })
    }

    /// When the last lease begins, or did, and when its last token does.
    pub(super) fn last_begins(&self) -> Option<(Instant, Instant)> {
        let held = self.leases.back()?;
        Some((held.began, held.begin(held.left.saturating_sub(1))))
    }

    /// Uses one at `now`, if one can be.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.drop_unusable(now);
        let Some(held) = self.leases.front_mut().filter(|held| held.next <= now) else {
            return false;
        };
        held.skip(1);
        if held.left == 0 {
            self.leases.pop_front();
        }
        true
    }

    pub(super) fn drop_unusable(&mut self, now: Instant) {
        let use_within = self.use_within;
        self.drop_some(|held| held.unusable(use_within, now));
    }

    /// A pause lasts until then.
    pub(super) fn drop_before(&mut self, until: Instant) {
        self.drop_some(|held| {
            let before = until.checked_duration_since(held.next);
            let before = before.filter(|before| !before.is_zero());
            before.map_or(0, |before| {
                let whole = before.as_nanos().div_ceil(held.step.as_nanos().max(1));
                u32::try_from(whole).unwrap_or(u32::MAX)
            })
        });
    }

    fn drop_some(&mut self, many: impl Fn(&Held) -> u32) {
        self.leases.retain_mut(|held| {
            let many = many(held).min(held.left);
            held.skip(many);
            held.left > 0
        });
    }

    /// How many of `many` can be given back: those of the last lease that have not begun, if its end is that of all
    /// reservations, as far as is known.
    pub(super) fn tail(&self, many: u32, tat: StoreTime, now: Instant) -> Option<u32> {
        let held = self.leases.back()?;
        let many = many.min(held.left.saturating_sub(held.begun(now)));
        (many > 0 && held.tat == tat && held.step == self.step).then_some(many)
    }

    /// Takes the last `many` away. Returns where the reservations end without them.
    pub(super) fn give_back(&mut self, many: u32) -> StoreTime {
        let Some(held) = self.leases.back_mut() else {
            return StoreTime::default();
        };
        held.left = held.left.saturating_sub(many);
        let given = u64::try_from(scaled(held.step, many, 1).as_micros()).unwrap_or(u64::MAX);
        held.tat = StoreTime(held.tat.0.saturating_sub(given));
        let tat = held.tat;
        if held.left == 0 {
            self.leases.pop_back();
        }
        tat
    }
}
