mod properties;
mod queue;
mod service;
mod slots;
mod with_retry;
