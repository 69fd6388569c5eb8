//! The spans of a logical request: one for itself, and in it one for each attempt, with the names of OpenTelemetry's
//! [HTTP conventions](https://opentelemetry.io/docs/specs/semconv/http/http-spans/).

use http::{Request, StatusCode, Uri, Version};
use tracing::{Span, field, span::EnteredSpan};

use super::events::known;
use crate::idempotency_key::{IDEMPOTENCY_KEY, IdempotencyKey};

/// Where a subscriber wants them. No query: it may hold anything. Integers are signed, as OpenTelemetry's are: of others it
/// makes text.
pub(super) struct Spans {
    request: Span,
    /// None between two attempts.
    attempt: Span,
    key_in_span: bool,
    ended: bool,
}

impl Spans {
    /// `None` where nobody wants them.
    pub(super) fn of<B>(request: &Request<B>, key_in_span: bool) -> Option<Box<Self>> {
        let (method, uri) = (request.method(), request.uri());
        let key = || {
            let key = request.headers().get(IDEMPOTENCY_KEY);
            key.filter(|_| key_in_span)?.to_str().ok()
        };
        let span = tracing::info_span!(
            "request",
            otel.name = format_args!("ploton {}", name(known(method))),
            http.request.method = method.as_str(),
            server.address = host(uri),
            url.path = uri.path(),
            ploton.idempotency_key = key(),
            http.request.resend_count = field::Empty,
            http.response.status_code = field::Empty,
            "error.type" = field::Empty,
            otel.status_code = field::Empty,
        );
        // Not "is disabled": the span of a program that only logs is one too.
        (!span.is_none()).then(|| {
            Box::new(Self {
                request: span,
                attempt: Span::none(),
                key_in_span,
                ended: false,
            })
        })
    }

    pub(super) fn enter(&self) -> EnteredSpan {
        self.request.clone().entered()
    }

    pub(super) fn enter_attempt(&self) -> EnteredSpan {
        self.attempt.clone().entered()
    }

    pub(super) fn attempt_begins<B>(&mut self, request: &Request<B>, resent: u32) {
        let (method, uri) = (request.method(), request.uri());
        let known = known(method);
        self.attempt = tracing::info_span!(
            parent: &self.request,
            "attempt",
            otel.name = name(known),
            otel.kind = "client",
            http.request.method = known,
            http.request.method_original = (known != method.as_str()).then(|| method.as_str()),
            http.request.resend_count = (resent > 0).then_some(i64::from(resent)),
            server.address = host(uri),
            server.port = port(uri).map(i64::from),
            url.full = uri.authority().map(|_| field::display(Full(uri))),
            ploton.idempotency_key = field::Empty,
            network.protocol.version = field::Empty,
            http.response.status_code = field::Empty,
            "error.type" = field::Empty,
            otel.status_code = field::Empty,
        );
    }

    /// A layer inside may have made the key.
    pub(super) fn attempt_ended(
        &mut self,
        end: Result<StatusCode, &'static str>,
        version: Option<Version>,
        key: Option<&IdempotencyKey>,
    ) {
        if let Some(key) = key.filter(|_| self.key_in_span) {
            self.request.record(crate::logical::KEY_FIELD, key.as_str());
        }
        let attempt = std::mem::replace(&mut self.attempt, Span::none());
        if let Some(version) = version.and_then(protocol) {
            attempt.record("network.protocol.version", version);
        }
        record(&attempt, end);
    }

    pub(super) fn ended(&mut self, end: Result<StatusCode, &'static str>, resent: u32) {
        self.ended = true;
        if resent > 0 {
            self.request
                .record("http.request.resend_count", i64::from(resent));
        }
        record(&self.request, end);
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        if !self.ended {
            record(&self.attempt, Err("cancelled"));
            record(&self.request, Err("cancelled"));
        }
    }
}

fn record(span: &Span, end: Result<StatusCode, &'static str>) {
    if let Ok(status) = end {
        span.record("http.response.status_code", i64::from(status.as_u16()));
    }
    let failed = match &end {
        Ok(status) if status.as_u16() >= 400 => Some(status.as_str()),
        Ok(_) => None,
        Err(kind) => Some(*kind),
    };
    if let Some(kind) = failed {
        span.record("error.type", kind);
        span.record("otel.status_code", "ERROR");
    }
}

/// A span's name must not be anything, so it has no path.
fn name(method: &'static str) -> &'static str {
    if method == "_OTHER" { "HTTP" } else { method }
}

fn host(uri: &Uri) -> Option<&str> {
    let host = uri.host()?;
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    Some(address.unwrap_or(host))
}

fn port(uri: &Uri) -> Option<u16> {
    uri.port_u16().or_else(|| match uri.scheme_str()? {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    })
}

/// The URL without what may be secret: a user, a password, a query.
struct Full<'a>(&'a Uri);

impl std::fmt::Display for Full<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let uri = self.0;
        if let Some(scheme) = uri.scheme_str() {
            write!(f, "{scheme}:")?;
        }
        write!(f, "//{}", uri.host().unwrap_or_default())?;
        if let Some(port) = uri.port_u16() {
            write!(f, ":{port}")?;
        }
        f.write_str(uri.path())
    }
}

const fn protocol(version: Version) -> Option<&'static str> {
    Some(match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => return None,
    })
}
