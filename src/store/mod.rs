//! Postgres: all SQL is here. Only [`writer`] changes tasks or appends events (law 1).

mod batch;
pub mod checkpoints;
pub mod command;
pub mod connect;
pub mod embedded;
pub mod log;
pub mod ready;
mod rows;
pub mod search;
pub mod sweep;
mod tasks;
mod touched;
pub mod verify;
mod workers;
pub mod writer;

pub use command::{Answer, Command, WriteError};
pub use connect::Store;
pub use writer::Writer;
