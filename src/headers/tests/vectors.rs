//! The `Retry-After` vectors of other libraries. Where this crate differs on purpose, the row says so.
//!
//! Two things differ throughout: a date is a second later, for nobody knows how the server rounded, and the cap on a
//! wait is the backoff's business, so that here every wait is read as it stands.

use super::*;

#[test]
fn stainless() {
    // Fri, 29 Sep 2023 16:26:37 GMT
    let clock = 1_696_004_797;
    let table = [
        ("20", Some(20)),
        ("0", None),
        ("-10", None),
        ("60", Some(60)),
        ("61", Some(61)),
        ("120", Some(120)),
        ("121", Some(121)),
        ("Fri, 29 Sep 2023 16:26:57 GMT", Some(20 + 1)),
        ("Fri, 29 Sep 2023 16:26:37 GMT", None),
        ("Fri, 29 Sep 2023 16:26:27 GMT", None),
        ("Fri, 29 Sep 2023 16:27:37 GMT", Some(60 + 1)),
        ("Fri, 29 Sep 2023 16:27:38 GMT", Some(61 + 1)),
        ("Fri, 29 Sep 2023 16:28:37 GMT", Some(120 + 1)),
        ("Fri, 29 Sep 2023 16:28:38 GMT", Some(121 + 1)),
        ("99999999999999999999999999999999999", None),
        ("inf", None),
        ("nan", None),
        ("Zun, 29 Sep 2023 16:26:27 GMT", None),
        ("Zun, 29 Sep 2023 16:26:57 GMT", None),
        ("Fri, 29 Sep 100000 16:26:57 GMT", None),
        ("", None),
    ];
    for (value, wait) in table {
        assert_eq!(retry_after(clock, value), wait.map(secs), "{value}");
    }
    for (value, millis) in [("120000", 120_000), ("120001", 120_001)] {
        let hint = hint(clock, 429, &[("retry-after-ms", value)]);
        assert_eq!(hint, from(HintSource::Millis, millis), "{value}");
    }
    // Of several, the longest, as of `Retry-After`.
    for (one, other) in [("300", "1500"), ("1500", "300"), ("1500", "soon")] {
        let fields = [("retry-after-ms", one), ("retry-after-ms", other)];
        let hint = hint(clock, 429, &fields);
        assert_eq!(hint, from(HintSource::Millis, 1_500), "{one}, {other}");
    }
}

#[test]
fn go_retryablehttp() {
    // Fri, 31 Dec 1999 23:59:57 GMT
    let clock = 946_684_797;
    let table: [(&[&str], Option<u64>); 12] = [
        (&["2"], Some(2)),
        (&["Fri, 31 Dec 1999 23:59:59 GMT"], Some(2 + 1)),
        // Past: 0 there, so at once.
        (&["Fri, 31 Dec 1999 23:59:00 GMT"], None),
        (&[], None),
        // The first there; the longest keeps to both.
        (&["2", "3"], Some(3)),
        (&["3", "2"], Some(3)),
        (&["soon", "2"], Some(2)),
        (&[""], None),
        (&["-2"], None),
        (&["Fri, 32 Dec 1999 23:59:59 GMT"], None),
        (&["badbadbad"], None),
        // A negative wait there, by overflow, so at once. Here an epoch in 2262.
        (&["9223372037"], Some(9_223_372_037 - 946_684_797 + 1)),
    ];
    for (values, wait) in table {
        let fields: Vec<_> = values.iter().map(|value| ("retry-after", *value)).collect();
        let hint = hint(clock, 429, &fields);
        assert_eq!(hint.map(|hint| hint.wait), wait.map(secs), "{values:?}");
    }
    // Not read there: this crate hears every answer but a 2xx, and retries only some.
    assert_eq!(
        hint(clock, 502, &[("retry-after", "2")]),
        from(HintSource::Seconds, 2_000)
    );
}

#[test]
fn urllib3() {
    // Mon, 03 Jun 2019 11:00:00 GMT
    let clock = 1_559_559_600;
    let table = [
        ("0", None),
        ("1000", Some(1_000)),
        ("\t42 ", Some(42)),
        ("3600", Some(3_600)),
        ("Mon, 3 Jun 2019 12:00:00 UTC", Some(3_600 + 1)),
        ("Mon, 3 Jun 2019 11:00:00 UTC", None),
        ("Mon, 03 Jun 2019 11:30:12 GMT", Some(1_812 + 1)),
        ("Monday, 03-Jun-19 11:30:12 GMT", Some(1_812 + 1)),
        ("Mon Jun  3 11:30:12 2019", Some(1_812 + 1)),
        // An error there, which hides the response.
        ("-1", None),
        ("+1", None),
        ("\u{b2}", None),
        // An error there.
        ("1.0", Some(1)),
        ("21600", Some(21_600)),
        // Cut to 21,600 there, so too early.
        ("21601", Some(21_601)),
    ];
    for (value, wait) in table {
        assert_eq!(retry_after(clock, value), wait.map(secs), "{value:?}");
    }
}

#[test]
fn envoy() {
    let clock = 1_000_000_000;
    assert_eq!(retry_after(clock, "5"), Some(secs(5)));
    // None there.
    assert_eq!(retry_after(clock, "2.5"), Some(ms(2_500)));
    // None there: it reads no dates.
    let date = retry_after(clock, "Fri, 17 Jul 2020 11:59:51 GMT");
    assert_eq!(date, Some(secs(1_594_987_191 - clock + 1)));

    let table = [
        ("1000000007", Some(ms(7_000 + 1_000))),
        // Sizes tell deltas from epochs, so this is neither now nor past.
        ("1000000000", Some(secs(1_000_000_000))),
        ("999999999", Some(secs(999_999_999))),
        // None there.
        (
            "1595320702.1234",
            Some(Duration::new(595_320_702 + 1, 123_400_000)),
        ),
    ];
    for (value, wait) in table {
        let hint = hint(clock, 429, &[("x-ratelimit-reset", value)]);
        assert_eq!(hint.map(|hint| hint.wait), wait, "{value}");
    }
}

#[test]
fn what_names_no_wait_is_none() {
    for value in [
        " ",
        "soon",
        "1 2",
        "2, 3",
        "1e3",
        "1_000",
        "12s",
        "0x10",
        "0.0",
        "0.0000000001",
        "-0",
        "NaN",
        "-inf",
        "infinity",
        "18446744073709551616",
        "\u{ff}",
        "\"12\"",
        "PT12S",
        "1600000000",
        "1600000000000",
    ] {
        assert_eq!(retry_after(CLOCK, value), None, "{value}");
    }
}
