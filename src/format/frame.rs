//! zstd frames: how they are made and read, with one context a thread.
//!
//! Any zstd reads them. No frame holds a checksum: whoever stores one has its own. Making a context
//! costs more than compressing a block with it, so that each thread keeps its own.

use std::cell::{Cell, RefCell};
use std::io::{self, Cursor};

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{
    CCtx, CParameter, DCtx, DictAttachPref, MAGIC_DICTIONARY, ParamSwitch, ResetDirective,
    Strategy, compress_bound, get_error_name,
};

use super::codec::CodecError;

/// Level of zstd for bytes of which nothing is known.
pub const ZSTD_LEVEL: i32 = 3;
/// Level of zstd where it must keep up with planes.
const FAST_LEVEL: i32 = 1;
/// Level of zstd for what follows a prefix: there is little to store, and much to find it in. Measured on
/// boosted trees and forests: 9 takes 0.1 to 0.3 % less and up to 1.2 times the time, 7 up to 1.5 % more.
const PATCH_LEVEL: i32 = 8;

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
    // Taken while in use: what is in them refers to a prefix.
    static PATCHER: Cell<Option<CCtx<'static>>> = const { Cell::new(None) };
    static UNPATCHER: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
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

/// Makes frames that refer to bytes before them.
pub(super) struct Patcher {
    /// `None` only while it is dropped.
    context: Option<CCtx<'static>>,
}

impl Patcher {
    /// For frames that follow `prefix`; `None` where zstd would take that for a dictionary with tables.
    pub fn new(prefix: &[u8]) -> Option<Self> {
        if prefix.starts_with(&MAGIC_DICTIONARY.to_le_bytes()) {
            return None;
        }
        let mut context = PATCHER.take().unwrap_or_else(CCtx::create);
        for parameter in [
            CParameter::CompressionLevel(PATCH_LEVEL),
            CParameter::ContentSizeFlag(false),
            // Looked up where it is: copying the tables of a prefix costs each block more.
            CParameter::ForceAttachDict(DictAttachPref::ForceAttach),
        ] {
            context.set_parameter(parameter).expect("zstd knows the parameter and its range");
        }
        // Looked through once for all frames; as a prefix it would be for each.
        context.load_dictionary(prefix).expect("a prefix needs only memory");
        Some(Self { context: Some(context) })
    }

    /// Appends one frame of `bytes` to `out`.
    pub fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let context = self.context.as_mut().expect("it is there until it is dropped");
        let start = out.len();
        out.reserve(compress_bound(bytes.len()));
        let mut out = Cursor::new(out);
        out.set_position(start as u64);
        context.compress2(&mut out, bytes).expect("the output has room for the bound of the input");
    }
}

impl Drop for Patcher {
    /// Keeps the room of the context for the next, without the prefix.
    fn drop(&mut self) {
        let Some(mut context) = self.context.take() else { return };
        // One that cannot be made empty is not used again.
        if context.reset(ResetDirective::SessionAndParameters).is_ok() {
            PATCHER.set(Some(context));
        }
    }
}

/// Decodes a frame that follows `prefix` into exactly `plain`.
///
/// # Errors
/// Where the bytes are no such frame, or one of another length.
pub(super) fn load_patch(stored: &[u8], prefix: &[u8], plain: &mut [u8]) -> Result<(), CodecError> {
    let failed = |why| CodecError::Zstd(io::Error::other(why));
    if prefix.starts_with(&MAGIC_DICTIONARY.to_le_bytes()) {
        return Err(failed("what comes before it is a dictionary, expected plain bytes"));
    }
    let expected = plain.len();
    let found = UNPATCHER.with_borrow_mut(|slot| {
        let context = slot.get_or_insert_with(DCtx::create);
        context.decompress_using_dict(plain, stored, prefix)
    });
    match found.map_err(|code| failed(get_error_name(code)))? {
        found if found == expected => Ok(()),
        found => Err(CodecError::Length { expected, found }),
    }
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
