//! The JSON Schema of `metadata.json`, and the check of what callers declare against it.
//!
//! What is served to readers is what is enforced: of JSON Schema this knows the words that the schema
//! uses for members that can be declared, and a test says that it uses no others.

use std::fmt;
use std::sync::LazyLock;

use serde_json::Value;

/// The schema as it is served.
pub const TEXT: &str = include_str!("metadata-v1.json");
/// Its name below `.modelfs/schema`.
pub const NAME: &str = "metadata-v1.json";

/// Nesting of a value that is checked; what comes from JSON is not deeper.
const DEPTH_MAX: usize = 128;

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(TEXT).expect("a test reads it"));

/// What is wrong with a declared member, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{place}` {problem}")]
pub struct SchemaFault {
    /// Such as `datasets[0].rows`.
    pub place: String,
    /// Such as "is a text, expected an integer".
    pub problem: String,
}

/// Checks the member called `name`.
///
/// # Errors
/// The first thing that is not as the schema has it.
pub fn check(name: &str, value: &Value) -> Result<(), SchemaFault> {
    let schema = &SCHEMA["properties"][name];
    assert!(schema.is_object(), "`{name}` is a member of the schema");
    check_at(&mut Place(vec![name.to_owned()]), schema, value)
}

/// Where in a value: names of members, and places in lists.
struct Place(Vec<String>);

impl Place {
    fn fault(&self, problem: String) -> SchemaFault {
        SchemaFault { place: self.to_string(), problem }
    }

    fn within(
        &mut self,
        step: String,
        schema: &'static Value,
        value: &Value,
    ) -> Result<(), SchemaFault> {
        self.0.push(step);
        check_at(self, schema, value)?;
        self.0.pop();
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| f.write_str(step))
    }
}

