//! Dtypes: what the elements of a tensor are, and how many bytes a shape of them takes.
//!
//! Only the layout counts here: two formats' names for the same bits are one dtype.

use std::fmt;
use std::str::FromStr;

/// What a tensor's elements are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    /// Without infinities: `e4m3fn`.
    F8E4m3,
    F8E5m2,
    /// Without infinities and negative zero.
    F8E4m3Fnuz,
    F8E5m2Fnuz,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    /// One byte an element.
    Bool,
    /// Blocks of quantised weights.
    Block(BlockType),
    /// Of no layout that is known here: big endian, packed to less than a byte, coded as varints,
    /// complex, a structure. The shape then says nothing of the bytes.
    Other,
}

/// A type of GGUF whose elements are stored in blocks with their scales.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockType {
    /// Its number in GGUF.
    id: u32,
    name: &'static str,
    elements: u32,
    bytes: u32,
    /// Bytes of scales and offsets before the weights; 0 where they are elsewhere.
    scales: u8,
}

impl BlockType {
    const fn new(id: u32, name: &'static str, elements: u32, bytes: u32, scales: u8) -> Self {
        Self { id, name, elements, bytes, scales }
    }

    /// The type with this number in GGUF.
    pub fn find(id: u32) -> Option<Self> {
        BLOCK_TYPES.iter().find(|kind| kind.id == id).copied()
    }

    /// Its number in GGUF.
    pub fn id(self) -> u32 {
        self.id
    }

    /// Elements of one block.
    pub fn elements(self) -> u64 {
        self.elements.into()
    }

    /// Bytes of scales and offsets that each block begins with; 0 where they are elsewhere.
    pub fn scales(self) -> u8 {
        self.scales
    }

    /// Stored bytes of one block.
    pub fn bytes(self) -> u64 {
        self.bytes.into()
    }
}

/// Every block type that a file may hold, as ggml lays it out. Not 9, `q8_1`: it is made while a
/// model runs, and its readers do not agree on its bytes.
///
/// Source: ggml, `ggml-common.h` and `ggml.h`.
const BLOCK_TYPES: [BlockType; 25] = [
    BlockType::new(2, "q4_0", 32, 18, 2),
    BlockType::new(3, "q4_1", 32, 20, 4),
    BlockType::new(6, "q5_0", 32, 22, 6),
    BlockType::new(7, "q5_1", 32, 24, 8),
    BlockType::new(8, "q8_0", 32, 34, 2),
    BlockType::new(10, "q2_k", 256, 84, 16),
    BlockType::new(11, "q3_k", 256, 110, 0),
    BlockType::new(12, "q4_k", 256, 144, 16),
    BlockType::new(13, "q5_k", 256, 176, 16),
    BlockType::new(14, "q6_k", 256, 210, 0),
    BlockType::new(15, "q8_k", 256, 292, 4),
    BlockType::new(16, "iq2_xxs", 256, 66, 2),
    BlockType::new(17, "iq2_xs", 256, 74, 2),
    BlockType::new(18, "iq3_xxs", 256, 98, 2),
    BlockType::new(19, "iq1_s", 256, 50, 2),
    BlockType::new(20, "iq4_nl", 32, 18, 2),
    BlockType::new(21, "iq3_s", 256, 110, 2),
    BlockType::new(22, "iq2_s", 256, 82, 2),
    BlockType::new(23, "iq4_xs", 256, 136, 8),
    BlockType::new(29, "iq1_m", 256, 56, 0),
    BlockType::new(34, "tq1_0", 256, 54, 0),
    BlockType::new(35, "tq2_0", 256, 66, 0),
    BlockType::new(39, "mxfp4", 32, 17, 1),
    BlockType::new(40, "nvfp4", 64, 36, 4),
    BlockType::new(41, "q1_0", 128, 18, 2),
];

