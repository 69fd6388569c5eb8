//! One plan, many processes: each sends by tokens that it leases from a shared store. Pure, given the time and what the
//! store answers; [`clerk`] makes the calls.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use self::{
    hand::Hand,
    outage::{Down, Outage},
    reports::Reports,
};
use super::{
    clock::ServerClock,
    rule::{Rule, Verdict},
    store::{Lease, LeaseRequest, Pause, Seen, StoreTime, Turn, Unused},
    time::{Span, earlier, later, scaled},
    window::Told,
};
use crate::store::TIMEOUT;

mod answers;
pub(super) mod clerk;
mod hand;
mod ledger;
mod memory;
pub(super) mod outage;
mod reports;
#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests;
mod window;

#[cfg(feature = "redis")]
pub(super) use self::ledger::{interval, micros, millis};
pub use self::memory::MemoryStore;

/// What one process knows of the store, and the tokens that it has from it.
///
/// It asks for as many as there is use for, and for the next ones as soon as the first of the last lease has begun: so one
/// lease is ahead at the most, and whoever has many waiting need not wait for the store.
#[derive(Debug)]
pub(super) struct Fleet {
    /// A number of its own.
    process: u64,
    outage: Outage,
    plan: u32,
    span: Span,
    /// How long a call may take.
    patience: Duration,
    /// How long the last one took.
    took: Duration,
    hand: Hand,
    /// What the store's clock shows, at least.
    clock: ServerClock,
    /// When it showed at most so much: what it answered last, and when it was asked. `None` before it was.
    showed: Option<(Instant, Duration)>,
    seen: Seen,
    /// Its place in the store's line.
    line: Option<InLine>,
    /// When the store was last heard of; `None` before it ever was.
    heard: Option<Instant>,
    /// Processes that were there then.
    processes: u32,
    /// The most that were lately, and when: a store that lost all knows only those who asked since.
    most: Option<(u32, Instant)>,
    down: Option<Down>,
    /// When the last lease began, and of how many tokens it was.
    last: Option<(Instant, u32)>,
    /// From one token of this process to the next, as it was lately.
    pace: Duration,
    /// A refusal that the store is to be told of, and until when it pauses all.
    refused: Option<Instant>,
    reports: Reports,
}

#[derive(Clone, Copy, Debug)]
struct InLine {
    /// `None` where the store gives no turns, and only says when to ask again.
    turn: Option<Turn>,
    /// When to come for it.
    come: Instant,
    /// When its token is to begin.
    begins: Instant,
}

/// A call of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    Lease(LeaseRequest),
    Pause(Pause),
    GiveBack(Unused),
}

/// How many tokens there is use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) tokens: u32,
    /// When that changes by itself, if it does.
    pub(super) until: Option<Instant>,
}

/// What an answer changes beyond the tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub(super) struct Heard {
    /// Until when another process paused all; `Some` in a pause.
    pub(super) paused_until: Option<Instant>,
    /// Since when the store had been away; `Some` when it is back.
    pub(super) back_since: Option<Instant>,
}

impl Fleet {
    pub(super) fn new(process: u64, outage: Outage, plan: u32, span: Span) -> Self {
        let step = step(plan, span);
        Self {
            process,
            outage,
            plan,
            span,
            patience: TIMEOUT,
            took: Duration::ZERO,
            hand: Hand::new(step, use_within(span)),
            clock: ServerClock::default(),
            showed: None,
            seen: Seen::default(),
            line: None,
            heard: None,
            processes: 0,
            most: None,
            down: None,
            last: None,
            pace: step,
            refused: None,
            reports: Reports::default(),
        }
    }

    pub(super) fn set_rate(&mut self, plan: u32, span: Span) {
        self.plan = plan;
        self.span = span;
        self.pace = step(plan, span);
        self.hand.set_step(self.pace, use_within(span));
    }

    pub(super) const fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    pub(super) const fn set_outage(&mut self, outage: Outage) {
        self.outage = outage;
    }

