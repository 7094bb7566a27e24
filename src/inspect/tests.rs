//! What holds of every format: real files, cut files, changed files, noise.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::samples::{
    field, gguf, gguf_array, gguf_line, gguf_text, gguf_value, npy, number, pickle, pickle_storage,
    pickle_tensor, safetensors, table, zip, zip64,
};
use super::{
    Description, Details, Dtype, FileFormat, InspectError, ReadAt, describe, load_tensors, tensors,
};

const NPY_HEADER: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }  \n";

/// A small file of each format, each with the number of its tensors.
fn samples() -> Vec<(FileFormat, Vec<u8>, usize)> {
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]}}"#;
    let values = [
        gguf_value("general.alignment", 4, &[32, 0, 0, 0]),
        gguf_value("words", 9, &gguf_array(8, 1, &gguf_text("word"))),
    ];
    let lines = [gguf_line("a", &[2], 0, 0), gguf_line("b", &[32, 2], 8, 32)];
    let tensor = |name: &str, payload: &[u8]| {
        [number(1, 2), number(2, 1), field(8, name.as_bytes()), payload.into()].concat()
    };
    let attribute = [field(1, b"value"), field(5, &tensor("", &field(9, &[0; 8])))].concat();
    let entry = field(13, &[field(1, b"location"), field(2, b"weights.bin")].concat());
    let graph = [
        field(1, &[field(2, b"constant"), field(5, &attribute)].concat()),
        field(5, &tensor("w", &field(9, &[0; 8]))),
        field(5, &tensor("beside", &[entry, number(14, 1)].concat())),
    ];
    let onnx = [number(1, 8), field(2, b"tests"), field(7, &graph.concat())].concat();
    let float = |key| pickle_tensor(&pickle_storage("FloatStorage", key, 2), 0, &[2], &[1]);
    let data = pickle(&[("a", float("0")), ("b", float("1"))]);
    let torch: [(&str, &[u8]); 4] = [
        ("m/data.pkl", &data),
        ("m/byteorder", b"little"),
        ("m/data/0", &[0; 8]),
        ("m/data/1", &[0; 8]),
    ];
    let script = [&torch[..], &[("m/constants.pkl", b"\x80\x02).")]].concat();
    let array = npy(1, NPY_HEADER, &[0; 16]);
    vec![
        (FileFormat::Safetensors, safetensors(header, &[0; 16]), 2),
        (FileFormat::Gguf, gguf(2, &values, &lines, 32, &[0; 100]), 2),
        (FileFormat::Onnx, onnx, 2),
        (FileFormat::Torch, zip(&torch), 2),
        (FileFormat::Torch, zip64(&torch), 2),
        (FileFormat::TorchScript, zip(&script), 2),
        (FileFormat::Npz, zip(&[("a.npy", &array), ("b.npy", &array)]), 2),
        (FileFormat::Npy, array, 1),
    ]
}

#[test]
fn the_content_decides_on_the_format() {
    for (format, file, count) in samples() {
        for name in ["model", "model.onnx", "model.safetensors", "model.pt", ""] {
            let table = table(&file, name).unwrap_or_else(|| panic!("{format} as `{name}`"));
            assert_eq!((table.format, table.tensors.len()), (format, count));
        }
    }
    assert_eq!(table(b"", "model.onnx"), None);
    assert_eq!(table(b"#!/bin/sh\n", "model.safetensors"), None);
}

#[test]
fn the_name_decides_where_the_first_bytes_do_not() {
    // A model may have its fields in any order, and so begin like nothing in particular.
    let weight = [number(1, 1), number(2, 3), field(9, &[7])].concat();
    let file = [field(7, &field(5, &weight)), number(1, 8)].concat();
    assert_eq!(table(&file, "model.bin"), None);
    assert_eq!(table(&file, "MODEL.ONNX").unwrap().tensors.len(), 1);
}

#[test]
fn real_models_are_read() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/churn");
    for version in ["v1", "v2", "v3"] {
        let path = models.join(version).join("weights.onnx");
        let file = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let table = table(&file, "weights").unwrap();
        // Trees: their numbers are in attributes, not in tensors.
        assert_eq!((table.format, table.tensors.len()), (FileFormat::Onnx, 0));
    }
}

#[test]
fn a_cut_file_never_panics() {
    for (format, file, count) in samples() {
        for length in 0..file.len() {
            let found = table(&file[..length], "model.onnx");
            let tensors = found.map_or(0, |table| table.tensors.len());
            assert!(tensors <= count, "{format} cut at {length}");
        }
    }
}

