use std::num::NonZeroU32;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::{ledger::Ledger, *};

const MS: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_secs(4);
const N: u32 = 100;

fn fleet(process: u64, outage: Outage) -> Fleet {
    Fleet::new(process, outage, N, Span::new(WINDOW))
}

fn demand(tokens: u32) -> Demand {
    Demand {
        tokens,
        until: None,
    }
}

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

fn lease(granted: u32, wait: Duration, now: u64) -> Lease {
    let step = u64::from(granted) * 40_000;
    Lease {
        granted,
        wait,
        turn: None,
        now: StoreTime(now),
        seen: Seen {
            tat: StoreTime(now + u64::try_from(wait.as_micros()).unwrap() + step),
            ..Seen::default()
        },
        processes: 4,
    }
}

fn asked(fleet: &Fleet, tokens: u32, now: Instant) -> LeaseRequest {
    let Ok(Errand::Lease(ask)) = fleet.next(demand(tokens), now) else {
        unreachable!("it has no token");
    };
    ask
}

#[test]
fn a_token_is_used_soon_after_its_begin_or_lost() {
    let now = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    assert_eq!(fleet.verdict(now), Verdict::Later(Rule::Store, None));
    let ask = asked(&fleet, 9, now);
    assert_eq!(
        (ask.wanted, ask.interval),
        (9, Duration::from_micros(40_509))
    );
    let wait = 20 * MS;
    assert_eq!(
        fleet.leased(ask, lease(2, wait, 5_000_000), now, now),
        Heard::default()
    );
    assert_eq!(
        fleet.verdict(now),
        Verdict::Later(Rule::Store, Some(now + wait))
    );
    assert_eq!(fleet.verdict(now + wait), Verdict::Now(1));
    let within = use_within(Span::new(WINDOW));
    assert_eq!(within.as_micros(), 37_507);
    assert_eq!(fleet.verdict(now + wait + within), Verdict::Now(1));
    let second = now + wait + ask.interval;
    let between = now + wait + within + Duration::from_nanos(1);
    assert_eq!(
        fleet.verdict(between),
        Verdict::Later(Rule::Store, Some(second))
    );
    fleet.send(second);
    assert_eq!(fleet.tokens(second), 0);
}

#[test]
fn one_lease_is_ahead_at_the_most() {
    let now = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    let ask = asked(&fleet, 30, now);
    let _ = fleet.leased(ask, lease(5, 100 * MS, 5_000_000), now, now);
    let begins = now + 100 * MS;
    assert_eq!(fleet.next(demand(30), now), Err(Some(begins)));
    assert_eq!(asked(&fleet, 30, begins).wanted, 25);
    let shows = Some(now + PRESENCE / 3);
    assert_eq!(fleet.next(demand(5), now), Err(shows), "it is enough");
}

#[test]
fn what_nobody_has_use_for_is_given_back_if_nothing_was_reserved_after_it() {
    let now = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    let ask = asked(&fleet, 5, now);
    let _ = fleet.leased(ask, lease(5, 100 * MS, 5_000_000), now, now);
    let Ok(Errand::GiveBack(unused)) = fleet.next(demand(2), now) else {
        unreachable!("there are three too many");
    };
    assert_eq!(
        (unused.tokens, unused.tat, unused.leaves),
        (3, fleet.seen.tat, false)
    );
    fleet.begin(Errand::GiveBack(unused));
    assert_eq!(fleet.tokens(now), 2);
    assert!(matches!(fleet.next(demand(2), now), Err(Some(_))));
    assert_eq!(
        (fleet.leave(now).tokens, fleet.leave(now).leaves),
        (2, true)
    );

    let other = Lease {
        granted: 0,
        ..lease(0, 300 * MS, 5_000_000)
    };
    let _ = fleet.leased(asked(&fleet, 9, now + 100 * MS), other, now, now);
    assert_eq!(
        fleet.next(demand(0), now).ok(),
        None,
        "others have theirs after it"
    );
}

