//! One model: what all of them are listed by, and its body, which has the rest.
//!
//! A store may have millions of versions, of which somebody looks at a few: what grows with their
//! number is in the body. All else is small, and always at hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::format::checkpoint::Section;
use crate::format::ids::{ManifestId, TreeDigest};
use crate::format::names::{AliasName, At, ModelName, VersionNumber};
use crate::format::record::{Access, Actor, Move, Op, Record, Seal};
use crate::registry::index::RecordIndex;
use crate::registry::shelf::Shelf;
use crate::registry::vetting::Vettings;
use crate::store::StoreError;

/// One version of a model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    pub number: VersionNumber,
    pub manifest: ManifestId,
    pub digest: TreeDigest,
    pub fingerprint: TreeDigest,
    pub sealed: Timestamp,
    /// Shared by versions that follow one another and are of the same hand.
    pub by: Arc<Actor>,
    pub message: Box<str>,
    pub files: u64,
    pub bytes: u64,
    pub stored_bytes: u64,
    pub follows: Option<VersionNumber>,
}

/// What an alias points to, and since when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Alias {
    pub version: VersionNumber,
    /// Of that version.
    pub manifest: ManifestId,
    pub since: Timestamp,
    pub by: Actor,
    /// The record that set it: another one each time that it moves.
    pub seq: u64,
}

/// The newest version, as far as lists need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Latest {
    pub number: VersionNumber,
    pub manifest: ManifestId,
    pub sealed: Timestamp,
}

/// The versions of a model, by their numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Versions(Vec<Version>);

impl Versions {
    pub fn get(&self, number: VersionNumber) -> Option<&Version> {
        self.0.get(self.place(number).ok()?)
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Version> + ExactSizeIterator {
        self.0.iter()
    }

    /// The newest that was sealed with this content and metadata. O(n).
    pub fn by_fingerprint(&self, fingerprint: &TreeDigest) -> Option<&Version> {
        self.0.iter().rev().find(|version| version.fingerprint == *fingerprint)
    }

    /// Keeps one actor for versions that follow one another and are of the same hand.
    pub(super) fn share_actors(&mut self) {
        for later in 1..self.0.len() {
            if self.0[later].by == self.0[later - 1].by {
                self.0[later].by = Arc::clone(&self.0[later - 1].by);
            }
        }
    }

    fn place(&self, number: VersionNumber) -> Result<usize, usize> {
        self.0.binary_search_by_key(&number, |version| version.number)
    }

    /// Adds a version unless there is one of its number; whether it was added.
    fn add(&mut self, version: Version) -> bool {
        let place = self.place(version.number);
        if let Err(place) = place {
            self.0.insert(place, version);
        }
        place.is_err()
    }
}

/// What there is of a model beside what all models are listed by.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Body {
    pub versions: Versions,
    pub records: RecordIndex,
    pub vettings: Vettings,
}

/// Where a body is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Here(Arc<Body>),
    /// In a checkpoint, as the model has not changed since.
    Shelved(Section, Arc<Shelf>),
}

impl Default for Content {
    fn default() -> Self {
        Self::Here(Arc::default())
    }
}

/// One model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Model {
    pub name: ModelName,
    pub access: Access,
    pub created: Timestamp,
    /// Number of the record that created it: tells it from a removed one of the same name.
    pub seq: u64,
    /// When its directory last changed: a version, an alias, its access.
    pub changed: Timestamp,
    pub aliases: BTreeMap<AliasName, Alias>,
    latest: Option<Latest>,
    version_count: u64,
    bytes: u64,
    /// The last record that concerns it.
    last_seq: u64,
    #[serde(skip)]
    content: Content,
}

impl Model {
    pub(super) fn new(name: ModelName, access: Access, record: &Record) -> Self {
        Self {
            name,
            access,
            created: record.time,
            seq: record.seq,
            changed: record.time,
            aliases: BTreeMap::new(),
            latest: None,
            version_count: 0,
            bytes: 0,
            last_seq: record.seq,
            content: Content::default(),
        }
    }

    /// Its versions and what was said of them.
    ///
    /// # Errors
    /// Where it cannot be read from the checkpoint, those of reading the history.
    pub fn body(&self) -> Result<Arc<Body>, StoreError> {
        match &self.content {
            Content::Here(body) => Ok(Arc::clone(body)),
            Content::Shelved(section, shelf) => shelf.body(self, section),
        }
    }

    /// Whether lists of models have the same of it as of another of its name.
    pub(super) fn is_listed_as(&self, other: &Self) -> bool {
        let listed = |it: &Self| {
            (it.created, it.seq, it.changed, it.latest, it.version_count, it.bytes, it.last_seq)
        };
        listed(self) == listed(other)
    }

