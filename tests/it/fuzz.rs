//! The parsers of what comes from outside, on bytes that are changed without a plan; `scripts/fuzz`
//! runs the same targets with a fuzzer that has one. And small files of the real libraries.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jiff::Timestamp;
use modelfs::format::record::Door;
use modelfs::inspect::{self, FileFormat};
use modelfs::ops::{Caller, Context, HotLimit, NoProgress, OpenOptions, Request, Workspace};
use modelfs::sys::io::Real;

use crate::harness::{Output, fixtures, noise, quick_directory};

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Changed inputs of each seed.
const CHANGES: u64 = 2_000;
/// The most of a seed that is changed: what parsers read comes first.
const SEED_BYTES_MAX: usize = 8 << 10;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds")
}

/// Files below a directory, sorted.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// What a target starts from: its seeds, or what a store has of its kind.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let store = fixtures().with_file_name("format-v1").join("store");
    let paths = match target {
        "inspect" | "policy" | "expression" | "suite" | "command" => files(&folder().join(target)),
        "describe" => {
            [files(&folder().join("describe")), files(&folder().join("inspect"))].concat()
        }
        "manifest" => files(&store.join("manifests")),
        "pack" => files(&store.join("packs")),
        "trainers" => files(&folder().join("trainers")),
        "tables" => files(&fixtures().with_file_name("tables")),
        _ => Vec::new(),
    };
    let read = |path: PathBuf| fs::read(path).expect("a seed");
    let mut seeds: Vec<Vec<u8>> = paths.into_iter().map(read).collect();
    if target == "pack" {
        // Its records, and its footer, begin where the target looks for them.
        seeds = seeds.into_iter().map(|pack| pack[16..].to_vec()).collect();
    }
    if target == "tables" {
        // The footer of Parquet is at the end, and what says so is not part of it.
        seeds.iter_mut().for_each(|table| *table = footer_of(table).unwrap_or(table).to_vec());
    }
    let table = [2, 1, b'x', 1, b'y', 1, 1, 0, 2, 1, b'a', 2, 1, 9, 0, 0x80, 0x80, 0x40];
    seeds.push([&table[..], &[1, b'b', 3, 0, 3, 90], &[7; 32]].concat());
    seeds.push(vec![2, 10, 0, 0x12, 1, 0, 0, 0, 0, 0, 1]);
    for seed in &mut seeds {
        seed.truncate(SEED_BYTES_MAX);
    }
    seeds
}

/// The footer of a Parquet file.
fn footer_of(file: &[u8]) -> Option<&[u8]> {
    let (rest, length) = file.strip_suffix(b"PAR1")?.split_last_chunk::<4>()?;
    rest.get(rest.len().checked_sub(u32::from_le_bytes(*length) as usize)?..)
}

