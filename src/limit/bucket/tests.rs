//! The bucket's rules, one by one and in any order.

use proptest::prelude::*;

use super::*;
use crate::limit::rule::{Rule, Verdict};

const WINDOW: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);
/// When the tests' server started, since 1970.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

fn bucket(n: u32) -> Bucket {
    Bucket::new(number(n), WINDOW)
}

/// What a server says that counts `limit` in a window that ends at `reset` of its time.
fn said(limit: u32, remaining: u32, reset: u32) -> Option<Said> {
    Some(Said {
        limit,
        remaining,
        reset: Some(EPOCH + SECOND * reset),
        date: None,
        window: None,
    })
}

/// Sends as soon as the bucket allows it, as one that waited, and says when.
fn send(bucket: &mut Bucket, now: &mut Instant) -> Sent {
    for _ in 0..10 {
        match bucket.verdict(*now) {
            Verdict::Now(_) => return bucket.send(*now, Some(*now - SECOND)),
            Verdict::Later(_, Some(until)) => *now = until,
            verdict => panic!("{verdict:?}"),
        }
    }
    panic!("no instant is ever the right one");
}

/// Sends and is answered at once, until Remaining of a window that ends at `reset` has fallen to `remaining`.
fn use_up(bucket: &mut Bucket, now: &mut Instant, reset: u32, remaining: u32) {
    for remaining in (remaining..bucket.plan()).rev() {
        let sent = send(bucket, now);
        bucket.answered(sent, said(bucket.plan(), remaining, reset), *now);
    }
}

/// A bucket of 100 in window mode, in a window that ends at 120 and opened just now.
fn in_window_mode(now: &mut Instant) -> Bucket {
    let mut bucket = bucket(100);
    use_up(&mut bucket, now, 60, 5);
    let sent = send(&mut bucket, now);
    bucket.answered(sent, said(100, 99, 120), *now);
    assert_eq!(bucket.mode(*now), Mode::Window);
    bucket
}

#[test]
fn a_strict_server_gets_a_little_less_and_the_rest_again_later() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    for _ in 0..95 {
        let sent = send(&mut bucket, &mut now);
        bucket.answered(sent, None, now);
    }
    let refused = send(&mut bucket, &mut now);
    let until = bucket.refused(refused, Some(WINDOW), None, now, 0.0);
    assert_eq!(until, Some(now + WINDOW));
    assert_eq!(bucket.n, 99);
    now += 3_600 * SECOND;
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, None, now);
    assert_eq!(bucket.n, 100);
}

#[test]
fn a_refusal_with_little_of_the_plan_used_is_about_others() {
    for tells in [false, true] {
        let mut now = Instant::now();
        let mut bucket = bucket(100);
        for left in (79..99).rev() {
            let sent = send(&mut bucket, &mut now);
            bucket.answered(sent, said(100, left, 60).filter(|_| tells), now);
        }
        let sent = send(&mut bucket, &mut now);
        bucket.refused(sent, None, None, now, 0.0);
        assert_eq!(bucket.n, 100);
        let shared = bucket.mode(now) == Mode::Shared;
        assert_eq!(shared, tells, "sharing goes by what the server says");
    }
}

#[test]
fn a_hint_below_the_interval_is_none() {
    let now = Instant::now();
    let mut bucket = bucket(1);
    let sent = bucket.send(now, None);
    let until = bucket.refused(sent, Some(SECOND), None, now, 0.0);
    assert!(until.unwrap() >= now + WINDOW);
}

#[test]
fn without_a_hint_the_pause_lasts_until_the_reset_or_for_a_window() {
    for (said, wait) in [
        (said(100, 0, 20), Duration::from_secs(21)),
        (None, Duration::from_millis(60_012)),
    ] {
        let mut now = Instant::now();
        let mut bucket = bucket(100);
        let said = said.map(|said| Said {
            date: Some(EPOCH),
            ..said
        });
        let sent = send(&mut bucket, &mut now);
        let until = bucket.refused(sent, None, said, now, 0.0);
        assert_eq!(until, Some(now + wait));
        assert_eq!(
            bucket.verdict(now),
            Verdict::Later(Rule::Paused, Some(now + wait))
        );
    }
}

#[test]
fn several_refusals_at_once_are_one_pause() {
    let start = Instant::now();
    let mut now = start;
    let mut bucket = in_window_mode(&mut now);
    let sent: Vec<_> = (0..5).map(|_| bucket.send(now, None)).collect();
    let mut begun = 0;
    for sent in sent {
        begun += u32::from(
            bucket
                .refused(sent, Some(12 * SECOND), None, now, 0.0)
                .is_some(),
        );
    }
    assert_eq!(begun, 1);
    assert_eq!(bucket.n, 100, "they were not paced");
    assert_eq!(bucket.mode(now), Mode::Paced);
    let until = bucket.paused_until(now).unwrap();
    assert_eq!(until, now + 12 * SECOND);
    assert_eq!(bucket.credit(until), 1, "a pause earns nothing");
}

