//! What is wrong with a file that is called a model, and what is dangerous in it.
//!
//! Nothing is executed and no length is believed. A file without a fault here may still be useless; one
//! with a fault is certainly not what its name says.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::kinds::{Kind, Role};
use crate::inspect::{Danger, Description, Details, InspectError, runs_code};
use crate::ops::tensors::{description_of, header_of};

/// Formats whose header says where their tensors are.
const WITH_TABLE: [&str; 7] = ["safetensors", "gguf", "onnx", "torch", "torchscript", "npy", "npz"];
/// Bytes of the end of a file in which its last words must be.
const TAIL_BYTES: u64 = 4 << 20;
/// Calls that are told of one file.
const CALLS_MAX: usize = 20;
/// What the text of a LightGBM model has behind its trees.
const LIGHTGBM_END: &[u8] = b"end of trees";

/// Why a file is not what it is called; `None` where nothing is known against it.
///
/// # Errors
/// As reading it.
pub(super) fn fault_of(
    name: &Path,
    file: &File,
    bytes: u64,
    kind: Kind,
) -> io::Result<Option<String>> {
    if kind.role != Role::Model {
        return Ok(None);
    }
    if bytes == 0 {
        return Ok(Some("it is empty".to_owned()));
    }
    if kind.is_pointer {
        return Ok(Some("it stands for a file of Git LFS that is not here".to_owned()));
    }
    let mut head = [0; 64];
    let count = file.read_at(&mut head, 0)?;
    let head = &head[..count];
    if is_web_page(head) {
        return Ok(Some("it is a web page, not what was to be downloaded".to_owned()));
    }
    if WITH_TABLE.contains(&kind.word) {
        return match header_of(name, file, bytes) {
            Ok(_) => Ok(None),
            Err(InspectError::Io(error)) => Err(error),
            Err(InspectError::Malformed { format, why }) => {
                Ok(Some(format!("its {format} header does not parse: {why}")))
            }
            Err(InspectError::Unknown) if kind.is_seen => Ok(None),
            Err(InspectError::Unknown) => Ok(Some(not_like(kind.word))),
        };
    }
    Ok(match kind.word {
        "hdf5" => hdf5_fault(file, bytes)?,
        "lightgbm" => lightgbm_fault(file, bytes)?,
        "pickle" => pickle_fault(file, bytes, head)?,
        "keras" | "skops" | "catboost" | "tflite" if !kind.is_seen => Some(not_like(kind.word)),
        _ => None,
    })
}

/// What loading a file would import that no model needs, such as `os.system`.
pub(super) fn calls_of(name: &Path, file: &File, bytes: u64, kind: Kind) -> Vec<String> {
    if kind.role != Role::Model || !runs_code(kind.word) {
        return Vec::new();
    }
    let Ok(Description { details: Some(Details::Pickle(pickle)), .. }) =
        description_of(name, file, bytes)
    else {
        return Vec::new();
    };
    let dangerous = pickle.globals.into_iter().filter(|(_, danger)| *danger == Danger::Dangerous);
    dangerous.map(|(name, _)| name).take(CALLS_MAX).collect()
}

fn not_like(word: &str) -> String {
    format!("it does not begin like a {word} file")
}

fn is_web_page(head: &[u8]) -> bool {
    let text = head.trim_ascii_start().to_ascii_lowercase();
    text.starts_with(b"<!doctype html") || text.starts_with(b"<html")
}

/// The superblock of an HDF5 file says how long it is.
///
/// Source: HDF5 file format specification 3.0, "Disk format: level 0A".
fn hdf5_fault(file: &File, bytes: u64) -> io::Result<Option<String>> {
    let mut block = [0; 48];
    if file.read_at(&mut block, 0)? < block.len() || !block.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Ok(Some(not_like("hdf5")));
    }
    let (offset_bytes, end_at) = match block[8] {
        0 => (block[13], 40),
        2 | 3 => (block[9], 28),
        _ => return Ok(None),
    };
    if offset_bytes != 8 {
        return Ok(None);
    }
    let end = block[end_at..].first_chunk().expect("within the block");
    let end = u64::from_le_bytes(*end);
    Ok((bytes < end).then(|| format!("it is cut off: it should have {end} bytes and has {bytes}")))
}

