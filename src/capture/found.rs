//! What was found: members of `metadata.json`, each bounded.

use serde_json::{Map, Value, json};

/// Entries of one member.
const ENTRY_COUNT_MAX: usize = 1_000;
/// Bytes of one entry as JSON.
const ENTRY_BYTES_MAX: usize = 4 << 10;
/// Notes; more would not be read.
const NOTE_COUNT_MAX: usize = 100;

/// Members of `metadata.json` as far as something was found, and what could not be taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    pub members: Map<String, Value>,
    /// A sentence each.
    pub notes: Vec<String>,
}

impl Found {
    /// Adds an entry to the object `member`, unless one of that name is there. `null` says nothing.
    pub fn put(&mut self, member: &str, key: &str, value: Value) {
        if value.is_null() || !self.fits(member, key.len(), &value) {
            return;
        }
        let object = self.members.entry(member).or_insert_with(|| json!({}));
        let object = object.as_object_mut().expect("such a member is an object");
        object.entry(key).or_insert(value);
    }

    /// Adds an entry to the object `inner` of the object `member`.
    pub fn put_within(&mut self, member: &str, inner: &str, key: &str, value: Value) {
        if value.is_null() || !self.fits(member, key.len(), &value) {
            return;
        }
        let object = self.members.entry(member).or_insert_with(|| json!({}));
        object[inner][key] = value;
    }

    /// Adds an item to the list `member`, unless one with the same `name` is there.
    pub fn push(&mut self, member: &str, item: Value) {
        if !self.fits(member, 0, &item) {
            return;
        }
        let list = self.members.entry(member).or_insert_with(|| json!([]));
        let list = list.as_array_mut().expect("such a member is a list");
        if !list.iter().any(|each| each["name"] == item["name"]) {
            list.push(item);
        }
    }

    /// Sets a member as a whole, unless it is there.
    pub fn set(&mut self, member: &str, value: Value) {
        self.members.entry(member).or_insert(value);
    }

    pub fn note(&mut self, sentence: String) {
        if self.notes.len() < NOTE_COUNT_MAX && !self.notes.contains(&sentence) {
            self.notes.push(sentence);
        }
    }

    fn fits(&mut self, member: &str, key_bytes: usize, value: &Value) -> bool {
        let count = match self.members.get(member) {
            Some(Value::Object(entries)) => entries.len(),
            Some(Value::Array(items)) => items.len(),
            _ => 0,
        };
        let fits =
            count < ENTRY_COUNT_MAX && key_bytes + value.to_string().len() <= ENTRY_BYTES_MAX;
        if !fits {
            self.note(format!(
                "not all `{member}` that were found are here: they are too many or too long"
            ));
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_first_counts_and_is_bounded() {
        let mut found = Found::default();
        found.put("metrics", "auc", json!(0.9));
        found.put("metrics", "auc", json!(0.1));
        found.put("metrics", "none", Value::Null);
        found.put("params", "long", json!("x".repeat(ENTRY_BYTES_MAX)));
        found.push("parents", json!({"name": "a", "uri": "x"}));
        found.push("parents", json!({"name": "a"}));
        found.put_within("environment", "packages", "numpy", json!("2.0"));
        let expected = json!({
            "metrics": {"auc": 0.9}, "parents": [{"name": "a", "uri": "x"}],
            "environment": {"packages": {"numpy": "2.0"}},
        });
        assert_eq!(Value::Object(found.members.clone()), expected);
        assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
        for index in 0..2 * ENTRY_COUNT_MAX {
            found.put("labels", &index.to_string(), json!(index));
        }
        assert_eq!(found.members["labels"].as_object().unwrap().len(), ENTRY_COUNT_MAX);
        assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
    }
}
