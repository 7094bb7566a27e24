//! TensorFlow Lite: a FlatBuffer of operators, tensors and subgraphs.
//!
//! Source: `schema.fbs` of TensorFlow Lite, version 3.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::description::{
    Dimension, Draft, Interface, Port, TensorInfo, VALUE_BYTES_MAX, most, short,
};
use super::flatbuffer::{Buffer, Table, Vector};
use super::reader::Reader;
use super::{NAME_BYTES_MAX, RANK_MAX, Stop};

/// Most subgraphs of one file.
const SUBGRAPH_COUNT_MAX: u64 = 1_000;
/// The code of operators that have a name of their own, and the one from which codes stand elsewhere.
const CUSTOM: usize = 32;

/// What a TensorFlow Lite file has beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TfliteDetails {
    pub version: u32,
    pub description: String,
    /// The first one is what is run.
    pub subgraphs: u64,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    /// How often each operator stands in all subgraphs.
    pub operators: BTreeMap<String, u64>,
    pub node_count: u64,
    /// Names of what is kept beside the model.
    pub metadata: Vec<String>,
}

impl TfliteDetails {
    pub fn interface(&self) -> Interface {
        Interface { inputs: self.inputs.clone(), outputs: self.outputs.clone() }
    }

    pub(super) fn summary(&self) -> Map<String, Value> {
        let mut summary = Map::new();
        let mut add = |name: &str, value: Value| summary.insert(name.to_owned(), value);
        add("version", json!(self.version));
        if !self.description.is_empty() {
            add("description", json!(short(&self.description)));
        }
        add("subgraphs", json!(self.subgraphs));
        add("operators", most(&self.operators));
        add("nodes", json!(self.node_count));
        summary
    }
}

/// Reads what a model says beside its weights, and lists those.
pub(super) fn describe(reader: &mut Reader<'_>, draft: &mut Draft) -> Result<TfliteDetails, Stop> {
    let file = 0..reader.bytes();
    let (buffer, root) = Buffer::new(reader, file)?;
    let mut walk = Walk { buffer, draft, codes: Vec::new(), found: TfliteDetails::default() };
    walk.model(&root)?;
    Ok(walk.found)
}

struct Walk<'w, 'a, 'b> {
    buffer: Buffer<'a, 'b>,
    draft: &'w mut Draft,
    /// Names of the operators that the nodes speak of by number.
    codes: Vec<String>,
    found: TfliteDetails,
}

