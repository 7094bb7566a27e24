//! GGUF versions 2 and 3, little endian: keys and values, lines of tensors, the tensors' bytes.
//!
//! Source: the format's description in ggml, `docs/gguf.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::description::{Draft, VALUE_BYTES_MAX};
use super::reader::Reader;
use super::table::TableBuilder;
use super::{
    BlockType, Dtype, FileFormat, NAME_BYTES_MAX, NESTING_MAX, RANK_MAX, Stop, TENSOR_COUNT_MAX,
    TensorTable,
};

/// The first bytes.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// Tensors begin at multiples of this, unless `ALIGNMENT_KEY` says otherwise.
const ALIGNMENT_DEFAULT: u32 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// Values of the longest array that is shown whole, and of a longer one.
const ARRAY_COUNT_MAX: u64 = 64;
const ARRAY_SHOWN: u64 = 8;
/// Values of a summary, and the bytes of its longest text.
const SUMMARY_VALUES_MAX: usize = 32;
const SUMMARY_VALUE_BYTES_MAX: usize = 100;

const VALUE_U32: u32 = 4;
const VALUE_STRING: u32 = 8;
const VALUE_ARRAY: u32 = 9;

/// A tensor as its line says it.
struct Line {
    name: String,
    dtype: Dtype,
    /// Outermost first.
    shape: Vec<u64>,
    /// From the start of the data.
    offset: u64,
}

/// What a GGUF file has beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GgufDetails {
    pub version: u32,
    /// All keys and their values; of a long array its length and its first values.
    pub metadata: BTreeMap<String, Value>,
}

impl GgufDetails {
    /// Versions, names, sizes: what is neither a vocabulary nor a template.
    pub(super) fn summary(&self) -> Map<String, Value> {
        let plain = |value: &Value| match value {
            Value::String(text) => text.len() <= SUMMARY_VALUE_BYTES_MAX,
            value => value.is_number() || value.is_boolean(),
        };
        let plain = self.metadata.iter().filter(|(_, value)| plain(value));
        let shown: Map<String, Value> = plain
            .take(SUMMARY_VALUES_MAX)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        Map::from_iter([("version".into(), json!(self.version)), ("metadata".into(), shown.into())])
    }
}

/// Finds the tensors.
pub(super) fn parse(reader: &mut Reader<'_>) -> Result<TensorTable, Stop> {
    read(reader, None)
}

/// Reads keys and values, and lists the tensors.
pub(super) fn describe(reader: &mut Reader<'_>, draft: &mut Draft) -> Result<GgufDetails, Stop> {
    let mut details = GgufDetails::default();
    let table = read(reader, Some(&mut Kept { details: &mut details, draft }))?;
    draft.add_table(&table);
    Ok(details)
}

/// Where keys and values go.
struct Kept<'a> {
    details: &'a mut GgufDetails,
    draft: &'a mut Draft,
}

impl Kept<'_> {
    fn add(&mut self, key: String, value: Value, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(VALUE_BYTES_MAX);
        if self.draft.admit("metadata", key.len() + 2 * bytes) {
            self.details.metadata.insert(key, value);
        }
    }
}

fn read(reader: &mut Reader<'_>, mut kept: Option<&mut Kept<'_>>) -> Result<TensorTable, Stop> {
    let mut at = MAGIC.len() as u64;
    // A big-endian file has its version's bytes the other way round, and is not known here.
    let version = reader.u32(&mut at)?;
    if !matches!(version, 2 | 3) {
        return Err(Stop::Malformed("neither version 2 nor 3, little endian"));
    }
    if let Some(kept) = &mut kept {
        kept.details.version = version;
    }
    let tensor_count = reader.u64(&mut at)?;
    let value_count = reader.u64(&mut at)?;
    if (TENSOR_COUNT_MAX as u64) < tensor_count {
        return Err(Stop::Malformed("it has too many tensors"));
    }
    let mut alignment = ALIGNMENT_DEFAULT;
    // Each step reads some bytes, so a count that lies ends at the end of the file.
    for _ in 0..value_count {
        let key = read_text(reader, &mut at)?;
        let kind = reader.u32(&mut at)?;
        let start = at;
        if key == ALIGNMENT_KEY && kind == VALUE_U32 {
            alignment = reader.u32(&mut at)?;
        } else {
            skip_value(reader, &mut at, kind, 0)?;
        }
        if let Some(kept) = &mut kept {
            let value = read_value(reader, &mut start.clone(), kind)?;
            kept.add(key, value, at - start);
        }
    }
    let mut lines = Vec::new();
    for _ in 0..tensor_count {
        lines.push(read_line(reader, &mut at)?);
    }
    if !alignment.is_power_of_two() {
        return Err(Stop::Malformed("its alignment is no power of two"));
    }
    let data_start = at.checked_next_multiple_of(alignment.into());
    let data_start = data_start.ok_or(Stop::Malformed("its alignment is too large"))?;
    place(lines, data_start, reader.bytes())?.finish(FileFormat::Gguf)
}

