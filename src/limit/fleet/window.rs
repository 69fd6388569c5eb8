//! What a store knows of the server's windows: how much of one all processes together may use at once. Pure, given the
//! store's time.
#![warn(clippy::arithmetic_side_effects)]

use super::ledger::{micros, millis};
use crate::limit::store::WindowSeen;

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    reason = "a test may panic, and reads better so"
)]
mod tests;

/// The server's window, where it was proved to count in windows: what is left of it, and what may still come to it.
///
/// Tokens keep their even pace. What that could not use any more before the window's end may leave at once, so that no
/// window is ever overrun, whatever becomes of this record: without it the pace goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    /// Its name, in ms by the server's clock; 0 where none was proved.
    pub(super) reset: u64,
    /// It surely goes on until then: later than that, by a second for how names are rounded, a request left that was counted in
    /// it, or in one before.
    goes_on: u64,
    /// It has surely ended by then.
    end: u64,
    /// As many requests are surely left of it, beyond all that were granted.
    left: u64,
    /// Between two tokens of whoever proved it: so fast the pace goes on. Who has another plan reckons with another one, and
    /// gets nothing at once.
    step: u64,
    /// Nothing leaves at once before this.
    banned_until: u64,
    /// When the count of what is granted now began.
    slot: u64,
    /// What was granted since then, and in the two slots before.
    granted: [u64; 3],
}

impl Window {
    /// Brings it up to `now`.
    pub(super) fn look(&mut self, now: u64) {
        self.banned_until = self.banned_until.min(now.saturating_add(DOUBTED));
        if self.reset == 0 {
            return;
        }
        let Some(since) = now.checked_sub(self.slot) else {
            // The clock was set back.
            *self = Self::default();
            return;
        };
        let passed = since.checked_div(IN_FLIGHT).unwrap_or(0);
        self.slot = self.slot.saturating_add(passed.saturating_mul(IN_FLIGHT));
        for _ in 0..passed.min(3) {
            let [last, before, _] = self.granted;
            self.granted = [0, last, before];
        }
    }

    /// The server may not count in windows, or others use the key.
    pub(super) fn doubt(&mut self, now: u64) {
        if self.reset > 0 {
            *self = Self {
                banned_until: now.saturating_add(DOUBTED),
                ..Self::default()
            };
        }
    }

    /// The store forgot what it granted last.
    pub(super) fn forgot(&mut self, now: u64) {
        if self.reset > 0 {
            self.left = 0;
            self.wait_for_counts(now);
        }
    }

    /// What was granted before is not known: until all of it has surely come to the server.
    fn wait_for_counts(&mut self, now: u64) {
        let known = now.saturating_add(IN_FLIGHT.saturating_mul(3));
        self.banned_until = self.banned_until.max(known);
    }

    /// A process whose tokens are a `step` apart tells what the server said.
    pub(super) fn told(&mut self, seen: WindowSeen, step: u64, now: u64) {
        let (reset, end) = (millis(seen.reset), now.saturating_add(micros(seen.ends)));
        let sent = seen.sent.0.min(now);
        let counted = sent.saturating_sub(RESOLUTION.saturating_mul(1_000));
        if self.reset == 0 {
            if seen.proved && now >= self.banned_until {
                *self = Self {
                    reset,
                    goes_on: counted,
                    end,
                    step,
                    slot: now,
                    ..Self::default()
                };
                self.wait_for_counts(now);
            }
            return;
        }
        if step != self.step {
            // The plan changed, or how long windows are.
            self.doubt(now);
            return;
        }
        let remaining = u64::from(seen.remaining);
        let left = self
            .granted_since(sent.saturating_sub(IN_FLIGHT))
            .filter(|_| now >= self.banned_until)
            .map_or(0, |granted| remaining.saturating_sub(granted));
        if reset > self.reset.saturating_add(RESOLUTION) {
            let apart = reset.saturating_sub(self.reset);
            let nearly = millis(seen.length).saturating_sub(RESOLUTION.saturating_mul(2));
            if apart < nearly {
                self.doubt(now);
                return;
            }
            // By the last window, and clocks that differ by up to 200 parts in a million.
            let apart = apart.saturating_mul(1_000);
            let goes_on = self.goes_on.saturating_add(apart);
            self.goes_on = goes_on.saturating_sub(apart / 5_000).max(counted);
            let rounded = RESOLUTION
                .saturating_mul(1_000)
                .saturating_add(apart / 5_000);
            let by_then = self.end.saturating_add(apart).saturating_add(rounded);
            (self.reset, self.end, self.left) = (reset, end.min(by_then), left);
        } else if reset.saturating_add(RESOLUTION) >= self.reset {
            self.goes_on = self.goes_on.max(counted);
            self.end = self.end.min(end);
            if remaining < self.left {
                // More was counted than was granted.
                self.doubt(now);
                return;
            }
            self.left = self.left.max(left);
        } else {
            let apart = self.reset.saturating_sub(reset).saturating_mul(1_000);
            let goes_on = counted.saturating_add(apart).saturating_sub(apart / 5_000);
            self.goes_on = self.goes_on.max(goes_on);
        }
        self.goes_on = self.goes_on.min(self.end);
    }

    /// What was granted after `since`, and some of what was before; `None` where that is not known any more.
    fn granted_since(&self, since: u64) -> Option<u64> {
        let (mut sum, mut begins) = (0_u64, self.slot);
        for granted in self.granted {
            sum = sum.saturating_add(granted);
            if since >= begins {
                return Some(sum);
            }
            begins = begins.saturating_sub(IN_FLIGHT);
        }
        None
    }

    /// How many may leave at once, where the even pace goes on at `tat`.
    pub(super) fn at_once(&self, tat: u64, step: u64, now: u64) -> u64 {
        // What would be counted in the next window is nothing that this one has room for.
        let arrives = now.saturating_add(ARRIVES_WITHIN);
        let is_known = self.reset > 0 && self.step == step && now >= self.banned_until;
        if !is_known || arrives > self.goes_on {
            return 0;
        }
        let paced = self.end.saturating_sub(tat.max(now)).checked_div(step);
        let paced = paced.unwrap_or(u64::MAX);
        let kept = paced.saturating_add(paced / 50).saturating_add(3);
        self.left.saturating_sub(kept)
    }

    pub(super) fn grant(&mut self, tokens: u64) {
        if self.reset > 0 {
            self.left = self.left.saturating_sub(tokens);
            let [now, last, before] = self.granted;
            self.granted = [now.saturating_add(tokens), last, before];
        }
    }
}

/// For so long after it was granted a request may still be on its way to the server, in µs: also one whose process is gone.
const IN_FLIGHT: u64 = 10_000_000;
/// Nearly all that leaves at once has come to the server by then, in µs. What has not is as late as it would be if it were
/// paced.
const ARRIVES_WITHIN: u64 = 1_000_000;
/// For how long windows are not trusted after they were doubted, in µs.
const DOUBTED: u64 = 300_000_000;
/// Servers name whole seconds, in ms.
const RESOLUTION: u64 = 1_000;
