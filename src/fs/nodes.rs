//! The nodes that the kernel knows, by inode number, with its look-up counts.
//!
//! Invariant N3: a number stands for one node from the first look-up until the last forget. Numbers
//! are hashes; where two nodes that live at one time would share one, the later gets another.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;

use indexmap::IndexMap;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::answer::Kind;
use super::data::DataLink;
use super::deed::Deed;
use super::inode::{self, Identity};
use super::made::MadePlace;
use super::past::Moment;
use crate::format::ids::{DataDigest, ManifestId};
use crate::format::manifest::{EntryIndex, Manifest, Node as Sealed};
use crate::format::names::{At, ModelName, VersionNumber};
use crate::format::schema;
use crate::store::draft::{DraftTree, NodeId};

/// Attempts to find a free number; 63-bit numbers make the second one unlikely.
const ATTEMPTS_MAX: u32 = 64;

/// The store, or one model of it.
pub type Scope = Option<ModelName>;

/// A file that is made when it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generated {
    Status,
    History,
    Why,
    /// Of the store only.
    Policy,
    /// Of the store only, in a directory of its own: what `metadata.json` looks like.
    Schema,
}

impl Generated {
    /// The files of a model, or of the store.
    pub fn all(scope: &Scope) -> &'static [Self] {
        match scope {
            Some(_) => &[Self::History, Self::Status, Self::Why],
            None => &[Self::History, Self::Policy, Self::Status, Self::Why],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status.json",
            Self::History => "history.jsonl",
            Self::Why => "why",
            Self::Policy => "policy.toml",
            Self::Schema => schema::NAME,
        }
    }
}

/// Through which directory a version is seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum View {
    /// `/churn/v7`
    Model,
    /// `/.live/prod/churn`
    Live(At),
    /// `/churn/.live/prod`
    ModelLive(At),
    /// `/.at/<time>/churn/v7`; the name of the time.
    Past(String),
}

impl View {
    /// The identity of a version's directory seen so.
    pub fn identity(&self, version: &ManifestId, directory: EntryIndex) -> Identity {
        let tag = match self {
            Self::Model => String::new(),
            Self::Live(at) => format!("live {at}"),
            Self::ModelLive(at) => format!("model live {at}"),
            Self::Past(name) => format!("at {name}"),
        };
        inode::sealed_directory(&tag, version, directory)
    }
}

/// A version, seen through a view.
#[derive(Debug)]
pub struct SealedVersion {
    pub view: View,
    pub id: ManifestId,
    pub manifest: Arc<Manifest>,
}

/// An entry of a version.
#[derive(Clone, Debug)]
pub struct SealedPlace {
    pub version: Arc<SealedVersion>,
    pub entry: EntryIndex,
    /// The directory it was found in; its own index for the root.
    pub parent: EntryIndex,
}

impl SealedPlace {
    /// The entry at `entry`, a child of this directory.
    pub fn child(&self, entry: EntryIndex) -> Self {
        Self { version: Arc::clone(&self.version), entry, parent: self.entry }
    }

    fn identity(&self) -> Identity {
        let entry = self.manifest.entry(self.entry);
        match &entry.node {
            Sealed::Directory { .. } => self.view.identity(&self.id, self.entry),
            Sealed::File(file) => inode::sealed_file(&file.digest, file.executable, entry.mtime),
            Sealed::Symlink { .. } => {
                inode::sealed_link(self.manifest.target(self.entry), entry.mtime)
            }
        }
    }
}

impl Deref for SealedPlace {
    type Target = SealedVersion;
    fn deref(&self) -> &SealedVersion {
        &self.version
    }
}

/// A symbolic link that waits to be renamed over an alias.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TemporaryLink {
    /// Another one for each link, so that its inode is fresh.
    pub id: u64,
    pub target: OsString,
    pub made: Timestamp,
}

/// An alias as it stands since its last move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AliasLink {
    pub model: ModelName,
    pub alias: At,
    pub version: VersionNumber,
    pub since: Timestamp,
    /// The record that set it; the version's number for `latest`.
    pub seq: u64,
}

/// The draft of a model.
#[derive(Debug)]
pub struct Draft {
    pub model: ModelName,
    /// The record that made the model: one made anew under the same name has another draft.
    pub seq: u64,
    pub tree: DraftTree,
}

