//! What each file of a folder is to a model: the model itself, something that goes with it, or nothing.
//!
//! Told by its first bytes, and by its name where those leave it open. A file that is called a model and
//! does not begin like one is one all the same: somebody has to know that it is broken.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use super::walk::{FileIndex, Found};
use crate::ops::tensors::kind_of_file;
use crate::sys::io::{Io, Real};

/// Files that are worth a thread.
const SHARE_FILES_MIN: usize = 64;
/// Largest file that goes with a model without being one: a tokenizer, a report.
const COMPANION_BYTES_MAX: u64 = 64 << 20;
/// First line of a file that stands for another in Git LFS.
pub(super) const POINTER: &[u8; 43] = b"version https://git-lfs.github.com/spec/v1\n";

/// Ends of names of models, with the word for each where the bytes do not tell.
const MODEL_ENDS: [(&str, &str); 31] = [
    (".safetensors", "safetensors"),
    (".gguf", "gguf"),
    (".onnx", "onnx"),
    (".pt", "torch"),
    (".pth", "torch"),
    (".pth.tar", "torch"),
    (".pt2", "torch"),
    (".ckpt", "torch"),
    (".jit", "torchscript"),
    (".torchscript", "torchscript"),
    (".ts", "torchscript"),
    (".h5", "hdf5"),
    (".hdf5", "hdf5"),
    (".keras", "keras"),
    (".tflite", "tflite"),
    (".lite", "tflite"),
    (".pkl", "pickle"),
    (".pickle", "pickle"),
    (".joblib", "pickle"),
    (".dill", "pickle"),
    (".skops", "skops"),
    (".npz", "npz"),
    (".npy", "npy"),
    (".ubj", "xgboost-ubj"),
    (".xgb", "xgboost-binary"),
    (".lgb", "lightgbm"),
    (".cbm", "catboost"),
    (".mlmodel", "coreml"),
    (".pdparams", "paddle"),
    (".engine", "tensorrt"),
    (".caffemodel", "caffe"),
];

/// Words of formats that are models whatever the file is called.
const MODEL_WORDS: [&str; 15] = [
    "safetensors",
    "gguf",
    "onnx",
    "torch",
    "torchscript",
    "hdf5",
    "keras",
    "tflite",
    "pickle",
    "skops",
    "lightgbm",
    "xgboost-json",
    "xgboost-ubj",
    "xgboost-binary",
    "catboost",
];

/// Ends of names of files that go with a model.
const COMPANION_ENDS: [&str; 23] = [
    ".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".txt", ".md", ".rst", ".py", ".sh",
    ".model", ".vocab", ".merges", ".spm", ".license", ".html", ".log", ".png", ".svg", ".proto",
    ".lock", ".conf",
];

/// Ends of names of what is never looked into: data, pictures, programs.
const OTHER_ENDS: [&str; 22] = [
    ".csv", ".tsv", ".parquet", ".jsonl", ".arrow", ".feather", ".avro", ".jpg", ".jpeg", ".gif",
    ".webp", ".mp4", ".wav", ".mp3", ".flac", ".so", ".pyc", ".ipynb", ".pdf", ".java", ".class",
    ".whl",
];

/// Names of files that go with a model and have no end.
const COMPANION_NAMES: [&str; 5] = ["mlmodel", "license", "readme", "notice", "dockerfile"];

/// What a file is to a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Model,
    /// Worth keeping with a model that lies beside it.
    Companion,
    Other,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Kind {
    /// The word for its format.
    pub word: &'static str,
    pub role: Role,
    /// It stands for another file.
    pub is_pointer: bool,
    /// Its bytes say what it is; else only its name does.
    pub is_seen: bool,
}

const OTHER: Kind = Kind { word: "unknown", role: Role::Other, is_pointer: false, is_seen: false };

