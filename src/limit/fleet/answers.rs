//! What a process learns from the store's answers, and from none.
#![warn(clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::time::Instant;

use super::{AHEAD, Fleet, Heard, InLine, PRESENCE, SAME, outage::Down};
use crate::limit::{
    clock::ServerClock,
    store::{Lease, LeaseRequest, Pause, Seen},
    time::{drift, earlier, later, scaled},
};

impl Fleet {
    /// The store answered to what it was asked at `asked`.
    pub(in crate::limit) fn leased(
        &mut self,
        ask: LeaseRequest,
        lease: Lease,
        asked: Instant,
        now: Instant,
    ) -> Heard {
        let back_since = self.answered(now);
        self.took = now.saturating_duration_since(asked);
        let set_forward = self.read_clock(lease, asked, now);
        self.count(lease.processes, now);
        self.reports.answered(lease.windows);
        if set_forward {
            // What the store knows of the server's window goes by its old clock: it would end too early.
            self.reports.doubt();
        }
        let begins = self.local(lease, lease.wait, asked, now);
        let granted = lease.granted.min(ask.wanted);
        if lease.at_once && set_forward {
            self.line = None;
        } else if granted > 0 && lease.at_once {
            self.line = None;
            self.last = None;
            self.hand.add_at_once(begins, granted);
        } else if granted > 0 {
            self.measure(begins, granted, now);
            self.line = None;
            let tat = lease.seen.tat;
            self.hand.add(begins, granted, ask.interval, tat);
        } else if ask.wanted > 0 {
            let ahead = lease.turn.map_or(lease.wait, |turn| {
                Duration::from_micros(turn.at.0.saturating_sub(lease.now.0))
            });
            self.line = Some(InLine {
                turn: lease.turn,
                // The store knows no time between its instants, nor does a timer.
                come: later(begins, Duration::from_millis(1)),
                begins: self.local(lease, ahead, asked, now),
            });
        }
        let pause = lease.seen.paused_until.0.saturating_sub(lease.now.0);
        let paused_until = (pause > 0).then(|| {
            let until = self.local(lease, Duration::from_micros(pause), asked, now);
            self.hand.drop_before(earlier(until, SAME));
            until
        });
        Heard {
            paused_until,
            back_since,
        }
    }

    /// The store was told of a pause. Returns since when it had been away, if it was.
    pub(in crate::limit) fn paused(
        &mut self,
        pause: Pause,
        asked: Instant,
        now: Instant,
    ) -> Option<Instant> {
        let told = later(asked, pause.lasts);
        self.refused = self.refused.filter(|&until| until > told);
        self.answered(now)
    }

    /// The store answered. Returns since when it had been away, if it was.
    pub(in crate::limit) fn answered(&mut self, now: Instant) -> Option<Instant> {
        self.heard = Some(now);
        let down = self.down.take()?;
        if let Some((_, at)) = &mut self.most {
            // It could hear of no others meanwhile, and the store may have forgotten them.
            *at = now;
        }
        Some(down.since())
    }

    /// The store gave no answer in time, or (`lossy`) failed in another way. What it was asked for may have been carried out,
    /// and counts as spent. Returns whether it had not failed before.
    pub(in crate::limit) fn failed(&mut self, lossy: bool, now: Instant) -> bool {
        self.reports.failed();
        if let Some(down) = &mut self.down {
            down.failed(lossy, now);
            return false;
        }
        // Whatever others reserved before it went away has begun by then.
        let reserved = later(now, AHEAD.saturating_add(SAME));
        self.down = Some(Down::new(lossy, reserved, now));
        true
    }

    fn count(&mut self, processes: u32, now: Instant) {
        self.processes = processes;
        let most = self
            .most
            .filter(|&(most, at)| most > processes && now < later(at, PRESENCE));
        self.most = most.or(Some((processes, now)));
    }

    /// How long a token takes, if this process asks again and again.
    fn measure(&mut self, begins: Instant, granted: u32, now: Instant) {
        let steadily = self.line.is_some() || self.hand.tokens(now) > 0;
        let step = self.hand.step();
        let last = self.last.replace((begins, granted)).filter(|_| steadily);
        self.pace = last.map_or(step, |(last, many)| {
            let each = scaled(begins.saturating_duration_since(last), 1, many);
            each.clamp(step, step.saturating_mul(self.processes.max(1)))
        });
    }

    /// The store's clock as it is now; where it was set back, all that was known goes by another one. Returns whether it was
    /// set forward.
    fn read_clock(&mut self, lease: Lease, asked: Instant, now: Instant) -> bool {
        let shows = Duration::from_micros(lease.now.0);
        let took = now.saturating_duration_since(asked);
        let most = shows.saturating_add(took).saturating_add(SAME);
        if self.clock.shows(now).is_some_and(|known| known > most) {
            self.clock = ServerClock::default();
            self.seen = Seen::default();
        }
        self.clock.learn(shows, now);
        self.seen = self.seen.max(lease.seen);
        let showed = self.showed.replace((asked, shows));
        showed.is_some_and(|(asked, showed)| {
            let since = now.saturating_duration_since(asked);
            let at_most = showed.saturating_add(since).saturating_add(drift(since));
            shows > at_most.saturating_add(SAME)
        })
    }

    /// When `wait` has passed since the store answered, by our clock: as near as the quickest answer tells.
    fn local(&self, lease: Lease, wait: Duration, asked: Instant, now: Instant) -> Instant {
        let answered = Duration::from_micros(lease.now.0);
        let at = answered.saturating_add(wait);
        let shows = self.clock.shows(now).unwrap_or(answered);
        let local = match at.checked_sub(shows) {
            Some(left) => later(now, left),
            None => earlier(now, shows.saturating_sub(at)),
        };
        local.max(later(asked, wait))
    }
}