#[test]
fn after_a_pause_one_request_goes_alone() {
    let mut now = Instant::now();
    let mut bucket = in_window_mode(&mut now);
    let until = now + 30 * SECOND;
    bucket.pause_until(until);
    bucket.pause_until(now);
    assert_eq!(bucket.paused_until(now), Some(until));
    let held = Verdict::Later(Rule::Paused, Some(until));
    assert_eq!(bucket.verdict(until - NANO), held);
    assert_eq!(bucket.verdict(until), Verdict::Now(1));
    let probe = bucket.send(until, Some(now));
    let Verdict::Later(Rule::Probe, Some(_)) = bucket.verdict(until) else {
        panic!("a probe is out");
    };
    bucket.answered(probe, said(100, 98, 120), until);
    let Verdict::Now(2..) = bucket.verdict(until) else {
        panic!("window mode is not left for a pause");
    };
}

#[test]
fn a_503_with_a_hint_pauses_and_counts() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    let sent = send(&mut bucket, &mut now);
    let until = bucket.pause_for(sent, 20 * SECOND, None, now, 0.0);
    assert_eq!(until, Some(now + 20 * SECOND));
    assert_eq!((bucket.in_flight(), bucket.remaining(now)), (0, 99));
    assert_eq!(bucket.n, 100);
}

#[test]
fn a_window_is_sent_at_once_less_a_few_that_are_kept_for_others() {
    let mut now = Instant::now();
    let mut bucket = in_window_mode(&mut now);
    let opened = now;
    assert_eq!(bucket.verdict(now), Verdict::Now(97));
    let mut out: Vec<_> = (0..97).map(|_| bucket.send(now, None)).collect();
    let freed = opened + 7 * SECOND;
    assert_eq!(bucket.verdict(now), Verdict::Later(Rule::Kept, Some(freed)));
    assert_eq!(bucket.verdict(freed), Verdict::Now(2));
    out.extend((0..2).map(|_| bucket.send(freed, None)));
    let Verdict::Later(Rule::Window, Some(end)) = bucket.verdict(freed) else {
        panic!("it is used up");
    };
    for (left, sent) in (0..99).rev().zip(out) {
        bucket.answered(sent, said(100, left, 120), freed);
    }
    assert_eq!(
        bucket.verdict(end - NANO),
        Verdict::Later(Rule::Window, Some(end))
    );

    // One probe opens the next window, and stops nobody for longer than two seconds.
    assert_eq!(bucket.verdict(end), Verdict::Now(1));
    let probe = bucket.send(end, None);
    let Verdict::Later(Rule::Probe, Some(patience)) = bucket.verdict(end) else {
        panic!("the probe is out");
    };
    assert!(patience >= end + 2 * SECOND);
    bucket.answered(probe, said(100, 99, 180), end + SECOND);
    assert_eq!(bucket.verdict(end + SECOND), Verdict::Now(97));
}

#[test]
fn what_ended_without_headers_is_taken_off_the_window() {
    let mut now = Instant::now();
    let mut bucket = in_window_mode(&mut now);
    let sent: Vec<_> = (0..10).map(|_| bucket.send(now, None)).collect();
    for (index, sent) in sent.into_iter().enumerate() {
        if index % 2 == 0 {
            bucket.lost(sent, now);
        } else {
            bucket.answered(sent, None, now);
        }
    }
    assert_eq!(bucket.remaining(now), 89);
    now += 2 * SECOND;
    let sent = bucket.send(now, None);
    bucket.answered(sent, said(100, 93, 120), now);
    assert_eq!(bucket.remaining(now), 93);
}

#[test]
fn more_counted_than_sent_means_others() {
    let mut now = Instant::now();
    let mut bucket = in_window_mode(&mut now);
    let sent = bucket.send(now, None);
    bucket.answered(sent, said(100, 97, 120), now);
    assert_eq!(bucket.mode(now), Mode::Shared);
    assert_eq!(bucket.credit(now), 0);
    let Verdict::Later(Rule::Shared, Some(until)) = bucket.verdict(now) else {
        panic!("it is shared");
    };
    assert_eq!(bucket.verdict(until), Verdict::Now(1));
    assert_eq!(bucket.mode(now + 301 * SECOND), Mode::Paced);
}

#[test]
fn headers_that_vanish_lead_back_to_pacing() {
    let mut now = Instant::now();
    let mut bucket = in_window_mode(&mut now);
    let sent = bucket.send(now, None);
    bucket.answered(sent, None, now);
    assert_eq!(bucket.mode(now), Mode::Window);
    now += 61 * SECOND;
    let sent = bucket.send(now, None);
    bucket.answered(sent, None, now);
    assert_eq!(bucket.mode(now), Mode::Paced);
}