    /// Whether a request may leave, as far as the store goes.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let fitting = self.hand.usable(now);
        if fitting > 0 {
            return Verdict::Now(fitting);
        }
        let next = self.hand.begins_after(now);
        if next.is_some() {
            return Verdict::Later(Rule::Store, next);
        }
        if let Some(down) = &self.down {
            return down.verdict(self.pace_alone(), now);
        }
        let begins = self.line.map(|line| line.begins);
        Verdict::Later(Rule::Store, begins.filter(|&begins| begins > now))
    }

    /// A request leaves, and takes the token that began first.
    pub(super) fn send(&mut self, now: Instant) {
        if self.hand.take(now) {
            return;
        }
        let pace = self.pace_alone();
        if let (Some(down), Some(pace)) = (&mut self.down, pace) {
            down.send(pace, now);
        }
    }

    /// The server refused a request: nobody is to leave before `until`.
    pub(super) fn refused(&mut self, until: Instant) {
        self.refused = self.refused.max(Some(until));
        self.hand.drop_before(until);
        self.reports.doubt();
    }

    /// The answer to a request that was sent at `sent` told of its window, and may prove that it is one.
    pub(super) fn heard(&mut self, told: Told, proved: bool, sent: Instant) {
        self.reports.heard(told, proved, sent);
    }

    /// The server does not count in windows, or no answer says so any more.
    pub(super) fn doubt_windows(&mut self) {
        self.reports.doubt();
    }

    /// Whether the store takes the server for one that counts in windows.
    pub(super) const fn has_windows(&self) -> bool {
        self.reports.windows()
    }

    /// What is to be done next: an errand now, or else to look again, at an instant or when something has changed.
    pub(super) fn next(&self, demand: Demand, now: Instant) -> Result<Errand, Option<Instant>> {
        if let Some(down) = &self.down {
            if now < down.again() {
                return Err(Some(down.again()));
            }
            return Ok(Errand::Lease(LeaseRequest {
                hold: down.hold(self.patience),
                ..self.request(0, now)
            }));
        }
        if let Some(until) = self.refused.filter(|&until| until > now) {
            return Ok(Errand::Pause(Pause {
                lasts: until.saturating_duration_since(now),
                interval: self.hand.step(),
                max_wait: AHEAD,
                keep: self.span.longest.max(KEEP),
                seen: self.told_again(now),
            }));
        }
        if let Some(unused) = self.surplus(demand.tokens, now) {
            return Ok(Errand::GiveBack(unused));
        }
        let look = self.asks_at(demand, now);
        match look {
            Some(at) if at <= now => {
                let wanted = demand.tokens.saturating_sub(self.hand.tokens(now));
                Ok(Errand::Lease(self.request(wanted, now)))
            }
            look => Err(look.into_iter().chain(demand.until).min()),
        }
    }

    /// When it is to ask for tokens, or to show that it is there.
    fn asks_at(&self, demand: Demand, now: Instant) -> Option<Instant> {
        if demand.tokens > self.hand.tokens(now) {
            let turn = self.line.map_or(now, |line| line.come);
            let ahead = self.hand.last_begins().map_or(now, |(lease, token)| {
                lease.max(earlier(token, HURRY.max(self.took)))
            });
            return Some(turn.max(ahead));
        }
        let shown = self.heard.max(self.line.map(|line| line.begins));
        shown.map(|shown| later(shown, SHOWN_EVERY))
    }

    /// How far ahead demand is looked at: for as long as a call takes there are tokens to be in hand, and the next ones on
    /// their way.
    pub(super) fn ahead(&self) -> Duration {
        self.took.saturating_mul(2)
    }

    fn request(&self, wanted: u32, now: Instant) -> LeaseRequest {
        let shows = self.clock.shows(now).unwrap_or_default();
        LeaseRequest {
            process: self.process,
            wanted,
            max_wait: AHEAD,
            interval: self.hand.step(),
            keep: self.span.longest.max(KEEP),
            turn: self.line.and_then(|line| line.turn),
            seen: self.told_again(now),
            hold: Duration::ZERO,
            window: self.reports.seen(self.span.named, shows, now),
            doubts: self.reports.doubts(),
        }
    }

    /// What the store is told of itself. A pause that is over is none, even where the store's clock was set back.
    fn told_again(&self, now: Instant) -> Seen {
        let mut seen = self.seen;
        let shows = self.clock.shows(now).unwrap_or_default();
        if Duration::from_micros(seen.paused_until.0) <= shows {
            seen.paused_until = StoreTime::default();
        }
        seen
    }

    /// Tokens that nobody has use for any more, where they seem to be the last that were reserved.
    fn surplus(&self, demand: u32, now: Instant) -> Option<Unused> {
        let many = self.hand.tokens(now).saturating_sub(demand);
        let tokens = self.hand.tail(many, self.seen.tat, now)?;
        Some(Unused {
            process: self.process,
            tokens,
            interval: self.hand.step(),
            tat: self.seen.tat,
            leaves: false,
        })
    }

    /// The errand is under way.
    pub(super) fn begin(&mut self, errand: Errand) {
        if let Errand::Lease(_) = errand {
            self.reports.begin();
        }
        if let Errand::GiveBack(unused) = errand {
            let tat = self.hand.give_back(unused.tokens);
            // To tell the store again what it was would take them from whoever gets them.
            self.seen.tat = tat;
        }
    }

    /// It ends.
    pub(super) fn leave(&self, now: Instant) -> Unused {
        let surplus = self.surplus(0, now).unwrap_or_default();
        Unused {
            process: self.process,
            leaves: true,
            ..surplus
        }
    }
}

