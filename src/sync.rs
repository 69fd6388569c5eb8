//! The standard library's lock, under a name that loom's can take: `tests/loom`.

pub(crate) use std::sync::{Mutex, MutexGuard};
