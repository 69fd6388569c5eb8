//! What a server wrote, made fit to be shown: in one line, not too long, and without an API key.

use std::fmt::Write;

/// A message, with what can't be shown escaped, cut at 1,000 characters.
pub(super) fn shown(text: &str) -> String {
    cut(text, 1_000)
}

/// How a body begins, cut at 200 characters.
pub(super) fn excerpt(body: &[u8]) -> String {
    // Enough for 200 characters of any kind, and for a key that stands at their end.
    let head = body.get(..MAX_KEY + 4 * 200).unwrap_or(body);
    cut(&String::from_utf8_lossy(head), 200)
}

fn cut(text: &str, most: usize) -> String {
    let text = without_keys(text);
    let mut shown = String::with_capacity(text.len().min(4 * most));
    for (place, character) in text.trim().chars().enumerate() {
        if place == most {
            shown.push('…');
            break;
        }
        if character.is_control() || is_invisible(character) {
            let _ = write!(shown, "{}", character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Some of these turn the direction of what follows, so that a log reads as something else.
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A server may say which key it refuses: only its kind is kept. A key may have any visible character, so that what comes
/// right behind it goes too.
fn without_keys(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::with_capacity(text.len());
    // One search for both kinds: for one that is not there, all of the rest would be searched each time.
    while let Some((before, after)) = rest.split_once(KEY) {
        kept.push_str(before);
        kept.push_str(KEY);
        rest = after;
        let Some((kind, key)) = KINDS
            .iter()
            .find_map(|kind| Some((kind, after.strip_prefix(kind)?)))
        else {
            continue;
        };
        kept.push_str(kind);
        let secret_ends = key
            .find(|c: char| !c.is_ascii_graphic())
            .unwrap_or(key.len());
        if secret_ends > 0 {
            kept.push('…');
        }
        rest = key.get(secret_ends..).unwrap_or_default();
    }
    kept.push_str(rest);
    kept
}

const KEY: &str = "pk_";
const KINDS: [&str; 2] = ["test_", "live_"];
/// As `ApiKey` has it.
const MAX_KEY: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown() {
        let table = [
            ("no key pk_test_4f9d0c2b.", "no key pk_test_…"),
            (
                r#"{"key":"pk_live_4f'9"d,e","n":1, "m":2}"#,
                r#"{"key":"pk_live_… "m":2}"#,
            ),
            (r#"pk_live_a"b'c,d;e\f and more"#, "pk_live_… and more"),
            ("pk_live_a pk_test_b", "pk_live_… pk_test_…"),
            ("pk_test_pk_live_x", "pk_test_…"),
            ("pk_pk_live_x pk_other_y", "pk_pk_live_… pk_other_y"),
            (
                "keys begin pk_test_ or pk_live_",
                "keys begin pk_test_ or pk_live_",
            ),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn a_key_at_the_cut_is_not_shown_either() {
        for before in 150..=210 {
            let body = format!("{} pk_live_SECRET{}", "x".repeat(before), "S".repeat(490));
            assert!(!excerpt(body.as_bytes()).contains('S'), "{before}");
        }
    }

    /// serde's errors repeat what they did not expect, and that may be a whole body. Each kind took all of the rest to look
    /// for, and this one half a minute and more.
    #[tokio::test]
    async fn many_keys_take_no_longer_than_their_text() {
        for kind in ["pk_test_ ", "pk_live_ ", "pk_ "] {
            let text = kind.repeat(100_000);
            let start = tokio::time::Instant::now();
            assert_eq!(shown(&text).chars().count(), 1_001);
            let took = tokio::time::Instant::now() - start;
            assert!(took.as_secs() < 5, "{took:?}");
        }
    }

    #[test]
    fn what_can_not_be_shown_is_escaped() {
        assert_eq!(
            shown(" a\nb\u{1b}[31m\u{202e}c\u{e9} "),
            "a\\nb\\u{1b}[31m\\u{202e}c\u{e9}"
        );
        assert_eq!(excerpt(b"\xff\x00a"), "\u{fffd}\\u{0}a");
    }

    #[test]
    fn what_is_long_is_cut_by_characters() {
        assert_eq!(shown(&"\u{e9}".repeat(1_000)).chars().count(), 1_000);
        let cut = shown(&"\u{e9}".repeat(1_001));
        assert!(cut.ends_with("\u{e9}…") && cut.chars().count() == 1_001);
        assert_eq!(
            excerpt("\u{e9}".repeat(9_000).as_bytes()).chars().count(),
            201
        );
    }
}