/// An object of a draft.
#[derive(Clone, Debug)]
pub struct DraftPlace {
    pub draft: Arc<Draft>,
    pub node: NodeId,
    /// Device and inode of what is behind it.
    pub backing: (u64, u64),
}

impl DraftPlace {
    /// Whether two objects are of one draft.
    pub fn is_beside(&self, other: &Self) -> bool {
        self.model == other.model && self.seq == other.seq
    }

    fn identity(&self) -> Identity {
        let (model, seq) = (self.model.as_str().as_bytes(), self.seq.to_le_bytes());
        let exact = Identity::of("draft node", &[model, &seq, &self.node.0.to_le_bytes()]);
        match self.node {
            // Another directory is behind it once it was sealed.
            NodeId::ROOT => exact,
            _ => exact.numbered_as(draft_number(&self.model, self.backing)),
        }
    }
}

impl Deref for DraftPlace {
    type Target = Draft;
    fn deref(&self) -> &Draft {
        &self.draft
    }
}

/// The identity whose number an object of a draft has unless another node lives under it.
pub fn draft_number(model: &ModelName, backing: (u64, u64)) -> Identity {
    let (device, inode) = (backing.0.to_le_bytes(), backing.1.to_le_bytes());
    Identity::of("draft", &[model.as_str().as_bytes(), &device, &inode])
}

/// What an inode number stands for. Small, as the kernel may know a million of them.
#[derive(Clone, Debug)]
pub enum Node {
    /// `/`
    Root,
    /// `/churn`; one made anew under the same name, by another record, is another.
    Model {
        name: ModelName,
        seq: u64,
    },
    /// `.modelfs`
    Info(Scope),
    /// `.modelfs/status.json` and its like
    Generated(Scope, Generated),
    /// `/.modelfs/schema`
    Schemas,
    /// `/churn/.modelfs/approve` and its like
    Deeds(ModelName, Deed),
    /// `/churn/.modelfs/approve/v8`
    Deed(ModelName, Deed, Box<At>),
    /// `/churn/.diff`
    Diffs(ModelName),
    /// `/churn/.modelfs/inspect`
    Inspections(ModelName),
    /// `/churn/.diff/v6..v7`, `/churn/.modelfs/inspect/v7.json`
    Made(Box<MadePlace>),
    /// `/.at`
    PastRoot,
    /// `/.at/<time>`
    Past(Box<Moment>),
    /// `/.at/<time>/churn`
    PastModel(Box<Moment>, ModelName),
    /// `/.by-data`
    DataRoot,
    /// `/.by-data/<digest>`
    Data(DataDigest),
    /// `/.by-data/<digest>/churn-v7`
    DataLink(Box<DataLink>),
    /// `.live`
    Live(Scope),
    /// `/.live/prod`
    LiveAlias(At),
    /// `/churn/.live/prod` while no version is behind it
    LiveEmpty(ModelName, Box<At>),
    /// `/churn/snapshot`
    Control(ModelName),
    /// `/churn/prod`
    Alias(Box<AliasLink>),
    Temporary(ModelName, Box<TemporaryLink>),
    /// `/churn/v7` and what is below it, by any path
    Sealed(SealedPlace),
    /// `/churn/draft` and what is below it
    Draft(DraftPlace),
}

const _: () = assert!(size_of::<Node>() <= 40);

