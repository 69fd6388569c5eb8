//! The members of a header, few enough to stand on the stack: reading an answer allocates nothing.

use std::{error::Error, fmt, ops::Deref};

/// Up to [`MOST`] of them.
pub(super) struct Few<T> {
    members: [T; MOST],
    len: usize,
}

/// The header has more members than any server has limits: it says nothing.
#[derive(Debug)]
pub(super) struct TooMany;

impl<T: Default> Default for Few<T> {
    fn default() -> Self {
        Self {
            members: Default::default(),
            len: 0,
        }
    }
}

impl<T: Default> Few<T> {
    pub(super) fn one(member: T) -> Option<Self> {
        let mut few = Self::default();
        few.push(member)?;
        Some(few)
    }
}

impl<T> Few<T> {
    /// `None` where there is no room.
    pub(super) fn push(&mut self, member: T) -> Option<()> {
        *self.members.get_mut(self.len)? = member;
        self.len += 1;
        Some(())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.members.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {MOST} members")
    }
}

impl Error for TooMany {}

const MOST: usize = 8;
