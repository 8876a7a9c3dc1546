//! A file next to the private database's directory that records the head of its log: a directory restored from an older
//! copy contains no sign of being old.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Store, log};
use crate::event::EventId;

/// File name, in the data directory.
const FILE: &str = "log.position";

/// Path of the position file of a data directory.
#[derive(Debug, Clone)]
pub struct Witness(PathBuf);

impl Witness {
    /// The position file of a data directory; no I/O yet.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// Records the newest event. The file is replaced atomically.
    ///
    /// # Errors
    /// The directory is not writable.
    pub fn note(&self, newest: EventId) -> io::Result<()> {
        let fresh = self.0.with_extension("new");
        fs::write(&fresh, newest.to_string())?;
        fs::rename(fresh, &self.0)
    }

    fn noted(&self) -> Option<EventId> {
        fs::read_to_string(&self.0).ok()?.trim().parse().ok()
    }

    /// Renews the epoch if the log ends before the recorded position. Must be called before the log is read.
    ///
    /// # Errors
    /// Any error of the database.
    pub async fn compare(&self, store: &Store) -> sqlx::Result<()> {
        let Some(noted) = self.noted().filter(|noted| noted.epoch == store.epoch()) else { return Ok(()) };
        let head = log::ends(store.pool()).await?.head;
        if head >= noted.position {
            return Ok(());
        }
        let (old, new) = store.renew_epoch().await?;
        store.identity().accept(new, None);
        tracing::error!(
            %old, %new, noted = noted.position, head,
            "event log ends before the recorded position: restored from an older copy; new epoch, clients restart"
        );
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
mod tests {
    use super::*;
    use crate::event::envelope::Epoch;

    #[test]
    fn what_is_noted_is_read_again() {
        let folder = std::env::temp_dir().join(format!("taskwatch-witness-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let witness = Witness::new(&folder);
        assert_eq!(witness.noted(), None);
        let newest = EventId { epoch: Epoch(0x5c1f_09ae), position: 184 };
        witness.note(newest).unwrap();
        assert_eq!(witness.noted(), Some(newest));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_damaged_note_is_no_note() {
        let folder = std::env::temp_dir().join(format!("taskwatch-witness-{:016x}", fastrand::u64(..)));
        fs::create_dir_all(&folder).unwrap();
        let witness = Witness::new(&folder);
        for damaged in ["", "5c1f09ae", "5c1f09ae-", "184", "5C1F09AE-184", "5c1f09ae-184-1"] {
            fs::write(folder.join(FILE), damaged).unwrap();
            assert_eq!(witness.noted(), None, "{damaged:?}");
        }
        fs::write(folder.join(FILE), " 5c1f09ae-184\n").unwrap();
        let older = EventId { epoch: Epoch(0x5c1f_09ae), position: 184 };
        assert_eq!(witness.noted(), Some(older));
        witness.note(EventId { position: 0, ..older }).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the new file took the place of the old one");
        assert!(Witness::new(&folder.join("none")).note(older).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
