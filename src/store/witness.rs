//! A note beside the private database's folder of how far its log was: a folder that is put back from an older copy has
//! nothing inside that tells so.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Store, log};
use crate::event::EventId;

/// The note's file, in the data folder.
const FILE: &str = "log.position";

/// Where the note of a data folder is kept.
#[derive(Debug, Clone)]
pub struct Witness(PathBuf);

impl Witness {
    /// The note of a data folder; nothing is read or written yet.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// Notes the newest event. The file is replaced as a whole.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn note(&self, newest: EventId) -> io::Result<()> {
        let fresh = self.0.with_extension("new");
        fs::write(&fresh, newest.to_string())?;
        fs::rename(fresh, &self.0)
    }

    fn noted(&self) -> Option<EventId> {
        fs::read_to_string(&self.0).ok()?.trim().parse().ok()
    }

    /// Gives the log a new epoch when it ends before what was noted. To be called before the log is read.
    ///
    /// # Errors
    /// When the database does not answer.
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
            "the event log ends before what was noted: its folder was put back from an older copy; readers start anew"
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
}
