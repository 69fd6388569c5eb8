//! Where a request goes: scheme, host and port.

use std::{
    borrow::Cow,
    error::Error,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use http::Uri;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// The scheme, host and port that a layer acts for.
///
/// `https`, or `http` to a loopback host (`127.0.0.0/8`, `[::1]`, `localhost`) for tests and local proxies: a key is
/// never sent in the clear to another machine. Case, a dot at the end of the host, the scheme's default port, user
/// information and the spelling of an IPv6 address make no difference. An internationalised name is written in punycode
/// (`xn--…`), in an origin as in every [`Uri`].
///
/// # Example
///
/// ```
/// use tower_ploton::Origin;
///
/// assert_eq!(Origin::default(), Origin::parse("https://API.ploton.ai:443")?);
/// assert!(Origin::parse("http://127.0.0.1:8080").is_ok());
/// assert!(Origin::parse("http://api.ploton.ai").is_err());
/// # Ok::<(), tower_ploton::InvalidOrigin>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    https: bool,
    host: Host,
    port: u16,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Host {
    /// Lower case, no dot at its end.
    Name(Cow<'static, str>),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
}

impl Origin {
    /// Reads an origin: `https://host` or `https://host:port`, or `http` for a loopback host.
    ///
    /// # Errors
    ///
    /// Where it is no URI, has a character that is not ASCII, another scheme, no host, a path, a query or user information,
    /// or is plain HTTP to a host that is not loopback.
    pub fn parse(origin: &str) -> Result<Self, InvalidOrigin> {
        if !origin.is_ascii() {
            return Err(InvalidOrigin(Fault::NotAscii));
        }
        let uri = Uri::from_str(origin).map_err(|_| InvalidOrigin(Fault::Uri))?;
        let has_path = uri
            .path_and_query()
            .is_some_and(|path| path.as_str() != "/");
        let has_user = uri.authority().is_some_and(|a| a.as_str().contains('@'));
        if has_path || has_user {
            return Err(InvalidOrigin(Fault::More));
        }
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(InvalidOrigin(Fault::Scheme)),
        };
        let host = uri
            .host()
            .and_then(Host::parse)
            .ok_or(InvalidOrigin(Fault::Host))?;
        if !https && !host.is_loopback() {
            return Err(InvalidOrigin(Fault::PlainHttp));
        }
        let port = port(&uri, https).ok_or(InvalidOrigin(Fault::Port))?;
        Ok(Self { https, host, port })
    }

    /// Whether `uri` is at this origin. User information makes no difference; a URI without scheme or host is at none.
    #[must_use]
    pub fn contains(&self, uri: &Uri) -> bool {
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return false,
        };
        self.https == https
            && (self.is_spelled_in(uri)
                || port(uri, https) == Some(self.port) && self.has_host(uri))
    }

    /// Whether `uri` spells it as nearly all do, which needs no parsing to see.
    fn is_spelled_in(&self, uri: &Uri) -> bool {
        let authority = uri.authority().map(|authority| authority.as_str());
        let has_default_port = self.port == default_port(self.https);
        matches!(&self.host, Host::Name(name) if has_default_port && authority == Some(name))
    }

    /// Whether `uri` is plain HTTP, on any port, to the host that this origin reaches by HTTPS.
    pub(crate) fn is_in_the_clear(&self, uri: &Uri) -> bool {
        // `http` keeps the case of a scheme that a URI is put together from.
        let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("http");
        self.https && uri.scheme_str().is_some_and(is_http) && self.has_host(uri)
    }

    fn has_host(&self, uri: &Uri) -> bool {
        uri.host().is_some_and(|host| match &self.host {
            // By far the most frequent, so without an allocation.
            Host::Name(name) => name.eq_ignore_ascii_case(without_dot(host)),
            address => Host::parse(host).as_ref() == Some(address),
        })
    }
}

/// Ploton's own: `https://api.ploton.ai`.
impl Default for Origin {
    fn default() -> Self {
        Self {
            https: true,
            host: Host::Name(Cow::Borrowed("api.ploton.ai")),
            port: 443,
        }
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(origin: &str) -> Result<Self, Self::Err> {
        Self::parse(origin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.https { "https://" } else { "http://" })?;
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::V4(address) => write!(f, "{address}")?,
            Host::V6(address) => write!(f, "[{address}]")?,
        }
        if self.port == default_port(self.https) {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

impl Host {
    fn parse(host: &str) -> Option<Self> {
        if let Some(address) = host.strip_prefix('[') {
            return address.strip_suffix(']')?.parse().ok().map(Self::V6);
        }
        let name = without_dot(host);
        if let Ok(address) = name.parse() {
            return Some(Self::V4(address));
        }
        let is_name = name.split('.').all(|label| !label.is_empty());
        is_name.then(|| Self::Name(name.to_ascii_lowercase().into()))
    }

    fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost",
            Self::V4(address) => address.is_loopback(),
            Self::V6(address) => address.is_loopback(),
        }
    }
}

fn without_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// The port that `uri` means; `None` where it names one that does not exist, or has anything else behind its host.
fn port(uri: &Uri, https: bool) -> Option<u16> {
    // `http` itself takes `:+443` for a port, `:65536` for none, and does not see what stands between `]` and a port.
    let host_and_port = uri.authority()?.as_str().rsplit('@').next()?;
    match host_and_port.get(uri.host()?.len()..)? {
        "" | ":" => Some(default_port(https)),
        port => {
            let digits = port.strip_prefix(':')?;
            let are_digits = digits.bytes().all(|b| b.is_ascii_digit());
            are_digits.then(|| digits.parse().ok()).flatten()
        }
    }
}

const fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}

/// The text is no origin that a key may go to. It says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOrigin(Fault);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    NotAscii,
    Uri,
    Scheme,
    Host,
    Port,
    More,
    PlainHttp,
}

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Fault::NotAscii => {
                "an origin is ASCII: an internationalised name is written in punycode, xn--…"
            }
            Fault::Uri => "an origin is a URI: https://host or https://host:port",
            Fault::Scheme => "the scheme of an origin is https, or http for a loopback host",
            Fault::Host => "the origin has no host, or one with an empty label",
            Fault::Port => "the origin's port is not between 0 and 65535",
            Fault::More => "an origin has no path, query or user information",
            Fault::PlainHttp => "plain HTTP is for loopback hosts only",
        })
    }
}

impl Error for InvalidOrigin {}

/// A request for the Ploton host was made by plain HTTP, where a key could be read on its way. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainHttpRefused(());

impl PlainHttpRefused {
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

impl fmt::Display for PlainHttpRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain http to the Ploton host was refused, use https")
    }
}

impl Error for PlainHttpRefused {}
