//! Why nothing was written.

use crate::command::Refusal;

/// Why nothing was written; for [`WriteError::Unavailable`] that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The command was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Too many commands wait.
    #[error("the server has more to write than it can take on; try again in a second")]
    Busy,
    /// The database did not answer, so nobody knows yet.
    #[error(
        "the database did not answer in time, so nobody knows whether this was stored; reports and tasks with an id of your own can be repeated safely"
    )]
    Unavailable,
    /// The database takes no writes at the moment, which is known.
    #[error("nothing can be stored at the moment: {0}; try again in a second")]
    NotWriting(String),
    /// The database needed too long for this command alone.
    #[error("the database needed more than 30 s for this, so nothing was stored; ask for less at once")]
    TooSlow,
    /// The program failed on this command.
    #[error("the server made a mistake with this; nothing was stored, and its log says more")]
    Internal,
    /// The database refused this command.
    #[error("the database refused to store this: {0}")]
    Database(String),
}
