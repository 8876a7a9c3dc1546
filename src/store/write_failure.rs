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

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    use sqlx::error::{DatabaseError, ErrorKind};

    /// An error of the database with a code, about a constraint.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Told(&'static str, Option<&'static str>);

    impl DatabaseError for Told {
        fn message(&self) -> &str {
            self.0
        }
        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }
        fn constraint(&self) -> Option<&str> {
            self.1
        }
        fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
            self
        }
        fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
            self
        }
        fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
            self
        }
        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    fn coded(code: &'static str) -> sqlx::Error {
        sqlx::Error::Database(Box::new(Told(code, None)))
    }

    #[test]
    fn what_would_fail_again_is_the_fault_of_the_batch() {
        // Bad data, constraints, a statement that is wrong, and one that takes too long.
        for code in ["22001", "22P05", "23505", "23514", "42703", "21000", "54000", "XX000", TOO_SLOW] {
            assert!(is_fault_of_batch(&coded(code)), "{code}");
        }
        // Deadlock, no room, no lock, shutdown, disk, connection, read-only, and a schema that is being restored.
        for code in
            ["40001", "40P01", "53100", "53300", "55P03", "57P01", "58030", "08006", "25006", "3D000", "42P01", "42883"]
        {
            assert!(!is_fault_of_batch(&coded(code)), "{code}");
        }
        assert!(is_fault_of_batch(&sqlx::Error::Decode("damaged".into())));
        assert!(is_fault_of_batch(&sqlx::Error::Configuration(Box::new(Panicked))));
        for error in [sqlx::Error::PoolTimedOut, sqlx::Error::Io(std::io::Error::other("reset")), read_only_error()] {
            assert!(!is_fault_of_batch(&error), "{error}");
        }
    }

    #[test]
    fn only_a_statement_timeout_is_too_slow() {
        assert!(is_too_slow(&coded("57014")));
        assert!(!is_too_slow(&coded("57P01")) && !is_too_slow(&sqlx::Error::PoolTimedOut));
    }

    #[test]
    fn operators_read_words_not_codes() {
        for (code, words) in [
            ("25006", "read-only"),
            ("53100", "disk is full"),
            ("53300", "no free connection"),
            ("55P03", "another transaction holds a lock"),
            ("57P01", "shutting down"),
            ("57P02", "shutting down"),
            ("57P03", "shutting down"),
        ] {
            assert!(in_words(&coded(code)).contains(words), "{code}");
        }
        let reset = sqlx::Error::Io(std::io::Error::other("Connection reset by peer (os error 104)"));
        assert_eq!(in_words(&reset), "database not reachable");
        assert!(in_words(&read_only_error()).contains("read-only"));
    }

    #[test]
    fn a_task_that_exists_already_is_told_from_other_conflicts() {
        let violated = |constraint| sqlx::Error::Database(Box::new(Told("23505", constraint)));
        for (constraint, taken) in
            [(Some("tasks_unique"), true), (Some("tasks_pkey"), true), (Some("workers_pkey"), false), (None, false)]
        {
            assert_eq!(is_taken(&violated(constraint)), taken, "{constraint:?}");
        }
        assert!(!is_taken(&sqlx::Error::RowNotFound));
    }

    #[test]
    fn a_panic_and_a_read_only_database_are_not_mixed_up() {
        let panic = sqlx::Error::Configuration(Box::new(Panicked));
        assert!(is_panic(&panic) && !is_read_only(&panic));
        assert!(is_read_only(&read_only_error()) && !is_panic(&read_only_error()));
        assert!(!is_panic(&coded("XX000")) && !is_read_only(&coded("25006")));
    }
}
