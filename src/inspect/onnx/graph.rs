//! ONNX: what the graph takes, gives and does.
//!
//! Counted are the operators of the graph and of all graphs within it; the bodies of functions are
//! not, since how often they run is told by their callers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::super::description::{
    Dimension, Draft, Interface, Port, TensorInfo, VALUE_BYTES_MAX, first, most, short,
};
use super::super::protobuf::{Field, Value, next_field, read_varint};
use super::super::reader::Reader;
use super::super::{NESTING_MAX, RANK_MAX, Stop};
use super::{EXTERNAL, add_dimension};

/// The domain of ONNX's own operators, which a file may leave empty.
const OWN_DOMAIN: &str = "ai.onnx";

/// What an ONNX file has beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OnnxDetails {
    pub ir_version: u64,
    /// The version of each domain's operators.
    pub opsets: BTreeMap<String, u64>,
    pub producer_name: String,
    pub producer_version: String,
    pub domain: String,
    pub model_version: i64,
    pub doc: String,
    /// Name of the graph.
    pub graph: String,
    /// As the file lists them; before version 4 of the format initializers are among them.
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// Names of the graph's own initializers, sparse ones too.
    pub initializers: Vec<String>,
    /// How often each operator stands in the graph and the graphs within it, by domain.
    pub operators: BTreeMap<String, BTreeMap<String, u64>>,
    pub node_count: u64,
    /// Of the graph, in the order of the file; graphs within it are left out.
    pub nodes: Vec<OnnxNode>,
    /// Domain and name of each function that the file defines.
    pub functions: Vec<String>,
    pub metadata: BTreeMap<String, String>,
    /// Files beside this one that hold tensors.
    pub external: BTreeSet<String>,
}

/// One step of the graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OnnxNode {
    pub name: String,
    pub domain: String,
    pub operator: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    /// Names of its attributes.
    pub attributes: Vec<String>,
}

impl OnnxDetails {
    /// Inputs that have no value of their own, and outputs.
    pub fn interface(&self) -> Interface {
        let given: BTreeSet<&String> = self.initializers.iter().collect();
        let inputs = self.inputs.iter().filter(|port| !given.contains(&port.name));
        Interface { inputs: inputs.cloned().collect(), outputs: self.outputs.clone() }
    }

    pub(in super::super) fn summary(&self) -> Map<String, Json> {
        let mut summary = Map::new();
        let mut add = |name: &str, value: Json| summary.insert(name.to_owned(), value);
        add("ir_version", json!(self.ir_version));
        add("opsets", json!(self.opsets.iter().take(12).collect::<BTreeMap<_, _>>()));
        let producer = format!("{} {}", self.producer_name, self.producer_version);
        add("producer", json!(short(producer.trim())));
        let mut operators = BTreeMap::new();
        for (domain, counts) in &self.operators {
            let prefix = if domain == OWN_DOMAIN { String::new() } else { format!("{domain}:") };
            operators
                .extend(counts.iter().map(|(name, count)| (format!("{prefix}{name}"), *count)));
        }
        add("operators", most(&operators));
        add("nodes", json!(self.node_count));
        add("initializers", json!(self.initializers.len()));
        if !self.functions.is_empty() {
            add("functions", json!(self.functions.len()));
        }
        if !self.metadata.is_empty() {
            add("metadata", first(&self.metadata));
        }
        if !self.external.is_empty() {
            add(
                "external",
                json!(self.external.iter().take(12).map(|it| short(it)).collect::<Vec<_>>()),
            );
        }
        summary
    }
}

/// Reads what a model says beside its weights, and lists those.
pub(in super::super) fn describe(
    reader: &mut Reader<'_>,
    draft: &mut Draft,
) -> Result<OnnxDetails, Stop> {
    let mut rest = 0..reader.bytes();
    let mut walk = Walk { reader, draft, found: OnnxDetails::default() };
    let mut has_graph = false;
    while let Some(Field { number, value }) = walk.next(&mut rest)? {
        match (number, value) {
            (1, Value::Varint(version)) => walk.found.ir_version = version,
            (2, Value::Bytes(text)) => walk.found.producer_name = walk.text(text)?,
            (3, Value::Bytes(text)) => walk.found.producer_version = walk.text(text)?,
            (4, Value::Bytes(text)) => walk.found.domain = walk.text(text)?,
            (5, Value::Varint(version)) => walk.found.model_version = version.cast_signed(),
            (6, Value::Bytes(text)) => walk.found.doc = walk.text(text)?,
            (7, Value::Bytes(graph)) => {
                has_graph = true;
                walk.graph(graph, "", 1)?;
            }
            (8, Value::Bytes(opset)) => walk.opset(opset)?,
            (14, Value::Bytes(entry)) => {
                let (key, text) = walk.entry(entry)?;
                if walk.draft.admit("metadata", key.len() + text.len()) {
                    walk.found.metadata.insert(key, text);
                }
            }
            (25, Value::Bytes(function)) => walk.function(function)?,
            _ => {}
        }
    }
    if !has_graph {
        return Err(Stop::Malformed("it has no graph"));
    }
    Ok(walk.found)
}

