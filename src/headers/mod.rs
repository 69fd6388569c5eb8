//! What the server says in its headers: pure parsing, given the time.

pub(crate) mod date;
pub(crate) mod rate_limit;
pub(crate) mod retry_after;