impl Walk<'_, '_, '_> {
    fn model(&mut self, model: &Table) -> Result<(), Stop> {
        self.found.version = self.buffer.number(model, 0)?;
        self.found.description = self.buffer.text(model, 3, VALUE_BYTES_MAX)?;
        let codes = self.buffer.vector(model, 1, 4)?;
        for index in 0..codes.count {
            let code = self.buffer.entry(codes, index)?;
            let name = self.operator(&code)?;
            if !self.draft.admit("operators", name.len()) {
                return Err(Stop::Malformed("it has too many operators"));
            }
            self.codes.push(name);
        }
        let subgraphs = self.buffer.vector(model, 2, 4)?;
        self.found.subgraphs = subgraphs.count;
        if SUBGRAPH_COUNT_MAX < subgraphs.count {
            return Err(Stop::Malformed("it has too many subgraphs"));
        }
        for index in 0..subgraphs.count {
            let subgraph = self.buffer.entry(subgraphs, index)?;
            self.subgraph(&subgraph, index == 0)?;
        }
        let metadata = self.buffer.vector(model, 6, 4)?;
        for index in 0..metadata.count {
            let entry = self.buffer.entry(metadata, index)?;
            let name = self.buffer.text(&entry, 0, NAME_BYTES_MAX)?;
            if !self.draft.admit("metadata", name.len()) {
                break;
            }
            self.found.metadata.push(name);
        }
        Ok(())
    }

    /// The name of an operator. Codes past 126 stand in another field than the first ones did.
    fn operator(&mut self, code: &Table) -> Result<String, Stop> {
        let old = usize::from(self.buffer.byte(code, 0)?);
        let new = self.buffer.number(code, 3)? as usize;
        let number = old.max(new);
        if number == CUSTOM {
            return self.buffer.text(code, 1, NAME_BYTES_MAX);
        }
        let name = OPERATORS.split_ascii_whitespace().nth(number).map(str::to_owned);
        Ok(name.unwrap_or_else(|| format!("operator {number}")))
    }

    fn subgraph(&mut self, subgraph: &Table, is_main: bool) -> Result<(), Stop> {
        let nodes = self.buffer.vector(subgraph, 3, 4)?;
        self.found.node_count += nodes.count;
        for index in 0..nodes.count {
            let node = self.buffer.entry(nodes, index)?;
            let code = self.buffer.number(&node, 0)? as usize;
            let name = self.codes.get(code).ok_or(Stop::Malformed("a node has no operator"))?;
            *self.found.operators.entry(name.clone()).or_default() += 1;
        }
        let tensors = self.buffer.vector(subgraph, 0, 4)?;
        for index in 0..tensors.count {
            let tensor = self.buffer.entry(tensors, index)?;
            let tensor = self.tensor(&tensor)?;
            self.draft.add_tensor(tensor, None);
        }
        if is_main {
            let inputs = self.buffer.vector(subgraph, 1, 4)?;
            self.found.inputs = self.ports(inputs, tensors)?;
            let outputs = self.buffer.vector(subgraph, 2, 4)?;
            self.found.outputs = self.ports(outputs, tensors)?;
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &Table) -> Result<TensorInfo, Stop> {
        let name = self.buffer.text(tensor, 3, NAME_BYTES_MAX)?;
        let dtype = element_word(self.buffer.byte(tensor, 1)?);
        let shape = self.numbers(tensor, 0)?;
        let shape = shape.into_iter().map(|size| u64::try_from(size).unwrap_or(0)).collect();
        Ok(TensorInfo { name, dtype, shape, location: None })
    }

    fn numbers(&mut self, of: &Table, field: u64) -> Result<Vec<i32>, Stop> {
        let found = self.buffer.vector(of, field, 4)?;
        if (RANK_MAX as u64) < found.count {
            return Err(Stop::Malformed("a shape has too many dimensions"));
        }
        (0..found.count).map(|index| self.buffer.number_in(found, index)).collect()
    }

    /// Inputs or outputs, by their numbers among the tensors.
    fn ports(&mut self, numbers: Vector, tensors: Vector) -> Result<Vec<Port>, Stop> {
        let mut ports = Vec::new();
        for index in 0..numbers.count {
            let number = self.buffer.number_in(numbers, index)?;
            // An optional input that is not there.
            let Ok(number) = u64::try_from(number) else { continue };
            if tensors.count <= number {
                return Err(Stop::Malformed("an input or output is no tensor"));
            }
            let tensor = self.buffer.entry(tensors, number)?;
            let TensorInfo { name, dtype, .. } = self.tensor(&tensor)?;
            // The signature says which sizes are free; without one the shape is what it is.
            let mut sizes = self.numbers(&tensor, 7)?;
            if sizes.is_empty() {
                sizes = self.numbers(&tensor, 0)?;
            }
            let size = |size| u64::try_from(size).map_or(Dimension::Any(()), Dimension::Size);
            if !self.draft.admit("inputs and outputs", name.len() + 8 * sizes.len()) {
                break;
            }
            ports.push(Port { name, dtype, shape: Some(sizes.into_iter().map(size).collect()) });
        }
        Ok(ports)
    }
}

/// The word for a `TensorType`: ours where the layout has one.
fn element_word(number: u8) -> String {
    let words = [
        "f32",
        "f16",
        "i32",
        "u8",
        "i64",
        "string",
        "bool",
        "i16",
        "complex64",
        "i8",
        "f64",
        "complex128",
        "u64",
        "resource",
        "variant",
        "u32",
        "u16",
        "i4",
        "bf16",
    ];
    words.get(usize::from(number)).map_or_else(|| format!("type {number}"), |it| (*it).to_owned())
}

/// `BuiltinOperator`, by number.
const OPERATORS: &str = "\
    ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE \
    EMBEDDING_LOOKUP FLOOR FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D \
    LOCAL_RESPONSE_NORMALIZATION LOGISTIC LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 \
    RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH SVDF TANH CONCAT_EMBEDDINGS \
    SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN GATHER \
    BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE \
    UNIDIRECTIONAL_SEQUENCE_LSTM STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT \
    LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG \
    PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN TRANSPOSE_CONV SPARSE_TO_DENSE TILE \
    EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN FAKE_QUANT REDUCE_PROD \
    REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV \
    REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU \
    SQUARED_DIFFERENCE MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE \
    RANK ELU REVERSE_SEQUENCE MATRIX_DIAG QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE \
    NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND SELECT_V2 DENSIFY SEGMENT_SUM \
    BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO RFFT2D CONV_3D \
    IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL \
    CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS \
    RANDOM_STANDARD_NORMAL BUCKETIZE RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE \
    RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_SUM ATAN2 \
    UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC STABLEHLO_ADD \
    STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP \
    STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE \
    STABLEHLO_CUSTOM_CALL STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE \
    STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE \
    STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER STABLEHLO_RSQRT STABLEHLO_SELECT \
    STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE STABLEHLO_CONVERT \
    STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA \
    STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE \
    STABLEHLO_GATHER STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW \
    STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT STABLEHLO_CBRT";
