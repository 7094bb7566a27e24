//! Canonical JSON: one value has one text, so that a digest of the text is a digest of the value.
//!
//! Object keys in the order of their bytes, no white space, UTF-8 unescaped, numbers as shortest
//! decimals that read back equal. What is parsed here must be in this form to the last byte.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Deepest nesting of a value that is read, as serde_json limits it.
pub const DEPTH_MAX: usize = 128;

/// A text that is not the canonical form of what it says.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    #[error("not JSON of the expected form: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not in canonical form: expected {expected} bytes, found {found} that differ from it")]
    Form { expected: usize, found: usize },
}

/// Encodes `value` in canonical form.
///
/// # Panics
/// When `value` cannot be JSON (a map with keys that are not text): types of ours never are.
pub fn encode<T: Serialize>(value: &T) -> String {
    // Through `Value`, whose objects are sorted maps: a struct's own order does not matter.
    text(&serde_json::to_value(value).expect("our types have text keys and finite numbers"))
}

/// The canonical form of a JSON value.
pub fn text(value: &Value) -> String {
    serde_json::to_string(value).expect("a JSON value is always writable")
}

/// Parses a JSON value and checks that it is in canonical form.
///
/// # Errors
/// As [`parse`].
pub fn parse_value(bytes: &[u8]) -> Result<Value, CanonicalError> {
    let value = serde_json::from_slice(bytes)?;
    check_form(bytes, &text(&value))?;
    Ok(value)
}

/// Parses `text` and checks that it is the canonical form of what was parsed.
pub fn parse<T: Serialize + DeserializeOwned>(text: &[u8]) -> Result<T, CanonicalError> {
    let value: T = serde_json::from_slice(text)?;
    check_form(text, &encode(&value))?;
    Ok(value)
}

fn check_form(found: &[u8], expected: &str) -> Result<(), CanonicalError> {
    if expected.as_bytes() != found {
        return Err(CanonicalError::Form { expected: expected.len(), found: found.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_value_has_one_text() {
        let text = encode(&json!({"b": 1.50, "a": {"z": "é\n", "y": [1, 2]}}));
        assert_eq!(text, "{\"a\":{\"y\":[1,2],\"z\":\"é\\n\"},\"b\":1.5}");
        assert!(parse::<Value>(text.as_bytes()).is_ok());
        for other in ["{\"b\":1,\"a\":2}", "{ }", "[1.0,2]\n", "\"\\u0041\"", "{\"a\":1,\"a\":1}"] {
            assert!(parse::<Value>(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        let text = "[".repeat(1_000_000);
        assert!(parse::<Value>(text.as_bytes()).is_err());
    }
}
