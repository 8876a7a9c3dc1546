//! Databases as they are found: roles with few rights, other encodings, poolers, schemas of older versions.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use taskwatch::{clock::Clock, embedded::Embedded, store::Store};

use crate::harness::{
    cluster::{self, execute, number, texts},
    eventually,
    program::{Folder, Program, Running, command, output},
};

/// An empty database beside the migrated one of the test, and a role that may log in.
async fn empty(more: &str) -> (PgConnectOptions, String) {
    let options = cluster::database().await;
    let name = format!("{}_empty", options.get_database().unwrap());
    execute(&options, &format!("CREATE DATABASE {name} {more}")).await;
    execute(&options, &format!("CREATE ROLE {name}_role LOGIN")).await;
    (options.database(&name), format!("{name}_role"))
}

/// The database as a URL.
fn url(options: &PgConnectOptions) -> String {
    let socket = options.get_socket().unwrap().display();
    format!("postgres://{}@localhost/{}?host={socket}", options.get_username(), options.get_database().unwrap())
}

async fn refused(options: PgConnectOptions) -> String {
    Store::open(options, Clock::default()).await.unwrap_err().to_string()
}

async fn has_schema(options: &PgConnectOptions) -> bool {
    number(options, "SELECT count(*) FROM pg_namespace WHERE nspname = 'taskwatch'").await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_create_uses_the_schema_that_is_there() {
    let (database, role) = empty("").await;
    let as_role = database.clone().username(&role);
    let said = refused(as_role.clone()).await;
    assert!(said.contains("grant CREATE on the database") && said.matches("permission denied").count() == 1, "{said}");
    execute(&database, &format!("CREATE SCHEMA taskwatch AUTHORIZATION {role}")).await;
    // Whatever the search path of the role is.
    execute(&database, &format!("ALTER ROLE {role} SET search_path = public")).await;
    for _ in 0..2 {
        Store::open(as_role.clone(), Clock::default()).await.unwrap().close().await;
    }
    assert!(number(&database, "SELECT count(*) FROM taskwatch._sqlx_migrations").await > 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_encodings_are_refused_before_anything_is_made() {
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let (database, _) = empty(&format!("ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")).await;
        let said = refused(database.clone()).await;
        assert!(said.contains(encoding) && said.contains("needs UTF8"), "{said}");
        assert!(!has_schema(&database).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_or_no_connections_is_named_as_the_cause() {
    let (database, role) = empty("").await;
    let name = database.get_database().unwrap().to_owned();
    execute(&database, &format!("CREATE SCHEMA taskwatch AUTHORIZATION {role}")).await;
    for limit in [0, 1, 2] {
        execute(&database, &format!("ALTER ROLE {role} CONNECTION LIMIT {limit}")).await;
        let said = refused(database.clone().username(&role)).await;
        assert!(said.contains("too many connections for role") && said.contains("CONNECTION LIMIT"), "{limit}: {said}");
    }
    execute(&database, &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let said = refused(database.clone()).await;
    assert!(said.contains("takes no writes"), "{said}");
    let said = refused(database.database("there_is_none")).await;
    assert!(said.contains("createdb"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_migrations_is_found_whatever_the_search_path_was() {
    let database = cluster::database().await;
    execute(&database, "ALTER TABLE taskwatch._sqlx_migrations SET SCHEMA public").await;
    Store::open(database.clone(), Clock::default()).await.unwrap().close().await;
    let place = "SELECT schemaname::text FROM pg_tables WHERE tablename = '_sqlx_migrations'";
    assert_eq!(texts(&database, place).await, ["taskwatch"]);
    // Another application's record is left alone, and is no proof.
    let (other, _) = empty("").await;
    execute(
        &other,
        "CREATE TABLE public._sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
         success BOOLEAN NOT NULL, checksum BYTEA NOT NULL, execution_time BIGINT NOT NULL);
         INSERT INTO public._sqlx_migrations VALUES (1, 'theirs', now(), true, 'x', 1)",
    )
    .await;
    Store::open(other.clone(), Clock::default()).await.unwrap().close().await;
    let mut places = texts(&other, place).await;
    places.sort();
    assert_eq!(places, ["public", "taskwatch"]);
    execute(&other, "DROP TABLE taskwatch._sqlx_migrations").await;
    let said = refused(other.clone()).await;
    assert!(said.contains("not the record of their migrations"), "{said}");
    assert_eq!(texts(&other, place).await, ["public"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_the_schema_is_not_waited_for_without_a_word_or_an_end() {
    let database = cluster::database().await;
    let mut holder = PgConnection::connect_with(&database.clone().application_name("keeper")).await.unwrap();
    sqlx::raw_sql("SELECT pg_advisory_lock(hashtextextended('taskwatch.schema', 0))")
        .execute(&mut holder)
        .await
        .unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let start = Running::start(&mut command(&["--database-url", &url(&database), "--listen", "127.0.0.1:0"]));
        start.says("waiting for the lock of the schema, which database process").await;
        assert!(start.logged().contains("keeper"), "{}", start.logged());
        start.signal(signal);
        assert_eq!(start.ends().0.code(), Some(0));
    }
    let said = refused(database.clone()).await;
    assert!(said.contains("was not free within") && said.contains("keeper"), "{said}");
    holder.close().await.unwrap();
    Store::open(database, Clock::default()).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_makes_nothing_in_a_database() {
    let (database, _) = empty("").await;
    let (code, out, error) = output(&["verify", "--database-url", &url(&database)]);
    assert_eq!(code, 2, "{out}{error}");
    assert!(error.contains("holds no taskwatch"), "{error}");
    assert!(!has_schema(&database).await);
    let database = cluster::database().await;
    let (code, out, error) = output(&["verify", "--database-url", &url(&database)]);
    assert_eq!(code, 0, "{out}{error}");
    execute(&database, "DELETE FROM taskwatch._sqlx_migrations WHERE version > 3").await;
    let (code, _, error) = output(&["verify", "--database-url", &url(&database)]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("another version"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_may_end_with_a_newline_and_its_password_is_never_shown() {
    let database = cluster::database().await;
    for variable in ["DATABASE_URL", "TASKWATCH_DATABASE_URL"] {
        let address = format!(" {}\n", url(&database));
        let program = Program::up(command(&["--listen", "127.0.0.1:0"]).env(variable, address));
        assert_eq!(program.terminate().code(), Some(0));
    }
    for (address, says) in [
        ("postgres://u:CANARY@CANARY/CANARY@127.0.0.1:1/x", "%40"),
        ("postgres://u:CANARY@127.0.0.1:1/x?secret_token=CANARY", "cannot reach the database at 127.0.0.1:1"),
        ("postgres://u:CANARY@127.0.0.1:1/x?sslmode=CANARY", "sslmode"),
        ("mysql://u:CANARY@127.0.0.1:1/x", "postgres://"),
    ] {
        let output = command(&["--listen", "127.0.0.1:0"]).env("DATABASE_URL", address).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says) && !said.contains("CANARY"), "{address}: {said}");
    }
}

/// A pooler in front of the tests' cluster.
struct Pooler {
    child: Child,
    port: u16,
    _folder: Folder,
}

impl Pooler {
    async fn start(database: &PgConnectOptions, more: &str) -> Self {
        let folder = Folder::new();
        let socket = database.get_socket().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let settings = format!(
            "[databases]\n* = host={} port=5432 user=taskwatch\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n{more}\n",
            socket.display()
        );
        fs::write(folder.0.join("pgbouncer.ini"), settings).unwrap();
        let owner = fs::metadata(socket).unwrap();
        let mut command = Command::new("/usr/sbin/pgbouncer");
        command.arg(folder.0.join("pgbouncer.ini")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        let child = command.spawn().unwrap();
        let pooler = Self { child, port, _folder: folder };
        eventually("the pooler listens", || async { std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() }).await;
        pooler
    }

    fn url(&self, database: &PgConnectOptions) -> String {
        format!("postgres://taskwatch@127.0.0.1:{}/{}", self.port, database.get_database().unwrap())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_with_its_defaults_works() {
    let (database, _) = empty("").await;
    let pooler = Pooler::start(&database, "").await;
    let address = pooler.url(&database);
    let http = reqwest::Client::new();
    for _ in 0..2 {
        let program = Program::up(&mut command(&["--database-url", &address, "--listen", "127.0.0.1:0"]));
        let task = serde_json::json!({ "task_type": "t" });
        let created = http.post(format!("{}/api/v1/tasks", program.url)).json(&task).send().await.unwrap();
        assert_eq!(created.status(), 201);
        assert_eq!(program.terminate().code(), Some(0));
    }
    let (code, out, error) = output(&["verify", "--database-url", &address]);
    assert_eq!(code, 0, "{out}{error}");
    // What the pooler refuses is named, with the line to set.
    let start = command(&["--database-url", &address]).env("PGOPTIONS", "-c geqo=off").output().unwrap();
    let said = String::from_utf8_lossy(&start.stderr).into_owned();
    assert_eq!(start.status.code(), Some(2), "{said}");
    assert!(said.contains("ignore_startup_parameters = options"), "{said}");
    drop(pooler);
    let pooler = Pooler::start(&database, "ignore_startup_parameters = options").await;
    let mut start = command(&["--database-url", &pooler.url(&database), "--listen", "127.0.0.1:0"]);
    assert_eq!(Program::up(start.env("PGOPTIONS", "-c geqo=off")).terminate().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_that_pools_transactions_is_refused_at_once() {
    let (database, _) = empty("").await;
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::start(&database, &format!("pool_mode = {mode}")).await;
        let (code, _, error) = output(&["--database-url", &pooler.url(&database), "--listen", "127.0.0.1:0"]);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("pool_mode = session"), "{mode}: {error}");
    }
    assert!(!has_schema(&database).await);
}

#[test]
fn a_certificate_that_signs_itself_gets_advice_and_one_of_a_ca_works() {
    let folder = Folder::new();
    let tls = Folder::new();
    let openssl = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).current_dir(&tls.0).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    let key = ["-newkey", "rsa:2048", "-nodes"];
    openssl(&[&["req", "-x509", "-days", "2", "-keyout", "self.key", "-out", "self.pem"][..], &key, &name].concat());
    openssl(
        &[&["req", "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca"][..], &key].concat(),
    );
    openssl(&[&["req", "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=localhost"][..], &key].concat());
    fs::write(tls.0.join("leaf.ext"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "leaf.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-days",
        "2",
        "-out",
        "leaf.pem",
        "-extfile",
        "leaf.ext",
    ]);
    Embedded::start(&folder.0, &[]).unwrap().stop();
    for (own, authority, works) in [("self", "self", false), ("leaf", "self", false), ("leaf", "ca", true)] {
        let place = |name: &str| tls.0.join(name).to_str().unwrap().to_owned();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        // The cluster's account must be able to read its key, and no one else.
        let key = place(&format!("{own}.key"));
        fs::set_permissions(&tls.0, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let owner = fs::metadata(folder.0.join("pg")).unwrap();
        std::os::unix::fs::chown(&key, Some(owner.uid()), Some(owner.gid())).unwrap();
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", place(&format!("{own}.pem"))),
            format!("ssl_key_file={key}"),
            format!("port={port}"),
        ];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let server = Embedded::start(&folder.0, &settings).unwrap();
        let address = format!(
            "postgres://taskwatch@localhost:{port}/postgres?sslmode=verify-full&sslrootcert={}",
            place(&format!("{authority}.pem"))
        );
        if works {
            let program = Program::up(&mut command(&["--database-url", &address, "--listen", "127.0.0.1:0"]));
            assert_eq!(program.terminate().code(), Some(0));
            let (code, _, error) = output(&["--database-url", &address.replace("localhost", "127.0.0.1")]);
            assert_eq!(code, 2, "{error}");
            assert!(error.contains("another name") && !error.contains("make a CA"), "{error}");
        } else {
            let (code, _, error) = output(&["--database-url", &address, "--listen", "127.0.0.1:0"]);
            assert_eq!(code, 2, "{error}");
            assert!(error.contains("make a CA and a certificate signed by it"), "{own}, {authority}: {error}");
        }
        server.stop();
    }
}
