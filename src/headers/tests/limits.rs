//! What answers say of their rate limit.

use super::*;
use crate::headers::when::When;

const fn limit(limit: u32, remaining: u32, reset: When) -> Said {
    Said {
        limit,
        remaining,
        reset,
        window: None,
        date: None,
    }
}

const fn with_window(said: Said, seconds: u64) -> Option<Said> {
    Some(Said {
        window: Some(secs(seconds)),
        ..said
    })
}

const IN_30: When = When::In(secs(30));
const AT_RESET: When = When::At(secs(1_718_459_532));

#[test]
fn x_headers_are_read_whatever_the_reset_looks_like() {
    let table = [
        ("1718459532", AT_RESET),
        ("1718459532.0", AT_RESET),
        ("1718459532000", AT_RESET),
        ("2024-06-15T13:52:12Z", AT_RESET),
        (" 1718459532\t", AT_RESET),
        ("1718459532.75", When::At(ms(1_718_459_532_750))),
        ("30", IN_30),
        ("30.5", When::In(ms(30_500))),
        ("0", When::In(Duration::ZERO)),
        // Past, perhaps: the server's clock is its own.
        ("1600000000", When::At(secs(1_600_000_000))),
    ];
    for (reset, when) in table {
        let said = said(&[
            ("x-ratelimit-limit", "100"),
            ("x-ratelimit-remaining", "99"),
            ("x-ratelimit-reset", reset),
        ]);
        assert_eq!(said, Some(limit(100, 99, when)), "{reset}");
    }
}

#[test]
fn odd_x_headers_say_nothing() {
    let table = [
        ("", "99", "30"),
        ("0", "0", "30"),
        ("100", "101", "30"),
        ("100", "-1", "30"),
        ("-100", "-200", "30"),
        ("+100", "99", "30"),
        ("100.0", "99", "30"),
        ("100", "9.5", "30"),
        ("100", "", "30"),
        ("100", "99", ""),
        ("100", "99", "-30"),
        ("100", "99", "soon"),
        ("4294967296", "99", "30"),
        ("unlimited", "99", "30"),
        ("100", "\u{ff}", "30"),
        ("100, 100", "99, 99", "30, 30"),
    ];
    for (limit, remaining, reset) in table {
        let fields = [
            ("x-ratelimit-limit", limit),
            ("x-ratelimit-remaining", remaining),
            ("x-ratelimit-reset", reset),
        ];
        assert_eq!(said(&fields), None, "{fields:?}");
    }
    let whole = [
        ("x-ratelimit-limit", "100"),
        ("x-ratelimit-remaining", "99"),
        ("x-ratelimit-reset", "30"),
    ];
    assert_eq!(said(&whole), Some(limit(100, 99, IN_30)));
    for n in 0..whole.len() {
        let mut fields = whole.to_vec();
        let field = fields.remove(n);
        assert_eq!(said(&fields), None, "without {field:?}");
        fields.extend([field, field]);
        assert_eq!(said(&fields), None, "{field:?} twice");
    }
}

