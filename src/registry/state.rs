//! What a store holds at one moment of its history.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::names::ModelName;
use crate::format::record::{Access, Op};
use crate::format::signature::PublicKey;
use crate::registry::data::DataIndex;
use crate::registry::index::Lines;
use crate::registry::model::{Body, Content, Model};
use crate::registry::vetting::PolicyInForce;
use crate::store::{Head, Line, StoreError};

/// The bodies that a record will change, which were on a shelf.
pub struct Ready(Vec<(ModelName, Arc<Body>)>);

/// The sum of a history.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    head: Head,
    time: Timestamp,
    signed_by: Option<PublicKey>,
    store: String,
    root_access: Access,
    policy: Option<PolicyInForce>,
    /// Shared with the state that a checkpoint is written of.
    data: Arc<DataIndex>,
    #[serde(skip)]
    models: BTreeMap<ModelName, Model>,
    lines: Lines,
}

impl Default for State {
    fn default() -> Self {
        Self {
            head: Head::empty(),
            time: Timestamp::UNIX_EPOCH,
            signed_by: None,
            store: String::new(),
            root_access: Access { uid: 0, gid: 0, mode: 0o755 },
            policy: None,
            data: Arc::default(),
            models: BTreeMap::new(),
            lines: Lines::default(),
        }
    }
}

impl State {
    /// Number and digest of the newest record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Time of the newest record.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The key that the newest record is said to be signed with.
    pub fn signed_by(&self) -> Option<PublicKey> {
        self.signed_by
    }

    /// The store's id, as its first record says.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Access of the mount's own directory.
    pub fn root_access(&self) -> Access {
        self.root_access
    }

    /// The rules that are in force, if there are any.
    pub fn policy(&self) -> Option<&PolicyInForce> {
        self.policy.as_ref()
    }

    /// Which versions were made from which data.
    pub fn data(&self) -> &DataIndex {
        &self.data
    }

    /// The lines of all records: that of record 1 has the index 0.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    pub fn model(&self, name: &ModelName) -> Option<&Model> {
        self.models.get(name)
    }

    /// All models, sorted by name.
    pub fn models(&self) -> impl ExactSizeIterator<Item = &Model> {
        self.models.values()
    }

    /// All models, to put their bodies elsewhere.
    pub(super) fn models_mut(&mut self) -> impl Iterator<Item = &mut Model> {
        self.models.values_mut()
    }

    pub(super) fn set_models(&mut self, models: Vec<Model>) {
        self.models = models.into_iter().map(|model| (model.name.clone(), model)).collect();
    }

    /// Reads what [`State::apply`] will need for such a record.
    ///
    /// # Errors
    /// As [`Model::body`].
    pub fn ready(&self, op: &Op) -> Result<Ready, StoreError> {
        let mut bodies = Vec::new();
        for name in op.models() {
            if let Some(model) = self.models.get(name)
                && let Content::Shelved(section, shelf) = model.content()
            {
                bodies.push((name.clone(), shelf.take(model, section)?));
            }
        }
        Ok(Ready(bodies))
    }

    /// Reads what a record needs, and takes it in.
    ///
    /// # Errors
    /// As [`State::ready`]; nothing is changed then.
    pub fn take(&mut self, line: &Line) -> Result<(), StoreError> {
        let ready = self.ready(&line.record.op)?;
        self.apply(line, ready);
        Ok(())
    }

    /// Takes a record in, for which the state as it is was made `ready`. It follows the head:
    /// `History::follow` and `Store::append` see to that.
    ///
    /// A record that names what is not there changes nothing but the head: the verbs never write
    /// one, and a reader must not stumble over it.
    pub fn apply(&mut self, line: &Line, ready: Ready) {
        for (name, body) in ready.0 {
            let model = self.models.get_mut(&name).expect("it was there, and nothing changed");
            model.set_content(Content::Here(body));
        }
        let record = &line.record;
        assert_eq!(record.seq, self.head.seq + 1, "records are applied in order");
        self.head = Head { seq: record.seq, digest: line.digest };
        self.time = record.time;
        self.signed_by = record.signed_by();
        match &record.op {
            Op::Init { store, root } => {
                self.store.clone_from(store);
                self.root_access = *root;
            }
            Op::CreateModel { model, access } => {
                let made = Model::new(model.clone(), *access, record);
                self.models.entry(model.clone()).or_insert(made);
            }
            // Its records remain in the store's history.
            Op::RemoveModel { model } => {
                let removed = self.models.remove(model);
                if removed.is_some_and(|model| model.had_versions()) {
                    Arc::make_mut(&mut self.data).remove(model);
                }
            }
            Op::SetAccess { model: None, access } => self.root_access = *access,
            Op::SetPolicy { digest, text } => {
                let (since, by, seq) = (record.time, record.actor.clone(), record.seq);
                let (digest, text) = (*digest, text.clone());
                let set = PolicyInForce { digest, text, since, by, seq };
                self.policy = Some(set).filter(|policy| !policy.text.is_empty());
            }
            op => {
                if let Op::Seal(seal) = op
                    && !seal.data.is_empty()
                    && self.models.contains_key(&seal.model)
                {
                    Arc::make_mut(&mut self.data).add(seal);
                }
                for name in op.models() {
                    if let Some(model) = self.models.get_mut(name) {
                        model.take(record);
                    }
                }
            }
        }
        let line_bytes = line.bytes.len() as u64;
        self.lines.push(line_bytes);
        for name in record.op.models() {
            if let Some(model) = self.models.get_mut(name) {
                let part = record.part_for(name);
                model.note(record.seq, part.map_or(line_bytes, |part| part.len() as u64));
            }
        }
    }
}