#[test]
fn a_pause_that_another_began_is_heard_of_and_ones_own_is_told() {
    let now = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    let ask = asked(&fleet, 5, now);
    let mut paused = lease(5, 10 * MS, 5_000_000);
    let _ = fleet.leased(ask, paused, now, now);
    paused.granted = 0;
    paused.seen.paused_until = StoreTime(8_000_000);
    let heard = fleet.leased(ask, paused, now, now);
    let until = now + Duration::from_secs(3);
    assert_eq!(heard.paused_until, Some(until));
    assert_eq!(fleet.tokens(now), 0);

    fleet.refused(until + 9 * MS);
    let Ok(Errand::Pause(pause)) = fleet.next(demand(0), now) else {
        unreachable!("the store is to be told");
    };
    assert_eq!(pause.lasts, Duration::from_secs(3) + 9 * MS);
    assert_eq!(fleet.paused(pause, now, now + MS), None);
    assert!(!matches!(fleet.next(demand(0), now), Ok(Errand::Pause(_))));
}

#[test]
fn an_outage_is_tried_again_and_again_and_told_once() {
    let start = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    let ask = asked(&fleet, 5, start);
    let _ = fleet.leased(ask, lease(1, Duration::ZERO, 5_000_000), start, start);
    fleet.send(start);
    let mut now = start;
    let mut waits = Vec::new();
    assert!(fleet.failed(false, now));
    for _ in 0..6 {
        let Err(Some(again)) = fleet.next(demand(5), now) else {
            unreachable!("it waits before it tries again");
        };
        waits.push((again - now).as_millis());
        now = again;
        let ask = asked(&fleet, 5, now);
        assert_eq!((ask.wanted, ask.hold), (0, Duration::ZERO));
        assert!(!fleet.failed(false, now));
    }
    assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);

    // A quarter of the plan, from when all that was reserved has begun.
    let first = start + AHEAD + SAME + step(N / 4, Span::new(WINDOW));
    assert_eq!(
        fleet.verdict(start),
        Verdict::Later(Rule::Store, Some(first))
    );
    fleet.send(first);
    let second = first + step(N / 4, Span::new(WINDOW));
    assert_eq!(
        fleet.verdict(first),
        Verdict::Later(Rule::Store, Some(second))
    );
    assert!(
        asked(&fleet, 5, now + AHEAD).hold > AHEAD,
        "others may not know yet"
    );

    let heard = fleet.leased(ask, lease(0, Duration::ZERO, 9_000_000), now, now);
    assert_eq!(heard.back_since, Some(start));
    assert_eq!(fleet.verdict(second), Verdict::Later(Rule::Store, None));
}

#[test]
fn a_store_that_never_answered_leaves_no_share() {
    let now = Instant::now();
    let long = now + Duration::from_secs(600);
    for (outage, sends) in [
        (Outage::Share, false),
        (Outage::Wait, false),
        (Outage::Local, true),
    ] {
        let mut fleet = fleet(1, outage);
        assert!(fleet.failed(true, now));
        assert_eq!(matches!(fleet.verdict(long), Verdict::Now(1)), sends);
    }
}

#[test]
fn an_answer_that_took_long_puts_no_token_off() {
    let start = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    let ask = asked(&fleet, 1, start);
    let _ = fleet.leased(ask, lease(0, Duration::ZERO, 5_000_000), start, start + MS);
    let (sent, got) = (start + 100 * MS, start + 190 * MS);
    let _ = fleet.leased(ask, lease(1, 50 * MS, 5_110_000), sent, got);
    // By the store's clock it begins at 5.16 s, and 5 s was a millisecond after the start at the latest.
    let Verdict::Later(_, Some(begins)) = fleet.verdict(start) else {
        unreachable!("it has not begun");
    };
    assert!(
        begins - start <= 162 * MS && begins - start >= 160 * MS,
        "{:?}",
        begins - start
    );

    // The clock was set back by an hour: what was known is forgotten.
    let back = lease(0, Duration::ZERO, 1_000_000);
    let _ = fleet.leased(ask, back, got, got);
    assert_eq!(fleet.seen, back.seen);
}

#[test]
fn a_short_window_gives_less_away_for_the_way_to_the_server() {
    let used = |seconds, plan: NonZeroU32| {
        let span = Span::new(Duration::from_secs(seconds));
        span.named.as_secs_f64() / (step(plan.get(), span) * plan.get()).as_secs_f64()
    };
    let plan = NonZeroU32::new(600).unwrap();
    assert!(used(60, plan) > 0.995 && used(10, plan) > 0.987 && used(1, plan) > 0.987);
}