impl Node {
    /// What the node is, hashed; distinct for distinct nodes.
    pub fn identity(&self) -> Identity {
        let scope = |scope: &Scope| scope.as_ref().map(ToString::to_string).unwrap_or_default();
        match self {
            Self::Root => Identity::of("root", &[]),
            Self::Model { name, seq } => {
                Identity::of("model", &[name.as_str().as_bytes(), &seq.to_le_bytes()])
            }
            Self::Info(of) => Identity::of("info", &[scope(of).as_bytes()]),
            Self::Generated(of, file) => {
                Identity::of("generated", &[scope(of).as_bytes(), file.name().as_bytes()])
            }
            Self::Schemas => Identity::of("schemas", &[]),
            Self::Deeds(model, deed) => {
                Identity::of("deeds", &[model.as_str().as_bytes(), deed.name().as_bytes()])
            }
            Self::Deed(model, deed, at) => {
                let (model, deed, at) = (model.as_str(), deed.name(), at.to_string());
                Identity::of("deed", &[model.as_bytes(), deed.as_bytes(), at.as_bytes()])
            }
            Self::Diffs(model) => Identity::of("diffs", &[model.as_str().as_bytes()]),
            Self::Inspections(model) => Identity::of("inspections", &[model.as_str().as_bytes()]),
            Self::Made(place) => place.identity(),
            Self::PastRoot => Identity::of("past root", &[]),
            Self::Past(moment) => Identity::of("past", &[moment.name.as_bytes()]),
            Self::PastModel(moment, model) => {
                let (moment, model) = (moment.name.as_bytes(), model.as_str().as_bytes());
                Identity::of("past model", &[moment, model])
            }
            Self::DataRoot => Identity::of("data root", &[]),
            Self::Data(data) => Identity::of("data", &[data.as_bytes()]),
            Self::DataLink(link) => {
                let DataLink { data, model, version } = &**link;
                let (model, version) = (model.as_str().as_bytes(), version.get().to_le_bytes());
                Identity::of("data link", &[data.as_bytes(), model, &version])
            }
            Self::Live(of) => Identity::of("live", &[scope(of).as_bytes()]),
            Self::LiveAlias(at) => Identity::of("live alias", &[at.to_string().as_bytes()]),
            Self::LiveEmpty(model, at) => {
                let (model, at) = (model.as_str(), at.to_string());
                Identity::of("live empty", &[model.as_bytes(), at.as_bytes()])
            }
            Self::Control(model) => Identity::of("control", &[model.as_str().as_bytes()]),
            Self::Alias(link) => {
                let (model, alias) = (link.model.as_str(), link.alias.to_string());
                let (seq, version) = (link.seq.to_le_bytes(), link.version.get().to_le_bytes());
                Identity::of("alias", &[model.as_bytes(), alias.as_bytes(), &seq, &version])
            }
            Self::Temporary(model, link) => {
                let model = model.as_str().as_bytes();
                Identity::of("temporary", &[model, &link.id.to_le_bytes()])
            }
            Self::Sealed(place) => place.identity(),
            Self::Draft(place) => place.identity(),
        }
    }

    /// The kind of all nodes but those of a draft, which only their status tells.
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Self::Root
            | Self::Model { .. }
            | Self::Info(_)
            | Self::Schemas
            | Self::Deeds(..)
            | Self::Diffs(_)
            | Self::Inspections(_)
            | Self::PastRoot
            | Self::Past(_)
            | Self::PastModel(..)
            | Self::DataRoot
            | Self::Data(_)
            | Self::Live(_)
            | Self::LiveAlias(_)
            | Self::LiveEmpty(..) => Kind::Directory,
            Self::Generated(..) | Self::Control(_) | Self::Deed(..) | Self::Made(_) => Kind::File,
            Self::Alias(_) | Self::DataLink(_) | Self::Temporary(..) => Kind::Symlink,
            Self::Sealed(place) => match place.manifest.entry(place.entry).node {
                Sealed::Directory { .. } => Kind::Directory,
                Sealed::File(_) => Kind::File,
                Sealed::Symlink { .. } => Kind::Symlink,
            },
            Self::Draft(_) => return None,
        })
    }

    /// Whose `why` explains a refusal here.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Root
            | Self::LiveAlias(_)
            | Self::PastRoot
            | Self::Past(_)
            | Self::DataRoot
            | Self::Data(_)
            | Self::Schemas => None,
            Self::Info(scope) | Self::Generated(scope, _) | Self::Live(scope) => scope.clone(),
            Self::Model { name, .. } => Some(name.clone()),
            Self::LiveEmpty(model, _)
            | Self::Control(model)
            | Self::Deeds(model, _)
            | Self::Deed(model, ..)
            | Self::Diffs(model)
            | Self::Inspections(model)
            | Self::PastModel(_, model)
            | Self::Temporary(model, _) => Some(model.clone()),
            Self::Alias(link) => Some(link.model.clone()),
            Self::DataLink(link) => Some(link.model.clone()),
            Self::Sealed(place) => Some(place.manifest.model.clone()),
            Self::Draft(place) => Some(place.model.clone()),
            Self::Made(place) => Some(place.model().clone()),
        }
    }
}

#[derive(Debug)]
struct Known<N> {
    key: [u8; 16],
    node: Arc<N>,
    lookups: u64,
}

