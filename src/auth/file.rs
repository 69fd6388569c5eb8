//! A key in a file that others replace.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::task::spawn_blocking;
use tower::BoxError;

use super::{FreshKey, KeySource};
use crate::key::{ApiKey, shown};

/// The key in a file that is replaced when the key changes, as mounted secrets are.
///
/// It is read when the first request needs it, then at most every 10 seconds while there are requests, which go on
/// meanwhile, and at once after a 401. A file that is missing or holds no key changes nothing while there is a key to go on
/// with; the [handle](super::KeyHandle::last_failure) knows. What it must hold is what
/// [`ApiKey::from_file`] asks for.
///
/// # Example
///
/// ```
/// use tower_ploton::{PlotonAuth, auth::KeyFile};
///
/// let auth = PlotonAuth::from_source(KeyFile::new("/run/secrets/ploton-key"));
/// # drop(auth);
/// ```
#[derive(Clone)]
#[must_use = "a source does nothing until a layer asks it"]
pub struct KeyFile {
    path: PathBuf,
    every: Duration,
}

impl KeyFile {
    /// The file at `path`, looked at every 10 s.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            every: Duration::from_secs(10),
        }
    }

    /// How long a key is used before the file is looked at again. Less than 1 s counts as 1 s. Default: 10 s.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }
}

impl KeySource for KeyFile {
    async fn fetch(&self) -> Result<FreshKey, BoxError> {
        let path = self.path.clone();
        let key = spawn_blocking(|| ApiKey::from_file(path)).await??;
        Ok(FreshKey::from(key).renew_after(self.every))
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile")
            .field("path", &shown(&self.path))
            .field("every", &self.every)
            .finish()
    }
}