/// One to four changes: a flipped bit, an odd value, a piece moved, an end cut off.
fn changed(seed: &[u8], by: u64) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for step in noise(by, 32).chunks_exact(8).take(1 + by as usize % 4) {
        let step = u64::from_le_bytes(step.try_into().expect("eight bytes"));
        let (kind, at, to) = (step % 7, (step >> 8) as usize, (step >> 36) as usize);
        if bytes.is_empty() {
            break;
        }
        let (at, to) = (at % bytes.len(), to % bytes.len());
        match kind {
            0 | 1 => bytes[at] ^= 1 << (to % 8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][to % 5],
            3 => {
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill([0, 0xff][to % 2]);
            }
            4 => {
                let piece = bytes[at..(at + to % 64).min(bytes.len())].to_vec();
                bytes.splice(to..to, piece);
            }
            5 => drop(bytes.drain(at..(at + to % 16).min(bytes.len()))),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn changed_bytes_are_an_answer_or_an_error() {
    for (name, target) in targets::TARGETS {
        for seed in seeds(name) {
            target(&seed);
            for by in 0..CHANGES {
                target(&changed(&seed, by));
            }
        }
        for by in 0..CHANGES {
            target(&noise(by, by as usize % 300));
        }
    }
}

/// Malformed headers of which what is wrong changes nothing.
const HARMLESS: [&str; 8] = [
    "gguf-same-name",
    "lightgbm-features",
    "onnx-same-name",
    "pickle-memo-2-63",
    "pickle-ring",
    "pickle-tower",
    "skops-same-key",
    "tflite-ring",
];

#[test]
fn headers_that_lie_are_told_in_little_memory() {
    let seeds = files(&folder().join("malformed"));
    assert!(40 < seeds.len(), "{} seeds", seeds.len());
    for seed in seeds {
        let mut shell = Command::new("sh");
        // In KiB, of addresses: what a parser may take, and the program itself.
        shell.args(["-c", "ulimit -v 1000000 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_modelfs")]);
        let output = Output::of(shell.arg("inspect").arg(&seed).env_remove("MODELFS_STORE"));
        let text = output.ok().stdout;
        let told = ["unclear", "unsafe", "note", "unknown"].iter().any(|part| text.contains(part));
        let name = seed.file_name().and_then(OsStr::to_str).expect("a name");
        assert_ne!(told, HARMLESS.iter().any(|part| name.contains(part)), "{name}: {text}");
    }
}

#[test]
fn files_of_the_real_libraries_have_their_tensors() {
    let check = |name: &str, format: FileFormat, expected: &[&str]| {
        let file = fs::read(folder().join("inspect").join(name)).expect("a seed");
        let table = inspect::load_tensors(&file.as_slice(), OsStr::new(name));
        let table = table.unwrap_or_else(|e| panic!("{name}: {e}"));
        let shown = |tensor: &inspect::Tensor| {
            let inspect::Tensor { name, dtype, shape, bytes } = tensor;
            format!("{name} {dtype} {shape:?} {}", bytes.end - bytes.start)
        };
        let found: Vec<String> = table.tensors.iter().map(shown).collect();
        assert_eq!(
            (table.format, found),
            (format, expected.iter().map(|s| s.to_string()).collect()),
            "{name}"
        );
    };
    check(
        "small.safetensors",
        FileFormat::Safetensors,
        &["a f32 [3, 4] 48", "b f16 [5] 10", "c bool [2] 2"],
    );
    check("small.npy", FileFormat::Npy, &["array f32 [2, 3] 24"]);
    check("small.npz", FileFormat::Npz, &["a f32 [2, 3] 24", "b i64 [4] 32"]);
    check("small.pt", FileFormat::Torch, &["w f32 [3, 4] 48", "h bf16 [5] 10"]);
    check("script.pt", FileFormat::TorchScript, &["weight f32 [2, 3] 24", "bias f32 [2] 8"]);
    check(
        "small.onnx",
        FileFormat::Onnx,
        &["k.value f32 [4] 16", "w f32 [3, 4] 48", "f f32 [3] 12", "i other [3] 4"],
    );
    check("small.gguf", FileFormat::Gguf, &["f f32 [2, 32] 256", "q q8_0 [2, 32] 68"]);
}

#[test]
fn a_changed_policy_is_in_force_or_the_one_before_stays() {
    let place = quick_directory();
    let options = OpenOptions {
        directory: place.path().join("store"),
        create: true,
        holder: "fuzz".to_owned(),
        cache_bytes: 1 << 20,
        hot_limit: HotLimit::Untouched,
        clock: Timestamp::now,
        signer: None,
    };
    let (user, door) = ("root".to_owned(), Door::Cli);
    let caller = Caller { user, uid: 0, gid: 0, groups: Vec::new(), door };
    let now = Timestamp::now();
    let workspace = Workspace::open(options, Arc::new(Real), now, &caller).expect("a new store");
    let context = Context { caller, now, assume: false };
    let (seed, mut refused) = (seeds("policy").remove(0), 0);
    for by in 0..500 {
        let text = String::from_utf8_lossy(&changed(&seed, by)).into_owned();
        let before = workspace.policy_text();
        match workspace.run(&context, Request::PolicySet { text: text.clone() }, &NoProgress) {
            Ok(_) => assert_eq!(workspace.policy_text(), text),
            Err(error) => {
                assert!(error.reasons()[0].starts_with("line "), "{error:?}");
                assert_eq!(workspace.policy_text(), before);
                refused += 1;
            }
        }
    }
    assert!((50..500).contains(&refused), "{refused} of 500 were refused");
}
