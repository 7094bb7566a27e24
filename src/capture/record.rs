//! The record of a run: members of `metadata.json` that are known without the files, each within its limits.
//!
//! It goes with the version that is sealed at once. Where nothing is sealed it is left as a file beside what
//! was made, and is read again when that is.

use serde_json::{Map, Value, json};

use super::{Found, redact};
use crate::format::schema;

/// The file, at the root of what was made.
pub const NAME: &str = "modelfs-run.json";

/// Most that a record takes as JSON, in bytes: half of what may be captured of a version.
const RECORD_BYTES_MAX: usize = 512 << 10;
/// Longest text, in characters.
const TEXT_CHARACTERS_MAX: usize = 4_096;
/// Words of a command that are kept.
const WORD_COUNT_MAX: usize = 1_000;
/// Sentences; more would not be read.
const NOTE_COUNT_MAX: usize = 20;
/// What stands for the rest of a long text.
const CUT: &str = "…";

/// Members whose kinds other readers rely on.
const OBJECTS: [&str; 3] = ["environment", "run", "source"];
const LISTS: [&str; 1] = ["datasets"];

/// What is known of a run so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRecord {
    members: Map<String, Value>,
    notes: Vec<String>,
}

impl RunRecord {
    /// Sets a part of `environment`, `run` or `source`. `null` says nothing.
    pub fn put(&mut self, member: &str, part: &str, value: impl Into<Value>) {
        let value = value.into();
        if !value.is_null() {
            let object = self.members.entry(member).or_insert_with(|| json!({}));
            object[part] = value;
        }
    }

    /// Sets several parts of one.
    pub fn put_all(&mut self, member: &str, parts: Map<String, Value>) {
        parts.into_iter().for_each(|(part, value)| self.put(member, &part, value));
    }

    /// Adds data that it was made from.
    pub fn push_dataset(&mut self, dataset: Value) {
        let list = self.members.entry("datasets").or_insert_with(|| json!([]));
        list.as_array_mut().expect("only this makes it").push(dataset);
    }

    /// Adds a sentence about what could not be told.
    pub fn note(&mut self, sentence: impl Into<String>) {
        if self.notes.len() < NOTE_COUNT_MAX {
            self.notes.push(cut(sentence.into()));
        }
    }

    /// The members without secrets, as [`Found`] and `metadata.json` have them. Of what is too long columns
    /// of data go first, then packages.
    pub fn finish(mut self) -> Map<String, Value> {
        if RECORD_BYTES_MAX < self.bytes() {
            let datasets = self.members.get_mut("datasets").and_then(Value::as_array_mut);
            for dataset in datasets.into_iter().flatten().filter_map(Value::as_object_mut) {
                dataset.remove("schema");
            }
            self.note("the columns of the data are not here: there are too many");
        }
        if RECORD_BYTES_MAX < self.bytes() {
            let environment = self.members.get_mut("environment").and_then(Value::as_object_mut);
            environment.and_then(|parts| parts.remove("packages"));
            self.note("the packages are not here: there are too many");
        }
        if !self.notes.is_empty() {
            let notes = std::mem::take(&mut self.notes);
            self.put("run", "notes", notes);
        }
        self.members.iter_mut().for_each(|(name, value)| redact::hide(name, value));
        self.members
    }

    fn bytes(&self) -> usize {
        self.members.values().map(|member| member.to_string().len()).sum()
    }
}

/// The words of a command, as many and as long as are kept.
pub fn words(words: &[String]) -> Vec<String> {
    words.iter().take(WORD_COUNT_MAX).cloned().map(cut).collect()
}

/// A text as long as is kept.
pub fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARACTERS_MAX) {
        None => text,
        Some(_) => text.chars().take(TEXT_CHARACTERS_MAX - 1).collect::<String>() + CUT,
    }
}

/// The bytes of the file.
pub fn encode(members: &Map<String, Value>) -> Vec<u8> {
    let text = serde_json::to_string_pretty(members).expect("it has text keys only");
    (text + "\n").into_bytes()
}

/// Reads a record that was left as a file; anybody may have written to it meanwhile.
pub(super) fn read(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    if 2 * RECORD_BYTES_MAX < bytes.len() {
        return Err(format!("it is larger than {} bytes", 2 * RECORD_BYTES_MAX));
    }
    let mut members = super::trainers::object(super::document::json(bytes)?)?;
    for name in OBJECTS.into_iter().chain(LISTS) {
        let Some(value) = members.remove(name) else { continue };
        let is_kind = if LISTS.contains(&name) { value.is_array() } else { value.is_object() };
        match schema::check(name, &value) {
            Ok(()) if is_kind => found.set(name, value),
            Ok(()) => {
                found.note(format!("`{name}` of `{NAME}` was not taken: it is of another kind"))
            }
            Err(fault) => found.note(format!("a part of `{NAME}` was not taken: {fault}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_members_of_metadata() {
        let mut record = RunRecord::default();
        record.put("run", "exit_code", 0);
        record.put("run", "signal", Value::Null);
        record.put_all("environment", serde_json::from_value(json!({"os": "x"})).unwrap());
        record.push_dataset(json!({"name": "a"}));
        record.note("why");
        let members = Value::Object(record.finish());
        let expected = json!({
            "run": {"exit_code": 0, "notes": ["why"]}, "environment": {"os": "x"},
            "datasets": [{"name": "a"}],
        });
        assert_eq!(members, expected);
        let mut found = Found::default();
        read(&encode(members.as_object().unwrap()), &mut found).unwrap();
        assert_eq!((Value::Object(found.members), found.notes.len()), (expected, 0));
    }

    #[test]
    fn what_is_too_long_is_left_out_and_said() {
        let mut record = RunRecord::default();
        let long: Map<_, _> =
            (0..10_000).map(|i| (i.to_string(), json!("x".repeat(100)))).collect();
        record.put("environment", "packages", long);
        record.put("environment", "os", "x");
        record.push_dataset(json!({"name": "a", "schema": ["x".repeat(RECORD_BYTES_MAX)]}));
        let members = record.finish();
        assert_eq!(members["environment"], json!({"os": "x"}));
        assert_eq!(members["datasets"], json!([{"name": "a"}]));
        assert_eq!(members["run"]["notes"].as_array().unwrap().len(), 2);
        assert_eq!(cut("é".repeat(5_000)).chars().count(), TEXT_CHARACTERS_MAX);
        assert_eq!(cut("é".repeat(TEXT_CHARACTERS_MAX)).chars().count(), TEXT_CHARACTERS_MAX);
    }

    #[test]
    fn a_file_that_somebody_wrote_is_taken_as_far_as_it_is_right() {
        let mut found = Found::default();
        let text = r#"{"run": 7, "environment": {"packages": "all"}, "datasets": {}, "metrics": {"a": 1},
                       "source": {"commit": "c"}}"#;
        read(text.as_bytes(), &mut found).unwrap();
        assert_eq!(Value::Object(found.members.clone()), json!({"source": {"commit": "c"}}));
        assert_eq!(found.notes.len(), 3, "{:?}", found.notes);
        assert!(read(b"[]", &mut found).is_err() && read(b"", &mut found).is_err());
    }
}
