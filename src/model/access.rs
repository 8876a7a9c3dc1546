//! Scopes: what a caller may do.

use super::words::words;

words! {
    /// A scope that an operation needs.
    Scope {
        /// Nothing is needed: liveness and readiness.
        Public = "public",
        /// Read tasks, events and pages.
        Read = "read",
        /// Work: register, claim, report; report tasks of another system.
        Report = "report",
        /// Create and change tasks, queues and schedules.
        Operate = "operate",
    }
}
