//! Inspect: from the headers of a model file to its tensors.
//!
//! A file is read through [`ReadAt`], and of it only what says where the tensors are: a file of any
//! length takes little memory. What comes in is hostile until it was checked.
//! Invariant I1: a table's tensors are sorted by their bytes, lie in the file, and do not overlap.
//! Invariant I2: no two tensors of a table have the same name.
//! Invariant I3: work and memory are bounded by the constants here, and no length is believed
//! before it was compared with the file's own.
//! A file that cannot be understood is no failure: its bytes are stored all the same.
#![forbid(unsafe_code)]

mod catboost;
mod description;
mod dtype;
mod flatbuffer;
mod gguf;
mod imports;
mod kind;
mod numpy;
mod onnx;
mod packed;
mod protobuf;
mod quants;
mod reader;
mod safetensors;
mod stream;
mod table;
mod tflite;
mod torch;
mod trees;
mod values;
mod zip;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::ops::Range;

use description::Draft;
use reader::Reader;

pub use catboost::CatboostDetails;
pub use description::{
    DESCRIPTION_BYTES_MAX, Description, Details, Dimension, Interface, Port, SUMMARY_BYTES_MAX,
    TensorInfo,
};
pub use dtype::{BlockType, Dtype, UnknownDtype};
pub use gguf::GgufDetails;
pub use imports::{Danger, PickleDetails};
pub use kind::{kind_of, runs_code};
pub use onnx::{ExternalTensor, OnnxDetails, OnnxNode};
pub use packed::{KerasDetails, SkopsDetails};
pub use safetensors::SafetensorsDetails;
pub use table::external_table;
pub use tflite::TfliteDetails;
pub use trees::{Ensemble, Feature, Split, Test, Tree, TreeNode, TreesDetails, ensemble};
pub use values::Values;

/// Bytes of headers that are parsed in one file, and so the largest header.
pub const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Bytes that are read from one file to find its headers.
pub const WORK_BYTES_MAX: u64 = 1 << 30;
/// Tensors of one file.
pub const TENSOR_COUNT_MAX: usize = 1_000_000;
/// Bytes of one tensor's name.
pub const NAME_BYTES_MAX: usize = 4 << 10;
/// Dimensions of one tensor.
pub const RANK_MAX: usize = 64;
/// Messages, arrays, modules within each other.
pub const NESTING_MAX: usize = 64;
/// Memory of one table: hostile headers may name one long shape or prefix very often.
pub const TABLE_BYTES_MAX: usize = 256 << 20;

/// A file, read at any place.
pub trait ReadAt {
    /// Reads from `offset` into the start of `out`; 0 only at the end. May read less than asked.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;
    /// The file's length.
    fn bytes(&self) -> u64;
}

impl ReadAt for &[u8] {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let count = out.len().min(self.len() - start);
        out[..count].copy_from_slice(&self[start..start + count]);
        Ok(count)
    }

    fn bytes(&self) -> u64 {
        self.len() as u64
    }
}

/// How a file says where its tensors are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FileFormat {
    Safetensors,
    Gguf,
    Onnx,
    /// Bytes beside an ONNX file, which says where the tensors are ([`external_table`]).
    OnnxData,
    /// What `torch.save` writes since PyTorch 1.6: a ZIP with one member a storage.
    Torch,
    /// What `torch.jit.save` writes.
    TorchScript,
    Npy,
    Npz,
}

impl FileFormat {
    fn word(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::Onnx => "onnx",
            Self::OnnxData => "onnx-data",
            Self::Torch => "torch",
            Self::TorchScript => "torchscript",
            Self::Npy => "npy",
            Self::Npz => "npz",
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One tensor of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    /// As the file has it; where several tensors have the same bytes, the first of their names.
    pub name: String,
    pub dtype: Dtype,
    /// Outermost first, as the bytes lie. Multiplies to the bytes unless the dtype is `Other`.
    pub shape: Vec<u64>,
    /// Of the file.
    pub bytes: Range<u64>,
}

/// Where the tensors of a file are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorTable {
    pub format: FileFormat,
    /// May be empty: a decision tree in an ONNX file has none.
    pub tensors: Vec<Tensor>,
    /// What an ONNX file says of bytes beside it; empty for all others.
    pub external: Vec<ExternalTensor>,
}

/// Why a file has no tensor table.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error("it begins like no model format that is known here")]
    Unknown,
    #[error("its {format} header does not parse: {why}")]
    Malformed { format: &'static str, why: &'static str },
    #[error("its headers cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Finds the tensors of a file called `name`; `None` when its format is not known or its header
/// does not parse.
///
/// The content decides on the format, the name only on what its first bytes leave open.
///
/// # Errors
/// Only what reading the file gave.
pub fn tensors(file: &dyn ReadAt, name: &OsStr) -> io::Result<Option<TensorTable>> {
    match load_tensors(file, name) {
        Ok(table) => Ok(Some(table)),
        Err(InspectError::Unknown | InspectError::Malformed { .. }) => Ok(None),
        Err(InspectError::Io(error)) => Err(error),
    }
}

