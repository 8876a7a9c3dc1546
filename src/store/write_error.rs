//! Errors of a write.

use crate::command::Refusal;

/// Why a command was not written; for [`WriteError::Unavailable`] the outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The command was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many commands are queued.
    #[error("server overloaded; retry in a second")]
    Busy,
    /// The database did not respond, so the outcome is unknown.
    #[error(
        "database timeout: the outcome is unknown. Reports, and tasks created with a client-supplied id, are safe to retry"
    )]
    Unavailable,
    /// The database currently accepts no writes; nothing was written.
    #[error("writes are not possible: {0}; retry in a second")]
    NotWriting(String),
    /// The command alone exceeded the statement timeout.
    #[error("the write took longer than 30 s and was rolled back; split the request")]
    TooSlow,
    /// The program panicked on this command.
    #[error("internal error, nothing was committed; see the server log")]
    Internal,
    /// The database rejected this command.
    #[error("the database rejected the write: {0}")]
    Database(String),
}
