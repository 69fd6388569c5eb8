use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    mem,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::limit::{
    fleet::ledger::Ledger,
    store::{LeaseRequest, Pause, Seen, StoreTime, Turn},
};

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
/// Full minutes by the clock of the server, which is the store's.
const NOW: u64 = 1_000 * MINUTE;
const N: u32 = 1_000;
const STEP: u64 = 60_262;

/// What is told at `now` of the window that goes on then.
fn seen(remaining: u32, now: u64) -> WindowSeen {
    let end = (now / MINUTE + 1) * MINUTE;
    WindowSeen {
        reset: Duration::from_micros(end),
        length: Duration::from_secs(60),
        remaining,
        sent: StoreTime(now - 100_000),
        ends: Duration::from_micros(end - now),
        proved: true,
    }
}

/// One that was proved, and in which nothing was granted.
fn unused() -> (Window, u64) {
    let mut window = Window::default();
    let before = NOW - 5 * SECOND;
    window.told(seen(N - 1, before), STEP, before);
    window.look(NOW);
    window.told(seen(N - 1, NOW), STEP, NOW);
    assert_eq!(window.goes_on, NOW + MINUTE - 6_100_000 - 12_000);
    let now = NOW + 30 * SECOND;
    window.look(now);
    window.told(seen(N - 1, now), STEP, now);
    (window, now)
}

#[test]
fn what_the_even_pace_cannot_use_any_more_may_leave_at_once() {
    let (mut window, now) = unused();
    // 497 steps are left, and a fiftieth of that and three more are kept.
    assert_eq!(window.at_once(now, STEP, now), 999 - 497 - 9 - 3);
    let ahead = now + 10 * STEP;
    assert_eq!(window.at_once(ahead, STEP, now), 999 - 487 - 9 - 3);
    window.grant(400);
    assert_eq!(window.at_once(now, STEP, now), 90);
    let last = window.goes_on - ARRIVES_WITHIN;
    assert!(window.at_once(last, STEP, last) > 450);
    assert_eq!(window.at_once(last, STEP, last + 1), 0);
}

#[test]
fn nothing_does_before_the_proof_nor_before_all_that_was_granted_is_known() {
    let mut window = Window::default();
    let unproved = WindowSeen {
        proved: false,
        ..seen(N, NOW)
    };
    window.told(unproved, STEP, NOW);
    assert_eq!(window.reset, 0);
    window.told(seen(N, NOW), STEP, NOW);
    window.goes_on = NOW + MINUTE;
    let now = NOW + 3 * IN_FLIGHT;
    window.look(now - 1);
    window.told(seen(N, now - 1), STEP, now - 1);
    assert_eq!(window.left, 0);
    window.look(now);
    window.told(seen(N, now), STEP, now);
    assert!(window.at_once(now, STEP, now) > 0);
    window.forgot(now);
    window.told(seen(N, now), STEP, now);
    assert_eq!(window.at_once(now, STEP, now), 0);
}

/// So what a process that is gone had counts until then.
#[test]
fn what_was_granted_lately_may_still_come_to_the_server() {
    let (mut window, start) = unused();
    window.grant(300);
    let mut left = Vec::new();
    for at in [start, start + 9 * SECOND, start + 25 * SECOND] {
        window.look(at);
        window.told(seen(N - 1, at), STEP, at);
        left.push(window.left);
    }
    assert_eq!(left, [699, 699, 999]);

    let next = NOW + MINUTE + SECOND;
    window.grant(200);
    window.look(next);
    window.told(seen(N - 5, next), STEP, next);
    assert_eq!(window.left, 795);
    let late = WindowSeen {
        sent: StoreTime(next),
        ..seen(N - 5, next + MINUTE)
    };
    window.look(next + MINUTE);
    window.told(late, STEP, next + MINUTE);
    assert_eq!(window.left, 0, "what was granted since is forgotten");
}

