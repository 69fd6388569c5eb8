//! The key that is hunted, and every form in which a part of it would be a leak.

use std::{fmt::Write, sync::LazyLock};

/// A key of which no eight characters are found by chance. Some of them look different once they are encoded or escaped.
pub(crate) const KEY: &str = "pk_test_Zq7/xK+9w=Vb%3Jt&mY2(Lf~8RgN'4sHc\"TdQ6u\\1PeW";
/// What may be shown of it.
pub(crate) const SHOWN: &str = "pk_test_…1PeW";

/// So many characters of the secret in a row are a leak.
const LEAK: usize = 8;

/// No form of eight characters is longer.
pub(crate) const LONGEST: usize = 200;

struct Needles {
    /// By their first two bytes.
    by_start: Vec<Vec<Needle>>,
}

struct Needle {
    form: &'static str,
    bytes: Vec<u8>,
}

static NEEDLES: LazyLock<Needles> = LazyLock::new(Needles::new);

/// How the message begins that tells of a leak, and shows what is around it.
pub(crate) const FOUND: &str = "the key is in";

/// Fails where `haystack`, which is `what`, holds any part of the key in any form.
pub(crate) fn search(haystack: &[u8], what: &str) {
    if let Some((form, at)) = NEEDLES.find(haystack) {
        let around = &haystack[at.saturating_sub(400)..haystack.len().min(at + 200)];
        let around = String::from_utf8_lossy(around);
        panic!("{FOUND} {what}, {form}: …{around}…");
    }
}

impl Needles {
    fn new() -> Self {
        let mut needles = Self {
            by_start: (0..=u16::MAX).map(|_| Vec::new()).collect(),
        };
        let secret = KEY.strip_prefix("pk_test_").unwrap();
        for part in secret.as_bytes().windows(LEAK) {
            let each = |form: &dyn Fn(u8) -> String| part.iter().map(|b| form(*b)).collect();
            let text: String = each(&|b| char::from(b).to_string());
            needles.add("as it is", text.clone());
            needles.add("reversed", text.chars().rev().collect());
            needles.add("escaped", format!("{text:?}").trim_matches('"').to_owned());
            needles.add(
                "in JSON",
                serde_json::to_string(&text)
                    .unwrap()
                    .trim_matches('"')
                    .to_owned(),
            );
            needles.add("in HTML", text.replace('&', "&amp;").replace('"', "&quot;"));
            needles.add("percent-encoded", each(&percent));
            needles.add("all percent-encoded", each(&|b| format!("%{b:02x}")));
            for between in ["", " ", ":", ", ", ",", "-"] {
                needles.add_joined("in hexadecimal", part, between, &|b| format!("{b:02x}"));
                needles.add_joined("in 0x", part, between, &|b| format!("0x{b:02x}"));
                needles.add_joined("in \\x", part, between, &|b| format!("\\x{b:02x}"));
            }
            for between in [" ", ", ", ",", ",\n    ", ",\n        "] {
                needles.add_joined("in decimal", part, between, &|b| b.to_string());
            }
        }
        needles.add_base64(secret.as_bytes());
        needles
    }

    fn add(&mut self, form: &'static str, text: String) {
        let bytes = text.to_ascii_lowercase().into_bytes();
        assert!(bytes.len() <= LONGEST);
        self.by_start[start(&bytes)].push(Needle { form, bytes });
    }

    fn add_joined(
        &mut self,
        form: &'static str,
        part: &[u8],
        between: &str,
        each: &dyn Fn(u8) -> String,
    ) {
        let all: Vec<_> = part.iter().map(|b| each(*b)).collect();
        self.add(form, all.join(between));
    }

    /// Any eight characters in a row hold whole groups of three, wherever a group begins.
    fn add_base64(&mut self, secret: &[u8]) {
        for six in secret.windows(6) {
            let standard = base64(six);
            let url_safe = standard.replace('+', "-").replace('/', "_");
            self.add("in base64", standard);
            self.add("in base64", url_safe);
        }
    }

    /// The form and the place of the first needle. Case is no matter.
    fn find(&self, haystack: &[u8]) -> Option<(&'static str, usize)> {
        let lower = haystack.to_ascii_lowercase();
        (0..lower.len().saturating_sub(1)).find_map(|at| {
            let rest = &lower[at..];
            let mut here = self.by_start[start(rest)].iter();
            let needle = here.find(|needle| rest.starts_with(&needle.bytes))?;
            Some((needle.form, at))
        })
    }
}

fn start(bytes: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02x}")
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for shift in [18, 12, 6, 0] {
            let digit = (bits >> shift) & 63;
            write!(text, "{}", char::from(DIGITS[digit as usize])).unwrap();
        }
    }
    text
}

/// The search finds what it is there for, wherever the part of the key begins.
#[test]
fn every_form_of_any_part_of_the_key_is_found() {
    let secret = KEY.strip_prefix("pk_test_").unwrap();
    assert_eq!(base64(b"Bearer"), "QmVhcmVy");
    for from in 0..=secret.len() - LEAK {
        let part = &secret[from..from + LEAK];
        let bytes = part.as_bytes();
        let hex: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
        let percent_encoded: String = bytes.iter().map(|b| percent(*b).to_uppercase()).collect();
        for shown in [
            part.to_owned(),
            part.to_uppercase(),
            format!("{part:?}"),
            serde_json::json!({ "key": part }).to_string(),
            hex,
            percent_encoded,
            format!("{bytes:?}"),
            format!("{bytes:#?}"),
            format!("{bytes:02x?}"),
        ] {
            let found = NEEDLES.find(format!("some text {shown} and more").as_bytes());
            assert!(found.is_some(), "{shown}");
        }
    }
    for padding in 0..3 {
        let padded = format!("{}{KEY}=", "x".repeat(padding));
        let padded = &padded[..padded.len() / 3 * 3];
        assert!(NEEDLES.find(base64(padded.as_bytes()).as_bytes()).is_some());
    }
}

#[test]
fn what_may_be_shown_is_no_leak() {
    for shown in [
        SHOWN,
        "",
        "p",
        "pk_test_",
        "Bearer pk_test_",
        "[112, 107, 95]",
        &KEY[..15],
    ] {
        assert_eq!(NEEDLES.find(shown.as_bytes()), None, "{shown}");
    }
}

#[test]
fn a_leak_fails_the_test() {
    crate::capture::start();
    let mut basic = base64(format!(":{KEY}:").as_bytes());
    basic.push_str("==");
    let search = std::panic::catch_unwind(|| search(basic.as_bytes(), "a request"));
    let message = search.unwrap_err().downcast::<String>().unwrap();
    assert!(message.starts_with("the key is in a request, in base64"));
}