/// The dtypes that are neither blocks nor unknown, with their names and the bytes of an element.
const PLAIN: [(Dtype, &str, u64); 17] = [
    (Dtype::F64, "f64", 8),
    (Dtype::F32, "f32", 4),
    (Dtype::F16, "f16", 2),
    (Dtype::Bf16, "bf16", 2),
    (Dtype::F8E4m3, "f8_e4m3", 1),
    (Dtype::F8E5m2, "f8_e5m2", 1),
    (Dtype::F8E4m3Fnuz, "f8_e4m3fnuz", 1),
    (Dtype::F8E5m2Fnuz, "f8_e5m2fnuz", 1),
    (Dtype::I64, "i64", 8),
    (Dtype::I32, "i32", 4),
    (Dtype::I16, "i16", 2),
    (Dtype::I8, "i8", 1),
    (Dtype::U64, "u64", 8),
    (Dtype::U32, "u32", 4),
    (Dtype::U16, "u16", 2),
    (Dtype::U8, "u8", 1),
    (Dtype::Bool, "bool", 1),
];

const OTHER: &str = "other";

impl Dtype {
    /// The smallest number of elements that is stored by itself, and its bytes; none for `Other`.
    pub fn unit(self) -> Option<(u64, u64)> {
        match self {
            Self::Block(kind) => Some((kind.elements(), kind.bytes())),
            Self::Other => None,
            plain => PLAIN.iter().find(|line| line.0 == plain).map(|line| (1, line.2)),
        }
    }

    /// Bytes of a tensor of this `shape`, outermost first.
    ///
    /// `None` for `Other`, when a row is not a whole number of blocks, and past 2^64.
    pub fn bytes(self, shape: &[u64]) -> Option<u64> {
        let (unit_elements, unit_bytes) = self.unit()?;
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(unit_elements) {
            return None;
        }
        element_count(shape)?.checked_div(unit_elements)?.checked_mul(unit_bytes)
    }
}

/// Elements of a `shape`; 1 without dimensions, `None` past 2^64.
pub(super) fn element_count(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1_u64, |count, size| count.checked_mul(*size))
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block(kind) => kind.name,
            plain => PLAIN.iter().find(|line| line.0 == *plain).map_or(OTHER, |line| line.1),
        })
    }
}

impl FromStr for Dtype {
    type Err = UnknownDtype;
    fn from_str(text: &str) -> Result<Self, UnknownDtype> {
        let plain = PLAIN.iter().find(|line| line.1 == text).map(|line| line.0);
        let block = || BLOCK_TYPES.iter().find(|kind| kind.name == text).copied().map(Self::Block);
        let other = || (text == OTHER).then_some(Self::Other);
        plain.or_else(block).or_else(other).ok_or_else(|| UnknownDtype { text: text.to_owned() })
    }
}

/// A text that names no dtype.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{text}` is no dtype that this release knows: a newer modelfs may have written it")]
pub struct UnknownDtype {
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_is_its_name_and_back() {
        let plain = PLAIN.iter().map(|line| line.0);
        let blocks = BLOCK_TYPES.iter().copied().map(Dtype::Block);
        for dtype in plain.chain(blocks).chain([Dtype::Other]) {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        assert_eq!("f33".parse::<Dtype>(), Err(UnknownDtype { text: "f33".into() }));
    }

    #[test]
    fn a_shape_takes_as_many_bytes_as_its_blocks() {
        let q8 = Dtype::Block(BlockType::find(8).unwrap());
        let check = |dtype: Dtype, shape: &[u64], bytes| assert_eq!(dtype.bytes(shape), bytes);
        check(Dtype::F32, &[], Some(4));
        check(Dtype::F32, &[2, 3], Some(24));
        check(Dtype::F32, &[u64::MAX, 0, u64::MAX], Some(0));
        check(Dtype::F32, &[1 << 62], None);
        check(Dtype::U8, &[1 << 32, 1 << 32], None);
        check(Dtype::Other, &[2], None);
        check(q8, &[3, 64], Some(3 * 2 * 34));
        check(q8, &[32, 31], None);
    }
}