#[test]
fn a_changed_file_never_panics() {
    for (_, file, _) in samples() {
        let mut file = file;
        for index in 0..file.len() {
            let byte = file[index];
            for change in [1, 2, 4, 8, 16, 32, 64, 128, 0xff] {
                file[index] = byte ^ change;
                table(&file, "model.onnx");
            }
            for value in [0, 0x7f, 0xff] {
                file[index] = value;
                table(&file, "model.onnx");
            }
            file[index] = byte;
        }
    }
}

#[test]
fn eight_bytes_of_any_place_may_say_the_largest_numbers() {
    for (_, file, _) in samples() {
        for index in 0..file.len().saturating_sub(8) {
            for value in [u64::MAX, 1 << 63, (1 << 63) - 1, u64::from(u32::MAX), 1 << 31] {
                let mut file = file.clone();
                file[index..index + 8].copy_from_slice(&value.to_le_bytes());
                table(&file, "model.onnx");
                file[index..index + 8].copy_from_slice(&value.to_be_bytes());
                table(&file, "model.onnx");
            }
        }
    }
}

/// A file whose disk fails behind a place.
struct Failing<'a> {
    content: &'a [u8],
    from: u64,
}

impl ReadAt for Failing<'_> {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        if self.from <= offset {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let short = out.len().min(64);
        self.content.read_at(offset, &mut out[..short])
    }
    fn bytes(&self) -> u64 {
        self.content.len() as u64
    }
}

#[test]
fn an_error_of_the_disk_is_not_taken_for_a_bad_header() {
    for (format, content, _) in samples() {
        let read = |from| tensors(&Failing { content: &content, from }, OsStr::new("model"));
        assert!(read(u64::MAX).expect("nothing fails").is_some(), "{format}");
        for from in [0, 64] {
            assert!(read(from).is_err(), "{format} from {from}");
        }
    }
}

/// A file that says it is longer than it is.
struct Shrunk<'a>(&'a [u8]);

impl ReadAt for Shrunk<'_> {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, out)
    }
    fn bytes(&self) -> u64 {
        1 << 40
    }
}

#[test]
fn a_file_that_became_shorter_has_no_table() {
    for (_, content, _) in samples() {
        for length in 0..content.len() {
            let file = Shrunk(&content[..length]);
            let table = tensors(&file, OsStr::new("model.onnx")).expect("nothing fails");
            // A header that is whole may still speak of tensors that are gone.
            if let Some(table) = table {
                assert!(table.tensors.len() <= 2);
            }
        }
    }
}

#[test]
fn a_reason_is_given_to_those_who_ask() {
    let why = |file: &[u8]| load_tensors(&file, OsStr::new("m")).unwrap_err().to_string();
    assert_eq!(why(b"text"), "it begins like no model format that is known here");
    let gguf = why(b"GGUF\x01\0\0\0");
    assert_eq!(gguf, "its gguf header does not parse: neither version 2 nor 3, little endian");
    let other = load_tensors(&zip(&[("a.xml", b"")]).as_slice(), OsStr::new("m"));
    assert!(matches!(other, Err(InspectError::Unknown)), "{other:?}");
}

