//! Reading the whole history, and holding against it what is believed otherwise: the state that everybody is
//! answered from, and the checkpoint, which the next start begins with.
//!
//! Invariant O2: what was found untrue is not carried on: no checkpoint is written until `repair` made
//! the state anew from the history.

use super::checkpoint::Loaded;
use super::{OpsError, Workspace};
use crate::format::signature::PublicKey;
use crate::registry::difference::differences;
use crate::registry::state::State;
use crate::store::{Line, StoreError};

/// Longest history that a daemon reads as a whole at its start, by itself: a second, and memory for what it adds
/// up to.
const AUDITED_RECORDS_MAX: u64 = 10_000;

/// What came of reading the whole history.
pub(super) struct Audit {
    /// The record that the checkpoint goes up to, and the key that it is signed with.
    pub checkpoint: Option<(u64, Option<PublicKey>)>,
    /// What is believed, and is not what the history adds up to.
    pub untrue: Vec<Untrue>,
    /// Why the checkpoint is of no use, where it is not: it costs the next start some time.
    pub unusable: Option<String>,
}

/// Something that no record of the history says.
pub(super) struct Untrue {
    pub place: &'static str,
    pub what: String,
}

impl Untrue {
    /// What is wrong and what to do.
    pub fn words(&self) -> String {
        format!("{}: no record of the history says so; modelfs repair makes it anew", self.what)
    }
}

/// A state that was not made by reading the history.
struct Believed {
    place: &'static str,
    state: State,
    untrue: Vec<String>,
}

impl Believed {
    fn new(place: &'static str, state: State) -> Self {
        Self { place, state, untrue: Vec::new() }
    }

    /// Compares it with what the history made, when that has come as far.
    fn look_at(&mut self, made: &State) -> Result<(), StoreError> {
        let (head, there) = (self.state.head(), made.head());
        if head.seq == there.seq {
            if head != there {
                return Err(StoreError::other_record(head.seq));
            }
            self.untrue = differences(&self.state, made)?;
        }
        Ok(())
    }
}

impl Workspace {
    /// Looks whether the checkpoint that a start believed is what the history adds up to, and says so where
    /// it is not. Nothing is done where the history was read anyway, or is long: that is left to `verify`.
    pub(super) fn audit_start(&self) {
        if self.checkpoints.saved() == 0 || AUDITED_RECORDS_MAX < self.state().head().seq {
            return;
        }
        match self.audit(|_| ()) {
            Ok(audit) => {
                for untrue in audit.untrue {
                    log::error!("{}: {}", untrue.place, untrue.words());
                }
            }
            Err(error) => log::error!("{error}: see modelfs verify"),
        }
    }

    /// Reads every record from its file, each checked against the one before; `visit` sees them too.
    ///
    /// # Errors
    /// As [`History::replay`](crate::store::History::replay); `Diverged` where it is not the history any
    /// more that was believed.
    pub(super) fn audit(&self, mut visit: impl FnMut(&Line)) -> Result<Audit, OpsError> {
        // The checkpoint first: the state is never behind it.
        let (checkpoint, mut unusable) = match self.read_checkpoint() {
            Ok(checkpoint) => (checkpoint, None),
            Err(StoreError::Checkpoint { why }) => (None, Some(why)),
            Err(error) => return Err(error.into()),
        };
        let mut believed: Vec<Believed> = Vec::new();
        if let Some(checkpoint) = &checkpoint {
            believed.push(Believed::new("catalog/checkpoint", checkpoint.state.clone()));
        }
        believed.push(Believed::new("what is shown now", self.state().clone()));
        let newest = believed.iter().map(|it| it.state.head().seq).max().unwrap_or(0);
        let mut made = State::default();
        self.store.history().replay(|line| {
            visit(line);
            if line.record.seq <= newest {
                made.take(line)?;
                believed.iter_mut().try_for_each(|it| it.look_at(&made))?;
            }
            Ok(())
        })?;
        if made.head().seq < newest {
            return Err(StoreError::cut(newest).into());
        }
        let mut untrue: Vec<Untrue> = Vec::new();
        for Believed { place, untrue: found, .. } in believed {
            for what in found {
                // What a start took from the checkpoint is named once.
                if !untrue.iter().any(|it| it.what == what) {
                    untrue.push(Untrue { place, what });
                }
            }
        }
        if !untrue.is_empty() {
            self.checkpoints.hold();
        }
        if checkpoint.as_ref().is_some_and(|it| it.shelf.is_damaged()) {
            unusable = Some("a part of it cannot be read".to_owned());
        }
        let checkpoint =
            checkpoint.map(|Loaded { state, shelf, .. }| (state.head().seq, shelf.signed_by()));
        Ok(Audit { checkpoint, untrue, unusable })
    }
}
