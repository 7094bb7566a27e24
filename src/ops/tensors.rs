//! Where the tensors of a file lie, as the chunker wants to know it.
//!
//! A file that is of no known format, or whose header does not parse, has no tensors: it is cut by
//! its content, and that is never an error.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::chunker::{Segment, segments};
use crate::format::codec::Elements;
use crate::inspect::{Dtype, ExternalTensor, ReadAt, TensorTable, external_table, tensors};

/// Smaller files are cut as a whole anyhow.
const FILE_BYTES_MIN: u64 = 1_024;

/// A file that is being sealed.
struct Sealed<'a> {
    file: &'a File,
    bytes: u64,
}

impl ReadAt for Sealed<'_> {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What files say of the tensors in files beside them.
#[derive(Debug, Default)]
pub(super) struct External {
    by_path: HashMap<PathBuf, Vec<ExternalTensor>>,
}

impl External {
    /// Whether a file of this name can say something of others.
    pub fn is_spoken_of_by(path: &Path) -> bool {
        path.extension() == Some(OsStr::new("onnx"))
    }

    /// Keeps what the file at `path` says of others.
    ///
    /// # Errors
    /// As reading it.
    pub fn learn(&mut self, path: &Path, file: &File, bytes: u64) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let table = table_of(path, file, bytes)?;
        for tensor in table.into_iter().flat_map(|table| table.external) {
            let place = directory.join(OsStr::new(&tensor.location));
            self.by_path.entry(place).or_default().push(tensor);
        }
        Ok(())
    }

    /// The segments of the file at `path`.
    ///
    /// # Errors
    /// As reading its header.
    pub fn segments_of(&self, path: &Path, file: &File, bytes: u64) -> io::Result<Vec<Segment>> {
        let table = match self.by_path.get(path) {
            Some(spoken_of) => Some(external_table(&spoken_of.iter().collect::<Vec<_>>(), bytes)),
            None => table_of(path, file, bytes)?,
        };
        let places = table.map_or_else(Vec::new, |table| {
            let place = |tensor: crate::inspect::Tensor| (tensor.bytes, elements_of(tensor.dtype));
            table.tensors.into_iter().map(place).collect()
        });
        Ok(segments(&places, bytes))
    }
}

fn table_of(path: &Path, file: &File, bytes: u64) -> io::Result<Option<TensorTable>> {
    if bytes < FILE_BYTES_MIN {
        return Ok(None);
    }
    let name = path.file_name().unwrap_or_default();
    tensors(&Sealed { file, bytes }, name)
}

/// The hint for the codec: only the size counts where a dtype is known here by no other name.
fn elements_of(dtype: Dtype) -> Elements {
    match dtype {
        Dtype::F64 => Elements::F64,
        Dtype::F32 => Elements::F32,
        Dtype::F16 => Elements::F16,
        Dtype::Bf16 => Elements::Bf16,
        Dtype::F8E4m3 | Dtype::F8E5m2 => Elements::F8,
        Dtype::I64 | Dtype::U64 => Elements::I64,
        Dtype::I32 | Dtype::U32 => Elements::I32,
        Dtype::I16 | Dtype::U16 => Elements::I16,
        Dtype::I8 | Dtype::U8 => Elements::I8,
        Dtype::Bool | Dtype::Block(_) => Elements::Bytes,
        Dtype::Other => Elements::Mixed,
    }
}
