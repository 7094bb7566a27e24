//! Reading under all conditions that others set: at once, ahead, with little room, from damaged packs.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::blocks::BlockKey;
use super::*;
use crate::format::codec::Elements;
use crate::store::hot::HotLimit;
use crate::store::{Like, Piece};
use crate::sys::io::Real;

const BLOCKS: usize = 20;
const ROOM: u64 = 64 << 20;

struct Scratch {
    store: Store,
    chunk: ChunkRef,
    plain: Vec<u8>,
    _directory: tempfile::TempDir,
}

/// A store with one chunk of bf16 numbers, that keeps at most `cache_bytes`.
fn scratch(cache_bytes: u64) -> Scratch {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    Store::init(&Real, &path, Timestamp::UNIX_EPOCH).unwrap();
    let store =
        Store::open(Arc::new(Real), &path, "tests", cache_bytes, HotLimit::Untouched).unwrap();
    let mut plain = vec![0; BLOCKS * BLOCK_BYTES - 777];
    blake3::Hasher::new().finalize_xof().fill(&mut plain);
    // Exponents near that of 1: the chunk becomes smaller.
    plain.iter_mut().skip(1).step_by(2).for_each(|high| *high = 0x3f ^ *high & 1);
    let chunk = put(&store, &plain, Like::Nothing);
    assert_eq!(store.read.find(&chunk).unwrap().head.codec, Codec::Planes);
    Scratch { store, chunk, plain, _directory: directory }
}

/// Stores a chunk of bf16 numbers.
fn put(store: &Store, plain: &[u8], like: Like) -> ChunkRef {
    let piece = Piece { plain: Arc::new(plain.to_vec()), elements: Elements::Bf16, like };
    let written = store.with_chunk_writer(|mut writer| {
        writer.put(piece).unwrap();
        writer.finish().unwrap()
    });
    written.chunks[0]
}

impl Scratch {
    fn decodes(&self) -> usize {
        self.store.read.decodes.load(Ordering::SeqCst)
    }

    /// Reads and compares.
    #[track_caller]
    fn read(&self, from: usize, count: usize, usage: Use) {
        let mut out = vec![0; count];
        let offset = u32::try_from(from).unwrap();
        let found = self.store.read_chunk_at(&self.chunk, offset, &mut out, usage).unwrap();
        assert_eq!(found, count.min(self.plain.len() - from));
        assert!(out[..found] == self.plain[from..from + found], "other bytes at {from}");
    }

    fn read_all_ahead(&self, cursor: &Arc<Cursor>) {
        let whole = std::iter::once((&self.chunk, 0, 0..self.chunk.bytes));
        self.store.read_ahead(whole, cursor);
    }

    /// Waits until as many blocks were decoded as given.
    #[track_caller]
    fn wait_for(&self, decodes: usize) {
        let begun = Instant::now();
        while self.decodes() < decodes {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} of {decodes}", self.decodes());
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn pack(&self) -> PathBuf {
        let pack = self.store.read.find(&self.chunk).unwrap().pack;
        self.store.layout.pack(&pack)
    }

    fn key(&self, index: u32) -> BlockKey {
        (self.chunk.id, index)
    }
}

#[test]
fn parts_of_a_block_that_are_wanted_at_once_are_decoded_once() {
    let scratch = scratch(ROOM);
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for reader in 0..8 {
            let (scratch, barrier) = (&scratch, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for index in 0..BLOCKS {
                    let index = if reader % 2 == 0 { index } else { BLOCKS - 1 - index };
                    scratch.read(index * BLOCK_BYTES + reader * 4_096, 4_096, Use::Again);
                }
            });
        }
    });
    assert_eq!(scratch.decodes(), BLOCKS);
}

