//! Descriptions: what a model file says of itself, as values that are printed, kept and compared.
//!
//! A description is bounded whatever the file says: a list that grows too long ends early, a text
//! that is too long is cut, and `notes` says so.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::TensorTable;
use super::dtype::element_count;
use super::onnx::OnnxDetails;
use super::safetensors::SafetensorsDetails;
use super::{
    CatboostDetails, GgufDetails, KerasDetails, PickleDetails, SkopsDetails, TfliteDetails,
    TreesDetails,
};

/// Memory of one description, counted by what its texts and lists take.
pub const DESCRIPTION_BYTES_MAX: usize = 32 << 20;
/// Bytes of one value that is shown whole: a chat template, a licence.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a summary as JSON.
pub const SUMMARY_BYTES_MAX: usize = 4 << 10;
/// Entries of one list of a summary.
pub(super) const SUMMARY_COUNT_MAX: usize = 12;
/// Bytes of one text of a summary.
const SUMMARY_TEXT_BYTES_MAX: usize = 120;
/// What an entry of a list costs beside its texts.
const ENTRY_BYTES: usize = 96;

/// What a model file says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// The word of [`kind_of`](super::kind_of).
    pub format: String,
    /// Of the file.
    pub bytes: u64,
    /// Whether its library runs what the file says when it loads it as it does by default.
    pub runs_code: bool,
    /// Elements of all tensors, those that have their bytes in common once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// More than `tensors` lists where that ended early.
    pub tensor_count: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorInfo>,
    /// What only files of this format have.
    #[serde(flatten)]
    pub details: Option<Details>,
    /// What was left out because it was too much, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One tensor as the file lists it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TensorInfo {
    pub name: String,
    /// A word of [`Dtype`](super::Dtype), or the format's own for what has none.
    pub dtype: String,
    /// Outermost first.
    pub shape: Vec<u64>,
    /// The file beside this one that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// What only files of one format have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Details {
    Safetensors(SafetensorsDetails),
    Onnx(Box<OnnxDetails>),
    Gguf(GgufDetails),
    Pickle(PickleDetails),
    Trees(TreesDetails),
    Tflite(TfliteDetails),
    Catboost(CatboostDetails),
    Skops(SkopsDetails),
    Keras(KerasDetails),
}

/// What a model takes and gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    pub name: String,
    /// A word for the elements of a tensor; the whole type of what is none, such as
    /// `sequence(map(i64,f32))`.
    pub dtype: String,
    /// Outermost first; absent where not even the rank is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<Dimension>>,
}

/// The size of one dimension of an input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dimension {
    Size(u64),
    /// Any size, the same wherever the name stands.
    Name(String),
    /// `null`: any size.
    Any(()),
}

impl Description {
    /// What is worth keeping beside a version: an object of at most [`SUMMARY_BYTES_MAX`] bytes of JSON.
    ///
    /// Lists and objects have their first or most frequent entries only, long texts are cut.
    pub fn summary(&self) -> Value {
        let mut summary = match &self.details {
            Some(Details::Safetensors(details)) => details.summary(),
            Some(Details::Onnx(details)) => details.summary(),
            Some(Details::Gguf(details)) => details.summary(),
            Some(Details::Pickle(details)) => details.summary(),
            Some(Details::Trees(details)) => details.summary(),
            Some(Details::Tflite(details)) => details.summary(),
            Some(Details::Catboost(details)) => details.summary(),
            Some(Details::Skops(details)) => details.summary(),
            Some(Details::Keras(details)) => details.summary(),
            None => Map::new(),
        };
        if let Some(parameters) = self.parameters {
            summary.insert("parameters".into(), json!(parameters));
        }
        if 0 < self.tensor_count {
            summary.insert("tensors".into(), json!(self.tensor_count));
            summary.insert("dtypes".into(), most(&self.dtypes()));
        }
        // Never needed by what is written above, but what is kept for ever has a limit that holds.
        while SUMMARY_BYTES_MAX < Value::Object(summary.clone()).to_string().len() {
            let longest = summary.iter().max_by_key(|(_, value)| value.to_string().len());
            let Some(name) = longest.map(|(name, _)| name.clone()) else { break };
            summary.remove(&name);
        }
        Value::Object(summary)
    }

    /// Named inputs and outputs, where the format has them.
    pub fn interface(&self) -> Option<Interface> {
        match self.details.as_ref()? {
            Details::Onnx(onnx) => Some(onnx.interface()),
            Details::Tflite(tflite) => Some(tflite.interface()),
            Details::Safetensors(_)
            | Details::Gguf(_)
            | Details::Pickle(_)
            | Details::Trees(_)
            | Details::Catboost(_)
            | Details::Skops(_)
            | Details::Keras(_) => None,
        }
    }

    /// How many of the listed tensors are of each dtype.
    pub fn dtypes(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for tensor in &self.tensors {
            *counts.entry(tensor.dtype.clone()).or_default() += 1;
        }
        counts
    }
}

/// The most frequent of what was counted.
pub(super) fn most(counts: &BTreeMap<String, u64>) -> Value {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(name, count)| (u64::MAX - **count, name.as_str()));
    let shown = sorted.into_iter().take(SUMMARY_COUNT_MAX);
    shown.map(|(name, count)| (short(name), json!(count))).collect::<Map<_, _>>().into()
}

/// The first of these texts and what they say.
pub(super) fn first(texts: &BTreeMap<String, String>) -> Value {
    let shown = texts.iter().take(SUMMARY_COUNT_MAX);
    shown.map(|(name, text)| (short(name), json!(short(text)))).collect::<Map<_, _>>().into()
}

