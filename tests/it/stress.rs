//! Fifty readers at once, of the same files and of different ones, while all that may move moves.
//!
//! Each byte that is read is compared with what was sealed: no read fails, none gives bytes of
//! another version, and what is mapped stays readable. `MODELFS_TEST_STRESS` is how often each
//! reader looks.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Mount, noise, setting};
use crate::syscalls::{self, Mapping};

const READERS: u64 = 50;
const VERSIONS: u64 = 4;
const MODEL: &str = "m";
/// Files of a version: floats that change a little, bytes that change wholly, bytes that do not
/// change, a small text.
const NAMES: [&str; 4] = ["weights.safetensors", "noise.bin", "same.bin", "small.txt"];
/// Floats of `weights.safetensors`: a few blocks of a chunk.
const WEIGHTS: usize = 150_000;
/// Room for the hot files of one version and a part of another: each that is warmed drives some out.
const HOT_BYTES: &str = "1400K";
/// What each reader keeps open and mapped for a while.
const HELD_MAX: usize = 4;

/// The bytes of `name` in a version, counted from 1.
fn content(version: u64, name: &str) -> Vec<u8> {
    match name {
        "weights.safetensors" => safetensors(version),
        "noise.bin" => noise(version, 300_000),
        "same.bin" => noise(99, 200_000),
        "small.txt" => format!("version {version}\n").into_bytes(),
        other => panic!("no file `{other}`"),
    }
}

/// Weights of about normal distribution; each version adds a little to all of them.
fn safetensors(version: u64) -> Vec<u8> {
    let shape = format!("\"shape\":[{WEIGHTS}],\"data_offsets\":[0,{}]", 4 * WEIGHTS);
    let mut header = format!("{{\"w\":{{\"dtype\":\"F32\",{shape}}}}}");
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.into_bytes());
    let base = noise(7, 4 * WEIGHTS);
    let change = noise(100 + version, WEIGHTS);
    for (sum, little) in base.chunks_exact(4).zip(&change) {
        let weight: f32 = sum.iter().map(|byte| f32::from(*byte) - 127.5).sum::<f32>() / 5_000.0;
        bytes.extend((weight + f32::from(*little) / 1e7).to_le_bytes());
    }
    bytes
}

/// All contents: `of(version, name)` is what a read must give.
struct Sealed {
    bytes: Vec<Vec<Vec<u8>>>,
}

impl Sealed {
    fn new() -> Sealed {
        let files = |version| NAMES.iter().map(|name| content(version, name)).collect();
        Sealed { bytes: (1..=VERSIONS).map(files).collect() }
    }

    fn of(&self, version: u64, name: usize) -> &[u8] {
        &self.bytes[usize::try_from(version - 1).expect("small")][name]
    }

    /// Panics unless `found` is the whole of the file in one version.
    fn require_one_of(&self, name: usize, found: &[u8], place: &str) {
        let known = (1..=VERSIONS).any(|version| self.of(version, name) == found);
        assert!(known, "{place}: {} bytes that no version has", found.len());
    }
}

/// A file that stays open and mapped while other things happen.
struct Held {
    file: File,
    mapping: Mapping,
    version: u64,
    name: usize,
}

struct Reader<'a> {
    mount: &'a Mount,
    sealed: &'a Sealed,
    state: u64,
    held: Vec<Held>,
}

