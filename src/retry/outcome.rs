//! What is known of an attempt that is over, and what it is taken for.

use std::{error::Error, fmt, sync::Arc};

use http::{HeaderMap, HeaderName, Method, StatusCode};

use super::classify;

/// What the end of an attempt means for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It never left: no connection, a stream that the server refused, a connection closed before the request was on it.
    /// Any request is sent again.
    NotSent,
    /// The server did not process it, and says so: 429. Any request is sent again.
    Refused,
    /// It may have been processed. A request is sent again where its method is idempotent or it carries an idempotency
    /// key.
    Ambiguous,
    /// A 401 for an API key that is no longer the one in force: [`PlotonAuth`](crate::PlotonAuth) inside this layer says
    /// so. Any request is sent again, once and at no cost: it carries another key then.
    Unauthorized,
    /// Asking again would change nothing.
    Final,
}

impl Outcome {
    /// What metrics call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Refused => "refused",
            Self::Ambiguous => "ambiguous",
            Self::Unauthorized => "unauthorized",
            Self::Final => "final",
        }
    }

    /// Whether a request with this outcome may be sent again. `repeatable` requests may be processed twice: their method
    /// is idempotent, or they carry an idempotency key.
    pub(super) const fn allows_another(self, repeatable: bool) -> bool {
        match self {
            Self::NotSent | Self::Refused | Self::Unauthorized => true,
            Self::Ambiguous => repeatable,
            Self::Final => false,
        }
    }
}

/// An attempt that is over, as [`PlotonRetry::classify_with`](super::PlotonRetry::classify_with) is shown it.
pub struct AttemptEnd<'a> {
    pub(super) method: &'a Method,
    pub(super) has_key: bool,
    pub(super) number: u32,
    pub(super) result: Result<(StatusCode, &'a HeaderMap), &'a (dyn Error + 'static)>,
    pub(super) outcome: Outcome,
}

impl<'a> AttemptEnd<'a> {
    /// What the layer takes it for.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The request's method.
    #[must_use]
    pub const fn method(&self) -> &'a Method {
        self.method
    }

    /// Whether the request carried an idempotency key.
    #[must_use]
    pub const fn has_idempotency_key(&self) -> bool {
        self.has_key
    }

    /// Which attempt it was, counted from 1.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The answer's status; `None` where an error came.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.result.ok().map(|(status, _)| status)
    }

    /// The answer's headers; `None` where an error came.
    #[must_use]
    pub fn headers(&self) -> Option<&'a HeaderMap> {
        self.result.ok().map(|(_, headers)| headers)
    }

    /// The error, to be looked at through its sources; `None` where an answer came.
    #[must_use]
    pub fn error(&self) -> Option<&'a (dyn Error + 'static)> {
        self.result.err()
    }

    /// Whether the server may have processed it, whatever anybody says: unless the answer is a 4xx, or it is known that
    /// nothing was sent. Of a final error that is not known: a deadline may have ended it.
    pub(super) fn may_have_been_processed(&self) -> bool {
        match self.result {
            Ok((status, _)) => !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT,
            Err(_) => self.outcome != Outcome::NotSent,
        }
    }
}

/// Headers may hold anything, and an error's text too: neither is shown.
impl fmt::Debug for AttemptEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptEnd")
            .field("method", self.method)
            .field("number", &self.number)
            .field("status", &self.status())
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

/// How outcomes are told: by the table, and by what the user adds to it.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) stored_answer: HeaderName,
    pub(super) in_progress: Option<Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>>,
    pub(super) hook: Option<Arc<dyn Fn(&AttemptEnd<'_>) -> Outcome + Send + Sync>>,
    pub(super) repeat_without_key: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            stored_answer: HeaderName::from_static("idempotent-replayed"),
            in_progress: None,
            hook: None,
            repeat_without_key: false,
        }
    }
}

impl Rules {
    /// What an answer means by itself.
    pub(super) fn answer(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        if status.is_server_error() && classify::is_stored_answer(headers, &self.stored_answer) {
            return Outcome::Final;
        }
        let in_progress = self.in_progress.as_ref();
        if status == StatusCode::CONFLICT && in_progress.is_some_and(|told| told(headers)) {
            return Outcome::Ambiguous;
        }
        classify::status(status)
    }

    /// What `end` is taken for in the end: the user's word, where it does not make an attempt that may have been processed
    /// one that was not.
    pub(super) fn judge(&self, end: &AttemptEnd<'_>) -> Outcome {
        let Some(hook) = &self.hook else {
            return end.outcome;
        };
        match hook(end) {
            Outcome::NotSent | Outcome::Refused | Outcome::Unauthorized
                if end.may_have_been_processed() =>
            {
                Outcome::Ambiguous
            }
            said => said,
        }
    }

