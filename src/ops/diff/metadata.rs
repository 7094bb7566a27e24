//! What changed in what versions say of themselves: members of `metadata.json`, one by one.
//!
//! Nothing is asked of the members but that they are JSON: versions were sealed by many releases.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::report::{LISTED_MAX, MetadataChanges, ValueChange};

/// Values by their name.
pub(in super::super) type Named = BTreeMap<String, Value>;

/// Compares two metadata, their lists of files left out.
pub(super) fn compare(before: &Value, after: &Value) -> MetadataChanges {
    let changed = |of: fn(&Value) -> Named| changes(of(before), of(after), Keep::Changed);
    MetadataChanges {
        metrics: changes(flat(&before["metrics"]), flat(&after["metrics"]), Keep::All),
        params: changed(|it| flat(&it["params"])),
        labels: changed(|it| flat(&it["labels"])),
        datasets: changed(|it| by_name(&it["datasets"])),
        packages: changed(|it| packages(&it["environment"]["packages"])),
        source: changed(|it| flat(&it["source"])),
        environment: changed(|it| flat(&without_packages(&it["environment"]))),
        interface: changed(|it| flat(&it["interface"])),
        user: changed(|it| flat(&it["user"])),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Keep {
    All,
    Changed,
}

/// Both sides of each name.
fn changes(mut before: Named, after: Named, keep: Keep) -> Vec<ValueChange> {
    let mut found: BTreeMap<String, (Option<Value>, Option<Value>)> = BTreeMap::new();
    for (key, value) in after {
        found.insert(key.clone(), (before.remove(&key), Some(value)));
    }
    found.extend(before.into_iter().map(|(key, value)| (key, (Some(value), None))));
    let some = found.into_iter().filter(|(_, (old, new))| keep == Keep::All || old != new);
    some.map(|(key, (before, after))| ValueChange { key, before, after }).take(LISTED_MAX).collect()
}

/// What is not the same.
pub(super) fn changes_of(before: Named, after: Named) -> Vec<ValueChange> {
    changes(before, after, Keep::Changed)
}

/// An object's members, those of objects within it by names with dots. What is null is not there.
pub(in super::super) fn flat(value: &Value) -> Named {
    let mut found = Named::new();
    // Canonical JSON is not nested deeper than its parser goes.
    let mut open: Vec<(String, &Map<String, Value>)> = Vec::new();
    open.extend(value.as_object().map(|object| (String::new(), object)));
    while let Some((prefix, object)) = open.pop() {
        for (key, value) in object {
            let key = format!("{prefix}{key}");
            match value {
                Value::Null => {}
                Value::Object(inner) if !inner.is_empty() => open.push((format!("{key}."), inner)),
                value => drop(found.insert(key, value.clone())),
            }
        }
    }
    found
}

/// The items of a list by their member `name`, the second of a name as `name#2`; one without a name by
/// its whole text.
fn by_name(list: &Value) -> Named {
    let mut found = Named::new();
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for item in list.as_array().into_iter().flatten() {
        let name = item["name"].as_str().map_or_else(|| item.to_string(), str::to_owned);
        let count = seen.entry(name.clone()).or_default();
        *count += 1;
        let key = if *count == 1 { name } else { format!("{name}#{count}") };
        found.insert(key, item.clone());
    }
    found
}

/// Versions by the names of packages: of an object, a list of objects, or lines like `numpy==2.0`.
fn packages(value: &Value) -> Named {
    let Some(list) = value.as_array() else { return flat(value) };
    let package = |item: &Value| match item {
        Value::String(line) => {
            let (name, version) = line.split_once("==").unwrap_or((line, ""));
            Some((name.to_owned(), Value::from(version)))
        }
        item => Some((item["name"].as_str()?.to_owned(), item["version"].clone())),
    };
    list.iter().filter_map(package).collect()
}

fn without_packages(environment: &Value) -> Value {
    let mut rest = environment.clone();
    if let Some(object) = rest.as_object_mut() {
        object.remove("packages");
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(changes: &[ValueChange]) -> Vec<String> {
        let text = |value: &Option<Value>| value.as_ref().map_or("-".into(), Value::to_string);
        let line =
            |it: &ValueChange| format!("{} {} {}", it.key, text(&it.before), text(&it.after));
        changes.iter().map(line).collect()
    }

    #[test]
    fn members_are_compared_one_by_one() {
        let before = json!({
            "metrics": {"auc": 0.9, "f1": 0.5}, "params": {"opt": {"lr": 0.1, "beta": [1, 2]}, "depth": 6},
            "labels": {"team": "risk", "old": null}, "source": {"commit": "aa", "dirty": false},
            "environment": {"python": "3.11", "packages": ["numpy==1.0", "torch==2"]},
        });
        let after = json!({
            "metrics": {"auc": 0.95, "f1": 0.5}, "params": {"opt": {"lr": 0.2, "beta": [1, 2]}, "seed": 1},
            "labels": {"team": "risk"}, "source": {"commit": "bb", "dirty": false},
            "environment": {"python": "3.11", "packages": {"numpy": "2.0", "torch": "2"}},
        });
        let found = compare(&before, &after);
        assert_eq!(lines(&found.metrics), ["auc 0.9 0.95", "f1 0.5 0.5"]);
        assert_eq!(lines(&found.params), ["depth 6 -", "opt.lr 0.1 0.2", "seed - 1"]);
        assert!(found.labels.is_empty(), "{found:?}");
        assert_eq!(lines(&found.source), ["commit \"aa\" \"bb\""]);
        assert_eq!(lines(&found.packages), ["numpy \"1.0\" \"2.0\""]);
        assert!(found.environment.is_empty(), "{found:?}");
    }

    #[test]
    fn data_sets_are_told_by_their_names() {
        let before =
            json!({"datasets": [{"name": "train", "rows": 1}, {"name": "test", "rows": 2}, "x"]});
        let after = json!({"datasets": [{"name": "train", "rows": 3}, {"name": "test", "rows": 2},
                                        {"name": "test", "rows": 9}, "x"]});
        let found = compare(&before, &after).datasets;
        let keys: Vec<_> = found.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["test#2", "train"]);
        assert_eq!(found[1].after.as_ref().unwrap()["rows"], 3);
    }

    #[test]
    fn metadata_of_any_shape_is_compared() {
        for strange in
            [json!(null), json!([]), json!({"metrics": 7, "datasets": {}, "environment": "x"})]
        {
            assert_eq!(compare(&strange, &json!({})), MetadataChanges::default(), "{strange}");
        }
    }
}
