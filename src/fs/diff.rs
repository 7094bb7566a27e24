//! `.diff/v6..v7` of a model: what changed, as text; `v6..v7.json` the same for programs.
//!
//! The text is made when the file is opened, on a thread of its own, since tensors may have to be read. An
//! open waits for it for a while; what takes longer goes on, and the next open finds it. Versions never
//! change, so a text that was made holds for ever and is kept as long as there is room.

use std::ffi::OsStr;
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
use super::handles::Handle;
use super::inode::Identity;
use super::model::system_time;
use super::nodes::Node;
use super::{Child, Filesystem, FsError, Opened, Requester};
use crate::format::ids::ManifestId;
use crate::format::names::{At, ModelName, Reference, VersionNumber};
use crate::ops::{Context, DiffOptions, DiffReport, NoProgress, Workspace};
use crate::present;
use crate::registry::model::Version;

/// The directory's name.
pub(super) const DIFF: &str = ".diff";

/// Between the two versions in a name.
const BETWEEN: &str = "..";
/// At the end of a name for programs.
const JSON_ENDING: &str = ".json";
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

/// How a diff is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    Text,
    Json,
}

/// A version that a name meant when it was looked up.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Side {
    number: VersionNumber,
    manifest: ManifestId,
    sealed: Timestamp,
}

/// A file of `.diff`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DiffPlace {
    pub model: ModelName,
    before: Side,
    after: Side,
    form: Form,
}

impl DiffPlace {
    pub fn identity(&self) -> Identity {
        let form: &[u8] = match self.form {
            Form::Text => b"text",
            Form::Json => b"json",
        };
        let (before, after) = (&self.before.manifest, &self.after.manifest);
        let model = self.model.as_str().as_bytes();
        Identity::of("diff", &[model, before.as_bytes(), after.as_bytes(), form])
    }

    fn options(&self) -> DiffOptions {
        let reference =
            |side: &Side| Reference { model: self.model.clone(), at: At::Version(side.number) };
        DiffOptions { before: reference(&self.before), after: reference(&self.after) }
    }
}

/// Where texts are made and kept.
pub(super) struct Diffs {
    texts: Cache<DiffPlace, Arc<str>, TextWeight>,
    running: AtomicUsize,
}

#[derive(Clone)]
struct TextWeight;

impl Weighter<DiffPlace, Arc<str>> for TextWeight {
    fn weight(&self, _: &DiffPlace, text: &Arc<str>) -> u64 {
        text.len() as u64
    }
}

impl Default for Diffs {
    fn default() -> Self {
        let texts = Cache::with_weighter(TEXTS_TYPICAL, TEXTS_BYTES_MAX, TextWeight);
        Self { texts, running: AtomicUsize::new(0) }
    }
}

impl Diffs {
    fn make(
        &self,
        workspace: &Workspace,
        context: &Context,
        place: &DiffPlace,
    ) -> Result<Arc<str>, FsError> {
        let report = workspace.diff(context, &place.options(), &NoProgress)?;
        let text: Arc<str> = written(&report, place.form).into();
        self.texts.insert(place.clone(), Arc::clone(&text));
        Ok(text)
    }

    fn take_slot(self: &Arc<Self>) -> Result<Slot, FsError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst);
        let slot = Slot { diffs: Arc::clone(self) };
        if RUNNING_MAX <= running {
            return Err(FsError::TooManyDiffs { running });
        }
        Ok(slot)
    }
}

/// One of the texts that are being made; given back when dropped.
struct Slot {
    diffs: Arc<Diffs>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.diffs.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// All ways to read `before..after`: an alias may have dots, too.
fn readings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let places =
        (0..text.len()).filter(|at| text.as_bytes()[*at..].starts_with(BETWEEN.as_bytes()));
    places.map(|at| (&text[..at], &text[at + BETWEEN.len()..]))
}

fn written(report: &DiffReport, form: Form) -> String {
    match form {
        Form::Text => present::text(&present::diff(report, present::ROWS_SHOWN)),
        Form::Json => {
            let value = serde_json::to_value(report).expect("a report has text keys only");
            format!("{value}\n")
        }
    }
}

/// What became of an open.
#[derive(Debug)]
pub enum Opening {
    Done(Opened),
    /// Wait for it on a thread that serves no other request.
    Pending(PendingDiff),
}