/// What each format begins with, and enough of it to get past the sniffing.
fn beginnings() -> Vec<Vec<u8>> {
    let beginning =
        |(_, file, _): (FileFormat, Vec<u8>, usize)| file[..file.len().min(24)].to_vec();
    samples().into_iter().map(beginning).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..512)) {
        table(&noise, "model.onnx");
        for beginning in beginnings() {
            table(&[&beginning, noise.as_slice()].concat(), "model");
        }
    }

    #[test]
    fn noise_in_a_pickle_never_panics(noise in prop::collection::vec(any::<u8>(), 0..512)) {
        table(&zip(&[("m/data.pkl", &noise), ("m/data/0", b"1234")]), "model");
    }

    #[test]
    fn opcodes_in_any_order_never_panic(
        opcodes in prop::collection::vec(
            prop::sample::select(b"(.012NKJMXUCq\x94ghj}])tdlesua\x85\x86\x87QcRb\x81\x93\0\x01\n".as_slice()),
            0..256,
        )
    ) {
        table(&zip(&[("m/data.pkl", &opcodes), ("m/data/0", b"1234")]), "model");
    }

    #[test]
    fn noise_in_a_member_never_panics(noise in prop::collection::vec(any::<u8>(), 0..512)) {
        table(&zip(&[("a.npy", &noise)]), "model");
        let header = String::from_utf8_lossy(&noise).into_owned();
        table(&npy(1, &header, &noise), "model");
        table(&safetensors(&header, &noise), "model");
    }

    #[test]
    fn pieces_of_samples_never_panic(
        which in 0_usize..8,
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        length in 0_usize..64,
    ) {
        let (_, file, _) = samples().swap_remove(which);
        let (from, to) = (from.index(file.len()), to.index(file.len()));
        let piece = file[from..(from + length).min(file.len())].to_vec();
        let mut changed = file.clone();
        changed.splice(to..to, piece.iter().copied());
        table(&changed, "model.onnx");
        let mut changed = file;
        let end = (to + piece.len()).min(changed.len());
        changed.splice(to..end, piece);
        table(&changed, "model.onnx");
    }

    #[test]
    fn any_tensors_of_a_safetensors_file_come_back(lengths in prop::collection::vec(0_u64..50, 1..20)) {
        let mut end = 0;
        let mut lines = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            let start = end;
            end += length;
            lines.push(format!(
                r#""t{index}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{start},{end}]}}"#
            ));
        }
        lines.reverse();
        let file = safetensors(&format!("{{{}}}", lines.join(",")), &vec![0; end as usize]);
        let table = table(&file, "m").expect("a file as the format wants it");
        prop_assert!(table.tensors.iter().all(|tensor| tensor.dtype == Dtype::U8));
        let mut found: Vec<_> = table.tensors.iter().map(|t| t.bytes.end - t.bytes.start).collect();
        let mut expected = lengths;
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}

/// Files that a library wrote, beside what it says of them, and what they say of themselves.
fn described(facts: &str) -> Vec<(String, serde_json::Value, Description)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    let facts = std::fs::read(folder.join(facts)).expect("a fixture");
    let facts: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&facts).expect("facts by file");
    let describe = |(name, facts): (String, serde_json::Value)| {
        let file = std::fs::read(folder.join(&name)).expect("a fixture");
        let found = describe(OsStr::new(&name), &file.as_slice()).expect("a known format");
        (name, facts, found)
    };
    facts.into_iter().map(describe).collect()
}

#[test]
fn tensors_of_pytorch_are_those_that_it_loads() {
    for (name, facts, found) in described("torch.json") {
        let mut listed: Vec<_> =
            found.tensors.iter().map(|it| json!([it.name, it.dtype, it.shape])).collect();
        listed.sort_by_key(serde_json::Value::to_string);
        let mut expected = facts["tensors"].as_array().expect("a list").clone();
        expected.sort_by_key(serde_json::Value::to_string);
        assert_eq!(listed, expected, "{name}");
        assert_eq!(found.parameters, facts["parameters"].as_u64(), "{name}");
        let Some(Details::Pickle(pickle)) = found.details else { panic!("{name}") };
        assert_eq!(pickle.reasons, [] as [&str; 0], "{name}");
        assert!(pickle.complete && found.runs_code && found.notes.is_empty(), "{name}");
    }
}

#[test]
fn trees_of_catboost_are_those_that_it_counts() {
    for (name, facts, found) in described("catboost.json") {
        let Some(Details::Catboost(trees)) = found.details else { panic!("{name}") };
        assert_eq!(json!(trees.trees), facts["trees"], "{name}");
        assert_eq!(json!(trees.leaves), facts["leaves"], "{name}");
        let features = facts["features"].as_array().expect("a list").len() as u64;
        assert_eq!(trees.float_features + trees.categorical_features, features, "{name}");
        assert_eq!(json!(trees.metadata["model_guid"]), facts["guid"], "{name}");
        let parameters: serde_json::Value =
            serde_json::from_str(&trees.metadata["params"]).expect("JSON");
        assert_eq!(parameters["loss_function"]["type"], facts["loss"], "{name}");
        if name.contains("ways") {
            assert_eq!(trees.splits, trees.leaves - trees.trees, "{name}");
        }
    }
}

#[test]
fn a_packed_pickle_of_an_archive_is_followed_too() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    let stored = std::fs::read(folder.join("torch-checkpoint.pt")).expect("a fixture");
    let packed = std::fs::read(folder.join("torch-packed.pt")).expect("a fixture");
    let described = |file: Vec<u8>| describe(OsStr::new("m"), &file.as_slice()).expect("torch");
    let (stored, packed) = (described(stored), described(packed));
    assert_eq!((stored.format.as_str(), packed.format.as_str()), ("torch", "torch"));
    assert_eq!(packed.tensors, stored.tensors);
    assert_eq!(packed.details, stored.details);
}
