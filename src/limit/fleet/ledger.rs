//! What a shared store counts: the reservations of all processes. Pure, given the store's time.
#![warn(clippy::arithmetic_side_effects)]

use std::{collections::BTreeMap, time::Duration};

use super::window::Window;
use crate::limit::store::{Lease, LeaseRequest, Pause, Seen, StoreTime, Turn, Unused};

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests;

/// The reservations of all processes, in µs by the store's clock. Tokens are reserved one after the other, an interval
/// apart, and not further ahead than `max_wait`; whoever comes when that is full gets a turn in a line.
///
/// A token that would begin within half of that is free for whoever asks, so that none is lost if those whose turn it is do
/// not come. Every other implementation of a store does the same, step by step.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// The theoretical arrival time: from here on nothing is reserved. 0 where nothing is stored.
    tat: u64,
    /// Where the line ends: the next turn begins here, or at `tat` if that is later, as it is while nobody is in line.
    line: u64,
    /// By how much all turns were put off, in all.
    put_off: u64,
    paused_until: u64,
    /// The end of the pause whose probe was granted.
    probed: u64,
    /// Until when each process counts as there.
    processes: BTreeMap<u64, u64>,
    /// No process is to be taken away before this.
    soonest: u64,
    window: Window,
}

impl Ledger {
    pub(super) fn lease(&mut self, ask: LeaseRequest, now: u64) -> Lease {
        let (step, ahead) = (interval(ask.interval), micros(ask.max_wait));
        self.look(ask.seen, step, ahead, now);
        self.put_off_to(now.saturating_add(micros(ask.hold)));
        if ask.doubts || !ask.hold.is_zero() {
            self.window.doubt(now);
        }
        // A window without a name is none.
        if let Some(seen) = ask.window.filter(|seen| millis(seen.reset) > 0) {
            self.window.told(seen, step, now);
        }
        self.is_there(ask.process, now, now);
        let processes = u64::try_from(self.processes.len()).unwrap_or(u64::MAX);
        let share = LEASED
            .checked_div(step.saturating_mul(processes))
            .map_or(1, |share| share.max(1));

        // Nobody has more than one turn, so the line is no longer than this.
        let turns = processes.saturating_mul(share).saturating_add(1);
        let longest = step.saturating_mul(turns).saturating_add(ahead);
        self.line = self.line.min(self.tat.saturating_add(longest));
        let end = self.line.max(self.tat);
        let mut at = ask.turn.map_or(end, |turn| {
            let since = self.put_off.saturating_sub(turn.put_off);
            turn.at.0.saturating_add(since).min(end)
        });
        let latest = now.saturating_add(ahead);
        let is_due = at <= latest.saturating_add(TOLERANCE);
        let is_late = at.saturating_add(LATE) < latest;
        if ask.turn.is_some() && is_due && !is_late && at < self.tat {
            // More was reserved than there were turns for. All behind it are as late as this one.
            self.put_turns_off(at, self.tat.saturating_sub(at));
            at = self.tat;
        }

        let at_once = self.at_once(step, latest, now);
        let at_once = at_once.min(ask.wanted.into());
        if at_once > self.beginning_by(now, step) {
            self.window.grant(at_once);
            return Lease {
                granted: u32::try_from(at_once).unwrap_or(u32::MAX),
                at_once: true,
                ..self.says(0, None, now)
            };
        }
        let free = self.beginning_by(now.saturating_add(ahead / 2), step);
        let own = if is_due {
            let own = self.beginning_by(latest.saturating_add(TOLERANCE), step);
            own.min(share)
        } else {
            0
        };
        let granted = free.max(own).min(ask.wanted.into());
        if granted > 0 {
            let first = self.tat;
            let granted = self.grant(granted, step, ahead);
            self.window.grant(granted);
            if ask.turn.is_none() && is_due {
                let taken = step.saturating_mul(granted);
                self.line = self.line.max(end).saturating_add(taken);
            }
            return Lease {
                granted: u32::try_from(granted).unwrap_or(u32::MAX),
                ..self.says(first.saturating_sub(now), None, now)
            };
        }
        if ask.wanted == 0 {
            return self.says(0, None, now);
        }
        if ask.turn.is_none() {
            let taken = step.saturating_mul(share.min(ask.wanted.into()));
            self.line = at.saturating_add(taken);
        }
        self.is_there(ask.process, at, now);
        let turn = Turn {
            at: StoreTime(at),
            put_off: self.put_off,
        };
        let begins = if is_due { self.tat } else { at };
        self.says(begins.saturating_sub(latest), Some(turn), now)
    }

    pub(super) fn pause(&mut self, pause: Pause, now: u64) {
        let (step, ahead) = (interval(pause.interval), micros(pause.max_wait));
        self.look(pause.seen, step, ahead, now);
        self.window.doubt(now);
        let end = now.saturating_add(micros(pause.lasts).min(LONGEST_PAUSE));
        if end > self.paused_until {
            self.paused_until = end;
            self.put_off_to(end);
        }
    }

    pub(super) fn give_back(&mut self, unused: Unused) {
        if unused.leaves {
            self.processes.remove(&unused.process);
        }
        if self.tat != unused.tat.0 {
            return;
        }
        let given = interval(unused.interval).saturating_mul(unused.tokens.into());
        let tat = self.tat.saturating_sub(given);
        if self.line == self.tat {
            self.line = tat;
        }
        self.tat = tat;
    }

