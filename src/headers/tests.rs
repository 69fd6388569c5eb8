//! What real servers and other clients' tests say, as tables, and any bytes at all.

use http::{HeaderValue, header::RETRY_AFTER};
use proptest::prelude::*;

use super::*;

/// Sun, 06 Nov 1994 08:49:37 GMT
const CLOCK: u64 = 784_111_777;
const LIMITED: u16 = 429;

fn hint_at(status: u16, headers: &[(&'static str, &[u8])], clock: u64) -> Option<Hint> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    let now = Instant::now();
    let wall = Wall::set(date::from_epoch(Duration::from_secs(clock)).unwrap(), now);
    hint(StatusCode::from_u16(status).unwrap(), &map, &wall, now)
}

/// The wait in milliseconds, and where it is from.
fn said(status: u16, headers: &[(&'static str, &[u8])]) -> Option<(u128, HintSource)> {
    hint_at(status, headers, CLOCK).map(|hint| (hint.wait.as_millis(), hint.source))
}

#[test]
fn retry_after_is_seconds_a_date_or_an_epoch() {
    use HintSource::{Date, Seconds};
    for (value, millis, source) in [
        ("12", 12_000, Seconds),
        ("\t42 ", 42_000, Seconds),
        ("1.5", 1_500, Seconds),
        ("0.001", 1, Seconds),
        ("999999999", 999_999_999_000, Seconds),
        ("Sun, 06 Nov 1994 08:49:57 GMT", 21_000, Date),
        ("Sunday, 06-Nov-94 08:49:57 GMT", 21_000, Date),
        ("Sun Nov  6 08:49:57 1994", 21_000, Date),
    ] {
        let header = [("retry-after", value.as_bytes())];
        assert_eq!(said(LIMITED, &header), Some((millis, source)), "{value}");
    }
    // Docker Hub's: 31 Mar 2025 17:20:08, ten seconds before it.
    for value in ["1743441608", "1743441608000"] {
        let header = [("retry-after", value.as_bytes())];
        let hint = hint_at(LIMITED, &header, 1_743_441_598).unwrap();
        assert_eq!((hint.wait.as_secs(), hint.source), (11, Date), "{value}");
    }
}

/// None is an error, and none an immediate retry.
#[test]
fn what_names_no_wait_says_nothing() {
    let values: [&[u8]; 23] = [
        b"",
        b" ",
        b"0",
        b"0.0",
        b"-10",
        b"+1",
        b"1.",
        b".5",
        b"1e3",
        b"0x10",
        b"1,5",
        b"12 s",
        b"soon",
        b"nan",
        b"inf",
        b"99999999999999999999999999999999999",
        b"\xb2",
        b"\xff\xfe",
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:27 GMT",
        b"Zun, 32 Nov 1994 08:49:57 GMT",
        b"Fri, 29 Sep 100000 16:26:57 GMT",
        b"1994-11-06",
    ];
    for value in values {
        for name in [
            "retry-after",
            "retry-after-ms",
            "ratelimit",
            "x-ratelimit-reset",
        ] {
            let said = said(LIMITED, &[(name, value)]);
            assert_eq!(said, None, "{name}: {}", value.escape_ascii());
        }
    }
    assert_eq!(said(LIMITED, &[]), None);
    let twice: [(_, &[u8]); 2] = [("retry-after", b"2"), ("retry-after", b"3")];
    assert_eq!(said(LIMITED, &twice), None, "two contradict each other");
}

#[test]
fn the_first_header_that_says_anything_is_heard() {
    let ms: (_, &[u8]) = ("retry-after-ms", b"1500.5");
    let after: (_, &[u8]) = ("retry-after", b"2");
    let ietf: (_, &[u8]) = ("ratelimit", b"\"default\";r=0;t=3");
    let reset: (_, &[u8]) = ("x-ratelimit-reset", b"4");
    let all = [reset, ietf, after, ms];
    let order = [
        (1_500, HintSource::Milliseconds),
        (2_000, HintSource::Seconds),
        (3_000, HintSource::RateLimit),
        (4_000, HintSource::Reset),
    ];
    for (gone, expected) in order.into_iter().enumerate() {
        assert_eq!(said(LIMITED, &all[..4 - gone]), Some(expected));
    }
    let unreadable: (_, &[u8]) = ("retry-after", b"soon");
    let expected = Some((4_000, HintSource::Reset));
    assert_eq!(said(LIMITED, &[unreadable, reset]), expected);
    for status in [200, 201, 204] {
        assert_eq!(said(status, &all), None, "{status} asks for no wait");
    }
    assert_eq!(said(503, &all).unwrap().0, 1_500);
}

#[test]
fn a_reset_counts_on_a_429_or_where_nothing_remains() {
    for (value, millis) in [("12", 12_000), (" 12.25 ", 12_250)] {
        let header = [("x-ratelimit-reset", value.as_bytes())];
        assert_eq!(said(LIMITED, &header), Some((millis, HintSource::Reset)));
    }
    let clock = 1_718_459_500;
    for (value, millis) in [
        ("1718459532", 33_000),
        ("1718459532.5", 33_500),
        ("1718459532000", 33_000),
        ("2024-06-15T13:52:12Z", 33_000),
    ] {
        let header = [("x-ratelimit-reset", value.as_bytes())];
        let hint = hint_at(LIMITED, &header, clock).expect(value);
        assert_eq!(hint.wait.as_millis(), millis, "{value}");
    }
    let reset: (_, &[u8]) = ("x-ratelimit-reset", b"12");
    for (remaining, hint) in [("0", true), ("1", false), ("", false)] {
        let headers = [reset, ("x-ratelimit-remaining", remaining.as_bytes())];
        assert_eq!(said(503, &headers).is_some(), hint, "{remaining}");
        assert!(said(LIMITED, &headers).is_some());
    }
    assert_eq!(said(503, &[reset]), None);
}

#[test]
fn each_draft_of_the_ietf_is_read() {
    let drafts: [&[(&'static str, &[u8])]; 5] = [
        &[
            ("ratelimit-limit", b"100, 100;w=60"),
            ("ratelimit-remaining", b"0"),
            ("ratelimit-reset", b"30"),
        ],
        &[("ratelimit", b"limit=100, remaining=0, reset=30")],
        &[("ratelimit", b"\"default\";r=0;t=30")],
        &[
            (
                "ratelimit-policy",
                b"\"default\";q=100;w=60;pk=:cHsdsRa894==:",
            ),
            ("ratelimit", b"\"default\";r=0;t=30;pk=:cHsdsRa894==:"),
        ],
        &[(
            "ratelimit",
            b"\"burst\";r=5;t=50, \"day\";r=0;t=30, \"minute\";r=0;t=7",
        )],
    ];
    let expected = Some((30_000, HintSource::RateLimit));
    for headers in drafts {
        for status in [429, 503] {
            assert_eq!(said(status, headers), expected, "{headers:?}");
        }
    }
    let left: (_, &[u8]) = ("ratelimit", b"\"default\";r=5;t=30");
    assert_eq!(
        said(LIMITED, &[left]),
        expected,
        "a 429 says that it is meant"
    );
    assert_eq!(said(503, &[left]), None);
    let several: (_, &[u8]) = ("ratelimit", b"\"a\";r=5;t=30, \"b\";r=7;t=60");
    assert_eq!(
        said(LIMITED, &[several]),
        None,
        "which of them, it does not say"
    );
}

#[test]
fn what_is_no_structured_field_says_nothing() {
    let values: [&[u8]; 10] = [
        b"\"default\";r=0",
        b"\"default\";t=30",
        b"\"default\";r=0;t=0",
        b"\"default\";r=0;t=-30",
        b"\"default\";r=0;t=1.5",
        b"\"default\";r=0;t=9999999999999999",
        b"(\"default\");r=0;t=30",
        b"limit=100, remaining=0",
        b"limit=100, remaining=(0), reset=30",
        b"\"default\";r=0;t=30,",
    ];
    for value in values {
        let said = said(LIMITED, &[("ratelimit", value)]);
        assert_eq!(said, None, "{}", value.escape_ascii());
    }
}

/// The names of all headers that are read.
const NAMES: [&str; 9] = [
    "retry-after-ms",
    "retry-after",
    "ratelimit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-reset",
    "x-ratelimit-remaining",
    "date",
    "age",
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    let bytes = (0x20..=0xffu8).prop_filter("no header byte", |byte| *byte != 0x7f);
    prop_oneof![
        prop::collection::vec(bytes, 0..40),
        "[0-9]{1,25}(\\.[0-9]{0,20})?".prop_map(String::into_bytes),
        "(Sun|Sunday), [0-9]{2}[ -](Nov|Feb)[ -][0-9]{2,4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
            .prop_map(String::into_bytes),
        "\"a\";r=[0-9]{1,16};t=[0-9]{1,16}(, \"b\";r=0;t=-?[0-9]{1,3})?"
            .prop_map(String::into_bytes),
        "limit=[0-9]{1,3}, remaining=[0-9]{1,3}, reset=[0-9]{1,16}".prop_map(String::into_bytes),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?Z"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    /// Whatever the bytes, the status and the clock: no panic, and no wait of zero.
    #[test]
    fn any_headers_name_no_wait_or_one_above_zero(
        headers in prop::collection::vec((prop::sample::select(&NAMES[..]), value()), 0..6),
        status in prop::sample::select(vec![200_u16, 404, 408, 429, 500, 503]),
        clock in prop_oneof![0_u64..4_000_000_000, Just(253_402_300_799), Just(1 << 40)],
    ) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let hint = hint_at(status, &headers, clock);
        prop_assert!(hint.is_none_or(|hint| !hint.wait.is_zero()));
        prop_assert!(hint.is_none() || status >= 300);
    }

    #[test]
    fn seconds_are_read_exactly(seconds in 1_u64..=1_000_000_000) {
        let text = seconds.to_string();
        let hint = hint_at(503, &[("retry-after", text.as_bytes())], CLOCK).unwrap();
        prop_assert_eq!(hint.wait, Duration::from_secs(seconds));
        prop_assert_eq!(hint.source, HintSource::Seconds);
    }
}

#[test]
fn a_header_of_many_values_is_not_looked_through() {
    let mut headers = HeaderMap::new();
    for _ in 0..1_000 {
        headers.append(RETRY_AFTER, 1.into());
    }
    assert_eq!(single(&headers, &RETRY_AFTER), None);
}
