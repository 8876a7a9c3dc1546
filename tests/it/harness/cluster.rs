//! One private Postgres for the whole test run, one database per test.

use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use taskwatch::{clock::Clock, embedded::Embedded, store::Store};

static CLUSTER: OnceLock<PgConnectOptions> = OnceLock::new();
static TEMPLATE: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Starts the cluster once. The thread that starts it must live as long as the cluster: the kernel stops a server whose
/// parent thread has ended.
fn cluster() -> PgConnectOptions {
    let start = || {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let settings = ["fsync=off", "shared_preload_libraries=pg_stat_statements", "max_connections=400"];
            let embedded = Embedded::start(&folder(), &settings).expect("the tests need PostgreSQL");
            sender.send(embedded.options()).unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.recv().expect("the tests need PostgreSQL")
    };
    CLUSTER.get_or_init(start).clone()
}

/// A folder for this run; those of runs that are over are removed.
fn folder() -> PathBuf {
    let all = std::env::temp_dir();
    for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("taskwatch-test-"));
        if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    all.join(format!("taskwatch-test-{}", std::process::id()))
}

/// A database of its own for one test, migrated.
pub(crate) async fn database() -> PgConnectOptions {
    let options = cluster();
    TEMPLATE
        .get_or_init(|| async {
            execute(&options, "CREATE DATABASE template_taskwatch").await;
            Store::open(options.clone().database("template_taskwatch"), Clock::default()).await.unwrap().close().await;
        })
        .await;
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    execute(&options, &format!("CREATE DATABASE {name} TEMPLATE template_taskwatch")).await;
    options.database(&name)
}

/// A database as an older version left it: the first migrations, and the data that was stored with them.
pub(crate) async fn older_database(migrations: usize, data: &str) -> PgConnectOptions {
    let options = cluster();
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    execute(&options, &format!("CREATE DATABASE {name}")).await;
    let options = options.database(&name);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let record = "CREATE SCHEMA taskwatch; CREATE TABLE taskwatch._sqlx_migrations (version bigint PRIMARY KEY,
        description text NOT NULL, installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL,
        checksum bytea NOT NULL, execution_time bigint NOT NULL)";
    execute(&options, record).await;
    for file in files.iter().take(migrations) {
        execute(&options, &std::fs::read_to_string(file).unwrap()).await;
    }
    execute(&options, data).await;
    options
}

/// Runs one statement.
pub(crate) async fn execute(options: &PgConnectOptions, statement: &str) {
    let mut conn = PgConnection::connect_with(options).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

/// One number.
pub(crate) async fn number(options: &PgConnectOptions, statement: &str) -> i64 {
    let mut conn = PgConnection::connect_with(options).await.unwrap();
    let statement = sqlx::AssertSqlSafe(format!("SELECT ({statement})::bigint"));
    let number: Option<i64> = sqlx::query_scalar(statement).fetch_one(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    number.unwrap_or_default()
}

/// One column of texts.
pub(crate) async fn texts(options: &PgConnectOptions, statement: &str) -> Vec<String> {
    let mut conn = PgConnection::connect_with(options).await.unwrap();
    let texts = sqlx::query_scalar(sqlx::AssertSqlSafe(statement.to_owned())).fetch_all(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    texts
}

/// Runs statements that may be refused; whether they were taken.
pub(crate) async fn tries(options: &PgConnectOptions, statements: &str) -> bool {
    let mut conn = PgConnection::connect_with(options).await.unwrap();
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statements.to_owned())).execute(&mut conn).await;
    conn.close().await.unwrap();
    done.is_ok()
}
