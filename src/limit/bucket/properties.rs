//! What holds in any order of events, whatever the server says.

use proptest::prelude::*;

use super::{
    tests::{EPOCH, NANO, SECOND, WINDOW, bucket, number, send},
    *,
};
use crate::limit::rule::Verdict;

#[derive(Clone, Debug)]
enum Event {
    Advance(u64),
    Send(bool),
    Answer(prop::sample::Index, Option<Said>),
    Refuse(prop::sample::Index, Option<u64>, Option<Said>, f64),
    Pause(prop::sample::Index, u64),
    PauseUntil(u64),
    Lose(prop::sample::Index),
    Plan(u32),
}

/// Anything that a server may say, likely things more often.
fn anything_said() -> impl Strategy<Value = Option<Said>> {
    let count = || prop_oneof![8 => 0_u32..50, 1 => any::<u32>()];
    let time = || {
        prop_oneof![
            8 => (0_u64..1_000).prop_map(|seconds| EPOCH + Duration::from_secs(seconds)),
            1 => Just(Duration::MAX),
            1 => Just(Duration::ZERO),
        ]
    };
    let window = prop_oneof![Just(WINDOW), Just(Duration::ZERO), Just(Duration::MAX)];
    let said = (
        count(),
        count(),
        prop::option::weighted(0.9, time()),
        prop::option::weighted(0.3, time()),
        prop::option::weighted(0.1, window),
    )
        .prop_map(|(limit, remaining, reset, date, window)| Said {
            limit,
            remaining,
            reset,
            date,
            window,
        });
    prop::option::weighted(0.7, said)
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    let hint = prop::option::of(prop_oneof![9 => 0_u64..30, 1 => any::<u64>()]);
    prop_oneof![
        3 => (0_u64..20_000).prop_map(Event::Advance),
        12 => any::<bool>().prop_map(Event::Send),
        8 => (index(), anything_said()).prop_map(|(i, said)| Event::Answer(i, said)),
        1 => (index(), hint, anything_said(), 0.0..1.0)
            .prop_map(|(i, hint, said, random)| Event::Refuse(i, hint, said, random)),
        1 => (index(), any::<u64>()).prop_map(|(i, hint)| Event::Pause(i, hint)),
        1 => (0_u64..60).prop_map(Event::PauseUntil),
        1 => index().prop_map(Event::Lose),
        1 => (1_u32..40).prop_map(Event::Plan),
    ]
}

