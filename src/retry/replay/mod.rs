//! Bodies that can be sent again.

mod body;
mod error;
mod layer;
#[cfg(test)]
mod tests;

pub use self::{
    body::ReplayBody,
    error::ReplayError,
    layer::{MapReplay, MapReplayService, PlotonReplay, ReplayService},
};

/// A request body that can be sent more than once.
///
/// Every body that is [`Clone`] is one: `Full<Bytes>` and `Empty` cost a reference count at most. [`PlotonReplay`] makes one
/// of any other, and [`PlotonRetry::clone_body_with`](crate::PlotonRetry::clone_body_with) takes bodies that are cloned in a
/// way of their own: among them those that are [`Clone`] but share what they yield, such as octocrab's `OctoBody`, whose
/// clone is empty once the first was sent.
pub trait RetryBody: Sized {
    /// Another body with the same content; `None` where there is none, and then the request is sent once.
    fn try_clone(&self) -> Option<Self>;
}

impl<B: Clone> RetryBody for B {
    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// How much of a body is kept where nobody says.
pub(crate) const DEFAULT_MAX_KEPT: usize = 64 * 1024;
