//! Which API keys the server knows. It keeps hashes, never a key, so that no record can show one.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
};

use {
    http::{HeaderMap, header::AUTHORIZATION},
    tokio::time::Instant,
};

use super::answer::{Answer, ErrorCode};

#[derive(Debug, Default)]
pub(super) struct Keys {
    hasher: RandomState,
    /// `Some` once a key was named: then only those named are valid.
    accepted: Option<HashSet<u64>>,
    /// From when on they are refused.
    revoked: HashMap<u64, Instant>,
    /// The `Authorization` values that came, numbered.
    seen: HashMap<u64, usize>,
}

impl Keys {
    pub(super) fn accept(&mut self, key: &str) {
        let hash = self.hasher.hash_one(key.as_bytes());
        self.accepted.get_or_insert_default().insert(hash);
        self.revoked.remove(&hash);
    }

    /// Refuses `key` from `at` on.
    pub(super) fn revoke(&mut self, key: &str, at: Instant) {
        self.revoked
            .insert(self.hasher.hash_one(key.as_bytes()), at);
    }

    /// The number of the `Authorization` value, if there is one.
    pub(super) fn number(&mut self, headers: &HeaderMap) -> Option<usize> {
        let value = headers.get(AUTHORIZATION)?;
        let next = self.seen.len();
        let hash = self.hasher.hash_one(value.as_bytes());
        Some(*self.seen.entry(hash).or_insert(next))
    }

    /// Refuses a request that has no valid key.
    pub(super) fn check(&self, headers: &HeaderMap, now: Instant) -> Result<(), Answer> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), more) = (values.next(), values.next()) else {
            return Err(Answer::error(
                ErrorCode::MissingApiKey,
                "no Authorization header",
            ));
        };
        let valid =
            more.is_none() && bearer(value.as_bytes()).is_some_and(|key| self.knows(key, now));
        if valid {
            return Ok(());
        }
        Err(Answer::error(
            ErrorCode::InvalidApiKey,
            "the API key is malformed, unknown or revoked",
        ))
    }

    fn knows(&self, key: &[u8], now: Instant) -> bool {
        let hash = self.hasher.hash_one(key);
        let accepted = self.accepted.as_ref();
        let is_revoked = self.revoked.get(&hash).is_some_and(|&at| at <= now);
        accepted.is_none_or(|keys| keys.contains(&hash)) && !is_revoked
    }
}

/// The well-formed key in an `Authorization` value; the scheme's case does not matter.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked("Bearer ".len())?;
    let secret = key
        .strip_prefix(b"pk_test_")
        .or_else(|| key.strip_prefix(b"pk_live_"))?;
    let well_formed = scheme.eq_ignore_ascii_case(b"Bearer ")
        && !secret.is_empty()
        && secret.iter().all(u8::is_ascii_graphic);
    well_formed.then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_is_a_scheme_a_prefix_and_a_secret() {
        assert_eq!(bearer(b"Bearer pk_test_a1"), Some(&b"pk_test_a1"[..]));
        assert_eq!(bearer(b"bearer pk_live_a1"), Some(&b"pk_live_a1"[..]));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer pk_test_",
            "Bearer sk_test_a1",
            "Bearer  pk_test_a1",
            "Bearer pk_test_a 1",
            "Basic_ pk_test_a1",
            "pk_test_a1",
        ] {
            assert_eq!(bearer(value.as_bytes()), None, "{value}");
        }
    }
}
