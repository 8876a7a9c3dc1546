//! What is stored about the relations of tasks, as far as a batch needs it.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

/// Which tasks wait for which, as far as the batch may close a cycle.
#[derive(Debug, Default)]
pub struct Waiters {
    /// Task to those that wait for it.
    pub(super) stored: HashMap<Uuid, Vec<Uuid>>,
    /// Tasks with too many waiters to be followed.
    pub(super) endless: HashSet<Uuid>,
    /// Tasks that began to wait within the batch.
    pub(super) fresh: HashMap<Uuid, Vec<Uuid>>,
}

impl Waiters {
    /// Takes in what waits for what, as it is stored: task to those that wait for it.
    pub fn load(&mut self, stored: HashMap<Uuid, Vec<Uuid>>) {
        self.stored.extend(stored);
    }

    /// Takes in tasks with too many waiters to be followed.
    pub fn load_endless(&mut self, roots: &[Uuid]) {
        self.endless.extend(roots);
    }
}

/// What lies above and below the tasks of a batch.
#[derive(Debug, Default)]
pub struct Nesting {
    /// Task to its parent, of tasks that are not loaded.
    pub(super) parents: HashMap<Uuid, Uuid>,
    /// Levels of tasks from one down, itself counted, of reported tasks that may get another parent.
    pub(super) levels_below: HashMap<Uuid, i32>,
}

impl Nesting {
    /// Takes in the parents of tasks that are not loaded: task to its parent.
    pub fn load_parents(&mut self, parents: HashMap<Uuid, Uuid>) {
        self.parents = parents;
    }

    /// Takes in how many levels lie below tasks, themselves counted.
    pub fn load_levels_below(&mut self, levels: HashMap<Uuid, i32>) {
        self.levels_below = levels;
    }
}