#[test]
fn the_last_window_tells_when_the_next_one_ends() {
    let (mut window, _) = unused();
    let now = NOW + MINUTE + 40 * SECOND;
    window.look(now);
    let vague = WindowSeen {
        ends: Duration::from_secs(60),
        ..seen(N, now)
    };
    window.told(vague, STEP, now);
    // Names are whole seconds, and clocks differ.
    assert_eq!(window.end, NOW + 2 * MINUTE + SECOND + 12_000);
    window.told(seen(N, now), STEP, now);
    assert_eq!(window.end, NOW + 2 * MINUTE);
}

#[test]
fn a_server_that_contradicts_it_is_not_trusted_for_five_minutes() {
    let (trusted, now) = unused();
    let told = |told: WindowSeen, at| {
        let mut window = trusted;
        window.look(at);
        window.told(told, STEP, at);
        window
    };
    let earlier = |by| WindowSeen {
        reset: seen(N, now).reset - Duration::from_secs(by),
        ..seen(0, now)
    };
    assert_eq!(told(earlier(2), now).left, trusted.left, "it came late");
    let next = now + MINUTE;
    let whole = |by| WindowSeen {
        reset: seen(N, next).reset - Duration::from_secs(by),
        ..seen(N, next)
    };
    assert!(told(whole(2), next).reset > 0);
    let others = seen(N - 2, now);
    for mut window in [
        told(earlier(1), now),
        told(whole(3), next),
        told(others, now),
    ] {
        assert_eq!(window.reset, 0);
        let end = now + DOUBTED;
        window.told(seen(N, end - 1), STEP, end - 1);
        assert_eq!(window.reset, 0);
        window.told(seen(N, end + MINUTE), STEP, end + MINUTE);
        assert!(window.reset > 0);
    }
    let mut set_back = trusted;
    set_back.look(NOW - 1);
    assert_eq!(set_back.reset, 0);
}

/// A call that was given up may be carried out half a minute later, when the network is back. Its Remaining was taken for
/// new, and what others got meanwhile for no part of it.
#[test]
fn a_report_that_comes_late_is_as_old_as_it_is() {
    let (mut window, start) = unused();
    let report = seen(N - 1, start);
    let left = window.left;
    let mut now = start;
    for _ in 0..10 {
        now += 2 * SECOND;
        window.look(now);
        window.grant(40);
    }
    let expected = (left - 400, window.goes_on);
    window.told(report, STEP, now);
    assert_eq!((window.left, window.goes_on), expected);
    now += 5 * SECOND;
    window.look(now);
    window.told(report, STEP, now);
    assert_eq!((window.left, window.goes_on), expected);
}

/// Who had a smaller plan took for left what the pace of the others was to use.
#[test]
fn whoever_has_another_plan_gets_nothing_at_once() {
    let (mut window, now) = unused();
    assert_eq!(window.at_once(now, 2 * STEP, now), 0);
    assert!(window.at_once(now, STEP, now) > 0);
    window.told(seen(N - 1, now), 2 * STEP, now);
    assert_eq!(window.reset, 0, "the server has another limit now");
}

fn lease_request(process: u64, wanted: u32) -> LeaseRequest {
    LeaseRequest {
        process,
        wanted,
        max_wait: Duration::from_secs(1),
        interval: Duration::from_micros(STEP),
        ..LeaseRequest::default()
    }
}

#[test]
fn a_pause_a_doubt_and_an_outage_end_it() {
    let usual = lease_request(1, 1);
    let doubts = LeaseRequest {
        doubts: true,
        ..usual
    };
    let hold = LeaseRequest {
        hold: Duration::from_secs(1),
        ..usual
    };
    for (ask, paused, proved) in [
        (usual, false, true),
        (usual, true, false),
        (doubts, false, false),
        (hold, false, false),
    ] {
        let mut ledger = Ledger::default();
        let proof = LeaseRequest {
            window: Some(seen(N, NOW)),
            ..usual
        };
        assert!(ledger.lease(proof, NOW).windows);
        if paused {
            ledger.pause(Pause::default(), NOW);
        }
        assert_eq!(ledger.lease(ask, NOW).windows, proved);
    }
}

