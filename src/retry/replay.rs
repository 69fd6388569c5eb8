//! Bodies that can be sent again.

/// A request body that can be sent more than once.
///
/// Every body that is [`Clone`] is one: `Full<Bytes>` and `Empty` cost a reference count at most.
pub trait RetryBody: Sized {
    /// Another body with the same content; `None` where there is none, and then the request is sent once.
    fn try_clone(&self) -> Option<Self>;
}

impl<B: Clone> RetryBody for B {
    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }
}
