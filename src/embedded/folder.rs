//! The data directory: permissions, lock, and the location of the socket.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File},
    io::{Read, Seek, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{fs::OFlags, process::geteuid};

use super::binaries::Account;

/// Maximum length of a Unix socket path, minus the file name.
const LONGEST_SOCKET_DIR: usize = 85;
/// Maximum length of a temporary directory that still leaves room for a socket directory in it.
const LONGEST_TEMP_DIR: usize = 60;
/// Files of taskwatch in the data directory, and those that a fresh file system may contain.
const KNOWN: [&str; 10] =
    ["lock", "log.new", "log.position", "pg", "pg.new", "pg.log", "pg.log.1", "run", "socket", "lost+found"];
/// File with the path of a socket directory outside the data directory.
const SOCKET_FILE: &str = "socket";

/// Creates the data directory or adopts an existing one, and denies access to other users: mode 0700, or 0710 with the
/// group of the account that PostgreSQL runs as.
pub(super) fn prepare(data_dir: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    let cannot = || format!("cannot create the data directory {}; choose another with --data-dir", data_dir.display());
    if let Some(parent) = data_dir.parent() {
        fs::create_dir_all(parent).with_context(cannot)?;
    }
    match DirBuilder::new().mode(0o700).create(data_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error).with_context(cannot),
        _ => {}
    }
    let folder = File::options()
        .read(true)
        .custom_flags(OFlags::DIRECTORY.bits().cast_signed())
        .open(data_dir)
        .with_context(cannot)?;
    let owner = folder.metadata()?.uid();
    let me = geteuid().as_raw();
    let foreign = fs::read_dir(data_dir).with_context(cannot)?.flatten().map(|entry| entry.file_name()).find(|name| {
        let name = name.as_bytes();
        !KNOWN.iter().any(|known| known.as_bytes() == name)
    });
    if let Some(name) = foreign {
        tracing::warn!(
            "{} also contains other files ({}); its permissions are left unchanged. Use a directory of its own with --data-dir",
            data_dir.display(),
            Path::new(&name).display()
        );
        return Ok(());
    }
    match account {
        Some(account) if owner == me => {
            fchown(&folder, None, Some(account.gid))?;
            folder.set_permissions(fs::Permissions::from_mode(0o710))?;
        }
        Some(account) if owner == account.uid => folder.set_permissions(fs::Permissions::from_mode(0o700))?,
        None if owner == me => folder.set_permissions(fs::Permissions::from_mode(0o700))?,
        _ => {
            tracing::warn!("{} is owned by another user (id {owner}), who can replace its contents", data_dir.display())
        }
    }
    Ok(())
}