fn lightgbm_fault(file: &File, bytes: u64) -> io::Result<Option<String>> {
    let length = usize::try_from(bytes.min(TAIL_BYTES)).expect("at most some MiB");
    let mut tail = vec![0; length];
    file.read_exact_at(&mut tail, bytes - length as u64)?;
    let has_end = tail.windows(LIGHTGBM_END.len()).any(|window| window == LIGHTGBM_END);
    Ok((!has_end).then(|| "it is cut off: its trees have no end".to_owned()))
}

/// A pickle of protocol 4 or 5 is a row of frames and of large objects between them, all of which say how
/// long they are. Where something else comes, nothing is known.
fn pickle_fault(file: &File, bytes: u64, head: &[u8]) -> io::Result<Option<String>> {
    const PROTO: u8 = 0x80;
    const FRAME: u8 = 0x95;
    const LONG_UNICODE: u8 = 0x8d;
    const LONG_BYTES: u8 = 0x8e;
    const BYTE_ARRAY: u8 = 0x96;
    let &[PROTO, 4..=5, FRAME, ..] = head else { return Ok(None) };
    let mut at = 2;
    while at < bytes {
        let mut step = [0; 9];
        let count = file.read_at(&mut step, at)?;
        let long = u64::from_le_bytes(*step.last_chunk().expect("it has nine bytes"));
        let short = u32::from_le_bytes([step[1], step[2], step[3], step[4]]);
        let next = match step[0] {
            FRAME | LONG_UNICODE | LONG_BYTES | BYTE_ARRAY if count == step.len() => {
                at.checked_add(9).and_then(|at| at.checked_add(long))
            }
            b'B' | b'X' if 5 <= count => at.checked_add(5 + u64::from(short)),
            FRAME => Some(u64::MAX),
            _ => return Ok(None),
        };
        at = next.unwrap_or(u64::MAX);
    }
    if bytes < at {
        return Ok(Some("it is cut off: its last frame is longer than the file".to_owned()));
    }
    let mut last = [0];
    file.read_exact_at(&mut last, bytes - 1)?;
    Ok((last != *b".").then(|| "it is a pickle without an end".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(name: &str, word: &'static str, is_seen: bool, bytes: &[u8]) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let kind = Kind { word, role: Role::Model, is_pointer: false, is_seen };
        fault_of(Path::new(name), &File::open(path).unwrap(), bytes.len() as u64, kind).unwrap()
    }

    #[test]
    fn what_is_not_what_it_is_called_has_a_fault() {
        let check = |name, word, is_seen, bytes: &[u8], expected: &str| {
            let found = fault(name, word, is_seen, bytes).unwrap_or_default();
            assert!(found.contains(expected), "{name}: {found:?}");
            assert_eq!(found.is_empty(), expected.is_empty(), "{name}: {found:?}");
        };
        check("m.pt", "torch", false, b"", "empty");
        check("m.onnx", "onnx", false, b"\n<!DOCTYPE html><p>not found", "web page");
        check("m.safetensors", "safetensors", false, b"hello, this is no model", "does not begin");
        let long = [&(1_u64 << 63).to_le_bytes()[..], b"{\"a\":1}"].concat();
        check("m.safetensors", "safetensors", false, &long, "does not begin");
    }

    #[test]
    fn what_was_cut_off_has_a_fault() {
        let whole = b"tree\nversion=v4\n\nend of trees\n\nparameters:\n";
        assert_eq!(fault("m.txt", "lightgbm", true, whole), None);
        let found = fault("m.txt", "lightgbm", true, &whole[..20]).unwrap();
        assert!(found.contains("cut off"), "{found}");
        let pickle = [b"\x80\x04\x95\x02\0\0\0\0\0\0\0".as_slice(), b"N."].concat();
        assert_eq!(fault("m.pkl", "pickle", true, &pickle), None);
        let found = fault("m.pkl", "pickle", true, &pickle[..12]).unwrap();
        assert!(found.contains("cut off"), "{found}");
        let large =
            [b"\x80\x04\x95\x01\0\0\0\0\0\0\0NB\x02\0\0\0xx".as_slice(), &pickle[2..]].concat();
        assert_eq!(fault("m.pkl", "pickle", true, &large), None);
        assert!(fault("m.pkl", "pickle", true, &large[..20]).is_some());
        let mut hdf5 = b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0".to_vec();
        hdf5.resize(40, 0);
        hdf5.extend(2_048_u64.to_le_bytes());
        hdf5.resize(2_048, 0);
        assert_eq!(fault("m.h5", "hdf5", true, &hdf5), None);
        let found = fault("m.h5", "hdf5", true, &hdf5[..1_000]).unwrap();
        assert!(found.contains("2048"), "{found}");
    }
}
