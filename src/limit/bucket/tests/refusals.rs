//! What a refusal does, and a pause.

use super::*;

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

/// A server that refused tasks since too many ran, once in 20 s, brought the pace down to a quarter, for a day.
#[test]
fn a_refusal_that_says_that_some_are_left_is_no_fault_of_the_pace() {
    for (left, n, counted) in [(4, 100, 96), (0, 99, 95)] {
        let mut now = Instant::now();
        let mut bucket = bucket(100);
        bucket.burst(number(1));
        use_up(&mut bucket, &mut now, 60, 5);
        let sent = send(&mut bucket, &mut now);
        bucket.refused(sent, Some(SECOND), said(100, left, 60), now, 0.0);
        assert_eq!(bucket.n, n);
        assert_eq!(bucket.ring.count(now), counted);
    }
}

#[test]
fn refusals_of_whatever_kind_leave_four_fifths_of_the_plan() {
    let mut now = Instant::now();
    let mut bucket = bucket(100);
    for _ in 0..30 {
        for _ in 0..95 {
            let sent = send(&mut bucket, &mut now);
            bucket.answered(sent, None, now);
        }
        let sent = send(&mut bucket, &mut now);
        bucket.refused(sent, Some(SECOND), None, now, 0.0);
    }
    assert_eq!(bucket.n, 80);
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
