//! BLAKE3 of a file by pieces that several threads read at once.
//!
//! BLAKE3 is a tree: a piece whose length is a power of two and which stands at a multiple of it is a
//! subtree, so pieces are hashed apart and their values merged. The digest is that of the whole file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

/// Bytes of a piece; a power of two of at least 1,024. Small in tests, so that many are quickly made.
pub const PIECE_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 32 << 20 };
/// Bytes that are read at a time.
const STEP_BYTES: usize = 1 << 20;

/// What hashing one piece gave.
#[derive(Clone, Copy, Debug)]
pub enum PieceDigest {
    /// It was the whole file.
    Whole([u8; 32]),
    Part(ChainingValue),
}

/// Pieces of a file of this length; at least one.
pub fn piece_count(bytes: u64) -> u64 {
    bytes.div_ceil(PIECE_BYTES).max(1)
}

/// Hashes piece number `index` of a file that has `bytes`. `advance` says whether to go on.
///
/// # Errors
/// `UnexpectedEof` where the file is shorter, `Interrupted` where it is not to go on.
pub fn hash_piece(
    file: &File,
    bytes: u64,
    index: u64,
    advance: &mut dyn FnMut(u64) -> bool,
) -> io::Result<PieceDigest> {
    let (start, end) = (index * PIECE_BYTES, ((index + 1) * PIECE_BYTES).min(bytes));
    let mut hasher = blake3::Hasher::new();
    if 0 < start {
        hasher.set_input_offset(start);
    }
    let length = usize::try_from(end - start).expect("a piece fits in memory");
    let mut room = vec![0; STEP_BYTES.min(length)];
    let mut at = start;
    while at < end {
        let step = usize::try_from(end - at).expect("within a piece").min(room.len());
        file.read_exact_at(&mut room[..step], at)?;
        hasher.update(&room[..step]);
        at += step as u64;
        if !advance(step as u64) {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
    }
    Ok(match piece_count(bytes) {
        1 => PieceDigest::Whole(*hasher.finalize().as_bytes()),
        _ => PieceDigest::Part(hasher.finalize_non_root()),
    })
}

/// The digest of a file from all of its pieces.
pub fn merge(pieces: &[PieceDigest]) -> [u8; 32] {
    let parts: Vec<ChainingValue> = pieces
        .iter()
        .map(|piece| match piece {
            PieceDigest::Whole(value) | PieceDigest::Part(value) => *value,
        })
        .collect();
    match &parts[..] {
        [whole] => *whole,
        parts => {
            let (left, right) = parts.split_at(left_count(parts.len()));
            *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
        }
    }
}

/// The left subtree has the largest power of two of pieces that leaves one for the right.
fn left_count(count: usize) -> usize {
    count.div_ceil(2).next_power_of_two()
}

fn subtree(parts: &[ChainingValue]) -> ChainingValue {
    if let [part] = parts {
        return *part;
    }
    let (left, right) = parts.split_at(left_count(parts.len()));
    merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};

    #[test]
    fn pieces_make_the_digest_of_the_whole() {
        let check = |bytes: u64| {
            // Sparse but for marks, so that it takes no disk.
            let mut file = tempfile::tempfile().unwrap();
            file.set_len(bytes).unwrap();
            for at in [0, bytes / 3, bytes.saturating_sub(9)] {
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(&b"mark"[..usize::try_from((bytes - at).min(4)).unwrap()]).unwrap();
            }
            let digest = |index| hash_piece(&file, bytes, index, &mut |_| true).unwrap();
            let pieces: Vec<_> = (0..piece_count(bytes)).map(digest).collect();
            file.rewind().unwrap();
            let expected = blake3::Hasher::new().update_reader(&file).unwrap().finalize();
            assert_eq!(merge(&pieces), *expected.as_bytes(), "{bytes}");
        };
        for bytes in [
            0,
            1,
            1_025,
            PIECE_BYTES,
            PIECE_BYTES + 1,
            3 * PIECE_BYTES,
            4 * PIECE_BYTES,
            5 * PIECE_BYTES + 7,
            77 * PIECE_BYTES + 1,
        ] {
            check(bytes);
        }
    }

    #[test]
    fn a_shorter_file_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        assert!(hash_piece(&file, 10, 0, &mut |_| true).is_err());
    }
}