impl Opening {
    /// What was opened, however long that takes.
    ///
    /// # Errors
    /// As [`PendingDiff::wait`].
    pub fn wait(self, filesystem: &Filesystem) -> Result<Opened, FsError> {
        match self {
            Self::Done(opened) => Ok(opened),
            Self::Pending(pending) => pending.wait(filesystem),
        }
    }
}

/// A text that is being made.
#[derive(Debug)]
pub struct PendingDiff {
    place: DiffPlace,
    made: Receiver<Result<Arc<str>, FsError>>,
}

impl PendingDiff {
    /// Blocks until the text was made, at most half a minute, and opens it.
    ///
    /// # Errors
    /// `SlowDiff` after that time, or why it could not be made.
    pub fn wait(self, filesystem: &Filesystem) -> Result<Opened, FsError> {
        let made = match self.made.recv_timeout(ANSWER_TIME_MAX) {
            Ok(made) => made,
            Err(RecvTimeoutError::Timeout) => Err(FsError::SlowDiff),
            Err(RecvTimeoutError::Disconnected) => Err(FsError::Panic),
        };
        let text = filesystem.explained(&Node::Diff(self.place), made)?;
        Ok(filesystem.opened_text(Handle::Shared(text)))
    }
}

impl Filesystem {
    /// `/churn/.diff/<name>`: two versions that are there, by number or alias.
    pub(super) fn diff_child(
        &self,
        model: &ModelName,
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        let Some(name) = name.to_str() else { return Ok(None) };
        let json = name.strip_suffix(JSON_ENDING).map(|rest| (rest, Form::Json));
        // An alias may end in `.json`: the longer name is tried first.
        for (text, form) in std::iter::once((name, Form::Text)).chain(json) {
            for (before, after) in readings(text) {
                let (before, after) = (self.side(model, before)?, self.side(model, after)?);
                if let (Some(before), Some(after)) = (before, after) {
                    let place = DiffPlace { model: model.clone(), before, after, form };
                    return Ok(Some(Child::moving(Node::Diff(place))));
                }
            }
        }
        Ok(None)
    }

    /// The version that a part of a name means now.
    fn side(&self, model: &ModelName, text: &str) -> Result<Option<Side>, FsError> {
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
    pub(super) fn diff_attributes(&self, place: &DiffPlace) -> Result<Attributes, FsError> {
        let made = self.diffs.texts.get(place);
        let bytes = made.map_or(SIZE_BYTES, |text| text.len() as u64);
        let at = system_time(place.before.sealed.max(place.after.sealed));
        let attributes = self.model_facts(&place.model)?.file(0o444, bytes);
        Ok(Attributes { accessed: at, modified: at, changed: at, ..attributes })
    }

    /// Opens a text that is there, or begins to make it.
    pub(super) fn open_diff(
        &self,
        requester: Requester,
        place: &DiffPlace,
    ) -> Result<Opening, FsError> {
        if let Some(text) = self.diffs.texts.get(place) {
            return Ok(Opening::Done(self.opened_text(Handle::Shared(text))));
        }
        let slot = self.diffs.take_slot()?;
        let (sender, made) = mpsc::channel();
        let (workspace, context) = (Arc::clone(&self.workspace), self.context(requester));
        let place = place.clone();
        let pending = PendingDiff { place: place.clone(), made };
        let work = move || {
            let make = || slot.diffs.make(&workspace, &context, &place);
            let made = catch_unwind(AssertUnwindSafe(make)).unwrap_or(Err(FsError::Panic));
            drop(slot);
            // Nobody listens any more where it took too long: the text is kept for the next one.
            drop(sender.send(made));
        };
        thread::Builder::new().name("diff".to_owned()).spawn(work).map_err(FsError::Thread)?;
        Ok(Opening::Pending(pending))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_every_way_that_it_can_be() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            assert_eq!(readings(text).collect::<Vec<_>>(), expected, "{text}");
        };
        check("v6..v7", &[("v6", "v7")]);
        check("v6...x", &[("v6", ".x"), ("v6.", "x")]);
        check("a..b..c", &[("a", "b..c"), ("a..b", "c")]);
        check("é..ü", &[("é", "ü")]);
        check("v6.v7", &[]);
        check("", &[]);
    }
}
