//! Conversions between stored and typed values, and what cannot be read.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use crate::model::{Name, Priority, Status, status::UnknownStatus};

/// Runs a read in which a row may be so damaged that the driver panics (sqlx does on timestamps out of its range,
/// transact-rs/sqlx#2234); the panic becomes a decoding error.
pub(super) async fn readable<T>(read: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    AssertUnwindSafe(read).catch_unwind().await.unwrap_or_else(|_| Err(decode("a value is out of range")))
}

/// Whether a row is damaged, as opposed to a failing database.
pub(super) const fn is_unreadable(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
}

pub(super) fn decode(what: &str) -> sqlx::Error {
    sqlx::Error::Decode(what.to_owned().into())
}

pub(super) fn name(text: &str) -> sqlx::Result<Name> {
    Name::new(text).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

pub(super) fn status(text: &str) -> sqlx::Result<Status> {
    text.parse().map_err(|error: UnknownStatus| decode(&error.to_string()))
}

pub(super) fn priority(number: i16) -> sqlx::Result<Priority> {
    Priority::new(number.into()).ok_or_else(|| decode("priority out of range"))
}

pub(super) fn optional_name(text: Option<String>) -> sqlx::Result<Option<Name>> {
    text.map(|text| name(&text)).transpose()
}

pub(super) fn unsigned(number: i32) -> sqlx::Result<u32> {
    u32::try_from(number).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// A value as JSON text, to be cast to json by the statement.
pub(super) fn json_text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("our own types have string keys only and no failing serializer")
}

/// Our counters are bounded far below `i32::MAX`; Postgres has no unsigned integers.
pub(super) fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