#[test]
fn a_clock_that_is_set_back_stops_nobody() {
    let mut now = Instant::now();
    let mut bucket = in_window_mode(&mut now);
    now += 61 * SECOND;
    let sent = bucket.send(now, None);
    bucket.answered(sent, said(100, 99, 60), now);
    assert_eq!(bucket.mode(now), Mode::Paced);
    use_up(&mut bucket, &mut now, 60, 5);
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, said(100, 99, 120), now);
    assert_eq!(bucket.mode(now), Mode::Window);
}

#[test]
fn an_unused_window_lets_a_group_leave_that_waited_for_its_first_answer() {
    let start = Instant::now();
    let mut bucket = bucket(100);
    let probe = bucket.send(start, None);
    let now = start + SECOND;
    bucket.answered(probe, said(100, 99, 60), now);
    assert_eq!(bucket.verdict(now), Verdict::Now(25));
    for _ in 0..25 {
        assert_ne!(bucket.verdict(now), paced(now));
        bucket.send(now, Some(start));
    }
    let Verdict::Later(Rule::Paced, _) = bucket.verdict(now) else {
        panic!("no more was earned");
    };
}

fn paced(until: Instant) -> Verdict {
    Verdict::Later(Rule::Paced, Some(until))
}

#[test]
fn credit_needs_as_many_left() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, said(4, 3, 60), now);
    now += 100 * SECOND;
    assert_eq!(bucket.credit(now), 25);
    assert_eq!(bucket.verdict(now), Verdict::Now(3));
    for _ in 0..3 {
        bucket.send(now, None);
    }
    let next = now + bucket.pacer.interval();
    assert_eq!(bucket.verdict(now), paced(next));
}

#[test]
fn a_request_that_waited_uses_no_credit() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, None, now);
    let began = now + 100 * SECOND;
    assert_eq!(bucket.credit(began), 5);
    now = began + SECOND;
    bucket.send(now, Some(began));
    assert_eq!(bucket.credit(now), 0);
}

#[test]
fn the_users_burst_is_the_most_that_is_earned() {
    let mut now = Instant::now();
    for (most, earned) in [(1, 1), (30, 30), (1_000, 100)] {
        let mut bucket = bucket(100);
        bucket.burst(number(most));
        let sent = send(&mut bucket, &mut now);
        bucket.answered(sent, None, now);
        now += 200 * SECOND;
        assert_eq!(bucket.credit(now), earned);
    }
}

#[test]
fn headers_are_not_looked_at_where_the_user_says_so() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    bucket.without_headers();
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, said(100, 0, 60), now);
    assert_eq!((bucket.said(), bucket.others()), (None, 0));
}

#[test]
fn the_plan_is_learned_from_a_whole_window_only() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    bucket.learn();
    for left in (500..600).rev() {
        let sent = send(&mut bucket, &mut now);
        bucket.answered(sent, said(1_000, left, 60), now);
    }
    assert_eq!(bucket.plan(), 100);
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, said(1_000, 999, 120), now);
    assert_eq!(bucket.plan(), 1_000);
    assert_eq!(bucket.mode(now), Mode::Window);
}

#[test]
fn a_part_of_the_limit_is_used_where_the_plan_is_less() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    for left in (500..600).rev() {
        let sent = send(&mut bucket, &mut now);
        bucket.answered(sent, said(1_000, left, 60), now);
    }
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, said(1_000, 999, 120), now);
    assert_eq!(bucket.plan(), 100);
    assert_eq!(
        (bucket.mode(now), bucket.remaining(now)),
        (Mode::Window, 99)
    );
}

#[test]
fn another_window_counts_where_the_server_says_it_of_the_plan() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    let policy = |limit, window| {
        said(limit, limit - 1, 60).map(|said| Said {
            window: Some(SECOND * window),
            ..said
        })
    };
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, policy(10, 1), now);
    assert_eq!(bucket.said(), None, "a burst limit beside the plan");
    assert_eq!(bucket.span, Span::new(WINDOW));
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, policy(100, 3_600), now);
    assert_eq!(bucket.span, Span::new(3_600 * SECOND));
    assert!(bucket.pacer.interval() > 36 * SECOND);
}

#[test]
fn another_plan_holds_at_once_and_keeps_what_was_counted() {
    let mut now = Instant::now();
    let mut bucket = bucket(1);
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, None, now);
    let Verdict::Later(Rule::Ring, Some(until)) = bucket.verdict(now) else {
        panic!("one a minute");
    };
    assert!(until > now + WINDOW);
    bucket.set_plan(number(1_000));
    assert_eq!(bucket.remaining(now), 999);
    let next = now + bucket.pacer.interval();
    assert_eq!(bucket.verdict(now), paced(next));
}

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
                let due = ends.extract_if(.., |end| end.0 <= now).collect::<Vec<_>>();
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

/// After a pause: one request, or none yet.
fn probe_or_wait(bucket: &Bucket, at: Instant) -> Verdict {
    match bucket.verdict(at) {
        Verdict::Now(_) => Verdict::Now(1),
        held => held,
    }
}
