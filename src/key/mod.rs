//! API keys: parsed once, never printed.

use std::{error::Error, fmt, str::FromStr};

use http::HeaderValue;
use subtle::ConstantTimeEq;

mod read;
mod unavailable;

pub(crate) use self::read::shown;
pub use self::{read::ReadKeyError, unavailable::KeyUnavailable};

/// A Ploton API key that could be sent: `pk_test_…` or `pk_live_…`.
///
/// Printing it shows its kind and, of a key long enough, the last four characters; the secret itself is in no output of
/// this crate. Two keys are compared in a time that tells nothing about where they differ. There is no way to serialize one.
///
/// # Example
///
/// ```
/// use tower_ploton::{ApiKey, KeyKind};
///
/// let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?;
/// assert_eq!(key.kind(), KeyKind::Test);
/// assert_eq!(format!("{key:?}"), "ApiKey(pk_test_…1583)");
/// assert!(ApiKey::parse("sk_test_4f9d0c2b7a6e1583").is_err());
/// # Ok::<(), tower_ploton::InvalidApiKey>(())
/// ```
#[derive(Clone)]
pub struct ApiKey {
    kind: KeyKind,
    last_four: Option<[u8; 4]>,
    /// `Bearer` and the key, marked sensitive: made once, so that a request costs a reference count.
    bearer: HeaderValue,
}

/// Whether a key is for tests or for production.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `pk_test_…`
    Test,
    /// `pk_live_…`
    Live,
}

impl ApiKey {
    /// Reads a key.
    ///
    /// # Errors
    ///
    /// Where it begins with neither `pk_test_` nor `pk_live_`, has nothing behind that, is longer than 512 bytes, or has
    /// a character that is not visible ASCII. The error never holds the key.
    pub fn parse(key: &str) -> Result<Self, InvalidApiKey> {
        let (kind, secret) = if let Some(secret) = key.strip_prefix(TEST) {
            (KeyKind::Test, secret)
        } else if let Some(secret) = key.strip_prefix(LIVE) {
            (KeyKind::Live, secret)
        } else {
            return Err(InvalidApiKey(Fault::Prefix));
        };
        if secret.is_empty() {
            return Err(InvalidApiKey(Fault::Empty));
        }
        if key.len() > MAX_LEN {
            return Err(InvalidApiKey(Fault::TooLong));
        }
        if !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidApiKey(Fault::Character));
        }
        let mut bearer = HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|_| InvalidApiKey(Fault::Character))?;
        bearer.set_sensitive(true);
        Ok(Self {
            kind,
            last_four: secret
                .as_bytes()
                .last_chunk()
                .copied()
                .filter(|_| secret.len() >= SHOWS_LAST_FOUR),
            bearer,
        })
    }

    /// Whether the key is for tests or for production.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The value of the `Authorization` header, marked sensitive.
    pub(crate) fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }
}

/// In constant time, but for the keys' lengths.
impl PartialEq for ApiKey {
    fn eq(&self, other: &Self) -> bool {
        self.bearer.as_bytes().ct_eq(other.bearer.as_bytes()).into()
    }
}

impl Eq for ApiKey {}

impl FromStr for ApiKey {
    type Err = InvalidApiKey;

    fn from_str(key: &str) -> Result<Self, Self::Err> {
        Self::parse(key)
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last_four = self
            .last_four
            .as_ref()
            .map(|four| std::str::from_utf8(four));
        write!(
            f,
            "{}…{}",
            self.kind.prefix(),
            last_four.and_then(Result::ok).unwrap_or_default()
        )
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({self})")
    }
}

/// "test" or "live"
impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Test => "test",
            Self::Live => "live",
        })
    }
}

impl KeyKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Test => TEST,
            Self::Live => LIVE,
        }
    }
}

/// The text is no Ploton API key. It says why, and never what the text was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidApiKey(Fault);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Prefix,
    Empty,
    TooLong,
    Character,
}

impl fmt::Display for InvalidApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Fault::Prefix => "an API key begins with pk_test_ or pk_live_",
            Fault::Empty => "the API key ends after its prefix",
            Fault::TooLong => "the API key is longer than 512 bytes",
            Fault::Character => "the API key has a character that is not visible ASCII",
        })
    }
}

impl Error for InvalidApiKey {}

/// A test key can't take the place of a live key, nor a live key that of a test key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongKeyKind {
    pub(crate) in_force: KeyKind,
    pub(crate) given: KeyKind,
}

