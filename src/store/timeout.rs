//! Time limits for work with the database.

use std::{future::Future, time::Duration};

/// Bounds work that the database may never answer. Its connection is dropped then.
///
/// # Errors
/// [`sqlx::Error::Io`] of kind `TimedOut` after the limit; otherwise as the work.
pub(super) async fn with_timeout<T>(limit: Duration, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer"));
    tokio::time::timeout(limit, work).await.map_err(late)?
}
