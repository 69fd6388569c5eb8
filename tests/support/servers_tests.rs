//! The oracles against their definitions.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// A whole minute since 1970, so that windows of a minute and no phase begin here.
const START: Duration = Duration::from_secs(1_800_000_000);

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

/// What a server of `kind` and 2 a minute says to a request at each of `times`: allowed, remaining, reset, retry-after.
fn dialogue(kind: Kind, times: &[f64]) -> Vec<(bool, u32, u64, Option<u64>)> {
    let mut server = Server::new(kind, 2, MINUTE, START);
    let mut say = |&at: &f64| {
        let reply = server.arrive(START + seconds(at));
        assert_eq!(reply.date, 1_800_000_000 + at as u64);
        let said = reply.said.unwrap();
        (
            reply.allowed,
            said.remaining,
            said.reset - 1_800_000_000,
            said.retry_after,
        )
    };
    times.iter().map(&mut say).collect()
}

#[test]
fn fixed_windows_are_aligned_whoever_comes_first() {
    assert_eq!(
        dialogue(Kind::Fixed, &[10.2, 59.0, 59.5, 60.0, 119.0, 119.9, 305.0]),
        [
            (true, 1, 60, None),
            (true, 0, 60, None),
            (false, 0, 60, Some(1)),
            (true, 1, 120, None),
            (true, 0, 120, None),
            (false, 0, 120, Some(1)),
            (true, 1, 360, None),
        ]
    );
}

#[test]
fn a_reset_from_a_time_to_live_flips_by_a_second() {
    let resets: Vec<_> = dialogue(Kind::FixedTtl, &[10.0, 10.3, 10.7, 11.2, 59.9, 60.0])
        .into_iter()
        .map(|said| said.2)
        .collect();
    assert_eq!(resets, [60, 60, 59, 60, 59, 120]);
}

#[test]
fn an_anchored_window_begins_with_the_first_request_after_the_last() {
    let times = [10.2, 70.1, 70.15, 70.2, 71.0, 300.5];
    let said = |reset: fn(u64) -> u64| {
        [
            (true, 1, reset(71), None),
            (true, 0, reset(71), None),
            (false, 0, reset(71), Some(1)),
            (true, 1, reset(131), None),
            (true, 0, reset(131), None),
            (true, 1, reset(361), None),
        ]
    };
    assert_eq!(dialogue(Kind::AnchoredUp, &times), said(|reset| reset));
    assert_eq!(
        dialogue(Kind::AnchoredDown, &times),
        said(|reset| reset - 1)
    );
}

#[test]
fn a_log_allows_as_many_in_any_closed_window() {
    let times = [10.0, 30.0, 70.0, 70.001, 70.002, 90.5];
    let now = |reset: [u64; 6]| {
        let rest = [
            (true, 1, None),
            (true, 0, None),
            (false, 0, Some(1)),
            (true, 0, None),
            (false, 0, Some(20)),
            (true, 0, None),
        ];
        reset
            .into_iter()
            .zip(rest)
            .map(|(reset, (allowed, remaining, wait))| (allowed, remaining, reset, wait))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        dialogue(Kind::LogOldest, &times),
        now([70, 70, 70, 90, 90, 131])
    );
    assert_eq!(
        dialogue(Kind::LogNow, &times),
        now([70, 90, 130, 131, 131, 151])
    );
}

#[test]
fn a_counter_weighs_the_last_window_by_what_is_left_of_it() {
    // Two in the first window weigh 1.5 at 75 and 1 at 90; the third of the second window begins at 120.
    let times = [10.0, 20.0, 30.0, 75.0, 76.0, 90.0];
    let strict = [
        (true, 1, 60, None),
        (true, 0, 60, None),
        (false, 0, 60, Some(60)),
        (false, 0, 120, Some(15)),
        (false, 0, 120, Some(14)),
        (true, 0, 120, None),
    ];
    assert_eq!(dialogue(Kind::CounterStrict, &times), strict);
    let floored = [
        (true, 1, 60, None),
        (true, 0, 60, None),
        (false, 0, 60, Some(31)),
        (true, 0, 120, None),
        (false, 0, 120, Some(15)),
        (false, 0, 120, Some(1)),
    ];
    assert_eq!(dialogue(Kind::CounterFloored, &times), floored);
    assert_eq!(
        dialogue(Kind::CounterStrict, &[10.0, 20.0, 121.0])[2],
        (true, 1, 180, None),
        "the window before the last is forgotten"
    );
}

