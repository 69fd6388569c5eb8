//! What the API says, in types, and a thin typed client over any service.
//!
//! The layers never read a body. What has to, is here: [`ApiError`] reads what an error answer says, [`Ploton`] makes
//! calls and reads what comes back as a [`Task`]. All of it goes through the service that it is made with, so that pace,
//! retries and keys are the layers' business.

mod body;
mod errors;
mod failure;
mod fetch;
mod layer;
mod pages;
mod ploton;
mod seen;
mod service;
mod tasks;
#[cfg(test)]
mod tests;
mod text;
mod wait;

pub use self::{
    errors::{ApiError, ErrorCode},
    failure::{Error, PagesRepeat, StillRunning, UnreadableAnswer},
    layer::{ErrorsFuture, ErrorsService, PlotonErrors},
    pages::{InvalidPageSize, PageSize, Pages, pages},
    ploton::{InvalidCancelPath, Ploton},
    service::PlotonService,
    tasks::{InvalidTaskId, NewTask, PromptTooLong, Task, TaskId, TaskStatus},
    wait::WaitFor,
};
