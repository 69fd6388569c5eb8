//! The key that makes a repeated POST the same POST.

use std::{error::Error, fmt, str::FromStr};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries an [`IdempotencyKey`].
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The value of an `Idempotency-Key` header: visible ASCII, 1 to 255 characters.
///
/// [`PlotonIdempotency`](crate::PlotonIdempotency) makes a random one for each POST. A caller who wants to know it
/// beforehand puts one into the request's extensions; it is found again in the [`Attempts`](crate::Attempts) of what
/// went wrong.
///
/// # Example
///
/// ```
/// use http::Request;
/// use tower_ploton::IdempotencyKey;
///
/// let key = IdempotencyKey::random();
/// let request = Request::post("https://api.ploton.ai/v1/tasks").extension(key.clone()).body(())?;
/// assert!(key.as_str().starts_with("req_"));
/// assert_eq!(request.extensions().get(), Some(&key));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(HeaderValue);

impl IdempotencyKey {
    /// Makes a new key: `req_` and 128 bits from the thread's cryptographic generator, in hexadecimal.
    #[must_use]
    #[allow(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "hexadecimal digits can always be sent"
    )]
    pub fn random() -> Self {
        let bits: u128 = rand::random();
        let key = HeaderValue::try_from(format!("req_{bits:032x}")).expect("visible ASCII");
        Self(key)
    }

    /// Takes a key as it is.
    ///
    /// # Errors
    ///
    /// Where it is empty, longer than 255 characters, or has a character that is not visible ASCII.
    pub fn parse(key: &str) -> Result<Self, InvalidIdempotencyKey> {
        if !is_key(key.as_bytes()) {
            return Err(InvalidIdempotencyKey(()));
        }
        HeaderValue::from_str(key)
            .map(Self)
            .map_err(|_| InvalidIdempotencyKey(()))
    }

    /// The key as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The key that a caller set as a header, where it can be one.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(IDEMPOTENCY_KEY)?;
        is_key(value.as_bytes()).then(|| Self(value.clone()))
    }

    /// Whether a header carries a key that the server can tell a second time from the first by.
    pub(crate) fn is_in(headers: &HeaderMap) -> bool {
        headers
            .get(IDEMPOTENCY_KEY)
            .is_some_and(|value| is_key(value.as_bytes()))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(key: &str) -> Result<Self, Self::Err> {
        Self::parse(key)
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({self})")
    }
}

/// The text cannot be an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidIdempotencyKey(());

impl fmt::Display for InvalidIdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an idempotency key is 1 to 255 characters of visible ASCII")
    }
}

impl Error for InvalidIdempotencyKey {}

fn is_key(key: &[u8]) -> bool {
    (1..=MAX_LEN).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic)
}

const MAX_LEN: usize = 255;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn random_keys_are_128_bits_in_hexadecimal_and_differ() {
        let keys: HashSet<_> = (0..1_000).map(|_| IdempotencyKey::random()).collect();
        assert_eq!(keys.len(), 1_000);
        let mut digits = HashSet::new();
        for key in keys {
            let hex = key.as_str().strip_prefix("req_").unwrap();
            assert_eq!(hex.len(), 32);
            assert!(
                hex.bytes().all(|b| b"0123456789abcdef".contains(&b)),
                "{key}"
            );
            digits.extend(hex.bytes().enumerate());
        }
        assert_eq!(digits.len(), 32 * 16, "every digit takes every value");
    }

    #[test]
    fn a_bad_key_is_an_error() {
        let longest = "k".repeat(MAX_LEN);
        assert_eq!(IdempotencyKey::parse(&longest).unwrap().as_str(), longest);
        for text in ["", "two words", "line\nbreak", "\u{e9}", &"k".repeat(256)] {
            assert!(IdempotencyKey::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_header_that_is_no_key_is_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(IdempotencyKey::of(&headers), None);
        for value in [b"\xff".as_slice(), b"", b"two words", &[b'k'; 256]] {
            headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
            assert_eq!(IdempotencyKey::of(&headers), None);
            assert!(!IdempotencyKey::is_in(&headers));
        }
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static("\"mine\""));
        assert_eq!(IdempotencyKey::of(&headers).unwrap().as_str(), "\"mine\"");
    }
}
