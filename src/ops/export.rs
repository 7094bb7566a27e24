//! Exporting: a version's files as plain files in a directory of the caller's, and documents about it.
//!
//! Invariant E1: the directory has its name only once everything in it is whole: each chunk was
//! compared with its digest on the way.
//! Invariant E2: the store is read with our rights, the caller's directory written with the
//! caller's: never the other way round.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    Context, Document, ExportOptions, ExportReport, OpsError, Progress, VersionSummary, Workspace,
};
use crate::format::manifest::{ChunkRef, Entry, EntryIndex, Manifest, Mtime, Node};
use crate::store::StoreError;
use crate::sys::{at, identity};

/// Modes of what is written: plain files that their owner can change again.
const FILE_MODE: u32 = 0o644;
const EXECUTABLE_MODE: u32 = 0o755;
const DIRECTORY_MODE: u32 = 0o755;

/// What is written.
struct Outgoing<'a> {
    manifest: &'a Manifest,
    /// Their names and texts.
    documents: Vec<(&'static str, Vec<u8>)>,
    documents_only: bool,
}

/// Reads a chunk of the store.
type ReadChunk<'a> = dyn FnMut(&ChunkRef) -> Result<Vec<u8>, OpsError> + 'a;

impl Workspace {
    /// Writes a version's files, with the caller's rights where those are to be assumed.
    pub(super) fn export(
        &self,
        context: &Context,
        options: &ExportOptions,
        progress: &dyn Progress,
    ) -> Result<ExportReport, OpsError> {
        let summary = self.resolve(context, &options.reference)?;
        let manifest = self.manifest(&summary.manifest)?;
        let documents = self.documents(options, &summary, &manifest)?;
        let ExportOptions { documents_only, .. } = *options;
        let outgoing = Outgoing { manifest: &manifest, documents, documents_only };
        progress.begin("exporting", if documents_only { 0 } else { summary.bytes });
        let (files, bytes) = if context.assume {
            self.write_tree_as_caller(context, &outgoing, &options.directory, progress)?
        } else {
            let mut read = |chunk: &ChunkRef| Ok(self.store.read_chunk(chunk)?);
            write_tree(&outgoing, &options.directory, &mut read, progress)?
        };
        let names = outgoing.documents.iter().map(|(name, _)| (*name).to_owned());
        Ok(ExportReport {
            model: options.reference.model.clone(),
            version: summary.version,
            directory: options.directory.clone(),
            files,
            bytes,
            documents: names.collect(),
        })
    }

    /// The documents that are asked for, which may not have the name of a file.
    fn documents(
        &self,
        options: &ExportOptions,
        summary: &VersionSummary,
        manifest: &Manifest,
    ) -> Result<Vec<(&'static str, Vec<u8>)>, OpsError> {
        if options.documents.is_empty() {
            return Ok(Vec::new());
        }
        let (model, version) = (&options.reference.model, summary.version);
        let described = self.described(model, version, &summary.manifest)?;
        let document = |document: &Document| {
            let name = document.name();
            let is_taken = manifest.find(EntryIndex::ROOT, name.as_bytes()).is_some();
            if is_taken && !options.documents_only {
                let why = format!("{model}/{version} has a file of its own called `{name}`");
                return Err(OpsError::Option { what: "the documents", why });
            }
            Ok((name, document.text(&described)?))
        };
        options.documents.iter().map(document).collect()
    }

