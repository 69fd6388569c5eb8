//! The bucket's rules, one by one.

use super::*;
use crate::limit::rule::{Rule, Verdict};

mod refusals;
mod settings;
mod windows;

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

/// governor #299, iroh #4295, tower-governor #64: a clock that went back a little between two cores let too much through, or
/// panicked.
#[test]
fn a_clock_that_goes_back_gives_nothing() {
    let start = Instant::now() + 3_600 * SECOND;
    let mut now = start;
    let mut bucket = bucket(100);
    let mut sends = 0;
    for index in 0..2_000_u32 {
        let millis = Duration::from_millis(u64::from(index * 7 % 13) * 40);
        let read = now - millis;
        if let Verdict::Now(_) = bucket.verdict(read) {
            let sent = bucket.send(read, Some(read));
            bucket.answered(sent, None, read - millis);
            sends += 1;
        }
        now += SECOND / 10;
    }
    let elapsed = now - start;
    let most = 1 + (elapsed.as_nanos() / bucket.pacer.interval().as_nanos()) as u32;
    assert!(sends <= most && sends >= most * 9 / 10, "{sends} of {most}");
    assert_eq!(bucket.in_flight(), 0);
}

/// ratelimit 2.0 dropped the rest of each division: whoever asked every microsecond got 40 % less of 1.67 in one.
#[test]
fn whoever_asks_each_microsecond_gets_no_less() {
    let start = Instant::now();
    let mut bucket = bucket(36_000_000);
    let probe = bucket.send(start, None);
    bucket.answered(probe, None, start);
    let micros = 20_000_u32;
    let mut sends = 1;
    for micro in 1..=micros {
        let now = start + Duration::from_micros(micro.into());
        while let Verdict::Now(_) = bucket.verdict(now) {
            let sent = bucket.send(now, Some(start));
            bucket.answered(sent, None, now);
            sends += 1;
        }
    }
    let earned = micros * 1_000 / 1_674;
    assert!(
        sends >= earned && sends <= earned + 1,
        "{sends} of {earned}"
    );
}