proptest! {
    /// Whatever happens and whatever the server says: not in a pause, one probe after it, within the plan where paced,
    /// never stuck, never held longer than said, and every count ends at zero.
    #[test]
    fn the_rules_hold_in_any_order_of_events(
        events in prop::collection::vec(event(), 1..300),
        n in 1_u32..40,
        learns in any::<bool>(),
    ) {
        let mut now = Instant::now();
        let mut bucket = bucket(n);
        if learns {
            bucket.learn();
        }
        let mut out = Vec::new();
        let mut paused = now;
        for event in events {
            match event {
                Event::Advance(millis) => now += Duration::from_millis(millis),
                Event::Send(waits) => {
                    let since = now;
                    match bucket.verdict(now) {
                        Verdict::Now(_) => {}
                        Verdict::Later(_, None) => {
                            prop_assert!(!out.is_empty());
                            continue;
                        }
                        Verdict::Later(rule, Some(until)) => {
                            prop_assert!(until > now);
                            if let Verdict::Later(_, before) = bucket.verdict(until - NANO) {
                                prop_assert!(before.is_some_and(|before| before <= until), "{}", rule);
                            }
                            now = until;
                        }
                    }
                    let Verdict::Now(count) = bucket.verdict(now) else {
                        panic!("{:?} although its instant came", bucket.verdict(now));
                    };
                    prop_assert!(count >= 1);
                    prop_assert!(now >= paused);
                    if !bucket.server.windows.is_trusted() {
                        prop_assert!(bucket.ring.count(now) < bucket.n);
                    }
                    out.push(bucket.send(now, (waits && since < now).then_some(since)));
                }
                Event::Answer(i, said) if !out.is_empty() => {
                    let sent = out.swap_remove(i.index(out.len()));
                    bucket.answered(sent, said, now);
                }
                Event::Refuse(i, hint, said, random) if !out.is_empty() => {
                    let sent = out.swap_remove(i.index(out.len()));
                    bucket.refused(sent, hint.map(Duration::from_secs), said, now, random);
                    let until = bucket.paused_until(now).unwrap();
                    prop_assert!(until >= paused);
                    paused = until;
                    prop_assert_eq!(bucket.verdict(until), probe_or_wait(&bucket, until));
                }
                Event::Pause(i, hint) if !out.is_empty() => {
                    let sent = out.swap_remove(i.index(out.len()));
                    bucket.pause_for(sent, Duration::from_secs(hint), None, now, 0.5);
                    let until = bucket.paused_until(now).unwrap();
                    prop_assert!(until >= paused);
                    paused = until;
                }
                Event::PauseUntil(seconds) => {
                    bucket.pause_until(now + Duration::from_secs(seconds));
                    paused = paused.max(now + Duration::from_secs(seconds));
                }
                Event::Lose(i) if !out.is_empty() => {
                    let sent = out.swap_remove(i.index(out.len()));
                    bucket.lost(sent, now);
                }
                Event::Plan(n) => bucket.set_plan(number(n)),
                _ => {}
            }
            if bucket.lets_one(now) {
                prop_assert!(matches!(bucket.verdict(now), Verdict::Now(_)));
            }
            prop_assert_eq!(bucket.in_flight() as usize, out.len());
            prop_assert!(bucket.n >= 1 && bucket.n <= bucket.plan());
        }
        for sent in out {
            bucket.answered(sent, None, now);
        }
        prop_assert_eq!(bucket.in_flight(), 0);
        send(&mut bucket, &mut now);
    }

    /// As many as are promised at once leave at once, where they do not wait.
    #[test]
    fn as_many_leave_at_once_as_were_promised(
        answers in prop::collection::vec((0_u64..10_000, anything_said()), 1..40),
        n in 1_u32..200,
    ) {
        let mut now = Instant::now();
        let mut bucket = bucket(n);
        for (millis, said) in answers {
            let sent = send(&mut bucket, &mut now);
            bucket.answered(sent, said, now);
            now += Duration::from_millis(millis);
            let Verdict::Now(count) = bucket.verdict(now) else { continue };
            let mut out = Vec::new();
            for _ in 0..count {
                prop_assert!(matches!(bucket.verdict(now), Verdict::Now(_)));
                out.push(bucket.send(now, None));
            }
            for sent in out {
                bucket.answered(sent, None, now);
            }
        }
    }

    /// Paced without credit, `k` requests take `k - 1` intervals, less 5 ms; and no more than the plan arrive in any closed
    /// window, however long they are on their way.
    #[test]
    fn paced_requests_are_spread_and_never_more_than_the_plan_arrive_in_a_window(
        delays in prop::collection::vec((0_u64..90_000, 0_u64..90_000, any::<bool>()), 1..150),
        n in 1_u32..30,
        idle in 0_u64..3,
        waits in any::<bool>(),
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut bucket = bucket(n);
        let interval = bucket.pacer.interval();
        let (mut sends, mut arrivals) = (Vec::new(), Vec::new());
        let mut ends: Vec<(Instant, Sent, bool)> = Vec::new();
        for (there, back, lost) in delays {
            loop {
                let at = match bucket.verdict(now) {
                    Verdict::Now(_) => break,
                    Verdict::Later(_, until) => until,
                };
                let next = ends.iter().map(|end| end.0).min();
                now = at.into_iter().chain(next).min().unwrap();
                let due: Vec<_> = ends.iter().copied().filter(|end| end.0 <= now).collect();
                ends.retain(|end| end.0 > now);
                for (_, sent, lost) in due {
                    if lost {
                        bucket.lost(sent, now);
                    } else {
                        bucket.answered(sent, None, now);
                    }
                }
            }
            let sent = bucket.send(now, waits.then(|| now - SECOND));
            let arrival = now + Duration::from_millis(there);
            // One that is lost arrives a second later at the latest.
            let end = if lost { arrival - SECOND.min(arrival - now) } else { arrival + Duration::from_millis(back) };
            arrivals.push(arrival);
            sends.push(now);
            ends.push((end, sent, lost));
            now += interval * u32::try_from(idle).unwrap();
        }
        arrivals.sort();
        for (first, last) in arrivals.iter().zip(arrivals.iter().skip(n as usize)) {
            prop_assert!(*last - *first > WINDOW);
        }
        let credit = if waits { 0 } else { bucket.credit.most(n) };
        for (first, &sent) in sends.iter().enumerate() {
            for (more, &last) in sends.iter().enumerate().skip(first) {
                let steps = u32::try_from(more - first).unwrap().saturating_sub(credit);
                prop_assert!(last - sent + Duration::from_millis(5) >= interval * steps);
            }
        }
    }
}

/// If it were wrong of the usual case, the look at it would be for nothing, and the property above say nothing.
#[test]
fn a_paced_request_that_is_due_is_the_usual_case() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    assert!(!bucket.lets_one(now), "the first goes alone");
    let headers = Said {
        limit: 100,
        remaining: 99,
        reset: Some(EPOCH),
        date: None,
        window: None,
    };
    for said in [None, Some(headers), Some(headers)] {
        let sent = send(&mut bucket, &mut now);
        bucket.answered(sent, said, now);
        now += WINDOW;
        assert!(bucket.lets_one(now), "{said:?}");
    }
}

/// After a pause: one request, or none yet.
fn probe_or_wait(bucket: &Bucket, at: Instant) -> Verdict {
    match bucket.verdict(at) {
        Verdict::Now(_) => Verdict::Now(1),
        held => held,
    }
}