/// The lines with their places. A tensor of an unknown type ends where the next one begins.
fn place(lines: Vec<Line>, data_start: u64, file_bytes: u64) -> Result<TableBuilder, Stop> {
    let mut table = TableBuilder::new(file_bytes);
    let mut offsets: Vec<u64> = lines.iter().map(|line| line.offset).collect();
    offsets.sort_unstable();
    for Line { name, dtype, shape, offset } in lines {
        let length = match dtype {
            Dtype::Other => {
                let after = offsets.partition_point(|other| *other <= offset);
                let end = offsets.get(after).copied();
                end.or(file_bytes.checked_sub(data_start)).and_then(|end| end.checked_sub(offset))
            }
            known => known.bytes(&shape),
        };
        let start = data_start.checked_add(offset);
        let (Some(start), Some(length)) = (start, length) else {
            return Err(Stop::Malformed("a tensor's place or size is impossible"));
        };
        table.add(name, dtype, shape, Reader::range(start, length, &(data_start..file_bytes))?)?;
    }
    Ok(table)
}

fn read_text(reader: &mut Reader<'_>, at: &mut u64) -> Result<String, Stop> {
    let length = reader.u64(at)?;
    if (NAME_BYTES_MAX as u64) < length {
        return Err(Stop::Malformed("a name is too long"));
    }
    let text = Reader::range(*at, length, &(0..reader.bytes()))?;
    *at = text.end;
    reader.text(&text)
}

fn read_line(reader: &mut Reader<'_>, at: &mut u64) -> Result<Line, Stop> {
    let name = read_text(reader, at)?;
    let rank = reader.u32(at)? as usize;
    if RANK_MAX < rank {
        return Err(Stop::Malformed("a tensor has too many dimensions"));
    }
    let mut shape = Vec::with_capacity(rank);
    for _ in 0..rank {
        shape.push(reader.u64(at)?);
    }
    // The file has the innermost first.
    shape.reverse();
    let dtype = dtype_of(reader.u32(at)?);
    Ok(Line { name, dtype, shape, offset: reader.u64(at)? })
}

fn dtype_of(id: u32) -> Dtype {
    match id {
        0 => Dtype::F32,
        1 => Dtype::F16,
        24 => Dtype::I8,
        25 => Dtype::I16,
        26 => Dtype::I32,
        27 => Dtype::I64,
        28 => Dtype::F64,
        30 => Dtype::Bf16,
        id => BlockType::find(id).map_or(Dtype::Other, Dtype::Block),
    }
}

/// Moves `*at` behind a value. Arrays of arrays are as deep as `depth` lets them.
fn skip_value(reader: &mut Reader<'_>, at: &mut u64, kind: u32, depth: usize) -> Result<(), Stop> {
    if let Some(bytes) = fixed_bytes(kind) {
        return skip(reader, at, bytes);
    }
    match kind {
        VALUE_STRING => {
            let length = reader.u64(at)?;
            skip(reader, at, length)
        }
        VALUE_ARRAY if depth < NESTING_MAX => {
            let kind = reader.u32(at)?;
            let count = reader.u64(at)?;
            if let Some(bytes) = fixed_bytes(kind) {
                let length = count.checked_mul(bytes);
                return skip(reader, at, length.ok_or(Stop::Malformed("an array is too long"))?);
            }
            for _ in 0..count {
                skip_value(reader, at, kind, depth + 1)?;
            }
            Ok(())
        }
        VALUE_ARRAY => Err(Stop::Malformed("its arrays are too deep")),
        _ => Err(Stop::Malformed("a value is of no type of this version")),
    }
}

/// The value at `*at`, which is whole: it was stepped over.
fn read_value(reader: &mut Reader<'_>, at: &mut u64, kind: u32) -> Result<Value, Stop> {
    Ok(match kind {
        0 => reader.byte(at)?.into(),
        1 => reader.byte(at)?.cast_signed().into(),
        2 => reader.u16(at)?.into(),
        3 => reader.u16(at)?.cast_signed().into(),
        4 => reader.u32(at)?.into(),
        5 => reader.u32(at)?.cast_signed().into(),
        6 => f32::from_bits(reader.u32(at)?).into(),
        7 => (reader.byte(at)? != 0).into(),
        VALUE_STRING => {
            let length = reader.u64(at)?;
            let text = Reader::range(*at, length, &(0..reader.bytes()))?;
            *at = text.end;
            reader.text_up_to(&text, VALUE_BYTES_MAX)?.into()
        }
        VALUE_ARRAY => {
            let kind = reader.u32(at)?;
            let count = reader.u64(at)?;
            if kind == VALUE_ARRAY {
                return Ok(json!({ "length": count }));
            }
            let shown = if count <= ARRAY_COUNT_MAX { count } else { ARRAY_SHOWN };
            let mut values = Vec::new();
            for _ in 0..shown {
                values.push(read_value(reader, at, kind)?);
            }
            if shown == count { values.into() } else { json!({ "length": count, "first": values }) }
        }
        10 => reader.u64(at)?.into(),
        11 => reader.u64(at)?.cast_signed().into(),
        _ => f64::from_bits(reader.u64(at)?).into(),
    })
}

