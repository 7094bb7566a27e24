//! What kind of file something is, from its first bytes and its name: a word for people and rules.
//!
//! No more than a guess, but one that errs to the careful side: whatever begins like a pickle, or is
//! called like one, is a pickle. Rules of policies compare these words: a word stays what it is.

use std::ffi::OsStr;
use std::io;

use super::reader::Reader;
use super::{FileFormat, ReadAt, candidates, imports, zip};

/// A file that begins like nothing known.
pub const UNKNOWN: &str = "unknown";
/// A pickle of Python, bare or packed.
pub const PICKLE: &str = "pickle";
/// An archive of PyTorch with a pickle in it.
const TORCH: &str = "torch";
/// Boosted trees.
pub const LIGHTGBM: &str = "lightgbm";
pub const XGBOOST_JSON: &str = "xgboost-json";
pub const XGBOOST_UBJ: &str = "xgboost-ubj";
/// What XGBoost wrote before it had the other two.
pub const XGBOOST_BINARY: &str = "xgboost-binary";
pub const CATBOOST: &str = "catboost";
pub const TFLITE: &str = "tflite";
pub const SKOPS: &str = "skops";
pub const KERAS: &str = "keras";

/// Formats of which reading a file runs what the file says.
const RUNS_CODE: [&str; 2] = [PICKLE, TORCH];
/// Bytes that are looked at.
const HEAD_BYTES: usize = 64;

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
    let mut head = [0; HEAD_BYTES];
    let count = read_head(file, &mut head)?;
    let head = &head[..count];
    if matches!(head, [0x80, 2..=5, ..]) || ends(&[".pkl", ".pickle", ".joblib", ".dill"]) {
        return Ok(PICKLE);
    }
    let from_tensors = candidates(file, OsStr::new(""))?.first().copied();
    Ok(match from_tensors {
        Some(FileFormat::Safetensors) => "safetensors",
        Some(FileFormat::Gguf) => "gguf",
        Some(FileFormat::Npy) => "npy",
        Some(FileFormat::Torch) if ends(&[".pt", ".pth", ".bin", ".ckpt", ".pt2"]) => TORCH,
        Some(FileFormat::Torch) if zip::is_torch(&mut Reader::new(file))? => TORCH,
        Some(FileFormat::Torch) if ends(&[".npz"]) => "npz",
        Some(FileFormat::Torch) if ends(&[".skops"]) => SKOPS,
        Some(FileFormat::Torch) if ends(&[".keras"]) => KERAS,
        Some(FileFormat::Torch) => "zip",
        _ if head.get(4..8) == Some(b"TFL3") => TFLITE,
        _ if head.starts_with(b"CBM1") => CATBOOST,
        _ if head.starts_with(b"binf") || head.starts_with(b"bs64") => XGBOOST_BINARY,
        _ if head.starts_with(b"\x89HDF\r\n") => "hdf5",
        _ if head.starts_with(b"PAR1") => "parquet",
        _ if head.starts_with(b"tree\n") || head.starts_with(b"tree\r\n") => LIGHTGBM,
        _ if begins_as_json_with(head, "learner") => XGBOOST_JSON,
        _ if begins_as_ubjson_with(head, "learner") => XGBOOST_UBJ,
        // Loading it does not ask how it is called, nor for the mark that new ones begin with.
        _ if imports::is_program(&mut Reader::of_whole(file)) => PICKLE,
        _ if ends(&[".onnx"]) => "onnx",
        Some(_) if !ends(&[".pb"]) => "onnx",
        _ if ends(&[".ubj"]) => "ubjson",
        _ if ends(&[".json"]) => "json",
        _ if ends(&[".txt", ".md", ".csv", ".toml", ".yaml", ".yml", ".py", ".sh"]) => "text",
        _ => UNKNOWN,
    })
}

/// Reads the first bytes of a file; how many there are.
pub(super) fn read_head(file: &dyn ReadAt, head: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < head.len() {
        match file.read_at(count as u64, &mut head[count..])? {
            0 => break,
            more => count += more.min(head.len() - count),
        }
    }
    Ok(count)
}

/// Whether a JSON object begins whose first key is `key`.
fn begins_as_json_with(head: &[u8], key: &str) -> bool {
    let inside = head.trim_ascii_start().strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    let rest = inside.and_then(|inside| inside.strip_prefix(b"\""));
    let rest = rest.and_then(|rest| rest.strip_prefix(key.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(b"\""))
}

/// Whether a UBJSON object begins whose first key is `key`.
fn begins_as_ubjson_with(head: &[u8], key: &str) -> bool {
    let [b'{', kind, rest @ ..] = head else { return false };
    let length_bytes = match kind {
        b'i' | b'U' => 1,
        b'I' => 2,
        b'l' => 4,
        b'L' => 8,
        _ => return false,
    };
    let Some((length, rest)) = rest.split_at_checked(length_bytes) else { return false };
    let length = length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    length == key.len() as u64 && rest.starts_with(key.as_bytes())
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
        check(b"cos\nsystem\n(S'ls'\ntR.", "notes.txt", PICKLE);
        check(b"N0(S'ls'\nios\nsystem\n", "weights", PICKLE);
        check(b"cat\ndog\nbird\nRabbit\n", "labels.txt", "text");
        check(b"class,count\nR,1\nb,2\n", "labels.csv", "text");
        check(b"GGUF\x03\0\0\0", "model.bin", "gguf");
        check(b"PK\x03\x04....", "model.pt", "torch");
        check(b"PK\x03\x04....", "data.npz", "npz");
        check(b"\x93NUMPY\x01\0", "x", "npy");
        check(b"\x1c\0\0\0TFL3", "x.tflite", "tflite");
        check(b"{}", "metrics.json", "json");
        check(b"tree\nversion=v4\n", "model.txt", "lightgbm");
        check(b"{\"learner\":{\"attributes\"", "model.json", XGBOOST_JSON);
        check(b"\n{ \"learner\" :{", "model", XGBOOST_JSON);
        check(b"{\"learners\":1}", "model.json", "json");
        check(b"{L\0\0\0\0\0\0\0\x07learner{", "model", XGBOOST_UBJ);
        check(b"{i\x07learner{", "model", XGBOOST_UBJ);
        check(b"{i\x08learner{", "model.ubj", "ubjson");
        check(b"binf....", "model.bin", XGBOOST_BINARY);
        check(b"CBM1....", "model.cbm", CATBOOST);
        check(b"", "", UNKNOWN);
        check(b"hello", "weights", UNKNOWN);
    }
}
