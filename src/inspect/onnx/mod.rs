//! ONNX: initializers, and tensors in attributes of nodes, of a graph and the graphs within it.
//!
//! A tensor has its bytes in one field, spread over many, or in a file beside the model. The first
//! are in the table, the last in the list `external`, the others nowhere.
//! Source: `onnx.proto` of onnx/onnx.

mod graph;

use std::ops::Range;

pub use graph::{OnnxDetails, OnnxNode};

pub(super) use graph::describe;

use super::protobuf::{Field, Value, next_field, read_varint};
use super::reader::Reader;
use super::table::TableBuilder;
use super::{Dtype, FileFormat, NESTING_MAX, RANK_MAX, Stop, TensorTable};

/// `TensorProto.data_type` of the payloads with a field of their own.
const FLOAT: u64 = 1;
const DOUBLE: u64 = 11;
/// `TensorProto.data_location` of bytes beside the file.
const EXTERNAL: u64 = 1;

/// A tensor whose bytes are in another file than its ONNX model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalTensor {
    /// The other file, relative to the directory of the model. Never absolute, and without `..`.
    pub location: String,
    /// Of the tensor in that file; neither this nor `length` was compared with it.
    pub offset: u64,
    /// Without one the tensor ends where its shape says, or with the file.
    pub length: Option<u64>,
    pub name: String,
    pub dtype: Dtype,
    /// Outermost first.
    pub shape: Vec<u64>,
}

/// Whether a file that begins with `head` may be one: `ir_version`, then another field of a model.
pub(super) fn is_likely(head: &[u8]) -> bool {
    matches!(head, [0x08, 1..=63, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a | 0x42, ..])
}

/// Finds the tensors.
pub(super) fn parse(reader: &mut Reader<'_>) -> Result<TensorTable, Stop> {
    let mut rest = 0..reader.bytes();
    let table = TableBuilder::new(reader.bytes());
    let mut walk = Walk { reader, table, external: Vec::new() };
    let mut has_graph = false;
    while let Some(Field { number, value }) = next_field(walk.reader, &mut rest)? {
        let Value::Bytes(message) = value else { continue };
        match number {
            7 => {
                has_graph = true;
                walk.graph(message, "", 1)?;
            }
            20 => walk.training(message)?,
            25 => walk.function(message)?,
            _ => {}
        }
    }
    if !has_graph {
        return Err(Stop::Malformed("it has no graph"));
    }
    let mut table = walk.table.finish(FileFormat::Onnx)?;
    table.external = walk.external;
    Ok(table)
}

struct Walk<'a, 'b> {
    reader: &'a mut Reader<'b>,
    table: TableBuilder,
    external: Vec<ExternalTensor>,
}

/// What one `TensorProto` says.
#[derive(Default)]
struct Description {
    shape: Vec<u64>,
    data_type: u64,
    /// Where its own name lies.
    name: Option<Range<u64>>,
    payload: Payload,
    is_external: bool,
    /// Where the entries of `external_data` lie.
    entries: Vec<Range<u64>>,
}

/// Where the bytes of one `TensorProto` are.
#[derive(Default)]
enum Payload {
    #[default]
    None,
    /// In one field, of this number.
    One(u64, Range<u64>),
    Scattered,
}

impl Payload {
    fn add(&mut self, number: u64, value: Value) {
        *self = match (&self, value) {
            (_, Value::Bytes(bytes)) if bytes.is_empty() => return,
            (Self::None, Value::Bytes(bytes)) => Self::One(number, bytes),
            _ => Self::Scattered,
        }
    }
}

impl Walk<'_, '_> {
    fn next(&mut self, rest: &mut Range<u64>) -> Result<Option<Field>, Stop> {
        next_field(self.reader, rest)
    }

