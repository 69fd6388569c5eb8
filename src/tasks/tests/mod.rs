mod moody_store;
mod properties;
mod queue;
mod service;
mod shared;
mod slots;
mod with_retry;