/// A text as a summary has it.
pub(super) fn short(text: &str) -> String {
    let mut text = text.to_owned();
    cut(&mut text, SUMMARY_TEXT_BYTES_MAX);
    text
}

/// Cuts a text to at most `bytes_max`, with a sign that it was cut.
pub(super) fn cut(text: &mut String, bytes_max: usize) {
    const SIGN: char = '…';
    if text.len() <= bytes_max {
        return;
    }
    let mut end = bytes_max.saturating_sub(SIGN.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push(SIGN);
}

/// What a description may still hold, and the tensors that it does.
pub(super) struct Draft {
    bytes_left: usize,
    pub tensors: Vec<TensorInfo>,
    tensor_count: u64,
    /// `None` past 2^64.
    parameters: Option<u64>,
    /// Where the elements lie that are counted, for those that may have them in common.
    counted: HashSet<Range<u64>>,
    notes: Vec<String>,
}

impl Draft {
    pub fn new() -> Self {
        Self {
            bytes_left: DESCRIPTION_BYTES_MAX,
            tensors: Vec::new(),
            tensor_count: 0,
            parameters: Some(0),
            counted: HashSet::new(),
            notes: Vec::new(),
        }
    }

    /// Counts an entry with these texts of the list called `what`; false when it is one too many, of
    /// which a note is made.
    pub fn admit(&mut self, what: &str, text_bytes: usize) -> bool {
        let left = self.bytes_left.checked_sub(ENTRY_BYTES + text_bytes);
        if left.is_none() {
            self.note(&format!("not all {what} are listed: there are too many"));
        }
        self.bytes_left = left.unwrap_or(self.bytes_left);
        left.is_some()
    }

    /// Says once that something was left out.
    pub fn note(&mut self, sentence: &str) {
        if !self.notes.iter().any(|note| note == sentence) {
            self.notes.push(sentence.to_owned());
        }
    }

    /// Lists a tensor and counts its elements, unless some with the same `place` were counted.
    pub fn add_tensor(&mut self, tensor: TensorInfo, place: Option<Range<u64>>) {
        self.tensor_count += 1;
        let place = place.filter(|place| !place.is_empty());
        if place.is_none_or(|place| self.counted.insert(place)) {
            let count = element_count(&tensor.shape);
            self.parameters =
                self.parameters.zip(count).and_then(|(sum, new)| sum.checked_add(new));
        }
        let text = tensor.name.len() + 8 * tensor.shape.len();
        let text = text + tensor.location.as_ref().map_or(0, String::len);
        if self.admit("tensors", text) {
            self.tensors.push(tensor);
        }
    }

    /// Lists the tensors of a table.
    pub fn add_table(&mut self, table: &TensorTable) -> Option<Details> {
        for tensor in &table.tensors {
            let dtype = tensor.dtype.to_string();
            let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
            self.add_tensor(TensorInfo { name, dtype, shape, location: None }, None);
        }
        None
    }

    /// The description of a file.
    pub fn finish(self, format: &str, bytes: u64, details: Option<Details>) -> Description {
        Description {
            format: format.to_owned(),
            bytes,
            runs_code: super::runs_code(format),
            parameters: self.parameters.filter(|_| 0 < self.tensor_count),
            tensor_count: self.tensor_count,
            tensors: self.tensors,
            details,
            notes: self.notes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::super::describe;
    use super::super::samples::safetensors;
    use super::*;

    #[test]
    fn a_summary_is_short_whatever_the_file_says() {
        let long = "k".repeat(10_000);
        let entries: Vec<String> = (0..2_000)
            .map(|index| format!(r#""{index}{long}":"{}""#, "\\u0001".repeat(500)))
            .collect();
        let header = format!(r#"{{"__metadata__":{{{}}}}}"#, entries.join(","));
        let found = describe(OsStr::new("m"), &safetensors(&header, &[]).as_slice()).unwrap();
        assert!(found.summary().to_string().len() <= SUMMARY_BYTES_MAX);
        assert_eq!(found.notes.len(), 0);
    }

    #[test]
    fn a_list_ends_where_a_description_is_full_and_says_so() {
        let mut draft = Draft::new();
        let tensor = |name: String| TensorInfo { name, shape: vec![2], ..TensorInfo::default() };
        for _ in 0..DESCRIPTION_BYTES_MAX / 1_000 {
            draft.add_tensor(tensor("n".repeat(2_000)), None);
        }
        let found = draft.finish("gguf", 0, None);
        assert!(found.tensors.len() < DESCRIPTION_BYTES_MAX / 2_000);
        assert_eq!(found.tensor_count, DESCRIPTION_BYTES_MAX as u64 / 1_000);
        assert_eq!(found.parameters, Some(2 * found.tensor_count));
        assert_eq!(found.notes, ["not all tensors are listed: there are too many"]);
    }

    #[test]
    fn tensors_that_share_their_bytes_are_counted_once() {
        let mut draft = Draft::new();
        for (name, place) in [("a", 0..8), ("tied", 0..8), ("b", 8..16)] {
            let tensor = TensorInfo { name: name.into(), shape: vec![2], ..TensorInfo::default() };
            draft.add_tensor(tensor, Some(place));
        }
        let found = draft.finish("safetensors", 16, None);
        assert_eq!((found.tensor_count, found.parameters), (3, Some(4)));
    }

    #[test]
    fn a_text_is_cut_between_its_characters() {
        let cut = |text: &str, bytes_max| {
            let mut text = text.to_owned();
            super::cut(&mut text, bytes_max);
            text
        };
        assert_eq!(cut("grün", 5), "grün");
        assert_eq!(cut("grüner", 6), "gr…");
        assert_eq!(cut("", 0), "");
    }
}
