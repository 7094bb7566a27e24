//! `MLmodel`, which MLflow writes beside a model: its signature, the run, what it needs.

use serde_json::{Value, json};

use super::document::{json as parse_json, yaml};
use super::found::Found;
use super::trainers::object;

/// Names of packages by the flavour that names their version, where the two differ.
const PACKAGES: [(&str, &str); 2] = [("pytorch", "torch"), ("sklearn", "scikit-learn")];

pub(super) fn read(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    let model = object(yaml(bytes)?)?;
    let of = |key: &str| model.get(key).cloned().unwrap_or_default();
    found.put("run", "mlflow_run_id", of("run_id"));
    found.put("labels", "mlflow_model_uuid", of("model_uuid"));
    if let Some(version) = text_of(&of("mlflow_version")) {
        found.put_within("environment", "packages", "mlflow", json!(version));
    }
    let flavors = of("flavors");
    let flavors = flavors.as_object();
    if let Some(flavors) = flavors {
        found.put("labels", "mlflow_flavors", json!(flavors.keys().collect::<Vec<_>>()));
    }
    for (flavor, members) in flavors.into_iter().flatten() {
        for (key, version) in members.as_object().into_iter().flatten() {
            let named = key.strip_suffix("_version").zip(text_of(version));
            match named {
                Some(("python", version)) => found.put("environment", "python", json!(version)),
                Some((name, version)) if name == flavor => {
                    let known = PACKAGES.iter().find(|(from, _)| *from == name);
                    let name = known.map_or(name, |(_, to)| to);
                    found.put_within("environment", "packages", name, json!(version));
                }
                _ => {}
            }
        }
    }
    if let Some(interface) = interface(&of("signature"))? {
        found.set("interface", interface);
    }
    Ok(())
}

/// A version as a text: YAML takes `3.11` for a number.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Inputs and outputs, which are lists in JSON within YAML.
fn interface(signature: &Value) -> Result<Option<Value>, String> {
    if !signature.is_object() {
        return Ok(None);
    }
    let ports = |side: &str| -> Result<Vec<Value>, String> {
        let Some(text) = signature[side].as_str() else { return Ok(Vec::new()) };
        let list = parse_json(text.as_bytes()).map_err(|why| format!("its `{side}`: {why}"))?;
        Ok(list.as_array().into_iter().flatten().filter_map(port).collect())
    };
    Ok(Some(json!({"inputs": ports("inputs")?, "outputs": ports("outputs")?})))
}

/// A column or a tensor. Nothing has the name that is empty.
fn port(spec: &Value) -> Option<Value> {
    let name = spec["name"].as_str().unwrap_or_default();
    let tensor = &spec["tensor-spec"];
    let Some(dtype) = tensor["dtype"].as_str() else {
        return Some(json!({"name": name, "dtype": spec["type"].as_str()?}));
    };
    let size = |size: &Value| size.as_u64().map_or(Value::Null, Value::from);
    let shape: Vec<Value> = tensor["shape"].as_array()?.iter().map(size).collect();
    Some(json!({"name": name, "dtype": dtype, "shape": shape}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_of_mlflow_tells_its_signature_and_run() {
        let text = "
artifact_path: model
flavors:
  python_function: {loader_module: mlflow.sklearn, python_version: 3.11.7, env: {conda: conda.yaml}}
  sklearn: {sklearn_version: 1.4.0, code: null}
mlflow_version: 2.10.0
model_uuid: 0a1b
run_id: 77aa
signature:
  inputs: '[{\"type\": \"double\", \"name\": \"age\", \"required\": true}]'
  outputs: '[{\"type\": \"tensor\", \"tensor-spec\": {\"dtype\": \"int64\", \"shape\": [-1, 2]}}]'
  params: null
";
        let mut found = Found::default();
        read(text.as_bytes(), &mut found).unwrap();
        let expected = json!({
            "environment": {"packages": {"mlflow": "2.10.0", "scikit-learn": "1.4.0"}, "python": "3.11.7"},
            "labels": {"mlflow_flavors": ["python_function", "sklearn"], "mlflow_model_uuid": "0a1b"},
            "run": {"mlflow_run_id": "77aa"},
            "interface": {"inputs": [{"name": "age", "dtype": "double"}],
                          "outputs": [{"name": "", "dtype": "int64", "shape": [null, 2]}]},
        });
        assert_eq!(json!(found.members), expected);
        let wrong = read(b"signature: {inputs: '{'}", &mut found).unwrap_err();
        assert!(wrong.starts_with("its `inputs`: it is not JSON"), "{wrong}");
    }
}
