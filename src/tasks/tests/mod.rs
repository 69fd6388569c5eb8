mod properties;
mod queue;
mod service;
mod slots;
