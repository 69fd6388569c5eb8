//! What an outcome means: whether the request may be sent again. Pure.

use std::{error::Error, io, iter};

use http::{HeaderMap, HeaderName, Method, StatusCode};
use hyper_util::client::legacy;

use super::{AttemptsFailed, DeadlinePassed};
use crate::origin::PlainHttpRefused;

/// What is known of an attempt that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It never left: no connection, a stream that the server refused, a connection closed before the request was on it.
    NotSent,
    /// The server did not process it, and says so: 429.
    Refused,
    /// It may have been processed.
    Ambiguous,
    /// Asking again would change nothing.
    Final,
}

impl Outcome {
    /// Whether a request with this outcome may be sent again. `repeatable` requests may be processed twice: their method
    /// is idempotent, or they carry an idempotency key.
    pub(super) const fn allows_another(self, repeatable: bool) -> bool {
        match self {
            Self::NotSent | Self::Refused => true,
            Self::Ambiguous => repeatable,
            Self::Final => false,
        }
    }
}

/// [RFC 9110, 9.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2)
pub(super) fn is_idempotent(method: &Method) -> bool {
    method.is_safe() || [Method::PUT, Method::DELETE].contains(method)
}

/// What an answer means.
pub(super) fn answer(status: StatusCode, headers: &HeaderMap) -> Outcome {
    match status.as_u16() {
        429 => Outcome::Refused,
        500 | 502 | 503 | 504 if is_stored_answer(headers) => Outcome::Final,
        408 | 500 | 502 | 503 | 504 => Outcome::Ambiguous,
        _ => Outcome::Final,
    }
}

