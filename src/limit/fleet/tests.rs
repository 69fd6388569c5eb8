use std::num::NonZeroU32;

use super::*;
use crate::limit::store::WindowSeen;

mod simulation;

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
        ..Lease::default()
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

/// It asked again at once, and without end.
#[test]
fn a_store_without_turns_is_asked_again_when_it_says() {
    let now = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    let ask = asked(&fleet, 9, now);
    let _ = fleet.leased(ask, lease(0, 300 * MS, 5_000_000), now, now);
    let again = now + 301 * MS;
    assert_eq!(fleet.next(demand(9), now), Err(Some(again)));
    assert_eq!(asked(&fleet, 9, again).turn, None);
}

/// Each took the whole plan then.
#[test]
fn a_store_that_comes_back_empty_and_goes_again_leaves_the_share_as_it_was() {
    let mut now = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    let ask = asked(&fleet, 1, now);
    let _ = fleet.leased(ask, lease(0, Duration::ZERO, 5_000_000), now, now);
    assert!(fleet.failed(true, now));
    now += 2 * PRESENCE;
    let alone = Lease {
        processes: 1,
        ..lease(0, Duration::ZERO, 65_000_000)
    };
    let heard = fleet.leased(ask, alone, now, now);
    assert!(heard.back_since.is_some());
    assert!(fleet.failed(true, now));
    assert_eq!(fleet.sharers(), 4);
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
fn tokens_that_begin_at_once_are_used_before_those_that_begin_later() {
    let now = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    let ask = asked(&fleet, 9, now);
    let _ = fleet.leased(ask, lease(2, 100 * MS, 5_000_000), now, now);
    let at_once = Lease {
        at_once: true,
        ..lease(3, Duration::ZERO, 5_000_000)
    };
    let _ = fleet.leased(ask, at_once, now, now);
    assert_eq!(
        (fleet.tokens(now), fleet.verdict(now)),
        (5, Verdict::Now(3))
    );
    for _ in 0..3 {
        fleet.send(now);
    }
    let next = Some(now + 100 * MS);
    assert_eq!(fleet.verdict(now), Verdict::Later(Rule::Store, next));

    let _ = fleet.leased(ask, at_once, now, now);
    let late = now + use_within(Span::new(WINDOW)) + MS;
    assert_eq!(fleet.usable(late), 0, "they are lost as others are");
}

fn told(reset: u64, remaining: u32, now: Instant) -> Told {
    Told {
        reset: Duration::from_secs(reset),
        limit: N,
        remaining,
        end: now + WINDOW,
    }
}

#[test]
fn the_store_is_told_the_newest_of_a_window_once() {
    let now = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    fleet.heard(told(8, 90, now), true, now);
    fleet.heard(told(8, 89, now), false, now + MS);
    fleet.heard(told(8, 95, now), false, now);
    fleet.heard(told(4, 3, now), false, now + 2 * MS);
    let at = now + 5 * MS;
    let ask = asked(&fleet, 1, at);
    let expected = WindowSeen {
        reset: Duration::from_secs(8),
        length: WINDOW,
        remaining: 89,
        sent: StoreTime::default(),
        ends: WINDOW - 5 * MS,
        proved: true,
    };
    assert_eq!(
        (ask.window, ask.doubts),
        (Some(expected), false),
        "its clock is not known"
    );
    let _ = fleet.leased(ask, lease(0, Duration::ZERO, 5_000_000), at, at);
    let ask = asked(&fleet, 1, at + 4 * AHEAD);
    let sent = ask.window.map(|window| window.sent);
    assert_eq!(sent, Some(StoreTime(5_000_000 - 4_000 - 800)));
    fleet.begin(Errand::Lease(ask));
    assert_eq!(asked(&fleet, 1, at + 4 * AHEAD).window, None);
}

#[test]
fn a_doubt_is_told_until_the_store_has_heard_of_it() {
    let now = Instant::now();
    let mut fleet = fleet(1, Outage::Share);
    fleet.heard(told(8, 90, now), true, now);
    fleet.doubt_windows();
    let ask = asked(&fleet, 1, now);
    assert_eq!((ask.window, ask.doubts), (None, false), "it trusts none");
    let trusts = Lease {
        windows: true,
        ..lease(0, Duration::ZERO, 5_000_000)
    };
    let _ = fleet.leased(ask, trusts, now, now);
    assert!(fleet.has_windows());
    fleet.doubt_windows();
    for (heard, later) in [(false, now + 2 * AHEAD), (true, now + 3 * AHEAD)] {
        let ask = asked(&fleet, 1, later);
        assert!(ask.doubts);
        fleet.begin(Errand::Lease(ask));
        if heard {
            let _ = fleet.leased(ask, trusts, later, later);
        } else {
            fleet.failed(false, later);
        }
    }
    let later = now + 4 * AHEAD;
    assert!(!asked(&fleet, 1, later).doubts);

    fleet.doubt_windows();
    fleet.begin(Errand::Lease(asked(&fleet, 1, later)));
    // The runtime of the call ended.
    assert!(asked(&fleet, 1, later).doubts);
}

/// Of a window that seemed to end ten seconds sooner than it did, the pace used 166 requests that had left at once.
#[test]
fn a_store_whose_clock_is_set_forward_knows_no_window_any_more() {
    let start = Instant::now();
    for (shown, is_doubted) in [(8_040_000, false), (8_090_000, true), (7_000_000, false)] {
        let mut fleet = fleet(1, Outage::Share);
        let at_once = |now| Lease {
            at_once: true,
            windows: true,
            ..lease(2, Duration::ZERO, now)
        };
        let ask = asked(&fleet, 2, start);
        let _ = fleet.leased(ask, at_once(5_000_000), start, start + 50 * MS);
        let now = start + 3 * AHEAD;
        let ask = asked(&fleet, 2, now);
        let _ = fleet.leased(ask, at_once(shown), now, now + 50 * MS);
        assert_eq!(fleet.usable(now + 50 * MS) == 0, is_doubted, "{shown}");
        assert_eq!(asked(&fleet, 3, now + 50 * MS).doubts, is_doubted);
    }
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
    assert_eq!(fleet.verdict(now), Verdict::Later(Rule::Store, None));
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
