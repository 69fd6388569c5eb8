//! The bucket's rules, one by one.

use super::*;
use crate::limit::rule::{Rule, Verdict};

pub(super) const WINDOW: Duration = Duration::from_secs(60);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const NANO: Duration = Duration::from_nanos(1);
/// When the tests' server started, since 1970.
pub(super) const EPOCH: Duration = Duration::from_secs(1_800_000_000);

pub(super) fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

pub(super) fn bucket(n: u32) -> Bucket {
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
pub(super) fn send(bucket: &mut Bucket, now: &mut Instant) -> Sent {
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
    assert_eq!(bucket.at_once(until), 1, "a pause earns nothing");
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
    assert_eq!(bucket.at_once(now), 0);
    let Verdict::Later(Rule::Shared, Some(until)) = bucket.verdict(now) else {
        panic!("it is shared");
    };
    assert_eq!(bucket.verdict(until), Verdict::Now(1));
    assert_eq!(bucket.mode(now + 301 * SECOND), Mode::Paced);
}

#[test]
fn a_window_is_proved_by_the_first_answer_whose_order_is_known() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    use_up(&mut bucket, &mut now, 60, 6);
    let [before, overtaken] = [0, 1].map(|_| send(&mut bucket, &mut now));
    now += SECOND / 10;
    bucket.answered(before, said(100, 5, 60), now);
    let after = send(&mut bucket, &mut now);
    bucket.answered(overtaken, said(100, 99, 120), now);
    assert_eq!(bucket.mode(now), Mode::Paced);
    bucket.answered(after, said(100, 98, 120), now);
    assert_eq!(bucket.mode(now), Mode::Window);
    assert_eq!(bucket.remaining(now), 98);
}

/// It stopped all clones: neither time nor the server's Reset let the next one go.
#[test]
fn among_others_an_answer_that_never_comes_stops_nobody_for_ever() {
    let mut now = Instant::now();
    let mut bucket = in_window_mode(&mut now);
    for remaining in [97, 1] {
        let sent = send(&mut bucket, &mut now);
        bucket.answered(sent, said(100, remaining, 120), now);
    }
    assert_eq!(bucket.mode(now), Mode::Shared);
    let _hung = send(&mut bucket, &mut now);
    let Verdict::Later(Rule::Shared, Some(until)) = bucket.verdict(now) else {
        panic!("{:?}", bucket.verdict(now));
    };
    assert!(until <= now + 2 * WINDOW, "{:?}", until - now);
    assert_eq!(bucket.verdict(until), Verdict::Now(1));
}

#[test]
fn a_reset_that_moves_by_less_than_a_window_is_none_of_a_window() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    use_up(&mut bucket, &mut now, 60, 5);
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, said(100, 99, 117), now);
    assert_eq!(bucket.mode(now), Mode::Paced);

    let mut bucket = in_window_mode(&mut now);
    let sent = bucket.send(now, None);
    bucket.answered(sent, said(100, 98, 177), now);
    assert_eq!(bucket.mode(now), Mode::Paced);
}

#[test]
fn the_reset_of_a_longer_window_is_not_ours() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    for (date, windows) in [(57, 0), (58, 1)] {
        let said = said(100, 99, 120).map(|said| Said {
            date: Some(EPOCH + SECOND * date),
            ..said
        });
        let sent = send(&mut bucket, &mut now);
        bucket.answered(sent, said, now);
        assert_eq!(bucket.server.windows.number(), windows);
    }
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
    for index in 0..25 {
        let Verdict::Now(_) = bucket.verdict(now) else {
            panic!("{index} left");
        };
        // Some came only now.
        bucket.send(now, (index % 5 > 0).then_some(start));
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
    assert_eq!(bucket.at_once(now), 25);
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
    assert_eq!(bucket.at_once(began), 5);
    now = began + SECOND;
    bucket.send(now, Some(began));
    assert_eq!(bucket.at_once(now), 0);
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
        assert_eq!(bucket.at_once(now), earned);
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
