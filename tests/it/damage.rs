//! Damage to a store: every flipped byte and every cut is found, and no wrong byte is ever served.
//!
//! `MODELFS_TEST_STRIDE` says how many bytes apart the flips are: 1 is every byte.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Bench, Mount, Output, noise, setting};

/// Exit status for damaged data.
const DAMAGED: i32 = 6;

/// The files of the two versions in the store that is damaged.
fn contents() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        ("v1/weights", noise(1, 1500)),
        ("v1/notes", b"all the same letter: ".iter().copied().chain([b'a'; 700]).collect()),
        ("v2/weights", noise(2, 900)),
        ("v2/notes", b"second".to_vec()),
    ])
}

/// A small store with two versions of `churn` and an alias, made without a daemon.
fn small_store() -> Bench {
    let bench = Bench::new();
    for (name, bytes) in contents() {
        bench.write(&format!("source/{name}"), bytes);
    }
    for version in ["v1", "v2"] {
        let source = bench.root.join("source").join(version);
        let source = source.to_str().expect("text");
        bench.cli(&["snapshot", "churn", source, "-m", version]).ok().says(version);
    }
    bench.cli(&["promote", "churn/v1", "prod"]).ok();
    bench.cli(&["verify", "--read-data"]).ok();
    bench
}

/// The files that a store is made of; not the catalog, the lock and the socket.
fn stored_files(store: &Path) -> Vec<PathBuf> {
    let mut found = vec![store.join("modelfs.json")];
    for folder in ["packs", "manifests", "history"] {
        let before = found.len();
        collect(&store.join(folder), &mut found);
        assert!(before < found.len(), "nothing below `{folder}`");
    }
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the store") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => collect(&path, found),
            false => found.push(path),
        }
    }
}

/// Replaces a file of the store, which may be write-protected.
fn put(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    fs::write(path, bytes).expect("it is ours");
}

/// `verify --read-data --json` finds damage and says so in an orderly way.
#[track_caller]
fn check_found(bench: &Bench, what: &str) {
    let found = bench.cli(&["verify", "--read-data", "--json"]);
    assert_orderly(&found, what);
    assert_eq!(found.status, DAMAGED, "{what}: verify did not see it\n{found:#?}");
}

/// No panic, no signal, no hang, and no quiet failure.
#[track_caller]
fn assert_orderly(found: &Output, what: &str) {
    assert!((0..=6).contains(&found.status), "{what}: {found:#?}");
    assert!(!found.stderr.contains("panicked"), "{what}: {found:#?}");
    let said = !found.stdout.is_empty() || !found.stderr.is_empty();
    assert!(found.status == 0 || said, "{what}: failed without a word");
}

#[test]
fn verify_finds_every_flipped_byte() {
    let stride = setting("MODELFS_TEST_STRIDE", 11);
    let stride = usize::try_from(stride).expect("a small number").max(1);
    let bench = small_store();
    let mut count = 0_usize;
    for file in stored_files(&bench.store) {
        let whole = fs::read(&file).expect("a file of the store");
        // Another place in each file, so that a stride does not look at the same fields for ever.
        for at in (count % stride..whole.len()).step_by(stride) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            put(&file, &bytes);
            check_found(&bench, &format!("byte {at} of {}", file.display()));
            count += 1;
        }
        put(&file, &whole);
    }
    println!("{count} flips, each of them found");
    assert!(0 < count);
    bench.cli(&["verify", "--read-data"]).ok();
}

#[test]
fn verify_finds_every_cut() {
    let bench = small_store();
    for file in stored_files(&bench.store) {
        let whole = fs::read(&file).expect("a file of the store");
        for len in (0..whole.len()).step_by(512).chain([whole.len() - 1]) {
            put(&file, &whole[..len]);
            check_found(&bench, &format!("{} cut at {len}", file.display()));
        }
        let longer: Vec<u8> = whole.iter().copied().chain([0]).collect();
        put(&file, &longer);
        check_found(&bench, &format!("{} with a byte too many", file.display()));
        put(&file, &whole);
    }
    bench.cli(&["verify", "--read-data"]).ok();
}

