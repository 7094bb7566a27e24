//! What the mount means: which path is what, what each operation does to it, what is refused.
//!
//! One method per operation, plain values in and out; the adapter above knows FUSE, this does not.
//! Everything here is answered from memory or by the store; only a snapshot and some texts take long, and
//! those run on threads of their own (`control`, `texts`). SEMANTICS.md has the promises to programs.
#![doc = include_str!("SEMANTICS.md")]

mod answer;
mod control;
mod data;
mod deed;
mod diff;
mod draft;
mod errno;
mod error;
mod generated;
mod handles;
mod inode;
mod inspection;
mod listing;
mod live;
mod made;
mod model;
mod nodes;
mod open;
mod past;
mod quota;
mod root;
mod temporary;
mod texts;
mod version;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

pub use answer::{
    Attributes, Backing, Cache, Changes, Found, Kind, Lookup, NewTime, Opened, Reader, RenameMode,
    Requester, Space, Way, time,
};
pub use control::{Pending, Written};
pub use deed::{Deed, parse_deed};
pub use error::FsError;
pub use listing::{Detail, Entry, Flow};
pub use made::{Opening, PendingText};
pub use open::SyncScope;

use crate::format::names::ModelName;
use crate::format::record::{Access, Door};
use crate::ops::{Caller, Context, DaemonStatus, Workspace};
use crate::store::draft::Status;
use answer::Counts;
use control::Desk;
use generated::Refusals;
use handles::HandleTable;
use nodes::{Node, NodeTable};
use temporary::TemporaryLinks;
use texts::Texts;

/// Longest name of an entry, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// What the daemon knows and the mount needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Absolute and without links: targets of aliases may start with it.
    pub mountpoint: PathBuf,
    pub pid: u32,
    pub since: Timestamp,
    /// Of this program.
    pub version: String,
    pub now: fn() -> Timestamp,
    /// The name of a user, or the number as text.
    pub name_of: fn(u32) -> String,
    /// The groups that a process acts with, by its number, user and group.
    pub groups_of: fn(u32, u32, u32) -> Vec<u32>,
    /// Owner and group of everything sealed.
    pub uid: u32,
    pub gid: u32,
}

/// A store as a tree of files.
pub struct Filesystem {
    workspace: Arc<Workspace>,
    settings: Settings,
    nodes: NodeTable<Node>,
    handles: HandleTable,
    /// Guards the links that wait for a rename. No other lock is taken while it is held.
    temporary: Mutex<TemporaryLinks>,
    refusals: Arc<Refusals>,
    desk: Arc<Desk>,
    texts: Arc<Texts>,
    passthrough: AtomicBool,
    counts: Counts,
}

/// What a name in a directory is.
struct Child {
    node: Node,
    /// What the disk says of an object of a draft.
    status: Option<Status>,
    entry_ttl: Duration,
}

impl Child {
    /// An entry that may be another at the next look-up.
    fn moving(node: Node) -> Self {
        Self { node, status: None, entry_ttl: Duration::ZERO }
    }

    /// An entry that stays what it is.
    fn fixed(node: Node) -> Self {
        Self { node, status: None, entry_ttl: answer::FOREVER }
    }
}

