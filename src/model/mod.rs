//! Tasks and workers and their rules. Pure: no I/O, no clock, no randomness; these are passed in as parameters.

pub mod access;
pub mod bulk;
pub mod dependency;
pub mod edit;
pub mod fingerprint;
pub mod instance;
pub mod lease;
pub mod name;
pub mod observation;
pub mod operator;
pub mod phase;
pub mod priority;
pub mod queue;
pub mod recurrence;
pub mod report;
pub mod schedule;
mod state_machine;
pub mod status;
pub mod step;
pub mod stuck;
pub mod task;
pub mod task_query;
pub mod timestamp;
pub mod transition;
mod version;
pub mod whole;
pub(crate) mod words;
pub mod worker;

pub use name::{Name, NewName};
pub use priority::Priority;
pub use status::Status;
pub use task::{NewTask, Task};
pub use timestamp::Timestamp;
