//! Where the tensors of a file lie, as the chunker and the manifest want to know it.
//!
//! A file that is of no known format, or whose header does not parse, has no tensors: it is cut by
//! its content, and that is never an error.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::metadata::Described;
use crate::chunker::{Cut, Segment, TENSOR_CHUNK_BYTES, segments};
use crate::format::codec::{Elements, Structs};
use crate::format::ids::TensorDigest;
use crate::format::manifest::{
    ChunkRef, ChunkStarts, EntryIndex, FileTensors, PIECE_BYTES, TensorLine,
};
use crate::inspect::{
    Description, Dtype, ExternalTensor, FileFormat, InspectError, ReadAt, Tensor, TensorTable,
    describe, external_table, kind_of, load_tensors, tensors,
};

/// The format of files whose tensors another file tells.
pub(super) const EXTERNAL: &str = "onnx-data";

/// Formats of files that are no models.
const SILENT: [&str; 4] = ["json", "parquet", "text", "unknown"];

/// Bytes of a file that are read to describe it.
const DESCRIBE_BYTES_MAX: u64 = 64 << 20;
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

/// A file of which only so much is read: what it says of itself is not worth a long look.
struct Brief<'a> {
    file: Sealed<'a>,
    left: Cell<u64>,
}

impl ReadAt for Brief<'_> {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(offset, out)?;
        let left = self.left.get().checked_sub(count as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("it takes too long to describe"))?);
        Ok(count)
    }

    fn bytes(&self) -> u64 {
        self.file.bytes
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

    /// Whether some file says what the tensors in the one at `path` are.
    pub fn tells_of(&self, path: &Path) -> bool {
        self.by_path.contains_key(path)
    }

    /// How the file at `path` is to be cut.
    ///
    /// # Errors
    /// As reading its header.
    pub fn plan_of(&self, path: &Path, file: &File, bytes: u64) -> io::Result<FilePlan> {
        let table = match self.by_path.get(path) {
            Some(spoken_of) => Some(external_table(&spoken_of.iter().collect::<Vec<_>>(), bytes)),
            None => table_of(path, file, bytes)?,
        };
        let tensors = table.iter().flat_map(|table| &table.tensors);
        let places: Vec<_> =
            tensors.map(|tensor| (tensor.bytes.clone(), elements_of(tensor.dtype))).collect();
        Ok(FilePlan { segments: segments(&places, bytes), table })
    }
}

/// How a file is cut, and the tensors that it is cut by.
pub(super) struct FilePlan {
    pub segments: Vec<Segment>,
    table: Option<TensorTable>,
}

/// The place of a tensor among those of its file, and its digest.
pub(super) type OwnDigest = (usize, TensorDigest);

impl FilePlan {
    pub fn has_tensors(&self) -> bool {
        self.table.as_ref().is_some_and(|table| !table.tensors.is_empty())
    }

    /// The format of the header that tells the tensors; `None` without one.
    pub fn format(&self) -> Option<FileFormat> {
        self.table.as_ref().map(|table| table.format)
    }

    /// In the order of their bytes.
    pub fn tensors(&self) -> &[Tensor] {
        self.table.as_ref().map_or(&[], |table| &table.tensors)
    }

    /// The first tensor with bytes that starts within a segment that is not cut by its content.
    pub fn first_tensor(&self, segment: &Segment) -> Option<&Tensor> {
        let tensors = &self.table.as_ref()?.tensors;
        let first = tensors.partition_point(|tensor| tensor.bytes.start < segment.bytes.start);
        let mut within =
            tensors[first..].iter().take_while(|it| it.bytes.start < segment.bytes.end);
        within.find(|tensor| segment.cut == Cut::Fixed && !tensor.bytes.is_empty())
    }

    /// The digests of the tensors that lie within the piece at `start` of the file together with
    /// others. All that are not found in any piece are told by the chunks. In any order of pieces.
    pub fn digests_within<'a>(
        &'a self,
        start: u64,
        piece: &'a [u8],
    ) -> impl Iterator<Item = OwnDigest> + 'a {
        let tensors = self.table.as_ref().map_or(&[][..], |table| &table.tensors);
        let first = tensors.partition_point(|tensor| tensor.bytes.start < start);
        let end = start + piece.len() as u64;
        let begin_here = move |(_, tensor): &(usize, &Tensor)| tensor.bytes.start < end;
        let within = move |tensor: &Tensor| {
            tensor.bytes.end <= end && !tensor.bytes.is_empty() && tensor.bytes != (start..end)
        };
        let tensors = (first..).zip(&tensors[first..]).take_while(begin_here);
        tensors.filter(move |(_, tensor)| within(tensor)).map(move |(index, tensor)| {
            let place = |at: u64| usize::try_from(at - start).expect("within the piece");
            let bytes = &piece[place(tensor.bytes.start)..place(tensor.bytes.end)];
            (index, TensorDigest::of_tensor(bytes))
        })
    }

    /// What is kept of a plan once the file was cut; `own` is what [`FilePlan::digests_within`] gave of
    /// all its pieces.
    pub fn into_table(self, own: Vec<OwnDigest>) -> Option<Box<CutTable>> {
        self.table.map(|table| Box::new(CutTable { table, own }))
    }
}

