//! Allocations, counted. A bench that names this module has the counting allocator in all that it measures.

use allocation_counter::measure;

/// What one thread took from the allocator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocations {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// Bytes that were not given back.
    pub(crate) kept: i64,
}

/// What `run` takes on this thread.
pub(crate) fn of(run: impl FnOnce()) -> Allocations {
    let counted = measure(run);
    Allocations {
        count: counted.count_total,
        bytes: counted.bytes_total,
        kept: counted.bytes_current,
    }
}
