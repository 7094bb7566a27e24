//! What a store holds at one moment of its history.

use std::collections::BTreeMap;
use std::collections::HashMap;

use jiff::Timestamp;

use crate::format::ids::{ManifestId, TreeDigest};
use crate::format::names::{AliasName, At, ModelName, VersionNumber};
use crate::format::record::{Access, Actor, Move, Op, Record, Seal};
use crate::registry::vetting::{PolicyInForce, Vettings};
use crate::store::{Head, Line};

/// One version of a model.
#[derive(Clone, Debug)]
pub struct Version {
    pub number: VersionNumber,
    pub manifest: ManifestId,
    pub digest: TreeDigest,
    pub fingerprint: TreeDigest,
    pub sealed: Timestamp,
    pub by: Actor,
    pub message: String,
    pub files: u64,
    pub bytes: u64,
    pub stored_bytes: u64,
    pub follows: Option<VersionNumber>,
}

/// What an alias points to, and since when.
#[derive(Clone, Debug)]
pub struct Alias {
    pub version: VersionNumber,
    pub since: Timestamp,
    pub by: Actor,
    /// The record that set it: another one each time that it moves.
    pub seq: u64,
}

/// Which records concern a model, and how long their lines are together.
#[derive(Clone, Debug, Default)]
pub struct RecordIndex {
    /// Sequence number, and the end of its line in the file that all lines make.
    ends: Vec<(u64, u64)>,
}

impl RecordIndex {
    fn push(&mut self, seq: u64, line_bytes: u64) {
        self.ends.push((seq, self.bytes() + line_bytes));
    }

    /// Bytes of all lines.
    pub fn bytes(&self) -> u64 {
        self.ends.last().map_or(0, |(_, end)| *end)
    }

    /// Number of records.
    pub fn count(&self) -> u64 {
        self.ends.len() as u64
    }

    /// The records, oldest first.
    pub fn seqs(&self) -> impl DoubleEndedIterator<Item = u64> {
        self.ends.iter().map(|(seq, _)| *seq)
    }

    /// The records whose lines lie in `offset..offset + bytes`, and where the first one starts.
    pub fn within(&self, offset: u64, bytes: u64) -> (Vec<u64>, u64) {
        let first = self.ends.partition_point(|(_, end)| *end <= offset);
        let start = if first == 0 { 0 } else { self.ends[first - 1].1 };
        let end = offset.saturating_add(bytes);
        let starts = std::iter::once(start).chain(self.ends[first..].iter().map(|(_, end)| *end));
        let hit = self.ends[first..].iter().zip(starts).take_while(|(_, start)| *start < end);
        (hit.map(|((seq, _), _)| *seq).collect(), start)
    }
}

/// One model.
#[derive(Clone, Debug)]
pub struct Model {
    pub name: ModelName,
    pub access: Access,
    pub created: Timestamp,
    /// Number of the record that created it: tells it from a removed one of the same name.
    pub seq: u64,
    /// When its directory last changed: a version, an alias, its access.
    pub changed: Timestamp,
    pub versions: BTreeMap<VersionNumber, Version>,
    pub aliases: BTreeMap<AliasName, Alias>,
    pub records: RecordIndex,
    pub vettings: Vettings,
    newest: Option<VersionNumber>,
    by_fingerprint: HashMap<TreeDigest, VersionNumber>,
}

impl Model {
    fn new(name: ModelName, access: Access, record: &Record) -> Self {
        Self {
            name,
            access,
            created: record.time,
            seq: record.seq,
            changed: record.time,
            versions: BTreeMap::new(),
            aliases: BTreeMap::new(),
            records: RecordIndex::default(),
            vettings: Vettings::default(),
            newest: None,
            by_fingerprint: HashMap::new(),
        }
    }

    /// The newest version.
    pub fn latest(&self) -> Option<&Version> {
        self.versions.values().next_back()
    }

    /// The version that is meant by `at` now.
    pub fn resolve(&self, at: &At) -> Option<&Version> {
        match at {
            At::Latest => self.latest(),
            At::Version(number) => self.versions.get(number),
            At::Alias(alias) => self.versions.get(&self.aliases.get(alias)?.version),
        }
    }

    /// The number that the next version gets. Numbers are never used again.
    pub fn next_version(&self) -> VersionNumber {
        self.newest.map_or(VersionNumber::FIRST, VersionNumber::next)
    }

