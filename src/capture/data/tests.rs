//! Fingerprints of whole data sets.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU64, Ordering};

fn take(path: &Path, threads: usize) -> Fingerprint {
    fingerprint(path, threads, &NoWatcher).unwrap().0
}

/// Files below a directory of its own, made in this order.
fn files(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    directory
}

#[test]
fn a_digest_is_of_names_and_contents_alone() {
    let one = files(&[("a/x", b"1"), ("b", b"2"), ("a.txt", b"3")]);
    let same = files(&[("a.txt", b"3"), ("b", b"2"), ("a/x", b"1")]);
    let digest = take(one.path(), 1).digest;
    assert_eq!(digest, take(same.path(), 4).digest);
    let others: [&[(&str, &[u8])]; 5] = [
        &[("a/x", b"1"), ("b", b"3"), ("a.txt", b"2")],
        &[("a/x", b"1"), ("b", b"2")],
        &[("a/x", b"1"), ("b", b"2"), ("a.txt", b"3"), ("c", b"")],
        &[("a/y", b"1"), ("b", b"2"), ("a.txt", b"3")],
        &[("a/x/z", b"1"), ("b", b"2"), ("a.txt", b"3")],
    ];
    for other in others {
        assert_ne!(digest, take(files(other).path(), 2).digest, "{other:?}");
    }
    // By hand, as FORMAT.md has it.
    let leaf = |name: &str, kind: u8, digest: &[u8]| {
        [&(name.len() as u64).to_le_bytes(), name.as_bytes(), &[kind], digest].concat()
    };
    let of = |parts: &[Vec<u8>]| blake3::derive_key("modelfs data v1", &parts.concat());
    let file = |bytes: &[u8]| *blake3::hash(bytes).as_bytes();
    let a = of(&[leaf("x", 0, &file(b"1"))]);
    let root = [leaf("a", 1, &a), leaf("a.txt", 0, &file(b"3")), leaf("b", 0, &file(b"2"))];
    assert_eq!(digest.0, of(&root));
}

#[test]
fn a_file_is_its_blake3_and_a_directory_within_is_what_it_is_alone() {
    let data = files(&[("train/a.bin", b"abc")]);
    assert_eq!(
        take(&data.path().join("train/a.bin"), 2).digest.0,
        *blake3::hash(b"abc").as_bytes()
    );
    let train = take(&data.path().join("train"), 1);
    let mut part = 5_u64.to_le_bytes().to_vec();
    part.extend_from_slice(b"train\x01");
    part.extend_from_slice(train.digest.as_bytes());
    let whole = take(data.path(), 1);
    assert_eq!(whole.digest.0, blake3::derive_key("modelfs data v1", &part));
    assert_eq!((whole.files, whole.bytes), (1, 3));
}

#[test]
fn links_stand_for_what_they_lead_to() {
    let data = files(&[("blobs/1", b"one"), ("set/a", b"one")]);
    let linked = data.path().join("view");
    fs::create_dir(&linked).unwrap();
    symlink("../blobs/1", linked.join("a")).unwrap();
    assert_eq!(take(&linked, 1).digest, take(&data.path().join("set"), 1).digest);
    symlink("..", linked.join("up")).unwrap();
    let error = fingerprint(data.path(), 1, &NoWatcher).unwrap_err();
    assert!(matches!(error, DataError::Unfit { .. }), "{error:?}");
}

#[test]
fn shards_of_a_table_are_one_table() {
    let (head, rows) = ("id,score\n", |range: std::ops::Range<u32>| -> String {
        range.map(|id| format!("{id},{}\n", f64::from(id * id % 101) / 7.0)).collect()
    });
    let whole = files(&[("all.csv", (head.to_owned() + &rows(0..900)).as_bytes())]);
    let parts: Vec<(String, Vec<u8>)> = (0..30)
        .map(|part| {
            (
                format!("part-{part:02}.csv"),
                (head.to_owned() + &rows(part * 30..part * 30 + 30)).into_bytes(),
            )
        })
        .collect();
    let parts: Vec<(&str, &[u8])> = parts.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    let sharded = files(&parts);
    let (whole, one) = (take(whole.path(), 1), take(sharded.path(), 1));
    assert_eq!((one.rows, one.format.as_deref(), one.files), (Some(900), Some("csv"), 30));
    assert_eq!(one.schema[0], whole.schema[0]);
    assert_eq!(
        (&one.schema[1].min, &one.schema[1].max),
        (&whole.schema[1].min, &whole.schema[1].max)
    );
    for _ in 0..20 {
        assert_eq!(take(sharded.path(), 8), one, "to the last digit, whoever is done first");
    }
}

#[test]
fn what_is_no_table_is_bytes_with_a_note() {
    let data = files(&[
        ("a.csv", b"x,y\n1,2\n"),
        ("b.jsonl", b"[1]\n"),
        ("c.parquet", b"PAR1 no"),
        ("d", b""),
    ]);
    let found = take(data.path(), 2);
    assert_eq!((found.rows, found.format, found.schema.len()), (None, None, 0));
    assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
    let other = files(&[("a.csv", b"x,y\n1,2\n"), ("b.csv", b"x,z\n1,2\n")]);
    let found = take(other.path(), 2);
    assert_eq!((found.rows, found.schema.len()), (Some(2), 0), "{found:?}");
    assert!(found.notes[0].contains("`b.csv` has other columns"), "{:?}", found.notes);
}

#[test]
fn what_changes_meanwhile_is_an_error() {
    let data = files(&[("a", &vec![1; 4 << 20]), ("b", b"2")]);
    struct Meddler<'a>(&'a Path, AtomicU64);
    impl Watcher for Meddler<'_> {
        fn begin(&self, _: u64) {}
        fn advance(&self, _: u64) -> bool {
            if self.1.fetch_add(1, Ordering::SeqCst) == 1 {
                fs::write(self.0.join("a"), vec![2; 4 << 20]).unwrap();
            }
            true
        }
    }
    let error = fingerprint(data.path(), 1, &Meddler(data.path(), AtomicU64::new(0))).unwrap_err();
    assert!(matches!(error, DataError::Changed { .. }), "{error:?}");
}

#[test]
fn a_stamp_shows_what_was_written_since() {
    let data = files(&[("a", b"1"), ("b/c", b"2")]);
    let (_, first) = fingerprint(data.path(), 1, &NoWatcher).unwrap();
    assert_eq!(stamp(data.path()).unwrap(), first);
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(data.path().join("b/c"), b"3").unwrap();
    assert_ne!(stamp(data.path()).unwrap(), first);
}

#[test]
fn one_may_stop_it() {
    struct Impatient;
    impl Watcher for Impatient {
        fn begin(&self, _: u64) {}
        fn advance(&self, _: u64) -> bool {
            false
        }
    }
    let data = files(&[("a", b"1"), ("b.csv", b"2")]);
    let error = fingerprint(data.path(), 3, &Impatient).unwrap_err();
    assert!(matches!(error, DataError::Stopped), "{error:?}");
}

#[test]
fn what_is_no_data_is_refused() {
    let data = files(&[("a", b"1")]);
    nix::unistd::mkfifo(&data.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = fingerprint(data.path(), 1, &NoWatcher).unwrap_err().to_string();
    assert!(error.contains("pipe") && error.contains("a fifo"), "{error}");
    let missing = fingerprint(&data.path().join("none"), 1, &NoWatcher).unwrap_err();
    assert!(matches!(missing, DataError::Io { .. }), "{missing:?}");
}
