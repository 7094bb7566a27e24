//! States in checkpoints: written from the types themselves, and bodies that stay there until somebody
//! asks for them.
//!
//! Each body is a section of its own; the index has all else. Members are named: what another release
//! writes with other members is refused, and what it means differently raises the version in
//! `format::checkpoint`.
//! Invariant G3: a body that was changed since its checkpoint is in memory; all others can go.
//! Invariant G4: a damaged checkpoint costs time, never data: the history is read instead. So does one
//! that contradicts itself.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::format::checkpoint::Section;
use crate::format::signature::{PublicKey, Signer};
use crate::registry::model::{Body, Content, Model};
use crate::registry::state::State;
use crate::store::{Checkpoint, CheckpointWriter, Head, History, StoreError};

/// Bodies that are kept in memory though they could be read again, in about so many bytes.
const BODIES_BYTES_MAX: u64 = 64 << 20;
/// A larger one counts as this much, so that it is kept like others: the last one that was read is
/// always there.
const BODY_BYTES_COUNTED_MAX: u64 = BODIES_BYTES_MAX / 2;
/// Estimate of the bodies that are kept, for sizing the table.
const BODIES_TYPICAL: usize = 1_024;
/// A version and a record in memory, about.
const VERSION_BYTES: u64 = 256;
const RECORD_BYTES: u64 = 12;

/// The index of a checkpoint, to be written.
#[derive(Serialize)]
struct Index<'a> {
    state: &'a State,
    /// Sorted by name; each with the section of its body.
    models: Vec<(&'a Model, Section)>,
    line: &'a str,
}

/// The index of a checkpoint that was read.
#[derive(Deserialize)]
struct ReadIndex {
    state: State,
    models: Vec<(Model, Section)>,
    /// The line of the record that it goes up to.
    line: String,
}

#[derive(Clone)]
struct BodyWeight;

impl Weighter<Section, Arc<Body>> for BodyWeight {
    fn weight(&self, _: &Section, body: &Arc<Body>) -> u64 {
        let versions = body.versions.iter().len() as u64 * VERSION_BYTES;
        let records = body.records.seqs().len() as u64 * RECORD_BYTES;
        (VERSION_BYTES + versions + records).min(BODY_BYTES_COUNTED_MAX)
    }
}

/// The bodies of a checkpoint.
pub struct Shelf {
    checkpoint: Checkpoint,
    /// Those that were read last.
    bodies: Cache<Section, Arc<Body>, BodyWeight>,
    history: History,
    /// What the history made of the models, where the checkpoint turned out to be damaged.
    replayed: Mutex<Option<Arc<State>>>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shelf({})", self.checkpoint.head().seq)
    }
}

impl Shelf {
    /// The bodies in a checkpoint of a history, which is read where one of them cannot be.
    pub fn new(checkpoint: Checkpoint, history: History) -> Self {
        // One shard: each would have its own part of the room, and a large body needs much of it.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(BODIES_TYPICAL)
            .weight_capacity(BODIES_BYTES_MAX)
            .build()
            .expect("all that is needed is given");
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        let bodies = Cache::with_options(options, BodyWeight, hasher, lifecycle);
        Self { checkpoint, bodies, history, replayed: Mutex::new(None) }
    }

    /// The key that the checkpoint is signed with, if that is a good signature.
    pub fn signed_by(&self) -> Option<PublicKey> {
        self.checkpoint.signed_by()
    }

    /// Whether some of the checkpoint could not be read.
    pub fn is_damaged(&self) -> bool {
        self.replayed.lock().is_some()
    }

    pub(super) fn body(&self, model: &Model, section: &Section) -> Result<Arc<Body>, StoreError> {
        self.bodies.get_or_insert_with(section, || self.read(model, section))
    }

    /// The body for who will change it: it is not kept here.
    pub(super) fn take(&self, model: &Model, section: &Section) -> Result<Arc<Body>, StoreError> {
        match self.bodies.remove(section) {
            Some((_, body)) => Ok(body),
            None => self.read(model, section),
        }
    }

    fn read(&self, model: &Model, section: &Section) -> Result<Arc<Body>, StoreError> {
        match self.read_here(model, section) {
            Ok(body) => Ok(Arc::new(body)),
            Err(error) => match self.replay(&error)?.model(&model.name) {
                Some(model) => model.body(),
                None => Err(StoreError::Untrue {
                    place: "the checkpoint in the catalog",
                    what: format!("there is a model `{}`", model.name),
                }),
            },
        }
    }

