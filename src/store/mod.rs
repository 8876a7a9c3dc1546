//! Postgres: all SQL is here. Only [`writer`] changes tasks or appends events (law 1).

mod address;
mod batch;
pub mod bulk;
pub mod checkpoints;
mod children;
pub mod command;
pub mod connect;
pub mod embedded;
pub mod failure;
pub mod families;
pub mod identity;
pub mod latency;
pub mod log;
pub mod pools;
pub mod queues;
pub mod ready;
pub mod rebuild;
mod recorded;
pub mod retention;
mod save;
pub mod schedules;
mod schema;
pub mod search;
pub mod stuck;
pub mod sweep;
mod tasks;
pub mod verify;
pub mod waits;
pub mod witness;
mod workers;
mod write_failure;
pub mod writer;
pub mod writing;

pub use command::{Answer, Command, WriteError};
pub use connect::Store;
pub use writer::Writer;