/// Whether the server says that it gave the answer it had stored for the idempotency key.
fn is_stored_answer(headers: &HeaderMap) -> bool {
    headers
        .get(IDEMPOTENT_REPLAYED)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// What an error means, and its kind in a word; an error that nobody here knows is ambiguous.
pub(super) fn error(error: &(dyn Error + 'static)) -> (Outcome, &'static str) {
    causes(error)
        .find_map(known)
        .unwrap_or((Outcome::Ambiguous, "other"))
}

fn known(cause: &(dyn Error + 'static)) -> Option<(Outcome, &'static str)> {
    if cause.is::<PlainHttpRefused>() {
        return Some((Outcome::Final, "plain_http"));
    }
    if cause.is::<AttemptsFailed>() || cause.is::<DeadlinePassed>() {
        return Some((Outcome::Final, "retried"));
    }
    if crate::limit::did_not_wait(cause) {
        return Some((Outcome::Final, "rate_limit"));
    }
    if cause.is::<http::uri::InvalidUri>() || cause.is::<http::uri::InvalidUriParts>() {
        return Some((Outcome::Final, "uri"));
    }
    if let Some(client) = cause.downcast_ref::<legacy::Error>() {
        return client_error(client);
    }
    if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
        return hyper_error(hyper);
    }
    #[cfg(feature = "http2")]
    if let Some(h2) = cause.downcast_ref::<h2::Error>() {
        return Some(h2_error(h2));
    }
    if cause.is::<tower::timeout::error::Elapsed>() {
        return Some((Outcome::Ambiguous, "timeout"));
    }
    cause.downcast_ref().map(io_error)
}

fn client_error(error: &legacy::Error) -> Option<(Outcome, &'static str)> {
    if error.is_connect() {
        return Some(if causes(error).any(is_tls) {
            (Outcome::Final, "tls")
        } else {
            (Outcome::NotSent, "connect")
        });
    }
    // Only what the client itself refuses to send has no source: a URI without host, a version or method it can't do.
    error
        .source()
        .is_none()
        .then_some((Outcome::Final, "request"))
}

fn hyper_error(error: &hyper::Error) -> Option<(Outcome, &'static str)> {
    if error.is_canceled() {
        return Some((Outcome::NotSent, "canceled"));
    }
    if error.is_incomplete_message() {
        return Some((Outcome::Ambiguous, "incomplete_message"));
    }
    // Among others a request body that ended in an error.
    error.is_user().then_some((Outcome::Final, "request"))
}

/// [RFC 9113, 8.7](https://www.rfc-editor.org/rfc/rfc9113#section-8.7): neither a refused stream nor one above the last of
/// a graceful GOAWAY was processed.
#[cfg(feature = "http2")]
fn h2_error(error: &h2::Error) -> (Outcome, &'static str) {
    let reason = error.reason();
    if error.is_reset() && error.is_remote() && reason == Some(h2::Reason::REFUSED_STREAM) {
        return (Outcome::NotSent, "refused_stream");
    }
    if error.is_go_away() && error.is_remote() && reason == Some(h2::Reason::NO_ERROR) {
        return (Outcome::NotSent, "go_away");
    }
    (Outcome::Ambiguous, "h2")
}

fn io_error(error: &io::Error) -> (Outcome, &'static str) {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut => "timeout",
        io::ErrorKind::ConnectionReset => "connection_reset",
        _ => "io",
    };
    (Outcome::Ambiguous, kind)
}

/// TLS fails inside the connector, as an `io::Error` of one of these kinds.
fn is_tls(cause: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Unsupported};
    cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| matches!(error.kind(), InvalidData | InvalidInput | Unsupported))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&cause| cause.source())
}

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tower::BoxError;

    use super::*;

    #[test]
    fn a_status_means_what_the_table_says() {
        let none = HeaderMap::new();
        for status in 100..=599 {
            let outcome = answer(StatusCode::from_u16(status).unwrap(), &none);
            let expected = match status {
                429 => Outcome::Refused,
                408 | 500 | 502 | 503 | 504 => Outcome::Ambiguous,
                _ => Outcome::Final,
            };
            assert_eq!(outcome, expected, "{status}");
        }
    }

    #[test]
    fn a_stored_answer_is_final() {
        let mut headers = HeaderMap::new();
        for (value, outcome) in [("true", Outcome::Final), ("false", Outcome::Ambiguous)] {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static(value));
            assert_eq!(answer(StatusCode::INTERNAL_SERVER_ERROR, &headers), outcome);
        }
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        assert_eq!(
            answer(StatusCode::TOO_MANY_REQUESTS, &headers),
            Outcome::Refused
        );
    }

    #[test]
    fn an_ambiguous_outcome_allows_another_only_where_it_is_repeatable() {
        let table = [
            (Outcome::NotSent, true, true),
            (Outcome::Refused, true, true),
            (Outcome::Ambiguous, true, false),
            (Outcome::Final, false, false),
        ];
        for (outcome, repeatable, not_repeatable) in table {
            assert_eq!(outcome.allows_another(true), repeatable);
            assert_eq!(outcome.allows_another(false), not_repeatable);
        }
        for (method, idempotent) in [
            ("GET", true),
            ("HEAD", true),
            ("OPTIONS", true),
            ("TRACE", true),
            ("PUT", true),
            ("DELETE", true),
            ("POST", false),
            ("PATCH", false),
            ("CONNECT", false),
            ("BREW", false),
        ] {
            let method = method.parse().unwrap();
            assert_eq!(is_idempotent(&method), idempotent, "{method}");
        }
    }

    #[test]
    fn a_plain_error_is_told_by_its_type() {
        let invalid_uri = "http://[".parse::<http::Uri>().unwrap_err();
        let table: [(BoxError, Outcome, &str); 5] = [
            (
                Box::new(PlainHttpRefused::new()),
                Outcome::Final,
                "plain_http",
            ),
            (Box::new(invalid_uri), Outcome::Final, "uri"),
            (
                Box::new(tower::timeout::error::Elapsed::new()),
                Outcome::Ambiguous,
                "timeout",
            ),
            (
                Box::new(io::Error::from(io::ErrorKind::ConnectionReset)),
                Outcome::Ambiguous,
                "connection_reset",
            ),
            ("who knows".into(), Outcome::Ambiguous, "other"),
        ];
        for (cause, outcome, kind) in table {
            assert_eq!(error(&*cause), (outcome, kind));
        }
    }
}
