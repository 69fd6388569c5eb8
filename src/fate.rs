//! Whether a request may have been processed: what a layer outside asks, and one that sends attempts knows.

use std::{
    error::Error,
    iter,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use http::{Extensions, StatusCode};
use hyper_util::client::legacy;

use crate::{no_turn, origin::PlainHttpRefused};

/// A count of the attempts that may have been processed, in the request's extensions. A layer that holds something for the
/// request puts it in; the retry layer, which judges each attempt, keeps it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate(Arc<AtomicU32>);

impl Fate {
    pub(crate) fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    pub(crate) fn get_or_insert(extensions: &mut Extensions) -> &mut Self {
        extensions.get_or_insert_with(Self::default)
    }

    /// Somebody judges the attempts.
    pub(crate) fn watch(&self) {
        self.0.fetch_or(WATCHED, Ordering::AcqRel);
    }

    /// An attempt is sent: it may be processed from now on.
    pub(crate) fn sent(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// An attempt turned out not to have been processed.
    pub(crate) fn was_not_processed(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether the request may have been processed; `None` where nobody judges that.
    pub(crate) fn may_be_processed(&self) -> Option<bool> {
        let count = self.0.load(Ordering::Acquire);
        (count & WATCHED != 0).then_some(count != WATCHED)
    }
}

/// Set once somebody judges; the rest is the count.
const WATCHED: u32 = 1 << 31;

/// Whether an answer says for certain that its request was not processed: a 4xx does, but for 408, and for 409, by which
/// some servers say that the same request is in progress.
pub(crate) const fn refuses(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400..=499)
        && !matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::CONFLICT)
}

/// Whether an error says for certain that its request was not sent. Fewer are known here than to the retry layer.
pub(crate) fn was_not_sent(error: &(dyn Error + 'static)) -> bool {
    iter::successors(Some(error), |&cause| cause.source()).any(|cause| {
        cause.is::<PlainHttpRefused>()
            || cause.is::<tower::load_shed::error::Overloaded>()
            || no_turn::did_not_wait(cause)
            || cause.downcast_ref().is_some_and(legacy::Error::is_connect)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::no_turn::NoTaskSlot;

    #[test]
    fn a_request_may_be_processed_while_an_attempt_is_on_its_way_or_ended_unclear() {
        let fate = Fate::default();
        assert_eq!(fate.may_be_processed(), None);
        fate.watch();
        assert_eq!(fate.may_be_processed(), Some(false));
        fate.sent();
        assert_eq!(fate.may_be_processed(), Some(true));
        fate.was_not_processed();
        assert_eq!(fate.may_be_processed(), Some(false));
        // One ends unclear, the next is refused.
        fate.sent();
        fate.sent();
        fate.was_not_processed();
        assert_eq!(fate.may_be_processed(), Some(true));
    }

    #[test]
    fn a_client_error_refuses_unless_it_may_be_about_another_attempt() {
        for code in 100..=599 {
            let expected = (400..500).contains(&code) && code != 408 && code != 409;
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(refuses(status), expected, "{code}");
        }
    }

    #[test]
    fn what_is_refused_on_this_side_was_not_sent() {
        let no_slot = NoTaskSlot {
            waited: std::time::Duration::ZERO,
            running: 1,
        };
        assert!(was_not_sent(&no_slot));
        assert!(was_not_sent(&PlainHttpRefused::new()));
        assert!(was_not_sent(&tower::load_shed::error::Overloaded::new()));
        assert!(!was_not_sent(&std::io::Error::other("who knows")));
    }
}
