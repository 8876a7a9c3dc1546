//! Classifies errors of the writer's transactions: the fault of a command, or of a database that accepts no writes.

/// SQLSTATE of a cancelled statement, as by a timeout.
const TOO_SLOW: &str = "57014";

/// Replacement text for operators, in place of the database's message.
pub(super) fn in_words(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned();
    match code.as_str() {
        "25006" => "the database is read-only (a standby, or default_transaction_read_only)".to_owned(),
        "53100" => "the database's disk is full".to_owned(),
        "53300" => "the database has no free connection".to_owned(),
        "55P03" => "another transaction holds a lock for longer than 10 s".to_owned(),
        "57P01" | "57P02" | "57P03" => "the database is shutting down or starting".to_owned(),
        _ => match error {
            sqlx::Error::Io(_) => "database not reachable".to_owned(),
            other => other.to_string(),
        },
    }
}

/// Whether a statement timed out.
pub(super) fn is_too_slow(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == TOO_SLOW)
}

/// The program panicked on a batch.
#[derive(Debug, thiserror::Error)]
#[error("the program failed on a batch")]
pub(super) struct Panicked;

pub(super) fn is_panic(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(cause) if cause.is::<Panicked>())
}

/// The database rejects every write.
#[derive(Debug, thiserror::Error)]
#[error("the database is read-only (a standby, or default_transaction_read_only)")]
struct ReadOnly;

pub(super) fn read_only_error() -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(ReadOnly))
}

pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(cause) if cause.is::<ReadOnly>())
}

/// Whether a task with the same ID or unique key exists.
pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    matches!(constraint, Some("tasks_unique" | "tasks_pkey"))
}

/// Whether the same batch would fail again: bad data (22), constraint violations (23), and other classes caused by the
/// statement. Lost connections, shutdowns, deadlocks and timeouts are not.
pub(super) fn is_fault_of_batch(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            if code == TOO_SLOW {
                return true;
            }
            // 40: serialisation and deadlock, 53: out of resources, 55: lock not available, 57: shutdown and cancel,
            // 58: system error, 08: connection, 25P03: idle in transaction.
            // 3D and 3F: no such database or schema, 42P01 and 42883: no such table or function, as during a restore.
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