#[test]
fn every_draft_is_understood() {
    let said_30 = limit(100, 99, IN_30);
    let old = [("ratelimit-remaining", "99"), ("ratelimit-reset", "30")];
    let (r, t) = (old[0], old[1]);
    let table: [(&str, &[(&str, &str)], Option<Said>); 18] = [
        ("03", &[("ratelimit-limit", "100"), r, t], Some(said_30)),
        (
            "03, a window",
            &[("ratelimit-limit", "100, 100;w=60;comment=\"fixed\""), r, t],
            with_window(said_30, 60),
        ),
        (
            "03, several",
            &[("ratelimit-limit", "100, 10;w=1, 100;w=60"), r, t],
            with_window(said_30, 60),
        ),
        (
            "03, two windows",
            &[("ratelimit-limit", "100, 100;w=1, 100;w=60"), r, t],
            Some(said_30),
        ),
        (
            "06",
            &[
                ("ratelimit-limit", "100"),
                r,
                t,
                ("ratelimit-policy", "100;w=60"),
            ],
            with_window(said_30, 60),
        ),
        (
            "06, other",
            &[
                ("ratelimit-limit", "100"),
                r,
                t,
                ("ratelimit-policy", "1000;w=60"),
            ],
            Some(said_30),
        ),
        (
            "06, an epoch",
            &[
                ("ratelimit-limit", "100"),
                r,
                ("ratelimit-reset", "1718459532"),
            ],
            Some(limit(100, 99, AT_RESET)),
        ),
        ("06, no limit", &[r, t], None),
        ("06, no reset", &[("ratelimit-limit", "100"), r], None),
        (
            "07",
            &[("ratelimit", "limit=100, remaining=99, reset=30")],
            Some(said_30),
        ),
        (
            "07, a window",
            &[
                ("ratelimit", "limit=100, remaining=99, reset=30"),
                ("ratelimit-policy", "10;w=1, 100;w=60"),
            ],
            with_window(said_30, 60),
        ),
        (
            "07, a key twice",
            &[
                ("ratelimit", "limit=100, remaining=99, reset=30"),
                ("ratelimit", "limit=100"),
            ],
            None,
        ),
        (
            "08",
            &[
                ("ratelimit", "\"default\";r=99;t=30"),
                ("ratelimit-policy", "\"default\";q=100;w=60"),
            ],
            with_window(said_30, 60),
        ),
        (
            "08, no window",
            &[
                ("ratelimit", "\"default\";r=99;t=30"),
                ("ratelimit-policy", "\"default\";q=100"),
            ],
            Some(said_30),
        ),
        (
            "08, a window of 0",
            &[
                ("ratelimit", "\"default\";r=99;t=30"),
                ("ratelimit-policy", "\"default\";q=100;w=0"),
            ],
            Some(said_30),
        ),
        (
            "08, no policy",
            &[("ratelimit", "\"default\";r=99;t=30")],
            None,
        ),
        (
            "08, another's",
            &[
                ("ratelimit", "\"default\";r=99;t=30"),
                ("ratelimit-policy", "\"burst\";q=100;w=60"),
            ],
            None,
        ),
        (
            "08, no t",
            &[
                ("ratelimit", "\"default\";r=99"),
                ("ratelimit-policy", "\"default\";q=100;w=60"),
            ],
            None,
        ),
    ];
    for (draft, fields, expected) in table {
        assert_eq!(said(fields), expected, "draft {draft}");
    }
}

#[test]
fn of_several_limits_only_one_on_requests_is_plain() {
    let two = "\"burst\";q=100;w=60,\"daily\";q=1000;w=86400";
    let other_unit = "\"default\";q=100;w=60, \"tasks\";q=10;qu=\"concurrent-requests\"";
    let partition = "\"peruser\";q=100;w=60;pk=:cHsdsRa894==:";
    let burst = with_window(limit(100, 50, IN_30), 60);
    let table = [
        ("\"burst\";r=50;t=30", two, burst),
        ("\"burst\";r=50;t=30, \"daily\";r=500;t=9000", two, None),
        ("\"default\";r=50;t=30, \"tasks\";r=3", other_unit, burst),
        ("\"tasks\";r=3;t=30", other_unit, None),
        ("\"peruser\"; r=50; t=30", partition, burst),
        ("\"peruser\";r=50;t=30;pk=:cHsdsRa894==:", partition, burst),
        (
            "\"peruser\";r=50;t=30;pk=:YQ==:, \"peruser\";r=9;t=30;pk=:Yg==:",
            partition,
            None,
        ),
        (
            "\"a \\\"b\\\"\";r=50;t=30",
            "\"a \\\"b\\\"\";q=100;w=60;qu=\"requests\"",
            burst,
        ),
        (
            "\"burst\";r=50;t=30",
            "\"burst\";q=100;w=60, \"burst\";q=200;w=60",
            None,
        ),
        // The last of equal parameters counts: RFC 9651, 4.2.3.2.
        ("\"burst\";r=9;r=50;t=30", "\"burst\";q=9;q=100;w=60", burst),
        ("\"burst\";r=50;r=\"x\";t=30", two, None),
        // Not a policy that anybody could read.
        ("\"burst\";r=50;t=30", "\"burst\";q=100;w=60,", None),
    ];
    for (limits, policies, expected) in table {
        let fields = [("ratelimit", limits), ("ratelimit-policy", policies)];
        assert_eq!(said(&fields), expected, "{fields:?}");
    }
    // express-rate-limit sends a line for each of its limiters.
    let lines = [
        (
            "ratelimit-policy",
            "\"5-in-1min\"; q=5; w=60; pk=:MTJhYmM0NTY3ODlh:",
        ),
        ("ratelimit", "\"5-in-1min\"; r=4; t=30"),
        (
            "ratelimit-policy",
            "\"9-in-1hrs\"; q=9; w=3600; pk=:MTJhYmM0NTY3ODlh:",
        ),
        ("ratelimit", "\"9-in-1hrs\"; r=8; t=3000"),
    ];
    assert_eq!(said(&lines[..2]), with_window(limit(5, 4, IN_30), 60));
    assert_eq!(said(&lines), None);
}

