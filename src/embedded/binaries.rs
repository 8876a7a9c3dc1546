//! Locates the PostgreSQL binaries and the account to run them as.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};
use rustix::process::geteuid;

use super::OLDEST;

/// The account that Postgres runs as when we are root: Postgres refuses to run as root.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Directory of the binaries, and their major version.
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
}

/// The account to run Postgres as: ours, or for root the owner of an existing cluster, else the user behind sudo, else
/// `postgres`, else `nobody`.
pub(super) fn account(cluster: &Path) -> anyhow::Result<Option<Account>> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let accounts: Vec<_> = passwd
        .lines()
        .filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            Some(Account {
                name: (*fields.first()?).to_owned(),
                uid: fields.get(2)?.parse().ok()?,
                gid: fields.get(3)?.parse().ok()?,
            })
        })
        .collect();
    let me = geteuid().as_raw();
    if me != 0 {
        if !accounts.is_empty() && accounts.iter().all(|account| account.uid != me) {
            bail!("user id {me} has no entry in /etc/passwd, which PostgreSQL's initdb needs; set DATABASE_URL");
        }
        return Ok(None);
    }
    let owner = fs::metadata(cluster).ok().map(|meta| meta.uid()).filter(|uid| *uid != 0);
    let sudo: Option<u32> = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok()).filter(|uid| *uid != 0);
    let with_id = |uid: Option<u32>| accounts.iter().find(|account| Some(account.uid) == uid);
    let named = |name| accounts.iter().find(|account| account.name == name);
    let chosen = with_id(owner).or_else(|| with_id(sudo)).or_else(|| named("postgres")).or_else(|| named("nobody"));
    let Some(chosen) = chosen else {
        bail!(
            "PostgreSQL refuses to run as root, and there is no user 'postgres' or 'nobody'; set DATABASE_URL or start taskwatch as another user"
        );
    };
    Ok(Some(Account { name: chosen.name.clone(), ..*chosen }))
}

/// The account must have search permission on all directories down to the data directory.
pub(super) fn reachable(data_dir: &Path, account: &Account) -> anyhow::Result<()> {
    for dir in data_dir.ancestors() {
        let meta = fs::metadata(dir)?;
        let bit = if meta.uid() == account.uid {
            0o100
        } else if meta.gid() == account.gid {
            0o010
        } else {
            0o001
        };
        if meta.mode() & bit == 0 {
            bail!(
                "{} is not accessible to user '{}', which runs PostgreSQL when taskwatch is root ({} is private); choose another --data-dir",
                data_dir.display(),
                account.name,
                dir.display()
            );
        }
    }
    Ok(())
}

/// Major version of an existing cluster.
pub(super) fn existing_major(cluster: &Path) -> anyhow::Result<Option<u32>> {
    match fs::read_to_string(cluster.join("PG_VERSION")) {
        Ok(text) => {
            Ok(Some(text.trim().parse().with_context(|| format!("{}/PG_VERSION is damaged", cluster.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", cluster.display())),
    }
}

/// The newest installation, or the one that matches an existing cluster.
pub(super) fn find_binaries(wanted: Option<u32>, cluster: &Path) -> anyhow::Result<Binaries> {
    let mut dirs: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    for (parent, below) in [
        ("/usr/lib/postgresql", "bin"),
        ("/usr/libexec", ""),
        ("/usr", "bin"),
        ("/usr/local", "bin"),
        ("/opt/homebrew/opt", "bin"),
        ("/usr/local/opt", "bin"),
    ] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        dirs.extend(entries.map(|entry| entry.path().join(below)));
    }
    let mut found: Vec<_> = dirs
        .into_iter()
        .filter(|dir| dir.join("postgres").is_file() && dir.join("initdb").is_file())
        .filter_map(|dir| Some(Binaries { major: major(&dir)?, dir }))
        .collect();
    found.sort_by_key(|binaries| binaries.major);
    if found.is_empty() {
        bail!(
            "no PostgreSQL found (looked in PATH, /usr/lib/postgresql, /usr/pgsql-*, Homebrew); install it (apt-get install postgresql, or brew install postgresql) or set DATABASE_URL"
        );
    }
    let versions = found.iter().map(|binaries| binaries.major.to_string()).collect::<Vec<_>>().join(", ");
    match wanted {
        Some(wanted) => found.into_iter().find(|binaries| binaries.major == wanted).with_context(|| {
            format!("{} was created by PostgreSQL {wanted}, but only {versions} is installed; install {wanted}, or move that directory away to start empty", cluster.display())
        }),
        None => found.pop().filter(|binaries| binaries.major >= OLDEST).with_context(|| {
            format!("only PostgreSQL {versions} was found; taskwatch needs {OLDEST} or newer: install it or set DATABASE_URL")
        }),
    }
}

pub(super) fn major(dir: &Path) -> Option<u32> {
    let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let digits: String = text.split_whitespace().nth(2)?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_cluster_is_read_from_its_file() {
        let dir = std::env::temp_dir().join(format!("tw-binaries-{:016x}", fastrand::u64(..)));
        fs::create_dir(&dir).unwrap();
        assert_eq!(existing_major(&dir).unwrap(), None);
        fs::write(dir.join("PG_VERSION"), "17\n").unwrap();
        assert_eq!(existing_major(&dir).unwrap(), Some(17));
        for damaged in ["", "9.6", "x\n"] {
            fs::write(dir.join("PG_VERSION"), damaged).unwrap();
            let error = existing_major(&dir).unwrap_err().to_string();
            assert!(error.ends_with("PG_VERSION is damaged"), "{error}");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_folder_without_binaries_has_no_version() {
        assert_eq!(major(Path::new("/nonexistent")), None);
    }

    #[test]
    fn the_way_to_the_data_must_be_open_to_the_account() {
        use std::os::unix::fs::PermissionsExt;
        let dir = std::env::temp_dir().join(format!("tw-reach-{:016x}", fastrand::u64(..)));
        fs::create_dir(&dir).unwrap();
        let account = |gid| Account { name: "other".to_owned(), uid: geteuid().as_raw() + 7_001, gid };
        let ours = fs::metadata(&dir).unwrap().gid();
        for (mode, gid, is_open) in
            [(0o701, 7_001_001, true), (0o770, 7_001_001, false), (0o710, ours, true), (0o701, ours, false)]
        {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
            let refused = reachable(&dir, &account(gid)).err().map(|error| error.to_string()).unwrap_or_default();
            let named = format!(
                "not accessible to user 'other', which runs PostgreSQL when taskwatch is root ({} is private)",
                dir.display()
            );
            assert_eq!(refused.contains(&named), !is_open, "{mode:o} {gid}: {refused}");
        }
        fs::remove_dir_all(dir).unwrap();
    }
}
