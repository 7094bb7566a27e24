//! Where drafts live, and what becomes of a draft that was sealed.
//!
//! Invariant O2: a tree goes away only after the record that seals it is durable. Between the two a
//! small intent says which tree goes with which manifest, so that a start after a crash can finish.
//! Invariant O3: an intent never outlives the freeze of its tree in a process that goes on: what is
//! written into the tree after that is nobody's to take.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::hot::Movable;
use super::{OpsError, Workspace};
use crate::format::ids::ManifestId;
use crate::format::names::ModelName;
use crate::format::path;
use crate::format::record::Access;
use crate::store::StoreError;
use crate::store::draft::{DraftTree, FrozenDraft};
use crate::sys::{at, io as durable};

/// Longest intent that is read.
const INTENT_BYTES_MAX: u64 = 64 << 10;
/// End of an intent's file name.
const INTENT_SUFFIX: &str = "~intent";

/// "This tree of the draft becomes that manifest."
#[derive(Serialize, Deserialize)]
struct Intent {
    manifest: ManifestId,
    #[serde(with = "path")]
    sub: PathBuf,
    /// The tree's own inode: what stands in its place after it is gone has another.
    ino: u64,
}

impl Workspace {
    /// A model's draft, made where there is none.
    ///
    /// # Errors
    /// `NoModel`, or the file system's.
    pub fn draft(&self, name: &ModelName) -> Result<DraftTree, OpsError> {
        if let Some(tree) = self.drafts.lock().get(name) {
            return Ok(tree.clone());
        }
        let Some(access) = self.state().model(name).map(|model| model.access) else {
            return Err(OpsError::NoModel { model: name.clone() });
        };
        let path = self.store.layout().draft(name);
        let failed = |e| OpsError::file("make the draft", &path, e);
        let mut drafts = self.drafts.lock();
        if let Some(tree) = drafts.get(name) {
            return Ok(tree.clone());
        }
        if path.symlink_metadata().is_err() {
            self.make_draft(&path, access).map_err(failed)?;
        }
        let tree = DraftTree::open(&path).map_err(failed)?;
        drafts.insert(name.clone(), tree.clone());
        Ok(tree)
    }

    /// Makes an empty draft: with its owner and mode before it has its name, which is durable before
    /// anything in it can be.
    fn make_draft(&self, path: &Path, access: Access) -> std::io::Result<()> {
        let (io, layout) = (&**self.store.io(), self.store.layout());
        let fresh = durable::temporary_path(&layout.temporary());
        io.create_directory(&fresh)?;
        DraftTree::open(&fresh).and_then(|tree| set_access(&tree, access))?;
        io.rename(&fresh, path)?;
        durable::sync_directory(io, &layout.drafts());
        Ok(())
    }

    /// Gives the draft the owner, group and mode of its model.
    pub(super) fn adopt_draft(&self, name: &ModelName, access: Access) -> Result<(), OpsError> {
        let tree = self.draft(name)?;
        set_access(&tree, access)
            .map_err(|e| OpsError::file("set the owner or mode of", tree.directory(), e))
    }

    /// Removes the empty draft of a model that is gone.
    pub(super) fn forget_draft(&self, name: &ModelName) {
        self.drafts.lock().remove(name);
        let path = self.store.layout().draft(name);
        if let Err(error) = std::fs::remove_dir(&path) {
            log::warn!("the empty draft `{}` stays behind: {error}", path.display());
        }
    }

    /// Writes down what is about to be sealed.
    pub(super) fn write_intent(
        &self,
        name: &ModelName,
        manifest: ManifestId,
        frozen: &FrozenDraft,
    ) -> Result<(), OpsError> {
        let path = self.store.layout().draft_intent(name);
        let status = at::status(frozen.directory());
        let ino = status.map_err(|e| OpsError::file("stat", frozen.path(), e))?.ino;
        let intent = Intent { manifest, sub: frozen.sub().to_owned(), ino };
        let bytes = serde_json::to_vec(&intent)
            .map_err(|e| OpsError::file("write", &path, std::io::Error::other(e)))?;
        let temporary = self.store.layout().temporary();
        let (io, put) = (&**self.store.io(), durable::Put::Replace);
        durable::write_durably(io, &temporary, &path, &bytes, put)
            .map_err(|e| StoreError::io("write", &path, e).into())
    }

