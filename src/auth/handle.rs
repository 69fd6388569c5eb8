//! Changes keys while requests are on their way.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{keys::Keys, renewal};
use crate::key::{ApiKey, KeyUnavailable, WrongKeyKind};

/// The keys of a [`PlotonAuth`](crate::PlotonAuth), for whoever rotates them.
///
/// # Example
///
/// ```
/// use tower_ploton::{ApiKey, PlotonAuth};
///
/// let auth = PlotonAuth::new(ApiKey::parse("pk_live_4f9d0c2b7a6e1583")?);
/// let handle = auth.key_handle();
/// handle.set(ApiKey::parse("pk_live_8d1e6b3a90c4f725")?)?;
/// assert!(handle.set(ApiKey::parse("pk_test_8d1e6b3a90c4f725")?).is_err());
/// assert_eq!(handle.key().unwrap().to_string(), "pk_live_…f725");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct KeyHandle {
    pub(super) keys: Arc<Keys>,
    pub(super) source_timeout: Duration,
}

impl KeyHandle {
    /// Every request that is sent from now on carries `key`, by whichever service of the layer. Where the keys come from a
    /// source, that lasts until its next answer, and the source is asked only after a 401 then, or by
    /// [`renew`](Self::renew).
    ///
    /// # Errors
    ///
    /// Where the key in force is a test key and `key` a live one, or the other way round. The one in force goes on being
    /// used.
    pub fn set(&self, key: ApiKey) -> Result<(), WrongKeyKind> {
        self.keys.put(key.into(), Instant::now())
    }

    /// The key in force; `None` before a source gave its first.
    #[must_use]
    pub fn key(&self) -> Option<ApiKey> {
        self.keys.current().map(|issued| issued.key)
    }

    /// Asks the source for a key now: at the start of a program, so that a source that does not work is found out, or
    /// when it is known that the key changed. Without a source it does nothing.
    ///
    /// # Errors
    ///
    /// Where it gave none. The key in force goes on being used until its end.
    pub async fn renew(&self) -> Result<(), KeyUnavailable> {
        renewal::now(&self.keys, self.source_timeout).await
    }

    /// Why the source gave no key when it was last asked; `None` where it did.
    #[must_use]
    pub fn last_failure(&self) -> Option<KeyUnavailable> {
        self.keys.renewal.as_ref()?.last_failure()
    }
}
