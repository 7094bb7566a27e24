//! Safetensors: the length of a JSON header, the header, the tensors' bytes.
//!
//! Source: the format's description in the README of huggingface/safetensors.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::description::{Draft, TensorInfo, VALUE_BYTES_MAX, cut, first};
use super::reader::Reader;
use super::table::TableBuilder;
use super::{Dtype, FileFormat, HEADER_BYTES_MAX, RANK_MAX, Stop, TENSOR_COUNT_MAX, TensorTable};

/// Bytes of the header's length.
const LENGTH_BYTES: u64 = 8;
/// The one key that names no tensor.
const METADATA: &str = "__metadata__";

/// Whether a file that begins with `head` may be one: a length that is not too large, a bracket.
pub(super) fn is_likely(head: &[u8]) -> bool {
    head.split_first_chunk::<8>().is_some_and(|(length, rest)| {
        u64::from_le_bytes(*length) <= HEADER_BYTES_MAX && rest.first() == Some(&b'{')
    })
}

/// What a safetensors file has beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SafetensorsDetails {
    /// Entries that are no text are left out: the format has none.
    pub metadata: BTreeMap<String, String>,
}

impl SafetensorsDetails {
    pub(super) fn summary(&self) -> Map<String, Value> {
        let metadata = first(&self.metadata);
        if self.metadata.is_empty() {
            Map::new()
        } else {
            Map::from_iter([("metadata".into(), metadata)])
        }
    }
}

/// Finds the tensors.
pub(super) fn parse(reader: &mut Reader<'_>) -> Result<TensorTable, Stop> {
    let (header, data_start) = read_header(reader)?;
    table_of(parse_header(&header)?, data_start, reader.bytes())
}

fn table_of(header: Header<'_>, data_start: u64, file_bytes: u64) -> Result<TensorTable, Stop> {
    let mut table = TableBuilder::new(file_bytes);
    for (name, line) in header.lines {
        let [start, end] = line.data_offsets;
        let place = |offset: u64| data_start.checked_add(offset);
        let (Some(start), Some(end)) = (place(start), place(end)) else {
            return Err(Stop::Malformed("a tensor leads past the end of the file"));
        };
        table.add(name, dtype_of(&line.dtype), line.shape.0, start..end)?;
    }
    table.finish(FileFormat::Safetensors)
}

/// Lists the tensors in the order of the header, and reads the metadata.
pub(super) fn describe(
    reader: &mut Reader<'_>,
    draft: &mut Draft,
) -> Result<SafetensorsDetails, Stop> {
    let (header, data_start) = read_header(reader)?;
    if let Err(Stop::Malformed(why)) = table_of(parse_header(&header)?, data_start, reader.bytes())
    {
        draft.note(&format!("its tensors do not lie as they must: {why}"));
    }
    let header = parse_header(&header)?;
    for (name, Line { dtype, shape, data_offsets: [start, end] }) in header.lines {
        let dtype = dtype.to_ascii_lowercase();
        let tensor = TensorInfo { name, dtype, shape: shape.0, location: None };
        draft.add_tensor(tensor, Some(start..end));
    }
    let mut details = SafetensorsDetails::default();
    let metadata = header.metadata.map_or("{}", RawValue::get);
    let metadata: BTreeMap<String, &RawValue> = serde_json::from_str(metadata).unwrap_or_default();
    for (key, value) in metadata {
        let Ok(mut text) = serde_json::from_str::<String>(value.get()) else { continue };
        cut(&mut text, VALUE_BYTES_MAX);
        if draft.admit("metadata", key.len() + text.len()) {
            details.metadata.insert(key, text);
        }
    }
    Ok(details)
}

/// The header, and where the tensors' bytes begin.
fn read_header(reader: &mut Reader<'_>) -> Result<(Vec<u8>, u64), Stop> {
    let mut at = 0;
    let length = reader.u64(&mut at)?;
    let header = Reader::range(at, length, &(LENGTH_BYTES..reader.bytes()))?;
    Ok((reader.bytes_of(&header)?, header.end))
}

fn parse_header(header: &[u8]) -> Result<Header<'_>, Stop> {
    serde_json::from_slice(header).map_err(|_not_as_it_must_be| {
        Stop::Malformed("it is no list of tensors in JSON, or names one twice")
    })
}

