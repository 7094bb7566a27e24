//! Directory listings: stable while a handle is open, made anew when it is read from the start.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::answer::{Cache, Kind, Opened, Requester};
use super::deed::Deed;
use super::generated::SCHEMAS;
use super::handles::{DirectoryHandle, Handle, ListedName};
use super::inode::{self, Identity};
use super::inspection::INSPECT;
use super::nodes::{DraftPlace, Generated, Node, SealedPlace, View, draft_number};
use super::{Filesystem, Found, FsError, version};
use crate::format::manifest::EntryIndex;

/// `.` and `..` come before the entries.
const DOTS: u64 = 2;

/// An entry of a directory as it is listed.
#[derive(Debug)]
pub struct Entry<'a> {
    pub name: &'a OsStr,
    pub number: u64,
    pub kind: Kind,
    /// Where to go on after this entry.
    pub next: u64,
    /// With attributes where those were asked for, counted as a look-up; never of `.` and `..`.
    pub found: Option<Found>,
}

/// Whether there was room for an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    More,
    /// There was not: the entry was not taken.
    Full,
}

/// What is listed of each entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    Names,
    Attributes,
}

/// A name with its kind and what its number is made of.
pub(super) type Named = (OsString, Kind, Identity);

impl Filesystem {
    /// Opens a directory for listing.
    pub fn open_directory(&self, requester: Requester, number: u64) -> Result<Opened, FsError> {
        let node = self.node(number)?;
        if node.kind().is_some_and(|kind| kind != Kind::Directory) {
            return Err(FsError::NotDirectory);
        }
        let cache = match &*node {
            Node::Sealed(_) => Cache::Keep,
            _ => Cache::Plain,
        };
        let names = Mutex::new(None);
        let directory = DirectoryHandle { node, number, requester, names };
        let (handle, _) = self.handles.add(Handle::Directory(directory));
        Ok(Opened { handle, cache, stream: false, no_flush: true, backing: None })
    }