    /// Brings all instants up to `now`. What was lost is learned again, and what can't be, since a clock was set back or the
    /// value was spoiled, is made good.
    fn look(&mut self, seen: Seen, step: u64, ahead: u64, now: u64) {
        if seen.paused_until.0 > now {
            self.paused_until = self.paused_until.max(seen.paused_until.0);
        }
        let longest = now.saturating_add(LONGEST_PAUSE);
        self.paused_until = self.paused_until.min(longest);
        self.probed = self.probed.min(longest);
        let open = now.max(self.paused_until);
        let farthest = open
            .saturating_add(ahead)
            .saturating_add(TOLERANCE)
            .saturating_add(step.max(probe_gap(ahead)));
        self.window.look(now);
        if seen.tat.0 > self.tat.max(now) {
            self.window.forgot(now);
        }
        let mut tat = self.tat.max(seen.tat.0);
        if self.tat == 0 && seen.tat.0 > 0 {
            // All was lost: others may have tokens that this process never heard of, which begin before this.
            tat = tat.max(now.saturating_add(ahead).saturating_add(step));
        }
        self.tat = tat.min(farthest).max(open);
        if self.soonest <= now {
            self.processes.retain(|_, until| *until > now);
            let soonest = self.processes.values().min();
            self.soonest = soonest.copied().unwrap_or(u64::MAX);
        }
    }

    /// Nothing more begins before `to`, and those in line keep their order.
    fn put_off_to(&mut self, to: u64) {
        let by = to.saturating_sub(self.tat);
        self.put_turns_off(self.tat, by);
        self.tat = self.tat.max(to);
    }

    fn put_turns_off(&mut self, after: u64, by: u64) {
        if self.line > after {
            self.line = self.line.saturating_add(by);
        }
        self.put_off = self.put_off.saturating_add(by);
    }

    /// How many tokens that are not reserved yet begin by then.
    fn beginning_by(&self, latest: u64, step: u64) -> u64 {
        let Some(room) = latest.checked_sub(self.tat) else {
            return 0;
        };
        room.checked_div(step)
            .map_or(1, |more| more.saturating_add(1))
    }

    /// How many may leave at once: half of what there is, so that who comes next has some too.
    fn at_once(&self, step: u64, latest: u64, now: u64) -> u64 {
        let is_paused = self.paused_until > now || self.probed < self.paused_until;
        if is_paused || self.tat > latest {
            return 0;
        }
        self.window.at_once(self.tat, step, now).div_ceil(2)
    }

    /// Reserves tokens, but only one if it is the first after a pause. Returns how many.
    fn grant(&mut self, wanted: u64, step: u64, ahead: u64) -> u64 {
        if self.probed >= self.paused_until {
            let taken = step.saturating_mul(wanted);
            self.tat = self.tat.saturating_add(taken);
            return wanted;
        }
        self.probed = self.paused_until;
        self.tat = self.tat.saturating_add(step);
        let more = probe_gap(ahead).saturating_sub(step);
        self.put_off_to(self.tat.saturating_add(more));
        1
    }

    fn is_there(&mut self, process: u64, at: u64, now: u64) {
        let until = at.max(now).saturating_add(PRESENCE);
        self.processes.insert(process, until);
        self.soonest = self.soonest.min(until);
    }

    fn says(&self, wait: u64, turn: Option<Turn>, now: u64) -> Lease {
        Lease {
            granted: 0,
            wait: Duration::from_micros(wait),
            turn,
            now: StoreTime(now),
            seen: Seen {
                tat: StoreTime(self.tat),
                paused_until: StoreTime(self.paused_until),
            },
            processes: u32::try_from(self.processes.len()).unwrap_or(u32::MAX),
            at_once: false,
            windows: self.window.reset > 0,
        }
    }
}

/// From the probe after a pause to the next token: whoever comes for that comes when the probe's answer should be known.
const fn probe_gap(ahead: u64) -> u64 {
    ahead.saturating_add(500_000)
}

/// Rounded up, so that no token comes too soon.
pub(in crate::limit) fn interval(interval: Duration) -> u64 {
    u64::try_from(interval.as_nanos().div_ceil(1_000))
        .map_or(LONGEST_STEP, |step| step.clamp(1, LONGEST_STEP))
}

pub(in crate::limit) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).map_or(LONGEST_STEP, |micros| micros.min(LONGEST_STEP))
}

pub(in crate::limit) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).map_or(LAST_NAME, |millis| millis.min(LAST_NAME))
}

/// A lease holds no more than the tokens of so long, divided by the processes: half a second.
const LEASED: u64 = 500_000;
/// Whoever comes for its turn a little too early need not come again.
const TOLERANCE: u64 = 20_000;
/// Whoever comes for its turn later than by this says nothing about the turns of others.
const LATE: u64 = 250_000;
/// A process counts as there for so long after it was heard of, or had its turn.
const PRESENCE: u64 = 30_000_000;
/// Two hours: a refusal pauses for one at the most.
const LONGEST_PAUSE: u64 = 7_200_000_000;
/// No window has a later name, in ms: in µs too it is below 2⁵³. It is of the year 2109.
const LAST_NAME: u64 = 1 << 42;
/// No time that a process names is longer: a month.
const LONGEST_STEP: u64 = 2_678_400_000_000;
