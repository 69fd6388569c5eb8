//! Adds the bearer key, to Ploton's own origin only.

use std::{sync::Arc, time::Duration};

use http::{Request, header::AUTHORIZATION};
use tower::Layer;

mod file;
mod handle;
mod keys;
mod renewal;
mod service;
mod source;
#[cfg(test)]
mod tests;

pub use self::{
    file::KeyFile,
    handle::KeyHandle,
    service::{AuthService, ResponseFuture},
    source::{FreshKey, KeySource},
};
use self::{keys::Keys, renewal::Renewal};
use crate::{key::ApiKey, origin::Origin};
pub use crate::{
    key::{KeyUnavailable, WrongKeyKind},
    logical::KeyRenewed,
    origin::PlainHttpRefused,
};

/// Adds `Authorization: Bearer …` to requests for Ploton's own [`Origin`], and to no others.
///
/// A request for another origin, or for none (a relative URI), passes untouched, and so does one that has an
/// `Authorization` header of its own. The header is marked sensitive; nothing that this crate prints holds the key.
///
/// # Keys that change
///
/// The key is chosen at the moment of sending. It can be [replaced](KeyHandle::set) at any time, for all services of this
/// layer and its clones, or come from a [`KeySource`] that is asked ahead of a key's end. A test key and a live key never
/// take each other's place.
///
/// A 401 has [`KeyRenewed`] in its extensions where another key is in force than the one it was given for; a source is
/// asked for one first, once for all requests that wait. [`PlotonRetry`](crate::PlotonRetry) outside this layer then sends
/// the request once more, with the same idempotency key. Without it the 401 is the answer, and the next request carries
/// the new key. What PlotonRetry repeats because it may have been processed carries the key of the attempt that may have
/// been, unless a 401 came: a server may know idempotency keys by their caller. Outside PlotonRetry, this layer gives all
/// attempts one key. What waits between PlotonRetry and this layer for another task, as in tower's `buffer`, counts as sent
/// when it began to wait.
///
/// # Redirects
///
/// A service that follows redirects may stand outside this layer, whatever its policy: each hop is judged by its own URI.
/// Inside this layer it must drop the header itself where a redirect leads to another origin. tower-http's `FollowRedirect`
/// does so by its default policy and by `FilterCredentials`, and `SameOrigin` follows no such redirect; `Limited` alone,
/// `redirect_fn` alone and `FilterCredentials` with `remove_none` take the key wherever they are sent.
///
/// # Errors
///
/// The service's error is a [`BoxError`](tower::BoxError): the inner service's own, or
///
/// - [`PlainHttpRefused`] where a request was made for the Ploton host by plain HTTP, on any port;
/// - [`KeyUnavailable`] where the source gave no key to send it with.
///
/// Neither was sent.
///
/// # Bounds
///
/// The inner service is `Clone`, since a request that waits for a key waits with a clone of its own, and its error is
/// `Into<BoxError>`, beside this layer's own. One that can't be cloned comes in through tower's `buffer`, another error through
/// `map_err` inside. Bodies are of any type.
///
/// # Example
///
/// ```
/// use std::convert::Infallible;
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_ploton::{ApiKey, PlotonAuth, auth::PlainHttpRefused};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let service = ServiceBuilder::new()
///     .layer(PlotonAuth::new(ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?))
///     .service(service_fn(async |request: Request<()>| {
///         assert_eq!(request.headers()["authorization"], "Bearer pk_test_4f9d0c2b7a6e1583");
///         Ok::<_, Infallible>(Response::new(()))
///     }));
///
/// service.clone().oneshot(Request::get("https://api.ploton.ai/v1/tasks").body(())?).await?;
///
/// let refused = service.oneshot(Request::get("http://api.ploton.ai/v1/tasks").body(())?).await;
/// assert!(refused.unwrap_err().is::<PlainHttpRefused>());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service is made with it"]
pub struct PlotonAuth {
    /// Shared by all clones and services.
    keys: Arc<Keys>,
    origin: Origin,
    source_timeout: Duration,
}

impl PlotonAuth {
    /// Adds `key` to requests for `https://api.ploton.ai`, until the [handle](Self::key_handle) sets another.
    pub fn new(key: ApiKey) -> Self {
        Self::with(Keys::fixed(key))
    }

    /// Adds keys that `source` gives.
    ///
    /// It is asked for the first one when the first request needs it, which waits, and all that come meanwhile. The first
    /// one says whether this layer's keys are test or live ones; a key of the other kind is a [`KeyUnavailable`] then.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::{Request, Response};
    /// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
    /// use tower_ploton::{ApiKey, PlotonAuth, auth::FreshKey};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), BoxError> {
    /// let auth = PlotonAuth::from_source(async || {
    ///     let key = ApiKey::parse("pk_test_4f9d0c2b7a6e1583")?; // from a secret store, by the network
    ///     Ok::<_, BoxError>(FreshKey::from(key).expires_in(Duration::from_secs(3_600)))
    /// });
    /// let service = ServiceBuilder::new().layer(auth).service(service_fn(
    ///     async |request: Request<()>| {
    ///         assert!(request.headers().contains_key("authorization"));
    ///         Ok::<_, BoxError>(Response::new(()))
    ///     },
    /// ));
    /// service.oneshot(Request::get("https://api.ploton.ai/v1/tasks").body(())?).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_source(source: impl KeySource) -> Self {
        Self::with(Keys::from_source(Renewal::of(source)))
    }

    fn with(keys: Keys) -> Self {
        Self {
            keys: Arc::new(keys),
            origin: Origin::default(),
            source_timeout: Duration::from_secs(10),
        }
    }

    /// The origin that gets the key, in the place of `https://api.ploton.ai`: a proxy of your own, or a test server.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// How long a [source](Self::from_source) may take to give a key. Default: 10 s.
    pub fn source_timeout(mut self, timeout: Duration) -> Self {
        self.source_timeout = timeout;
        self
    }

    /// Sets another key, and shows the one in force; works before and after services were made.
    #[must_use]
    pub fn key_handle(&self) -> KeyHandle {
        KeyHandle {
            keys: self.keys.clone(),
            source_timeout: self.source_timeout,
        }
    }

    fn acts_for<B>(&self, request: &Request<B>) -> bool {
        self.origin.contains(request.uri()) && !request.headers().contains_key(AUTHORIZATION)
    }

    /// Never where [`acts_for`](Self::acts_for) says so: an origin is reached by HTTPS, or is loopback.
    fn is_in_the_clear<B>(&self, request: &Request<B>) -> bool {
        let uri = request.uri();
        self.origin.is_in_the_clear(uri) || Origin::default().is_in_the_clear(uri)
    }
}

/// [`PlotonAuth::new`]
impl From<ApiKey> for PlotonAuth {
    fn from(key: ApiKey) -> Self {
        Self::new(key)
    }
}

impl<S> Layer<S> for PlotonAuth {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AuthService {
            inner,
            layer: Arc::new(self.clone()),
        }
    }
}