/// Opens a file with owner-only permissions, even if an older version left it readable by others. Never follows a
/// symlink.
pub(super) fn private_file(path: &Path, options: &mut fs::OpenOptions) -> std::io::Result<File> {
    let file = options.create(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// The lock against a second taskwatch.
pub(super) fn lock(data_dir: &Path) -> anyhow::Result<File> {
    let path = data_dir.join("lock");
    let mut file = private_file(&path, File::options().read(true).write(true))
        .with_context(|| format!("cannot write {}; choose another directory with --data-dir", path.display()))?;
    if file.try_lock().is_err() {
        let mut holder = String::new();
        file.read_to_string(&mut holder)?;
        bail!(
            "{} is in use by process {}; stop that one or choose another --data-dir",
            data_dir.display(),
            holder.trim()
        );
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Whether another process holds the lock.
pub(super) fn is_locked(data_dir: &Path) -> bool {
    File::open(data_dir.join("lock")).is_ok_and(|lock| lock.try_lock_shared().is_err())
}

/// Creates a private directory for the account. An existing one is accepted only if it is a directory owned by the
/// account; ownership is never changed.
pub(super) fn private_dir(dir: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    let wanted = account.map_or_else(|| geteuid().as_raw(), |account| account.uid);
    let made = match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error).with_context(|| format!("cannot create {}", dir.display())),
    };
    let folder = File::options()
        .read(true)
        .custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed())
        .open(dir)
        .with_context(|| format!("{} is not a directory; remove it or choose another --data-dir", dir.display()))?;
    if let Some(account) = account
        && made
    {
        fchown(&folder, Some(account.uid), Some(account.gid))
            .with_context(|| format!("cannot change the owner of {} to '{}'", dir.display(), account.name))?;
    }
    let owner = folder.metadata()?.uid();
    if owner != wanted {
        bail!("{} belongs to another user (id {owner}); remove it or choose another --data-dir", dir.display());
    }
    folder.set_permissions(fs::Permissions::from_mode(0o700))?;
    Ok(())
}

/// The socket directory of a server that runs in this data directory.
pub(super) fn socket_dir(data_dir: &Path) -> PathBuf {
    fs::read(data_dir.join(SOCKET_FILE))
        .map_or_else(|_| data_dir.join("run"), |name| PathBuf::from(OsStr::from_bytes(&name)))
}

/// An empty directory for the socket: in the data directory, or, if that path is too long or not UTF-8, a fresh one
/// with a random name in the temporary directory, recorded in a file in the data directory.
pub(super) fn make_socket_dir(data_dir: &Path, account: Option<&Account>) -> anyhow::Result<PathBuf> {
    remove_socket_dir(data_dir, account);
    let inside = data_dir.join("run");
    if inside.as_os_str().len() <= LONGEST_SOCKET_DIR && inside.to_str().is_some() {
        private_dir(&inside, account)?;
        for name in [".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
            // We hold the lock of the data directory, so leftovers of a killed server are unused.
            match fs::remove_file(inside.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        return Ok(inside);
    }
    let temp = Some(std::env::temp_dir())
        .filter(|dir| dir.is_absolute() && dir.to_str().is_some() && dir.as_os_str().len() <= LONGEST_TEMP_DIR);
    let temp = temp.unwrap_or_else(|| PathBuf::from("/tmp"));
    let mut tries = 0;
    loop {
        let dir = temp.join(format!("taskwatch-{:016x}", fastrand::u64(..)));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && tries < 10 => {
                tries += 1;
                continue;
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "cannot create {} for the database's socket; choose a --data-dir with a shorter path",
                        dir.display()
                    )
                });
            }
        }
        let folder = File::options()
            .read(true)
            .custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed())
            .open(&dir)?;
        if let Some(account) = account {
            fchown(&folder, Some(account.uid), Some(account.gid))?;
        }
        let mut file = private_file(&data_dir.join(SOCKET_FILE), File::options().write(true).truncate(true))?;
        file.write_all(dir.as_os_str().as_bytes())?;
        return Ok(dir);
    }
}

