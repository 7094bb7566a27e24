//! What a fuzzer runs: functions of any bytes that may not panic, loop, or take much memory.
//!
//! `tests/it/fuzz.rs` runs them too, on bytes that are changed without a plan.

mod policies;

use std::ffi::OsStr;
use std::path::Path;
use std::sync::LazyLock;

use modelfs::capture::data::{TableFormat, parse_table};
use modelfs::capture::{Finder, redact};
use modelfs::format::codec::{self, Codec};
use modelfs::format::ids::{BlobDigest, ChunkId};
use modelfs::format::manifest::{ChunkRef, Manifest, Mtime, Node, Tree};
use modelfs::format::names::VersionNumber;
use modelfs::format::pack;
use modelfs::format::schema;
use modelfs::inspect;
use xxhash_rust::xxh3::xxh3_64;

pub use policies::{fuzz_command, fuzz_expression, fuzz_policy, fuzz_suite};

/// Bytes of a line in a manifest's table of sections.
const SECTION_LINE_BYTES: usize = 24;
/// Where the lines of the four sections end that every manifest has.
const LINES_END: usize = 8 + 4 * SECTION_LINE_BYTES;

/// The most that is decoded of one input: no more is needed to reach all of a codec.
const PLAIN_BYTES_MAX: usize = 1 << 20;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 12] = [
    ("inspect", fuzz_inspect),
    ("describe", fuzz_describe),
    ("manifest", fuzz_manifest),
    ("tensors", fuzz_tensors),
    ("pack", fuzz_pack),
    ("blocks", fuzz_blocks),
    ("tables", fuzz_tables),
    ("policy", fuzz_policy),
    ("expression", fuzz_expression),
    ("suite", fuzz_suite),
    ("command", fuzz_command),
    ("trainers", fuzz_trainers),
];

/// Files that trainers leave.
const TRAINERS: [&str; 8] = [
    "MLmodel",
    "README.md",
    "config.json",
    "dvc.lock",
    "metrics.json",
    "params.json",
    "params.yaml",
    "trainer_state.json",
];
/// The most that is taken over from one of them, as JSON.
const FOUND_BYTES_MAX: usize = 32 << 20;

/// The header of a model file: a table that is found keeps its invariants.
pub fn fuzz_inspect(file: &[u8]) {
    for name in ["model.onnx", "model"] {
        let table = inspect::tensors(&file, OsStr::new(name)).expect("memory can be read");
        let Some(table) = table else { continue };
        let beside: Vec<_> = table.external.iter().collect();
        for table in [&table, &inspect::external_table(&beside, file.len() as u64)] {
            let (mut end, mut names) = (0, std::collections::HashSet::new());
            for tensor in &table.tensors {
                assert!(end <= tensor.bytes.start && tensor.bytes.start <= tensor.bytes.end);
                end = tensor.bytes.end;
                assert!(names.insert(&tensor.name), "two are `{}`", tensor.name);
            }
            assert!(end <= file.len() as u64);
        }
    }
}

/// Names that decide on a parser where the first bytes do not: of archives, of all else.
const ARCHIVES: [&str; 4] = ["m.pt", "m.npz", "m.skops", "m.keras"];
const OTHERS: [&str; 3] = ["m", "m.pkl", "m.onnx"];

/// What a model file says of itself: it is as short as it may be.
pub fn fuzz_describe(file: &[u8]) {
    let names = if file.starts_with(b"PK") { &ARCHIVES[..] } else { &OTHERS };
    for name in names {
        let Ok(found) = inspect::describe(OsStr::new(name), &file) else { continue };
        let summary = found.summary().to_string();
        assert!(summary.len() <= inspect::SUMMARY_BYTES_MAX, "{} bytes", summary.len());
        assert!(found.tensors.len() as u64 <= found.tensor_count);
        let json = serde_json::to_string(&found).expect("a description has text keys only");
        assert!(json.len() <= 8 * inspect::DESCRIPTION_BYTES_MAX, "{} bytes", json.len());
    }
}

/// A manifest whose four sections decode to four parts of `bytes`.
pub fn fuzz_manifest(bytes: &[u8]) {
    // As it is, then with frames around it: a random change leaves no frame whole.
    let _ = Manifest::parse(bytes).and_then(|manifest| manifest.tensors());
    let [first, second, third, rest @ ..] = bytes else { return };
    let (entries, rest) = rest.split_at((*first as usize * 72).min(rest.len()));
    let (names, rest) = rest.split_at((*second as usize).min(rest.len()));
    let (chunks, tensors) = rest.split_at((*third as usize * 36).min(rest.len()));
    let zeros = "0".repeat(64);
    let head = format!(r#"{{"digest":"{zeros}","metadata":{{}},"model":"m","version":"v1"}}"#);
    let sections = [head.as_bytes(), entries, names, chunks, tensors];
    let _ = Manifest::parse(&manifest_of(&sections)).and_then(|manifest| manifest.tensors());
}

/// The tensor table of a manifest that is sound.
pub fn fuzz_tensors(plain: &[u8]) {
    static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut tree = Tree::default();
        let (time, root) = (Mtime::default(), Node::Directory { first: 0, count: 0 });
        let root = tree.push(b"", time, root);
        tree.set_children(root, 1..3);
        for name in [b"a", b"b"] {
            let file = tree.push(name, time, Tree::file_to_come());
            let chunk = |bytes| ChunkRef { id: ChunkId::of(b""), bytes };
            tree.set_file(file, false, BlobDigest::of(name), &[chunk(1 << 20), chunk(100)]);
        }
        let model = "m".parse().expect("a name");
        let metadata = serde_json::json!({});
        Manifest::new(model, VersionNumber::FIRST, metadata, tree).encode().0
    });
    if plain.is_empty() {
        return;
    }
    let stored = frames(plain);
    let mut manifest = SOUND[..LINES_END].to_vec();
    push_line(&mut manifest, 5, plain.len(), stored.len());
    manifest.extend_from_slice(&SOUND[LINES_END..]);
    manifest.extend_from_slice(&stored);
    let manifest = Manifest::parse(&manifest).expect("sound up to its tensors");
    let Ok(tables) = manifest.tensors() else { return };
    // What was understood is written and read as the same.
    let again = manifest.clone().with_tensors(&tables);
    assert_eq!(again.tensors().expect("we wrote it"), tables);
}

