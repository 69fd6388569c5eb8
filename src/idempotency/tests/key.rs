//! Keys: made, derived, parsed, and how old they are.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use http::{Extensions, HeaderMap, HeaderValue};
use tokio::time::{self, Instant};

use crate::{
    IdempotencyKey,
    headers::date::Wall,
    idempotency_key::{IDEMPOTENCY_KEY, KEY_LIFE},
};

#[test]
fn random_keys_are_128_bits_in_hexadecimal_and_differ() {
    let keys: HashSet<_> = (0..1_000).map(|_| IdempotencyKey::random()).collect();
    assert_eq!(keys.len(), 1_000);
    let mut digits = HashSet::new();
    for key in keys {
        let hex = key.as_str().strip_prefix("req_").unwrap();
        assert_eq!(hex.len(), 32);
        assert!(
            hex.bytes().all(|b| b"0123456789abcdef".contains(&b)),
            "{key}"
        );
        digits.extend(hex.bytes().enumerate());
    }
    assert_eq!(digits.len(), 32 * 16, "every digit takes every value");
}

#[test]
fn a_bad_key_is_an_error() {
    let longest = "k".repeat(255);
    assert_eq!(IdempotencyKey::parse(&longest).unwrap().as_str(), longest);
    for text in ["", "two words", "line\nbreak", "\u{e9}", &"k".repeat(256)] {
        assert!(IdempotencyKey::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_header_that_is_no_key_is_none() {
    let mut headers = HeaderMap::new();
    assert_eq!(IdempotencyKey::of(&headers), None);
    for value in [b"\xff".as_slice(), b"", b"two words", &[b'k'; 256]] {
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        assert_eq!(IdempotencyKey::of(&headers), None);
        assert!(!IdempotencyKey::is_in(&headers));
    }
    headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static("\"mine\""));
    assert_eq!(IdempotencyKey::of(&headers).unwrap().as_str(), "\"mine\"");
}

/// Of a key that changed, a job that is run again with a new version of this crate would create everything twice.
#[test]
fn derived_keys_never_change() {
    let table: [(&[&str], &str); 8] = [
        (
            &["invoice-42"],
            "23e3cda9bd2d798c5713aebf41a50c3b3ba5d331e1a816821850990acbf48611",
        ),
        (
            &[""],
            "643d76d2766c1c66bf6df40630304dc3b86aa16ace3849a62e16419d2ed3cce7",
        ),
        (
            &[],
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
        (
            &["Z\u{fc}rich \u{1f4b6}"],
            "db1ee0c05abf457b13ef7984063ce1b4e43ddf656b7538d054dc184fd3bb0de7",
        ),
        (
            &["a", "bc"],
            "d16f37a638ba770eff5e5da16e42c72f44dc44fd4da2eeffa698877ed1fd986c",
        ),
        (
            &["ab", "c"],
            "c574c25172ecac17c428975b6e876d2a98a72d84660fc96686f942390b360cd8",
        ),
        (
            &["abc"],
            "d7863618cccd3bb7b6a1e37bb28ab7d01db8c49467a3e497e630f325b4fabf74",
        ),
        (
            &["a,2:bc"],
            "9ab2d56d971237b48b766a058e1b2df924a099838197f29d1b4369d122d94370",
        ),
    ];
    let mut different = HashSet::new();
    for (parts, key) in table {
        let derived = IdempotencyKey::derive_from(parts);
        assert_eq!(derived.as_str(), format!("drv_{key}"), "{parts:?}");
        if let [name] = parts {
            assert_eq!(IdempotencyKey::derive(name), derived);
        }
        different.insert(derived);
    }
    assert_eq!(different.len(), table.len());
    let long = "k".repeat(1_000);
    let key = "drv_9b034dfad2c6061aa0670553354b1b104f5062b780b8379b3f87af6f4df11eaa";
    assert_eq!(IdempotencyKey::derive(&long).as_str(), key);
}

#[test]
fn every_form_is_sent_as_it_is_read() {
    let keys = [
        IdempotencyKey::random(),
        IdempotencyKey::random().first_used(SystemTime::UNIX_EPOCH),
        IdempotencyKey::sent_now(Instant::now()),
        IdempotencyKey::derive("invoice-42"),
        IdempotencyKey::parse("mine").unwrap(),
    ];
    for key in keys {
        assert_eq!(key.header(), key.as_str());
        assert!(!key.header().is_sensitive());
        assert_eq!(IdempotencyKey::parse(key.as_str()).unwrap(), key);
        assert_eq!(key.as_str().parse(), Ok(key.clone()));
        assert_eq!(format!("{key:?}"), format!("IdempotencyKey({key})"));
    }
}

/// A wall clock that shows `seconds` now.
fn wall(seconds: u64) -> Wall {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Wall::set(time, Instant::now())
}

#[tokio::test(start_paused = true)]
async fn all_clones_of_a_random_key_know_when_one_was_first_sent() {
    let wall = wall(1_000_000);
    let key = IdempotencyKey::random();
    time::advance(KEY_LIFE).await;
    assert_eq!(key.age(&wall, Instant::now()), Duration::ZERO, "not sent");
    drop(key.clone().used_at(Instant::now()));
    time::advance(Duration::from_secs(60)).await;
    drop(key.clone().used_at(Instant::now()));
    time::advance(Duration::from_secs(30)).await;
    assert_eq!(key.age(&wall, Instant::now()), Duration::from_secs(90));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_sent_is_told_with_its_age_and_a_stated_age_is_believed() {
    let wall = wall(1_000_000);
    let sent = IdempotencyKey::sent_now(Instant::now());
    let derived = IdempotencyKey::derive("invoice-42").used_at(Instant::now());
    let stated = SystemTime::UNIX_EPOCH + Duration::from_secs(999_000);
    let stated = IdempotencyKey::random().first_used(stated);
    let stated = stated.used_at(Instant::now());
    time::advance(Duration::from_secs(90)).await;
    let now = Instant::now();
    assert_eq!(sent.used_at(now).age(&wall, now), Duration::from_secs(90));
    assert_eq!(derived.age(&wall, now), Duration::from_secs(90));
    assert_eq!(stated.age(&wall, now), Duration::from_secs(1_090));
    let to_come =
        IdempotencyKey::derive("later").first_used(SystemTime::UNIX_EPOCH + KEY_LIFE * 99);
    assert_eq!(to_come.age(&wall, now), Duration::ZERO);
}

#[test]
fn a_header_has_the_age_of_the_same_key_in_the_extensions() {
    let mut extensions = Extensions::new();
    extensions.insert(
        IdempotencyKey::parse("mine")
            .unwrap()
            .first_used(SystemTime::UNIX_EPOCH),
    );
    for (header, aged) in [("mine", true), ("other", false)] {
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static(header));
        let key = IdempotencyKey::sent_with(&headers, &extensions).unwrap();
        assert_eq!(key.as_str(), header);
        let age = key.age(&wall(1_000), Instant::now());
        assert_eq!(!age.is_zero(), aged, "{header}");
    }
}
