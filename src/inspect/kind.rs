//! What kind of file something is, from its first bytes and its name: a word for people and rules.
//!
//! No more than a guess, but one that errs to the careful side: whatever begins like a pickle, or is
//! called like one, is a pickle.

use std::ffi::OsStr;
use std::io;

use super::{FileFormat, ReadAt, candidates};

/// A file that begins like nothing known.
pub const UNKNOWN: &str = "unknown";
/// A pickle of Python, bare or packed.
pub const PICKLE: &str = "pickle";

/// Formats of which reading a file runs what the file says.
const RUNS_CODE: [&str; 2] = [PICKLE, "torch"];

/// Whether loading a file of this format, as its library does by default, can run code from it.
pub fn runs_code(format: &str) -> bool {
    RUNS_CODE.contains(&format)
}

/// The word for the format of a file called `name`.
///
/// # Errors
/// Those of reading its first bytes.
pub fn kind_of(file: &dyn ReadAt, name: &OsStr) -> io::Result<&'static str> {
    let name = name.as_encoded_bytes().to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end.as_bytes()));
    let mut head = [0; 16];
    let count = file.read_at(0, &mut head)?;
    let head = &head[..count.min(16)];
    if matches!(head, [0x80, 2..=5, ..]) || ends(&[".pkl", ".pickle", ".joblib", ".dill"]) {
        return Ok(PICKLE);
    }
    let from_tensors = candidates(file, OsStr::new(""))?.first().copied();
    Ok(match from_tensors {
        Some(FileFormat::Safetensors) => "safetensors",
        Some(FileFormat::Gguf) => "gguf",
        Some(FileFormat::Npy) => "npy",
        Some(FileFormat::Torch) if ends(&[".npz"]) => "npz",
        Some(FileFormat::Torch) if ends(&[".pt", ".pth", ".bin", ".ckpt", ".pt2"]) => "torch",
        Some(FileFormat::Torch) if ends(&[".skops"]) => "skops",
        Some(FileFormat::Torch) if ends(&[".keras"]) => "keras",
        Some(FileFormat::Torch) => "zip",
        _ if head.get(4..8) == Some(b"TFL3") => "tflite",
        _ if head.starts_with(b"\x89HDF\r\n") => "hdf5",
        _ if head.starts_with(b"PAR1") => "parquet",
        _ if head.starts_with(b"tree\n") || head.starts_with(b"tree\r\n") => "lightgbm",
        _ if ends(&[".onnx"]) => "onnx",
        Some(_) if !ends(&[".pb"]) => "onnx",
        _ if ends(&[".ubj"]) => "ubjson",
        _ if ends(&[".json"]) => "json",
        _ if ends(&[".txt", ".md", ".csv", ".toml", ".yaml", ".yml", ".py", ".sh"]) => "text",
        _ => UNKNOWN,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_count_more_than_names() {
        let check = |bytes: &[u8], name: &str, expected: &str| {
            assert_eq!(kind_of(&bytes, OsStr::new(name)).unwrap(), expected, "{name}");
        };
        check(b"\x80\x04\x95....", "model.onnx", PICKLE);
        check(b"x\x9c....", "model.joblib", PICKLE);
        check(b"(lp0\n.", "model.pkl", PICKLE);
        check(b"GGUF\x03\0\0\0", "model.bin", "gguf");
        check(b"PK\x03\x04....", "model.pt", "torch");
        check(b"PK\x03\x04....", "data.npz", "npz");
        check(b"\x93NUMPY\x01\0", "x", "npy");
        check(b"\x1c\0\0\0TFL3", "x.tflite", "tflite");
        check(b"{}", "metrics.json", "json");
        check(b"tree\nversion=v4\n", "model.txt", "lightgbm");
        check(b"", "", UNKNOWN);
        check(b"hello", "weights", UNKNOWN);
    }
}
