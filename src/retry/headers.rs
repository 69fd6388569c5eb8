//! The headers of a request, kept for another attempt.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Headers as text, a line each: `name:value`. It is one allocation, where a copy of the map is two, and one more for
/// most values; and all but a few requests are sent once.
pub(super) struct KeptHeaders(Vec<u8>);

impl KeptHeaders {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut text = Vec::with_capacity(headers.len().saturating_mul(LINE));
        for (name, value) in headers {
            text.extend_from_slice(name.as_str().as_bytes());
            text.push(COLON);
            text.extend_from_slice(value.as_bytes());
            text.push(if value.is_sensitive() {
                END_OF_SECRET
            } else {
                END
            });
        }
        Self(text)
    }

    /// The headers as they were.
    pub(super) fn map(&self) -> HeaderMap {
        let lines = self
            .0
            .split_inclusive(|byte| [END, END_OF_SECRET].contains(byte));
        lines
            .filter_map(read)
            .fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
    }
}

/// Reads what [`KeptHeaders::of`] wrote: there is no colon in a name, and neither end of a line in a value.
fn read(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let (end, line) = line.split_last()?;
    let colon = line.iter().position(|&byte| byte == COLON)?;
    let (name, value) = line.split_at_checked(colon)?;
    let mut value = HeaderValue::from_bytes(value.get(1..)?).ok()?;
    value.set_sensitive(*end == END_OF_SECRET);
    Some((HeaderName::from_bytes(name).ok()?, value))
}

const COLON: u8 = b':';
const END: u8 = b'\n';
const END_OF_SECRET: u8 = b'\r';
/// Room for a line of usual length.
const LINE: usize = 48;

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, COOKIE};
    use proptest::prelude::*;

    use super::*;

    fn kept(headers: &HeaderMap) -> HeaderMap {
        KeptHeaders::of(headers).map()
    }

    #[test]
    fn a_secret_stays_one() {
        let mut headers = HeaderMap::new();
        let mut secret = HeaderValue::from_static("Bearer hunter2");
        secret.set_sensitive(true);
        headers.insert(AUTHORIZATION, secret);
        headers.insert(COOKIE, HeaderValue::from_static("a=b"));
        let kept = kept(&headers);
        assert_eq!(kept, headers);
        assert!(kept[AUTHORIZATION].is_sensitive());
        assert!(!kept[COOKIE].is_sensitive());
    }

    proptest! {
        /// Whatever bytes a header may have, how many there are, and how often one is repeated.
        #[test]
        fn all_headers_are_as_they_were(
            lines in prop::collection::vec((0..6_usize, prop::collection::vec(any::<u8>(), 0..80), any::<bool>()), 0..40)
        ) {
            let names = ["accept", "cookie", "x-a", "x_b.c~d", "idempotency-key", "x"];
            let mut headers = HeaderMap::new();
            for (name, value, secret) in lines {
                if let Ok(mut value) = HeaderValue::from_bytes(&value) {
                    value.set_sensitive(secret);
                    headers.append(names[name], value);
                }
            }
            let kept = kept(&headers);
            prop_assert_eq!(&kept, &headers);
            for name in headers.keys() {
                let secrets = |map: &HeaderMap| -> Vec<_> {
                    map.get_all(name).iter().map(HeaderValue::is_sensitive).collect()
                };
                prop_assert_eq!(secrets(&kept), secrets(&headers));
            }
        }
    }
}
