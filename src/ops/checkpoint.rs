//! Checkpoints: when they are made, and what is believed of them at a start.
//!
//! Never on the way of a change: one thread of the daemon, `keep_checkpoints`, writes them, and whoever
//! closes the store. Without one a start reads the history, which costs time and nothing else.
//! Invariant K5: where records are signed, a checkpoint is believed only with a signature of the same key.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::{OpsError, Workspace};
use crate::format::signature::PublicKey;
use crate::registry::shelf::Shelf;
use crate::registry::state::State;
use crate::store::{Checkpoint, History, Store, StoreError};

/// A daemon writes a checkpoint when one record in so many is newer than the last, but not for fewer
/// records than the first bound, and for no more than the second: then writing costs some KiB a
/// record, and a start after a kill reads at most that many.
const RECORDS_PER_SHARE: u64 = 128;
const RECORDS_MIN: u64 = 64;
const RECORDS_MAX: u64 = 16_384;
/// Whoever closes the store writes one for fewer: a small store always has one.
const RECORDS_PER_SHARE_AT_CLOSE: u64 = 1_024;
/// With fewer records than this their files are counted at every start, else before the first change.
const COUNTED_RECORDS_MAX: u64 = 10_000;

#[derive(Default)]
struct Notes {
    /// The record that the last checkpoint goes up to; 0 for none.
    saved: u64,
    due: bool,
    closing: bool,
    /// Whether the state was found untrue: then no checkpoint is made of it (O2).
    held: bool,
    /// The last checkpoint, as far as it is read from.
    shelf: Option<Arc<Shelf>>,
}

/// What is known of the checkpoint, and the work on it that waits.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// No other lock is taken while it is held.
    notes: Mutex<Notes>,
    changed: Condvar,
    /// Held while one is written. `committing`, `state` and `notes` may be taken inside.
    saving: Mutex<()>,
}

impl Checkpoints {
    /// Hears of a new record.
    pub fn note(&self, seq: u64) {
        let mut notes = self.notes.lock();
        let share = (seq / RECORDS_PER_SHARE).clamp(RECORDS_MIN, RECORDS_MAX);
        if !notes.due && notes.saved + share <= seq {
            notes.due = true;
            self.changed.notify_all();
        }
    }

    /// The record that the last checkpoint goes up to; 0 for none.
    pub fn saved(&self) -> u64 {
        self.notes.lock().saved
    }

    fn note_saved(&self, seq: u64, shelf: &Arc<Shelf>) {
        let mut notes = self.notes.lock();
        notes.saved = seq;
        notes.shelf = Some(Arc::clone(shelf));
    }

    /// Has none written any more until `release`.
    pub fn hold(&self) {
        self.notes.lock().held = true;
    }

    fn release(&self) {
        self.notes.lock().held = false;
    }

    fn is_held(&self) -> bool {
        self.notes.lock().held
    }

    fn is_due_at_close(&self, seq: u64) -> bool {
        let (saved, shelf) = {
            let notes = self.notes.lock();
            (notes.saved, notes.shelf.clone())
        };
        saved + (seq / RECORDS_PER_SHARE_AT_CLOSE).max(1) <= seq
            || shelf.is_some_and(|shelf| shelf.is_damaged())
    }

    /// Waits until a checkpoint is due; not so at the end.
    fn wait(&self) -> bool {
        let mut notes = self.notes.lock();
        loop {
            if notes.closing {
                return false;
            }
            if std::mem::take(&mut notes.due) {
                return true;
            }
            self.changed.wait(&mut notes);
        }
    }

    /// Ends the thread that keeps checkpoints, after what it is at.
    pub fn close(&self) {
        self.notes.lock().closing = true;
        self.changed.notify_all();
    }
}

/// What the history of a store adds up to, by way of its checkpoint where there is one.
///
/// # Errors
/// A record that does not follow the one before, and what [`Store::ensure_end`] finds.
pub(super) fn open_state(
    store: &Store,
    checkpoints: &Checkpoints,
    own: Option<PublicKey>,
) -> Result<State, StoreError> {
    let state = match from_checkpoint(store, checkpoints, own) {
        Err(error) if error.is_of_checkpoint() => {
            log::warn!("{error}; reading the history");
            None
        }
        state => state?,
    };
    let state = match state {
        Some(state) => state,
        None => follow(store, State::default())?,
    };
    if state.head().seq < COUNTED_RECORDS_MAX || checkpoints.saved() == 0 {
        store.ensure_end(state.head())?;
    }
    checkpoints.note(state.head().seq);
    Ok(state)
}

/// What the checkpoint and the records after it add up to; `None` where there is no checkpoint.
fn from_checkpoint(
    store: &Store,
    checkpoints: &Checkpoints,
    own: Option<PublicKey>,
) -> Result<Option<State>, StoreError> {
    let Some((state, shelf)) = load(store)? else { return Ok(None) };
    let saved = state.head().seq;
    let state = follow(store, state)?;
    // Who has a key believes what was made with it; others go by the newest record (K5).
    let needed = own.or(state.signed_by());
    if let Some(key) = needed.filter(|key| Some(*key) != shelf.signed_by()) {
        let why = format!("expected a signature with the key {key}");
        return Err(StoreError::CheckpointSignature { why });
    }
    checkpoints.note_saved(saved, &shelf);
    Ok(Some(state))
}