#[test]
fn a_block_that_went_to_its_reader_straight_serves_who_waits_too() {
    let scratch = scratch(ROOM);
    let blocks = &scratch.store.read.blocks;
    let Look::Mine(mut claim) = blocks.look(scratch.key(0), Use::Once) else { panic!("nobody") };
    thread::scope(|scope| {
        let waits = scope.spawn(|| scratch.read(0, BLOCK_BYTES, Use::Once));
        let begun = Instant::now();
        while claim.waiting() == 0 && begun.elapsed() < Duration::from_secs(60) {
            thread::yield_now();
        }
        claim.pass(&scratch.plain[..BLOCK_BYTES]);
        waits.join().unwrap();
    });
    assert_eq!(scratch.decodes(), 0, "it was decoded by nobody else");
}

#[test]
fn who_waits_in_vain_decodes_by_itself() {
    let scratch = scratch(ROOM);
    let blocks = &scratch.store.read.blocks;
    let Look::Mine(claim) = blocks.look(scratch.key(1), Use::Once) else { panic!("nobody") };
    thread::scope(|scope| {
        let waits = scope.spawn(|| scratch.read(0, 3 * BLOCK_BYTES, Use::Once));
        while claim.waiting() == 0 {
            thread::yield_now();
        }
        drop(claim);
        waits.join().unwrap();
    });
    assert_eq!(scratch.decodes(), 3);
}

#[test]
fn nobody_waits_for_a_block_that_is_not_less_deep() {
    let scratch = scratch(ROOM);
    let blocks = &scratch.store.read.blocks;
    let key = scratch.key(0);
    let Look::Mine(claim) = blocks.look(key, Use::Again) else { panic!("nobody") };
    let waits = |below| blocks.look_below(key, Use::Again, 0, below).is_some();
    assert!(!waits(4), "its depth is not known");
    claim.set_depth(2);
    assert!(!waits(1) && !waits(2) && waits(3));
}

#[test]
fn kept_blocks_never_take_more_than_the_limit() {
    for limit in [0, 4_096, 3 * BLOCK_BYTES as u64] {
        let scratch = scratch(limit);
        let cursor = Arc::default();
        thread::scope(|scope| {
            for reader in 0..8 {
                let (scratch, cursor) = (&scratch, &cursor);
                scope.spawn(move || {
                    for step in 0..16 {
                        let from = (reader * 7_919 + step * 104_729) * 31 % scratch.plain.len();
                        let usage = if step % 2 == 0 { Use::Once } else { Use::Again };
                        scratch.read(from, 1 + step * 19_001, usage);
                        if step % 8 == 0 {
                            scratch.read_all_ahead(cursor);
                        }
                        let used = scratch.store.read.blocks.used_bytes();
                        assert!(used <= limit, "{used} of {limit}");
                    }
                });
            }
        });
    }
}

#[test]
fn what_was_read_ahead_is_not_decoded_again_and_makes_room_when_it_was_read() {
    let scratch = scratch(ROOM);
    scratch.read_all_ahead(&Arc::default());
    scratch.wait_for(BLOCKS);
    for from in (0..scratch.plain.len()).step_by(100_000) {
        scratch.read(from, 100_000, Use::Once);
    }
    assert_eq!(scratch.decodes(), BLOCKS);
    let begun = Instant::now();
    // The thread that decoded a block holds it a moment longer.
    while scratch.store.read.blocks.used_bytes() != 0 {
        scratch.store.read.blocks.clear();
        assert!(begun.elapsed() < Duration::from_secs(60), "not all came back");
        thread::yield_now();
    }
}

#[test]
fn what_a_stream_has_passed_is_not_read_ahead() {
    let scratch = scratch(ROOM);
    let cursor = Arc::new(Cursor::default());
    cursor.advance(16 * BLOCK_BYTES as u64);
    scratch.read_all_ahead(&cursor);
    scratch.wait_for(BLOCKS - 16);
    scratch.read(16 * BLOCK_BYTES, 4 * BLOCK_BYTES, Use::Once);
    assert_eq!(scratch.decodes(), BLOCKS - 16);
}