    fn read_here(&self, model: &Model, section: &Section) -> Result<Body, StoreError> {
        let mut body: Body = parse(&self.checkpoint.read(section)?)?;
        if let Some(why) = model.contradiction(&body) {
            return Err(StoreError::Checkpoint { why: format!("`{}`: {why}", model.name) });
        }
        body.versions.share_actors();
        Ok(body)
    }

    /// The state of the checkpoint as the history makes it: slow, and once.
    fn replay(&self, error: &StoreError) -> Result<Arc<State>, StoreError> {
        let mut replayed = self.replayed.lock();
        if let Some(state) = &*replayed {
            return Ok(Arc::clone(state));
        }
        log::error!("{error}; reading the history instead");
        let mut state = State::default();
        self.history.follow(Head::empty(), |line| {
            match state.head() == self.checkpoint.head() {
                true => Ok(()),
                false => state.take(line),
            }
        })?;
        let state = Arc::new(state);
        *replayed = Some(Arc::clone(&state));
        Ok(state)
    }
}

/// What became of the bodies of a state when it was written.
pub struct Shelved(Vec<Section>);

impl State {
    /// The state in a checkpoint, and the line of its last record. Bodies stay on the shelf.
    ///
    /// # Errors
    /// `Checkpoint` for what this release did not write.
    pub fn load(
        checkpoint: Checkpoint,
        history: History,
    ) -> Result<(Self, Arc<Shelf>, String), StoreError> {
        let index: ReadIndex = parse(&checkpoint.read_index()?)?;
        let head = checkpoint.head();
        let shelf = Arc::new(Shelf::new(checkpoint, history));
        let ReadIndex { mut state, models, line } = index;
        if state.head() != head {
            let why = format!("its index is of record {}, not {}", state.head().seq, head.seq);
            return Err(StoreError::Checkpoint { why });
        }
        if !state.lines().is_sound() || state.lines().count() != head.seq {
            let why = "its index has other records than it goes up to".to_owned();
            return Err(StoreError::Checkpoint { why });
        }
        let place = |(mut model, section): (Model, Section)| {
            model.set_content(Content::Shelved(section, Arc::clone(&shelf)));
            model
        };
        state.set_models(models.into_iter().map(place).collect());
        Ok((state, shelf, line))
    }

    /// Writes the state into a checkpoint, signed where there is a key; `line` is that of its last record.
    ///
    /// # Errors
    /// When it cannot be written, or a body not be read from the checkpoint before.
    pub fn save(
        &self,
        mut writer: CheckpointWriter,
        line: &str,
        signer: Option<&Signer>,
    ) -> Result<(Checkpoint, Shelved), StoreError> {
        let mut sections = Vec::with_capacity(self.models().len());
        for model in self.models() {
            sections.push(match model.content() {
                Content::Here(body) => writer.put(&encode(&**body)?)?,
                Content::Shelved(section, shelf) => match writer.copy(&shelf.checkpoint, section) {
                    Err(StoreError::Checkpoint { .. }) => writer.put(&encode(&*model.body()?)?)?,
                    copied => copied?,
                },
            });
        }
        let models = self.models().zip(sections.iter().copied()).collect();
        let index = encode(&Index { state: self, models, line })?;
        Ok((writer.finish(self.head(), &index, signer)?, Shelved(sections)))
    }

    /// Lets go of the bodies that a checkpoint has as they are: `saved`, an earlier moment of this
    /// state, was written into it.
    pub fn shelve(&mut self, saved: &Self, shelved: Shelved, shelf: &Arc<Shelf>) {
        let mut saved = saved.models().zip(shelved.0).peekable();
        for model in self.models_mut() {
            while saved.next_if(|(it, _)| it.name < model.name).is_some() {}
            let Some((was, section)) = saved.next_if(|(it, _)| it.name == model.name) else {
                continue;
            };
            if (was.seq, was.last_seq()) == (model.seq, model.last_seq()) {
                model.set_content(Content::Shelved(section, Arc::clone(shelf)));
            }
        }
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec_named(value)
        .map_err(|error| StoreError::Checkpoint { why: error.to_string() })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    rmp_serde::from_slice(bytes).map_err(|error| StoreError::Checkpoint { why: error.to_string() })
}

/// All that a checkpoint of a state holds, without where it is.
#[cfg(test)]
pub(super) fn plain_bytes(state: &State) -> Vec<u8> {
    let mut bytes = encode(state).expect("our types can be encoded");
    for model in state.models() {
        let body = model.body().expect("it is in memory");
        bytes.extend(encode(&(model, &*body)).expect("our types can be encoded"));
    }
    bytes
}