/// A pack: its footer, and a record with a head whose checksum was put right.
pub fn fuzz_pack(bytes: &[u8]) {
    let _ = pack::check_header(bytes);
    let _ = pack::parse_footer(bytes, bytes.len() as u64 + 16);
    if let Some(trailer) = bytes.last_chunk::<{ pack::TRAILER_BYTES }>() {
        let _ = pack::parse_trailer(trailer, bytes.len() as u64);
    }
    let mut record = bytes.to_vec();
    let [_, _, _, _, _, _, base_count, _, a, b, c, d, ..] = record[..] else { return };
    let plain_bytes = u32::from_le_bytes([a, b, c, d]) as usize;
    let head_bytes = match plain_bytes <= codec::CHUNK_BYTES_MAX {
        true => pack::head_bytes(plain_bytes, base_count.into()),
        false => return,
    };
    if let Some(head) = record.get_mut(..head_bytes) {
        head[48..56].fill(0);
        let check = xxh3_64(head);
        head[48..56].copy_from_slice(&check.to_le_bytes());
    }
    let Ok(head) = pack::parse_head(&record, 16) else { return };
    let base_bytes: usize = head.bases.chunks.iter().map(|base| base.bytes as usize).sum();
    let base = vec![7; base_bytes.min(PLAIN_BYTES_MAX)];
    let mut plain = vec![0; plain_bytes.min(PLAIN_BYTES_MAX)];
    let _ = codec::decode(head.codec, &head.blocks, &record[head_bytes..], &base, &mut plain);
}

/// A stored block of any codec, with its checksum, and a base of the same length.
pub fn fuzz_blocks(bytes: &[u8]) {
    let [codec, low, high, stored @ ..] = bytes else { return };
    let Ok(codec) = Codec::try_from(codec % 8) else { return };
    let plain_bytes = usize::from(u16::from_le_bytes([*low, *high % 16])) + 1;
    let stored_bytes = u32::try_from(stored.len()).expect("a fuzzer's input is short");
    let block = codec::Block { stored_bytes, check: xxh3_64(stored) };
    let base: Vec<u8> = (0..=255).cycle().take(plain_bytes).collect();
    let _ = codec::decode(codec, &[block], stored, &base, &mut vec![0; plain_bytes]);
}

/// A table of data in each of its formats, whole and in two parts.
pub fn fuzz_tables(bytes: &[u8]) {
    for format in [TableFormat::Csv, TableFormat::JsonLines, TableFormat::Parquet] {
        let table = parse_table(format, &[bytes]);
        if let Ok(table) = &table {
            table.columns.iter().for_each(|column| drop(column.summary()));
        }
        let (first, second) = bytes.split_at(bytes.len() / 2);
        if format == TableFormat::JsonLines {
            let parts = parse_table(format, &[first, second]);
            assert_eq!(parts.map(|it| it.rows).ok(), table.map(|it| it.rows).ok());
        }
    }
}

/// A file that a trainer left, under each of their names. What is found of it is bounded, and shows no
/// secret by its name.
pub fn fuzz_trainers(bytes: &[u8]) {
    for name in TRAINERS {
        let mut finder = Finder::default();
        assert!(finder.wants(Path::new(name), bytes.len() as u64));
        finder.take(Path::new(name), bytes.to_vec());
        let found = finder.finish();
        let mut length = 0;
        for (member, value) in &found.members {
            length += value.to_string().len();
            // Whether it is as it should be is for the caller to say; it may be anything.
            let _ = schema::check(member, value);
        }
        assert!(length <= FOUND_BYTES_MAX, "{length} bytes of `{name}`");
    }
    let text = String::from_utf8_lossy(bytes);
    let shown = redact::text(&text);
    assert_eq!(redact::text(&shown).lines().count(), shown.lines().count());
}

/// A manifest of these sections, from the first kind on.
fn manifest_of(sections: &[&[u8]]) -> Vec<u8> {
    let (mut bytes, mut body) = (b"MFSMANI\x01".to_vec(), Vec::new());
    for (kind, plain) in (1..).zip(sections) {
        let stored = frames(plain);
        if kind <= 4 || !plain.is_empty() {
            push_line(&mut bytes, kind, plain.len(), stored.len());
            body.extend_from_slice(&stored);
        }
    }
    bytes.extend_from_slice(&body);
    bytes
}

fn push_line(out: &mut Vec<u8>, kind: u32, plain_bytes: usize, stored_bytes: usize) {
    out.extend_from_slice(&u64::from(kind).to_le_bytes());
    out.extend_from_slice(&(plain_bytes as u64).to_le_bytes());
    out.extend_from_slice(&(stored_bytes as u64).to_le_bytes());
}

fn frames(plain: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    for part in plain.chunks(4 << 20) {
        let frame = zstd::bulk::compress(part, 1).expect("zstd takes all bytes");
        stored.extend_from_slice(&u32::try_from(frame.len()).expect("some MiB").to_le_bytes());
        stored.extend_from_slice(&frame);
    }
    stored
}