#[test]
fn verify_finds_every_file_that_is_gone() {
    let bench = small_store();
    let mut records = Vec::new();
    collect(&bench.store.join("history"), &mut records);
    let newest_record = records.into_iter().max();
    for file in stored_files(&bench.store) {
        let whole = fs::read(&file).expect("a file of the store");
        fs::remove_file(&file).expect("it is ours");
        let found = bench.cli(&["verify", "--read-data", "--json"]);
        assert_orderly(&found, &file.display().to_string());
        if file.ends_with("modelfs.json") {
            assert_ne!(found.status, 0, "it is not made anew over what is there: {found:#?}");
        } else if Some(&file) != newest_record.as_ref() {
            // The newest record cannot be missed by a chain that ends before it; all else is.
            assert_eq!(found.status, DAMAGED, "{}: {found:#?}", file.display());
        }
        fs::write(&file, &whole).expect("it is ours");
    }
    bench.cli(&["verify", "--read-data"]).ok();
}

#[test]
fn a_damaged_chunk_is_named_with_the_versions_it_hits() {
    let bench = small_store();
    let mut packs = Vec::new();
    collect(&bench.store.join("packs"), &mut packs);
    let mut named = String::new();
    for pack in packs {
        let mut bytes = fs::read(&pack).expect("a pack");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        put(&pack, &bytes);
        named.push_str(&bench.cli(&["verify", "--read-data", "--json"]).exits(DAMAGED).stdout);
    }
    assert!(named.contains("churn/v1") && named.contains("churn/v2"), "{named}");
    bench.cli(&["verify", "--read-data"]).exits(DAMAGED).says("churn/v");
}

#[test]
fn a_read_is_right_or_an_error() {
    let stride = usize::try_from(setting("MODELFS_TEST_STRIDE", 11)).expect("a small number");
    let mut bench = Some(small_store());
    let store = bench.as_ref().expect("just made").store.clone();
    let mut files = Vec::new();
    collect(&store.join("packs"), &mut files);
    collect(&store.join("manifests"), &mut files);
    let (mut right, mut refused) = (0, 0);
    for file in files {
        let whole = fs::read(&file).expect("a file of the store");
        for at in (0..whole.len()).step_by(stride.max(1) * 41) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            put(&file, &bytes);
            let mut mount = Mount::on(bench.take().expect("given back"));
            let (good, bad) = read_all(&mount, &format!("byte {at} of {}", file.display()));
            (right, refused) = (right + good, refused + bad);
            mount.stop();
            bench = Some(mount.into_bench());
        }
        put(&file, &whole);
    }
    println!("{right} reads were right, {refused} were refused");
    assert!(0 < right && 0 < refused, "{right} right, {refused} refused");
}

#[test]
fn one_damaged_chunk_harms_only_the_files_it_is_in() {
    let bench = Bench::new();
    let (hit, spared) = (noise(11, 3 << 20), noise(12, 3 << 20));
    bench.write("source/hit", &hit);
    bench.write("source/same-start", [&hit[..2 << 20], &spared].concat());
    bench.write("source/spared", &spared);
    let source = bench.root.join("source");
    bench.cli(&["snapshot", "churn", source.to_str().expect("text")]).ok().says("v1");
    let mut packs = Vec::new();
    collect(&bench.store.join("packs"), &mut packs);
    // Noise does not shrink, so its bytes are in a pack as they are, once.
    let needle = &hit[hit.len() - 64..];
    let mut places = 0;
    for pack in packs {
        let mut bytes = fs::read(&pack).expect("a pack");
        let Some(at) = bytes.windows(needle.len()).position(|part| part == needle) else {
            continue;
        };
        bytes[at] ^= 1;
        put(&pack, &bytes);
        places += 1;
    }
    assert_eq!(places, 1, "one chunk is damaged");
    let mount = Mount::on(bench);
    let read = |name: &str| fs::read(mount.path("churn/v1").join(name));
    assert_eq!(read("hit").expect_err("its last chunk").raw_os_error(), Some(libc::EIO));
    assert!(read("spared").expect("it shares no chunk with it") == spared);
    assert!(
        read("same-start").expect("it shares none but sound ones")
            == [&hit[..2 << 20], &spared].concat()
    );
    let mut start = vec![0; 1 << 20];
    let file = fs::File::open(mount.path("churn/v1/hit")).expect("it opens");
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut start, 0).expect("a sound chunk");
    assert!(start == hit[..1 << 20]);
}

