//! zstd frames: how they are made and read, with one context a thread.
//!
//! Any zstd reads them. No frame holds a checksum: whoever stores one has its own. Making a context
//! costs more than compressing a block with it, so that each thread keeps its own.

use std::cell::RefCell;
use std::io::Cursor;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, ParamSwitch, Strategy, compress_bound};

use super::codec::CodecError;

/// Level of zstd for bytes of which nothing is known.
pub const ZSTD_LEVEL: i32 = 3;
/// Level of zstd where it must keep up with planes.
const FAST_LEVEL: i32 = 1;

/// How a frame is made; reading it is the same for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effort {
    /// For bytes of which nothing is known; the frame tells the length of its content.
    General,
    /// Matches where they are easily found.
    Fast,
    /// Huffman codes only: in floats, matches cost time and size.
    Huffman,
}

#[derive(Default)]
struct Compressors {
    general: Option<Compressor<'static>>,
    fast: Option<Compressor<'static>>,
    huffman: Option<Compressor<'static>>,
}

thread_local! {
    static COMPRESSORS: RefCell<Compressors> = RefCell::default();
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends one frame of `bytes` to `out`; how long it is.
pub(super) fn put(effort: Effort, bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.reserve(compress_bound(bytes.len()));
    COMPRESSORS.with_borrow_mut(|compressors| {
        let slot = match effort {
            Effort::General => &mut compressors.general,
            Effort::Fast => &mut compressors.fast,
            Effort::Huffman => &mut compressors.huffman,
        };
        let compressor = slot.get_or_insert_with(|| compressor(effort));
        let mut out = Cursor::new(out);
        out.set_position(start as u64);
        compressor
            .compress_to_buffer(bytes, &mut out)
            .expect("the output has room for the bound of the input")
    })
}

fn compressor(effort: Effort) -> Compressor<'static> {
    // A block knows the length of its planes, so that their frames need not repeat it.
    let bare = [CParameter::ContentSizeFlag(false), CParameter::WindowLog(17)];
    let huffman = [
        CParameter::Strategy(Strategy::ZSTD_fast),
        CParameter::TargetLength(1 << 17),
        CParameter::MinMatch(7),
        CParameter::HashLog(6),
        CParameter::LiteralCompressionMode(ParamSwitch::Enable),
    ];
    let (level, parameters): (_, [&[CParameter]; 2]) = match effort {
        Effort::General => (ZSTD_LEVEL, [&[], &[]]),
        Effort::Fast => (FAST_LEVEL, [&bare, &[]]),
        Effort::Huffman => (FAST_LEVEL, [&bare, &huffman]),
    };
    let mut compressor =
        Compressor::new(level).expect("a context needs only memory and a valid level");
    for parameter in parameters.into_iter().flatten() {
        compressor.set_parameter(*parameter).expect("zstd knows the parameter and its range");
    }
    compressor
}

/// Decodes frames into exactly `plain`; allocates nothing, whatever they hold.
///
/// # Errors
/// Where the bytes are no frames, or frames of another length.
pub(super) fn load(stored: &[u8], plain: &mut [u8]) -> Result<(), CodecError> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor =
            slot.get_or_insert_with(|| Decompressor::new().expect("a context needs only memory"));
        let expected = plain.len();
        match decompressor.decompress_to_buffer(stored, plain) {
            Ok(found) if found == expected => Ok(()),
            Ok(found) => Err(CodecError::Length { expected, found }),
            Err(error) => Err(CodecError::Zstd(error)),
        }
    })
}
