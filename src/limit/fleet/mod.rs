//! One plan, many processes: each sends by tokens that it leases from a shared store.

mod ledger;
mod memory;

pub use self::memory::MemoryStore;
