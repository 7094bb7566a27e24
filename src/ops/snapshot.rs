//! Sealing: the draft, or any directory or file, becomes an immutable version.
//!
//! The order is that of DESIGN: chunks into packs, the manifest, the history record; only then does
//! the draft go. Whatever fails before the record leaves the draft and the versions as they were.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::contents::{OpenFile, Sealing, Stored, Tracked, put_metadata, read_user_metadata};
use super::gate::{Newcomer, new_access};
use super::metadata::{self, Facts, Text};
use super::quiet::once_closed;
use super::retarget::{Must, Wish};
use super::source::{Root, SourceTree, mtime_from};
use super::{
    Context, OpsError, Progress, SealStatus, SnapshotOptions, SnapshotReport, Source, Workspace,
    permit, permit_access, said,
};
use crate::format::ids::{ManifestId, TreeDigest};
use crate::format::manifest::Manifest;
use crate::format::names::{At, ModelName, VersionNumber};
use crate::format::record::{Op, Seal};
use crate::governance::{Action, Power};
use crate::store::draft::{FreezeError, FrozenDraft};
use crate::store::{ChunkWriter, Written};
use crate::sys::identity;

/// Longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Takes the model off the list of those being sealed.
struct SealingGuard<'a> {
    workspace: &'a Workspace,
    model: ModelName,
    sealing: Arc<Sealing>,
}

impl Drop for SealingGuard<'_> {
    fn drop(&mut self) {
        self.workspace.sealing.lock().remove(&self.model);
    }
}

/// Sees to it that the files are still what they were when somebody looked at them.
fn check_content(source: &Source, stored: &Stored) -> Result<(), OpsError> {
    let Source::Taken(taken) = source else { return Ok(()) };
    let Some(expected) = taken.content else { return Ok(()) };
    let files = stored.source.files().map(|file| (file.path.clone(), stored.source.digest(&file)));
    if taken.content_of(files) == expected {
        return Ok(());
    }
    Err(OpsError::NotAsPlanned { path: taken.path.clone() })
}

/// Looks whether what is outside can be sealed: what is there, and what is said of it. What its files hold is
/// not looked at.
///
/// # Errors
/// As sealing it.
pub fn check_outside(options: &SnapshotOptions) -> Result<(), OpsError> {
    said::check(options)?;
    let look = || {
        let root = Root::outside(&options.source)?;
        let source = root.walk()?;
        check_any(options, &source)?;
        if source.has_user_metadata {
            read_user_metadata(&mut |path| root.open_file(path))?;
        }
        Ok(())
    };
    look().map_err(|error| about_outside(error, &options.source))
}

/// Sees to it that there is something to seal.
fn check_any(options: &SnapshotOptions, source: &SourceTree) -> Result<(), OpsError> {
    if 2 < source.tree.entry_count() {
        return Ok(());
    }
    let what = match options.source.outside() {
        None => "the draft".to_owned(),
        Some((path, _)) => format!("`{}`", path.display()),
    };
    Err(OpsError::Empty { model: options.model.clone(), what })
}

/// The same error with the paths that it names in full.
fn about_outside(error: OpsError, source: &Source) -> OpsError {
    let (path, files) = source.outside().expect("it is no draft");
    let is_directory = std::fs::metadata(path).is_ok_and(|found| found.is_dir());
    let base = if is_directory { Some(path) } else { path.parent() };
    match files {
        [] => error.below(base.unwrap_or(path)),
        files => error.about_files(files),
    }
}

impl Workspace {
    /// Seals a version. Same content and same metadata as before: the version that is there.
    ///
    /// # Errors
    /// `DraftBusy`, `SealInProgress`, `Empty`, `Unfit`, `Changed`, `Denied`, or the store's.
    pub fn snapshot(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        progress: &dyn Progress,
    ) -> Result<SnapshotReport, OpsError> {
        said::check(options)?;
        self.permit_snapshot(context, options)?;
        self.permit_or_record(context, &options.model, &Power::Snapshot)?;
        if let Some(alias) = &options.alias {
            self.permit_or_record(context, &options.model, &Power::Move(alias.clone()))?;
        }
        let guard = self.begin_sealing(&options.model, context.now)?;
        let model = &options.model;
        let tracked = Tracked { model, progress, sealing: &guard.sealing };
        if let Source::Draft { sub } = &options.source {
            let sub = sub.as_deref().unwrap_or(Path::new(""));
            let base = Path::new(options.model.as_str()).join("draft");
            return self
                .snapshot_draft(context, options, sub, &tracked)
                .map_err(|e| e.below(&base));
        }
        let sealed = self.snapshot_outside(context, options, &tracked);
        sealed.map_err(|error| about_outside(error, &options.source))
    }