    /// Whether a request may be processed twice.
    pub(super) fn is_repeatable(&self, method: &Method, has_key: bool) -> bool {
        has_key || classify::is_idempotent(method) || self.repeat_without_key
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("stored_answer", &self.stored_answer)
            .field("in_progress", &self.in_progress.is_some())
            .field("hook", &self.hook.is_some())
            .field("repeat_without_key", &self.repeat_without_key)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tower::BoxError;

    use super::*;

    fn says(outcome: Outcome) -> Rules {
        Rules {
            hook: Some(Arc::new(move |_| outcome)),
            ..Rules::default()
        }
    }

    #[test]
    fn an_ambiguous_outcome_allows_another_only_where_it_is_repeatable() {
        let table = [
            (Outcome::NotSent, true, true),
            (Outcome::Refused, true, true),
            (Outcome::Ambiguous, true, false),
            (Outcome::Unauthorized, true, true),
            (Outcome::Final, false, false),
        ];
        for (outcome, repeatable, not_repeatable) in table {
            assert_eq!(outcome.allows_another(true), repeatable);
            assert_eq!(outcome.allows_another(false), not_repeatable);
        }
    }

    #[test]
    fn a_stored_answer_is_final_and_its_header_can_have_another_name() {
        let mut headers = HeaderMap::new();
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
        let rules = Rules::default();
        let error = StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(rules.answer(error, &headers), Outcome::Final);
        let refused = StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(rules.answer(refused, &headers), Outcome::Refused);
        let rules = Rules {
            stored_answer: HeaderName::from_static("x-stored"),
            ..rules
        };
        assert_eq!(rules.answer(error, &headers), Outcome::Ambiguous);
        headers.insert("x-stored", HeaderValue::from_static("true"));
        assert_eq!(rules.answer(error, &headers), Outcome::Final);
    }

    #[test]
    fn a_conflict_is_final_unless_the_user_knows_it_as_a_request_in_progress() {
        let in_progress = |headers: &HeaderMap| headers.contains_key("x-in-progress");
        let rules = Rules {
            in_progress: Some(Arc::new(in_progress)),
            ..Rules::default()
        };
        let mut headers = HeaderMap::new();
        assert_eq!(rules.answer(StatusCode::CONFLICT, &headers), Outcome::Final);
        headers.insert("x-in-progress", HeaderValue::from_static("1"));
        let conflict = rules.answer(StatusCode::CONFLICT, &headers);
        assert_eq!(conflict, Outcome::Ambiguous, "only with a key");
        let other = rules.answer(StatusCode::UNPROCESSABLE_ENTITY, &headers);
        assert_eq!(other, Outcome::Final);
    }

    /// What a hook that says `said` makes of an answer with `status`, or of an error known as `own`.
    fn judged(said: Outcome, result: Result<u16, Outcome>) -> Outcome {
        let (headers, error) = (HeaderMap::new(), BoxError::from("cut"));
        type Seen<'a> = Result<(StatusCode, &'a HeaderMap), &'a (dyn Error + 'static)>;
        let (result, outcome): (Seen<'_>, _) = match result {
            Ok(code) => {
                let status = StatusCode::from_u16(code).unwrap();
                (Ok((status, &headers)), classify::status(status))
            }
            Err(own) => (Err(&*error as _), own),
        };
        says(said).judge(&AttemptEnd {
            method: &Method::POST,
            has_key: false,
            number: 1,
            result,
            outcome,
        })
    }

    #[test]
    fn a_hook_widens_and_narrows() {
        assert_eq!(judged(Outcome::Final, Ok(429)), Outcome::Final);
        assert_eq!(
            judged(Outcome::Final, Err(Outcome::NotSent)),
            Outcome::Final
        );
        assert_eq!(judged(Outcome::Ambiguous, Ok(520)), Outcome::Ambiguous);
        assert_eq!(judged(Outcome::Ambiguous, Ok(200)), Outcome::Ambiguous);
        assert_eq!(judged(Outcome::Refused, Ok(403)), Outcome::Refused);
        assert_eq!(
            judged(Outcome::Refused, Err(Outcome::NotSent)),
            Outcome::Refused
        );
    }

    #[test]
    fn a_hook_makes_nothing_unsent_that_may_have_been_processed() {
        for said in [Outcome::NotSent, Outcome::Refused, Outcome::Unauthorized] {
            for status in [200, 201, 302, 408, 500, 501, 503, 520, 599] {
                assert_eq!(judged(said, Ok(status)), Outcome::Ambiguous, "{status}");
            }
            for own in [Outcome::Ambiguous, Outcome::Final] {
                assert_eq!(judged(said, Err(own)), Outcome::Ambiguous);
            }
        }
    }

    #[test]
    fn a_post_without_a_key_is_repeatable_only_by_name() {
        let mut rules = Rules::default();
        assert!(!rules.is_repeatable(&Method::POST, false));
        assert!(rules.is_repeatable(&Method::POST, true));
        assert!(rules.is_repeatable(&Method::PUT, false));
        rules.repeat_without_key = true;
        assert!(rules.is_repeatable(&Method::POST, false));
    }
}
