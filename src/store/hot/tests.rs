//! Hot files: what is handed out, what is kept, what goes.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::sys::io::Real;

const BYTES: usize = 256 << 10;

struct Scratch {
    directory: tempfile::TempDir,
    layout: Layout,
}

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        for path in [layout.hot(), layout.temporary()] {
            fs::create_dir(path).unwrap();
        }
        Self { directory, layout }
    }

    fn open(&self, limit: u64) -> Hot {
        Hot::open(Arc::new(Real), self.layout.clone(), HotLimit::Bytes(limit))
    }

    fn large(&self) -> Hot {
        self.open(1 << 30)
    }

    /// A sealed file with its stamp.
    fn sealed(&self, name: &str, content: &[u8]) -> (std::path::PathBuf, Stamp) {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        let stamp = stamp_of(&at::status(File::open(&path).unwrap()).unwrap());
        (path, stamp)
    }

    /// Bytes that the disk gives for what is in `hot/`, the directory among it.
    fn disk_bytes(&self) -> u64 {
        let blocks = |path: &Path| fs::symlink_metadata(path).unwrap().blocks() * 512;
        let files = fs::read_dir(self.layout.hot()).unwrap();
        blocks(&self.layout.hot()) + files.map(|file| blocks(&file.unwrap().path())).sum::<u64>()
    }

    fn is_clean(&self) -> bool {
        fs::read_dir(self.layout.temporary()).unwrap().next().is_none()
    }
}

fn content(seed: u8) -> Vec<u8> {
    (0..BYTES).map(|index| (index as u8).wrapping_mul(31) ^ (index >> 8) as u8 ^ seed).collect()
}

fn version(text: &str) -> ManifestId {
    ManifestId::of(text.as_bytes())
}

fn claim(of: &str) -> Claim {
    Claim { version: version(of), strong: false, aliased: HashSet::new() }
}

fn copy(hot: &Hot, content: &[u8], claim: &Claim) {
    let digest = BlobDigest::of(content);
    let Begun::Write(mut new) = hot.begin(digest, content.len() as u64, claim).unwrap() else {
        panic!("nothing to write")
    };
    for piece in content.chunks(100_000) {
        new.write(piece).unwrap();
    }
    new.finish().unwrap();
}

fn find(hot: &Hot, content: &[u8]) -> Found {
    hot.find(&BlobDigest::of(content), content.len() as u64, &version("v"))
}

#[track_caller]
fn ready(hot: &Hot, content: &[u8]) -> HotFile {
    match find(hot, content) {
        Found::Ready(file) => {
            let mut out = vec![0; content.len() + 10];
            assert_eq!(file.read_at(&Real, 0, &mut out), Some(content.len()));
            assert!(out[..content.len()] == *content);
            assert_eq!(file.read_at(&Real, content.len() as u64, &mut out), Some(0));
            file
        }
        other => panic!("{other:?}"),
    }
}

fn check(hot: &Hot, content: &[u8]) -> Checked {
    hot.check(&BlobDigest::of(content), &mut |_| true)
}

