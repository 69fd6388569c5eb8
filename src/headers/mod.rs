//! What the server says in its headers: pure parsing, given the time.

pub(crate) mod date;
