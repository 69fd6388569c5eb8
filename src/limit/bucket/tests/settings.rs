//! What the user sets, and what the server says of the plan.

use super::*;

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
