//! How long to wait before the next attempt. Pure, given the hint and a random number.

use std::time::Duration;

use crate::headers::retry_after::Hint;

/// The delays between attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// Without a hint the first delay is at most this.
    pub(super) base: Duration,
    /// Without a hint no delay is longer than this.
    pub(super) cap: Duration,
    /// A hint longer than this is not waited for.
    pub(super) max_hint: Duration,
    pub(super) jitter: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(20),
            max_hint: Duration::from_secs(120),
            jitter: true,
        }
    }
}

impl Backoff {
    /// The delay after the `n`th retry, counted from 0; `random` is in `[0, 1)` and fresh for each call. `None` where the
    /// server asks for longer than anyone waits.
    ///
    /// With a hint: no earlier than it, and up to a fifth later (250 ms to 5 s), so that those who were refused together
    /// don't come back together. Without one: full jitter below a bound that doubles.
    pub(super) fn delay(
        &self,
        hint: Option<Hint>,
        refused: bool,
        n: u32,
        random: f64,
    ) -> Option<Duration> {
        let Some(hint) = hint else {
            let base = if refused {
                self.base.max(REFUSED_BASE)
            } else {
                self.base
            };
            let bound = base.saturating_mul(2_u32.saturating_pow(n)).min(self.cap);
            return Some(if self.jitter {
                bound.mul_f64(random)
            } else {
                bound
            });
        };
        if hint.wait > self.max_hint {
            return None;
        }
        if !self.jitter {
            return Some(hint.wait);
        }
        let spread = (hint.wait / 5).clamp(MIN_SPREAD, MAX_SPREAD);
        Some(hint.wait.saturating_add(spread.mul_f64(random)))
    }
}

/// A server that refuses is busy, not broken: no use in asking again at once.
const REFUSED_BASE: Duration = Duration::from_secs(1);
const MIN_SPREAD: Duration = Duration::from_millis(250);
const MAX_SPREAD: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::headers::retry_after::HintSource;

    /// The largest number that a draw can give.
    const ALMOST_ONE: f64 = 1.0 - f64::EPSILON;

    fn hint(millis: u64) -> Option<Hint> {
        Some(Hint {
            wait: Duration::from_millis(millis),
            source: HintSource::Seconds,
        })
    }

    #[test]
    fn a_hint_is_a_floor_with_a_fifth_above_it() {
        let backoff = Backoff::default();
        for (wait, latest) in [(1_000, 1_250_u128), (12_000, 14_400), (120_000, 125_000)] {
            let earliest = backoff.delay(hint(wait), true, 0, 0.0).unwrap();
            assert_eq!(earliest, Duration::from_millis(wait));
            let last = backoff.delay(hint(wait), true, 0, ALMOST_ONE).unwrap();
            assert_eq!(last.as_millis(), latest, "{wait}");
        }
        assert_eq!(backoff.delay(hint(120_001), true, 0, 0.0), None);
    }

    #[test]
    fn without_a_hint_the_bound_doubles_up_to_the_cap() {
        let bounds = |refused| {
            (0..10).map(move |n| {
                let delay = Backoff::default().delay(None, refused, n, ALMOST_ONE);
                delay.unwrap().as_secs_f64()
            })
        };
        let ambiguous = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0];
        let refused = [1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0, 20.0, 20.0, 20.0];
        for (bound, expected) in bounds(false)
            .zip(ambiguous)
            .chain(bounds(true).zip(refused))
        {
            assert!((bound - expected).abs() < 1e-6, "{bound} is not {expected}");
        }
        assert_eq!(
            Backoff::default().delay(None, true, 0, 0.0),
            Some(Duration::ZERO)
        );
    }

    proptest! {
        #[test]
        fn no_delay_is_below_its_hint_or_above_the_cap(
            wait in 1_u64..200_000,
            refused: bool,
            n: u32,
            random in 0.0..1.0,
        ) {
            let backoff = Backoff::default();
            let own = backoff.delay(None, refused, n, random).unwrap();
            prop_assert!(own <= backoff.cap);
            match backoff.delay(hint(wait), refused, n, random) {
                Some(delay) => prop_assert!(delay >= Duration::from_millis(wait)),
                None => prop_assert!(wait > 120_000),
            }
        }
    }
}
