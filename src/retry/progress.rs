//! All that is known of one logical request: whether it is sent again, when, and how its story is told.

use std::{sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, Version};
use tokio::time::Instant;
use tower::BoxError;
use tracing::span::EnteredSpan;

use super::{
    AttemptEnd, AttemptsFailed, DeadlinePassed, KeyExpired, Outcome, Settings, classify,
    events::{self, End, GivenUp, Told},
    kept::Kept,
    quota::{Paid, Spent},
};
use crate::{
    fate, headers,
    logical::{Attempts, KeyRenewed},
};

/// One logical request; it outlives its attempts.
pub(super) struct Progress<B> {
    kept: Kept<B>,
    /// `Some` from the decision to send it again until that is done.
    again: Option<Box<Again<B>>>,
    settings: Arc<Settings>,
    most_attempts: u32,
    started: Instant,
    /// `None` where it is beyond every clock.
    deadline: Option<Instant>,
    made: u32,
    /// When the last attempt was sent: called, or given its API key later than that.
    sent: Instant,
    /// When the attempt was sent whose API key the next ones carry; `None` where they carry the one in force then.
    pinned: Option<Instant>,
    /// Whether it was sent again because its API key was renewed.
    renewed: bool,
    /// What the attempt on its way has cost; `None` of a first one.
    spent: Option<Spent>,
    last_hint: Option<Duration>,
    last_status: Option<StatusCode>,
    told: Told,
}

/// The next attempt, ready to be sent.
struct Again<B> {
    request: Request<B>,
    paid: Paid,
}

/// What is known of it when it is called.
pub(super) struct Call {
    pub(super) settings: Arc<Settings>,
    pub(super) most_attempts: u32,
    pub(super) started: Instant,
    pub(super) deadline: Option<Instant>,
    pub(super) pinned: Option<Instant>,
    pub(super) told: Told,
}

impl<B> Progress<B> {
    /// `made` is 1 where the first attempt was sent, else 0.
    #[inline(always)]
    pub(super) fn new(kept: Kept<B>, call: Call, made: u32) -> Self {
        let Call {
            settings,
            most_attempts,
            started,
            deadline,
            pinned,
            told,
        } = call;
        Self {
            kept,
            again: None,
            settings,
            most_attempts,
            started,
            deadline,
            made,
            sent: started,
            pinned,
            renewed: false,
            spent: None,
            last_hint: None,
            last_status: None,
            told,
        }
    }

    /// Enters the span of the request.
    pub(super) fn enter(&self) -> Option<EnteredSpan> {
        self.told.enter()
    }

    /// Enters that of the attempt on its way.
    pub(super) fn enter_attempt(&self) -> Option<EnteredSpan> {
        self.told.enter_attempt()
    }