fn check_at(place: &mut Place, schema: &'static Value, value: &Value) -> Result<(), SchemaFault> {
    let schema = resolved(schema);
    if DEPTH_MAX < place.0.len() {
        return Err(place.fault("is nested too deep".to_owned()));
    }
    check_type(place, &schema["type"], value)?;
    check_limits(place, schema, value)?;
    match value {
        Value::Object(members) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().expect("names are texts");
                if !members.contains_key(name) {
                    return Err(place.fault(format!("has no `{name}`")));
                }
            }
            for (name, member) in members {
                let known = schema["properties"].get(name).or(schema.get("additionalProperties"));
                let Some(known) = known else { continue };
                place.within(format!(".{name}"), known, member)?;
            }
        }
        Value::Array(items) => {
            let Some(each) = schema.get("items") else { return Ok(()) };
            for (index, item) in items.iter().enumerate() {
                place.within(format!("[{index}]"), each, item)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The schema that a reference names; references of the schema name no other reference.
fn resolved(schema: &'static Value) -> &'static Value {
    match schema["$ref"].as_str() {
        Some(path) => {
            SCHEMA.pointer(path.trim_start_matches('#')).expect("a test follows each reference")
        }
        None => schema,
    }
}

fn check_type(place: &Place, wanted: &Value, value: &Value) -> Result<(), SchemaFault> {
    let words: Vec<&str> = match wanted {
        Value::String(word) => vec![word],
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
        _ => return Ok(()),
    };
    if words.iter().any(|word| is_of_type(value, word)) {
        return Ok(());
    }
    let expected: Vec<&str> = words.iter().map(|word| shown(word)).collect();
    Err(place.fault(format!("is {}, expected {}", kind(value), expected.join(" or "))))
}

fn is_of_type(value: &Value, word: &str) -> bool {
    match word {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    }
}

fn shown(word: &str) -> &'static str {
    match word {
        "object" => "an object",
        "array" => "a list",
        "string" => "a text",
        "boolean" => "true or false",
        "null" => "null",
        "number" => "a number",
        _ => "a whole number",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "an object",
        Value::Array(_) => "a list",
        Value::String(_) => "a text",
        Value::Bool(_) => "true or false",
        Value::Null => "null",
        Value::Number(_) => "a number",
    }
}

fn check_limits(place: &Place, schema: &Value, value: &Value) -> Result<(), SchemaFault> {
    let limit = |word: &str| schema[word].as_u64();
    let count = match value {
        Value::Object(members) => {
            limit("maxProperties").map(|most| (members.len(), most, "members"))
        }
        Value::Array(items) => limit("maxItems").map(|most| (items.len(), most, "items")),
        Value::String(text) => {
            limit("maxLength").map(|most| (text.chars().count(), most, "characters"))
        }
        _ => None,
    };
    if let Some((count, most, what)) = count.filter(|(count, most, _)| *most < *count as u64) {
        return Err(place.fault(format!("has {count} {what}, at most {most}")));
    }
    let least = schema["minimum"].as_f64().zip(value.as_f64());
    if let Some((least, found)) = least.filter(|(least, found)| found < least) {
        return Err(place.fault(format!("is {found}, at least {least}")));
    }
    if schema["format"] == "date-time"
        && let Some(text) = value.as_str()
        && let Err(error) = text.parse::<jiff::Timestamp>()
    {
        return Err(place.fault(format!("is no time such as 2026-06-01T12:00:00Z: {error}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::metadata::DECLARABLE;
    use serde_json::json;

    /// Words that say something to people only, or that `check_at` and its helpers know.
    const KNOWN: [&str; 12] = [
        "$ref",
        "additionalProperties",
        "description",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minimum",
        "properties",
        "required",
        "type",
    ];

    fn each_word(schema: &'static Value, hear: &mut dyn FnMut(&str)) {
        let schema = resolved(schema);
        for (word, value) in schema.as_object().expect("a schema is an object") {
            hear(word);
            match word.as_str() {
                "properties" => {
                    value.as_object().unwrap().values().for_each(|it| each_word(it, hear))
                }
                "items" | "additionalProperties" => each_word(value, hear),
                _ => {}
            }
        }
    }

    #[test]
    fn the_schema_uses_no_word_that_is_not_checked() {
        for name in DECLARABLE {
            each_word(&SCHEMA["properties"][name], &mut |word| {
                assert!(KNOWN.contains(&word), "{name}: {word}");
            });
        }
    }

    #[test]
    fn a_fault_says_where_it_is_and_what_was_expected() {
        let check = |name: &str, value: Value, expected: &str| {
            let found = check(name, &value).map_err(|fault| fault.to_string());
            assert_eq!(found.err().unwrap_or_default(), expected, "{name} {value}");
        };
        check("source", json!({"dirty": true, "commit": "ab", "more": [1]}), "");
        check(
            "source",
            json!({"dirty": "yes"}),
            "`source.dirty` is a text, expected true or false",
        );
        check("source", json!("here"), "`source` is a text, expected an object");
        check(
            "datasets",
            json!([{"name": "a"}, {"rows": 1.5}]),
            "`datasets[1].rows` is a number, expected a whole number",
        );
        check("datasets", json!([{"rows": -1}]), "`datasets[0].rows` is -1, at least 0");
        check("datasets", json!([7]), "`datasets[0]` is a number, expected an object");
        check(
            "interface",
            json!({"inputs": [{"name": "x"}]}),
            "`interface.inputs[0]` has no `dtype`",
        );
        let port = json!({"name": "x", "dtype": "f32", "shape": [1, "n", null]});
        check("interface", json!({"inputs": [port]}), "");
        check(
            "environment",
            json!({"packages": {"numpy": 2}}),
            "`environment.packages.numpy` is a number, expected a text",
        );
        check(
            "environment",
            json!({"os": "x".repeat(5000)}),
            "`environment.os` has 5000 characters, at most 4096",
        );
        check(
            "environment",
            json!({"gpu": 1}),
            "`environment.gpu` is a number, expected a list or an object or a text",
        );
        assert!(super::check("run", &json!({"started": "today"})).is_err());
        check("run", json!({"started": "2026-06-01T12:00:00Z", "exit_code": 0}), "");
    }
}
