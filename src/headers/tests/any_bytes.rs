//! What holds of any bytes at all.

use proptest::prelude::*;

use super::*;
use crate::headers::check::{NAMES, PIECES, check};

/// The bytes that stand for an answer.
fn input(status: u16, clock: u64, fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut input = [&status.to_be_bytes()[..], &clock.to_be_bytes()].concat();
    for (name, value) in fields {
        let name = NAMES.iter().position(|known| known == name).unwrap();
        input.push(u8::try_from(name).unwrap());
        input.extend_from_slice(value);
        input.push(0);
    }
    input
}

/// Fields that a wait is read from, and its source. The values are pieces by number.
const WAITS: [(Fields, HintSource); 5] = [
    (&[("retry-after-ms", b"\x04")], HintSource::Millis),
    (&[("retry-after", b"\x04")], HintSource::Seconds),
    (
        &[("retry-after", b"\x0e"), ("date", b"\x0f")],
        HintSource::Date,
    ),
    (
        &[("ratelimit", b"\x15\x17\x01\x18\x03")],
        HintSource::RateLimit,
    ),
    (
        &[("x-ratelimit-reset", b"\x10")],
        HintSource::XRateLimitReset,
    ),
];

/// Fields that say that 60 of 100 are left.
const LIMITS: [Fields; 4] = [
    &[
        ("x-ratelimit-limit", b"\x04"),
        ("x-ratelimit-remaining", b"\x03"),
        ("x-ratelimit-reset", b"\x05"),
    ],
    &[
        ("ratelimit-limit", b"\x04\x1d\x04\x1a\x03"),
        ("ratelimit-remaining", b"\x03"),
        ("ratelimit-reset", b"\x03"),
    ],
    &[("ratelimit", b"\x12\x04\x1d\x13\x03\x1d\x14\x03")],
    &[
        ("ratelimit", b"\x15\x17\x03\x18\x03"),
        (
            "ratelimit-policy",
            b"\x15\x19\x04\x1a\x03\x1c\x1d\x16\x19\x03\x1b",
        ),
    ],
];

/// Fields that say that 100 of 60 are left.
const ODD: [Fields; 2] = [
    &[
        ("x-ratelimit-limit", b"\x03"),
        ("x-ratelimit-remaining", b"\x04"),
        ("x-ratelimit-reset", b"\x05"),
    ],
    &[("ratelimit", b"\x12\x03\x1d\x13\x04\x1d\x14\x03")],
];

type Fields = &'static [(&'static str, &'static [u8])];

#[test]
fn the_bytes_reach_every_reading() {
    for (fields, source) in WAITS {
        let (hint, _) = check(&input(429, CLOCK, fields));
        assert_eq!(hint.unwrap().source, source);
    }
    for fields in LIMITS {
        let (_, said) = check(&input(200, CLOCK, fields));
        let said = said.map(|said| (said.remaining, said.limit));
        assert_eq!(said, Some((60, 100)), "{fields:?}");
    }
    for fields in ODD {
        let (_, said) = check(&input(200, CLOCK, fields));
        assert_eq!(said, None, "{fields:?}");
    }
}

/// Mostly pieces, some characters, a few of any bytes.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        8 => 1..u8::try_from(PIECES.len()).unwrap(),
        2 => b' '..=b'~',
        1 => any::<u8>(),
    ]
}

/// A known one, with fields of any bytes behind it, and some of its bytes changed.
fn an_answer() -> impl Strategy<Value = Vec<u8>> {
    let waits = WAITS.iter().map(|(fields, _)| *fields);
    let known: Vec<Fields> = waits.chain(LIMITS).chain(ODD).collect();
    let status = prop_oneof![2 => Just(429), 1 => Just(503), 1 => any::<u16>()];
    let clock = prop_oneof![Just(CLOCK), any::<u64>()];
    let field = (
        prop::sample::select(&NAMES[..]),
        prop::collection::vec(byte(), 0..8),
    );
    let fields = prop::collection::vec(field, 0..4);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), byte()), 0..4);
    let parts = (status, clock, prop::sample::select(known), fields, changes);
    parts.prop_map(|(status, clock, known, fields, changes)| {
        let fields = fields.iter().map(|(name, value)| (*name, &value[..]));
        let fields: Vec<_> = known.iter().copied().chain(fields).collect();
        let mut input = input(status, clock, &fields);
        for (index, byte) in changes {
            let index = index.index(input.len());
            input[index] = byte;
        }
        input
    })
}

proptest! {
    #[test]
    fn any_headers_are_nothing_or_sound(input in an_answer()) {
        check(&input);
    }

    #[test]
    fn any_bytes_are_nothing_or_sound(input in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&input);
    }
}