    /// The record is not there, so nothing was sealed.
    pub(super) fn drop_intent(&self, name: &ModelName) {
        let path = self.store.layout().draft_intent(name);
        match self.store.io().remove_file(&path) {
            // What was sealed before needs no intent.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                log::warn!("`{}` stays behind until the next start: {error}", path.display());
            }
            Ok(()) => {}
        }
    }

    /// The version is there: the sealed tree goes, and its large files become hot. Where it cannot go,
    /// it stays as it is, and the answer says so.
    pub(super) fn consume_draft(
        &self,
        name: &ModelName,
        frozen: FrozenDraft,
        sealed: &[Movable],
        version: ManifestId,
    ) -> Option<String> {
        let away = durable::temporary_path(&self.store.layout().temporary());
        match frozen.consume(&away) {
            Ok(held) => {
                self.drop_intent(name);
                self.keep_hot(&away, version, sealed, &held);
                let io = self.store.io().clone();
                // Removing many files takes a while, and nobody needs to wait for it.
                let remove = move || {
                    if let Err(error) = io.remove_tree(&away) {
                        log::warn!("`{}` goes at the next start: {error}", away.display());
                    }
                };
                let removing = std::thread::Builder::new().name("remove".to_owned()).spawn(remove);
                if let Err(error) = removing {
                    log::warn!("the sealed draft of `{name}` goes at the next start: {error}");
                }
                None
            }
            Err(error) => {
                // Not at the next start: by then it may hold what nobody has sealed (O3).
                self.drop_intent(name);
                log::warn!("the sealed draft of `{name}` stays: {error}");
                Some(format!("what was sealed is still in the draft, remove it there: {error}"))
            }
        }
    }

    /// Finishes what a process that ended in between had begun: called once, at open.
    pub(super) fn finish_intents(&self) -> Result<(), OpsError> {
        let directory = self.store.layout().drafts();
        let failed = |e| OpsError::from(StoreError::io("list", &directory, e));
        for path in self.store.io().list(&directory).map_err(failed)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let model = name.and_then(|name| name.strip_suffix(INTENT_SUFFIX));
            let Some(model) = model.and_then(|name| name.parse::<ModelName>().ok()) else {
                continue;
            };
            // What cannot be read was cut off before the record was made.
            let intent = durable::read_file(&**self.store.io(), &path, INTENT_BYTES_MAX).ok();
            let intent = intent.and_then(|bytes| serde_json::from_slice::<Intent>(&bytes).ok());
            let sealed = match intent {
                Some(intent) if self.is_sealed(&model, intent.manifest)? => Some(intent),
                Some(_) | None => None,
            };
            match sealed {
                None => self.drop_intent(&model),
                Some(intent) => match self.draft(&model)?.freeze(&intent.sub) {
                    Ok(frozen) if is_tree(&frozen, intent.ino) => {
                        // The one note there can be was logged.
                        drop(self.consume_draft(&model, frozen, &[], intent.manifest));
                    }
                    // The tree is gone already; only the intent was left.
                    Ok(_) | Err(_) => self.drop_intent(&model),
                },
            }
        }
        Ok(())
    }

    fn is_sealed(&self, model: &ModelName, manifest: ManifestId) -> Result<bool, OpsError> {
        let state = self.state();
        let Some(model) = state.model(model) else { return Ok(false) };
        Ok(model.body()?.versions.iter().rev().any(|version| version.manifest == manifest))
    }
}

fn is_tree(frozen: &FrozenDraft, ino: u64) -> bool {
    at::status(frozen.directory()).is_ok_and(|status| status.ino == ino)
}

/// Only root can give files away.
fn set_access(tree: &DraftTree, access: Access) -> std::io::Result<()> {
    let Access { uid, gid, mode } = access;
    tree.set_root_access(mode, at::is_root().then_some((uid, gid)))
}
