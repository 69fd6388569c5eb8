//! What can go wrong, on demand or by chance.

use std::{collections::VecDeque, time::Duration};

use {
    http::{HeaderMap, StatusCode},
    rand::{RngExt, SeedableRng, rngs::StdRng},
};

/// What one attempt suffers.
///
/// `Status`, `RateLimited` and `Respond` come before the key and the rate limit are looked at, and cost no request of the
/// limit. `Delay`, `CutAfter` and `TruncatedBody` spoil whatever answer the attempt would have got.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Answers with this status and an error body of a fitting code; nothing is done.
    Status(StatusCode),
    /// Answers 429 with `Retry-After` in whole seconds, rounded up, and the rate headers; `None` gives no hint at all.
    RateLimited {
        /// How long to wait.
        retry_after: Option<Duration>,
    },
    /// Answers with this status and exactly these headers, however strange; nothing is done.
    Respond(StatusCode, HeaderMap),
    /// Does the work at once and answers this much later.
    Delay(Duration),
    /// Cuts the connection; nothing is done.
    CutBefore,
    /// Does the work, then cuts the connection without an answer.
    CutAfter,
    /// Does the work, sends the head and half of the body, then cuts the connection.
    TruncatedBody,
    /// Never answers; nothing is done.
    Hang,
}

/// Chooses each attempt's fault.
#[derive(Debug)]
pub(super) struct Faults {
    queue: VecDeque<Fault>,
    rates: Vec<(Fault, f64)>,
    random: StdRng,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            queue: VecDeque::new(),
            rates: Vec::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    pub(super) fn seed(&mut self, seed: u64) {
        self.random = StdRng::seed_from_u64(seed);
    }

    pub(super) fn rate(&mut self, fault: Fault, probability: f64) {
        self.rates.push((fault, probability));
    }

    pub(super) fn queue(&mut self, fault: Fault) {
        self.queue.push_back(fault);
    }

    pub(super) fn draw(&mut self) -> Option<Fault> {
        if let Some(fault) = self.queue.pop_front() {
            return Some(fault);
        }
        let random = &mut self.random;
        let hit = |rate: &&(Fault, f64)| random.random::<f64>() < rate.1;
        self.rates.iter().find(hit).map(|(fault, _)| fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queued_faults_come_first_and_in_order() {
        let mut faults = Faults::new(1);
        faults.rate(Fault::Hang, 1.0);
        faults.queue(Fault::CutBefore);
        faults.queue(Fault::CutAfter);
        let drawn: Vec<_> = (0..3).filter_map(|_| faults.draw()).collect();
        assert_eq!(drawn, [Fault::CutBefore, Fault::CutAfter, Fault::Hang]);
    }

    #[test]
    fn what_is_no_probability_is_never_or_always() {
        for (probability, hits) in [(f64::NAN, 0), (-1.0, 0), (0.0, 0), (1.0, 100), (7.0, 100)] {
            let mut faults = Faults::new(1);
            faults.rate(Fault::Hang, probability);
            let drawn = (0..100).filter(|_| faults.draw().is_some()).count();
            assert_eq!(drawn, hits, "{probability}");
        }
    }

    #[test]
    fn a_later_rate_is_drawn_where_no_earlier_one_hit() {
        let mut faults = Faults::new(1);
        faults.rate(Fault::CutBefore, 0.5);
        faults.rate(Fault::CutAfter, 0.5);
        let mut drawn = [0, 0, 0];
        for _ in 0..10_000 {
            match faults.draw() {
                Some(Fault::CutBefore) => drawn[0] += 1,
                Some(_) => drawn[1] += 1,
                None => drawn[2] += 1,
            }
        }
        for (drawn, expected) in drawn.into_iter().zip([5_000_i32, 2_500, 2_500]) {
            assert!((drawn - expected).abs() < 250, "{drawn} of {expected}");
        }
    }
}