/// Requests of thirty processes, and the server that counts them.
#[derive(Default)]
struct Fleet {
    ledger: Ledger,
    seen: Seen,
    turns: BTreeMap<u64, Turn>,
    /// When each comes to the server, and left.
    underway: BinaryHeap<Reverse<(u64, u64)>>,
    counts: BTreeMap<u64, u32>,
    /// When an answer comes, when its request left, and its window and Remaining.
    answers: Vec<(u64, u64, u64, u32)>,
    /// Calls that were given up, and when the store gets them.
    given_up: Vec<(u64, LeaseRequest)>,
    at_once: u32,
}

impl Fleet {
    fn arrive(&mut self, now: u64, random: &mut SmallRng) {
        while let Some(&Reverse((at, sent))) = self.underway.peek() {
            if at > now {
                return;
            }
            self.underway.pop();
            let count = self.counts.entry(at / MINUTE).or_default();
            *count += 1;
            let back = random.random_range(0..240_000);
            let remaining = N.saturating_sub(*count);
            self.answers.push((at + back, sent, at / MINUTE, remaining));
        }
    }

    /// The newest that came, of those that were not told yet.
    fn news(&mut self, now: u64) -> Option<WindowSeen> {
        let answers = mem::take(&mut self.answers);
        let (come, later): (Vec<_>, _) = answers.into_iter().partition(|one| one.0 <= now);
        self.answers = later;
        let (_, sent, window, remaining) = come.into_iter().max_by_key(|one| (one.2, one.1))?;
        let end = (window + 1) * MINUTE;
        Some(WindowSeen {
            sent: StoreTime(sent),
            ends: Duration::from_micros(end.saturating_sub(now)),
            ..seen(remaining, end - 1)
        })
    }

    fn ask(&mut self, process: u64, wanted: u32, now: u64, random: &mut SmallRng) {
        self.arrive(now, random);
        let given_up = mem::take(&mut self.given_up);
        let (come, later): (Vec<_>, _) = given_up.into_iter().partition(|one| one.0 <= now);
        self.given_up = later;
        for (_, ask) in come {
            self.ledger.lease(ask, now);
        }
        // A third of the processes have half the plan, and what the server says is none of theirs.
        let is_slow = process % 3 == 0;
        let step = if is_slow { 2 * STEP } else { STEP };
        let window = if !is_slow && random.random_bool(0.5) {
            self.news(now)
        } else {
            None
        };
        let ask = LeaseRequest {
            interval: Duration::from_micros(step),
            turn: self.turns.remove(&process),
            seen: self.seen,
            window,
            ..lease_request(process, wanted)
        };
        if random.random_bool(0.05) {
            let comes = now + random.random_range(0..50 * SECOND);
            self.given_up.push((comes, ask));
            return;
        }
        let lease = self.ledger.lease(ask, now);
        self.seen = self.seen.max(lease.seen);
        if let Some(turn) = lease.turn {
            self.turns.insert(process, turn);
        }
        let each = if lease.at_once { 0 } else { step };
        let begins = now + micros(lease.wait);
        for token in 0..u64::from(lease.granted) {
            let sent = begins + token * each;
            let arrives = sent + random.random_range(0..240_000);
            self.underway.push(Reverse((arrives, sent)));
        }
        if lease.at_once {
            self.at_once += lease.granted;
        }
    }
}

/// Whatever was used at once, and whatever the store forgets: the pace goes on, and the window has room for it.
#[test]
fn no_window_is_ever_overrun() {
    let mut at_once = 0;
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut fleet = Fleet::default();
        let mut now = NOW;
        while now < NOW + 12 * MINUTE {
            now += random.random_range(1..20) * SECOND;
            if random.random_bool(0.02) {
                fleet.ledger = Ledger::default();
            }
            let calls = if random.random_bool(0.1) { 900 } else { 6 };
            for _ in 0..calls {
                now += random.random_range(0..200_000);
                let process = random.random_range(0..30);
                fleet.ask(process, random.random_range(1..150), now, &mut random);
            }
        }
        fleet.arrive(now + MINUTE, &mut random);
        let most = fleet.counts.values().max();
        assert!(most <= Some(&N), "{most:?} in a window, seed {seed}");
        at_once += fleet.at_once;
    }
    assert!(at_once > 10_000, "only {at_once} left at once");
}
