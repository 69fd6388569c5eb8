//! tower layers that make any HTTP client service a resilient client of the Ploton API.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod headers;
#[cfg(feature = "mock")]
pub mod mock;
mod plan;

pub use plan::Plan;