#[test]
fn w2_a_copy_gets_its_name_only_when_it_is_right() {
    let scratch = Scratch::new();
    let hot = scratch.large();
    let content = content(1);
    let (digest, bytes) = (BlobDigest::of(&content), content.len() as u64);
    let begin = || match hot.begin(digest, bytes, &claim("v")).unwrap() {
        Begun::Write(new) => new,
        other => panic!("{other:?}"),
    };
    let mut half = begin();
    half.write(&content[..1_000]).unwrap();
    drop(half);
    let mut wrong = begin();
    wrong.write(&vec![0; BYTES]).unwrap();
    assert_eq!(wrong.finish().unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(matches!(find(&hot, &content), Found::Absent));
    assert!(scratch.is_clean());
    assert_eq!(fs::read_dir(scratch.layout.hot()).unwrap().count(), 0);
    copy(&hot, &content, &claim("v"));
    ready(&hot, &content);
    let status = fs::metadata(scratch.layout.hot_file(&digest)).unwrap();
    assert_eq!(status.permissions().mode() & 0o7777, 0o400);
    assert!(matches!(hot.begin(digest, bytes, &claim("v")).unwrap(), Begun::Present));
    assert_eq!(hot.totals(), HotTotals { files: 1, bytes, bytes_max: 1 << 30 });
}

#[test]
fn w2_a_file_is_moved_only_as_it_was_sealed() {
    let scratch = Scratch::new();
    let hot = scratch.large();
    let content = content(2);
    let digest = BlobDigest::of(&content);
    let adopt = |path: &Path, stamp: &Stamp| hot.adopt(path, &digest, stamp, &claim("v")).unwrap();
    let left = |name: &str, spoil: &dyn Fn(&Path)| {
        let (path, stamp) = scratch.sealed(name, &content);
        spoil(&path);
        assert!(matches!(adopt(&path, &stamp), Adopted::Left(_)), "{name}");
        assert!(path.exists() && matches!(find(&hot, &content), Found::Absent), "{name}");
    };
    left("changed", &|path| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(path, vec![9; BYTES]).unwrap();
    });
    left("linked", &|path| fs::hard_link(path, path.with_extension("other")).unwrap());
    let writer = std::cell::RefCell::new(None);
    left("written", &|path| {
        *writer.borrow_mut() = Some(File::options().write(true).open(path).unwrap());
    });
    let (small, stamp) = scratch.sealed("small", b"small");
    assert!(matches!(adopt(&small, &stamp), Adopted::Left(_)));
    let (path, stamp) = scratch.sealed("sealed", &content);
    let reader = File::open(&path).unwrap();
    assert_eq!(adopt(&path, &stamp), Adopted::Moved);
    assert!(!path.exists());
    let file = ready(&hot, &content);
    let status = file.file().metadata().unwrap();
    assert_eq!(status.ino(), stamp.inode, "the same file, not a copy");
    assert_eq!(status.mode() & 0o7777, 0o400);
    assert_eq!(reader.metadata().unwrap().ino(), stamp.inode);
    let (again, stamp) = scratch.sealed("again", &content);
    assert!(matches!(adopt(&again, &stamp), Adopted::Left(_)));
}

#[test]
fn w3_after_a_start_only_what_the_index_has_is_believed() {
    let scratch = Scratch::new();
    let (copied, moved, torn) = (content(3), content(4), content(5));
    let hot = scratch.large();
    copy(&hot, &copied, &claim("v"));
    for (name, content) in [("moved", &moved), ("torn", &torn)] {
        let (path, stamp) = scratch.sealed(name, content);
        let digest = BlobDigest::of(content);
        assert_eq!(hot.adopt(&path, &digest, &stamp, &claim("v")).unwrap(), Adopted::Moved);
        ready(&hot, content);
    }
    drop(hot);
    // As a power cut may leave it: the name and the length are there, the bytes are not.
    let path = scratch.layout.hot_file(&BlobDigest::of(&torn));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, vec![0; BYTES]).unwrap();
    let hot = scratch.large();
    ready(&hot, &copied);
    assert!(matches!(find(&hot, &moved), Found::Unsure));
    assert!(matches!(find(&hot, &torn), Found::Unsure));
    assert_eq!(check(&hot, &moved), Checked::Good);
    assert_eq!(check(&hot, &torn), Checked::Removed);
    ready(&hot, &moved);
    assert!(matches!(find(&hot, &torn), Found::Absent) && !path.exists());
    drop(hot);
    ready(&scratch.large(), &moved);
}

#[test]
fn what_was_moved_is_believed_after_a_start_once_it_was_made_durable() {
    let scratch = Scratch::new();
    let hot = scratch.large();
    let content = content(6);
    let (path, stamp) = scratch.sealed("sealed", &content);
    hot.adopt(&path, &BlobDigest::of(&content), &stamp, &claim("v")).unwrap();
    hot.settle(&|| false);
    assert!(!scratch.layout.hot_index().exists(), "it was to stop");
    hot.settle(&|| true);
    drop(hot);
    ready(&scratch.large(), &content);
    // A line that is torn or strange costs a hashing, no more.
    fs::write(scratch.layout.hot_index(), b"\xff\nnonsense\n").unwrap();
    assert!(matches!(find(&scratch.large(), &content), Found::Unsure));
}