/// How many files could be read, with the right bytes, and how many could not.
fn read_all(mount: &Mount, what: &str) -> (u32, u32) {
    let (mut right, mut refused) = (0, 0);
    for (name, expected) in contents() {
        match fs::read(mount.path("churn").join(name)) {
            Ok(bytes) => {
                assert!(bytes == expected, "{what}: `{name}` has wrong bytes");
                right += 1;
            }
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::EIO), "{what}: `{name}`");
                refused += 1;
            }
        }
    }
    assert!(!mount.log().contains("panicked"), "{what}: {}", mount.log());
    (right, refused)
}

/// What there is to lose when a catalog goes wrong.
fn state(bench: &Bench) -> (Value, Value, Value) {
    let list = bench.cli_json(&["list", "churn"]);
    (list, bench.cli_json(&["alias", "list", "churn"]), bench.cli_json(&["history"]))
}

#[test]
fn a_damaged_catalog_is_rebuilt_and_nothing_is_lost() {
    let bench = small_store();
    let before = state(&bench);
    let catalog = bench.store.join("catalog");
    let mut parts = Vec::new();
    collect(&catalog, &mut parts);
    assert!(!parts.is_empty(), "a catalog has files");
    let check = |what: &str| {
        assert_eq!(state(&bench), before, "{what}");
        bench.cli(&["verify", "--read-data"]).ok();
    };
    for part in &parts {
        for harm in ["emptied", "noise", "zeros", "flipped", "cut", "removed"] {
            if !part.exists() {
                // An earlier rebuild may name its files in another way.
                continue;
            }
            let mut bytes = fs::read(part).expect("a file of the catalog");
            let len = bytes.len();
            match harm {
                "emptied" => bytes.clear(),
                "noise" => bytes = noise(3, len),
                "zeros" => bytes.fill(0),
                "flipped" if len > 0 => bytes[len / 3] ^= 0x40,
                "cut" => bytes.truncate(len / 2),
                _ => {}
            }
            put(part, &bytes);
            if harm == "removed" {
                fs::remove_file(part).expect("it is ours");
            }
            check(&format!("{}: {harm}", part.display()));
        }
    }
    fs::remove_dir_all(&catalog).expect("it is ours");
    check("no catalog");
    fs::remove_dir_all(&catalog).expect("it is ours");
    fs::write(&catalog, "not a directory").expect("it is ours");
    check("a file in its place");
}

#[test]
fn a_catalog_of_yesterday_does_not_hide_what_came_since() {
    let bench = small_store();
    let (catalog, kept) = (bench.store.join("catalog"), bench.root.join("yesterday"));
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        let done = std::process::Command::new("cp").arg("-a").args([from, to]).status();
        assert!(done.expect("cp runs").success());
    };
    copy(&catalog, &kept);
    let source = bench.write("source/v3/weights", noise(3, 2000));
    let source = source.parent().and_then(Path::to_str).expect("text");
    bench.cli(&["snapshot", "churn", source, "-m", "v3"]).ok();
    bench.cli(&["promote", "churn/v3", "prod"]).ok();
    let before = state(&bench);
    copy(&kept, &catalog);
    assert_eq!(state(&bench), before);
    let out = bench.root.join("out");
    bench.cli(&["export", "churn/prod", out.to_str().expect("text")]).ok();
    assert_eq!(fs::read(out.join("weights")).expect("exported"), noise(3, 2000));
}