struct Walk<'a, 'b> {
    reader: &'a mut Reader<'b>,
    draft: &'a mut Draft,
    found: OnnxDetails,
}

impl Walk<'_, '_> {
    fn next(&mut self, rest: &mut Range<u64>) -> Result<Option<Field>, Stop> {
        next_field(self.reader, rest)
    }

    fn text(&mut self, range: Range<u64>) -> Result<String, Stop> {
        self.reader.text_up_to(&range, VALUE_BYTES_MAX)
    }

    /// An `OperatorSetIdProto`.
    fn opset(&mut self, mut rest: Range<u64>) -> Result<(), Stop> {
        let (mut domain, mut version) = (String::new(), 0);
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(text)) => domain = self.text(text)?,
                (2, Value::Varint(number)) => version = number,
                _ => {}
            }
        }
        if self.draft.admit("opsets", domain.len()) {
            self.found.opsets.insert(own_or(domain), version);
        }
        Ok(())
    }

    /// A `StringStringEntryProto`.
    fn entry(&mut self, mut rest: Range<u64>) -> Result<(String, String), Stop> {
        let (mut key, mut text) = (String::new(), String::new());
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(range)) => key = self.text(range)?,
                (2, Value::Bytes(range)) => text = self.text(range)?,
                _ => {}
            }
        }
        Ok((key, text))
    }

    /// A `FunctionProto`: its name only.
    fn function(&mut self, mut rest: Range<u64>) -> Result<(), Stop> {
        let (mut domain, mut name) = (String::new(), String::new());
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(text)) => name = self.text(text)?,
                (10, Value::Bytes(text)) => domain = self.text(text)?,
                _ => {}
            }
        }
        let function = format!("{}:{name}", own_or(domain));
        if self.draft.admit("functions", function.len()) {
            self.found.functions.push(function);
        }
        Ok(())
    }

    /// A `GraphProto`, `depth` messages below the file; only the outermost one has its ports and
    /// nodes listed.
    fn graph(&mut self, mut rest: Range<u64>, prefix: &str, depth: usize) -> Result<(), Stop> {
        let is_outermost = depth == 1;
        let mut index = 0_u64;
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            let Value::Bytes(message) = value else { continue };
            match number {
                1 => {
                    self.node(message, (prefix, index), depth + 1)?;
                    index += 1;
                }
                2 if is_outermost => self.found.graph = self.text(message)?,
                5 => {
                    let name = self.tensor(message, prefix, None)?;
                    self.initializer(is_outermost, name);
                }
                15 => {
                    let name = self.sparse_tensor(message, prefix, None)?;
                    self.initializer(is_outermost, name);
                }
                11 | 12 if is_outermost => {
                    let port = self.port(message)?;
                    let ranks = port.shape.as_ref().map_or(0, Vec::len);
                    let what = if number == 11 { "inputs" } else { "outputs" };
                    if self.draft.admit(what, port.name.len() + port.dtype.len() + 32 * ranks) {
                        let ports = match number {
                            11 => &mut self.found.inputs,
                            _ => &mut self.found.outputs,
                        };
                        ports.push(port);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn initializer(&mut self, is_outermost: bool, name: String) {
        if is_outermost && self.draft.admit("initializers", name.len()) {
            self.found.initializers.push(name);
        }
    }

    /// A `NodeProto` with its place in the graph.
    fn node(
        &mut self,
        message: Range<u64>,
        (prefix, index): (&str, u64),
        depth: usize,
    ) -> Result<(), Stop> {
        let mut node = OnnxNode::default();
        let mut attributes = Vec::new();
        let is_listed = depth == 2;
        let mut rest = message;
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            let Value::Bytes(range) = value else { continue };
            match number {
                1 if is_listed => self.push_name(&mut node.inputs, range)?,
                2 if is_listed || node.outputs.is_empty() => {
                    self.push_name(&mut node.outputs, range)?;
                }
                3 => node.name = self.text(range)?,
                4 => node.operator = self.text(range)?,
                5 => attributes.push(range),
                7 => node.domain = self.text(range)?,
                _ => {}
            }
        }
        node.domain = own_or(node.domain);
        self.found.node_count += 1;
        self.count(&node);
        let label = match (&node.name, node.outputs.first()) {
            (name, _) if !name.is_empty() => format!("{prefix}{name}"),
            (_, Some(output)) if !output.is_empty() => format!("{prefix}{output}"),
            _ => format!("{prefix}{index}"),
        };
        for attribute in attributes {
            let name = self.attribute(attribute, &label, depth + 1)?;
            if is_listed && self.draft.admit("attributes", name.len()) {
                node.attributes.push(name);
            }
        }
        let bytes = node.name.len() + node.domain.len() + node.operator.len();
        if is_listed && self.draft.admit("nodes", bytes) {
            self.found.nodes.push(node);
        }
        Ok(())
    }

    fn push_name(&mut self, names: &mut Vec<String>, range: Range<u64>) -> Result<(), Stop> {
        let name = self.text(range)?;
        if self.draft.admit("names of nodes", name.len()) {
            names.push(name);
        }
        Ok(())
    }

    fn count(&mut self, node: &OnnxNode) {
        let known = self.found.operators.get_mut(&node.domain);
        if let Some(count) = known.and_then(|counts| counts.get_mut(&node.operator)) {
            *count += 1;
        } else if self.draft.admit("operators", node.domain.len() + node.operator.len()) {
            let counts = self.found.operators.entry(node.domain.clone()).or_default();
            counts.insert(node.operator.clone(), 1);
        }
    }

    /// An `AttributeProto`: its name, with what hangs on it walked through.
    fn attribute(&mut self, message: Range<u64>, node: &str, depth: usize) -> Result<String, Stop> {
        let mut name = String::new();
        let mut parts = Vec::new();
        let mut rest = message;
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(text)) => name = self.text(text)?,
                (5 | 6 | 10 | 11 | 22 | 23, Value::Bytes(part)) => parts.push((number, part)),
                _ => {}
            }
        }
        if !parts.is_empty() && NESTING_MAX <= depth {
            return Err(Stop::Malformed("its graphs are too deep"));
        }
        let label = format!("{node}.{name}");
        for (number, part) in parts {
            match number {
                5 | 10 => drop(self.tensor(part, "", Some(&label))?),
                6 | 11 => self.graph(part, &format!("{label}/"), depth + 1)?,
                _ => drop(self.sparse_tensor(part, "", Some(&label))?),
            }
        }
        Ok(name)
    }

    /// A `SparseTensorProto`: its values have its name and its dtype, and the shape is its own.
    fn sparse_tensor(
        &mut self,
        message: Range<u64>,
        prefix: &str,
        label: Option<&str>,
    ) -> Result<String, Stop> {
        let (mut values, mut shape) = (TensorInfo::default(), Vec::new());
        let mut rest = message;
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(message)) => values = self.tensor_info(message)?,
                (3, value) => self.dimensions(value, &mut shape)?,
                _ => {}
            }
        }
        Ok(self.list(TensorInfo { shape, ..values }, prefix, label))
    }

    /// A `TensorProto`: its own name.
    fn tensor(
        &mut self,
        message: Range<u64>,
        prefix: &str,
        label: Option<&str>,
    ) -> Result<String, Stop> {
        let tensor = self.tensor_info(message)?;
        Ok(self.list(tensor, prefix, label))
    }

    /// Lists a tensor under `label` or, without one, under its own name behind `prefix`.
    fn list(&mut self, mut tensor: TensorInfo, prefix: &str, label: Option<&str>) -> String {
        let name = tensor.name;
        tensor.name = label.map_or_else(|| format!("{prefix}{name}"), str::to_owned);
        if let Some(location) = &tensor.location
            && !self.found.external.contains(location)
            && self.draft.admit("files", location.len())
        {
            self.found.external.insert(location.clone());
        }
        self.draft.add_tensor(tensor, None);
        name
    }

    fn tensor_info(&mut self, message: Range<u64>) -> Result<TensorInfo, Stop> {
        let mut found = TensorInfo { dtype: element_word(0), ..TensorInfo::default() };
        let (mut is_external, mut location) = (false, None);
        let mut rest = message;
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, value) => self.dimensions(value, &mut found.shape)?,
                (2, Value::Varint(data_type)) => found.dtype = element_word(data_type),
                (8, Value::Bytes(text)) => found.name = self.text(text)?,
                (13, Value::Bytes(entry)) => {
                    let (key, text) = self.entry(entry)?;
                    location = (key == "location").then_some(text).or(location);
                }
                (14, Value::Varint(place)) => is_external = place == EXTERNAL,
                _ => {}
            }
        }
        found.location = location.filter(|_| is_external);
        Ok(found)
    }

    /// Adds sizes that stand alone or packed.
    fn dimensions(&mut self, value: Value, shape: &mut Vec<u64>) -> Result<(), Stop> {
        match value {
            Value::Varint(size) => add_dimension(shape, size)?,
            Value::Bytes(mut packed) => {
                while !packed.is_empty() {
                    add_dimension(shape, read_varint(self.reader, &mut packed)?)?;
                }
            }
            Value::Fixed(_) => {}
        }
        Ok(())
    }

    /// A `ValueInfoProto`.
    fn port(&mut self, mut rest: Range<u64>) -> Result<Port, Stop> {
        let mut port = Port { name: String::new(), dtype: element_word(0), shape: None };
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Bytes(text)) => port.name = self.text(text)?,
                (2, Value::Bytes(kind)) => (port.dtype, port.shape) = self.kind(kind, 0)?,
                _ => {}
            }
        }
        Ok(port)
    }

    /// A `TypeProto`: in words, with the shape of what is a tensor.
    fn kind(
        &mut self,
        mut rest: Range<u64>,
        depth: usize,
    ) -> Result<(String, Option<Vec<Dimension>>), Stop> {
        if NESTING_MAX <= depth {
            return Err(Stop::Malformed("its types are too deep"));
        }
        let mut found = (element_word(0), None);
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            let Value::Bytes(message) = value else { continue };
            found = match number {
                1 | 8 => {
                    let (dtype, shape) = self.tensor_kind(message)?;
                    (if number == 8 { format!("sparse({dtype})") } else { dtype }, shape)
                }
                4 | 5 | 9 => {
                    let (key, inner) = self.container_kind(message, depth)?;
                    let words = match number {
                        4 => format!("sequence({inner})"),
                        5 => format!("map({},{inner})", element_word(key)),
                        _ => format!("optional({inner})"),
                    };
                    (words, None)
                }
                7 => ("opaque".to_owned(), None),
                _ => found,
            };
        }
        Ok(found)
    }

    /// A sequence, map or optional: the type of its keys and, in words, that of what is in it.
    fn container_kind(
        &mut self,
        mut rest: Range<u64>,
        depth: usize,
    ) -> Result<(u64, String), Stop> {
        let (mut key, mut inner) = (0, element_word(0));
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Varint(number)) => key = number,
                (1 | 2, Value::Bytes(kind)) => inner = self.kind(kind, depth + 1)?.0,
                _ => {}
            }
        }
        Ok((key, inner))
    }

    fn tensor_kind(
        &mut self,
        mut rest: Range<u64>,
    ) -> Result<(String, Option<Vec<Dimension>>), Stop> {
        let (mut dtype, mut shape) = (element_word(0), None);
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            match (number, value) {
                (1, Value::Varint(data_type)) => dtype = element_word(data_type),
                (2, Value::Bytes(message)) => shape = Some(self.shape(message)?),
                _ => {}
            }
        }
        Ok((dtype, shape))
    }

    /// A `TensorShapeProto`.
    fn shape(&mut self, mut rest: Range<u64>) -> Result<Vec<Dimension>, Stop> {
        let mut shape = Vec::new();
        while let Some(Field { number, value }) = self.next(&mut rest)? {
            let (1, Value::Bytes(mut dimension)) = (number, value) else { continue };
            let mut size = Dimension::Any(());
            while let Some(Field { number, value }) = self.next(&mut dimension)? {
                size = match (number, value) {
                    // Some exporters write -1 where they mean that any size will do.
                    (1, Value::Varint(size)) if size.cast_signed() < 0 => Dimension::Any(()),
                    (1, Value::Varint(size)) => Dimension::Size(size),
                    (2, Value::Bytes(text)) => match self.text(text)? {
                        name if name.is_empty() => Dimension::Any(()),
                        name => Dimension::Name(name),
                    },
                    _ => size,
                };
            }
            if RANK_MAX <= shape.len() {
                return Err(Stop::Malformed("a shape has too many dimensions"));
            }
            shape.push(size);
        }
        Ok(shape)
    }
}

