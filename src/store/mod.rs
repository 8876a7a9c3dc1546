//! Postgres: all SQL is here. Only [`writer`] changes tasks or appends events (law 1).

mod batch;
pub mod bulk;
pub mod checkpoints;
mod children;
pub mod command;
pub mod connect;
pub mod embedded;
pub mod latency;
pub mod log;
pub mod queues;
pub mod ready;
pub mod retention;
mod save;
pub mod schedules;
pub mod search;
pub mod sweep;
mod tasks;
pub mod verify;
pub mod waits;
mod workers;
pub mod writer;

pub use command::{Answer, Command, WriteError};
pub use connect::Store;
pub use writer::Writer;
