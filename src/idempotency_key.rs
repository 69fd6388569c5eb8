//! The key that makes a repeated POST the same POST.

use std::{
    error::Error,
    fmt,
    hash::{Hash, Hasher},
    str::{self, FromStr},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::headers::date::Wall;

/// The header that carries an [`IdempotencyKey`].
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The value of an `Idempotency-Key` header: visible ASCII, 1 to 255 characters.
///
/// [`PlotonIdempotency`](crate::PlotonIdempotency) makes a random one for each POST. A caller who wants to know it
/// beforehand, or to make the same one again after a crash, puts one into the request's extensions; it is found again in
/// the [`Attempts`](crate::Attempts) of what went wrong. Two keys are equal where their text is.
///
/// # Which key
///
/// - [`random`](Self::random): another one each time. For a request that is made once.
/// - [`derive`](Self::derive): the same one for the same operation, in every process. For a job that is run again where it
///   crashed: what it had created by then is not created twice.
/// - [`parse`](Self::parse): one of your own.
///
/// # Age
///
/// The server knows a key for 24 hours, and would process the request again after that. So
/// [`PlotonRetry`](crate::PlotonRetry) sends nothing with a key, neither a first attempt nor a further one, from 23 hours
/// after the key's first use on, as far as that is known: from when [`PlotonIdempotency`](crate::PlotonIdempotency) first
/// sent a random key, or one that came back with what went wrong, else from this call of the retry layer on. Of a derived or
/// parsed key, a process knows nothing that an earlier process did: [`first_used`](Self::first_used) says it.
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
#[derive(Clone)]
pub struct IdempotencyKey(Form);

#[derive(Clone)]
enum Form {
    /// As it is sent.
    Value {
        value: HeaderValue,
        /// `Some` where it is known.
        first_use: Option<FirstUse>,
    },
    /// Random, made by the caller. It is one allocation; the header's value is made when it is sent.
    Beforehand(Arc<dyn Shared>),
}

#[derive(Clone, Copy)]
enum FirstUse {
    /// A layer of this process sent it.
    Sent(Instant),
    /// The caller says so.
    Stated(SystemTime),
}

/// The text, and when one of the clones was first sent. Behind a trait, since clippy takes a map's key for mutable that has
/// a lock in it, though it is compared by its text alone.
trait Shared: Send + Sync {
    fn text(&self) -> &RandomText;
    fn first_sent(&self) -> &OnceLock<Instant>;
}

impl Shared for (RandomText, OnceLock<Instant>) {
    fn text(&self) -> &RandomText {
        &self.0
    }

    fn first_sent(&self) -> &OnceLock<Instant> {
        &self.1
    }
}

/// `req_` and 32 digits.
type RandomText = [u8; 36];

impl IdempotencyKey {
    /// Makes a new key: `req_` and 128 bits from the thread's cryptographic generator, in hexadecimal. It costs one
    /// allocation.
    #[must_use]
    pub fn random() -> Self {
        let shared = (random_text(), OnceLock::new());
        Self(Form::Beforehand(Arc::new(shared)))
    }

    /// A random key that is sent `now`: one allocation, the header included.
    pub(crate) fn sent_now(now: Instant) -> Self {
        Self(Form::Value {
            value: header_value(random_text()),
            first_use: Some(FirstUse::Sent(now)),
        })
    }

    /// The key of the operation called `name`: the same in every process, on every machine, in every version of this crate.
    ///
    /// A job that crashed is run again with the same names, and creates nothing twice. So a name must be of one operation
    /// only, for good, and the request must be the same each time: `invoice-42` and not `invoice`, and no time of day in the
    /// body. The server remembers a key for 24 hours; see [`first_used`](Self::first_used).
    ///
    /// The key is `drv_` and the SHA-256 of the name as a [netstring](https://cr.yp.to/proto/netstrings.txt), which is its
    /// length in bytes, `:`, the name, `,`, in lower-case hexadecimal: `printf 10:invoice-42, | sha256sum` says it too. It is
    /// no secret: whoever can guess the name knows the key.
    ///
    /// # Example
    ///
    /// ```
    /// use tower_ploton::IdempotencyKey;
    ///
    /// let key = IdempotencyKey::derive("invoice-42");
    /// assert_eq!(
    ///     key.as_str(),
    ///     "drv_23e3cda9bd2d798c5713aebf41a50c3b3ba5d331e1a816821850990acbf48611",
    /// );
    /// assert_ne!(key, IdempotencyKey::derive("invoice-43"));
    /// ```
    #[must_use]
    pub fn derive(name: &str) -> Self {
        Self::derive_from([name])
    }

    /// [`derive`](Self::derive)s the key of an operation whose name has several parts, such as a customer and an invoice.
    ///
    /// Where one part ends and the next begins is part of the name: `["a", "bc"]`, `["ab", "c"]` and `["abc"]` are three
    /// operations. The key is `drv_` and the SHA-256 of the parts' netstrings, one after the other. Of one part it is the
    /// same as `derive`'s.
    ///
    /// ```
    /// use tower_ploton::IdempotencyKey;
    ///
    /// let key = IdempotencyKey::derive_from(["acme", "invoice-42"]);
    /// assert_ne!(key, IdempotencyKey::derive_from(["acme-invoice", "42"]));
    /// ```
    #[must_use]
    pub fn derive_from<I>(parts: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let mut hash = Sha256::new();
        for part in parts {
            let part = part.as_ref();
            hash.update(part.len().to_string());
            hash.update(":");
            hash.update(part);
            hash.update(",");
        }
        let mut text = [0; 68];
        write_hex(&mut text, b"drv_", &hash.finalize());
        Self(Form::Value {
            value: header_value(text),
            first_use: None,
        })
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
        let value = HeaderValue::from_str(key).map_err(|_| InvalidIdempotencyKey(()))?;
        Ok(Self::unused(value))
    }

    /// States when a request was first sent with this key, by an earlier process for example: nothing is sent with it from
    /// 23 hours after that on. A time to come counts as now. By default it is taken as not used yet.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use http::{Request, Response};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use tower_ploton::{IdempotencyKey, PlotonIdempotency, PlotonRetry, retry::KeyExpired};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// let service = ServiceBuilder::new()
    ///     .layer(PlotonIdempotency::new())
    ///     .layer(PlotonRetry::new())
    ///     .service(service_fn(async |_: Request<String>| {
    ///         Response::builder().status(201).body(String::new())
    ///     }));
    ///
    /// // What the job wrote down before it sent anything.
    /// let started = SystemTime::now() - Duration::from_secs(30 * 60 * 60);
    /// let key = IdempotencyKey::derive("invoice-42").first_used(started);
    /// let request = Request::post("https://api.ploton.ai/v1/tasks").extension(key).body("{}".to_owned())?;
    ///
    /// // Was it created then? The server no longer knows: look, before it is sent with another key.
    /// let error = service.oneshot(request).await.unwrap_err();
    /// assert!(error.is::<KeyExpired>());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn first_used(self, time: SystemTime) -> Self {
        Self(Form::Value {
            value: self.header(),
            first_use: Some(FirstUse::Stated(time)),
        })
    }

    /// The key as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Form::Value { value, .. } => value.to_str().unwrap_or_default(),
            Form::Beforehand(key) => str::from_utf8(key.text()).unwrap_or_default(),
        }
    }

    /// The key that a caller set as a header, where it can be one.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        Self::read(headers.get(IDEMPOTENCY_KEY)?)
    }

    /// The key in a header, where it can be one.
    pub(crate) fn read(value: &HeaderValue) -> Option<Self> {
        is_key(value.as_bytes()).then(|| Self::unused(value.clone()))
    }

    /// The key of a request's header, with what is known of its age where the extensions hold the same.
    pub(crate) fn sent_with(headers: &HeaderMap, extensions: &Extensions) -> Option<Self> {
        let sent = Self::of(headers)?;
        let known = extensions.get().filter(|known| **known == sent);
        Some(known.cloned().unwrap_or(sent))
    }

    /// The key in a request's extensions, where it is the one that the request carries or is to carry.
    pub(crate) fn meant_by<'a>(
        method: &Method,
        headers: &HeaderMap,
        extensions: &'a Extensions,
    ) -> Option<&'a Self> {
        let meant: &Self = extensions.get()?;
        let is_sent = match headers.get(IDEMPOTENCY_KEY) {
            Some(own) if !own.is_empty() => own == meant.as_str(),
            _ => !method.is_safe(),
        };
        is_sent.then_some(meant)
    }

    /// Whether the caller set the header: an idempotency layer leaves it as it is then, be it a key or not.
    pub(crate) fn is_set_in(headers: &HeaderMap) -> bool {
        headers
            .get(IDEMPOTENCY_KEY)
            .is_some_and(|value| !value.is_empty())
    }

    /// Whether a header carries a key that the server can tell a second time from the first by.
    pub(crate) fn is_in(headers: &HeaderMap) -> bool {
        headers
            .get(IDEMPOTENCY_KEY)
            .is_some_and(|value| is_key(value.as_bytes()))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        match &self.0 {
            Form::Value { value, .. } => value.clone(),
            Form::Beforehand(key) => header_value(SharedText(key.clone())),
        }
    }

    /// The same key, known to have been sent at `now` at the latest.
    pub(crate) fn used_at(self, now: Instant) -> Self {
        match self.0 {
            Form::Value { value, first_use } => Self(Form::Value {
                value,
                first_use: first_use.or(Some(FirstUse::Sent(now))),
            }),
            Form::Beforehand(key) => {
                key.first_sent().get_or_init(|| now);
                Self(Form::Beforehand(key))
            }
        }
    }

    /// The time at `now` since its first use; zero where it was not used yet.
    pub(crate) fn age(&self, wall: &Wall, now: Instant) -> Duration {
        let first_use = match &self.0 {
            Form::Value { first_use, .. } => *first_use,
            Form::Beforehand(key) => key.first_sent().get().copied().map(FirstUse::Sent),
        };
        match first_use {
            Some(FirstUse::Sent(at)) => now.saturating_duration_since(at),
            Some(FirstUse::Stated(at)) => wall.at(now).duration_since(at).unwrap_or_default(),
            None => Duration::ZERO,
        }
    }

    const fn unused(value: HeaderValue) -> Self {
        Self(Form::Value {
            value,
            first_use: None,
        })
    }
}

