//! Whose state it is: the name that stands in each key of a Redis.

use std::{error::Error, fmt, str::FromStr, sync::Arc};

use sha2::{Digest, Sha256};

use crate::key::ApiKey;

/// The name of what is shared, usually of a Ploton account: processes with one scope and one Redis share their limits, and
/// others don't notice them.
///
/// It is written into each key of the Redis, in clear. So an API key can't be one; [`scope_of`] makes one of its hash.
///
/// # Example
///
/// ```
/// use tower_ploton::redis::Scope;
///
/// let scope = Scope::parse("acme-production")?;
/// assert_eq!(scope.as_str(), "acme-production");
/// assert!(Scope::parse("pk_live_4f9d0c2b7a6e1583").is_err());
/// # Ok::<(), tower_ploton::redis::InvalidScope>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Reads a scope: 1 to 64 ASCII letters, digits, `-`, `_` and `.`.
    ///
    /// # Errors
    ///
    /// Where it is empty, longer, has another character, or holds what looks like an API key: `pk_test_` or `pk_live_`.
    pub fn parse(scope: &str) -> Result<Self, InvalidScope> {
        if scope.is_empty() {
            return Err(InvalidScope(Fault::Empty));
        }
        if scope.len() > MAX_LEN {
            return Err(InvalidScope(Fault::TooLong));
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if !scope.bytes().all(fits) {
            return Err(InvalidScope(Fault::Character));
        }
        if ["pk_test_", "pk_live_"]
            .iter()
            .any(|key| scope.contains(key))
        {
            return Err(InvalidScope(Fault::ApiKey));
        }
        Ok(Self(scope.into()))
    }

    /// The scope as it stands in the keys.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The scope of those who use `key` and never rotate it: a new key would be a new scope, with a full plan of its own beside
/// the old one's. Whoever rotates keys names the account with [`Scope::parse`].
///
/// It is the first 16 hexadecimal digits of a SHA-256, which tell nothing about a random key.
///
/// # Example
///
/// ```
/// use tower_ploton::{ApiKey, redis::scope_of};
///
/// let scope = scope_of(&ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?);
/// assert_eq!(scope.as_str().len(), 16);
/// assert_ne!(scope, scope_of(&ApiKey::parse("pk_test_8d1e6b3a90c4f725")?));
/// # Ok::<(), tower_ploton::InvalidApiKey>(())
/// ```
#[must_use]
pub fn scope_of(key: &ApiKey) -> Scope {
    let mut hash = Sha256::new();
    // Not the hash of the key alone, which other tables may hold.
    hash.update(b"tower-ploton scope ");
    hash.update(key.bearer().as_bytes());
    let digest = hash.finalize();
    let digits = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    Scope(digits.collect::<String>().into())
}

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(scope: &str) -> Result<Self, Self::Err> {
        Self::parse(scope)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was given is no [`Scope`]. It doesn't hold what was given, which may be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidScope(Fault);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Empty,
    TooLong,
    Character,
    ApiKey,
}

impl fmt::Display for InvalidScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Fault::Empty => f.write_str("scope is empty"),
            Fault::TooLong => write!(f, "scope is longer than {MAX_LEN} bytes"),
            Fault::Character => {
                f.write_str("scope has a character other than letters, digits, -, _ and .")
            }
            Fault::ApiKey => f.write_str("scope holds an API key, which Redis must not see"),
        }
    }
}

impl Error for InvalidScope {}

const MAX_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "pk_test_4f9d0c2b7a6e1583";

    #[test]
    fn a_scope_can_stand_in_a_key() {
        for good in ["a", "acme-production", "Team_7.eu", &"x".repeat(64)] {
            assert_eq!(Scope::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn what_could_not_stand_in_a_key_is_refused() {
        for (bad, fault) in [
            ("", Fault::Empty),
            (&"x".repeat(65), Fault::TooLong),
            ("a b", Fault::Character),
            ("{a}", Fault::Character), // would be a hash tag of its own
            ("a:b", Fault::Character),
            ("é", Fault::Character),
            (KEY, Fault::ApiKey),
            ("team-pk_live_1", Fault::ApiKey),
        ] {
            assert_eq!(Scope::parse(bad), Err(InvalidScope(fault)), "{bad}");
        }
    }

    #[test]
    fn a_keys_scope_is_the_same_in_every_version_and_shows_nothing_of_it() {
        let scope = scope_of(&ApiKey::parse(KEY).unwrap());
        assert_eq!(scope.as_str(), "bf83acfd25aef34e");
        assert_eq!(Scope::parse(scope.as_str()), Ok(scope));
    }
}