#[test]
fn a_bucket_begins_full_and_refills_evenly() {
    let times = [0.0, 0.0, 29.5, 30.0, 45.0, 600.0];
    let full = [
        (true, 1, 30, None),
        (true, 0, 60, None),
        (false, 0, 60, Some(1)),
        (true, 0, 90, None),
        (false, 0, 90, Some(15)),
        (true, 1, 630, None),
    ];
    assert_eq!(dialogue(Kind::BucketFull, &times), full);
    let next = full.map(|(allowed, remaining, _, wait)| (allowed, remaining, wait));
    let resets = [30, 30, 30, 60, 60, 630];
    let said = dialogue(Kind::BucketNext, &times);
    for ((said, next), reset) in said.into_iter().zip(next).zip(resets) {
        assert_eq!(said, (next.0, next.1, reset, next.2));
    }
}

#[test]
fn a_small_bucket_says_its_own_size_as_limit() {
    let mut server = Server::new(Kind::SmallBucketFull, 100, MINUTE, START);
    let allowed = (0..100).filter(|_| server.arrive(START).allowed).count();
    assert_eq!(allowed, 10);
    assert_eq!(server.arrive(START + MINUTE).said.unwrap().limit, 10);
}

#[test]
fn headers_stand_on_all_answers_on_refusals_or_nowhere() {
    for (headers, expected) in [
        (Headers::Always, [true, true]),
        (Headers::OnRefusal, [false, true]),
        (Headers::Never, [false, false]),
    ] {
        let mut server = Server::new(Kind::Fixed, 1, MINUTE, START).headers(headers);
        let said = [(); 2].map(|()| server.arrive(START).said.is_some());
        assert_eq!(said, expected, "{headers:?}");
    }
}

#[test]
fn a_clock_is_off_and_drifts() {
    let clock = Clock {
        start: START,
        skew: -5,
        drift: 200,
    };
    assert_eq!(clock.at(Duration::ZERO), START - seconds(5.0));
    assert_eq!(clock.at(MINUTE), START + seconds(55.012));
    let slow = Clock {
        drift: -200,
        ..clock
    };
    assert_eq!(slow.at(MINUTE), START + seconds(54.988));
}

/// The 429s of 20 minutes, for a client with a token bucket of `burst` that sends as soon as it has a token and no
/// headers could stop.
fn refused(kind: Kind, n: u32, burst: u32, step: Duration) -> u32 {
    let mut server = Server::new(kind, n, MINUTE, START);
    let (mut refused, mut sent) = (0, 0);
    loop {
        let at = step * u32::saturating_sub(sent, burst - 1);
        if at > MINUTE * 20 {
            return refused;
        }
        sent += 1;
        refused += u32::from(!server.arrive(START + seconds(17.3) + at).allowed);
    }
}

#[test]
fn a_burst_of_the_whole_plan_is_refused_as_known_and_an_even_pace_is_not() {
    for (kind, least, most) in [
        (Kind::Fixed, 60, 99),
        (Kind::AnchoredUp, 60, 111),
        (Kind::LogOldest, 90, 120),
        (Kind::CounterFloored, 60, 99),
        (Kind::BucketFull, 0, 1),
        (Kind::SmallBucketFull, 85, 91),
    ] {
        let step = MINUTE / 100;
        let refusals = refused(kind, 100, 100, step);
        assert!((least..=most).contains(&refusals), "{kind:?}: {refusals}");
    }
    for kind in Kind::ALL {
        for n in [100, 1_000] {
            let step = Duration::from_millis(60_250) / n;
            let refusals = refused(kind, n, 1, step);
            let strict = kind == Kind::CounterStrict;
            assert!(
                refusals == 0 || strict,
                "{kind:?}: {refusals} of {n} a minute"
            );
        }
    }
}

#[test]
fn a_wait_that_a_refusal_names_is_enough_and_not_much_too_long() {
    for kind in Kind::ALL {
        let mut server = Server::new(kind, 7, MINUTE, START);
        let mut now = START + seconds(3.217);
        for _ in 0..300 {
            let before = server.clone();
            let verdict = server.decide(now);
            if verdict.allowed {
                now += seconds(0.9);
                continue;
            }
            let early = verdict.wait.saturating_sub(Duration::from_micros(1));
            assert!(
                !before.clone().decide(now + early).allowed,
                "{kind:?} {:?}",
                verdict.wait
            );
            now += verdict.wait;
            assert!(
                before.clone().decide(now).allowed,
                "{kind:?} {:?}",
                verdict.wait
            );
        }
    }
}