impl Reader<'_> {
    /// The next number below `limit`; the same ones in every run.
    fn chance(&mut self, limit: usize) -> usize {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.state >> 33).expect("31 bits") % limit
    }

    fn version(&mut self) -> u64 {
        1 + self.chance(usize::try_from(VERSIONS).expect("small")) as u64
    }

    fn path(&self, version: u64, name: usize) -> PathBuf {
        self.mount.path(format!("{MODEL}/v{version}/{}", NAMES[name]))
    }

    fn look(&mut self) {
        let (version, name) = (self.version(), self.chance(NAMES.len()));
        match self.chance(6) {
            0 => self.read_whole(version, name),
            1 => self.read_pieces(version, name),
            2 => self.read_moving(&format!("{MODEL}/prod/{}", NAMES[name]), name),
            3 => self.read_moving(&format!(".live/prod/{MODEL}/{}", NAMES[name]), name),
            4 => self.hold(version, name),
            _ => self.let_go(),
        }
    }

    fn open(&self, version: u64, name: usize) -> File {
        let path = self.path(version, name);
        File::open(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
    }

    fn read_whole(&self, version: u64, name: usize) {
        let path = self.path(version, name);
        let found = fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        assert!(found == self.sealed.of(version, name), "{}: other bytes", path.display());
    }

    /// Reads a few pieces that the page cache was told to forget, so that some are asked for anew.
    fn read_pieces(&mut self, version: u64, name: usize) {
        let file = self.open(version, name);
        syscalls::forget_pages(&file);
        let sealed = self.sealed;
        let expected = sealed.of(version, name);
        for _ in 0..8 {
            let at = self.chance(expected.len());
            let mut piece = vec![0; (1 + self.chance(70_000)).min(expected.len() - at)];
            let read = file.read_exact_at(&mut piece, at as u64);
            let place = format!("{} bytes at {at} of v{version}/{}", piece.len(), NAMES[name]);
            read.unwrap_or_else(|e| panic!("{place}: {e}"));
            assert!(piece == expected[at..at + piece.len()], "{place}: other bytes");
        }
    }

    /// Reads through a name that moves: the whole of one version, whichever it was.
    fn read_moving(&self, below: &str, name: usize) {
        let found = fs::read(self.mount.path(below)).unwrap_or_else(|e| panic!("{below}: {e}"));
        self.sealed.require_one_of(name, &found, below);
    }

    fn hold(&mut self, version: u64, name: usize) {
        let file = self.open(version, name);
        let mapping = Mapping::of(&file).unwrap_or_else(|e| panic!("map v{version}: {e}"));
        if HELD_MAX <= self.held.len() {
            self.let_go();
        }
        self.held.push(Held { file, mapping, version, name });
    }

    /// Looks at what was mapped a while ago and closes it; sometimes the descriptor goes first.
    fn let_go(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let at = self.chance(self.held.len());
        let Held { file, mapping, version, name } = self.held.swap_remove(at);
        if self.chance(2) == 0 {
            syscalls::forget_pages(&file);
        } else {
            drop(file);
        }
        let place = format!("mapped v{version}/{}", NAMES[name]);
        assert!(mapping.bytes() == self.sealed.of(version, name), "{place}: other bytes");
    }
}

/// Moves the alias to another version until `done`; how often it did.
fn retarget_until(mount: &Mount, done: &AtomicBool) -> u64 {
    let mut count = 0;
    while !done.load(Ordering::Acquire) {
        count += 1;
        let version = format!("v{}", 1 + count % VERSIONS);
        let moved = mount.retarget(MODEL, "prod", &version);
        assert!(moved.is_ok(), "retarget to {version}: {}", syscalls::name(moved));
        thread::sleep(Duration::from_millis(2));
    }
    count
}

/// Warms one version after the other until `done`, which evicts what was hot; how often it did.
fn warm_until(mount: &Mount, done: &AtomicBool) -> u64 {
    let mut count = 0;
    while !done.load(Ordering::Acquire) {
        count += 1;
        mount.cli(&["warm", &format!("{MODEL}/v{}", 1 + count % VERSIONS)]).ok();
    }
    count
}

#[test]
fn fifty_readers_get_the_right_bytes_while_all_that_may_move_moves() {
    let looks = setting("MODELFS_TEST_STRESS", 20);
    // Root mounts with `--allow-other`, as the harness does; only root's files are passed through.
    let mut mount = Mount::new();
    let allowed: &[&str] = if syscalls::is_root() { &["--allow-other"] } else { &[] };
    mount.set_options(&[allowed, &["--hot-bytes", HOT_BYTES]].concat());
    mount.restart();
    fs::create_dir(mount.path(MODEL)).expect("mkdir makes a model");
    let sealed = Sealed::new();
    for version in 1..=VERSIONS {
        let files: Vec<(&str, &[u8])> =
            (0..NAMES.len()).map(|name| (NAMES[name], sealed.of(version, name))).collect();
        mount.seal_files(MODEL, &files, &format!("version {version}"));
    }
    mount.retarget(MODEL, "prod", "v1").expect("v1 is there");
    let (done, looked) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let mover = scope.spawn(|| retarget_until(&mount, &done));
        let warmer = scope.spawn(|| warm_until(&mount, &done));
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                let mut reader =
                    Reader { mount: &mount, sealed: &sealed, state: number, held: Vec::new() };
                let looked = &looked;
                scope.spawn(move || {
                    for _ in 0..looks {
                        reader.look();
                        looked.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let ended: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Release);
        let failed = ended.iter().filter(|end| end.is_err()).count();
        assert_eq!(failed, 0, "of {READERS} readers; what each met is above");
        assert!(0 < mover.join().expect("each move is done"), "the alias never moved");
        assert!(0 < warmer.join().expect("each version can be warmed"), "nothing was warmed");
    });
    assert_eq!(looked.into_inner(), READERS * looks);
    mount.assert_sound();
}
