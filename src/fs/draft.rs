//! Drafts: operations of the mount on the directory where the next version is put together.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::answer::{Attributes, Kind, NewTime};
use super::nodes::{Draft, DraftPlace, Node};
use super::{Changes, Child, Filesystem, FsError, RenameMode, Requester};
use crate::format::names::ModelName;
use crate::store::draft::{Creator, EntryKind, NodeId, SetAttributes, SetTime, Status};

/// What the disk says of an object, under the mount's number.
pub(super) fn attributes(status: &Status, number: u64) -> Attributes {
    Attributes {
        number,
        kind: kind(status.kind()),
        mode: status.permissions(),
        links: u32::try_from(status.nlink).unwrap_or(u32::MAX),
        uid: status.uid,
        gid: status.gid,
        bytes: status.size,
        blocks: status.blocks,
        block_bytes: status.block_bytes,
        // FUSE has 32 bits for a device; Linux's encoding of small numbers is the same in 64.
        device: u32::try_from(status.rdev).unwrap_or(0),
        accessed: status.atime,
        modified: status.mtime,
        changed: status.ctime,
    }
}

pub(super) fn kind(kind: EntryKind) -> Kind {
    match kind {
        EntryKind::File => Kind::File,
        EntryKind::Directory => Kind::Directory,
        EntryKind::Symlink => Kind::Symlink,
        EntryKind::Fifo => Kind::Fifo,
        EntryKind::Socket => Kind::Socket,
        EntryKind::CharacterDevice => Kind::CharacterDevice,
        EntryKind::BlockDevice => Kind::BlockDevice,
    }
}

impl DraftPlace {
    /// An object of the same draft.
    pub(super) fn sibling(&self, (node, status): (NodeId, Status)) -> Child {
        let backing = (status.dev, status.ino);
        let place = Self { draft: Arc::clone(&self.draft), node, backing };
        Child { node: Node::Draft(place), status: Some(status), entry_ttl: Duration::ZERO }
    }
}

pub(super) fn creator(requester: Requester) -> Creator {
    Creator { uid: requester.uid, gid: requester.gid }
}

impl Filesystem {
    /// The draft's own directory, made when it is first looked for.
    pub(super) fn draft_root(&self, model: &ModelName) -> Result<Child, FsError> {
        let seq = self.workspace.state().model(model).ok_or(FsError::Missing)?.seq;
        let tree = self.workspace.draft(model)?;
        let status = tree.status(NodeId::ROOT).map_err(FsError::Draft)?;
        let (model, backing) = (model.clone(), (status.dev, status.ino));
        let draft = Arc::new(Draft { model, seq, tree });
        let node = Node::Draft(DraftPlace { draft, node: NodeId::ROOT, backing });
        Ok(Child { node, status: Some(status), entry_ttl: Duration::ZERO })
    }

    pub(super) fn draft_child(
        &self,
        place: &DraftPlace,
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        match place.tree.lookup(place.node, name) {
            Ok(found) => Ok(Some(place.sibling(found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FsError::Draft(error)),
        }
    }

    pub(super) fn change_draft(
        &self,
        place: &DraftPlace,
        changes: &Changes,
    ) -> Result<(), FsError> {
        let set_time = |time: NewTime| match time {
            NewTime::Now => SetTime::Now,
            NewTime::At(time) => SetTime::At(time),
        };
        let change = SetAttributes {
            mode: changes.mode.map(|mode| mode & 0o7777),
            uid: changes.uid,
            gid: changes.gid,
            size: changes.bytes,
            atime: changes.accessed.map(set_time),
            mtime: changes.modified.map(set_time),
        };
        place.tree.set_attributes(place.node, &change).map(drop).map_err(FsError::Draft)
    }

    pub(super) fn make_draft_directory(
        &self,
        requester: Requester,
        place: &DraftPlace,
        name: &OsStr,
        mode: u32,
    ) -> Result<Child, FsError> {
        let made = place.tree.make_directory(place.node, name, mode, &creator(requester));
        made.map(|made| place.sibling(made)).map_err(FsError::Draft)
    }

    pub(super) fn make_draft_node(
        &self,
        requester: Requester,
        place: &DraftPlace,
        name: &OsStr,
        mode: u32,
        device: u32,
    ) -> Result<Child, FsError> {
        let creator = creator(requester);
        let made = place.tree.make_node(place.node, name, mode, device.into(), &creator);
        made.map(|made| place.sibling(made)).map_err(FsError::Draft)
    }

    pub(super) fn make_draft_link(
        &self,
        requester: Requester,
        place: &DraftPlace,
        name: &OsStr,
        target: &OsStr,
    ) -> Result<Child, FsError> {
        let made = place.tree.symlink(place.node, name, target, &creator(requester));
        made.map(|made| place.sibling(made)).map_err(FsError::Draft)
    }

    pub(super) fn link_draft(
        &self,
        source: &DraftPlace,
        place: &DraftPlace,
        name: &OsStr,
    ) -> Result<Child, FsError> {
        if !source.is_beside(place) {
            return Err(FsError::OtherTree);
        }
        let made = place.tree.link(source.node, place.node, name);
        made.map(|made| place.sibling(made)).map_err(FsError::Draft)
    }

    pub(super) fn rename_draft(
        &self,
        (old, from): (&DraftPlace, &OsStr),
        (new, to): (&DraftPlace, &OsStr),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        if !old.is_beside(new) {
            return Err(FsError::OtherTree);
        }
        let flags = match mode {
            RenameMode::Replace => 0,
            RenameMode::KeepExisting => libc::RENAME_NOREPLACE,
            RenameMode::Exchange => libc::RENAME_EXCHANGE,
        };
        old.tree.rename(old.node, from, new.node, to, flags).map_err(FsError::Draft)
    }
}