    pub(super) const fn made(&self) -> u32 {
        self.made
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Sends the next attempt, unless the deadline has passed.
    pub(super) fn send_again<F>(
        &mut self,
        now: Instant,
        send: impl FnOnce(Request<B>) -> F,
    ) -> Option<F> {
        let again = self.again.take().filter(|_| self.is_in_time(now))?;
        let Again { request, paid } = *again;
        self.spent = Some(paid.spend());
        self.told.attempt_begins(&request, self.made);
        self.made = self.made.saturating_add(1);
        self.sent = now;
        self.kept.fate().inspect(|fate| fate.sent());
        let _entered = self.enter_attempt();
        Some(send(request))
    }

    /// The attempt on its way was given its API key `at` last.
    pub(super) fn key_was_chosen(&mut self, at: Option<Instant>) {
        self.sent = at.unwrap_or(self.sent);
    }

    pub(super) fn is_in_time(&self, now: Instant) -> bool {
        self.deadline.is_none_or(|deadline| now < deadline)
    }

    /// Whether `result` is all that was wanted. Nearly always it is, and nothing more is looked up then, not even the time.
    pub(super) fn succeeds<R>(&mut self, result: &Result<Response<R>, BoxError>) -> bool {
        let Ok(response) = result else { return false };
        // A hook may take a 2xx for something to ask again.
        if !response.status().is_success() || self.settings.rules.hook.is_some() {
            return false;
        }
        self.earn();
        let status = Ok(response.status());
        self.attempt_ended(status, Some(response.version()));
        self.ended(status);
        true
    }

    /// Decides whether there is another attempt, and when it is sent.
    pub(super) fn send_again_at<R>(
        &mut self,
        result: &Result<Response<R>, BoxError>,
        now: Instant,
    ) -> Option<Instant> {
        let end = self.look_at(result, now);
        let version = result.as_ref().ok().map(Response::version);
        self.attempt_ended(end.result, version);
        self.settle(&end);
        self.pin(&end);
        let rules = &self.settings.rules;
        let repeatable = rules.is_repeatable(self.kept.method(), self.kept.has_key());
        if !end.outcome.allows_another(repeatable) {
            return None;
        }
        match self.plan(&end, now) {
            Ok((again, delay)) => {
                self.again = Some(Box::new(again));
                self.renewed |= end.outcome == Outcome::Unauthorized;
                events::sent_again(self.made, &end, delay, &self.settings.quota);
                // Fits: `plan` found it.
                now.checked_add(delay)
            }
            Err(reason) => {
                // Where one attempt is all that was asked for, nothing was given up.
                if self.most_attempts > 1 {
                    events::given_up(self.made, &end, reason);
                }
                None
            }
        }
    }

    fn look_at<R>(&mut self, result: &Result<Response<R>, BoxError>, now: Instant) -> End {
        let rules = &self.settings.rules;
        let (seen, outcome, kind) = match result {
            Ok(response) => {
                let (status, headers) = (response.status(), response.headers());
                let renewed = response.extensions().get::<KeyRenewed>().is_some();
                let outcome = if renewed && status == StatusCode::UNAUTHORIZED {
                    Outcome::Unauthorized
                } else {
                    rules.answer(status, headers)
                };
                (Ok((status, headers)), outcome, Ok(status))
            }
            Err(error) => {
                let (outcome, kind) = classify::error(&**error);
                (Err(&**error as _), outcome, Err(kind))
            }
        };
        let end = AttemptEnd {
            method: self.kept.method(),
            has_key: self.kept.has_key(),
            number: self.made,
            result: seen,
            outcome,
        };
        let outcome = match rules.judge(&end) {
            Outcome::Unauthorized if self.renewed => Outcome::Final,
            outcome => outcome,
        };
        let was_refused = outcome != Outcome::Ambiguous && !end.may_have_been_processed();
        if was_refused || seen.err().is_some_and(fate::was_not_sent) {
            self.kept.fate().inspect(|fate| fate.was_not_processed());
        }
        let hint = seen
            .ok()
            .and_then(|(status, headers)| headers::hint(status, headers, &self.settings.wall, now));
        self.last_status = kind.ok().or(self.last_status);
        self.last_hint = hint.map(|hint| hint.wait).or(self.last_hint);
        End {
            outcome,
            result: kind,
            hint,
        }
    }

    /// Holds what may have been processed to the API key that it was sent with: a server may know idempotency keys by their
    /// caller. After a 401 that key is worth nothing, and nothing was processed.
    fn pin(&mut self, end: &End) {
        if end.result == Ok(StatusCode::UNAUTHORIZED) {
            self.pinned = None;
        } else if end.outcome == Outcome::Ambiguous && !classify::is_idempotent(self.kept.method())
        {
            self.pinned = self.pinned.or(Some(self.sent));
        }
    }

    /// Pays into the quota what a success earns.
    fn settle(&mut self, end: &End) {
        let succeeded = |status: StatusCode| !status.is_client_error() && !status.is_server_error();
        // A hook may take a 2xx for something to ask again.
        if end.outcome == Outcome::Final && end.result.is_ok_and(succeeded) {
            self.earn();
        } else {
            self.spent = None;
        }
    }

    fn earn(&mut self) {
        match self.spent.take() {
            Some(spent) => spent.give_back(),
            None => self.settings.quota.earn(),
        }
    }

    /// The next attempt and the delay before it. The quota is asked before any sleep.
    fn plan(&mut self, end: &End, now: Instant) -> Result<(Again<B>, Duration), GivenUp> {
        if self.made >= self.most_attempts {
            return Err(GivenUp::Attempts);
        }
        let refused = end.outcome == Outcome::Refused;
        let retries = self.made.saturating_sub(1);
        let backoff = &self.settings.backoff;
        let delay = if end.outcome == Outcome::Unauthorized && end.hint.is_none() {
            Duration::ZERO
        } else {
            backoff
                .delay(end.hint, refused, retries, rand::random())
                .ok_or(GivenUp::Hint)?
        };
        let late = delay.saturating_add(TIMER);
        let at = now.checked_add(late).ok_or(GivenUp::Deadline)?;
        if !self.is_in_time(at) {
            return Err(GivenUp::Deadline);
        }
        if self.key_dies_at().is_some_and(|death| at >= death) {
            return Err(GivenUp::KeyAge);
        }
        let quota = &self.settings.quota;
        let paid = quota.pay(end.outcome).ok_or(GivenUp::Quota)?;
        // Last of all: a body that is still being read elsewhere is taken from there.
        let last = self.deadline.into_iter().chain(self.key_dies_at()).min();
        let request = self.kept.request(last, self.pinned);
        let request = request.ok_or(GivenUp::Body)?;
        // Nor is it sent later, should the service not be ready for so long.
        self.deadline = last;
        Ok((Again { request, paid }, delay))
    }

    /// When the server may have forgotten the key; `None` where there is none.
    fn key_dies_at(&self) -> Option<Instant> {
        self.started.checked_add(self.kept.key_life()?)
    }

    /// What the caller gets: the last answer or error, with its story where it went wrong.
    pub(super) fn done<R>(
        &mut self,
        result: Result<Response<R>, BoxError>,
        now: Instant,
    ) -> Result<Response<R>, BoxError> {
        match result {
            Ok(mut response) => {
                self.ended(Ok(response.status()));
                if !response.status().is_success() {
                    response.extensions_mut().insert(self.story(now));
                }
                Ok(response)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    pub(super) fn failed(&mut self, source: BoxError) -> BoxError {
        self.ended(Err(classify::error(&*source).1));
        if self.made == 1 {
            return source;
        }
        let attempts = self.story(Instant::now());
        AttemptsFailed { attempts, source }.into()
    }

    /// Why the first attempt was not sent.
    pub(super) fn not_sent(&mut self) -> BoxError {
        let Some((key, age)) = self.kept.expired_key() else {
            return self.deadline_passed();
        };
        let key = key.clone();
        self.ended(Err("key_expired"));
        KeyExpired {
            attempts: self.story(self.started),
            key,
            age,
        }
        .into()
    }

    /// The deadline ended the attempt on its way.
    pub(super) fn attempt_too_long(&mut self) -> BoxError {
        self.attempt_ended(Err("deadline"), None);
        self.deadline_passed()
    }

    pub(super) fn deadline_passed(&mut self) -> BoxError {
        let now = Instant::now();
        self.ended(Err("deadline"));
        let deadline = self.deadline.unwrap_or(now);
        DeadlinePassed {
            attempts: self.story(now),
            deadline: deadline.saturating_duration_since(self.started),
            last_status: self.last_status,
        }
        .into()
    }

    fn attempt_ended(&mut self, end: Result<StatusCode, &'static str>, version: Option<Version>) {
        let key = || self.kept.key_made_inside();
        self.told.attempt_ended(end, version, self.sent, key);
    }

    /// Tells how the logical request ended.
    fn ended(&mut self, end: Result<StatusCode, &'static str>) {
        let resent = self.made.saturating_sub(1);
        self.told.ended(end, resent, &self.settings.quota);
    }

    fn story(&self, now: Instant) -> Attempts {
        Attempts {
            made: self.made,
            elapsed: now.saturating_duration_since(self.started),
            last_hint: self.last_hint,
            idempotency_key: self
                .kept
                .idempotency_key()
                .map(|key| key.used_at(self.started)),
        }
    }
}

/// How late a timer may fire.
pub(super) const TIMER: Duration = Duration::from_millis(1);
