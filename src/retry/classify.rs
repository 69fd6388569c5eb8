//! What an outcome means: the table, over statuses, headers and errors. Pure.

use std::{error::Error, io, iter};

use http::{HeaderMap, HeaderName, Method, StatusCode};
use hyper_util::client::legacy;

use super::{AttemptsFailed, DeadlinePassed, KeyExpired, Outcome};
use crate::{
    key::{KeyUnavailable, WrongKeyKind},
    no_turn,
    origin::PlainHttpRefused,
};

/// [RFC 9110, 9.2.2](https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2)
pub(super) fn is_idempotent(method: &Method) -> bool {
    method.is_safe() || [Method::PUT, Method::DELETE].contains(method)
}

/// What a status means.
pub(super) const fn status(status: StatusCode) -> Outcome {
    match status.as_u16() {
        429 => Outcome::Refused,
        408 | 500 | 502 | 503 | 504 => Outcome::Ambiguous,
        _ => Outcome::Final,
    }
}

/// Whether the server says, in the header `name`, that it gave the answer it had stored for the idempotency key.
pub(super) fn is_stored_answer(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers
        .get(name)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// What an error means, and its kind in a word; an error that nobody here knows is ambiguous.
pub(super) fn error(error: &(dyn Error + 'static)) -> (Outcome, &'static str) {
    causes(error)
        .find_map(known)
        // Others travel inside of io errors.
        .or_else(|| {
            let io = causes(error).find_map(|cause| cause.downcast_ref())?;
            let was_connected = causes(error).any(|cause| cause.is::<hyper::Error>());
            Some(io_error(io, was_connected))
        })
        .unwrap_or((Outcome::Ambiguous, "other"))
}

fn known(cause: &(dyn Error + 'static)) -> Option<(Outcome, &'static str)> {
    if cause.is::<PlainHttpRefused>() {
        return Some((Outcome::Final, "plain_http"));
    }
    // Nothing was sent; a source that gave a key of the wrong kind will give it again.
    if cause.is::<KeyUnavailable>() {
        return Some(if causes(cause).any(|cause| cause.is::<WrongKeyKind>()) {
            (Outcome::Final, "api_key")
        } else {
            (Outcome::NotSent, "api_key")
        });
    }
    if cause.is::<AttemptsFailed>() || cause.is::<DeadlinePassed>() {
        return Some((Outcome::Final, "retried"));
    }
    if cause.is::<KeyExpired>() {
        return Some((Outcome::Final, "key_expired"));
    }
    // Whoever bounds the wait wants to know at once.
    if no_turn::did_not_wait(cause) {
        return Some((Outcome::Final, "rate_limit"));
    }
    if cause.is::<http::uri::InvalidUri>() || cause.is::<http::uri::InvalidUriParts>() {
        return Some((Outcome::Final, "uri"));
    }
    #[cfg(feature = "reqwest")]
    if let Some(Some(known)) = cause.downcast_ref().map(reqwest_error) {
        return Some(known);
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
    if cause.is::<tower::load_shed::error::Overloaded>() {
        return Some((Outcome::NotSent, "overloaded"));
    }
    let timed_out =
        cause.is::<tower::timeout::error::Elapsed>() || cause.is::<tokio::time::error::Elapsed>();
    timed_out.then_some((Outcome::Ambiguous, "timeout"))
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
    if error.source().is_none() {
        return Some((Outcome::Final, "request"));
    }
    // Without a connection to name, it failed before there was one to send on: in a handshake.
    error
        .connect_info()
        .is_none()
        .then_some((Outcome::NotSent, "handshake"))
}

/// What reqwest says itself; the rest it has from hyper-util's client.
#[cfg(feature = "reqwest")]
fn reqwest_error(error: &reqwest::Error) -> Option<(Outcome, &'static str)> {
    // Neither what it could not send nor a chain of redirects that its policy ended gets better.
    if error.is_builder() || error.is_redirect() {
        return Some((Outcome::Final, "request"));
    }
    // That of a connector is one of the connection: nothing was sent.
    (error.is_timeout() && !error.is_connect()).then_some((Outcome::Ambiguous, "timeout"))
}

fn hyper_error(error: &hyper::Error) -> Option<(Outcome, &'static str)> {
    if error.is_canceled() {
        return Some((Outcome::NotSent, "canceled"));
    }
    if error.is_closed() {
        return Some((Outcome::NotSent, "closed"));
    }
    if error.is_parse() {
        return Some((Outcome::Ambiguous, "parse"));
    }
    if error.is_incomplete_message() {
        return Some((Outcome::Ambiguous, "incomplete_message"));
    }
    // Among others a request body that ended in an error; but a connection whose task is gone is no fault of the user's.
    let is_gone = error.to_string() == DISPATCH_GONE;
    (error.is_user() && !is_gone).then_some((Outcome::Final, "request"))
}

/// [RFC 9113, 8.7](https://www.rfc-editor.org/rfc/rfc9113#section-8.7): neither a refused stream nor one above the last of
/// a graceful GOAWAY was processed.
#[cfg(feature = "http2")]
fn h2_error(error: &h2::Error) -> (Outcome, &'static str) {
    let reason = error.reason();
    if error.is_reset() && error.is_remote() && reason == Some(h2::Reason::REFUSED_STREAM) {
        return (Outcome::NotSent, "refused_stream");
    }
    // Reset by this side: the request's own body failed.
    if error.is_reset() && !error.is_remote() && !error.is_library() {
        return (Outcome::Final, "request");
    }
    if error.is_go_away() && error.is_remote() && reason == Some(h2::Reason::NO_ERROR) {
        return (Outcome::NotSent, "go_away");
    }
    (Outcome::Ambiguous, "h2")
}

fn io_error(error: &io::Error, was_connected: bool) -> (Outcome, &'static str) {
    let kind = match error.kind() {
        // For clients that wrap it in errors of their own. A connection that is there says so too, when it gives up what a
        // firewall on the way refuses by ICMP.
        io::ErrorKind::ConnectionRefused if !was_connected => return (Outcome::NotSent, "connect"),
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

/// The error and what it comes from. An `io::Error` names as its source that of the error in it, not that error itself.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&cause| {
        let within = cause
            .downcast_ref()
            .and_then(io::Error::get_ref)
            .map(|within| within as &(dyn Error + 'static));
        within.or_else(|| cause.source())
    })
}

/// hyper has no other word for it.
const DISPATCH_GONE: &str = "dispatch task is gone";

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tower::BoxError;

    use super::*;
    use crate::key::KeyKind;

    #[test]
    fn a_status_means_what_the_table_says() {
        for code in 100..=599 {
            let expected = match code {
                429 => Outcome::Refused,
                408 | 500 | 502 | 503 | 504 => Outcome::Ambiguous,
                _ => Outcome::Final,
            };
            assert_eq!(
                status(StatusCode::from_u16(code).unwrap()),
                expected,
                "{code}"
            );
        }
    }

    #[test]
    fn a_stored_answer_is_told_by_the_word_true() {
        let name = HeaderName::from_static("idempotent-replayed");
        let mut headers = HeaderMap::new();
        assert!(!is_stored_answer(&headers, &name));
        for (value, stored) in [
            ("true", true),
            ("True", true),
            ("false", false),
            ("", false),
        ] {
            headers.insert(&name, HeaderValue::from_static(value));
            assert_eq!(is_stored_answer(&headers, &name), stored, "{value}");
        }
    }

    #[test]
    fn methods_that_may_be_repeated_are_those_of_the_rfc() {
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
        let wrong = WrongKeyKind {
            in_force: KeyKind::Test,
            given: KeyKind::Live,
        };
        let table: [(BoxError, Outcome, &str); 11] = [
            (
                Box::new(PlainHttpRefused::new()),
                Outcome::Final,
                "plain_http",
            ),
            (Box::new(invalid_uri), Outcome::Final, "uri"),
            (
                Box::new(KeyUnavailable::source_failed("gone".into())),
                Outcome::NotSent,
                "api_key",
            ),
            (
                Box::new(KeyUnavailable::wrong_kind(wrong)),
                Outcome::Final,
                "api_key",
            ),
            (
                Box::new(tower::load_shed::error::Overloaded::new()),
                Outcome::NotSent,
                "overloaded",
            ),
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
            (
                Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)),
                Outcome::NotSent,
                "connect",
            ),
            (
                Box::new(io::Error::other(PlainHttpRefused::new())),
                Outcome::Final,
                "plain_http",
            ),
            (
                Box::new(io::Error::other("who knows")),
                Outcome::Ambiguous,
                "io",
            ),
            ("who knows".into(), Outcome::Ambiguous, "other"),
        ];
        for (cause, outcome, kind) in table {
            assert_eq!(error(&*cause), (outcome, kind));
        }
    }

    #[cfg(feature = "reqwest")]
    #[tokio::test]
    async fn what_reqwest_can_not_send_is_final_and_its_timeout_ambiguous() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let ftp = client.get("ftp://127.0.0.1/").send().await.unwrap_err();
        assert_eq!(error(&ftp), (Outcome::Final, "request"));
        let short = std::time::Duration::from_millis(50);
        let hung = client.get(&url).timeout(short).send().await.unwrap_err();
        assert_eq!(error(&hung), (Outcome::Ambiguous, "timeout"));
        drop(listener);
        let refused = client.get(&url).send().await.unwrap_err();
        assert_eq!(error(&refused), (Outcome::NotSent, "connect"));
    }
}
