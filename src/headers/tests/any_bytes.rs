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

/// Mostly pieces, some characters, a few of any bytes.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        8 => 1..u8::try_from(PIECES.len()).unwrap(),
        2 => b' '..=b'~',
        1 => any::<u8>(),
    ]
}

fn an_answer() -> impl Strategy<Value = Vec<u8>> {
    let status = prop_oneof![Just(429), Just(503), any::<u16>()];
    let clock = prop_oneof![Just(CLOCK), any::<u64>()];
    let field = (
        prop::sample::select(&NAMES[..]),
        prop::collection::vec(byte(), 0..8),
    );
    (status, clock, prop::collection::vec(field, 0..10)).prop_map(|(status, clock, fields)| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, &value[..]))
            .collect();
        input(status, clock, &fields)
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

#[test]
fn the_generator_reaches_every_reading() {
    let table: [(&[(&str, &[u8])], HintSource); 5] = [
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
    for (fields, source) in table {
        let (hint, _) = check(&input(429, CLOCK, fields));
        assert_eq!(hint.unwrap().source, source);
    }

    let drafts: [&[(&str, &[u8])]; 4] = [
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
    for fields in drafts {
        let (_, said) = check(&input(200, CLOCK, fields));
        assert_eq!(said.map(|said| said.limit), Some(100), "{fields:?}");
    }
}
