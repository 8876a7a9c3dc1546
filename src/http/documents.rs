//! The encoded API documents.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::assets::Document;

/// Minimum interval between two responses with a document: each is 200 kB, and frequent requests must not saturate a
/// core.
const PACE: Duration = Duration::from_millis(5);

/// The encoded documents, each created on first request.
#[derive(Debug)]
pub struct Documents {
    made: [OnceLock<Document>; 2],
    slots: Arc<Semaphore>,
}

impl Default for Documents {
    fn default() -> Self {
        Self { made: Default::default(), slots: Arc::new(Semaphore::new(1)) }
    }
}

impl Documents {
    /// The document of a version, rate-limited.
    pub(super) async fn get(&self, version: usize, made: impl FnOnce() -> Document) -> &Document {
        self.wait_for_slot().await;
        self.made[version].get_or_init(made)
    }

    async fn wait_for_slot(&self) {
        // The semaphore is never closed.
        let Ok(slot) = self.slots.clone().acquire_owned().await else { return };
        tokio::spawn(async move {
            tokio::time::sleep(PACE).await;
            drop(slot);
        });
    }
}
