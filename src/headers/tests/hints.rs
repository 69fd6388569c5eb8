//! Which header a hint comes from, and by which clock.

use super::*;

/// All that can name a wait, the first to be asked first.
const ALL: [(&str, &str); 6] = [
    ("retry-after-ms", "1500"),
    ("retry-after", "12"),
    ("ratelimit", "\"default\";r=0;t=20"),
    ("x-ratelimit-limit", "100"),
    ("x-ratelimit-remaining", "0"),
    ("x-ratelimit-reset", "1718459532"),
];

#[test]
fn the_first_header_that_names_a_wait_is_taken() {
    assert_eq!(hint(CLOCK, 429, &ALL), from(HintSource::Millis, 1_500));
    assert_eq!(
        hint(CLOCK, 429, &ALL[1..]),
        from(HintSource::Seconds, 12_000)
    );
    assert_eq!(
        hint(CLOCK, 429, &ALL[2..]),
        from(HintSource::RateLimit, 20_000)
    );
    assert_eq!(
        hint(CLOCK, 429, &ALL[3..]),
        from(HintSource::XRateLimitReset, 33_000)
    );
    assert_eq!(hint(CLOCK, 429, &ALL[3..5]), None);
}

#[test]
fn a_header_that_says_nothing_lets_the_next_one_speak() {
    for nothing in [
        "0",
        "-1",
        "soon",
        "",
        "\u{ff}",
        "1600000000",
        "Sat, 15 Jun 2024 13:51:40 GMT",
    ] {
        let fields = [
            ("retry-after-ms", "0"),
            ("retry-after", nothing),
            ("ratelimit", "\"default\";r=0;t=0"),
            ("x-ratelimit-reset", "30"),
        ];
        let hint = hint(CLOCK, 429, &fields);
        assert_eq!(hint, from(HintSource::XRateLimitReset, 30_000), "{nothing}");
    }
}

#[test]
fn a_success_names_no_wait() {
    for status in [200, 201, 204, 299] {
        assert_eq!(hint(CLOCK, status, &ALL), None, "{status}");
    }
    for status in [301, 400, 429, 500, 503, 999] {
        assert!(hint(CLOCK, status, &ALL).is_some(), "{status}");
    }
}

#[test]
fn milliseconds_are_never_an_epoch() {
    let table = [
        ("1", Some(ms(1))),
        ("0.5", Some(Duration::from_micros(500))),
        ("1500.25", Some(Duration::from_micros(1_500_250))),
        ("1718459532123", Some(ms(1_718_459_532_123))),
        ("18446744073709551615", Some(ms(u64::MAX))),
        ("0", None),
        ("0.0000001", None),
        ("-1", None),
        ("18446744073709551616", None),
        ("Sat, 15 Jun 2024 13:52:12 GMT", None),
    ];
    for (value, wait) in table {
        let hint = hint(CLOCK, 429, &[("retry-after-ms", value)]);
        assert_eq!(hint.map(|hint| hint.wait), wait, "{value}");
    }
}

#[test]
fn dates_and_epochs_are_read_alike() {
    for value in [
        "Sat, 15 Jun 2024 13:52:12 GMT",
        "Saturday, 15-Jun-24 13:52:12 GMT",
        "Sat Jun 15 13:52:12 2024",
        "sat, 15 jun 2024 13:52:12 gmt",
        "1718459532",
        "1718459532.0",
        "1718459532000",
        "2024-06-15T13:52:12Z",
    ] {
        let (after, reset) = ([("retry-after", value)], [("x-ratelimit-reset", value)]);
        assert_eq!(
            hint(CLOCK, 429, &after),
            from(HintSource::Date, 33_000),
            "{value}"
        );
        let reset = hint(CLOCK, 429, &reset);
        assert_eq!(reset, from(HintSource::XRateLimitReset, 33_000), "{value}");
    }
}

#[test]
fn a_reset_counts_after_a_refusal_or_where_nothing_is_left() {
    let reset = |status, remaining: &[&'static str]| {
        let mut fields = vec![("x-ratelimit-reset", "30")];
        fields.extend(
            remaining
                .iter()
                .map(|value| ("x-ratelimit-remaining", *value)),
        );
        hint(CLOCK, status, &fields).map(|hint| hint.wait)
    };
    let thirty = Some(secs(30));
    assert_eq!(reset(429, &[]), thirty);
    assert_eq!(reset(429, &["7"]), thirty);
    assert_eq!(reset(503, &["0"]), thirty);
    assert_eq!(reset(503, &["0.0"]), thirty);
    assert_eq!(reset(503, &[]), None);
    assert_eq!(reset(503, &["7"]), None);
    assert_eq!(reset(503, &["none"]), None);
    assert_eq!(reset(503, &["0", "0"]), None);
}

