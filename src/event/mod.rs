//! Events: envelope, types, filters, and the bytes of a frame. Pure.

pub mod draft;
pub mod envelope;
mod field;
pub mod filter;
pub mod frame;
pub mod kind;
pub mod schema;
pub mod truncate;
pub mod upcast;
pub mod visible;

pub use draft::Draft;
pub use envelope::{Event, EventId};
pub use filter::Filter;
pub use kind::Kind;