/// The tensors of a file that was cut, until its chunks are known.
pub(super) struct CutTable {
    table: TensorTable,
    own: Vec<OwnDigest>,
}

impl CutTable {
    /// The table of the file for its manifest; `chunks` are all of it.
    pub fn into_tensors(self, file: EntryIndex, chunks: &[ChunkRef]) -> FileTensors {
        let Self { table, own } = self;
        let own: HashMap<usize, TensorDigest> = own.into_iter().collect();
        let mut chunks = ChunkStarts::new(chunks);
        let mut tensors = Vec::with_capacity(table.tensors.len());
        for (index, Tensor { name, dtype, shape, bytes }) in table.tensors.into_iter().enumerate() {
            let digest = own.get(&index).copied();
            let digest = digest.or_else(|| TensorDigest::of_chunks(&mut chunks, &bytes));
            let digest = digest.expect("a tensor is cut by itself or lies within one chunk");
            let dtype = dtype.to_string().into();
            tensors.push(TensorLine { name, dtype, shape, bytes, digest });
        }
        FileTensors { file, format: table.format.to_string().into(), tensors }
    }
}

/// Pieces of a tensor are chunks of it.
const _: () = assert!(PIECE_BYTES == TENSOR_CHUNK_BYTES);

fn table_of(path: &Path, file: &File, bytes: u64) -> io::Result<Option<TensorTable>> {
    if bytes < FILE_BYTES_MIN {
        return Ok(None);
    }
    let name = path.file_name().unwrap_or_default();
    tensors(&Sealed { file, bytes }, name)
}

/// The tensors of an open file, or why it has none that are known.
///
/// # Errors
/// As [`load_tensors`].
pub(super) fn header_of(path: &Path, file: &File, bytes: u64) -> Result<TensorTable, InspectError> {
    load_tensors(&Sealed { file, bytes }, path.file_name().unwrap_or_default())
}

/// The word for the format of an open file.
///
/// # Errors
/// As reading its first bytes.
pub(super) fn kind_of_file(path: &Path, file: &File, bytes: u64) -> io::Result<&'static str> {
    kind_of(&Sealed { file, bytes }, path.file_name().unwrap_or_default())
}

/// What an open file of this format says of itself; `None` where that cannot be told.
pub(super) fn describe_file(
    path: &Path,
    file: &File,
    bytes: u64,
    format: &str,
) -> Option<Box<Described>> {
    if SILENT.contains(&format) {
        return None;
    }
    let file = Brief { file: Sealed { file, bytes }, left: Cell::new(DESCRIBE_BYTES_MAX) };
    let described = describe(path.file_name().unwrap_or_default(), &file).ok()?;
    let interface = described.interface().map(|it| serde_json::json!(it));
    Some(Box::new(Described { details: described.summary(), interface }))
}

/// What an open file says of itself, however long that takes.
///
/// # Errors
/// As [`describe`].
pub(super) fn description_of(
    path: &Path,
    file: &File,
    bytes: u64,
) -> Result<Description, InspectError> {
    describe(path.file_name().unwrap_or_default(), &Sealed { file, bytes })
}

/// The hint for the codec: only the size counts where a dtype is known here by no other name.
fn elements_of(dtype: Dtype) -> Elements {
    match dtype {
        Dtype::F64 => Elements::F64,
        Dtype::F32 => Elements::F32,
        Dtype::F16 => Elements::F16,
        Dtype::Bf16 => Elements::Bf16,
        Dtype::F8E4m3 | Dtype::F8E5m2 | Dtype::F8E4m3Fnuz | Dtype::F8E5m2Fnuz => Elements::F8,
        Dtype::I64 | Dtype::U64 => Elements::I64,
        Dtype::I32 | Dtype::U32 => Elements::I32,
        Dtype::I16 | Dtype::U16 => Elements::I16,
        Dtype::I8 | Dtype::U8 => Elements::I8,
        Dtype::Bool => Elements::Bytes,
        Dtype::Block(block) => {
            let bytes = u16::try_from(block.bytes()).ok();
            bytes
                .and_then(|bytes| Structs::new(bytes, block.scales()))
                .map_or(Elements::Bytes, Elements::Structs)
        }
        Dtype::Other => Elements::Mixed,
    }
}