#[test]
fn a_mount_starts_over_a_damaged_catalog() {
    let bench = small_store();
    let mut parts = Vec::new();
    collect(&bench.store.join("catalog"), &mut parts);
    for part in parts {
        put(&part, &noise(9, 300));
    }
    let mount = Mount::on(bench);
    assert_eq!(read_all(&mount, "a damaged catalog"), (4, 0));
    mount.assert_link("churn/prod", "v1");
    mount.assert_sound();
}

#[test]
fn repair_rebuilds_the_catalog_and_touches_nothing_else() {
    let bench = small_store();
    let before: Vec<(PathBuf, Vec<u8>)> = stored_files(&bench.store)
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).expect("a file of the store")))
        .collect();
    fs::remove_dir_all(bench.store.join("catalog")).expect("it is ours");
    bench.cli(&["repair"]).ok();
    assert!(bench.store.join("catalog").exists(), "it was rebuilt");
    let paths: Vec<PathBuf> = before.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(stored_files(&bench.store), paths);
    for (path, bytes) in before {
        assert!(fs::read(&path).expect("still there") == bytes, "{}", path.display());
    }
    bench.cli(&["verify", "--read-data"]).ok();
}

/// Seals the content of `v1` once more, after a byte of each file in `folder` was flipped at `at`.
fn seal_over_damage(folder: &str, at: impl Fn(&[u8]) -> usize) -> (Bench, String) {
    let bench = small_store();
    let mut files = Vec::new();
    collect(&bench.store.join(folder), &mut files);
    for file in files {
        let mut bytes = fs::read(&file).expect("a file of the store");
        let at = at(&bytes);
        bytes[at] ^= 0x40;
        put(&file, &bytes);
    }
    let source = bench.root.join("source/v1");
    let source = source.to_str().expect("text");
    let sealed = bench.cli_json(&["snapshot", "churn", source, "-m", "v1"]);
    let version = sealed["value"]["version"].as_str().or(sealed["version"].as_str());
    let version = version.unwrap_or_else(|| panic!("{sealed}")).to_owned();
    (bench, version)
}

#[test]
fn sealing_what_is_damaged_in_the_store_makes_it_whole() {
    // The head of the first record, its content, and the manifests.
    type Place = fn(&[u8]) -> usize;
    let cases: [(&str, Place); 3] =
        [("packs", |_| 20), ("packs", |_| 100), ("manifests", |bytes| bytes.len() / 2)];
    for (folder, at) in cases {
        let (bench, version) = seal_over_damage(folder, at);
        let out = bench.root.join("out");
        let reference = format!("churn/{version}");
        bench.cli(&["export", &reference, out.to_str().expect("text")]).ok();
        for name in ["weights", "notes"] {
            let found = fs::read(out.join(name)).expect("exported");
            assert!(found == contents()[&*format!("v1/{name}")], "{folder}: {name}");
        }
    }
}

#[test]
fn a_history_with_a_gap_of_any_width_does_not_open() {
    let bench = small_store();
    for _ in 0..2 {
        bench.cli(&["promote", "churn/v2", "prod"]).ok();
        bench.cli(&["promote", "churn/v1", "prod"]).ok();
    }
    let record = |seq: u32| bench.store.join(format!("history/{seq:020}.json"));
    assert!(record(8).exists());
    for seq in 4..=7 {
        fs::remove_file(record(seq)).expect("a record");
    }
    fs::remove_dir_all(bench.store.join("catalog")).expect("a cache");
    bench.cli(&["list"]).exits(DAMAGED).says("record 4 is missing");
    assert!(!record(4).exists(), "nothing is made in its place");
}