#[test]
fn damage_is_met_by_the_reader_of_its_block_alone_and_not_kept() {
    let scratch = scratch(ROOM);
    let found = scratch.store.read.find(&scratch.chunk).unwrap();
    let at = stored_range(&found, 5..6).start + 100;
    let pack = scratch.pack();
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let file = fs::File::options().read(true).write(true).open(&pack).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    scratch.read_all_ahead(&Arc::default());
    // All but what comes after the damage in its job.
    scratch.wait_for(BLOCKS - 2);
    assert!(!scratch.store.read.is_suspect(&found.pack), "nobody has asked for it yet");
    for index in (0..BLOCKS - 1).filter(|index| *index != 5) {
        scratch.read(index * BLOCK_BYTES, BLOCK_BYTES, Use::Again);
    }
    let mut out = vec![0; 10];
    let offset = 5 * BLOCK_BYTES as u32;
    let error = scratch.store.read_chunk_at(&scratch.chunk, offset, &mut out, Use::Again);
    let Err(StoreError::ChunkDamaged { chunk, why, .. }) = error else { panic!("{error:?}") };
    assert_eq!(chunk, scratch.chunk.id);
    assert!(why.contains("checksum"), "{why}");
    assert!(scratch.store.read.is_suspect(&found.pack));
    file.write_all_at(&byte, at).unwrap();
    scratch.read(5 * BLOCK_BYTES, 10, Use::Again);
}

#[test]
fn a_pack_that_is_cut_off_gives_what_is_before_the_cut() {
    let scratch = scratch(ROOM);
    let found = scratch.store.read.find(&scratch.chunk).unwrap();
    let pack = scratch.pack();
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let file = fs::File::options().write(true).open(&pack).unwrap();
    file.set_len(stored_range(&found, 0..3).end - 1).unwrap();
    scratch.read(0, 2 * BLOCK_BYTES, Use::Again);
    let mut out = vec![0; 3 * BLOCK_BYTES];
    let error = scratch.store.read_chunk_at(&scratch.chunk, 0, &mut out, Use::Again);
    let Err(StoreError::ChunkDamaged { why, .. }) = error else { panic!("{error:?}") };
    assert_eq!(why, "the pack ends within it");
}

#[test]
fn nothing_is_read_ahead_while_readers_keep_the_cores_busy() {
    let scratch = scratch(ROOM);
    let pace = &scratch.store.read.pace;
    let cores = thread::available_parallelism().unwrap().get().max(2);
    // The program that reads has the last one.
    let decoding: Vec<_> = (0..cores - 1).map(|_| pace.enter()).collect();
    scratch.read_all_ahead(&Arc::default());
    thread::sleep(Duration::from_millis(50));
    assert_eq!(scratch.decodes(), 0);
    drop(decoding);
    // As many may come again, until two spans of reads have passed without them.
    (0..=2 * ahead::SPAN_READS).for_each(|_| drop(pace.enter()));
    scratch.read_all_ahead(&Arc::default());
    scratch.wait_for(BLOCKS);
}

#[test]
fn chunks_with_bases_are_checked_while_the_catalog_is_made_anew() {
    let Scratch { store, chunk, mut plain, _directory } = scratch(ROOM);
    let mut chunks = vec![chunk];
    for at in [0, 1_000] {
        plain[at] ^= 1;
        chunks.push(put(&store, &plain, Like::Numbers(chunks[chunks.len() - 1])));
    }
    assert_eq!(store.read.find(&chunks[2]).unwrap().head.bases.depth, 2);
    let (store, (tell, told)) = (Arc::new(store), mpsc::channel());
    let checks = Arc::clone(&store);
    let checking = thread::spawn(move || {
        (0..100).for_each(|_| assert!(checks.holds_all(&chunks[2..])));
        tell.send(()).unwrap();
    });
    let making = thread::spawn(move || {
        while !checking.is_finished() {
            assert_eq!(store.rebuild_catalog().unwrap().chunks, 3);
        }
    });
    told.recv_timeout(Duration::from_secs(60)).expect("they wait for each other");
    making.join().unwrap();
}