fn own_or(domain: String) -> String {
    if domain.is_empty() { OWN_DOMAIN.to_owned() } else { domain }
}

/// The word for a `TensorProto.DataType`: ours where the layout has one, else much like ONNX's own.
fn element_word(data_type: u64) -> String {
    let word = match data_type {
        0 => "undefined",
        1 => "f32",
        2 => "u8",
        3 => "i8",
        4 => "u16",
        5 => "i16",
        6 => "i32",
        7 => "i64",
        8 => "string",
        9 => "bool",
        10 => "f16",
        11 => "f64",
        12 => "u32",
        13 => "u64",
        14 => "complex64",
        15 => "complex128",
        16 => "bf16",
        17 => "f8_e4m3",
        18 => "f8_e4m3fnuz",
        19 => "f8_e5m2",
        20 => "f8_e5m2fnuz",
        21 => "u4",
        22 => "i4",
        23 => "f4_e2m1",
        24 => "f8_e8m0",
        25 => "u2",
        26 => "i2",
        27 => "f6_e2m3",
        28 => "f6_e3m2",
        other => return format!("type {other}"),
    };
    word.to_owned()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::super::super::samples::{field, number};
    use super::super::super::{Description, Details, describe};
    use super::*;

    fn text(number: u64, text: &str) -> Vec<u8> {
        field(number, text.as_bytes())
    }

    fn dimension(size: &[u8]) -> Vec<u8> {
        field(1, size)
    }

    /// A `ValueInfoProto` of a tensor with these dimensions.
    fn port(name: &str, data_type: u64, dimensions: &[Vec<u8>]) -> Vec<u8> {
        let tensor = [number(1, data_type), field(2, &dimensions.concat())].concat();
        [text(1, name), field(2, &field(1, &tensor))].concat()
    }

    fn tensor(name: &str, data_type: u64, shape: &[u64], rest: &[u8]) -> Vec<u8> {
        let dims: Vec<u8> = shape.iter().flat_map(|size| number(1, *size)).collect();
        [dims, number(2, data_type), text(8, name), rest.into()].concat()
    }

    fn model() -> Vec<u8> {
        let any =
            port("x", 1, &[dimension(&text(2, "batch")), dimension(&number(1, 3)), dimension(&[])]);
        let map = [number(1, 7), field(2, &field(1, &number(1, 1)))].concat();
        let sequence = field(2, &field(4, &field(1, &field(5, &map))));
        let inner = field(1, &[text(2, "y"), text(4, "Relu")].concat());
        let branch = [text(1, "then_branch"), field(6, &inner)].concat();
        let constant = [text(1, "value"), field(5, &tensor("", 7, &[1], &field(9, &[0; 8])))];
        let beside = [field(13, &[text(1, "location"), text(2, "w.bin")].concat()), number(14, 1)];
        let sparse = [field(1, &tensor("s", 1, &[2], &[])), number(3, 5), number(3, 6)].concat();
        let node = |operator: &str, rest: &[u8]| {
            field(1, &[text(1, "x"), text(2, "y"), text(4, operator), rest.into()].concat())
        };
        let graph = [
            node("Gemm", &[text(1, "w"), text(3, "layer")].concat()),
            node("If", &field(5, &branch)),
            node("Constant", &field(5, &constant.concat())),
            node("Tree", &text(7, "ai.onnx.ml")),
            text(2, "main"),
            field(5, &tensor("w", 1, &[3, 2], &field(9, &[0; 24]))),
            field(5, &tensor("beside", 10, &[4], &beside.concat())),
            field(15, &sparse),
            field(11, &any),
            field(11, &port("w", 1, &[])),
            field(12, &[text(1, "out"), sequence].concat()),
        ];
        let opset =
            |domain: &str, version| field(8, &[text(1, domain), number(2, version)].concat());
        let entry = |key: &str, value: &str| field(14, &[text(1, key), text(2, value)].concat());
        [
            number(1, 8),
            text(2, "tests"),
            text(3, "1.2"),
            number(5, u64::MAX),
            field(7, &graph.concat()),
            opset("", 17),
            opset("ai.onnx.ml", 3),
            entry("names", "cat, dog"),
            field(25, &[text(1, "Swish"), text(10, "mine")].concat()),
        ]
        .concat()
    }

    fn described(file: &[u8]) -> Description {
        describe(OsStr::new("m.onnx"), &file).expect("a model")
    }

    #[test]
    fn a_model_says_what_it_takes_gives_and_does() {
        let found = described(&model());
        let Some(Details::Onnx(onnx)) = &found.details else { panic!("{found:?}") };
        assert_eq!((onnx.ir_version, onnx.model_version, onnx.graph.as_str()), (8, -1, "main"));
        assert_eq!((onnx.opsets["ai.onnx"], onnx.opsets["ai.onnx.ml"]), (17, 3));
        let counted = |domain: &str| onnx.operators[domain].iter().map(|it| format!("{it:?}"));
        let own: Vec<_> = counted(OWN_DOMAIN).collect();
        assert_eq!(own, [r#"("Constant", 1)"#, r#"("Gemm", 1)"#, r#"("If", 1)"#, r#"("Relu", 1)"#]);
        assert_eq!(counted("ai.onnx.ml").collect::<Vec<_>>(), [r#"("Tree", 1)"#]);
        assert_eq!((onnx.node_count, onnx.nodes.len()), (5, 4));
        assert_eq!(
            (&*onnx.nodes[0].name, &onnx.nodes[0].inputs[..]),
            ("layer", &["x".into(), "w".into()][..])
        );
        assert_eq!(onnx.functions, ["mine:Swish"]);
        assert_eq!(onnx.metadata["names"], "cat, dog");
        assert_eq!(onnx.initializers, ["w", "beside", "s"]);
        assert_eq!(onnx.external.iter().collect::<Vec<_>>(), ["w.bin"]);
        let tensors: Vec<_> = found
            .tensors
            .iter()
            .map(|it| format!("{} {} {:?}", it.name, it.dtype, it.shape))
            .collect();
        assert_eq!(tensors, ["y.value i64 [1]", "w f32 [3, 2]", "beside f16 [4]", "s f32 [5, 6]"]);
        assert_eq!(found.parameters, Some(1 + 6 + 4 + 30));
    }

    #[test]
    fn an_interface_has_what_is_not_given_already() {
        let found = serde_json::to_value(described(&model()).interface()).unwrap();
        let expected = json!({
            "inputs": [{"name": "x", "dtype": "f32", "shape": ["batch", 3, null]}],
            "outputs": [{"name": "out", "dtype": "sequence(map(i64,f32))"}],
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_description_is_the_same_after_it_was_json() {
        let found = described(&model());
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Description>(&json).unwrap(), found);
        let summary = found.summary();
        assert_eq!(summary["operators"]["Gemm"], 1);
        assert_eq!(summary["operators"]["ai.onnx.ml:Tree"], 1);
        assert_eq!(summary["dtypes"], json!({"f16": 1, "f32": 2, "i64": 1}));
    }

    #[test]
    fn types_and_graphs_are_as_deep_as_they_may_be() {
        let deep = |levels: usize| {
            let kind =
                (0..levels).fold(field(1, &number(1, 1)), |kind, _| field(4, &field(1, &kind)));
            let graph = field(11, &[text(1, "x"), field(2, &kind)].concat());
            describe(OsStr::new("m.onnx"), &[number(1, 8), field(7, &graph)].concat().as_slice())
        };
        assert!(deep(NESTING_MAX - 1).is_ok());
        assert!(deep(NESTING_MAX).is_err());
        let deep = |levels: usize| {
            let graph =
                (0..levels).fold(Vec::new(), |graph, _| field(1, &field(5, &field(6, &graph))));
            describe(OsStr::new("m.onnx"), &[number(1, 8), field(7, &graph)].concat().as_slice())
        };
        assert!(deep(NESTING_MAX / 3 - 1).is_ok());
        assert!(deep(NESTING_MAX).is_err());
    }
}
