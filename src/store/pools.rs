//! Pools for reading: one for the program itself, one for requests, a small one for searches. Every connection is
//! checked to lead to the known log.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::identity::Identity;
use crate::clock::Clock;

/// Concurrent searches: each one uses a core of the database.
const SEARCHES_AT_ONCE: usize = 1;
/// Pause after a search, as a multiple of its duration.
const REST: u32 = 9;
/// Maximum pause after a search.
const LONGEST_REST: Duration = Duration::from_secs(2);
/// How long a search waits for its permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(4);

/// Reads of the program itself.
const OWN: Reading = Reading { connections: 6, statement: "5s", acquire: Duration::from_secs(5) };
/// Requests: a page or a list that takes longer than this is not worth waiting for.
const REQUESTS: Reading = Reading { connections: 6, statement: "2s", acquire: Duration::from_secs(3) };
/// Searches that may have to scan many rows.
const SEARCHES: Reading = Reading { connections: 2, statement: "2s", acquire: Duration::from_secs(2) };

/// All pools. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Pools {
    /// The pool used by this clone.
    reading: PgPool,
    requests: PgPool,
    /// Few connections, so that reads of single rows never wait behind searches.
    searches: PgPool,
    permits: Arc<Semaphore>,
    /// Always closed: every acquire fails immediately.
    refusing: PgPool,
}

/// Permit to read a list; the pause of a search starts when it is dropped.
#[derive(Debug)]
pub struct ReadPermit {
    pool: PgPool,
    permit: Option<OwnedSemaphorePermit>,
    began: Instant,
}

/// Limits of a read pool: number of connections, statement timeout, acquire timeout.
struct Reading {
    connections: u32,
    statement: &'static str,
    acquire: Duration,
}

impl Reading {
    fn pool(&self, options: &PgConnectOptions, identity: &Identity, clock: &Clock) -> PgPool {
        let (identity, clock, statement) = (identity.clone(), clock.clone(), self.statement);
        let current = identity.clone();
        PgPoolOptions::new()
            .max_connections(self.connections)
            // A round trip per acquire costs a fifth of the throughput; a dead connection is noticed on use.
            .test_before_acquire(false)
            .acquire_timeout(self.acquire)
            // A connection opened before the log changed may lead to a replaced server.
            .before_acquire(move |_, meta| {
                let usable = !current.is_outdated(meta.age);
                Box::pin(async move { Ok(usable) })
            })
            .after_connect(move |conn, _| {
                let (identity, clock) = (identity.clone(), clock.clone());
                Box::pin(async move {
                    // Lists have optional filters; only a custom plan for the actual values uses the right index.
                    sqlx::query!(
                        "SELECT set_config('search_path', 'taskwatch', false) AS path,
                                set_config('statement_timeout', $1, false) AS timeout,
                                set_config('plan_cache_mode', 'force_custom_plan', false) AS plans",
                        statement
                    )
                    .fetch_one(&mut *conn)
                    .await?;
                    identity.check(conn, &clock).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options.clone())
    }
}

impl Pools {
    pub(super) async fn new(options: &PgConnectOptions, identity: &Identity, clock: &Clock) -> Self {
        let pool = |reading: Reading| reading.pool(options, identity, clock);
        let refusing = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.clone());
        refusing.close().await;
        let permits = Arc::new(Semaphore::new(SEARCHES_AT_ONCE));
        Self { reading: pool(OWN), requests: pool(REQUESTS), searches: pool(SEARCHES), permits, refusing }
    }

    pub(super) const fn reading(&self) -> &PgPool {
        &self.reading
    }

    pub(super) const fn refusing(&self) -> &PgPool {
        &self.refusing
    }

    pub(super) fn for_requests(&self) -> Self {
        Self { reading: self.requests.clone(), ..self.clone() }
    }

    pub(super) async fn read_permit(&self, reading: &PgPool, is_search: bool) -> sqlx::Result<ReadPermit> {
        if !is_search {
            return Ok(ReadPermit { pool: reading.clone(), permit: None, began: Instant::now() });
        }
        let permit = tokio::time::timeout(PERMIT_TIMEOUT, self.permits.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        Ok(ReadPermit { pool: self.searches.clone(), permit: Some(permit), began: Instant::now() })
    }

    pub(super) async fn close(&self) {
        tokio::join!(self.reading.close(), self.requests.close(), self.searches.close());
    }
}

impl ReadPermit {
    /// The pool to read from.
    #[must_use]
    pub const fn pool(&self) -> &PgPool {
        &self.pool
    }
}

impl Drop for ReadPermit {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let rest = self.began.elapsed().saturating_mul(REST).min(LONGEST_REST);
        // Without a runtime nothing searches any more.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(rest).await;
                drop(permit);
            });
        }
    }
}