/// What it is like now.
impl Fleet {
    /// The time between two requests without the store; `None` where none may leave.
    fn pace_alone(&self) -> Option<Duration> {
        let many = self.outage.share(self.plan, self.sharers());
        (many > 0).then(|| step(many, self.span))
    }

    /// From one token of this process to the next, as far as is known.
    pub(super) fn pace(&self) -> Duration {
        let alone = self.down.and_then(|_| self.pace_alone());
        alone.unwrap_or(self.pace)
    }

    pub(super) fn tokens(&self, now: Instant) -> u32 {
        self.hand.tokens(now)
    }

    pub(super) fn usable(&self, now: Instant) -> u32 {
        self.hand.usable(now)
    }

    /// How many share the plan, as far as is known; 0 where the store never answered.
    pub(super) fn sharers(&self) -> u32 {
        self.most.map_or(0, |(most, _)| most)
    }

    pub(super) const fn processes(&self) -> u32 {
        self.processes
    }

    pub(super) const fn outage(&self) -> Outage {
        self.outage
    }

    pub(super) const fn down(&self) -> Option<&Down> {
        self.down.as_ref()
    }
}

/// Between two tokens of `many` a window, in whole µs: as a store counts.
fn step(many: u32, span: Span) -> Duration {
    let step = scaled(span.longest.saturating_add(jitter(span)), 1, many);
    let micros = step.as_nanos().div_ceil(1_000);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// How much later one request may arrive than another that was due at the same time. In a short window less of it is given
/// away for that.
fn jitter(span: Span) -> Duration {
    JITTER.min(scaled(span.longest, 1, 80))
}

/// For how long after its begin a token may be used. What is left of the jitter is for the network.
fn use_within(span: Span) -> Duration {
    scaled(jitter(span), 3, 4)
}

/// How far ahead tokens are reserved.
pub(super) const AHEAD: Duration = Duration::from_secs(1);
/// As [`Pacer`](super::pacer::Pacer)'s.
const JITTER: Duration = Duration::from_millis(250);
/// What is gone from a store counts as lost, and costs the first who asks a second's wait: so it is kept for longer than
/// most pauses between requests.
const KEEP: Duration = Duration::from_secs(60 * 60);
/// Whose last token begins within so long asks for more: those who want one come one by one.
const HURRY: Duration = Duration::from_millis(250);
/// How often a process that has nothing to ask for shows that it is there.
const SHOWN_EVERY: Duration = Duration::from_secs(10);
/// A store counts a process for so long after it was heard of.
const PRESENCE: Duration = Duration::from_secs(30);
/// Two instants that are as far apart may be the same one, read by two clocks.
pub(super) const SAME: Duration = Duration::from_millis(20);
