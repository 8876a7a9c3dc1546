//! Errors of a write.

use crate::command::Refusal;

/// Why a command was not written; for [`WriteError::Unavailable`] the outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The command was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many commands are queued.
    #[error("the server has more to write than it can take on; try again in a second")]
    Busy,
    /// The database did not respond, so the outcome is unknown.
    #[error(
        "the database did not answer in time, so nobody knows whether this was stored; reports and tasks with an id of your own can be repeated safely"
    )]
    Unavailable,
    /// The database currently accepts no writes; nothing was written.
    #[error("nothing can be stored at the moment: {0}; try again in a second")]
    NotWriting(String),
    /// The command alone exceeded the statement timeout.
    #[error("the database needed more than 30 s for this, so nothing was stored; ask for less at once")]
    TooSlow,
    /// The program panicked on this command.
    #[error("the server made a mistake with this; nothing was stored, and its log says more")]
    Internal,
    /// The database rejected this command.
    #[error("the database refused to store this: {0}")]
    Database(String),
}
