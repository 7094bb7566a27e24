//! `metrics.json`, `params.json`, `params.yaml`, and what the Trainer of Hugging Face leaves.

use serde_json::{Map, Value};

use super::document::{json, yaml};
use super::found::Found;

/// Figures of an evaluation that tell of the machine.
const TIMINGS: [&str; 3] = ["runtime", "samples_per_second", "steps_per_second"];

/// An object; nothing else is one of these files.
pub(super) fn object(value: Value) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err("it is no object".to_owned()),
    }
}

pub(super) fn metrics(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    put_all("metrics", json(bytes)?, found)
}

pub(super) fn params_json(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    put_all("params", json(bytes)?, found)
}

pub(super) fn params_yaml(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    put_all("params", yaml(bytes)?, found)
}

fn put_all(member: &str, value: Value, found: &mut Found) -> Result<(), String> {
    object(value)?.into_iter().for_each(|(key, value)| found.put(member, &key, value));
    Ok(())
}

/// `trainer_state.json`: the last evaluation, and how the training went.
pub(super) fn trainer_state(bytes: &[u8], found: &mut Found) -> Result<(), String> {
    let state = object(json(bytes)?)?;
    let history = state.get("log_history").and_then(Value::as_array);
    let entries = || history.into_iter().flatten().rev().filter_map(Value::as_object);
    let evaluation = entries().find(|entry| entry.keys().any(|key| key.starts_with("eval_")));
    for (key, value) in evaluation.into_iter().flatten() {
        let figure = key.strip_prefix("eval_").filter(|rest| !TIMINGS.contains(rest));
        if figure.is_some() && value.is_number() {
            found.put("metrics", key, value.clone());
        }
    }
    let summary = entries().find(|entry| entry.contains_key("train_loss"));
    let of_summary = |key: &str| summary.and_then(|entry| entry.get(key)).cloned();
    found.put("metrics", "train_loss", of_summary("train_loss").unwrap_or_default());
    let duration = of_summary("train_runtime").filter(Value::is_number);
    found.put("run", "duration_s", duration.unwrap_or_default());
    let of_state = |key: &str| state.get(key).cloned().unwrap_or_default();
    for key in ["best_metric", "epoch", "global_step"] {
        found.put("metrics", key, of_state(key));
    }
    for key in ["max_steps", "num_train_epochs", "train_batch_size"] {
        found.put("params", key, of_state(key));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_last_evaluation_of_a_trainer_counts() {
        let state = json!({
            "best_metric": 0.5, "epoch": 2.0, "global_step": 20, "max_steps": 20, "num_train_epochs": 2,
            "log_history": [
                {"loss": 1.0, "step": 5}, {"eval_loss": 0.9, "step": 10},
                {"eval_loss": 0.5, "eval_f1": 0.8, "eval_runtime": 3.0, "step": 20},
                {"train_loss": 0.7, "train_runtime": 12.5, "step": 20},
            ],
        });
        let mut found = Found::default();
        trainer_state(state.to_string().as_bytes(), &mut found).unwrap();
        let expected = json!({
            "metrics": {"best_metric": 0.5, "epoch": 2.0, "eval_f1": 0.8, "eval_loss": 0.5,
                        "global_step": 20, "train_loss": 0.7},
            "params": {"max_steps": 20, "num_train_epochs": 2}, "run": {"duration_s": 12.5},
        });
        assert_eq!(json!(found.members), expected);
    }

    #[test]
    fn params_are_read_from_both_forms() {
        let mut found = Found::default();
        params_json(b"{\"lr\": 0.1, \"api_key\": \"verysecret\"}", &mut found).unwrap();
        params_yaml(b"lr: 0.2\ntrain:\n  epochs: 3\n", &mut found).unwrap();
        let expected =
            json!({"params": {"lr": 0.1, "api_key": "verysecret", "train": {"epochs": 3}}});
        assert_eq!(json!(found.members), expected);
        assert_eq!(params_yaml(b"- a", &mut found), Err("it is no object".to_owned()));
    }
}