/// As [`tensors`], for those who want to know why there are none.
///
/// # Errors
/// `Unknown` and `Malformed` say that the file is to be taken as bytes; `Io` that it could not be
/// read.
pub fn load_tensors(file: &dyn ReadAt, name: &OsStr) -> Result<TensorTable, InspectError> {
    let mut found = InspectError::Unknown;
    for format in candidates(file, name)? {
        let reader = &mut Reader::new(file);
        let parsed = match format {
            FileFormat::Safetensors => safetensors::parse(reader),
            FileFormat::Gguf => gguf::parse(reader),
            FileFormat::Npy => numpy::parse(reader),
            // One of those in a ZIP: its members say which.
            FileFormat::Torch | FileFormat::TorchScript | FileFormat::Npz => zip::parse(reader),
            FileFormat::Onnx | FileFormat::OnnxData => onnx::parse(reader),
        };
        match parsed {
            Ok(table) => return Ok(table),
            Err(Stop::Unknown) => {}
            Err(stop) => match stop.of(format.word()) {
                InspectError::Io(error) => return Err(InspectError::Io(error)),
                error => found = error,
            },
        }
    }
    Err(found)
}

/// Describes a file called `name`: what a person asks of it, bounded, without its weights.
///
/// # Errors
/// `Unknown` for formats that nothing can be said of, `Malformed`, and `Io` from reading it.
pub fn describe(name: &OsStr, file: &dyn ReadAt) -> Result<Description, InspectError> {
    let word = kind_of(file, name)?;
    if let Some(described) = describe_by_word(word, file) {
        return described;
    }
    let mut found = InspectError::Unknown;
    for format in candidates(file, name)? {
        let reader = &mut Reader::new(file);
        let mut draft = Draft::new();
        let described = match format {
            FileFormat::Safetensors => {
                safetensors::describe(reader, &mut draft).map(|it| Some(Details::Safetensors(it)))
            }
            FileFormat::Onnx | FileFormat::OnnxData => {
                onnx::describe(reader, &mut draft).map(|it| Some(Details::Onnx(Box::new(it))))
            }
            FileFormat::Gguf => {
                gguf::describe(reader, &mut draft).map(|it| Some(Details::Gguf(it)))
            }
            FileFormat::Npy => numpy::parse(reader).map(|table| draft.add_table(&table)),
            FileFormat::Torch | FileFormat::TorchScript | FileFormat::Npz => {
                zip::describe(reader, &mut draft)
            }
        };
        match described {
            Ok(details) => return Ok(draft.finish(word, file.bytes(), details)),
            Err(Stop::Unknown) => {}
            Err(stop) => match stop.of(format.word()) {
                InspectError::Io(error) => return Err(InspectError::Io(error)),
                error => found = error,
            },
        }
    }
    Err(found)
}

/// Describes what has no table of tensors that lie in the file, by its word; `None` for all else.
fn describe_by_word(
    word: &'static str,
    file: &dyn ReadAt,
) -> Option<Result<Description, InspectError>> {
    let (reader, draft) = (&mut Reader::of_whole(file), &mut Draft::new());
    let described = match word {
        kind::PICKLE => imports::describe(reader, draft).and_then(|details| {
            if details.is_torch() {
                torch::describe_old(&mut Reader::new(file), draft)?;
            }
            Ok(Details::Pickle(details))
        }),
        kind::TFLITE => tflite::describe(reader, draft).map(Details::Tflite),
        kind::CATBOOST => catboost::describe(reader, draft).map(Details::Catboost),
        kind::SKOPS => packed::describe_skops(reader, draft).map(Details::Skops),
        kind::KERAS => packed::describe_keras(reader, draft).map(Details::Keras),
        kind::LIGHTGBM | kind::XGBOOST_JSON | kind::XGBOOST_UBJ => {
            trees::read(word, reader).map(|it| Details::Trees(TreesDetails::of(&it, draft)))
        }
        _ => return None,
    };
    Some(match described {
        Ok(details) => {
            Ok(std::mem::replace(draft, Draft::new()).finish(word, file.bytes(), Some(details)))
        }
        Err(stop) => Err(stop.of(word)),
    })
}

/// Why a parser gave up.
#[derive(Debug)]
enum Stop {
    /// The file is of another format.
    Unknown,
    /// Something is not as the format wants it, or past a limit.
    Malformed(&'static str),
    Io(io::Error),
}

impl Stop {
    /// As what callers are told of a file of this format.
    fn of(self, format: &'static str) -> InspectError {
        match self {
            Self::Unknown => InspectError::Unknown,
            Self::Malformed(why) => InspectError::Malformed { format, why },
            Self::Io(error) => InspectError::Io(error),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The formats that the first bytes of `file` do not rule out, the likely ones first.
fn candidates(file: &dyn ReadAt, name: &OsStr) -> io::Result<Vec<FileFormat>> {
    let mut head = [0; 16];
    let count = kind::read_head(file, &mut head)?;
    let head = &head[..count];
    for (magic, format) in [
        (gguf::MAGIC.as_slice(), FileFormat::Gguf),
        (numpy::MAGIC.as_slice(), FileFormat::Npy),
        (zip::MAGIC.as_slice(), FileFormat::Torch),
    ] {
        if head.starts_with(magic) {
            return Ok(vec![format]);
        }
    }
    let mut formats = Vec::new();
    if safetensors::is_likely(head) {
        formats.push(FileFormat::Safetensors);
    }
    let named = name.as_encoded_bytes().to_ascii_lowercase().ends_with(b".onnx");
    if onnx::is_likely(head) || named {
        formats.push(FileFormat::Onnx);
    }
    Ok(formats)
}