    /// A `TrainingInfoProto`: two graphs.
    fn training(&mut self, mut rest: Range<u64>) -> Result<(), Stop> {
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            if let (1 | 2, Value::Bytes(message)) = (number, value) {
                self.graph(message, "training/", 2)?;
            }
        }
        Ok(())
    }

    /// A `FunctionProto`: a name and nodes.
    fn function(&mut self, message: Range<u64>) -> Result<(), Stop> {
        let mut name = None;
        let mut nodes = Vec::new();
        let mut rest = message;
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(text)) => name = Some(text),
                (7, Value::Bytes(message)) => nodes.push(message),
                _ => {}
            }
        }
        let prefix = self.label("", name, "function")? + "/";
        for (index, node) in nodes.into_iter().enumerate() {
            self.node(node, &prefix, index, 2)?;
        }
        Ok(())
    }

    /// A `GraphProto`, `depth` messages below the file; names in it start with `prefix`.
    fn graph(&mut self, mut rest: Range<u64>, prefix: &str, depth: usize) -> Result<(), Stop> {
        let mut node_count = 0;
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            let Value::Bytes(message) = value else { continue };
            match number {
                1 => {
                    self.node(message, prefix, node_count, depth + 1)?;
                    node_count += 1;
                }
                5 => self.tensor(message, prefix, None)?,
                15 => self.sparse_tensor(message, prefix, None)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A `NodeProto`, the one with this `index` in its graph.
    fn node(
        &mut self,
        message: Range<u64>,
        prefix: &str,
        index: usize,
        depth: usize,
    ) -> Result<(), Stop> {
        let (mut name, mut output) = (None, None);
        let mut attributes = Vec::new();
        let mut rest = message;
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (2, Value::Bytes(text)) if output.is_none() => output = Some(text),
                (3, Value::Bytes(text)) if !text.is_empty() => name = Some(text),
                (5, Value::Bytes(message)) => attributes.push(message),
                _ => {}
            }
        }
        for attribute in attributes {
            let name = name.clone().or(output.clone());
            self.attribute(attribute, prefix, (name, index), depth + 1)?;
        }
        Ok(())
    }

    /// An `AttributeProto` of the node with this name or, without one, index.
    fn attribute(
        &mut self,
        message: Range<u64>,
        prefix: &str,
        node: (Option<Range<u64>>, usize),
        depth: usize,
    ) -> Result<(), Stop> {
        let mut name = None;
        let mut parts = Vec::new();
        let mut rest = message;
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(text)) => name = Some(text),
                (5 | 6 | 10 | 11 | 22 | 23, Value::Bytes(part)) => parts.push((number, part)),
                _ => {}
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        if NESTING_MAX <= depth {
            return Err(Stop::Malformed("its graphs are too deep"));
        }
        let node = self.label(prefix, node.0, &node.1.to_string())?;
        let label = self.label(&(node + "."), name, "")?;
        for (number, part) in parts {
            match number {
                5 | 10 => self.tensor(part, "", Some(&label))?,
                6 | 11 => self.graph(part, &format!("{label}/"), depth + 1)?,
                _ => self.sparse_tensor(part, "", Some(&label))?,
            }
        }
        Ok(())
    }

    /// `prefix` with the text behind it or, without one, with `fallback`.
    fn label(
        &mut self,
        prefix: &str,
        text: Option<Range<u64>>,
        fallback: &str,
    ) -> Result<String, Stop> {
        let text = match text.filter(|text| !text.is_empty()) {
            Some(text) => self.reader.text(&text)?,
            None => fallback.to_owned(),
        };
        let label = format!("{prefix}{text}");
        // Each is counted, or a long prefix of very many graphs would cost more than they do.
        self.table.spend(&label, &[])?;
        Ok(label)
    }

    /// A `SparseTensorProto`: two tensors.
    fn sparse_tensor(
        &mut self,
        mut rest: Range<u64>,
        prefix: &str,
        label: Option<&str>,
    ) -> Result<(), Stop> {
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            if let (1 | 2, Value::Bytes(message)) = (number, value) {
                self.tensor(message, prefix, label)?;
            }
        }
        Ok(())
    }

    /// A `TensorProto`: of this name if it has a `label`, else of its own behind `prefix`.
    fn tensor(
        &mut self,
        message: Range<u64>,
        prefix: &str,
        label: Option<&str>,
    ) -> Result<(), Stop> {
        let Description { shape, data_type, name, payload, is_external, entries } =
            self.describe(message)?;
        let dtype = dtype_of(data_type);
        if !is_external && !matches!(payload, Payload::One(..)) {
            return Ok(());
        }
        let name = match label {
            Some(label) => label.to_owned(),
            None => self.label(prefix, name, "unnamed")?,
        };
        match payload {
            _ if is_external => self.external(entries, name, dtype, shape),
            Payload::One(number, bytes) => {
                let own_layout = match number {
                    4 => data_type == FLOAT,
                    9 => true,
                    10 => data_type == DOUBLE,
                    // Varints.
                    _ => false,
                };
                let fits = dtype.bytes(&shape) == Some(bytes.end - bytes.start);
                let dtype = if own_layout && fits { dtype } else { Dtype::Other };
                self.table.add(name, dtype, shape, bytes)
            }
            _ => Ok(()),
        }
    }

    fn describe(&mut self, message: Range<u64>) -> Result<Description, Stop> {
        let mut found = Description::default();
        let mut rest = message;
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Varint(size)) => add_dimension(&mut found.shape, size)?,
                (1, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        let size = read_varint(self.reader, &mut packed)?;
                        add_dimension(&mut found.shape, size)?;
                    }
                }
                (2, Value::Varint(data_type)) => found.data_type = data_type,
                (4 | 5 | 7 | 9 | 10 | 11, value) => found.payload.add(number, value),
                (8, Value::Bytes(text)) => found.name = Some(text),
                (13, Value::Bytes(entry)) => found.entries.push(entry),
                (14, Value::Varint(location)) => found.is_external = location == EXTERNAL,
                _ => {}
            }
        }
        Ok(found)
    }

    /// Lists a tensor beside the file, unless its entries make no sense.
    fn external(
        &mut self,
        entries: Vec<Range<u64>>,
        name: String,
        dtype: Dtype,
        shape: Vec<u64>,
    ) -> Result<(), Stop> {
        let (mut location, mut offset, mut length) = (None, Some(0), None);
        for entry in entries {
            let (key, value) = self.entry(entry)?;
            match key.as_str() {
                "location" => location = inside(&value),
                "offset" => offset = value.parse().ok(),
                "length" => length = value.parse().ok(),
                _ => {}
            }
        }
        let (Some(location), Some(offset)) = (location, offset) else { return Ok(()) };
        self.table.spend(&name, &shape)?;
        self.table.spend(&location, &[])?;
        self.external.push(ExternalTensor { location, offset, length, name, dtype, shape });
        Ok(())
    }

    /// A `StringStringEntryProto`.
    fn entry(&mut self, mut rest: Range<u64>) -> Result<(String, String), Stop> {
        let (mut key, mut text) = (String::new(), String::new());
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(range)) => key = self.reader.text(&range)?,
                (2, Value::Bytes(range)) => text = self.reader.text(&range)?,
                _ => {}
            }
        }
        Ok((key, text))
    }
}

