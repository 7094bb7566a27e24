//! What a store holds at one moment of its history.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::format::names::ModelName;
use crate::format::record::{Access, Op};
use crate::registry::index::Lines;
use crate::registry::model::Model;
use crate::registry::vetting::PolicyInForce;
use crate::store::{Head, Line};

/// The sum of a history.
#[derive(Clone, Debug)]
pub struct State {
    head: Head,
    time: Timestamp,
    store: String,
    root_access: Access,
    policy: Option<PolicyInForce>,
    models: BTreeMap<ModelName, Model>,
    lines: Lines,
}

impl Default for State {
    fn default() -> Self {
        Self {
            head: Head::empty(),
            time: Timestamp::UNIX_EPOCH,
            store: String::new(),
            root_access: Access { uid: 0, gid: 0, mode: 0o755 },
            policy: None,
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

    /// Takes a record in. It follows the head: `Store::replay` and `Store::append` see to that.
    ///
    /// A record that names what is not there changes nothing but the head: the verbs never write
    /// one, and a reader must not stumble over it.
    pub fn apply(&mut self, line: &Line) {
        let record = &line.record;
        assert_eq!(record.seq, self.head.seq + 1, "records are applied in order");
        self.head = Head { seq: record.seq, digest: line.digest };
        self.time = record.time;
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
            Op::RemoveModel { model } => drop(self.models.remove(model)),
            Op::SetAccess { model: None, access } => self.root_access = *access,
            Op::SetPolicy { digest, text } => {
                let (since, by, seq) = (record.time, record.actor.clone(), record.seq);
                let (digest, text) = (*digest, text.clone());
                let set = PolicyInForce { digest, text, since, by, seq };
                self.policy = Some(set).filter(|policy| !policy.text.is_empty());
            }
            op => {
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
