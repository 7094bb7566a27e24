//! Files whose text is made when they are opened: which there are, and how they are opened.
//!
//! Versions never change, so a text that was made holds for ever. `texts` makes and keeps it.

use std::sync::Arc;

use jiff::Timestamp;

use super::answer::Attributes;
use super::diff::DiffPlace;
use super::handles::Handle;
use super::inode::Identity;
use super::inspection::InspectionPlace;
use super::model::system_time;
use super::nodes::Node;
use super::texts::{Begun, Waiter};
use super::{Filesystem, FsError, Opened, Requester};
use crate::format::ids::ManifestId;
use crate::format::names::{At, ModelName, Reference, VersionNumber};
use crate::ops::{Context, Progress, Workspace};
use crate::registry::model::Version;

/// Size in `stat` of a text that was not made yet: a file of size 0 would be empty to sendfile(2).
const SIZE_BYTES: u64 = 4_096;

/// A version that a name meant when it was looked up.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Side {
    pub number: VersionNumber,
    pub manifest: ManifestId,
    pub sealed: Timestamp,
}

impl Side {
    pub fn reference(&self, model: &ModelName) -> Reference {
        Reference { model: model.clone(), at: At::Version(self.number) }
    }
}

/// A file whose text is made when it is opened.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum MadePlace {
    Diff(DiffPlace),
    Inspection(InspectionPlace),
}

impl MadePlace {
    pub fn model(&self) -> &ModelName {
        match self {
            Self::Diff(place) => &place.model,
            Self::Inspection(place) => &place.model,
        }
    }

    pub fn identity(&self) -> Identity {
        match self {
            Self::Diff(place) => place.identity(),
            Self::Inspection(place) => place.identity(),
        }
    }

    /// When the newest version that it is about was sealed.
    fn sealed(&self) -> Timestamp {
        match self {
            Self::Diff(place) => place.sealed(),
            Self::Inspection(place) => place.sealed(),
        }
    }

    /// What gives the same on the command line.
    pub(super) fn command(&self) -> String {
        match self {
            Self::Diff(place) => place.command(),
            Self::Inspection(place) => place.command(),
        }
    }

    /// The text, or nothing where it is too long; given up once `progress` is cancelled.
    pub(super) fn make(
        &self,
        workspace: &Workspace,
        context: &Context,
        progress: &dyn Progress,
    ) -> Result<Option<Vec<u8>>, FsError> {
        match self {
            Self::Diff(place) => place.make(workspace, context, progress),
            Self::Inspection(place) => place.make(workspace, context, progress),
        }
    }
}

/// What became of an open.
#[derive(Debug)]
pub enum Opening {
    Done(Opened),
    /// Wait for it on a thread that serves no other request.
    Pending(PendingText),
}

impl Opening {
    /// What was opened, however long that takes.
    ///
    /// # Errors
    /// As [`PendingText::wait`].
    pub fn wait(self, filesystem: &Filesystem) -> Result<Opened, FsError> {
        match self {
            Self::Done(opened) => Ok(opened),
            Self::Pending(pending) => pending.wait(filesystem),
        }
    }
}

impl Filesystem {
    /// The version that a part of a name means now.
    pub(super) fn side(&self, model: &ModelName, text: &str) -> Result<Option<Side>, FsError> {
        let Ok(at) = text.parse::<At>() else { return Ok(None) };
        let state = self.workspace.state();
        let Some(model) = state.model(model) else { return Ok(None) };
        let side = |version: Version| {
            let Version { number, manifest, sealed, .. } = version;
            Side { number, manifest, sealed }
        };
        Ok(model.version(&at)?.map(side))
    }

    /// As large as the text where that was made; as old as the later version.
    pub(super) fn made_attributes(&self, place: &MadePlace) -> Result<Attributes, FsError> {
        let bytes = self.texts.kept(place).map_or(SIZE_BYTES, |text| text.len() as u64);
        let at = system_time(place.sealed());
        let attributes = self.model_facts(place.model())?.file(0o444, bytes);
        Ok(Attributes { accessed: at, modified: at, changed: at, ..attributes })
    }

    /// Opens a text that is there, or begins to make it.
    pub(super) fn open_made(
        &self,
        requester: Requester,
        place: &MadePlace,
    ) -> Result<Opening, FsError> {
        let context = self.context(requester);
        let (workspace, of) = (Arc::clone(&self.workspace), place.clone());
        let make = move |progress: &dyn Progress| of.make(&workspace, &context, progress);
        match self.texts.begin(requester.uid, place, make)? {
            Begun::There(text) => self.open_text(requester.uid, text).map(Opening::Done),
            Begun::Awaited(waiter) => {
                Ok(Opening::Pending(PendingText { place: place.clone(), waiter }))
            }
        }
    }

    pub(super) fn open_text(&self, uid: u32, text: Arc<[u8]>) -> Result<Opened, FsError> {
        Ok(self.opened_text(Handle::Shared(self.texts.open(uid, text)?)))
    }
}

/// An open that waits for its text.
#[derive(Debug)]
pub struct PendingText {
    place: MadePlace,
    waiter: Waiter,
}

impl PendingText {
    /// Blocks until the text was made, at most half a minute, and opens it.
    ///
    /// # Errors
    /// `SlowText` after that time, or why it could not be made.
    pub fn wait(self, filesystem: &Filesystem) -> Result<Opened, FsError> {
        let made = self.waiter.wait();
        let opened = made.and_then(|text| filesystem.open_text(self.waiter.uid(), text));
        filesystem.explained(&Node::Made(self.place.into()), opened)
    }
}