    /// What in a body is against the model that it is to be of, if anything: a checkpoint may say anything.
    pub(super) fn contradiction(&self, body: &Body) -> Option<&'static str> {
        let Body { versions: Versions(versions), records, .. } = body;
        let last = versions.last();
        let latest =
            last.map(|it| Latest { number: it.number, manifest: it.manifest, sealed: it.sealed });
        let leads_to = |alias: &Alias| {
            body.versions.get(alias.version).is_some_and(|it| it.manifest == alias.manifest)
        };
        if !versions.is_sorted_by(|one, next| one.number < next.number) {
            Some("its versions are not in their order")
        } else if latest != self.latest || versions.len() as u64 != self.version_count {
            Some("it has other versions than its list says")
        } else if !self.aliases.values().all(leads_to) {
            Some("an alias leads to no version of it")
        } else if !records.is_sound() || records.seqs().last() != Some(&self.last_seq) {
            Some("its records are not in their order")
        } else {
            None
        }
    }

    pub(super) fn content(&self) -> &Content {
        &self.content
    }

    pub(super) fn set_content(&mut self, content: Content) {
        self.content = content;
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The newest version.
    pub fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }

    /// Number of its versions.
    pub fn version_count(&self) -> u64 {
        self.version_count
    }

    /// Bytes of the files of all its versions.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where `latest` or an alias leads; nowhere for a number.
    pub fn goal(&self, at: &At) -> Option<(VersionNumber, ManifestId)> {
        match at {
            At::Latest => self.latest.map(|latest| (latest.number, latest.manifest)),
            At::Alias(alias) => {
                self.aliases.get(alias).map(|alias| (alias.version, alias.manifest))
            }
            At::Version(_) => None,
        }
    }

    /// The number of the version that is meant by `at` now.
    ///
    /// # Errors
    /// As [`Model::body`].
    pub fn resolve(&self, at: &At) -> Result<Option<VersionNumber>, StoreError> {
        let At::Version(number) = at else { return Ok(self.goal(at).map(|(number, _)| number)) };
        Ok(self.body()?.versions.get(*number).map(|version| version.number))
    }

    /// The version that is meant by `at` now.
    ///
    /// # Errors
    /// As [`Model::body`].
    pub fn version(&self, at: &At) -> Result<Option<Version>, StoreError> {
        let Some(number) = self.resolve(at)? else { return Ok(None) };
        Ok(self.body()?.versions.get(number).cloned())
    }

    /// The number that the next version gets. Numbers are never used again.
    pub fn next_version(&self) -> VersionNumber {
        self.latest.map_or(VersionNumber::FIRST, |latest| latest.number.next())
    }

    /// Whether it ever had a version: then it is never removed.
    pub fn had_versions(&self) -> bool {
        self.latest.is_some()
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
    pub(super) fn take(&mut self, record: &Record) {
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
            Op::Approve(approval) => self.vettings_mut().approve(approval, record),
            Op::Revoke { subject, uid, .. } => {
                self.vettings_mut().revoke(&subject.manifest, *uid);
            }
            Op::Check(check) => self.vettings_mut().check(check, record),
            Op::Mark(marking) => self.vettings_mut().mark(marking, record),
            Op::BreakGlass(window) => self.vettings_mut().open_window(window, record),
            // Refused: nothing changed. The others are the store's.
            Op::Refused(_)
            | Op::Init { .. }
            | Op::CreateModel { .. }
            | Op::RemoveModel { .. }
            | Op::SetPolicy { .. } => {}
        }
    }

    /// Notes a record that concerns the model, after it was taken in.
    pub(super) fn note(&mut self, seq: u64, line_bytes: u64) {
        self.last_seq = seq;
        self.body_mut().records.push(seq, line_bytes);
    }

    fn body_mut(&mut self) -> &mut Body {
        match &mut self.content {
            Content::Here(body) => Arc::make_mut(body),
            Content::Shelved(..) => unreachable!("State::ready took it from the shelf"),
        }
    }

    fn vettings_mut(&mut self) -> &mut Vettings {
        &mut self.body_mut().vettings
    }

    fn retarget_all(&mut self, moves: &[Move], record: &Record) {
        for step in moves {
            if step.model == self.name {
                self.retarget(step, record);
            }
        }
    }

    fn seal(&mut self, seal: &Seal, record: &Record) {
        let versions = &mut self.body_mut().versions;
        let same_hand = versions.0.last().filter(|last| *last.by == record.actor);
        let by = same_hand.map_or_else(|| Arc::new(record.actor.clone()), |it| Arc::clone(&it.by));
        let is_new = versions.add(Version {
            number: seal.version,
            manifest: seal.manifest,
            digest: seal.digest,
            fingerprint: seal.fingerprint,
            sealed: record.time,
            by,
            message: seal.message.as_str().into(),
            files: seal.files,
            bytes: seal.bytes,
            stored_bytes: seal.stored_bytes,
            follows: seal.follows,
        });
        if !is_new {
            return;
        }
        self.version_count += 1;
        self.bytes += seal.bytes;
        let (number, manifest, sealed) = (seal.version, seal.manifest, record.time);
        if self.latest.is_none_or(|latest| latest.number <= number) {
            self.latest = Some(Latest { number, manifest, sealed });
        }
        self.changed = record.time;
    }

    fn retarget(&mut self, step: &Move, record: &Record) {
        let Some(version) = step.to else {
            self.aliases.remove(&step.alias);
            self.changed = record.time;
            return;
        };
        let Some(manifest) = self.body_mut().versions.get(version).map(|it| it.manifest) else {
            return;
        };
        let (since, by, seq) = (record.time, record.actor.clone(), record.seq);
        self.aliases.insert(step.alias.clone(), Alias { version, manifest, since, by, seq });
        self.changed = record.time;
        self.vettings_mut().note_move(step);
    }
}
