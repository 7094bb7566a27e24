//! Where things are inside a store: the one place that knows its file names.

use std::path::{Path, PathBuf};

use crate::format::ids::{BlobDigest, ManifestId, PackId};
use crate::format::names::ModelName;

/// The file's name in the catalog's directory.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// Digits of a history record's file name: enough for every 64-bit number.
const SEQ_DIGITS: usize = 20;

/// The paths of one store.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the store in `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The store's own directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn config(&self) -> PathBuf {
        self.root.join("modelfs.json")
    }

    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub fn socket(&self) -> PathBuf {
        self.root.join("daemon.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("daemon.log")
    }

    /// Files that have no name yet; emptied at every start.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub fn catalog(&self) -> PathBuf {
        self.root.join("catalog")
    }

    /// What the history adds up to. Beside the databases, which it outlives.
    pub fn checkpoint(&self) -> PathBuf {
        self.catalog().join(CHECKPOINT)
    }

    pub fn packs(&self) -> PathBuf {
        self.root.join("packs")
    }

    pub fn pack(&self, id: &PackId) -> PathBuf {
        below(self.packs(), &id.to_string())
    }

    pub fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub fn manifest(&self, id: &ManifestId) -> PathBuf {
        below(self.manifests(), &id.to_string())
    }

    pub fn history(&self) -> PathBuf {
        self.root.join("history")
    }

    pub fn record(&self, seq: u64) -> PathBuf {
        self.history().join(format!("{seq:0SEQ_DIGITS$}.json"))
    }

    /// Whole plaintext files of versions: a cache that may be deleted at any time.
    pub fn hot(&self) -> PathBuf {
        self.root.join("hot")
    }

    pub fn hot_file(&self, digest: &BlobDigest) -> PathBuf {
        self.hot().join(digest.to_string())
    }

    pub fn hot_index(&self) -> PathBuf {
        self.hot().join("index")
    }

    pub fn drafts(&self) -> PathBuf {
        self.root.join("draft")
    }

    pub fn draft(&self, model: &ModelName) -> PathBuf {
        self.drafts().join(model.as_str())
    }

    /// Says which tree of a draft goes with which manifest. No model's name holds a `~`.
    pub fn draft_intent(&self, model: &ModelName) -> PathBuf {
        self.drafts().join(format!("{model}~intent"))
    }

    /// The directories that a store has from its first moment on.
    pub fn directories(&self) -> [PathBuf; 7] {
        [
            self.temporary(),
            self.packs(),
            self.manifests(),
            self.history(),
            self.hot(),
            self.drafts(),
            self.catalog(),
        ]
    }

    /// `path` as it is named in messages: below the store.
    pub fn name_of(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
}

/// Two levels, so that no directory grows too large to list.
fn below(directory: PathBuf, name: &str) -> PathBuf {
    directory.join(&name[..2]).join(name)
}
