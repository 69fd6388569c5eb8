//! The server's windows, and who else uses them.

use super::*;

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

/// The clock's old reading was believed for hours: the first request of each window came too early, and was refused.
#[test]
fn a_refusal_by_a_window_that_seemed_to_have_ended_corrects_the_clock() {
    let mut now = Instant::now();
    let mut bucket = in_window_mode(&mut now);
    // The server's clock is set back by four seconds, so that this window lasts longer.
    let ends = now + 64 * SECOND;
    now += 30 * SECOND;
    for remaining in (0..99).rev() {
        let sent = bucket.send(now, None);
        bucket.answered(sent, said(100, remaining, 120), now);
    }
    now = bucket.server.windows.end().unwrap();
    let probe = bucket.send(now, None);
    bucket.refused(probe, Some(ends - now), said(100, 0, 120), now, 0.0);
    let sent = send(&mut bucket, &mut now);
    bucket.answered(sent, said(100, 99, 180), now);
    assert_eq!(bucket.mode(now), Mode::Window);
    let next = bucket.server.windows.end().unwrap();
    assert!(
        next >= ends + WINDOW,
        "{:?} too early",
        ends + WINDOW - next
    );
}