/// Removes a socket directory outside the data directory, if the account still owns it.
pub(super) fn remove_socket_dir(data_dir: &Path, account: Option<&Account>) {
    let dir = socket_dir(data_dir);
    if dir.starts_with(data_dir) {
        return;
    }
    let wanted = account.map_or_else(|| geteuid().as_raw(), |account| account.uid);
    let ours = fs::symlink_metadata(&dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == wanted);
    let named = dir.file_name().is_some_and(|name| name.as_bytes().starts_with(b"taskwatch-"));
    if ours && named {
        let _ = fs::remove_dir_all(&dir);
    }
    let _ = fs::remove_file(data_dir.join(SOCKET_FILE));
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("tw-folder-{:016x}", fastrand::u64(..)));
        fs::create_dir(&dir).unwrap();
        dir
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_private_folder_is_never_a_link_or_someone_elses() {
        let dir = folder();
        let victim = dir.join("victim");
        fs::create_dir(&victim).unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(&victim, dir.join("link")).unwrap();
        private_dir(&dir.join("link"), None).unwrap_err();
        assert_eq!(mode(&victim), 0o755, "what a link points at stays as it was");
        let other = Account { name: "other".to_owned(), uid: geteuid().as_raw() + 1, gid: 1 };
        private_dir(&victim, Some(&other)).unwrap_err();
        let meta = fs::metadata(&victim).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o777), (geteuid().as_raw(), 0o755), "nothing that exists changes hands");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn files_of_older_versions_are_closed_to_others_and_links_are_not_followed() {
        let dir = folder();
        fs::write(dir.join("lock"), "1").unwrap();
        fs::set_permissions(dir.join("lock"), fs::Permissions::from_mode(0o644)).unwrap();
        drop(lock(&dir).unwrap());
        assert_eq!(mode(&dir.join("lock")), 0o600);
        std::os::unix::fs::symlink(dir.join("elsewhere"), dir.join("pg.log")).unwrap();
        private_file(&dir.join("pg.log"), File::options().append(true)).unwrap_err();
        assert!(!dir.join("elsewhere").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_that_holds_other_things_keeps_its_mode() {
        let dir = folder();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("letters"), "").unwrap();
        prepare(&dir, None).unwrap();
        assert_eq!(mode(&dir), 0o755);
        fs::remove_file(dir.join("letters")).unwrap();
        prepare(&dir, None).unwrap();
        assert_eq!(mode(&dir), 0o700);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_long_path_gets_a_socket_folder_with_a_random_name_that_goes_with_the_next_start() {
        let dir = folder();
        let long = dir.join("x".repeat(100));
        fs::create_dir(&long).unwrap();
        let one = make_socket_dir(&long, None).unwrap();
        assert_eq!((socket_dir(&long), mode(&one)), (one.clone(), 0o700));
        let two = make_socket_dir(&long, None).unwrap();
        assert_ne!(one, two);
        assert!(!one.exists() && two.exists());
        remove_socket_dir(&long, None);
        assert!(!two.exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_is_used_by_one_process() {
        let dir = folder();
        assert!(!is_locked(&dir), "there is no lock");
        let held = lock(&dir).unwrap();
        assert!(is_locked(&dir));
        assert_eq!(fs::read_to_string(dir.join("lock")).unwrap(), std::process::id().to_string());
        let error = lock(&dir).unwrap_err().to_string();
        assert!(error.contains(&format!("is in use by process {}; stop that one", std::process::id())), "{error}");
        drop(held);
        assert!(!is_locked(&dir));
        fs::write(dir.join("lock"), "a much longer text than a number").unwrap();
        let held = lock(&dir).unwrap();
        assert_eq!(fs::read_to_string(dir.join("lock")).unwrap(), std::process::id().to_string());
        drop(held);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_socket_is_in_the_data_folder_unless_a_file_says_otherwise() {
        let dir = folder();
        assert_eq!(socket_dir(&dir), dir.join("run"));
        let made = make_socket_dir(&dir, None).unwrap();
        assert_eq!((made, mode(&dir.join("run"))), (dir.join("run"), 0o700));
        fs::write(dir.join("run/.s.PGSQL.5432"), "left behind").unwrap();
        make_socket_dir(&dir, None).unwrap();
        assert!(!dir.join("run/.s.PGSQL.5432").exists());
        fs::write(dir.join("socket"), b"/tmp/taskwatch-\xff").unwrap();
        assert_eq!(socket_dir(&dir).as_os_str().as_bytes(), b"/tmp/taskwatch-\xff");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_that_a_file_names_is_removed_only_if_it_is_ours() {
        let (dir, other) = (folder(), folder());
        fs::write(dir.join("socket"), other.as_os_str().as_bytes()).unwrap();
        remove_socket_dir(&dir, None);
        assert!(other.exists() && !dir.join("socket").exists(), "its name is not one of ours");
        remove_socket_dir(&dir, None);
        fs::remove_dir_all(dir).unwrap();
        fs::remove_dir_all(other).unwrap();
    }
}