/// What a checkpoint holds.
pub(super) struct Loaded {
    pub state: State,
    pub shelf: Arc<Shelf>,
    /// The line of the newest record.
    line: String,
}

impl Loaded {
    fn read(checkpoint: Checkpoint, history: History) -> Result<Self, StoreError> {
        let (state, shelf, line) = State::load(checkpoint, history)?;
        Ok(Self { state, shelf, line })
    }

    /// Sees to it that it is of this store.
    fn of(self, store: &Store) -> Result<Self, StoreError> {
        if self.state.store() == store.config().store {
            return Ok(self);
        }
        let why = format!("it is of the store {}", self.state.store());
        Err(StoreError::Checkpoint { why })
    }
}

/// The state of the checkpoint, where the history has its record.
fn load(store: &Store) -> Result<Option<(State, Arc<Shelf>)>, StoreError> {
    let Some(checkpoint) = store.open_checkpoint()? else { return Ok(None) };
    let head = checkpoint.head();
    let loaded = match Loaded::read(checkpoint, store.history().clone()) {
        Ok(loaded) => loaded,
        Err(error) => {
            // Its end still tells whether records are missing.
            store.record_of(head, b"")?;
            return Err(error);
        }
    };
    let Loaded { state, shelf, line } = loaded.of(store)?;
    let Some(record) = store.record_of(head, line.as_bytes())? else { return Ok(None) };
    if (state.time(), state.signed_by()) != (record.time, record.signed_by()) {
        let why = "its index does not fit its record".to_owned();
        return Err(StoreError::Checkpoint { why });
    }
    Ok(Some((state, shelf)))
}

/// A state with what the history has beyond it.
fn follow(store: &Store, mut state: State) -> Result<State, StoreError> {
    store.history().follow(state.head(), |line| state.take(line))?;
    Ok(state)
}

impl Workspace {
    /// Looks once whether the checkpoint of the start was true, then keeps it near the end of the history until
    /// the workspace closes: for a thread of its own.
    pub fn keep_checkpoints(&self) {
        // Before the first change needs it.
        if let Err(error) = self.store.ensure_end(self.state().head()) {
            log::error!("{error}: nothing can be changed");
        }
        self.audit_start();
        while self.checkpoints.wait() {
            self.try_to_save();
        }
    }

    /// Writes a checkpoint where enough came since the last one; at the end, when nothing changes
    /// any more.
    pub(super) fn close_checkpoints(&self) {
        self.checkpoints.close();
        if self.checkpoints.is_due_at_close(self.state().head().seq) {
            self.try_to_save();
        }
    }

    /// The checkpoint that the next start would find.
    pub(super) fn read_checkpoint(&self) -> Result<Option<Loaded>, StoreError> {
        let Some(checkpoint) = self.store.open_checkpoint()? else { return Ok(None) };
        Loaded::read(checkpoint, self.store.history().clone())?.of(&self.store).map(Some)
    }

    fn try_to_save(&self) {
        if self.needs_key() {
            // Nobody would believe one without a signature (K5).
            return;
        }
        if self.checkpoints.is_held() {
            log::error!(
                "no new checkpoint: the state is not what the history adds up to; modelfs repair"
            );
        } else if let Err(error) = self.save_checkpoint() {
            log::warn!("no new checkpoint, so the next start takes longer: {error}");
        }
    }

    /// Writes what the store holds now, and lets go of what need not be in memory.
    fn save_checkpoint(&self) -> Result<(), OpsError> {
        let _one_at_a_time = self.checkpoints.saving.lock();
        let state = self.state().clone();
        let head = state.head();
        let line = self.store.record_line(head.seq)?;
        let writer = self.store.begin_checkpoint()?;
        let (checkpoint, shelved) =
            state.save(writer, &String::from_utf8_lossy(&line), self.signer.as_deref())?;
        let shelf = Arc::new(Shelf::new(checkpoint, self.store.history().clone()));
        {
            // Between a change that is made ready and the change, nothing goes to the shelf.
            let _no_change = self.committing.lock();
            self.state.write().shelve(&state, shelved, &shelf);
        }
        self.checkpoints.note_saved(head.seq, &shelf);
        log::debug!("a checkpoint of {} records", head.seq);
        Ok(())
    }

    /// Makes the state anew from the history alone, and a checkpoint of it.
    ///
    /// # Errors
    /// `Diverged` where records are missing that the state was made of: they are not forgotten for that.
    pub(super) fn recover_state(&self) -> Result<(), OpsError> {
        let fresh = follow(&self.store, State::default())?;
        {
            let _no_change = self.committing.lock();
            let fresh = follow(&self.store, fresh)?;
            let (head, there) = (self.state().head(), fresh.head());
            if there.seq < head.seq {
                return Err(StoreError::cut(head.seq).into());
            }
            if there.seq == head.seq && there != head {
                return Err(StoreError::other_record(head.seq).into());
            }
            *self.state.write() = fresh;
        }
        self.past.clear();
        self.checkpoints.release();
        if self.needs_key() {
            return Ok(self.store.remove_checkpoint()?);
        }
        self.save_checkpoint()
    }
}
