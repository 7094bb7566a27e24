//! What the files of a version tell of themselves, and of how it was made.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::metadata::Described;
use super::said;
use super::tensors::describe_file;
use crate::capture::{Finder, Found};

/// Files that say in the metadata what they are.
const DESCRIBED_COUNT_MAX: usize = 1_000;

/// Files being asked, in their order.
#[derive(Default)]
pub(super) struct Telling {
    finder: Finder,
    described_count: usize,
}

impl Telling {
    /// Asks the next file; what it says of itself.
    ///
    /// # Errors
    /// As reading it.
    pub fn ask(
        &mut self,
        path: &Path,
        opened: &File,
        bytes: u64,
        format: &str,
    ) -> io::Result<Option<Box<Described>>> {
        if self.finder.wants(path, bytes) {
            let mut whole = vec![0; usize::try_from(bytes).unwrap_or(0)];
            opened.read_exact_at(&mut whole, 0)?;
            self.finder.take(path, whole);
        }
        if DESCRIBED_COUNT_MAX <= self.described_count {
            return Ok(None);
        }
        let described = describe_file(path, opened, bytes, format);
        self.described_count += usize::from(described.is_some());
        Ok(described)
    }

    /// What the files, which said all this of themselves, say of how they were made. What the one model among
    /// them takes and gives is told by its graph rather than by a file beside it.
    pub fn finish<'a>(self, described: impl Iterator<Item = &'a Described>) -> Found {
        let mut found = self.finder.finish();
        let told = described.filter_map(|described| described.interface.as_ref());
        if let [interface] = told.take(2).collect::<Vec<_>>()[..] {
            found.members.insert("interface".to_owned(), interface.clone());
        }
        said::vetted(found)
    }
}
