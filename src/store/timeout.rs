//! Timeouts for database operations.

use std::{future::Future, time::Duration};

/// Runs a database operation with a timeout. On timeout its connection is dropped.
///
/// # Errors
/// [`sqlx::Error::Io`] of kind `TimedOut` after the limit; otherwise any error of the operation.
pub(super) async fn with_timeout<T>(limit: Duration, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "the database does not answer"));
    tokio::time::timeout(limit, work).await.map_err(late)?
}