    /// A path outside may be sealed into a model that is still to be made.
    fn permit_snapshot(
        &self,
        context: &Context,
        options: &SnapshotOptions,
    ) -> Result<(), OpsError> {
        let state = self.state();
        match &options.source {
            Source::Path(_) | Source::Taken(_) if state.model(&options.model).is_none() => {
                permit_access(context, state.root_access(), Action::Write, "the store")
            }
            Source::Path(_) | Source::Taken(_) | Source::Draft { .. } => {
                permit(&state, context, &options.model, Action::Write)
            }
        }
    }

    /// Snapshots under way.
    pub fn sealing(&self) -> Vec<SealStatus> {
        let sealing = self.sealing.lock();
        let status = sealing.iter().map(|(model, sealing)| {
            let (bytes_total, files_total) = *sealing.total.lock();
            let bytes_done = sealing.bytes_done.load(Ordering::Relaxed);
            let (model, since) = (model.clone(), sealing.since);
            SealStatus { model, bytes_done, bytes_total, files_total, since }
        });
        status.collect()
    }

    fn begin_sealing(
        &self,
        model: &ModelName,
        now: Timestamp,
    ) -> Result<SealingGuard<'_>, OpsError> {
        let mut running = self.sealing.lock();
        if running.contains_key(model) {
            return Err(OpsError::SealInProgress { model: model.clone() });
        }
        let (bytes_done, total) = (AtomicU64::new(0), Mutex::new((0, 0)));
        let sealing = Arc::new(Sealing { bytes_done, total, since: now });
        running.insert(model.clone(), sealing.clone());
        Ok(SealingGuard { workspace: self, model: model.clone(), sealing })
    }

    fn snapshot_draft(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        sub: &Path,
        progress: &Tracked<'_>,
    ) -> Result<SnapshotReport, OpsError> {
        let model = &options.model;
        let draft = self.draft(model)?;
        let is_busy =
            |frozen: &Result<_, FreezeError>| matches!(frozen, Err(FreezeError::Busy { .. }));
        let frozen = once_closed(|| draft.freeze(sub), is_busy).map_err(|error| match error {
            FreezeError::Busy { paths } => OpsError::DraftBusy { model: model.clone(), paths },
            FreezeError::Frozen { .. } => OpsError::SealInProgress { model: model.clone() },
            FreezeError::NotFound { path } => {
                let why = "there is no such directory in the draft".to_owned();
                OpsError::Unfit { path, why }
            }
            FreezeError::Io { path, source } => OpsError::file("freeze", path, source),
        })?;
        let directory = frozen.directory().try_clone();
        let directory = directory.map_err(|e| OpsError::file("open", frozen.path(), e))?;
        let root = Root::Directory(directory.into());
        let walked = root.walk_beside(&options.captured)?;
        self.seal(
            context,
            options,
            walked,
            &mut |path| root.open_file(path),
            Some(frozen),
            progress,
        )
    }

    fn snapshot_outside(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        progress: &Tracked<'_>,
    ) -> Result<SnapshotReport, OpsError> {
        if !context.assume {
            let root = Root::outside(&options.source)?;
            let walked = root.walk_beside(&options.captured)?;
            let mut open = |path: &Path| root.open_file(path);
            return self.seal(context, options, walked, &mut open, None, progress);
        }
        self.snapshot_outside_as_caller(context, options, progress)
    }

    /// Files are found and opened by a thread that has the caller's rights and nothing else to do;
    /// they are read, and the store is written, by this one.
    fn snapshot_outside_as_caller(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        progress: &Tracked<'_>,
    ) -> Result<SnapshotReport, OpsError> {
        let caller = &context.caller;
        let (path, _) = options.source.outside().expect("it is no draft");
        let (ask, asked) = mpsc::sync_channel::<PathBuf>(0);
        let (give, given) = mpsc::sync_channel::<io::Result<File>>(0);
        let (tell, told) = mpsc::sync_channel::<Result<SourceTree, OpsError>>(1);
        std::thread::scope(|scope| {
            let opener = scope.spawn(move || {
                identity::run_as(caller.uid, caller.gid, &caller.groups, move || {
                    let opened = Root::outside(&options.source);
                    let root = match opened
                        .and_then(|root| Ok((root.walk_beside(&options.captured)?, root)))
                    {
                        Ok((walked, root)) => {
                            // The other side is waiting for exactly this.
                            let _ = tell.send(Ok(walked));
                            root
                        }
                        Err(error) => {
                            let _ = tell.send(Err(error));
                            return;
                        }
                    };
                    // Ends when the other side has all it wants and drops its end.
                    while let Ok(path) = asked.recv() {
                        if give.send(root.open_file(&path)).is_err() {
                            return;
                        }
                    }
                })
            });
            let gone = || io::Error::other("the thread with the caller's rights has ended");
            let sealed = told
                .recv()
                .unwrap_or_else(|_| Err(OpsError::file("read as the caller", path, gone())));
            let sealed = sealed.and_then(|walked| {
                let mut open = |path: &Path| {
                    ask.send(path.to_owned()).map_err(|_| gone())?;
                    given.recv().unwrap_or_else(|_| Err(gone()))
                };
                self.seal(context, options, walked, &mut open, None, progress)
            });
            drop(ask);
            match opener.join() {
                Ok(Err(error)) => Err(OpsError::file("act as the caller on", path, error)),
                Ok(Ok(())) => sealed,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// From a walked source to a version.
    fn seal(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        source: SourceTree,
        open: &mut OpenFile<'_>,
        frozen: Option<FrozenDraft>,
        progress: &Tracked<'_>,
    ) -> Result<SnapshotReport, OpsError> {
        check_any(options, &source)?;
        *progress.sealing.total.lock() = (source.bytes, source.file_count);
        progress.begin("sealing", source.bytes);
        self.give_way(source.bytes);
        self.store.with_chunk_writer(|mut writer| {
            let is_draft = frozen.is_some();
            let stored = self.store_files(source, open, is_draft, &mut writer, progress)?;
            check_content(&options.source, &stored)?;
            let user = stored.user.as_ref();
            let fingerprint = said::fingerprint(stored.digest, options, user);
            let sealed = self.find_sealed(&options.model, &fingerprint)?;
            let Some((version, manifest)) = sealed else {
                return self.publish(context, options, stored, fingerprint, writer, frozen);
            };
            // What was found damaged there was put anew, and the draft is about to go.
            let stored_bytes = writer.finish()?.stored_bytes;
            self.move_alias(context, options, version)?;
            let mut report = self.report(context, options, version, &stored, stored_bytes, true);
            let consumed = frozen
                .and_then(|it| self.consume_draft(&options.model, it, &stored.movable(), manifest));
            report.notes.extend(consumed);
            Ok(report)
        })
    }

    /// The version that has this fingerprint, if its manifest can be read.
    fn find_sealed(
        &self,
        name: &ModelName,
        fingerprint: &TreeDigest,
    ) -> Result<Option<(VersionNumber, ManifestId)>, OpsError> {
        let (number, manifest) = {
            let state = self.state();
            let Some(model) = state.model(name) else { return Ok(None) };
            let body = model.body()?;
            let Some(version) = body.versions.by_fingerprint(fingerprint) else { return Ok(None) };
            (version.number, version.manifest)
        };
        // From disk, whatever the cache holds: the draft goes on the word of it.
        match self.store.load_manifest(&manifest) {
            Ok(_) => Ok(Some((number, manifest))),
            Err(error) => {
                log::error!("`{name}/{number}` has to be sealed anew: {error}");
                Ok(None)
            }
        }
    }

    /// Moves the alias that the snapshot asks for to a version that was there.
    pub(super) fn move_alias(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        version: VersionNumber,
    ) -> Result<(), OpsError> {
        let Some(alias) = options.alias.clone() else { return Ok(()) };
        let (model, to) = (options.model.clone(), Some(At::Version(version)));
        self.retarget(context, &[Wish { model, alias, to, must: Must::Any }], &options.message)?;
        Ok(())
    }

    /// Makes everything durable in its order, and the version known.
    fn publish(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        mut stored: Stored,
        fingerprint: TreeDigest,
        writer: ChunkWriter<'_>,
        frozen: Option<FrozenDraft>,
    ) -> Result<SnapshotReport, OpsError> {
        self.ensure_model(context, &options.model)?;
        let (version, supersedes) = self.next_version(&options.model)?;
        let at = (self.clock)();
        let (digest, found) = (stored.digest, std::mem::take(&mut stored.found));
        let (user, found) = (stored.user.take(), &found);
        let facts = Facts { options, context, at, version, supersedes, digest, user, found };
        let movable = stored.movable();
        let (manifest, stored_bytes) = self.make_manifest(&facts, &mut stored, writer)?;
        let data = metadata::data_digests(&manifest.metadata);
        let id = self.store.put_manifest(&manifest)?;
        drop(manifest);
        if let Some(frozen) = &frozen {
            self.write_intent(&options.model, id, frozen)?;
        }
        let newcomer = Newcomer { version, manifest: id };
        let committed = self.commit(&Context { now: at, ..context.clone() }, |state, now| {
            // Again: reading takes long, and the model may have been closed, or made anew by another.
            permit(state, context, &options.model, Action::Write)?;
            let model = state.model(&options.model).expect("permitted, so it is there");
            assert_eq!(model.next_version(), version, "one snapshot of a model at a time");
            if let Err(forbidden) = self.permit_power(state, context, model, &Power::Snapshot)? {
                return Ok(forbidden.into());
            }
            let step = |alias| model.move_to(alias, Some(version));
            let moves = options.alias.as_ref().map(step).into_iter().collect();
            self.judged(state, context, now, moves, Some(newcomer), |moves| {
                Op::Seal(Box::new(Seal {
                    model: options.model.clone(),
                    version,
                    manifest: id,
                    digest,
                    fingerprint,
                    message: options.message.clone(),
                    files: stored.source.file_count,
                    bytes: stored.source.bytes,
                    stored_bytes,
                    follows: supersedes,
                    moves,
                    data: data.clone(),
                }))
            })
        });
        if committed.is_err() && frozen.is_some() {
            self.drop_intent(&options.model);
        }
        let line = committed?.expect("a version is recorded or refused");
        let mut report = self.report(context, options, version, &stored, stored_bytes, false);
        let consumed = frozen.and_then(|it| self.consume_draft(&options.model, it, &movable, id));
        report.notes.extend(consumed);
        if let Op::Seal(seal) = &line.record.op {
            self.warm_later(&seal.moves);
        }
        Ok(report)
    }

    /// Stores `metadata.json`, and makes all chunks durable; the manifest, and what the chunks took.
    fn make_manifest(
        &self,
        facts: &Facts<'_>,
        stored: &mut Stored,
        mut writer: ChunkWriter<'_>,
    ) -> Result<(Manifest, u64), OpsError> {
        let (model, head) = (facts.options.model.clone(), metadata::head(facts));
        let text = Text::new(&head, stored.listed());
        let (text_digest, first) = put_metadata(&mut writer, text, self.store.config().chunking)?;
        let Written { chunks, stored_bytes } = writer.finish()?;
        let (mut tree, tensors) = stored.with_chunks(&chunks, text_digest, first);
        drop(chunks);
        tree.set_mtime(stored.source.metadata, mtime_from(facts.at.into()));
        let manifest = Manifest::new(model, facts.version, head, tree).with_tensors(&tensors);
        assert_eq!(manifest.digest, facts.digest, "the metadata is no part of the tree's digest");
        Ok((manifest, stored_bytes))
    }

    fn ensure_model(&self, context: &Context, name: &ModelName) -> Result<(), OpsError> {
        if self.state().model(name).is_some() {
            return Ok(());
        }
        match self.create_model(context, name, new_access(context)) {
            // Somebody was faster; whether that one lets us in is asked where it is recorded.
            Ok(()) | Err(OpsError::ModelExists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn next_version(
        &self,
        name: &ModelName,
    ) -> Result<(VersionNumber, Option<VersionNumber>), OpsError> {
        let state = self.state();
        let Some(model) = state.model(name) else {
            return Err(OpsError::NoModel { model: name.clone() });
        };
        Ok((model.next_version(), model.latest().map(|version| version.number)))
    }

    fn report(
        &self,
        context: &Context,
        options: &SnapshotOptions,
        version: VersionNumber,
        stored: &Stored,
        stored_bytes: u64,
        existing: bool,
    ) -> SnapshotReport {
        let elapsed = (self.clock)().duration_since(context.now).as_millis();
        SnapshotReport {
            model: options.model.clone(),
            version,
            digest: stored.digest,
            files: stored.source.file_count,
            bytes: stored.source.bytes,
            stored_bytes,
            ms: u64::try_from(elapsed).unwrap_or(0),
            existing,
            notes: stored.source.notes.clone(),
        }
    }
}