fn random_text() -> RandomText {
    let bits: u128 = rand::random();
    let mut text = [0; 36];
    write_hex(&mut text, b"req_", &bits.to_be_bytes());
    text
}

/// Writes `prefix` and then `bytes` in hexadecimal, as far as there is room.
fn write_hex(text: &mut [u8], prefix: &[u8; 4], bytes: &[u8]) {
    let Some((head, digits)) = text.split_first_chunk_mut() else {
        return;
    };
    *head = *prefix;
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

/// Fits: `bits` are four.
const fn digit(bits: u8) -> u8 {
    match bits {
        0..=9 => b'0' + bits,
        _ => b'a' - 10 + bits,
    }
}

/// A value that is cloned without an allocation.
#[allow(clippy::expect_used, reason = "the text is visible ASCII")]
fn header_value(text: impl AsRef<[u8]> + Send + 'static) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from_owner(text)).expect("visible ASCII")
}

struct SharedText(Arc<dyn Shared>);

impl AsRef<[u8]> for SharedText {
    fn as_ref(&self) -> &[u8] {
        self.0.text()
    }
}

impl PartialEq for IdempotencyKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for IdempotencyKey {}

impl Hash for IdempotencyKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
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
/// Servers know a key for 24 hours; an hour is for what is on its way, and for clocks.
pub(crate) const KEY_LIFE: Duration = Duration::from_secs(23 * 60 * 60);
