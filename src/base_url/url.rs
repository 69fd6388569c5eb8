//! Where the API is: an origin and the path before every other.

use std::{borrow::Cow, error::Error, fmt, str::FromStr};

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::origin::{InvalidOrigin, Origin};

/// Where the API is: an [`Origin`], and the path that stands before every other.
///
/// Ploton's own is `https://api.ploton.ai/v1`. A slash at its end makes no difference.
///
/// # Example
///
/// ```
/// use tower_ploton::{BaseUrl, Origin};
///
/// let base = BaseUrl::default();
/// assert_eq!(base.to_string(), "https://api.ploton.ai/v1");
/// assert_eq!(base.join("/tasks?limit=100")?, "https://api.ploton.ai/v1/tasks?limit=100");
/// assert_eq!(base.join("/v1/tasks")?, "https://api.ploton.ai/v1/tasks");
/// assert!(base.join("/tasks/../keys").is_err());
///
/// let local = BaseUrl::parse("http://127.0.0.1:8080/v1/")?;
/// assert_eq!(local.origin(), &Origin::parse("http://127.0.0.1:8080")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl {
    origin: Origin,
    scheme: Scheme,
    authority: Authority,
    /// Empty, or with a slash at its beginning and none at its end.
    prefix: Cow<'static, str>,
}

impl BaseUrl {
    /// Reads a base URL: `https://host/path`, with or without a port and a path, or `http` for a loopback host.
    ///
    /// # Errors
    ///
    /// Where its origin is none that a key may go to, or it has a query, a fragment, an empty or a dot segment.
    pub fn parse(url: &str) -> Result<Self, InvalidBaseUrl> {
        let uri = Uri::from_str(url).map_err(|_| InvalidBaseUrl(Fault::Uri))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(InvalidBaseUrl(Fault::Uri));
        };
        let origin = Origin::parse(&format!("{scheme}://{authority}"))
            .map_err(|error| InvalidBaseUrl(Fault::Origin(error)))?;
        if uri.query().is_some() || url.contains('#') {
            return Err(InvalidBaseUrl(Fault::More));
        }
        let prefix = uri.path().strip_suffix('/').unwrap_or(uri.path());
        if prefix.ends_with('/') || escapes(prefix) {
            return Err(InvalidBaseUrl(Fault::Path));
        }
        Ok(Self {
            origin,
            scheme: scheme.clone(),
            authority: authority.clone(),
            prefix: Cow::Owned(prefix.to_owned()),
        })
    }

    /// Its origin, as [`PlotonStack::origin`](crate::PlotonStack::origin) and the layers take it.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The URI of a path, with or without a query, below this one. A path that already begins with this one's is not put
    /// below it a second time.
    ///
    /// # Errors
    ///
    /// Where the path does not begin with a slash, or could lead out of this one: it has a segment `.` or `..`, an empty
    /// one before its end, or a control character, as they are or percent-encoded, however often. Where anything in it is
    /// percent-encoded more than eight times over. Where it has a `#`: what comes after that is never sent.
    pub fn join(&self, path_and_query: &str) -> Result<Uri, PathRefused> {
        if !path_and_query.starts_with('/') || path_and_query.contains('#') {
            return Err(PathRefused(()));
        }
        let path = PathAndQuery::from_str(path_and_query).map_err(|_| PathRefused(()))?;
        self.uri(&path)
    }

    pub(super) fn uri(&self, path_and_query: &PathAndQuery) -> Result<Uri, PathRefused> {
        let path = path_and_query.path();
        if !path.starts_with('/') || escapes(path) {
            return Err(PathRefused(()));
        }
        let below = path.strip_prefix(&*self.prefix);
        let path_and_query = if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            path_and_query.clone()
        } else {
            PathAndQuery::try_from(format!("{}{path_and_query}", self.prefix))
                .map_err(|_| PathRefused(()))?
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path_and_query)
            .build()
            .map_err(|_| PathRefused(()))
    }
}

/// Whether a path could be read as one that leaves its place, by whoever decodes it, once or several times.
fn escapes(path: &str) -> bool {
    let mut path = Cow::Borrowed(path.as_bytes());
    // Each time a server or a proxy on the way decodes it, three bytes become one.
    for _ in 0..=MOST_ENCODINGS {
        if has_escape(&path) {
            return true;
        }
        match decoded(&path) {
            Some(next) => path = Cow::Owned(next),
            None => return false,
        }
    }
    true
}

/// What is encoded more often is nobody's name, and a long path could be half as often as it has bytes.
const MOST_ENCODINGS: usize = 8;

/// Whether a segment is a dot segment or is empty, though not the last. Some servers take a backslash for a slash, and
/// what follows a semicolon for no part of the name.
fn has_escape(path: &[u8]) -> bool {
    let inner = path.strip_prefix(b"/").unwrap_or(path);
    let mut segments = inner.split(|b| matches!(b, b'/' | b'\\')).peekable();
    while let Some(segment) = segments.next() {
        let name = segment.split(|b| *b == b';').next().unwrap_or_default();
        let empty = segment.is_empty() && segments.peek().is_some();
        if empty || matches!(name, b"." | b"..") || segment.iter().any(u8::is_ascii_control) {
            return true;
        }
    }
    false
}

/// The path, percent-decoded once; `None` where nothing in it is encoded.
fn decoded(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let byte = match (first, after) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match byte {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    (out.len() < path.len()).then_some(out)
}

fn digit(hex: u8) -> Option<u8> {
    let digit = char::from(hex).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// Ploton's own: `https://api.ploton.ai/v1`.
impl Default for BaseUrl {
    fn default() -> Self {
        Self {
            origin: Origin::default(),
            scheme: Scheme::HTTPS,
            authority: Authority::from_static("api.ploton.ai"),
            prefix: Cow::Borrowed("/v1"),
        }
    }
}

impl FromStr for BaseUrl {
    type Err = InvalidBaseUrl;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Self::parse(url)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseUrl({self})")
    }
}

/// The text is no base URL. It says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidBaseUrl(Fault);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Uri,
    Origin(InvalidOrigin),
    More,
    Path,
}

impl fmt::Display for InvalidBaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Fault::Uri => f.write_str("a base URL is a URI: https://host/path"),
            Fault::Origin(error) => error.fmt(f),
            Fault::More => f.write_str("a base URL has no query and no fragment"),
            Fault::Path => f.write_str("the base URL's path has an empty or a dot segment"),
        }
    }
}

impl Error for InvalidBaseUrl {}

/// A path could have led out of the [`BaseUrl`], or does not begin with a slash. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRefused(());

impl PathRefused {
    pub(super) const fn new() -> Self {
        Self(())
    }
}

impl fmt::Display for PathRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a path begins with a slash, has no #, no control character, no empty segment and none that is . or .., and is not encoded over and over",
        )
    }
}

impl Error for PathRefused {}
