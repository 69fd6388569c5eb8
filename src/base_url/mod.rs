//! Where the API is, for requests that don't say it.

mod url;

pub use self::url::{BaseUrl, InvalidBaseUrl, PathRefused};