impl Filesystem {
    /// The tree of `workspace`.
    pub fn new(workspace: Arc<Workspace>, settings: Settings) -> Self {
        let refusals = Arc::new(Refusals::default());
        let desk = Desk::new(Arc::clone(&workspace), Arc::clone(&refusals), settings.now);
        Self {
            workspace,
            settings,
            nodes: NodeTable::new(Node::Root),
            handles: HandleTable::default(),
            temporary: Mutex::default(),
            refusals,
            desk: Arc::new(desk),
            texts: Arc::default(),
            passthrough: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    /// Who serves this mount.
    pub fn daemon_status(&self) -> DaemonStatus {
        DaemonStatus {
            pid: self.settings.pid,
            mountpoint: self.settings.mountpoint.clone(),
            since: self.settings.since,
            version: self.settings.version.clone(),
            passthrough: self.passthrough.load(Ordering::Relaxed),
        }
    }

    /// How many snapshots that came through the mount still run.
    pub fn busy(&self) -> usize {
        self.desk.running()
    }

    /// Says whether the kernel reads and writes draft files by itself.
    pub fn set_passthrough(&self, works: bool) {
        self.passthrough.store(works, Ordering::Relaxed);
    }

    /// Finds `name` in a directory and counts the look-up.
    pub fn lookup(
        &self,
        requester: Requester,
        parent: u64,
        name: &OsStr,
    ) -> Result<Lookup, FsError> {
        check_name(name)?;
        let parent = self.node(parent)?;
        match self.child(requester, &parent, name)? {
            Some(child) => Ok(Lookup::Found(self.found(child)?)),
            None => Ok(Lookup::Missing { ttl: missing_ttl(&parent) }),
        }
    }

    /// Takes back `lookups` look-ups of a node.
    pub fn forget(&self, number: u64, lookups: u64) {
        if let Some(node) = self.nodes.forget(number, lookups)
            && let Node::Draft(place) = &*node
        {
            place.tree.forget(place.node, lookups);
        }
    }

    /// The attributes of a node, and for how long they hold.
    pub fn attributes(&self, number: u64) -> Result<(Attributes, Duration), FsError> {
        let node = self.node(number)?;
        self.attributes_of(&node, number)
    }

    /// Changes attributes; those then.
    pub fn set_attributes(
        &self,
        requester: Requester,
        number: u64,
        changes: &Changes,
    ) -> Result<(Attributes, Duration), FsError> {
        let node = self.node(number)?;
        let changed = match &*node {
            Node::Draft(place) => {
                self.permit_draft(requester, place).and_then(|()| self.change_draft(place, changes))
            }
            Node::Root => self.change_access(requester, None, changes),
            Node::Model { name, .. } => self.change_access(requester, Some(name), changes),
            Node::Control(model) | Node::Deed(model, ..) if !changes.has_access() => {
                // `echo x > snapshot` truncates first, `touch` sets times: neither means anything.
                self.model_facts(model).map(drop)
            }
            Node::Control(_) => Err(model::refuse_access("`snapshot`")),
            Node::Deed(..) => Err(model::refuse_access("a file for commands")),
            Node::Alias(_) | Node::Temporary(..) => Err(model::refuse_access("an alias")),
            _ => Err(read_only(&node)),
        };
        self.explained(&node, changed)?;
        self.attributes_of(&node, number)
    }

    /// The text of a symbolic link.
    pub fn readlink(&self, number: u64) -> Result<OsString, FsError> {
        match &*self.node(number)? {
            Node::Alias(link) => Ok(link.version.to_string().into()),
            Node::DataLink(link) => Ok(link.target().into()),
            Node::Temporary(_, link) => Ok(link.target.clone()),
            Node::Sealed(place) => {
                Ok(OsStr::from_bytes(place.manifest.target(place.entry)).to_owned())
            }
            Node::Draft(place) => place.tree.readlink(place.node).map_err(FsError::Draft),
            _ => Err(FsError::Operation),
        }
    }

    /// Makes a directory; in the root, a model.
    pub fn make_directory(
        &self,
        requester: Requester,
        parent: u64,
        name: &OsStr,
        mode: u32,
    ) -> Result<Found, FsError> {
        check_name(name)?;
        let node = self.node(parent)?;
        let made = match &*node {
            Node::Root => self.create_model(requester, name, mode),
            Node::Draft(place) => self
                .permit_draft(requester, place)
                .and_then(|()| self.make_draft_directory(requester, place, name, mode)),
            _ => Err(self.refuse_entry(&node, name)),
        };
        self.found(self.explained(&node, made)?)
    }

    /// Makes a file, fifo, socket or device.
    pub fn make_node(
        &self,
        requester: Requester,
        parent: u64,
        name: &OsStr,
        mode: u32,
        device: u32,
    ) -> Result<Found, FsError> {
        check_name(name)?;
        let node = self.node(parent)?;
        let made = match &*node {
            Node::Draft(place) => self
                .permit_draft(requester, place)
                .and_then(|()| self.make_draft_node(requester, place, name, mode, device)),
            _ => Err(self.refuse_entry(&node, name)),
        };
        self.found(self.explained(&node, made)?)
    }

    /// Makes a symbolic link; in a model, an alias.
    pub fn symlink(
        &self,
        requester: Requester,
        parent: u64,
        name: &OsStr,
        target: &OsStr,
    ) -> Result<Found, FsError> {
        check_name(name)?;
        let node = self.node(parent)?;
        let made = match &*node {
            Node::Model { name: model, .. } => self.link_alias(requester, model, name, target),
            Node::Draft(place) => self
                .permit_draft(requester, place)
                .and_then(|()| self.make_draft_link(requester, place, name, target)),
            _ => Err(self.refuse_entry(&node, name)),
        };
        self.found(self.explained(&node, made)?)
    }

    /// Gives an object of a draft a second name.
    pub fn link(
        &self,
        requester: Requester,
        number: u64,
        parent: u64,
        name: &OsStr,
    ) -> Result<Found, FsError> {
        check_name(name)?;
        let (source, node) = (self.node(number)?, self.node(parent)?);
        let made = match (&*source, &*node) {
            (Node::Draft(source), Node::Draft(place)) => self
                .permit_draft(requester, place)
                .and_then(|()| self.link_draft(source, place, name)),
            (_, Node::Draft(_)) => Err(FsError::OtherTree),
            _ => Err(self.refuse_entry(&node, name)),
        };
        self.found(self.explained(&node, made)?)
    }

    /// Removes a name that is not a directory's; in a model, an alias.
    pub fn unlink(&self, requester: Requester, parent: u64, name: &OsStr) -> Result<(), FsError> {
        check_name(name)?;
        let node = self.node(parent)?;
        let removed = match &*node {
            Node::Model { name: model, .. } => self.unlink_alias(requester, model, name),
            Node::Draft(place) => self
                .permit_draft(requester, place)
                .and_then(|()| place.tree.unlink(place.node, name).map_err(FsError::Draft)),
            _ => Err(self.refuse_entry(&node, name)),
        };
        self.explained(&node, removed)
    }

    /// Removes an empty directory; in the root, a model that never had a version.
    pub fn remove_directory(
        &self,
        requester: Requester,
        parent: u64,
        name: &OsStr,
    ) -> Result<(), FsError> {
        check_name(name)?;
        let node = self.node(parent)?;
        let removed = match &*node {
            Node::Root => self.remove_model(requester, name),
            Node::Draft(place) => self.permit_draft(requester, place).and_then(|()| {
                place.tree.remove_directory(place.node, name).map_err(FsError::Draft)
            }),
            _ => Err(self.refuse_entry(&node, name)),
        };
        self.explained(&node, removed)
    }

    /// Renames an entry; in a model, moves an alias.
    pub fn rename(
        &self,
        requester: Requester,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        check_name(from.1)?;
        check_name(to.1)?;
        let (old, new) = (self.node(from.0)?, self.node(to.0)?);
        let renamed = match (&*old, &*new) {
            (Node::Draft(old), Node::Draft(new)) => self
                .permit_draft(requester, old)
                .and_then(|()| self.rename_draft((old, from.1), (new, to.1), mode)),
            (Node::Model { name: one, .. }, Node::Model { name: other, .. }) if one == other => {
                self.rename_alias(requester, one, (from.1, to.1), mode)
            }
            _ => Err(self.refuse_rename((&old, from.1), (&new, to.1))),
        };
        self.explained(&old, renamed)
    }

    /// Size and free space of the disk behind the store.
    pub fn space(&self) -> Result<Space, FsError> {
        let space = self.workspace.space().map_err(FsError::Disk)?;
        Ok(Space {
            block_bytes: space.block_bytes,
            blocks: space.blocks,
            blocks_free: space.blocks_free,
            blocks_available: space.blocks_available,
            files: space.files,
            files_free: space.files_free,
        })
    }

    /// Why extended attributes of a node cannot be set or removed.
    pub fn refuse_attribute(&self, number: u64) -> FsError {
        match self.node(number) {
            Ok(node) if is_read_only(&node) => read_only(&node),
            Ok(_) => FsError::Attribute,
            Err(error) => error,
        }
    }

    fn node(&self, number: u64) -> Result<Arc<Node>, FsError> {
        self.nodes.find(number).ok_or(FsError::Stale)
    }

    /// What `name` is in a directory; `None` where there is no such name.
    fn child(
        &self,
        requester: Requester,
        parent: &Node,
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        match parent {
            Node::Root => Ok(self.root_child(name)),
            Node::Model { name: model, .. } => self.model_child(model, name),
            Node::Info(scope) => {
                let deeds = || scope.as_ref().and_then(|model| deed::directory(model, name));
                let inspections =
                    || scope.as_ref().and_then(|model| inspection::directory(model, name));
                Ok(generated::child(scope, name).or_else(deeds).or_else(inspections))
            }
            Node::Schemas => Ok(generated::schema_child(name)),
            Node::Deeds(model, deed) => self.deed_child(model, *deed, name),
            Node::Diffs(model) => self.diff_child(model, name),
            Node::Inspections(model) => self.inspection_child(model, name),
            Node::PastRoot => Ok(self.past_child(name)),
            Node::Past(moment) => self.past_model_child(moment, name),
            Node::PastModel(moment, model) => {
                self.past_version_child(requester, (moment, model), name)
            }
            Node::DataRoot => Ok(self.data_child(requester, name)),
            Node::Data(data) => Ok(self.data_link_child(requester, data, name)),
            Node::Live(None) => Ok(live::alias_child(name)),
            Node::Live(Some(model)) => self.model_live_child(model, name),
            Node::LiveAlias(at) => self.live_child(requester, at, name),
            Node::LiveEmpty(..) => Ok(None),
            Node::Sealed(place) => version::child(place, name),
            Node::Draft(place) => self.draft_child(place, name),
            Node::Generated(..)
            | Node::Control(_)
            | Node::Deed(..)
            | Node::Made(_)
            | Node::Alias(_)
            | Node::DataLink(_)
            | Node::Temporary(..) => Err(FsError::NotDirectory),
        }
    }

    /// Counts a look-up of `child` and gives its attributes.
    fn found(&self, child: Child) -> Result<Found, FsError> {
        let number = self.nodes.remember(&child.node.identity(), child.node.clone());
        let attributes = match &child.status {
            Some(status) => Ok((draft::attributes(status, number), Duration::ZERO)),
            None => self.attributes_of(&child.node, number),
        };
        match attributes {
            Ok((attributes, attribute_ttl)) => {
                Ok(Found { attributes, entry_ttl: child.entry_ttl, attribute_ttl })
            }
            Err(error) => {
                self.forget(number, 1);
                Err(error)
            }
        }
    }

    fn attributes_of(&self, node: &Node, number: u64) -> Result<(Attributes, Duration), FsError> {
        let ttl = match node {
            Node::Root | Node::Model { .. } => answer::BRIEFLY,
            _ => Duration::ZERO,
        };
        let attributes = match node {
            Node::Root => self.root_attributes(),
            Node::Model { name, .. } => self.model_facts(name)?.directory(0o7777),
            Node::Info(None)
            | Node::Schemas
            | Node::PastRoot
            | Node::Past(_)
            | Node::DataRoot
            | Node::Data(_)
            | Node::Live(None)
            | Node::LiveAlias(_) => {
                Attributes { mode: self.root_attributes().mode & 0o555, ..self.root_attributes() }
            }
            Node::Info(Some(model))
            | Node::Deeds(model, _)
            | Node::Diffs(model)
            | Node::Inspections(model)
            | Node::PastModel(_, model)
            | Node::Live(Some(model))
            | Node::LiveEmpty(model, _) => self.model_facts(model)?.directory(0o555),
            Node::Deed(model, deed, _) => self.deed_attributes(model, *deed)?,
            Node::Made(place) => self.made_attributes(place)?,
            Node::Generated(scope, file) => self.generated_attributes(scope, *file)?,
            Node::Control(model) => self.model_facts(model)?.file(0o666, control::SIZE_BYTES),
            Node::Alias(link) => {
                let bytes = link.version.to_string().len() as u64;
                self.model_facts(&link.model)?.link(bytes, link.since)
            }
            Node::DataLink(link) => {
                let facts = self.model_facts(&link.model)?;
                facts.link(link.target().len() as u64, facts.changed)
            }
            Node::Temporary(model, link) => {
                self.model_facts(model)?.link(link.target.len() as u64, link.made)
            }
            Node::Sealed(place) => return self.sealed_attributes(place, number),
            Node::Draft(place) => {
                let status = place.tree.status(place.node).map_err(FsError::Draft)?;
                draft::attributes(&status, number)
            }
        };
        Ok((Attributes { number, ..attributes }, ttl))
    }

    /// Why nothing can be made, removed or replaced under `name`, where that is not a draft.
    fn refuse_entry(&self, parent: &Node, name: &OsStr) -> FsError {
        match parent {
            Node::Root => root::refuse(name),
            Node::Model { name: model, .. } => self.refuse_in_model(model, name),
            Node::Draft(_) => FsError::OtherTree,
            _ => read_only(parent),
        }
    }

    /// Why an entry cannot be renamed from one directory to another: what cannot change counts
    /// before what cannot be reached.
    fn refuse_rename(&self, from: (&Node, &OsStr), to: (&Node, &OsStr)) -> FsError {
        let drafts = [from.0, to.0].iter().filter(|node| matches!(node, Node::Draft(_))).count();
        let sides = [from, to].map(|(parent, name)| self.refuse_entry(parent, name));
        let [first, second] = sides;
        match (first, second) {
            (error @ FsError::ReadOnly { .. }, _) | (_, error @ FsError::ReadOnly { .. }) => error,
            _ if drafts > 0 => FsError::OtherTree,
            (error, _) => error,
        }
    }

    /// Keeps what was refused for `why`.
    fn explained<T>(&self, node: &Node, result: Result<T, FsError>) -> Result<T, FsError> {
        if let Err(error) = &result
            && error.is_refusal()
        {
            self.keep_refusal(node.scope(), error);
        }
        result
    }

    /// Whether the policy lets someone change a draft: the kernel has asked for the permission bits.
    fn permit_draft(&self, requester: Requester, place: &nodes::DraftPlace) -> Result<(), FsError> {
        if !self.workspace.has_policy() {
            return Ok(());
        }
        Ok(self.workspace.permit_write(&self.context(requester), &place.model)?)
    }

    fn context(&self, requester: Requester) -> Context {
        let caller = Caller {
            user: (self.settings.name_of)(requester.uid),
            uid: requester.uid,
            gid: requester.gid,
            groups: (self.settings.groups_of)(requester.pid, requester.uid, requester.gid),
            door: Door::Mount,
        };
        Context { caller, now: (self.settings.now)(), assume: false }
    }

    /// Changes owner, group or mode of a model, or of the root.
    fn change_access(
        &self,
        requester: Requester,
        model: Option<&ModelName>,
        changes: &Changes,
    ) -> Result<(), FsError> {
        if changes.has_times() && !changes.has_access() {
            return Err(FsError::Refused {
                action: "set the times of a model".to_owned(),
                advice: "they say when it last changed",
            });
        }
        if changes.bytes.is_some() {
            return Err(FsError::Directory);
        }
        let old = match model {
            None => self.workspace.state().root_access(),
            Some(model) => self.model_facts(model)?.access,
        };
        let access = Access {
            uid: changes.uid.unwrap_or(old.uid),
            gid: changes.gid.unwrap_or(old.gid),
            mode: changes.mode.unwrap_or(old.mode) & 0o7777,
        };
        if access == old {
            return Ok(());
        }
        Ok(self.workspace.set_access(&self.context(requester), model, access)?)
    }
}

/// For how long a name that is not there will not be: for ever in what is sealed.
fn missing_ttl(parent: &Node) -> Duration {
    match parent {
        Node::Sealed(_) => answer::FOREVER,
        _ => Duration::ZERO,
    }
}

fn check_name(name: &OsStr) -> Result<(), FsError> {
    if NAME_BYTES_MAX < name.len() {
        return Err(FsError::NameLength { bytes: name.len() });
    }
    Ok(())
}

fn is_read_only(node: &Node) -> bool {
    match node {
        Node::Sealed(_)
        | Node::Info(_)
        | Node::Schemas
        | Node::Deeds(..)
        | Node::Diffs(_)
        | Node::Inspections(_)
        | Node::Made(_)
        | Node::PastRoot
        | Node::Past(_)
        | Node::PastModel(..)
        | Node::DataRoot
        | Node::Data(_)
        | Node::DataLink(_)
        | Node::Generated(..)
        | Node::Live(_)
        | Node::LiveAlias(_)
        | Node::LiveEmpty(..) => true,
        Node::Root
        | Node::Model { .. }
        | Node::Control(_)
        | Node::Deed(..)
        | Node::Alias(_)
        | Node::Temporary(..)
        | Node::Draft(_) => false,
    }
}

/// Why nothing can be changed at or below a node.
fn read_only(node: &Node) -> FsError {
    match node {
        Node::Sealed(place) => version::read_only(&place.manifest.model, place.manifest.version),
        _ => FsError::ReadOnly {
            path: match node.scope() {
                Some(model) => model.to_string(),
                None => ".".to_owned(),
            },
            reason: "this is a view of the store; change a model's `draft` or its aliases instead",
        },
    }
}

/// A name as it may stand in a message.
fn show(name: &OsStr) -> String {
    match name.to_str() {
        Some(text) => text.escape_debug().to_string(),
        None => name.as_bytes().escape_ascii().to_string(),
    }
}
