//! JSON and YAML as programs write them, within limits.

use serde_json::Value;

/// Longest file that is read, in bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Scalars, lists and objects of one YAML document.
const YAML_NODE_COUNT_MAX: usize = 200_000;
/// Lists and objects within each other.
const NESTING_MAX: usize = 64;
/// Parts of a YAML document that stand for others, all repetitions counted: against documents that grow
/// without end.
const YAML_REPEAT_COUNT_MAX: usize = 20_000;

/// Parses JSON. What Python writes for numbers that are none is `null`.
///
/// # Errors
/// Why it does not parse.
pub fn json(bytes: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        Err(error) => match serde_json::from_slice(&without_non_numbers(bytes)) {
            Ok(value) => Ok(value),
            Err(_same) => Err(format!("it is not JSON: {error}")),
        },
    }
}

/// The same with `null` for `NaN`, `Infinity` and `-Infinity` outside texts, which are no JSON.
fn without_non_numbers(bytes: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut fixed = Vec::with_capacity(bytes.len());
    let (mut rest, mut in_text) = (bytes, false);
    while let Some((&byte, after)) = rest.split_first() {
        let word = WORDS.iter().find(|word| !in_text && rest.starts_with(word));
        if let Some(word) = word {
            fixed.extend_from_slice(b"null");
            rest = &rest[word.len()..];
            continue;
        }
        fixed.push(byte);
        rest = after;
        match byte {
            b'"' => in_text = !in_text,
            b'\\' if in_text => {
                if let Some((&escaped, after)) = rest.split_first() {
                    fixed.push(escaped);
                    rest = after;
                }
            }
            _ => {}
        }
    }
    fixed
}

/// Parses YAML to the values that JSON has.
///
/// # Errors
/// Why it does not parse, or is too much.
pub fn yaml(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let mut options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: YAML_NODE_COUNT_MAX,
            max_depth: NESTING_MAX,
            max_recorded_anchor_events: YAML_NODE_COUNT_MAX,
        },
        // `null` in JSON, as what Python writes for them there.
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = YAML_REPEAT_COUNT_MAX;
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| format!("it is not YAML that is read here: {}", first_line(&error)))
}

fn first_line(error: &serde_saphyr::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_of_python_is_read() {
        let check = |text: &str, expected: Value| assert_eq!(json(text.as_bytes()), Ok(expected));
        check("{\"a\": NaN, \"b\": [-Infinity, 1]}", json!({"a": null, "b": [null, 1]}));
        check("{\"NaN\": \"a \\\" NaN\", \"b\": NaN}", json!({"NaN": "a \" NaN", "b": null}));
        assert!(json(b"{\"a\": ").unwrap_err().starts_with("it is not JSON: EOF"));
        assert!(json(b"\xff").is_err() && json(b"NaNNaN").is_err() && json(b"\"\\").is_err());
        assert!(json("[".repeat(10_000).as_bytes()).is_err());
    }

    #[test]
    fn yaml_is_read_and_bombs_are_not() {
        let text = "lr: 0.1\nlayers: [1, 2]\nname: x\nnone: null\n3: three\nbad: .nan\ninner: &a {b: yes}\nagain: *a\n";
        let read = yaml(text.as_bytes()).unwrap();
        assert_eq!((&read["lr"], &read["layers"]), (&json!(0.1), &json!([1, 2])));
        assert_eq!((&read["name"], &read["3"]), (&json!("x"), &json!("three")));
        assert_eq!((&read["none"], &read["bad"]), (&Value::Null, &Value::Null));
        assert_eq!(read["again"], read["inner"]);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..20 {
            let last = level - 1;
            let list = vec![format!("*a{last}"); 9].join(", ");
            bomb += &format!("a{level}: &a{level} [{list}]\n");
        }
        for hostile in
            [bomb.as_str(), &"[".repeat(100_000), &"- ".repeat(100_000), "a: *b", "a: [", "\u{0}"]
        {
            let why = yaml(hostile.as_bytes()).unwrap_err();
            assert!(why.starts_with("it is not YAML") && why.len() < 400, "{why}");
        }
        assert!(yaml(b"\xff").is_err());
    }
}