    /// Whether it ever had a version: then it is never removed.
    pub fn had_versions(&self) -> bool {
        self.newest.is_some()
    }

    /// The version that was sealed with this content and metadata.
    pub fn by_fingerprint(&self, fingerprint: &TreeDigest) -> Option<&Version> {
        self.versions.get(self.by_fingerprint.get(fingerprint)?)
    }

    /// The model as these records, its own in their order, made it; `None` if they do not begin with
    /// its making.
    pub fn replay(records: impl IntoIterator<Item = Record>) -> Option<Self> {
        let mut records = records.into_iter();
        let first = records.next()?;
        let Op::CreateModel { model, access } = &first.op else { return None };
        let mut model = Self::new(model.clone(), *access, &first);
        records.for_each(|record| model.take(&record));
        Some(model)
    }

    /// Takes in a record that concerns the model.
    fn take(&mut self, record: &Record) {
        match &record.op {
            Op::SetAccess { access, .. } => {
                self.access = *access;
                self.changed = record.time;
            }
            Op::Seal(seal) => {
                self.seal(seal, record);
                self.retarget_all(&seal.moves, record);
            }
            Op::Retarget { moves, .. } => self.retarget_all(moves, record),
            Op::Approve(approval) => self.vettings.approve(approval, record),
            Op::Revoke { subject, uid, .. } => self.vettings.revoke(&subject.manifest, *uid),
            Op::Check(check) => self.vettings.check(check, record),
            Op::Mark(marking) => self.vettings.mark(marking, record),
            Op::BreakGlass(window) => self.vettings.open_window(window, record),
            // Refused: nothing changed. The others are the store's.
            Op::Refused(_)
            | Op::Init { .. }
            | Op::CreateModel { .. }
            | Op::RemoveModel { .. }
            | Op::SetPolicy { .. } => {}
        }
    }

    fn retarget_all(&mut self, moves: &[Move], record: &Record) {
        for step in moves {
            if step.model == self.name {
                self.retarget(step, record);
            }
        }
    }

    fn seal(&mut self, seal: &Seal, record: &Record) {
        let version = Version {
            number: seal.version,
            manifest: seal.manifest,
            digest: seal.digest,
            fingerprint: seal.fingerprint,
            sealed: record.time,
            by: record.actor.clone(),
            message: seal.message.clone(),
            files: seal.files,
            bytes: seal.bytes,
            stored_bytes: seal.stored_bytes,
            follows: seal.follows,
        };
        self.by_fingerprint.insert(seal.fingerprint, seal.version);
        self.versions.insert(seal.version, version);
        self.newest = self.newest.max(Some(seal.version));
        self.changed = record.time;
    }

    fn retarget(&mut self, step: &Move, record: &Record) {
        self.changed = record.time;
        self.vettings.note_move(step);
        let Some(version) = step.to else {
            self.aliases.remove(&step.alias);
            return;
        };
        let (since, by, seq) = (record.time, record.actor.clone(), record.seq);
        self.aliases.insert(step.alias.clone(), Alias { version, since, by, seq });
    }
}

/// The sum of a history.
#[derive(Clone, Debug)]
pub struct State {
    head: Head,
    time: Timestamp,
    store: String,
    root_access: Access,
    policy: Option<PolicyInForce>,
    models: BTreeMap<ModelName, Model>,
    records: RecordIndex,
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
            records: RecordIndex::default(),
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

    /// All records.
    pub fn records(&self) -> &RecordIndex {
        &self.records
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
        self.records.push(record.seq, line_bytes);
        for name in record.op.models() {
            if let Some(model) = self.models.get_mut(name) {
                model.records.push(record.seq, line_bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_index_finds_the_lines_of_a_range() {
        let mut index = RecordIndex::default();
        for (seq, bytes) in [(1, 10), (4, 5), (9, 20)] {
            index.push(seq, bytes);
        }
        let check = |offset, bytes, seqs: &[u64], start| {
            assert_eq!(index.within(offset, bytes), (seqs.to_vec(), start), "{offset} {bytes}");
        };
        check(0, 10, &[1], 0);
        check(0, 11, &[1, 4], 0);
        check(9, 1, &[1], 0);
        check(10, 1, &[4], 10);
        check(14, 100, &[4, 9], 10);
        check(35, 1, &[], 35);
        assert_eq!(index.bytes(), 35);
    }
}