impl WrongKeyKind {
    /// The kind of the key in force, which goes on being used.
    #[must_use]
    pub const fn in_force(&self) -> KeyKind {
        self.in_force
    }

    /// The kind of the key that was refused.
    #[must_use]
    pub const fn given(&self) -> KeyKind {
        self.given
    }
}

/// "a live key can't take the place of a test key"
impl fmt::Display for WrongKeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (given, in_force) = (self.given, self.in_force);
        write!(f, "a {given} key can't take the place of a {in_force} key")
    }
}

impl Error for WrongKeyKind {}

const TEST: &str = "pk_test_";
const LIVE: &str = "pk_live_";
const MAX_LEN: usize = 512;
/// Of a shorter secret, four characters would be too much of it.
const SHOWS_LAST_FOUR: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_key_that_can_be_sent_or_an_error(
            prefix in prop_oneof![Just("pk_test_"), Just("pk_live_"), Just("")],
            rest in prop_oneof![".{0,40}", "[!-~]{0,600}", any::<Vec<u8>>().prop_map(|bytes| {
                String::from_utf8_lossy(&bytes).into_owned()
            })],
        ) {
            let text = format!("{prefix}{rest}");
            match ApiKey::parse(&text) {
                Ok(key) => {
                    let value = key.bearer();
                    prop_assert_eq!(value.to_str().unwrap(), format!("Bearer {text}"));
                    prop_assert!(value.is_sensitive() && text.len() <= MAX_LEN);
                    let shown = format!("{key} {key:?}");
                    let secret = &text["pk_test_".len()..];
                    for part in secret.as_bytes().windows(5) {
                        let part = std::str::from_utf8(part).unwrap();
                        prop_assert!(!shown.contains(part) || FRAME.contains(part), "{}", shown);
                    }
                }
                Err(error) => {
                    let is_key = !prefix.is_empty()
                        && (1..=MAX_LEN - prefix.len()).contains(&rest.len())
                        && rest.bytes().all(|b| b.is_ascii_graphic());
                    prop_assert!(!is_key, "{:?}: {}", text, error);
                }
            }
        }

        #[test]
        fn keys_are_equal_when_they_are_the_same(a in "[a-c]{1,3}", b in "[a-c]{1,3}") {
            let key = |secret: &str| ApiKey::parse(&format!("pk_test_{secret}")).unwrap();
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }

    /// What is printed around every key.
    const FRAME: &str = "ApiKey(pk_test_ ApiKey(pk_live_";

    #[test]
    fn a_test_key_is_not_its_live_twin() {
        assert_ne!(ApiKey::parse("pk_test_a"), ApiKey::parse("pk_live_a"));
    }

    #[test]
    fn both_prefixes_are_keys() {
        assert_eq!(ApiKey::parse("pk_test_a").unwrap().kind(), KeyKind::Test);
        assert_eq!(ApiKey::parse("pk_live_a").unwrap().kind(), KeyKind::Live);
    }

    #[test]
    fn what_could_not_be_sent_is_refused_without_being_repeated() {
        let long = format!("pk_test_{}", "x".repeat(MAX_LEN));
        let table = [
            ("", Fault::Prefix),
            ("sk_live_hunter2hunter2", Fault::Prefix),
            ("PK_TEST_hunter2hunter2", Fault::Prefix),
            (" pk_test_hunter2hunter2", Fault::Prefix),
            ("pk_test_", Fault::Empty),
            (&long, Fault::TooLong),
            ("pk_test_hunter2\n", Fault::Character),
            ("pk_test_hunter2\r\nX: y", Fault::Character),
            ("pk_test_hunter2\0", Fault::Character),
            ("pk_test_hunter 2", Fault::Character),
            ("pk_test_hunter2\u{e9}", Fault::Character),
            ("pk_test_hunter2\u{7f}", Fault::Character),
        ];
        for (text, fault) in table {
            let error = ApiKey::parse(text).unwrap_err();
            assert_eq!(error, InvalidApiKey(fault), "{text:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_key_never_prints_itself() {
        let key = ApiKey::parse("pk_live_hunter2hunter2hunter2").unwrap();
        let shown = format!("{key} {key:?} {:?}", key.bearer());
        assert!(!shown.contains("hunter2hunter"), "{shown}");
        assert_eq!(key.to_string(), "pk_live_…ter2");
        assert_eq!(
            ApiKey::parse("pk_live_short").unwrap().to_string(),
            "pk_live_…"
        );
        assert!(key.bearer().is_sensitive());
    }
}
