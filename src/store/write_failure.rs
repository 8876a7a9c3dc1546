//! What a failed transaction of the writer means: the fault of a command, or of a database that takes nothing.

/// The code of a statement that was cancelled, as by its time-out.
const TOO_SLOW: &str = "57014";

/// What an operator should read instead of the database's own words.
pub(super) fn in_words(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    match code.as_str() {
        "25006" => "the database is read-only: a standby, or set so by default_transaction_read_only".to_owned(),
        "53100" => "the database's disk is full".to_owned(),
        "53300" => "the database has no free connection".to_owned(),
        "55P03" => "another transaction holds a lock for longer than 10 s".to_owned(),
        "57P01" | "57P02" | "57P03" => "the database is shutting down or starting".to_owned(),
        _ => match error {
            sqlx::Error::Io(_) => "the database cannot be reached".to_owned(),
            other => other.to_string(),
        },
    }
}

/// A statement took longer than it may.
pub(super) fn is_too_slow(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == TOO_SLOW)
}

/// The program failed on a batch.
#[derive(Debug, thiserror::Error)]
#[error("the program failed on a batch")]
pub(super) struct Panicked;

pub(super) fn is_panic(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(cause) if cause.is::<Panicked>())
}

/// The database would refuse every write.
#[derive(Debug, thiserror::Error)]
#[error("the database is read-only: a standby, or set so by default_transaction_read_only")]
struct ReadOnly;

pub(super) fn read_only_error() -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(ReadOnly))
}

pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(cause) if cause.is::<ReadOnly>())
}

/// A task with this id or unique key exists.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    matches!(constraint, Some("tasks_unique" | "tasks_pkey"))
}

/// True for errors that the same batch would meet again: bad data (22), broken constraints (23), and other classes that
/// are about the statement. Connection losses, shutdowns, deadlocks and time-outs are not.
pub(super) fn is_fault_of_batch(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            if code == TOO_SLOW {
                return true;
            }
            // 40: serialisation and deadlock, 53: out of resources, 55: lock not available, 57: shutdown and cancel,
            // 58: system error, 08: connection, 25P03: idle in transaction.
            // 3D and 3F: the database or the schema is not there, 42P01 and 42883: nor are tables or functions; a restore.
            let elsewhere = ["40", "53", "55", "57", "58", "08", "25", "3D", "3F", "42P01", "42883"];
            !elsewhere.iter().any(|class| code.starts_with(class))
        }
        sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Encode(_)
        | sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. } => true,
        sqlx::Error::Configuration(_) => is_panic(error),
        _ => false,
    }
}
