//! A command in the writer, with the channel for its answer.

use std::fmt;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    command::{Command, LockSet, Refusal, Workspace, change_tasks::ChangeTasks},
    store::WriteError,
};

/// A command of any type, type-erased for the writer.
pub(in crate::store) trait Pending: fmt::Debug + Send + Sync {
    /// See [`Command::locks`].
    fn locks(&self, locks: &mut LockSet);
    /// See [`Command::weight`].
    fn weight(&self) -> usize;
    /// See [`Command::dependency_roots`].
    fn dependency_roots(&self, workspace: &Workspace) -> Vec<Uuid>;
    /// Decides, and keeps the answer until the transaction is durable.
    fn apply(&mut self, workspace: &mut Workspace);
    /// The caller has gone away.
    fn is_abandoned(&self) -> bool;
    /// Answers the caller: the transaction is durable. If the caller has gone away, returns the command that undoes
    /// this one.
    fn answer(self: Box<Self>) -> Option<ChangeTasks>;
    /// Answers the caller: nothing was written.
    fn fail(self: Box<Self>, error: WriteError);
}

/// A command of one type and its caller.
pub(super) struct Job<C: Command> {
    command: C,
    answer: Option<Result<C::Answer, Refusal>>,
    reply: oneshot::Sender<Result<C::Answer, WriteError>>,
}

impl<C: Command> Job<C> {
    pub(super) fn new(command: C) -> (Box<Self>, oneshot::Receiver<Result<C::Answer, WriteError>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self { command, answer: None, reply }), answer)
    }
}

impl<C: Command> fmt::Debug for Job<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command.fmt(f)
    }
}

impl<C: Command> Pending for Job<C> {
    fn locks(&self, locks: &mut LockSet) {
        self.command.locks(locks);
    }

    fn weight(&self) -> usize {
        self.command.weight()
    }

    fn dependency_roots(&self, workspace: &Workspace) -> Vec<Uuid> {
        self.command.dependency_roots(workspace)
    }

    fn apply(&mut self, workspace: &mut Workspace) {
        self.answer = Some(self.command.apply(workspace));
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn answer(self: Box<Self>) -> Option<ChangeTasks> {
        let undelivered = self.reply.send(self.answer?.map_err(WriteError::from)).err()?;
        C::compensation(&undelivered.ok()?)
    }

    fn fail(self: Box<Self>, error: WriteError) {
        // Fails only if the caller has gone away.
        let _ = self.reply.send(Err(error));
    }
}
