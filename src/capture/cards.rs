//! What Hugging Face keeps beside a model: `config.json`, and the front matter of the model card.

use serde_json::{Map, Value, json};

use super::document::{json as parse_json, yaml};
use super::found::Found;
use super::trainers::object;

/// Members of the front matter that are labels.
const LABELS: [&str; 5] = ["language", "library_name", "license", "pipeline_tag", "tags"];

/// `config.json` of transformers; any other file of that name says nothing to us.
pub(super) fn config(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    let config = object(parse_json(bytes)?)?;
    if !config.contains_key("model_type") && !config.contains_key("architectures") {
        return Ok(());
    }
    let of = |key: &str| config.get(key).cloned().unwrap_or_default();
    found.put("labels", "model_type", of("model_type"));
    found.put("labels", "architectures", of("architectures"));
    if let Some(version) = of("transformers_version").as_str() {
        found.put_within("environment", "packages", "transformers", json!(version));
    }
    if let Some(name) = of("_name_or_path").as_str().filter(|name| is_hub_name(name)) {
        found.push("parents", json!({"name": name}));
    }
    Ok(())
}

/// `bert-base-uncased` or `org/model`, and no path of somebody's disk.
fn is_hub_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(plain);
    name.split('/').count() <= 2 && name.split('/').all(part)
}

/// `README.md`: the YAML between its first two lines of three dashes.
pub(super) fn model_card(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    let Some(front) = front_matter(bytes) else { return Ok(()) };
    let card = object(yaml(front)?)?;
    for key in LABELS {
        found.put("labels", key, card.get(key).cloned().unwrap_or_default());
    }
    let texts = |key: &str| {
        let value = card.get(key).cloned().unwrap_or_default();
        let list = if let Value::Array(list) = value { list } else { vec![value] };
        list.into_iter().filter(Value::is_string).map(|name| json!({"name": name}))
    };
    texts("base_model").for_each(|parent| found.push("parents", parent));
    texts("datasets").for_each(|dataset| found.push("datasets", dataset));
    results(&card, found);
    Ok(())
}

/// `model-index`: evaluations that its author wrote down.
fn results(card: &Map<String, Value>, found: &mut Found) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let models = card.get("model-index").map(list).unwrap_or_default();
    let results = models.iter().flat_map(|model| list(&model["results"]));
    for metric in results.flat_map(|result| list(&result["metrics"])) {
        if let Some(name) = metric["name"].as_str().or(metric["type"].as_str()) {
            found.put("metrics", name, metric["value"].clone());
        }
    }
}

fn front_matter(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(b"---\n").or_else(|| bytes.strip_prefix(b"---\r\n"))?;
    let end = rest.windows(4).position(|four| four == b"\n---")?;
    Some(&rest[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_card_tells_parents_data_and_results() {
        let card = "---\nlicense: mit\nbase_model: org/base\ndatasets: [imdb, squad]\ntags: [text]\nmodel-index:\n- name: x\n  \
                    results:\n  - task: {type: text}\n    metrics:\n    - {type: f1, value: 0.8}\n    - {type: f1, name: F1 test, value: 0.7}\n---\n# A model\n---\n";
        let mut found = Found::default();
        model_card(card.as_bytes(), &mut found).unwrap();
        let expected = json!({
            "labels": {"license": "mit", "tags": ["text"]}, "parents": [{"name": "org/base"}],
            "datasets": [{"name": "imdb"}, {"name": "squad"}], "metrics": {"f1": 0.8, "F1 test": 0.7},
        });
        assert_eq!(json!(found.members), expected);
        let mut found = Found::default();
        model_card(b"# No front matter\n", &mut found).unwrap();
        model_card(b"---\nnever closed\n", &mut found).unwrap();
        assert_eq!(found, Found::default());
    }

    #[test]
    fn only_a_config_of_transformers_says_something() {
        let mut found = Found::default();
        config(b"{\"anything\": 1}", &mut found).unwrap();
        assert_eq!(found, Found::default());
        let text = json!({
            "architectures": ["BertModel"], "model_type": "bert", "transformers_version": "4.40.0",
            "_name_or_path": "org/base", "hidden_size": 8,
        });
        config(text.to_string().as_bytes(), &mut found).unwrap();
        let expected = json!({
            "labels": {"architectures": ["BertModel"], "model_type": "bert"},
            "environment": {"packages": {"transformers": "4.40.0"}}, "parents": [{"name": "org/base"}],
        });
        assert_eq!(json!(found.members), expected);
        for name in ["/home/ann/model", "./out", "out/checkpoint/5", "../x", ""] {
            assert!(!is_hub_name(name), "{name}");
        }
    }
}
