//! The API documents of a site as bytes.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::assets::Document;

/// Time between two answers with a document: each is 200 kB, and whoever asks for them all the time must not keep a core
/// busy with it.
const PACE: Duration = Duration::from_millis(5);

/// The documents of a site as bytes, each made when it is asked for first.
#[derive(Debug)]
pub struct Documents {
    made: [OnceLock<Document>; 2],
    turns: Arc<Semaphore>,
}

impl Default for Documents {
    fn default() -> Self {
        Self { made: Default::default(), turns: Arc::new(Semaphore::new(1)) }
    }
}

impl Documents {
    /// The document of a version, once it is its turn.
    pub(super) async fn get(&self, version: usize, made: impl FnOnce() -> Document) -> &Document {
        self.turn().await;
        self.made[version].get_or_init(made)
    }

    async fn turn(&self) {
        // It is never closed.
        let Ok(turn) = self.turns.clone().acquire_owned().await else { return };
        tokio::spawn(async move {
            tokio::time::sleep(PACE).await;
            drop(turn);
        });
    }
}
