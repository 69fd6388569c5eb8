use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const T: Duration = Duration::from_millis(60);
const STEP: u64 = 60_000;
const SECOND: u64 = 1_000_000;
const NOW: u64 = 1_000 * SECOND;

fn ask(process: u64, wanted: u32) -> LeaseRequest {
    LeaseRequest {
        process,
        wanted,
        max_wait: Duration::from_secs(1),
        interval: T,
        ..LeaseRequest::default()
    }
}

fn wait(lease: &Lease) -> u64 {
    u64::try_from(lease.wait.as_micros()).unwrap()
}

#[test]
fn the_first_use_begins_with_one_cell() {
    let mut ledger = Ledger::default();
    for first in [0, STEP, 2 * STEP] {
        let lease = ledger.lease(ask(1, 1), NOW);
        assert_eq!((lease.granted, wait(&lease)), (1, first));
    }
    let idle = NOW + 100 * SECOND;
    assert_eq!(wait(&ledger.lease(ask(1, 1), idle)), 0);
    assert_eq!(wait(&ledger.lease(ask(1, 1), idle)), STEP);
}

#[test]
fn a_lease_is_half_a_second_of_the_rate_divided_by_the_processes() {
    let mut ledger = Ledger::default();
    for process in 1..=4 {
        ledger.lease(ask(process, 0), NOW);
    }
    let granted = [1, 2, 3, 4].map(|process| ledger.lease(ask(process, 50), NOW).granted);
    assert_eq!(granted, [9, 2, 2, 2], "the first half second is free");
}

#[test]
fn whoever_comes_when_all_is_reserved_has_a_turn_in_the_order_of_coming() {
    let mut ledger = Ledger::default();
    let mut first = 0;
    while ledger.lease(ask(first, 1), NOW).granted > 0 {
        first += 1;
    }
    assert_eq!(
        first, 18,
        "a second is reserved ahead, and what is tolerated"
    );
    let mut turns = BTreeMap::new();
    for process in first + 1..first + 100 {
        let lease = ledger.lease(ask(process, 1), NOW);
        turns.insert(NOW + wait(&lease), (process, lease.turn));
    }
    assert_eq!(turns.len(), 99, "no two come back at once");
    let mut last = None;
    for (at, (process, turn)) in turns {
        let back = LeaseRequest {
            turn,
            ..ask(process, 1)
        };
        let lease = ledger.lease(back, at);
        assert_eq!(lease.granted, 1);
        let begins = at + wait(&lease);
        assert_eq!(last.map_or(STEP, |last| begins - last), STEP);
        last = Some(begins);
    }
}

#[test]
fn what_is_left_by_those_who_do_not_come_is_free_for_whoever_asks() {
    let mut ledger = Ledger::default();
    for process in 0..200 {
        ledger.lease(ask(process, 1), NOW);
    }
    let later = NOW + 3 * SECOND;
    let lease = ledger.lease(ask(500, 20), later);
    assert_eq!((lease.granted, wait(&lease)), (9, 0));
    assert_eq!(ledger.lease(ask(501, 20), later).granted, 0);
}

#[test]
fn after_a_pause_one_goes_alone_and_the_order_is_kept() {
    let mut ledger = Ledger::default();
    for process in 0..18 {
        ledger.lease(ask(process, 1), NOW);
    }
    let before = ledger.lease(ask(18, 1), NOW);
    let pause = Pause {
        lasts: Duration::from_secs(12),
        interval: T,
        max_wait: Duration::from_secs(1),
        ..Pause::default()
    };
    ledger.pause(pause, NOW);
    let shorter = Duration::from_secs(3);
    ledger.pause(
        Pause {
            lasts: shorter,
            ..pause
        },
        NOW,
    );
    let after = ledger.lease(ask(19, 1), NOW);
    assert_eq!(after.seen.paused_until, StoreTime(NOW + 12 * SECOND));

    let come = |ledger: &mut Ledger, process, turn, at| {
        let back = LeaseRequest {
            turn,
            ..ask(process, 5)
        };
        ledger.lease(back, at)
    };
    let early = come(&mut ledger, 18, before.turn, NOW + SECOND);
    assert_eq!(early.granted, 0);
    assert!(wait(&early) < wait(&after) - SECOND);
    let end = NOW + 12 * SECOND;
    let probe = come(&mut ledger, 18, early.turn, end - SECOND);
    assert_eq!((probe.granted, wait(&probe)), (1, SECOND));
    let next = come(&mut ledger, 19, after.turn, end - SECOND + 3 * STEP);
    assert_eq!(next.granted, 0);
    assert!(wait(&next) > SECOND, "it comes when the probe was answered");
    let at = end - SECOND + 3 * STEP + wait(&next);
    let next = come(&mut ledger, 19, next.turn, at);
    assert!(next.granted > 0);
    assert!(at + wait(&next) >= end + 3 * SECOND / 2);
}

