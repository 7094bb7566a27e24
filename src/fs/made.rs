//! Texts that take a while: made when they are opened, on a thread of their own.
//!
//! An open waits for its text for a while; what takes longer goes on, and the next open finds it.
//! Versions never change, so a text that was made holds for ever and is kept as long as there is room.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::answer::Attributes;
use super::diff::DiffPlace;
use super::handles::Handle;
use super::inode::Identity;
use super::inspection::InspectionPlace;
use super::model::system_time;
use super::nodes::Node;
use super::{Filesystem, FsError, Opened, Requester};
use crate::format::ids::ManifestId;
use crate::format::names::{At, ModelName, Reference, VersionNumber};
use crate::ops::{Context, Workspace};
use crate::registry::model::Version;

/// How long an open waits: it cannot be interrupted, not even by SIGKILL.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Most texts that are made, or wait to be, at one time.
const RUNNING_MAX: usize = 16;
/// Bytes of texts that are kept.
const TEXTS_BYTES_MAX: u64 = 32 << 20;
/// Estimate of the texts that are kept, for sizing the table.
const TEXTS_TYPICAL: usize = 256;
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

    fn make(&self, workspace: &Workspace, context: &Context) -> Result<String, FsError> {
        match self {
            Self::Diff(place) => place.make(workspace, context),
            Self::Inspection(place) => place.make(workspace, context),
        }
    }
}

/// Where texts are made and kept.
pub(super) struct Texts {
    texts: Cache<MadePlace, Arc<str>, TextWeight>,
    running: AtomicUsize,
}

#[derive(Clone)]
struct TextWeight;

impl Weighter<MadePlace, Arc<str>> for TextWeight {
    fn weight(&self, _: &MadePlace, text: &Arc<str>) -> u64 {
        text.len() as u64
    }
}

impl Default for Texts {
    fn default() -> Self {
        let texts = Cache::with_weighter(TEXTS_TYPICAL, TEXTS_BYTES_MAX, TextWeight);
        Self { texts, running: AtomicUsize::new(0) }
    }
}

impl Texts {
    fn make(
        &self,
        workspace: &Workspace,
        context: &Context,
        place: &MadePlace,
    ) -> Result<Arc<str>, FsError> {
        let text: Arc<str> = place.make(workspace, context)?.into();
        self.texts.insert(place.clone(), Arc::clone(&text));
        Ok(text)
    }

    fn take_slot(self: &Arc<Self>) -> Result<Slot, FsError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst);
        let slot = Slot { texts: Arc::clone(self) };
        if RUNNING_MAX <= running {
            return Err(FsError::TooManyTexts { running });
        }
        Ok(slot)
    }
}

/// One of the texts that are being made; given back when dropped.
struct Slot {
    texts: Arc<Texts>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.texts.running.fetch_sub(1, Ordering::SeqCst);
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

/// A text that is being made.
#[derive(Debug)]
pub struct PendingText {
    place: MadePlace,
    made: Receiver<Result<Arc<str>, FsError>>,
}

impl PendingText {
    /// Blocks until the text was made, at most half a minute, and opens it.
    ///
    /// # Errors
    /// `SlowText` after that time, or why it could not be made.
    pub fn wait(self, filesystem: &Filesystem) -> Result<Opened, FsError> {
        let made = match self.made.recv_timeout(ANSWER_TIME_MAX) {
            Ok(made) => made,
            Err(RecvTimeoutError::Timeout) => Err(FsError::SlowText),
            Err(RecvTimeoutError::Disconnected) => Err(FsError::Panic),
        };
        let text = filesystem.explained(&Node::Made(self.place), made)?;
        Ok(filesystem.opened_text(Handle::Shared(text)))
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
        let made = self.texts.texts.get(place);
        let bytes = made.map_or(SIZE_BYTES, |text| text.len() as u64);
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
        if let Some(text) = self.texts.texts.get(place) {
            return Ok(Opening::Done(self.opened_text(Handle::Shared(text))));
        }
        let slot = self.texts.take_slot()?;
        let (sender, made) = mpsc::channel();
        let (workspace, context) = (Arc::clone(&self.workspace), self.context(requester));
        let place = place.clone();
        let pending = PendingText { place: place.clone(), made };
        let work = move || {
            let make = || slot.texts.make(&workspace, &context, &place);
            let made = catch_unwind(AssertUnwindSafe(make)).unwrap_or(Err(FsError::Panic));
            drop(slot);
            // Nobody listens any more where it took too long: the text is kept for the next one.
            drop(sender.send(made));
        };
        thread::Builder::new().name("text".to_owned()).spawn(work).map_err(FsError::Thread)?;
        Ok(Opening::Pending(pending))
    }
}
