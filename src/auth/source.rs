//! Where keys come from that change.

use std::{pin::Pin, time::Duration};

use tower::BoxError;

use crate::key::ApiKey;

/// Gives API keys that change: a secret store, a token service, a file.
///
/// [`PlotonAuth::from_source`](crate::PlotonAuth::from_source) asks it for the first key when the first request needs one,
/// and again when the key nears its end or was answered with a 401. It is asked once at a time, however many requests wait,
/// and no sooner than a second after it failed.
///
/// Every closure that returns a future of an [`ApiKey`] or a [`FreshKey`] is one.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tower::BoxError;
/// use tower_ploton::{ApiKey, PlotonAuth, auth::{FreshKey, KeySource}};
///
/// struct Vault { path: String }
///
/// impl KeySource for Vault {
///     async fn fetch(&self) -> Result<FreshKey, BoxError> {
///         let (key, ttl) = read_secret(&self.path).await?;
///         Ok(FreshKey::from(ApiKey::parse(&key)?).expires_in(ttl))
///     }
/// }
/// # async fn read_secret(_: &str) -> Result<(String, Duration), BoxError> {
/// #     Ok(("pk_test_4f9d0c2b7a6e1583".to_owned(), Duration::from_secs(3_600)))
/// # }
///
/// let auth = PlotonAuth::from_source(Vault { path: "ploton/key".to_owned() });
/// # drop(auth);
/// ```
pub trait KeySource: Send + Sync + 'static {
    /// The key to use from now on; the same one as before where it is still good.
    ///
    /// The future is dropped half-way when it takes longer than
    /// [`source_timeout`](crate::PlotonAuth::source_timeout), and it may be when the request that waits for it is dropped.
    /// Where that request is kept and not polled any more, others wait for twice that time and a second at the
    /// most, and the next asks anew.
    ///
    /// # Errors
    ///
    /// Where there is none now. A key that has not expired is used on; else the request ends in a
    /// [`KeyUnavailable`](super::KeyUnavailable) with this error as its source.
    fn fetch(&self) -> impl Future<Output = Result<FreshKey, BoxError>> + Send;
}

impl<F, Fut, K, E> KeySource for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<K, E>> + Send,
    K: Into<FreshKey>,
    E: Into<BoxError>,
{
    async fn fetch(&self) -> Result<FreshKey, BoxError> {
        let answer = self().await;
        answer.map(Into::into).map_err(Into::into)
    }
}

/// A key as a source gives it, and how long it is good for.
#[derive(Clone, Debug)]
#[must_use = "a source hands it back"]
pub struct FreshKey {
    pub(super) key: ApiKey,
    /// `None` where it does not end.
    pub(super) life: Option<Duration>,
    /// `None` where the source need not be asked before its end.
    pub(super) renew_after: Option<Duration>,
}

impl FreshKey {
    /// The key is used for `life` from the source's answer on, and not longer. When a fifth of that is left, or 5 minutes, the source
    /// is asked for the next one, while requests go on with this one. Less than 1 s counts as 1 s. Default: it does not end.
    pub const fn expires_in(mut self, life: Duration) -> Self {
        self.life = Some(life);
        self
    }

    /// The source is asked again after this time, if there are requests then, which go on with this key. Where there were
    /// none for twice the time, the next one waits for the answer. Less than 1 s counts as 1 s. Default: when the key
    /// nears its end, or is answered with a 401.
    pub const fn renew_after(mut self, time: Duration) -> Self {
        self.renew_after = Some(time);
        self
    }
}

/// A key that does not end.
impl From<ApiKey> for FreshKey {
    fn from(key: ApiKey) -> Self {
        Self {
            key,
            life: None,
            renew_after: None,
        }
    }
}

/// A [`KeySource`] of whatever type.
pub(super) trait AnySource: Send + Sync {
    fn fetch_boxed(&self) -> Fetching<'_>;
}

type Fetching<'a> = Pin<Box<dyn Future<Output = Result<FreshKey, BoxError>> + Send + 'a>>;

impl<T: KeySource> AnySource for T {
    fn fetch_boxed(&self) -> Fetching<'_> {
        Box::pin(self.fetch())
    }
}