#[test]
fn dates_are_read_by_the_servers_own_clock() {
    let date = "Sat, 15 Jun 2024 13:51:40 GMT";
    let reset = "Sat, 15 Jun 2024 13:52:12 GMT";
    let wait = |clock, fields: &[(&'static str, &str)]| {
        let fields = [fields, &[("retry-after", reset)]].concat();
        hint(clock, 429, &fields).map(|hint| hint.wait)
    };
    // Whatever the local clock says: an hour late, an hour early, 1970, the year 584 billion.
    for clock in [CLOCK, CLOCK + 3_600, CLOCK - 3_600, 0, u64::MAX / 2] {
        assert_eq!(wait(clock, &[("date", date)]), Some(secs(33)), "{clock}");
    }
    // Where the answer has no `Date` that can be trusted, the local clock decides.
    let clock = CLOCK - 60;
    let local = Some(secs(93));
    assert_eq!(wait(clock, &[]), local);
    assert_eq!(wait(clock, &[("date", "today")]), local);
    assert_eq!(wait(clock, &[("date", date), ("date", date)]), local);
    assert_eq!(wait(clock, &[("date", date), ("age", "30")]), local);
    assert_eq!(wait(clock, &[("date", date), ("age", "old")]), local);
    assert_eq!(
        wait(clock, &[("date", date), ("age", "0"), ("age", "0")]),
        local
    );
    assert_eq!(wait(clock, &[("date", date), ("age", "0")]), Some(secs(33)));
    // A `Date` after the reset: it has passed.
    assert_eq!(
        wait(clock, &[("date", "Sat, 15 Jun 2024 13:52:12 GMT")]),
        None
    );
}

#[test]
fn a_delta_does_not_depend_on_any_clock() {
    for date in [
        "Sat, 15 Jun 2024 13:51:40 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "never",
    ] {
        for value in ["12", "12.0"] {
            let hint = hint(0, 429, &[("retry-after", value), ("date", date)]);
            assert_eq!(hint, from(HintSource::Seconds, 12_000), "{value} {date}");
        }
    }
}

#[test]
fn every_draft_names_a_wait() {
    let table: [(&[(&str, &str)], Option<u64>); 24] = [
        // Draft 03 to 06.
        (
            &[
                ("ratelimit-limit", "10, 10;w=1, 1000;w=60"),
                ("ratelimit-remaining", "0"),
                ("ratelimit-reset", "30"),
            ],
            Some(30),
        ),
        (
            &[
                ("ratelimit-limit", "10"),
                ("ratelimit-remaining", "5"),
                ("ratelimit-reset", "30"),
            ],
            Some(30),
        ),
        (&[("ratelimit-reset", "30")], Some(30)),
        (&[("ratelimit-reset", "0")], None),
        (&[("ratelimit-remaining", "0")], None),
        (
            &[("ratelimit-reset", "30"), ("ratelimit-reset", "30")],
            None,
        ),
        // GitLab sends an epoch.
        (
            &[
                ("ratelimit-remaining", "0"),
                ("ratelimit-reset", "1718459532"),
            ],
            Some(33),
        ),
        // Draft 07.
        (
            &[("ratelimit", "limit=10, remaining=0, reset=30")],
            Some(30),
        ),
        (&[("ratelimit", "limit=10,remaining=5,reset=30")], Some(30)),
        (
            &[
                ("ratelimit", "limit=10, remaining=0"),
                ("ratelimit", "reset=30"),
            ],
            Some(30),
        ),
        (&[("ratelimit", "limit=10, remaining=0, reset=-30")], None),
        (
            &[("ratelimit", "limit=10, remaining=0, reset=30, reset=40")],
            None,
        ),
        (&[("ratelimit", "limit=10, remaining=0, reset=30,")], None),
        // From draft 08 on.
        (&[("ratelimit", "\"default\";r=50;t=30")], Some(30)),
        (
            &[("ratelimit", "\"default\"; r=0; t=30; pk=:cHsdsRa894==:")],
            Some(30),
        ),
        (&[("ratelimit", "default;r=50;t=30")], Some(30)),
        (&[("ratelimit", "\"default\";r=0")], None),
        (&[("ratelimit", "\"default\";t=30")], None),
        (&[("ratelimit", "\"default\";r=0;t=\"30\"")], None),
        (&[("ratelimit", "\"default;r=0;t=30")], None),
        // Of several the longest that is used up: all of them hold.
        (
            &[(
                "ratelimit",
                "\"burst\";r=0;t=5, \"daily\";r=0;t=90, \"yearly\";r=5;t=9999",
            )],
            Some(90),
        ),
        (
            &[
                ("ratelimit", "\"burst\";r=0;t=5"),
                ("ratelimit", "\"daily\";r=9;t=90"),
            ],
            Some(5),
        ),
        // Nobody knows which one refused.
        (
            &[("ratelimit", "\"burst\";r=1;t=5, \"daily\";r=9;t=90")],
            None,
        ),
        // A draft that can't be read lets the older one speak.
        (&[("ratelimit", "?"), ("ratelimit-reset", "30")], Some(30)),
    ];
    for (fields, wait) in table {
        let wait = wait.and_then(|wait| from(HintSource::RateLimit, wait * 1_000));
        assert_eq!(hint(CLOCK, 429, fields), wait, "{fields:?}");
    }
}

#[test]
fn a_draft_counts_on_other_answers_where_nothing_is_left() {
    for used_up in [
        "\"default\";r=0;t=30",
        "\"default\";r=0;t=30, \"daily\";r=9;t=90",
        "limit=10, remaining=0, reset=30",
    ] {
        let hint = hint(CLOCK, 503, &[("ratelimit", used_up)]);
        assert_eq!(hint, from(HintSource::RateLimit, 30_000), "{used_up}");
    }
    for left in ["\"default\";r=1;t=30", "limit=10, remaining=1, reset=30"] {
        assert_eq!(hint(CLOCK, 503, &[("ratelimit", left)]), None, "{left}");
    }
}

#[test]
fn real_servers() {
    let table: [(&str, &[(&str, &str)], Option<Hint>); 10] = [
        (
            "Ploton",
            &[
                ("retry-after", "12"),
                ("x-ratelimit-limit", "100"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1718459532"),
            ],
            from(HintSource::Seconds, 12_000),
        ),
        (
            "Docker Hub, an epoch",
            &[
                ("retry-after", "1743441608"),
                ("date", "Mon, 31 Mar 2025 17:19:38 GMT"),
            ],
            from(HintSource::Date, 31_000),
        ),
        (
            "rate-limiter-flexible, a fraction",
            &[("retry-after", "12.345")],
            from(HintSource::Seconds, 12_345),
        ),
        ("tower_governor, floored", &[("retry-after", "0")], None),
        (
            "tower-rate-tier, floored",
            &[("retry-after", "0"), ("x-ratelimit-reset", "1718459501")],
            from(HintSource::XRateLimitReset, 2_000),
        ),
        (
            "express-rate-limit, rounded up",
            &[
                ("date", "Sat, 15 Jun 2024 13:51:40 GMT"),
                ("x-ratelimit-reset", "1718459532"),
            ],
            from(HintSource::XRateLimitReset, 33_000),
        ),
        (
            "fastify, a delta",
            &[("x-ratelimit-reset", "32")],
            from(HintSource::XRateLimitReset, 32_000),
        ),
        (
            "slowapi, a float",
            &[("x-ratelimit-reset", "1718459532.75")],
            from(HintSource::XRateLimitReset, 33_750),
        ),
        (
            "Flask-Limiter, a second late",
            &[("x-ratelimit-reset", "1718459533")],
            from(HintSource::XRateLimitReset, 34_000),
        ),
        ("nginx", &[], None),
    ];
    for (server, fields, expected) in table {
        assert_eq!(hint(CLOCK, 429, fields), expected, "{server}");
    }
    // Flask-Limiter sends it on every answer.
    assert_eq!(hint(CLOCK, 200, &[("retry-after", "32")]), None);
}

#[test]
fn logs_name_the_header() {
    let names = [
        (HintSource::Millis, "retry-after-ms"),
        (HintSource::Seconds, "retry-after"),
        (HintSource::Date, "retry-after date"),
        (HintSource::RateLimit, "ratelimit"),
        (HintSource::XRateLimitReset, "x-ratelimit-reset"),
    ];
    for (source, name) in names {
        assert_eq!(source.name(), name);
    }
}
