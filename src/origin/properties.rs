//! Origins of random URIs, compared with what the `url` crate makes of them: that is what browsers do.

use http::Uri;
use proptest::prelude::*;
use url::{Host, Url};

use super::Origin;

/// Origins that a user may name.
const ORIGINS: [&str; 8] = [
    "https://api.ploton.ai",
    "https://api.ploton.ai:8443",
    "https://xn--bcher-kva.example",
    "https://10.0.0.1",
    "https://[2001:db8::1]:8443",
    "http://127.0.0.1:8080",
    "http://[::1]",
    "http://localhost:3000",
];

/// Scheme, host and port of an absolute URI; `None` where it has none of them.
fn reference(text: &str) -> Option<(String, Host<String>, u16)> {
    let url = Url::parse(text).ok()?;
    let host = match url.host()?.to_owned() {
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(&name);
            Host::Domain(name.to_owned())
        }
        address => address,
    };
    let port = url.port_or_known_default()?;
    Some((url.scheme().to_owned(), host, port))
}

fn host() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "api.ploton.ai",
        "API.Ploton.AI",
        "api.ploton.ai.",
        "api.ploton.ai..",
        ".api.ploton.ai",
        "api.ploton.ai.evil.example",
        "evil-api.ploton.ai",
        "ploton.ai",
        "xn--bcher-kva.example",
        "XN--BCHER-KVA.example.",
        "bcher-kva.example",
        "10.0.0.1",
        "10.0.0.1.",
        "10.0.0.2",
        "127.0.0.1",
        "[2001:db8::1]",
        "[2001:DB8:0:0:0::1]",
        "[2001:db8::2]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "LocalHost.",
        "localhost.evil.example",
    ]);
    prop_oneof![
        8 => names.prop_map(str::to_owned),
        1 => "[a-z0-9.-]{1,12}",
    ]
}

fn absolute() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(vec!["https", "http", "HTTPS", "Http", "ftp", "wss"]);
    let user = prop::sample::select(vec!["", "", "me@", "me:word@", "api.ploton.ai@", "@"]);
    let port = prop_oneof![
        4 => prop::sample::select(vec![
            "", "", ":", ":443", ":80", ":8443", ":8080", ":3000", ":0443", ":0", ":65535", ":65536", ":+443",
        ]).prop_map(str::to_owned),
        1 => "(:[0-9]{1,6})?",
    ];
    let rest = prop::sample::select(vec![
        "",
        "/",
        "/v1/tasks?limit=1",
        "?x=@api.ploton.ai",
        "/@api.ploton.ai/",
        "//api.ploton.ai/",
    ]);
    (scheme, user, host(), port, rest)
        .prop_map(|(scheme, user, host, port, rest)| format!("{scheme}://{user}{host}{port}{rest}"))
}

/// A URI with some characters changed for those that parsers disagree about.
fn spoiled() -> impl Strategy<Value = String> {
    let edits = prop::collection::vec(
        (
            any::<prop::sample::Index>(),
            "[@:/?#\\\\.%\\[\\]a0 \t\u{2e}\u{ff0e}]?",
        ),
        1..4,
    );
    (absolute(), edits).prop_map(|(text, edits)| {
        edits.into_iter().fold(text, |text, (at, edit)| {
            let at = at.index(text.len() + 1);
            let Some((before, after)) = text.split_at_checked(at) else {
                return text;
            };
            // Instead of a character, or between two.
            let skipped = if at % 2 == 0 { 1 } else { 0 };
            let after: String = after.chars().skip(skipped).collect();
            format!("{before}{edit}{after}")
        })
    })
}

fn origin() -> impl Strategy<Value = &'static str> {
    prop::sample::select(ORIGINS.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_uri_is_at_the_origin_that_browsers_say(named in origin(), text in absolute()) {
        let origin = Origin::parse(named).unwrap();
        if let Ok(uri) = text.parse::<Uri>() {
            let here = reference(&text);
            let same = here.is_some() && here == reference(named);
            prop_assert_eq!(origin.contains(&uri), same, "{} and {}", named, text);
        }
    }

    #[test]
    fn nothing_that_browsers_take_elsewhere_is_at_the_origin(named in origin(), text in spoiled()) {
        let origin = Origin::parse(named).unwrap();
        if let Ok(uri) = text.parse::<Uri>() {
            prop_assert!(
                !origin.contains(&uri) || reference(&text) == reference(named),
                "{} and {}", named, text,
            );
        }
    }

    #[test]
    fn plain_http_to_the_host_is_seen_where_browsers_see_it(text in absolute()) {
        if let (Ok(uri), Some((scheme, host, _))) = (text.parse::<Uri>(), reference(&text)) {
            let ours = Host::Domain("api.ploton.ai".to_owned());
            let in_the_clear = scheme == "http" && host == ours;
            prop_assert_eq!(Origin::default().is_in_the_clear(&uri), in_the_clear, "{}", text);
        }
    }

    #[test]
    fn an_origin_that_is_read_is_the_one_that_browsers_read(text in spoiled()) {
        if let Ok(origin) = Origin::parse(&text) {
            prop_assert_eq!(reference(&text), reference(&origin.to_string()), "{}", text);
            prop_assert_eq!(Origin::parse(&origin.to_string()), Ok(origin));
        }
    }

    #[test]
    fn any_text_is_an_origin_or_an_error(text in ".{0,40}") {
        let _ = Origin::parse(&text);
    }
}
