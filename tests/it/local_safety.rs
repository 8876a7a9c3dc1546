//! Other users of the machine see nothing of the data folder, and messages hold no secrets.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use crate::harness::{
    cluster::texts,
    eventually,
    program::{Folder, Program, Running, command},
};

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

/// The private database, as the test may reach it.
fn database(folder: &Folder) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(folder.0.join("run"))
        .port(5432)
        .username("taskwatch")
        .database("postgres")
}

#[test]
fn other_users_cannot_enter_the_data_folder_nor_read_what_older_versions_left() {
    let folder = Folder::new();
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["lock", "pg.log", "pg.log.1"] {
        fs::write(folder.0.join(name), "").unwrap();
        fs::set_permissions(folder.0.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let program = Program::start(&folder.0, &[]);
    assert_eq!(mode(&folder.0) & !0o710, 0, "{:o}", mode(&folder.0));
    for name in ["lock", "pg.log", "pg.log.1"] {
        assert_eq!(mode(&folder.0.join(name)), 0o600, "{name}");
    }
    for entry in fs::read_dir(&folder.0).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}: {:o}", path.display(), mode(&path));
    }
    if rustix::process::geteuid().is_root() {
        // Another user can neither hold the lock nor read the log.
        use std::os::unix::process::CommandExt;
        for name in ["lock", "pg.log", "."] {
            let mut other = std::process::Command::new("ls");
            other.arg("-l").arg(folder.0.join(name).join("")).uid(65_534).gid(65_534);
            assert!(!other.output().unwrap().status.success(), "{name}");
        }
        let mut other = std::process::Command::new("flock");
        other.arg("-n").arg(folder.0.join("lock")).arg("true").uid(65_534).gid(65_534).current_dir("/");
        let ended = other.output().unwrap();
        assert!(String::from_utf8_lossy(&ended.stderr).contains("Permission denied"), "{ended:?}");
    }
    program.terminate();
}

#[test]
fn a_fresh_data_folder_is_private_and_its_parents_are_ordinary() {
    let folder = Folder::new();
    let data = folder.0.join("a/b");
    let program = Program::start(&data, &[]);
    assert_eq!(mode(&data) & !0o710, 0);
    assert_ne!(mode(&folder.0.join("a")) & 0o055, 0, "its parent is left as the user's umask has it");
    program.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_log_is_bounded_and_holds_no_payloads() {
    let folder = Folder::new();
    let program = Program::start(&folder.0, &[]);
    let database = database(&folder);
    assert_eq!(texts(&database, "SHOW data_checksums").await, ["on"]);
    let mut conn = PgConnection::connect_with(&database).await.unwrap();
    for statement in [
        r#"SELECT '{"password":"CANARY'::json"#,
        "CREATE TEMP TABLE once (secret text PRIMARY KEY); INSERT INTO once VALUES ('CANARY'), ('CANARY')",
    ] {
        sqlx::raw_sql(statement).execute(&mut conn).await.unwrap_err();
    }
    conn.close().await.unwrap();
    let path = folder.0.join("pg.log");
    let log = fs::read_to_string(&path).unwrap();
    assert!(log.contains("ERROR") && !log.contains("CANARY"), "{log}");
    // It grows beyond its bound while the server runs.
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(&vec![b'x'; 9 * 1024 * 1024]).unwrap();
    eventually("the log is moved on", || async { fs::metadata(&path).unwrap().len() < 1024 * 1024 }).await;
    assert_eq!(mode(&folder.0.join("pg.log.1")), 0o600);
    program.terminate();
}

#[test]
fn a_link_in_the_data_folder_is_not_followed() {
    for name in ["lock", "pg.log", "run"] {
        let (folder, victim) = (Folder::new(), Folder::new());
        fs::set_permissions(&victim.0, fs::Permissions::from_mode(0o755)).unwrap();
        let target = if name == "run" { victim.0.clone() } else { victim.0.join("file") };
        std::os::unix::fs::symlink(&target, folder.0.join(name)).unwrap();
        let data = folder.0.to_str().unwrap();
        let (code, said) = Running::start(&mut command(&["--data-dir", data, "--listen", "127.0.0.1:0"])).ends();
        assert_eq!(code.code(), Some(2), "{name}: {said}");
        assert!(said.contains(name), "{said}");
        assert_eq!((mode(&victim.0), fs::read_dir(&victim.0).unwrap().count()), (0o755, 0), "{name}");
        assert_eq!(fs::metadata(&victim.0).unwrap().uid(), rustix::process::geteuid().as_raw());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_passwords_in_addresses_are_not_shown() {
    for arguments in [
        &["tail", "--url", "http://me:CANARY@127.0.0.1:1"][..],
        &["tail", "--url", "me:CANARY@127.0.0.1:1"],
        &["demo", "--seconds", "1", "--url", "http://me:CANARY@127.0.0.1:1"],
        &["demo", "--url", "me:CANARY@127.0.0.1:1"],
        &["health", "--url", "http://me:CANARY@127.0.0.1:1"],
        &["status", "--url", "http://me:CANARY@127.0.0.1:1/a?b=c"],
    ] {
        let asked = Running::start(&mut command(arguments));
        asked.says("127.0.0.1:1").await;
        assert!(!asked.logged().contains("CANARY"), "{arguments:?}: {}", asked.logged());
    }
}