    /// Hands the entries from `offset` on to `take`, until there are no more or no more room.
    pub fn list(
        &self,
        handle: u64,
        offset: u64,
        detail: Detail,
        take: &mut dyn FnMut(&Entry<'_>) -> Flow,
    ) -> Result<(), FsError> {
        let handle = self.handles.get(handle)?;
        let Handle::Directory(directory) = &*handle else { return Err(FsError::NotDirectory) };
        let dots = [(".", directory.number), ("..", self.parent_number(directory))];
        for (index, (name, number)) in (0..).zip(dots) {
            let name = OsStr::new(name);
            let entry = Entry { name, number, kind: Kind::Directory, next: index + 1, found: None };
            if offset <= index && take(&entry) == Flow::Full {
                return Ok(());
            }
        }
        let first = offset.saturating_sub(DOTS);
        match &*directory.node {
            Node::Sealed(place) => {
                self.list_sealed(directory.requester, place, first, detail, take)
            }
            node => {
                let names = self.names_of(directory, offset)?;
                let start = usize::try_from(first).unwrap_or(usize::MAX).min(names.len());
                for (index, listed) in (first + DOTS..).zip(&names[start..]) {
                    let entry = Entry {
                        name: &listed.name,
                        number: listed.number,
                        kind: listed.kind,
                        next: index + 1,
                        found: None,
                    };
                    if self.hand_over((directory.requester, node), entry, detail, take)
                        == Flow::Full
                    {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    fn list_sealed(
        &self,
        requester: Requester,
        place: &SealedPlace,
        first: u64,
        detail: Detail,
        take: &mut dyn FnMut(&Entry<'_>) -> Flow,
    ) -> Result<(), FsError> {
        let parent = Node::Sealed(place.clone());
        let children = place.manifest.children(place.entry);
        let skipped = usize::try_from(first).unwrap_or(usize::MAX);
        for (index, child) in (first + DOTS..).zip(children.skip(skipped)) {
            let child = EntryIndex(child);
            let node = Node::Sealed(place.child(child));
            let entry = Entry {
                name: OsStr::from_bytes(place.manifest.name(child)),
                number: self.nodes.number(&node.identity()),
                kind: version::kind(&place.manifest.entry(child).node),
                next: index + 1,
                found: None,
            };
            if self.hand_over((requester, &parent), entry, detail, take) == Flow::Full {
                break;
            }
        }
        Ok(())
    }

    /// Looks the entry up where attributes are wanted, and takes that back if there is no room.
    fn hand_over(
        &self,
        (requester, parent): (Requester, &Node),
        mut entry: Entry<'_>,
        detail: Detail,
        take: &mut dyn FnMut(&Entry<'_>) -> Flow,
    ) -> Flow {
        if detail == Detail::Attributes {
            let child = self.child(requester, parent, entry.name);
            let found = child.and_then(|child| child.map(|child| self.found(child)).transpose());
            // Gone or unreadable by now: who looks it up gets the reason.
            let Ok(Some(found)) = found else { return Flow::More };
            (entry.number, entry.kind) = (found.attributes.number, found.attributes.kind);
            entry.found = Some(found);
        }
        let flow = take(&entry);
        if flow == Flow::Full && entry.found.is_some() {
            self.forget(entry.number, 1);
        }
        flow
    }

    /// The listing of a handle; a new one where it is read from the start.
    fn names_of(
        &self,
        directory: &DirectoryHandle,
        offset: u64,
    ) -> Result<Arc<Vec<ListedName>>, FsError> {
        if offset > 0
            && let Some(names) = &*directory.names.lock()
        {
            return Ok(Arc::clone(names));
        }
        let listed = match &*directory.node {
            Node::Draft(place) => self.draft_listing(place)?,
            node => self.listing(directory.requester, node)?,
        };
        let names = Arc::new(listed);
        *directory.names.lock() = Some(Arc::clone(&names));
        Ok(names)
    }

    fn listing(&self, requester: Requester, node: &Node) -> Result<Vec<ListedName>, FsError> {
        let named = match node {
            Node::Root => self.root_names(),
            Node::Model { name, .. } => self.model_names(name)?,
            Node::Info(scope) => {
                let entry = |file: Generated| {
                    let identity = Node::Generated(scope.clone(), file).identity();
                    (file.name().into(), Kind::File, identity)
                };
                let files = Generated::all(scope).iter().copied().map(entry);
                let deeds = scope.iter().flat_map(|model| {
                    Deed::ALL.map(|deed| {
                        let identity = Node::Deeds(model.clone(), deed).identity();
                        (deed.name().into(), Kind::Directory, identity)
                    })
                });
                let schemas = scope
                    .is_none()
                    .then(|| (SCHEMAS.into(), Kind::Directory, Node::Schemas.identity()));
                let inspections = scope.iter().map(|model| {
                    let identity = Node::Inspections(model.clone()).identity();
                    (INSPECT.into(), Kind::Directory, identity)
                });
                files.chain(deeds).chain(schemas).chain(inspections).collect()
            }
            Node::Schemas => {
                let node = Node::Generated(None, Generated::Schema);
                vec![(Generated::Schema.name().into(), Kind::File, node.identity())]
            }
            Node::Deeds(model, deed) => self.deed_names(model, *deed)?,
            Node::Inspections(model) => self.inspection_names(model)?,
            // Every moment is in the one, every pair of versions in the other.
            Node::PastRoot | Node::Diffs(_) => Vec::new(),
            Node::Past(moment) => self.past_models(moment)?,
            Node::PastModel(moment, model) => self.past_names(requester, moment, model)?,
            Node::DataRoot => self.data_names(requester),
            Node::Data(data) => self.data_link_names(requester, data),
            Node::Live(None) => self.live_names(requester),
            Node::Live(Some(model)) => self.model_live_names(model),
            Node::LiveAlias(at) => self.live_models(requester, at),
            Node::LiveEmpty(..) => Vec::new(),
            Node::Sealed(_)
            | Node::Draft(_)
            | Node::Generated(..)
            | Node::Control(_)
            | Node::Deed(..)
            | Node::Made(_)
            | Node::Alias(_)
            | Node::DataLink(_)
            | Node::Temporary(..) => return Err(FsError::NotDirectory),
        };
        let number = |(name, kind, identity)| ListedName {
            name,
            kind,
            number: self.nodes.number(&identity),
        };
        Ok(named.into_iter().map(number).collect())
    }

    fn draft_listing(&self, place: &DraftPlace) -> Result<Vec<ListedName>, FsError> {
        let entries = place.tree.list(place.node).map_err(FsError::Draft)?;
        let listed = entries.into_iter().map(|entry| {
            let identity = draft_number(&place.model, (place.backing.0, entry.ino));
            let kind = super::draft::kind(entry.kind);
            ListedName { name: entry.name, kind, number: identity.candidate(0) }
        });
        Ok(listed.collect())
    }

    /// The number of `..`; a draft's directories show their own, as the kernel never asks.
    fn parent_number(&self, directory: &DirectoryHandle) -> u64 {
        let root_of = |name| match self.root_child(OsStr::new(name)) {
            Some(child) => self.nodes.number(&child.node.identity()),
            None => inode::ROOT,
        };
        match &*directory.node {
            Node::Root
            | Node::Model { .. }
            | Node::Info(None)
            | Node::PastRoot
            | Node::DataRoot
            | Node::Live(None) => inode::ROOT,
            Node::Past(_) => self.nodes.number(&Node::PastRoot.identity()),
            Node::PastModel(moment, _) => self.nodes.number(&Node::Past(moment.clone()).identity()),
            Node::Info(Some(model)) | Node::Live(Some(model)) | Node::Diffs(model) => {
                root_of(model.as_str())
            }
            Node::Schemas => self.nodes.number(&Node::Info(None).identity()),
            Node::Deeds(model, _) | Node::Inspections(model) => {
                self.nodes.number(&Node::Info(Some(model.clone())).identity())
            }
            Node::Data(_) => self.nodes.number(&Node::DataRoot.identity()),
            Node::LiveAlias(_) => self.nodes.number(&Node::Live(None).identity()),
            Node::LiveEmpty(model, _) => {
                self.nodes.number(&Node::Live(Some(model.clone())).identity())
            }
            Node::Sealed(place) if place.entry != EntryIndex::ROOT => {
                self.nodes.number(&place.view.identity(&place.id, place.parent))
            }
            Node::Sealed(place) => match &place.view {
                View::Model => root_of(place.manifest.model.as_str()),
                View::Live(at) => self.nodes.number(&Node::LiveAlias(at.clone()).identity()),
                View::Past(name) => {
                    let moment = super::past::Moment::parse(name);
                    let model = place.manifest.model.clone();
                    let parent = moment.map(|moment| Node::PastModel(moment.into(), model));
                    parent.map_or(directory.number, |it| self.nodes.number(&it.identity()))
                }
                View::ModelLive(_) => {
                    let model = place.manifest.model.clone();
                    self.nodes.number(&Node::Live(Some(model)).identity())
                }
            },
            _ => directory.number,
        }
    }
}