    /// The files are written by a thread that has the caller's rights and nothing else to do; the
    /// store, which is closed to the caller, is read by this one (E2).
    fn write_tree_as_caller(
        &self,
        context: &Context,
        outgoing: &Outgoing<'_>,
        directory: &Path,
        progress: &dyn Progress,
    ) -> Result<(u64, u64), OpsError> {
        let caller = &context.caller;
        let (ask, asked) = mpsc::sync_channel::<ChunkRef>(0);
        let (give, given) = mpsc::sync_channel::<Result<Vec<u8>, StoreError>>(0);
        // The closure owns its ends: should it panic, the writer does not wait for ever.
        std::thread::scope(move |scope| {
            let writer = scope.spawn(move || {
                identity::run_as(caller.uid, caller.gid, &caller.groups, move || {
                    let gone =
                        || std::io::Error::other("the thread that reads the store has ended");
                    let mut read = |chunk: &ChunkRef| {
                        let asked = ask.send(*chunk).ok().and_then(|()| given.recv().ok());
                        match asked {
                            Some(read) => Ok(read?),
                            None => Err(OpsError::file("export to", directory, gone())),
                        }
                    };
                    let (parent, name) = enter_parent(directory)?;
                    let written = write_tree(outgoing, name, &mut read, progress);
                    written.map_err(|error| error.below(parent))
                })
            });
            // Ends when the writer has all it wants and drops its end.
            while let Ok(chunk) = asked.recv() {
                if give.send(self.store.read_chunk(&chunk)).is_err() {
                    break;
                }
            }
            match writer.join() {
                Ok(Ok(written)) => written,
                Ok(Err(error)) => Err(OpsError::file("act as the caller on", directory, error)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Goes to where the directory is to be, with this thread alone, and gives that place and its name in
/// it: a path is resolved once, and never through what this process has open.
fn enter_parent(directory: &Path) -> Result<(&Path, &Path), OpsError> {
    let failed = |e| OpsError::file("export to", directory, e);
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Err(no_name(directory));
    };
    at::open_named(parent).and_then(at::enter).map_err(failed)?;
    Ok((parent, Path::new(name)))
}

fn write_tree(
    outgoing: &Outgoing<'_>,
    directory: &Path,
    read: &mut ReadChunk<'_>,
    progress: &dyn Progress,
) -> Result<(u64, u64), OpsError> {
    if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(OpsError::NotEmpty { path: directory.to_owned() });
    }
    let partial = partial_of(directory)?;
    make_directory(&partial).map_err(|e| OpsError::file("create", &partial, e))?;
    let written = write_all(outgoing, &partial, read, progress).and_then(|counts| {
        fs::rename(&partial, directory).map_err(|e| OpsError::file("rename to", directory, e))?;
        Ok(counts)
    });
    if written.is_err() {
        // Best effort: the error says more than a second one would.
        let _ = fs::remove_dir_all(&partial);
    }
    written
}

fn write_all(
    outgoing: &Outgoing<'_>,
    root: &Path,
    read: &mut ReadChunk<'_>,
    progress: &dyn Progress,
) -> Result<(u64, u64), OpsError> {
    // First: they are small, and may not go through.
    for (name, text) in &outgoing.documents {
        let path = root.join(name);
        fs::write(&path, text).map_err(|e| OpsError::file("write", &path, e))?;
    }
    match outgoing.documents_only {
        true => Ok((0, 0)),
        false => write_entries(outgoing.manifest, root, read, progress),
    }
}

fn write_entries(
    manifest: &Manifest,
    root: &Path,
    read: &mut ReadChunk<'_>,
    progress: &dyn Progress,
) -> Result<(u64, u64), OpsError> {
    let mut entries = Vec::new();
    manifest.walk(|path, index, entry| {
        entries.push((root.join(OsStr::from_bytes(path)), index, entry));
    });
    let (mut files, mut bytes) = (0, 0);
    for (path, index, entry) in &entries {
        let failed = |e| OpsError::file("write", path, e);
        match &entry.node {
            Node::Directory { .. } => make_directory(path).map_err(failed)?,
            Node::Symlink { .. } => {
                let target = OsStr::from_bytes(manifest.target(*index));
                std::os::unix::fs::symlink(target, path).map_err(failed)?;
            }
            Node::File(file) => {
                let mode = if file.executable { EXECUTABLE_MODE } else { FILE_MODE };
                let mut out = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(mode)
                    .open(path)
                    .map_err(failed)?;
                for chunk in manifest.chunks(file) {
                    out.write_all(&read(chunk)?).map_err(failed)?;
                    progress.advance(u64::from(chunk.bytes));
                }
                set_time(&out, entry).map_err(failed)?;
                (files, bytes) = (files + 1, bytes + file.bytes);
            }
        }
    }
    // Directories last, and the deepest first: filling them moved their times.
    for (path, _, entry) in entries.iter().rev() {
        if matches!(entry.node, Node::Directory { .. }) {
            File::open(path)
                .and_then(|directory| set_time(&directory, entry))
                .map_err(|e| OpsError::file("set the time of", path, e))?;
        }
    }
    Ok((files, bytes))
}

fn make_directory(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)
}

/// Where the files are until all of them are there: beside the directory.
fn partial_of(directory: &Path) -> Result<PathBuf, OpsError> {
    let Some(name) = directory.file_name() else { return Err(no_name(directory)) };
    let mut partial = name.to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    Ok(directory.with_file_name(partial))
}

fn no_name(directory: &Path) -> OpsError {
    let why = format!("`{}` has no name of its own", directory.display());
    OpsError::Option { what: "the directory", why }
}

fn set_time(file: &File, entry: &Entry) -> std::io::Result<()> {
    file.set_times(FileTimes::new().set_modified(system_time(entry.mtime)))
}

/// A manifest's time as the system has it; before 1970 the seconds are negative.
fn system_time(mtime: Mtime) -> SystemTime {
    let seconds = Duration::from_secs(mtime.seconds.unsigned_abs());
    let whole = if mtime.seconds < 0 {
        UNIX_EPOCH.checked_sub(seconds)
    } else {
        UNIX_EPOCH.checked_add(seconds)
    };
    let nanos = Duration::from_nanos(u64::from(mtime.nanos));
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}
