//! Long bodies, empty ones, and what is known of their length.

use super::*;

#[test]
fn over_the_cap_the_attempt_goes_on_and_is_the_last() {
    let (feed, body) = fed();
    let (kept, waiting) = (body.try_clone().unwrap(), body.try_clone().unwrap());
    let mut first = Attempt::of(body);
    feed.send(data("12345678")).unwrap();
    assert_eq!(first.data(), "12345678");
    feed.send(data("9")).unwrap();
    feed.send(data("10")).unwrap();
    assert_eq!(first.data(), "9");

    assert!(kept.try_clone().is_none());
    let error = Attempt::of(waiting).fails();
    assert!(error.is_over_cap());
    let text = "request body is longer than the 8 bytes that are kept for another attempt";
    assert_eq!(error.to_string(), text);
    assert_eq!(first.data(), "10");
    drop(feed);
    first.ends();
}

#[test]
fn a_retry_that_reads_past_the_cap_goes_on_too() {
    let (feed, body) = fed();
    let kept = body.try_clone().unwrap();
    feed.send(data("1234")).unwrap();
    feed.send(data("5678")).unwrap();
    let mut first = Attempt::of(body);
    assert_eq!(first.data(), "1234");
    assert_eq!(first.data(), "5678");
    let mut second = Attempt::again(&kept);
    feed.send(data("9")).unwrap();
    feed.send(data("10")).unwrap();
    for chunk in ["1234", "5678", "9", "10"] {
        assert_eq!(second.data(), chunk);
    }
    assert!(kept.try_clone().is_none());
}

#[test]
fn a_body_longer_than_the_cap_from_the_start_is_sent_once() {
    let mut size = SizeHint::default();
    size.set_lower(9);
    let (feed, body) = fed_with_size(size);
    assert!(body.try_clone().is_none());
    let mut first = Attempt::of(body);
    feed.send(data("1")).unwrap();
    assert_eq!(first.data(), "1");
    first.waits();
    feed.send(data("2")).unwrap();
    assert_eq!(first.data(), "2");

    let cap = 64 * 1024;
    let body = |bytes| ReplayBody::new(Full::new(Bytes::from(vec![0; bytes])));
    assert!(body(cap).try_clone().is_some());
    assert!(body(cap + 1).try_clone().is_none());
}

#[test]
fn an_empty_body_is_known_to_be_empty_in_every_attempt() {
    let body = ReplayBody::new(Empty::<Bytes>::new());
    for _ in 0..3 {
        let mut attempt = Attempt::again(&body);
        assert!(attempt.0.is_end_stream());
        assert_eq!(attempt.0.size_hint().exact(), Some(0));
        attempt.ends();
    }
}

#[test]
fn trailers_alone_are_sent_in_every_attempt() {
    let (feed, body) = fed();
    feed.send(Ok(Frame::trailers(trailers()))).unwrap();
    for _ in 0..3 {
        let mut attempt = Attempt::again(&body);
        assert!(!attempt.0.is_end_stream());
        assert_eq!(attempt.frame().into_trailers().unwrap(), trailers());
        attempt.ends();
    }
}

#[test]
fn what_is_kept_of_a_body_without_a_stated_length_has_a_length_unless_trailers_follow() {
    for has_trailers in [false, true] {
        let mut size = SizeHint::default();
        size.set_upper(10);
        let (feed, body) = fed_with_size(size);
        let kept = body.try_clone().unwrap();
        feed.send(data("ab")).unwrap();
        feed.send(data("c")).unwrap();
        if has_trailers {
            feed.send(Ok(Frame::trailers(trailers()))).unwrap();
        }
        drop(feed);
        let mut first = Attempt::of(body);
        assert_eq!(first.0.size_hint().lower(), 0);
        assert_eq!(first.data(), "ab");
        let (lower, upper) = (kept.size_hint().lower(), kept.size_hint().upper());
        assert_eq!((lower, upper), (2, Some(12)), "and what is not read yet");
        assert_eq!(first.data(), "c");
        assert!(first.next().is_ready());

        assert_eq!(kept.size_hint().lower(), 3);
        // HTTP/1.1 sends trailers only where the length is not known.
        let exact = (!has_trailers).then_some(3);
        assert_eq!(kept.size_hint().exact(), exact);
        let mut second = Attempt::of(kept);
        assert_eq!(second.data(), "ab");
        assert_eq!(second.0.size_hint().lower(), 1);
    }
}

/// Or a body that was cut short would be whole the second time.
#[test]
fn a_body_that_ends_before_its_stated_length_states_it_in_every_attempt() {
    let (feed, body) = fed_with_size(SizeHint::with_exact(4));
    let kept = body.try_clone().unwrap();
    feed.send(data("ab")).unwrap();
    drop(feed);
    let mut attempt = Attempt::of(body);
    for _ in 0..2 {
        assert_eq!(attempt.0.size_hint().exact(), Some(4));
        assert_eq!(attempt.data(), "ab");
        assert_eq!(attempt.0.size_hint().exact(), Some(2));
        attempt.ends();
        attempt = Attempt::again(&kept);
    }
}

#[test]
fn empty_chunks_pass_and_are_not_kept() {
    let (feed, body) = fed();
    let kept = body.try_clone().unwrap();
    for chunk in ["", "a", "", "b"] {
        feed.send(data(chunk)).unwrap();
    }
    let mut first = Attempt::of(body);
    for chunk in ["", "a", "", "b"] {
        assert_eq!(first.data(), chunk);
    }
    let mut second = Attempt::again(&kept);
    assert_eq!(second.data(), "a");
    assert_eq!(second.data(), "b");
    second.waits();
}
