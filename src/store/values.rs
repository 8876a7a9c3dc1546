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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_holds_is_read_or_named() {
        assert_eq!(name("a").unwrap().as_str(), "a");
        assert_eq!(optional_name(None).unwrap(), None);
        assert_eq!(status("failed").unwrap(), Status::Failed);
        assert_eq!((priority(9).unwrap().get(), unsigned(i32::MAX).unwrap()), (9, 2_147_483_647));
        let errors = [
            name("").unwrap_err(),
            optional_name(Some("a\n".to_owned())).unwrap_err(),
            status("lost").unwrap_err(),
            priority(10).unwrap_err(),
            priority(-1).unwrap_err(),
            unsigned(-1).unwrap_err(),
        ];
        assert!(errors.iter().all(is_unreadable), "{errors:?}");
        assert!(errors[2].to_string().contains("unknown status 'lost'"));
    }

    #[test]
    fn a_failing_database_is_no_damaged_row() {
        for error in
            [sqlx::Error::PoolTimedOut, sqlx::Error::RowNotFound, sqlx::Error::Io(std::io::Error::other("reset"))]
        {
            assert!(!is_unreadable(&error), "{error}");
        }
    }

    #[test]
    fn a_count_that_does_not_fit_is_the_largest() {
        assert_eq!([0, 7, 2_147_483_647, 2_147_483_648, u32::MAX].map(signed), [0, 7, i32::MAX, i32::MAX, i32::MAX]);
    }

    #[tokio::test]
    async fn a_row_that_makes_the_driver_panic_is_a_damaged_row() {
        let read = readable(async { Ok::<_, sqlx::Error>(7) }).await;
        assert_eq!(read.unwrap(), 7);
        let damaged = readable(async {
            let (none, at): ([i32; 0], usize) = ([], std::hint::black_box(0));
            Ok(none[at])
        });
        assert!(is_unreadable(&damaged.await.unwrap_err()));
    }
}
