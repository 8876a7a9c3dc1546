//! The log of the private PostgreSQL: bounded in size, and not readable by other users.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::folder::private_file;

/// Size above which the log is rotated at start, bytes.
const ROTATE_AT_START: u64 = 1024 * 1024;
/// Size above which the log is rotated while the server runs, bytes.
const ROTATE_WHILE_RUNNING: u64 = 8 * 1024 * 1024;
/// How much of the end is read for error messages, bytes.
const TAIL: u64 = 8 * 1024;

/// `pg.log`, and the previous log in `pg.log.1`.
#[derive(Debug)]
pub(super) struct Log(PathBuf);

impl Log {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("pg.log"))
    }

    fn older(&self) -> PathBuf {
        self.0.with_extension("log.1")
    }

    /// Opens the log for a starting server, rotating it first if it is large.
    pub(super) fn open(&self) -> anyhow::Result<File> {
        if fs::symlink_metadata(&self.0).is_ok_and(|meta| meta.len() > ROTATE_AT_START) {
            fs::rename(&self.0, self.older()).with_context(|| format!("cannot move {}", self.0.display()))?;
        }
        if self.older().exists() {
            private_file(&self.older(), File::options().append(true))
                .with_context(|| format!("cannot write {}", self.older().display()))?;
        }
        private_file(&self.0, File::options().append(true))
            .with_context(|| format!("cannot write {}", self.0.display()))
    }

    /// Rotates a log that has grown too large. The server keeps its file descriptor and appends, so the file is copied
    /// and truncated; a line written in between may be lost.
    pub(super) fn trim(&self) {
        if fs::symlink_metadata(&self.0).is_ok_and(|meta| meta.len() > ROTATE_WHILE_RUNNING) {
            let moved = || -> std::io::Result<()> {
                let mut from = private_file(&self.0, File::options().read(true).write(true))?;
                let mut to = private_file(&self.older(), File::options().write(true).truncate(true))?;
                std::io::copy(&mut from, &mut to)?;
                from.set_len(0)
            };
            if let Err(error) = moved() {
                tracing::warn!(%error, "cannot rotate {}", self.0.display());
            }
        }
    }

    /// The last five lines.
    pub(super) fn last_lines(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.0)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            file.take(TAIL).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_is_moved_on_at_its_bounds_and_its_end_can_be_read() {
        let dir = std::env::temp_dir().join(format!("tw-log-{:016x}", fastrand::u64(..)));
        fs::create_dir(&dir).unwrap();
        let log = Log::of(&dir);
        let long = |bytes: u64| "a line of the log\n".repeat(usize::try_from(bytes / 18 + 1).unwrap());
        fs::write(&log.0, long(ROTATE_AT_START)).unwrap();
        let mut server = log.open().unwrap();
        assert_eq!(fs::metadata(&log.0).unwrap().len(), 0);
        for path in [&log.0, &log.older()] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600, "{}", path.display());
        }
        std::io::Write::write_all(&mut server, long(ROTATE_WHILE_RUNNING).as_bytes()).unwrap();
        std::io::Write::write_all(&mut server, b"1\n2\n3\n4\n5\n").unwrap();
        assert_eq!(log.last_lines(), "1 | 2 | 3 | 4 | 5");
        log.trim();
        assert!(fs::metadata(log.older()).unwrap().len() > ROTATE_WHILE_RUNNING);
        std::io::Write::write_all(&mut server, b"6\n").unwrap();
        assert_eq!(fs::read_to_string(&log.0).unwrap(), "6\n", "the server appends to the emptied file");
        fs::remove_dir_all(dir).unwrap();
    }
}