#[test]
fn a_tail_is_taken_back_if_it_still_is_one() {
    let mut ledger = Ledger::default();
    let lease = ledger.lease(ask(1, 5), NOW);
    let unused = Unused {
        process: 1,
        tokens: 3,
        interval: T,
        tat: lease.seen.tat,
        leaves: false,
    };
    ledger.give_back(unused);
    ledger.give_back(unused);
    let other = ledger.lease(ask(2, 1), NOW);
    assert_eq!((wait(&other), other.processes), (2 * STEP, 2));
    ledger.give_back(Unused {
        leaves: true,
        ..unused
    });
    let other = ledger.lease(ask(2, 1), NOW);
    assert_eq!((wait(&other), other.processes), (3 * STEP, 1));
}

#[test]
fn a_store_that_forgot_is_told_again() {
    let mut ledger = Ledger::default();
    let mut lease = ledger.lease(ask(1, 8), NOW);
    ledger.pause(
        Pause {
            lasts: Duration::from_secs(12),
            interval: T,
            max_wait: Duration::from_secs(1),
            ..Pause::default()
        },
        NOW,
    );
    lease = ledger.lease(ask(1, 0), lease.now.0);
    let mut empty = Ledger::default();
    let told = LeaseRequest {
        seen: lease.seen,
        ..ask(1, 1)
    };
    let again = empty.lease(told, NOW + SECOND);
    assert_eq!((again.granted, again.seen), (0, lease.seen));
}

#[test]
fn a_clock_that_goes_back_stops_nobody_for_long() {
    let mut ledger = Ledger::default();
    ledger.lease(ask(1, 8), NOW + 5_000 * SECOND);
    let lease = ledger.lease(ask(1, 1), NOW);
    assert!(lease.seen.tat.0 < NOW + 3 * SECOND);
}

/// What happens, each some time after what was before.
#[derive(Clone, Debug)]
enum Step {
    Ask { process: u64, wanted: u32 },
    Pause(u64),
    GiveBack { process: u64, tokens: u32 },
    Leave(u64),
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        20 => (0_u64..30, 0_u32..12).prop_map(|(process, wanted)| Step::Ask { process, wanted }),
        1 => (0_u64..5 * SECOND).prop_map(Step::Pause),
        3 => (0_u64..30, 1_u32..9).prop_map(|(process, tokens)| Step::GiveBack { process, tokens }),
        1 => (0_u64..30).prop_map(Step::Leave),
        1 => Just(Step::Forget),
    ];
    let gap = prop_oneof![8 => 0_u64..50_000, 1 => 0..3 * SECOND];
    prop::collection::vec((gap, step), 1..400)
}

proptest! {
    /// No two tokens are less than an interval apart, none begins before a pause has ended, and none too far ahead.
    #[test]
    fn tokens_are_an_interval_apart(steps in steps()) {
        let mut ledger = Ledger::default();
        let (mut now, mut paused) = (NOW, 0);
        let mut tokens = Vec::new();
        let mut held = BTreeMap::<u64, Lease>::new();
        let mut seen = Seen::default();
        for (gap, step) in steps {
            now += gap;
            match step {
                Step::Ask { process, wanted } => {
                    let turn = held.get(&process).and_then(|lease| lease.turn);
                    let asked = LeaseRequest { turn, seen, ..ask(process, wanted) };
                    let lease = ledger.lease(asked, now);
                    seen = seen.max(lease.seen);
                    prop_assert!(lease.granted <= wanted);
                    let first = now + wait(&lease);
                    prop_assert!(lease.granted == 0 || first >= paused);
                    prop_assert!(lease.granted == 0 || first <= now + SECOND + TOLERANCE);
                    tokens.extend((0..u64::from(lease.granted)).map(|n| first + n * STEP));
                    if lease.granted > 0 || lease.turn.is_some() {
                        held.insert(process, lease);
                    }
                }
                Step::Pause(lasts) => {
                    paused = paused.max(now + lasts);
                    let lasts = Duration::from_micros(lasts);
                    ledger.pause(Pause { lasts, interval: T, max_wait: Duration::from_secs(1), seen, ..Pause::default() }, now);
                    // Whoever paused is told so with its next answer, and tells it again if that is lost.
                    let lease = ledger.lease(ask(99, 0), now);
                    seen = seen.max(lease.seen);
                }
                Step::GiveBack { process, tokens: many } => {
                    let Some(lease) = held.remove(&process).filter(|lease| lease.granted > 0) else { continue };
                    let many = many.min(lease.granted);
                    let is_tail = ledger.tat == lease.seen.tat.0;
                    let unused = Unused { process, tokens: many, interval: T, tat: lease.seen.tat, leaves: false };
                    ledger.give_back(unused);
                    if is_tail {
                        tokens.truncate(tokens.len() - many as usize);
                        seen.tat = seen.tat.min(StoreTime(ledger.tat));
                    }
                }
                Step::Leave(process) => ledger.give_back(Unused { process, leaves: true, ..Unused::default() }),
                Step::Forget => ledger = Ledger::default(),
            }
        }
        for pair in tokens.windows(2) {
            prop_assert!(pair[1] - pair[0] >= STEP, "{pair:?}");
        }
    }
}
