//! What the targets in `fuzz/` call. Only there while fuzzing.

/// Reads headers made of `input`.
///
/// # Panics
///
/// Where the reading breaks its promises.
pub fn headers(input: &[u8]) {
    crate::headers::check::check(input);
}