/// Bytes of a value that has always as many.
fn fixed_bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn skip(reader: &Reader<'_>, at: &mut u64, bytes: u64) -> Result<(), Stop> {
    *at = Reader::range(*at, bytes, &(0..reader.bytes()))?.end;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{gguf, gguf_array, gguf_line, gguf_text, gguf_value, table};
    use super::*;

    #[test]
    fn gguf_lists_its_tensors() {
        let values = [
            gguf_value("general.architecture", VALUE_STRING, &gguf_text("bert")),
            gguf_value(
                "words",
                VALUE_ARRAY,
                &gguf_array(8, 2, &[gguf_text("a"), gguf_text("")].concat()),
            ),
            gguf_value(
                "nested",
                VALUE_ARRAY,
                &gguf_array(9, 2, &gguf_array(3, 1, &[0; 2]).repeat(2)),
            ),
            gguf_value(ALIGNMENT_KEY, VALUE_U32, &64_u32.to_le_bytes()),
            gguf_value("scores", VALUE_ARRAY, &gguf_array(6, 3, &[0; 12])),
        ];
        let lines = [
            gguf_line("quantised", &[64, 3], 8, 0),
            gguf_line("new", &[5], 4_000, 256),
            gguf_line("half", &[2, 3], 1, 320),
            gguf_line("newest", &[5], 4_000, 384),
        ];
        let file = gguf(3, &values, &lines, 64, &[0; 400]);
        let start = file.len() as u64 - 400;
        assert_eq!(start % 64, 0);
        let table = table(&file, "model").unwrap();
        let q8 = Dtype::Block(BlockType::find(8).unwrap());
        let found: Vec<_> = table
            .tensors
            .iter()
            .map(|t| {
                (
                    t.name.as_str(),
                    t.dtype,
                    t.shape.as_slice(),
                    t.bytes.start - start..t.bytes.end - start,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("quantised", q8, [3, 64].as_slice(), 0..204),
                ("new", Dtype::Other, &[5], 256..320),
                ("half", Dtype::F16, &[3, 2], 320..332),
                ("newest", Dtype::Other, &[5], 384..400),
            ]
        );
    }

    #[test]
    fn a_gguf_that_lies_is_refused() {
        let plain = |line: Vec<u8>| gguf(3, &[], &[line], 32, &[0; 64]);
        let value = |kind, bytes: &[u8]| gguf(3, &[gguf_value("k", kind, bytes)], &[], 32, &[]);
        let deep: Vec<u8> = gguf_array(9, 1, &[]).repeat(NESTING_MAX + 1);
        let counts = |tensors: u64, values: u64| {
            let head = [b"GGUF".as_slice(), &3_u32.to_le_bytes()].concat();
            [head, tensors.to_le_bytes().into(), values.to_le_bytes().into()].concat()
        };
        for (index, file) in [
            gguf(1, &[], &[], 32, &[]),
            gguf(3_u32.swap_bytes(), &[], &[], 32, &[]),
            plain(gguf_line("past the end", &[17], 0, 0)),
            plain(gguf_line("past 2^64", &[1 << 62], 0, 0)),
            plain(gguf_line("past 2^64", &[1 << 33, 1 << 33], 0, 0)),
            plain(gguf_line("starts past 2^64", &[1], 0, u64::MAX)),
            plain(gguf_line("starts past the end", &[1], 4_000, 65)),
            plain(gguf_line("half a block", &[16], 8, 0)),
            plain(gguf_line("many dimensions", &[1; RANK_MAX + 1], 0, 0)),
            gguf(3, &[gguf_value(ALIGNMENT_KEY, 4, &[24, 0, 0, 0])], &[], 32, &[0; 64]),
            gguf(3, &[gguf_value(ALIGNMENT_KEY, 4, &[0; 4])], &[], 32, &[0; 64]),
            value(13, &[]),
            value(VALUE_STRING, &u64::MAX.to_le_bytes()),
            value(VALUE_ARRAY, &gguf_array(4, 1 << 63, &[])),
            value(VALUE_ARRAY, &gguf_array(VALUE_STRING, u64::MAX, &[0; 80])),
            value(VALUE_ARRAY, &deep),
            counts(u64::MAX, 0),
            counts(1_000_000, 0),
            counts(0, u64::MAX),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(table(&file, "model.gguf"), None, "{index}");
        }
    }
}