#[derive(Debug)]
struct Inner<N> {
    /// Dense: a hash table that has just grown has room for twice as many, and there may be a million.
    known: IndexMap<u64, Known<N>>,
    /// Numbers of nodes that do not have the first one that their identity gives: that was taken.
    others: HashMap<[u8; 16], u64>,
}

/// The nodes that the kernel holds. Generic over what a node is, so that it is tested with texts.
#[derive(Debug)]
pub struct NodeTable<N> {
    root: Arc<N>,
    /// Guards both maps; no other lock is taken while it is held.
    inner: Mutex<Inner<N>>,
}

impl<N> NodeTable<N> {
    /// A table that knows the root only, which is never forgotten.
    pub fn new(root: N) -> Self {
        let inner = Inner { known: IndexMap::new(), others: HashMap::new() };
        Self { root: Arc::new(root), inner: Mutex::new(inner) }
    }

    /// Counts a look-up of `node`; its number.
    pub fn remember(&self, identity: &Identity, node: N) -> u64 {
        let mut inner = self.inner.lock();
        let number = inner.number(identity);
        match inner.known.get_mut(&number) {
            Some(known) => known.lookups += 1,
            None => {
                let known = Known { key: identity.key, node: Arc::new(node), lookups: 1 };
                inner.known.insert(number, known);
                if number != identity.candidate(0) {
                    inner.others.insert(identity.key, number);
                }
            }
        }
        number
    }

    /// The number that a look-up would give now, without counting one.
    pub fn number(&self, identity: &Identity) -> u64 {
        self.inner.lock().number(identity)
    }

    /// What a number stands for.
    pub fn find(&self, number: u64) -> Option<Arc<N>> {
        if number == inode::ROOT {
            return Some(Arc::clone(&self.root));
        }
        self.inner.lock().known.get(&number).map(|known| Arc::clone(&known.node))
    }

    /// Takes back `lookups` look-ups; the node they were of.
    pub fn forget(&self, number: u64, lookups: u64) -> Option<Arc<N>> {
        let mut inner = self.inner.lock();
        let known = inner.known.get_mut(&number)?;
        known.lookups = known.lookups.saturating_sub(lookups);
        let node = Arc::clone(&known.node);
        if known.lookups == 0 {
            let key = known.key;
            inner.known.swap_remove(&number);
            inner.others.remove(&key);
        }
        Some(node)
    }

    /// How many nodes the kernel holds, the root left out.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.inner.lock().known.len()
    }
}

impl<N> Inner<N> {
    fn number(&self, identity: &Identity) -> u64 {
        if let Some(&number) = self.others.get(&identity.key) {
            return number;
        }
        let fits = |number: &u64| match self.known.get(number) {
            Some(known) => known.key == identity.key,
            None => true,
        };
        let mut candidates = (0..ATTEMPTS_MAX).map(|attempt| identity.candidate(attempt));
        candidates.find(fits).expect("64 independent 63-bit numbers are never all taken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_one_node_until_its_last_forget() {
        let table = NodeTable::new("root");
        let identity = Identity::of("a", &[]);
        let number = table.remember(&identity, "a");
        assert_eq!(table.remember(&identity, "a again"), number);
        assert_eq!(table.find(number).as_deref(), Some(&"a"));
        table.forget(number, 1);
        assert!(table.find(number).is_some());
        table.forget(number, 1);
        assert!(table.find(number).is_none());
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn two_live_nodes_never_share_a_number() {
        let table = NodeTable::new("root");
        let first = Identity::of("first", &[]);
        let second = Identity::of("second", &[]).numbered_as(first);
        let number = table.remember(&first, "first");
        assert_eq!(table.number(&first), number);
        let other = table.remember(&second, "second");
        assert_ne!(number, other);
        assert_eq!(table.find(other).as_deref(), Some(&"second"));
        // The number is free again, but the second node keeps the one it has.
        table.forget(number, 1);
        assert_eq!(table.remember(&second, "second"), other);
        table.forget(other, 2);
        assert_eq!(table.remember(&second, "second"), number);
    }

    #[test]
    fn the_root_is_never_forgotten() {
        let table = NodeTable::new("root");
        assert!(table.forget(inode::ROOT, 1_000).is_none());
        assert_eq!(table.find(inode::ROOT).as_deref(), Some(&"root"));
    }
}
