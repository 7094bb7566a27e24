//! `dvc.lock`: the data that a pipeline of DVC read, as it was, and the steps that made it.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::document::yaml;
use super::found::Found;
use super::trainers::object;
use super::url;

/// Endings of files that are code: what a stage depends on and is no data.
const CODE: [&str; 9] = ["ipynb", "jl", "js", "pl", "py", "r", "R", "sh", "sql"];

pub(super) fn read(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    let lock = object(yaml(bytes)?)?;
    let stages = lock.get("stages").cloned().unwrap_or_default();
    let Value::Object(stages) = stages else { return Err("it has no `stages`".to_owned()) };
    let makers = makers(&stages);
    for stage in stages.values() {
        for dependency in items(&stage["deps"]) {
            let Some(path) = dependency["path"].as_str().filter(|path| !is_code(path)) else {
                continue;
            };
            let made_by = makers.get(path).map(|(name, stage)| step(name, stage));
            found.push("datasets", dataset(path, dependency, made_by));
        }
        for (_, params) in stage["params"].as_object().into_iter().flatten() {
            for (key, value) in params.as_object().into_iter().flatten() {
                found.put("params", key, value.clone());
            }
        }
    }
    Ok(())
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn is_code(path: &str) -> bool {
    let extension = Path::new(path).extension().and_then(|it| it.to_str());
    extension.is_some_and(|it| CODE.contains(&it))
}

/// Which stage makes a file.
fn makers(stages: &Map<String, Value>) -> HashMap<&str, (&str, &Value)> {
    let outputs = stages.iter().flat_map(|(name, stage)| {
        let paths = items(&stage["outs"]).filter_map(|output| output["path"].as_str());
        paths.map(move |path| (path, (name.as_str(), stage)))
    });
    outputs.collect()
}

fn step(name: &str, stage: &Value) -> Value {
    // One command, or a list of them.
    let command = match &stage["cmd"] {
        Value::String(command) => command.clone(),
        list => items(list).filter_map(Value::as_str).collect::<Vec<_>>().join("; "),
    };
    json!({"name": name, "command": command})
}

fn dataset(path: &str, dependency: &Value, made_by: Option<Value>) -> Value {
    let mut dataset = Map::from_iter([("name".to_owned(), json!(url::without_credentials(path)))]);
    let mut add = |name: &str, value: Value| dataset.insert(name.to_owned(), value);
    let algorithm = dependency["hash"].as_str().unwrap_or("md5");
    if let Some(digest) = dependency[algorithm].as_str() {
        add("digest", json!(format!("{algorithm}:{digest}")));
    }
    if let Some(bytes) = dependency["size"].as_u64() {
        add("bytes", json!(bytes));
    }
    if let Some(step) = made_by {
        add("preprocessing", json!([step]));
    }
    Value::Object(dataset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_tells_its_data_steps_and_params() {
        let text = "
schema: '2.0'
stages:
  prepare:
    cmd: python prepare.py --token abc
    deps:
    - {path: data/raw.csv, hash: md5, md5: aa11, size: 100}
    - {path: prepare.py, hash: md5, md5: bb22, size: 10}
    outs:
    - {path: data/clean, hash: md5, md5: cc33.dir, size: 90, nfiles: 2}
  train:
    cmd: python train.py
    deps:
    - {path: data/clean, hash: md5, md5: cc33.dir, size: 90, nfiles: 2}
    params:
      params.yaml: {train.lr: 0.1}
";
        let mut found = Found::default();
        read(text.as_bytes(), &mut found).unwrap();
        let step = json!({"name": "prepare", "command": "python prepare.py --token abc"});
        let expected = json!({
            "datasets": [
                {"name": "data/raw.csv", "digest": "md5:aa11", "bytes": 100},
                {"name": "data/clean", "digest": "md5:cc33.dir", "bytes": 90, "preprocessing": [step]},
            ],
            "params": {"train.lr": 0.1},
        });
        assert_eq!(json!(found.members), expected);
        assert!(read(b"stages: 7", &mut found).is_err());
    }
}