fn add_dimension(shape: &mut Vec<u64>, size: u64) -> Result<(), Stop> {
    if RANK_MAX <= shape.len() || i64::MAX.cast_unsigned() < size {
        return Err(Stop::Malformed("a tensor's shape is impossible"));
    }
    shape.push(size);
    Ok(())
}

/// A location as a plain path below the model's directory; `None` when it leads elsewhere.
fn inside(location: &str) -> Option<String> {
    let names = location.split('/').filter(|name| !matches!(*name, "" | "."));
    let names: Vec<&str> = names.collect();
    let leads_out = location.starts_with('/') || location.contains('\0') || names.contains(&"..");
    (!leads_out && !names.is_empty()).then(|| names.join("/"))
}

fn dtype_of(data_type: u64) -> Dtype {
    match data_type {
        FLOAT => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        4 => Dtype::U16,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::Bool,
        10 => Dtype::F16,
        DOUBLE => Dtype::F64,
        12 => Dtype::U32,
        13 => Dtype::U64,
        16 => Dtype::Bf16,
        17 => Dtype::F8E4m3,
        18 => Dtype::F8E4m3Fnuz,
        19 => Dtype::F8E5m2,
        20 => Dtype::F8E5m2Fnuz,
        _ => Dtype::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{field, number, table};
    use super::*;

    fn text(number: u64, text: &str) -> Vec<u8> {
        field(number, text.as_bytes())
    }

    fn tensor(name: &str, data_type: u64, shape: &[u64], payload: &[u8]) -> Vec<u8> {
        let dims: Vec<u8> = shape.iter().flat_map(|size| number(1, *size)).collect();
        [dims, number(2, data_type), text(8, name), payload.into()].concat()
    }

    fn node(name: &str, output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
        let attributes = attributes.iter().flat_map(|attribute| field(5, attribute));
        let mut bytes = [text(2, output), text(4, "Constant")].concat();
        if !name.is_empty() {
            bytes.extend(text(3, name));
        }
        bytes.extend(attributes);
        field(1, &bytes)
    }

    fn model(graph: &[u8]) -> Vec<u8> {
        [number(1, 8), text(2, "tests"), field(7, graph), field(8, &number(2, 17))].concat()
    }

    #[test]
    fn onnx_lists_initializers_and_constants_at_every_depth() {
        let raw = |bytes: usize| field(9, &vec![7; bytes]);
        let constant = [text(1, "value"), field(5, &tensor("", 7, &[1], &raw(8)))].concat();
        let inner = [
            field(5, &tensor("w", 1, &[2], &raw(8))),
            node("", "c", std::slice::from_ref(&constant)),
        ];
        let branch = [text(1, "then_branch"), field(6, &inner.concat())].concat();
        let packed_dims = [field(1, &[2, 3]), number(2, 10), text(8, "half"), raw(12)].concat();
        let graph = [
            node("If_0", "y", &[branch]),
            node("", "constant", &[constant]),
            field(5, &tensor("w", 1, &[3, 2], &raw(24))),
            field(5, &packed_dims),
            field(5, &tensor("floats", 1, &[2], &field(4, &[0; 8]))),
            field(5, &tensor("complex", 14, &[1], &field(4, &[0; 8]))),
            field(5, &tensor("doubles", 11, &[1], &field(10, &[0; 8]))),
            field(5, &tensor("varints", 7, &[3], &field(7, &[1, 2, 3]))),
            field(5, &tensor("int4", 22, &[3], &raw(2))),
            field(5, &tensor("wrong shape", 1, &[3], &raw(2))),
            field(5, &tensor("scattered", 1, &[2], &[number(7, 1), number(7, 2)].concat())),
            field(5, &tensor("twice", 1, &[2], &raw(8).repeat(2))),
            field(5, &tensor("text", 8, &[1], &field(6, b"abc"))),
            field(5, &tensor("empty", 1, &[0], &[])),
            field(15, &[field(1, &tensor("sparse", 1, &[1], &raw(4)))].concat()),
        ];
        let table = table(&model(&graph.concat()), "model.bin").unwrap();
        let found: Vec<_> = table
            .tensors
            .iter()
            .map(|t| (t.name.as_str(), t.dtype, t.shape.as_slice(), t.bytes.end - t.bytes.start))
            .collect();
        assert_eq!(
            found,
            [
                ("If_0.then_branch/w", Dtype::F32, [2].as_slice(), 8),
                ("If_0.then_branch/c.value", Dtype::I64, &[1], 8),
                ("constant.value", Dtype::I64, &[1], 8),
                ("w", Dtype::F32, &[3, 2], 24),
                ("half", Dtype::F16, &[2, 3], 12),
                ("floats", Dtype::F32, &[2], 8),
                ("complex", Dtype::Other, &[1], 8),
                ("doubles", Dtype::F64, &[1], 8),
                ("varints", Dtype::Other, &[3], 3),
                ("int4", Dtype::Other, &[3], 2),
                ("wrong shape", Dtype::Other, &[3], 2),
                ("sparse", Dtype::F32, &[1], 4),
            ]
        );
    }

    #[test]
    fn onnx_lists_what_lies_in_files_beside_it() {
        let beside = |entries: &[(&str, &str)]| {
            let entry =
                |(key, value): &(&str, &str)| field(13, &[text(1, key), text(2, value)].concat());
            let entries: Vec<u8> = entries.iter().flat_map(entry).collect();
            field(5, &tensor("w", 1, &[2, 2], &[entries, number(14, 1)].concat()))
        };
        let graph = [
            beside(&[
                ("location", "data/w.bin"),
                ("offset", "4096"),
                ("length", "16"),
                ("checksum", "x"),
            ]),
            beside(&[("location", "./w.bin")]),
            beside(&[("location", "../w.bin")]),
            beside(&[("location", "/etc/passwd")]),
            beside(&[("location", "")]),
            beside(&[("location", "w.bin"), ("offset", "-1")]),
            beside(&[("location", "w.bin"), ("offset", "99999999999999999999")]),
            beside(&[]),
        ];
        let table = table(&model(&graph.concat()), "model.onnx").unwrap();
        assert_eq!(table.tensors, []);
        let expected = |location: &str, offset, length| ExternalTensor {
            location: location.into(),
            offset,
            length,
            name: "w".into(),
            dtype: Dtype::F32,
            shape: vec![2, 2],
        };
        assert_eq!(
            table.external,
            [expected("data/w.bin", 4096, Some(16)), expected("w.bin", 0, None)]
        );
    }

    #[test]
    fn an_onnx_that_lies_is_refused() {
        let initializer = |tensor: &[u8]| model(&field(5, tensor));
        let deep = (0..100).fold(Vec::new(), |graph: Vec<u8>, _| {
            node("n", "o", &[[text(1, "a"), field(6, &graph)].concat()])
        });
        for (index, file) in [
            [number(1, 8), text(2, "a model without a graph")].concat(),
            model(&deep),
            model(&[0x2a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            initializer(&tensor("w", 1, &[1; RANK_MAX + 1], &field(9, &[0; 4]))),
            initializer(&tensor("w", 1, &[u64::MAX], &field(9, &[0; 4]))),
            initializer(&tensor(&"n".repeat(5_000), 1, &[1], &field(9, &[0; 4]))),
            [model(&[]), vec![0x3a, 5]].concat(),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(table(&file, "model.onnx"), None, "{index}");
        }
    }
}