/// The kinds of all files, in their order. Files that cannot be read count as what their names say.
pub(super) fn kinds(found: &Found) -> Vec<Kind> {
    let mut kinds = vec![OTHER; found.files.len()];
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = kinds.len().div_ceil(threads).max(SHARE_FILES_MIN);
    thread::scope(|scope| {
        for (part, kinds) in kinds.chunks_mut(share).enumerate() {
            scope.spawn(move || {
                for (index, kind) in (part * share..).zip(kinds) {
                    let index = FileIndex(u32::try_from(index).expect("the walk has a limit"));
                    let file = found.file(index);
                    *kind = kind_of(&file.name, &found.source_of(index), file.bytes);
                }
            });
        }
    });
    kinds
}

/// The kind of a file called `name`, with its bytes at `source`.
pub(super) fn kind_of(name: &OsStr, source: &Path, bytes: u64) -> Kind {
    let lower = name.to_string_lossy().to_ascii_lowercase();
    if OTHER_ENDS.iter().any(|end| lower.ends_with(end)) {
        return OTHER;
    }
    let by_name = MODEL_ENDS.iter().find(|(end, _)| lower.ends_with(end)).map(|(_, word)| *word);
    let (word, is_pointer) = look(source, name, bytes).unwrap_or((OTHER.word, false));
    // What stands for a file, or cannot be read, is what its name says.
    let (word, is_seen) = match (word, by_name) {
        ("zip", Some(named)) => (named, true),
        ("unknown" | "text", Some(named)) => (named, false),
        // That one is told by its name too.
        ("onnx" | "pickle", Some(named)) if named == word => (named, false),
        (found, _) => (found, true),
    };
    let is_model = MODEL_WORDS.contains(&word) || by_name.is_some() || is_saved_model(&lower);
    let is_companion = COMPANION_ENDS.iter().any(|end| lower.ends_with(end))
        || COMPANION_NAMES.contains(&lower.as_str());
    let role = match (is_model, is_companion && bytes <= COMPANION_BYTES_MAX) {
        (true, _) => Role::Model,
        (false, true) => Role::Companion,
        (false, false) => Role::Other,
    };
    Kind { word, role, is_pointer, is_seen }
}

/// What TensorFlow and PyTorch call theirs without an end that says so.
fn is_saved_model(lower: &str) -> bool {
    lower.ends_with(".pb") || lower.starts_with("pytorch_model") && lower.ends_with(".bin")
}

/// What the bytes of a file say: the word for its format, and whether it stands for another.
fn look(source: &Path, name: &OsStr, bytes: u64) -> io::Result<(&'static str, bool)> {
    let file = Real.open(source)?;
    let mut head = [0; POINTER.len()];
    let is_pointer = file.read_at(&mut head, 0)? == head.len() && head == *POINTER;
    Ok((kind_of_file(Path::new(name), &file, bytes)?, is_pointer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_and_names_say_what_a_file_is_to_a_model() {
        let directory = tempfile::tempdir().unwrap();
        let check = |name: &str, bytes: &[u8], word: &str, role: Role| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let kind = kind_of(name.as_ref(), &path, bytes.len() as u64);
            assert_eq!((kind.word, kind.role), (word, role), "{name}");
        };
        check("m.bin", b"GGUF\x03\0\0\0........", "gguf", Role::Model);
        check("m.jit", b"PK\x03\x04............", "torchscript", Role::Model);
        check("m.onnx", b"<html>not found</html>", "onnx", Role::Model);
        check("metrics.json", b"{}", "json", Role::Companion);
        check("train.csv", b"a,b", "unknown", Role::Other);
        check("README", b"hello", "unknown", Role::Companion);
        check("empty.pt", b"", "torch", Role::Model);
        // Neither waited for nor followed.
        let fifo = directory.path().join("fifo.bin");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let link = directory.path().join("link.bin");
        std::os::unix::fs::symlink(directory.path().join("m.bin"), &link).unwrap();
        for path in [fifo, link] {
            let kind = kind_of("m.bin".as_ref(), &path, 7);
            assert_eq!((kind.word, kind.role), ("unknown", Role::Other), "{}", path.display());
        }
        let pointer = [&POINTER[..], b"oid sha256:00\nsize 7\n"].concat();
        check("m.safetensors", &pointer, "safetensors", Role::Model);
    }
}