#[test]
fn a_file_that_changed_is_not_used_before_it_was_hashed() {
    let scratch = Scratch::new();
    let hot = scratch.large();
    let content = content(7);
    copy(&hot, &content, &claim("v"));
    let open = ready(&hot, &content);
    let path = scratch.layout.hot_file(&BlobDigest::of(&content));
    // Touched only: it is hashed and then used again.
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!open.is_intact());
    assert_eq!(open.read_at(&Real, 0, &mut [0; 10]), None);
    assert!(matches!(find(&hot, &content), Found::Unsure));
    assert_eq!(check(&hot, &content), Checked::Good);
    ready(&hot, &content);
    let mut changed = content.clone();
    changed[BYTES / 2] ^= 1;
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(&path, changed).unwrap();
    assert!(matches!(find(&hot, &content), Found::Unsure));
    assert_eq!(hot.check(&BlobDigest::of(&content), &mut |_| false), Checked::Skipped);
    assert_eq!(check(&hot, &content), Checked::Removed);
    assert!(matches!(find(&hot, &content), Found::Absent));
    assert_eq!(check(&hot, &content), Checked::Skipped);
}

#[test]
fn w1_the_limit_is_hard_and_what_is_open_stays_readable() {
    let scratch = Scratch::new();
    let limit = 4 * BYTES as u64;
    let hot = scratch.open(limit);
    let first = content(10);
    copy(&hot, &first, &claim("v"));
    let open = ready(&hot, &first);
    for seed in 11..30 {
        copy(&hot, &content(seed), &claim(&format!("v{seed}")));
        assert!(scratch.disk_bytes() <= limit, "{} > {limit}", scratch.disk_bytes());
    }
    assert!(matches!(find(&hot, &first), Found::Absent));
    assert!(open.is_intact());
    let mut out = vec![0; BYTES];
    assert_eq!(open.read_at(&Real, 0, &mut out), Some(BYTES));
    assert!(out == first);
    ready(&hot, &content(29));
    let is_refused = |hot: &Hot, bytes: u64| {
        matches!(hot.begin(BlobDigest::of(b"x"), bytes, &claim("v")), Ok(Begun::Refused(_)))
    };
    assert!(is_refused(&hot, limit));
    ready(&hot, &content(29));
    let kept = hot.totals().bytes;
    hot.give_way(1);
    assert_eq!(hot.totals().bytes, kept - BYTES as u64);
    drop(hot);
    let hot = scratch.open(2 * BYTES as u64);
    assert_eq!((hot.totals().files, hot.totals().bytes), (1, BYTES as u64));
    drop(hot);
    let hot = scratch.open(0);
    assert_eq!(hot.totals(), HotTotals::default());
    assert!(!hot.is_on() && matches!(find(&hot, &first), Found::Absent));
    assert!(is_refused(&hot, BYTES as u64));
}

#[test]
fn the_directory_may_be_deleted_at_any_time() {
    let scratch = Scratch::new();
    let hot = scratch.large();
    let (one, two, three) = (content(40), content(41), content(42));
    copy(&hot, &one, &claim("v"));
    let (path, stamp) = scratch.sealed("sealed", &two);
    fs::remove_dir_all(scratch.layout.hot()).unwrap();
    assert!(matches!(find(&hot, &one), Found::Absent));
    assert_eq!(hot.totals().files, 0);
    hot.adopt(&path, &BlobDigest::of(&two), &stamp, &claim("v")).unwrap();
    ready(&hot, &two);
    fs::remove_dir_all(scratch.layout.hot()).unwrap();
    copy(&hot, &three, &claim("v"));
    ready(&hot, &three);
    fs::remove_dir_all(scratch.layout.hot()).unwrap();
    hot.settle(&|| true);
    hot.give_way(1);
    drop(hot);
    fs::create_dir(scratch.layout.hot()).unwrap();
    assert_eq!(scratch.large().totals().files, 0);
}

#[test]
fn an_untouched_directory_is_looked_at_only() {
    let scratch = Scratch::new();
    let content = content(50);
    copy(&scratch.large(), &content, &claim("v"));
    let hot = Hot::open(Arc::new(Real), scratch.layout.clone(), HotLimit::Untouched);
    assert_eq!((hot.totals().files, hot.totals().bytes_max), (1, 0));
    assert!(matches!(find(&hot, &content), Found::Absent));
    hot.give_way(u64::MAX);
    assert_eq!(check(&hot, &content), Checked::Good);
    drop(hot);
    ready(&scratch.large(), &content);
}