#[test]
fn more_limits_than_anybody_has_say_nothing() {
    let with_others = |others| {
        let limits = "\"default\";r=99;t=30".to_owned() + &", \"bytes\";r=1".repeat(others);
        let policies = "\"default\";q=100, \"bytes\";q=1;qu=\"content-bytes\"";
        said(&[("ratelimit", &limits), ("ratelimit-policy", policies)])
    };
    assert_eq!(with_others(7), Some(limit(100, 99, IN_30)));
    assert_eq!(with_others(8), None);
    assert_eq!(with_others(100_000), None);
    let with_policies = |others| {
        let policies = "100;w=60".to_owned() + &", 5;w=1".repeat(others);
        let limit = ("ratelimit", "limit=100, remaining=99, reset=30");
        said(&[limit, ("ratelimit-policy", &policies)])
    };
    let of_a_minute = with_window(limit(100, 99, IN_30), 60);
    assert_eq!(with_policies(7), of_a_minute);
    assert_eq!(with_policies(8), Some(limit(100, 99, IN_30)));
}

#[test]
fn both_kinds_of_headers_must_agree() {
    let x = [
        ("x-ratelimit-limit", "100"),
        ("x-ratelimit-remaining", "99"),
        ("x-ratelimit-reset", "1718459532"),
    ];
    let with = |fields: &[(&'static str, &'static str)]| said(&[&x, fields].concat());
    let x_said = limit(100, 99, AT_RESET);
    assert_eq!(with(&[]), Some(x_said));
    // The X- headers' reset is kept: an epoch says more than a delta.
    let agrees = [("ratelimit", "limit=100, remaining=99, reset=30")];
    assert_eq!(with(&agrees), Some(x_said));
    let policy = ("ratelimit-policy", "\"default\";q=100;w=60");
    assert_eq!(with(&[policy]), with_window(x_said, 60));
    assert_eq!(
        with(&[policy, ("ratelimit", "\"default\";r=99;t=30")]),
        with_window(x_said, 60)
    );
    let bytes = (
        "ratelimit-policy",
        "\"bytes\";q=100;w=1;qu=\"content-bytes\"",
    );
    assert_eq!(with(&[bytes]), Some(x_said));
    assert_eq!(with(&[bytes, policy]), with_window(x_said, 60));
    // What can't be read contradicts nothing.
    assert_eq!(with(&[("ratelimit", "limit=?")]), Some(x_said));
    assert_eq!(
        with(&[("ratelimit", "limit=1000, remaining=99, reset=30")]),
        None
    );
    assert_eq!(
        with(&[("ratelimit", "limit=100, remaining=98, reset=30")]),
        None
    );
    assert_eq!(
        with(&[("ratelimit", "limit=10, remaining=9, reset=30")]),
        None
    );
}

#[test]
fn envoy_puts_its_policies_behind_the_limit() {
    let envoy = |limit| {
        said(&[
            ("x-ratelimit-limit", limit),
            ("x-ratelimit-remaining", "87"),
            ("x-ratelimit-reset", "42"),
        ])
    };
    let plain = limit(100, 87, When::In(secs(42)));
    assert_eq!(envoy("100, 100;w=60"), with_window(plain, 60));
    assert_eq!(
        envoy("100, 100;w=60;name=\"per-ip\", 5000;w=3600"),
        with_window(plain, 60)
    );
    assert_eq!(envoy("100;w=60"), with_window(plain, 60));
    assert_eq!(envoy("100, 100;w=1, 100;w=60"), Some(plain));
    assert_eq!(envoy("100;w="), None);
    assert_eq!(envoy("\"a\";q=100"), None);
}

#[test]
fn the_servers_clock_comes_with_the_limit() {
    let with = |fields: &[(&'static str, &'static str)]| {
        let x = [
            ("x-ratelimit-limit", "100"),
            ("x-ratelimit-remaining", "99"),
            ("x-ratelimit-reset", "30"),
        ];
        said(&[&x, fields].concat()).unwrap().date
    };
    let date = ("date", "Sat, 15 Jun 2024 13:51:40 GMT");
    assert_eq!(with(&[date]), Some(secs(CLOCK)));
    assert_eq!(with(&[date, ("age", "0")]), Some(secs(CLOCK)));
    assert_eq!(with(&[date, ("age", "7")]), None);
    assert_eq!(with(&[date, date]), None);
    assert_eq!(with(&[("date", "today")]), None);
    assert_eq!(with(&[]), None);
    assert_eq!(said(&[date]), None, "a clock alone is no limit");
}