fn dtype_of(name: &str) -> Dtype {
    match name {
        "F64" => Dtype::F64,
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::Bf16,
        "F8_E4M3" => Dtype::F8E4m3,
        "F8_E5M2" => Dtype::F8E5m2,
        "F8_E4M3FNUZ" => Dtype::F8E4m3Fnuz,
        "F8_E5M2FNUZ" => Dtype::F8E5m2Fnuz,
        "I64" => Dtype::I64,
        "I32" => Dtype::I32,
        "I16" => Dtype::I16,
        "I8" => Dtype::I8,
        "U64" => Dtype::U64,
        "U32" => Dtype::U32,
        "U16" => Dtype::U16,
        "U8" => Dtype::U8,
        "BOOL" => Dtype::Bool,
        _ => Dtype::Other,
    }
}

/// The lines of a header, in its order.
struct Header<'a> {
    lines: Vec<(String, Line)>,
    metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Line {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

/// A shape that ends where no tensor has more dimensions.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {RANK_MAX} sizes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sizes: A) -> Result<Shape, A::Error> {
        let mut shape = Vec::new();
        while let Some(size) = sizes.next_element()? {
            if RANK_MAX <= shape.len() {
                return Err(A::Error::invalid_length(shape.len() + 1, &self));
            }
            shape.push(size);
        }
        Ok(Shape(shape))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Header<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with one entry a tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header<'de>, A::Error> {
        let mut header = Header { lines: Vec::new(), metadata: None };
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            // Two lines of one name would mean different things to different readers.
            if !names.insert(name.clone()) || TENSOR_COUNT_MAX < names.len() {
                return Err(A::Error::custom("a name stands twice, or too many"));
            }
            if name == METADATA {
                header.metadata = Some(map.next_value()?);
            } else {
                header.lines.push((name, map.next_value()?));
            }
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{safetensors, table};
    use super::*;

    #[test]
    fn safetensors_lists_its_tensors() {
        let file = safetensors(
            r#"{"__metadata__":{"format":"pt","deep":[[[{}]]]},
                "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},
                "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1},
                "none":{"dtype":"I64","shape":[0,7],"data_offsets":[20,20]},
                "scalar":{"dtype":"BOOL","shape":[],"data_offsets":[20,21]},
                "four":{"dtype":"F4","shape":[2],"data_offsets":[21,22]}}   "#,
            &[0; 22],
        );
        let start = file.len() as u64 - 22;
        let table = table(&file, "model.safetensors").unwrap();
        assert_eq!(table.format, FileFormat::Safetensors);
        let found: Vec<_> = table
            .tensors
            .iter()
            .map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice(), t.bytes.start - start))
            .collect();
        assert_eq!(
            found,
            [
                ("a", Dtype::F32, [2].as_slice(), 0),
                ("b", Dtype::Bf16, &[2, 3], 8),
                ("none", Dtype::I64, &[0, 7], 20),
                ("scalar", Dtype::Bool, &[], 20),
                ("four", Dtype::Other, &[2], 21),
            ]
        );
    }

    #[test]
    fn a_header_of_safetensors_that_lies_is_refused() {
        let line = |body: &str| format!(r#"{{"a":{{{body}}}}}"#);
        for header in [
            line(r#""dtype":"F32","shape":[2],"data_offsets":[0,9]"#),
            line(r#""dtype":"F32","shape":[2],"data_offsets":[8,0]"#),
            line(r#""dtype":"F32","shape":[4],"data_offsets":[8,24]"#),
            line(
                r#""dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,18446744073709551615]"#,
            ),
            line(r#""dtype":"U8","shape":[9223372036854775808,2],"data_offsets":[0,0]"#),
            line(r#""dtype":"U8","shape":[-1],"data_offsets":[0,0]"#),
            line(r#""dtype":"U8","shape":[8]"#),
            line(r#""dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]"#),
            r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},
                "a":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}}"#
                .to_owned(),
            r#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},
                "b":{"dtype":"U8","shape":[8],"data_offsets":[7,15]}}"#
                .to_owned(),
            "{} x".to_owned(),
            "{".repeat(10_000),
            format!(r#"{{"__metadata__":{}"#, "[".repeat(100_000)),
        ] {
            assert_eq!(table(&safetensors(&header, &[0; 16]), "m"), None, "{header:.200}");
        }
        for length in [17, 1 << 63, u64::MAX, HEADER_BYTES_MAX] {
            let mut file = safetensors("{}", &[0; 14]);
            file[..8].copy_from_slice(&u64::to_le_bytes(length));
            assert_eq!(table(&file, "m"), None);
        }
    }
}
