//! Open files and directories of the mount, by handle number.
//!
//! A handle is opened once and released once; the kernel keeps the inode until then.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::FsError;
use super::answer::{Kind, Requester};
use super::control::ControlHandle;
use super::deed::Deed;
use super::nodes::{Node, SealedPlace};
use super::texts::OpenText;
use crate::format::names::{At, ModelName};
use crate::ops::Caller;
use crate::store::draft::DraftFile;
use crate::store::hot::HotFile;

/// An entry as a directory handle keeps it.
#[derive(Clone, Debug)]
pub struct ListedName {
    pub name: OsString,
    pub number: u64,
    pub kind: Kind,
}

/// A directory that is open for listing.
#[derive(Debug)]
pub struct DirectoryHandle {
    pub node: Arc<Node>,
    /// The number by which it was opened.
    pub number: u64,
    /// Who opened it: what they may not know of is not listed.
    pub requester: Requester,
    /// The entries as they were at the last read from the start, so that a listing neither repeats
    /// nor misses one that stays. Sealed directories keep none: they are their own listing.
    pub names: Mutex<Option<Arc<Vec<ListedName>>>>,
}

/// What a handle is open to.
#[derive(Debug)]
pub enum Handle {
    /// With the hot file that holds the same bytes, where there was one, and the bytes that were
    /// decoded for its readers.
    Sealed(SealedPlace, Option<HotFile>, AtomicU64),
    Draft(DraftFile),
    /// A text as it was when it was opened.
    Text(Vec<u8>),
    /// A text that is the same for all who open it.
    Shared(OpenText),
    /// The history, which grows while it is open; a model's with the record that made the model.
    History(Option<(ModelName, u64)>),
    Control(ControlHandle),
    /// A file for commands about a version or an alias, with the record that made the model, and who
    /// opened it.
    Deed {
        model: ModelName,
        seq: u64,
        deed: Deed,
        at: At,
        opener: Caller,
    },
    Directory(DirectoryHandle),
}

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    open: HashMap<u64, Arc<Handle>>,
}

/// All open handles. Their number is limited by the descriptors of the processes that opened them.
#[derive(Debug, Default)]
pub struct HandleTable {
    /// No other lock is taken while it is held.
    inner: Mutex<Inner>,
}

impl HandleTable {
    /// Keeps a handle under a number that was never used before.
    pub fn add(&self, handle: Handle) -> (u64, Arc<Handle>) {
        let handle = Arc::new(handle);
        let mut inner = self.inner.lock();
        inner.last += 1;
        let number = inner.last;
        inner.open.insert(number, Arc::clone(&handle));
        (number, handle)
    }

    /// The handle with this number.
    pub fn get(&self, number: u64) -> Result<Arc<Handle>, FsError> {
        self.inner.lock().open.get(&number).map(Arc::clone).ok_or(FsError::Handle)
    }

    /// Lets go of a handle; the answer is dropped by the caller, outside the lock.
    pub fn remove(&self, number: u64) -> Option<Arc<Handle>> {
        self.inner.lock().open.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_gone_after_its_release() {
        let table = HandleTable::default();
        let (first, _) = table.add(Handle::Text(vec![1]));
        let (second, _) = table.add(Handle::Text(vec![2]));
        assert_ne!(first, second);
        assert!(table.remove(first).is_some());
        let error = table.get(first).unwrap_err();
        assert!(matches!(error, FsError::Handle), "{error:?}");
        assert!(table.get(second).is_ok());
    }
}
