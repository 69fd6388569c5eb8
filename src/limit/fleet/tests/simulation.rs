//! Processes and their store, in steps of a millisecond and without a runtime.

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::limit::fleet::ledger::Ledger;

/// A call that is under way, and how it ends.
#[derive(Clone, Copy, Debug)]
struct Call {
    errand: Errand,
    asked: Instant,
    /// When it is carried out; `None` once it was, or if it never is.
    arrives: Option<Instant>,
    ends: Instant,
    answer: Option<Lease>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Failed,
    TimedOut,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    processes: u64,
    seed: u64,
    /// The longest way to the store, in ms.
    way: u64,
    /// One call in so many fails, if any does.
    fails: Option<u32>,
    /// From when until when no call is answered, in ms.
    away: Option<(u64, u64)>,
    /// When the store loses all, in ms.
    wiped: Option<u64>,
    saturated: bool,
    outage: Outage,
}

/// Runs processes and their store in steps of a millisecond. Returns when requests left, by process.
fn run(case: Case, length: u64) -> Vec<(Duration, u64)> {
    let mut random = SmallRng::seed_from_u64(case.seed);
    let start = Instant::now();
    let mut ledger = Ledger::default();
    let mut processes: Vec<_> = (0..case.processes)
        .map(|number| (fleet(number, case.outage), None::<Call>, 0_u32))
        .collect();
    let mut sent = Vec::new();
    for ms in 0..length {
        let now = start + MS * u32::try_from(ms).unwrap();
        let shown = 1_000_000_000 + ms * 1_000;
        if case.wiped == Some(ms) {
            ledger = Ledger::default();
        }
        let away = case.away.is_some_and(|(from, to)| from <= ms && ms < to);
        for (number, (fleet, call, waiting)) in (0..).zip(&mut processes) {
            if case.saturated {
                *waiting = 30;
            } else if random.random_range(0..400) == 0 {
                *waiting = random.random_range(0..40);
            }
            if let Some(under_way) = call {
                if under_way.arrives.is_some_and(|at| at <= now) {
                    under_way.arrives = None;
                    match under_way.errand {
                        Errand::Lease(ask) => under_way.answer = Some(ledger.lease(ask, shown)),
                        Errand::Pause(pause) => ledger.pause(pause, shown),
                        Errand::GiveBack(unused) => ledger.give_back(unused),
                    }
                }
                if under_way.ends <= now {
                    let Call {
                        errand,
                        asked,
                        answer,
                        fate,
                        ..
                    } = *under_way;
                    *call = None;
                    match (fate, errand, answer) {
                        (Fate::Answered, Errand::Lease(ask), Some(lease)) => {
                            let heard = fleet.leased(ask, lease, asked, now);
                            assert_eq!(heard.paused_until, None);
                        }
                        (Fate::Answered, ..) => drop(fleet.answered(now)),
                        (fate, ..) => drop(fleet.failed(fate == Fate::Failed, now)),
                    }
                }
            }
            while *waiting > 0 {
                match fleet.verdict(now) {
                    Verdict::Now(many) => assert!(many > 0),
                    Verdict::Later(rule, until) => {
                        assert_eq!(rule, Rule::Store);
                        assert!(until.is_none_or(|until| until > now));
                        break;
                    }
                }
                fleet.send(now);
                *waiting -= 1;
                sent.push((now - start, number));
            }
            if call.is_some() {
                continue;
            }
            match fleet.next(demand(*waiting), now) {
                Ok(errand) => {
                    fleet.begin(errand);
                    let mut way = || MS * random.random_range(0..=u32::try_from(case.way).unwrap());
                    let arrives = now + way();
                    let ends = arrives + way();
                    let fails = away
                        || case
                            .fails
                            .is_some_and(|one_in| random.random_ratio(1, one_in));
                    let fate = match (fails, random.random_bool(0.5)) {
                        (false, _) => Fate::Answered,
                        (true, true) => Fate::Failed,
                        (true, false) => Fate::TimedOut,
                    };
                    // It may have been carried out although no answer came.
                    let arrives =
                        (fate == Fate::Answered || random.random_bool(0.5)).then_some(arrives);
                    let ends = if fate == Fate::TimedOut {
                        now + 100 * MS
                    } else {
                        ends
                    };
                    *call = Some(Call {
                        errand,
                        asked: now,
                        arrives,
                        ends,
                        answer: None,
                        fate,
                    });
                }
                Err(at) => assert!(at.is_none_or(|at| at > now), "it looks again and again"),
            }
        }
    }
    sent
}

fn most_in_a_window(sent: &[(Duration, u64)]) -> usize {
    let mut first = 0;
    let count = |(last, &(at, _)): (usize, &(Duration, u64))| {
        while at - sent[first].0 > WINDOW {
            first += 1;
        }
        last + 1 - first
    };
    sent.iter().enumerate().map(count).max().unwrap_or(0)
}

fn cases() -> impl Strategy<Value = Case> {
    let away = prop::option::of((2_000_u64..5_000, 1_000_u64..6_000));
    let fails = prop::option::of(5_u32..40);
    (
        1_u64..7,
        any::<u64>(),
        0_u64..8,
        fails,
        away,
        prop::option::of(1_000_u64..9_000),
        any::<bool>(),
    )
        .prop_map(
            |(processes, seed, way, fails, away, wiped, saturated)| Case {
                processes,
                seed,
                way,
                fails,
                away: away.map(|(from, lasts)| (from, from + lasts)),
                wiped,
                saturated,
                outage: if seed % 3 == 0 {
                    Outage::Wait
                } else {
                    Outage::Share
                },
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However calls fail, whatever the store loses, and however the processes come and go.
    #[test]
    fn all_processes_together_send_no_more_than_the_plan(case in cases()) {
        let sent = run(case, 14_000);
        let most = most_in_a_window(&sent);
        prop_assert!(most <= N as usize, "{most}");
    }
}

/// The store knew one process only, and told it so; then it went away.
#[test]
fn a_store_that_lost_all_does_not_make_one_process_believe_that_it_is_alone() {
    let case = Case {
        processes: 2,
        seed: 4_385_793_157_631_104,
        way: 0,
        fails: None,
        away: Some((2_474, 6_992)),
        wiped: Some(2_231),
        saturated: true,
        outage: Outage::Share,
    };
    assert!(most_in_a_window(&run(case, 14_000)) <= N as usize);
}

#[test]
fn saturated_processes_use_the_whole_plan_in_equal_shares() {
    for processes in [1, 3, 6] {
        let case = Case {
            processes,
            seed: 1,
            way: 5,
            fails: None,
            away: None,
            wiped: None,
            saturated: true,
            outage: Outage::Share,
        };
        let sent = run(case, 22_000);
        let sent: Vec<_> = sent.iter().filter(|(at, _)| at.as_secs() >= 2).collect();
        assert!(sent.len() >= 490, "{} of 500", sent.len());
        for number in 0..processes {
            let share = sent
                .iter()
                .filter(|(_, process)| *process == number)
                .count() as u64;
            assert!(share.abs_diff(500 / processes) <= 50 / processes, "{share}");
        }
    }
}
