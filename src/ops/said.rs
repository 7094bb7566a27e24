//! What is said of how a version was made: declared by whoever seals it, captured by the program that they
//! seal it with, found in its files; and whether the same was said before.
//!
//! What is declared counts before what is captured, and that before what is found.

use serde_json::{Map, Value, json};

use super::{MESSAGE_BYTES_MAX, OpsError, Provenance, SnapshotOptions};
use crate::capture::{Found, redact};
use crate::format::ids::TreeDigest;
use crate::format::metadata::{CAPTURE, DECLARABLE};
use crate::format::{canonical, schema};

/// Most that is declared and captured of one version, in bytes of canonical JSON.
const SAID_BYTES_MAX: usize = 1 << 20;
/// Members that are always there, empty where there is nothing to say: objects, and lists.
const OBJECTS: [&str; 3] = ["labels", "metrics", "params"];
const LISTS: [&str; 2] = ["datasets", "parents"];
/// How it came about that something was made: another time it is another way, and the same all the same.
const CIRCUMSTANCES: [&str; 2] = ["environment", "run"];
/// What a version should say: where it does not, it says so.
const EXPECTED: [&str; 9] = [
    "datasets",
    "environment",
    "environment.packages",
    "interface",
    "metrics",
    "params",
    "run",
    "source",
    "source.commit",
];

/// Members by their names.
type Members = Map<String, Value>;

/// Checks what is declared and captured.
///
/// # Errors
/// `Option` that names the member.
pub(super) fn check(options: &SnapshotOptions) -> Result<(), OpsError> {
    if MESSAGE_BYTES_MAX < options.message.len() {
        let why = format!("{} bytes, at most {MESSAGE_BYTES_MAX}", options.message.len());
        return Err(OpsError::Option { what: "the message", why });
    }
    let wrong = |why| OpsError::Option { what: "the metadata of the version", why };
    let (mut bytes_all, mut largest) = (0, (0, String::new()));
    for (name, value) in declared(options).into_iter().chain(captured(options)) {
        if !DECLARABLE.contains(&name.as_str()) {
            return Err(wrong(format!("`{name}` is no member that can be given")));
        }
        schema::check(&name, &value).map_err(|fault| wrong(fault.to_string()))?;
        let bytes = canonical::encode(&value).len();
        bytes_all += bytes;
        largest = largest.max((bytes, name));
    }
    let (bytes, name) = largest;
    if SAID_BYTES_MAX < bytes_all {
        let why = format!("{bytes_all} bytes, at most {SAID_BYTES_MAX}; `{name}` has {bytes}");
        return Err(wrong(why));
    }
    Ok(())
}

/// What the caller declared: those of [`DECLARABLE`] that say something.
fn declared(options: &SnapshotOptions) -> Members {
    let Provenance { source, environment, run, interface, parents } = &*options.provenance;
    let members = [
        ("datasets", with_names(&options.datasets)),
        ("environment", without_nulls(environment)),
        ("interface", without_nulls(interface)),
        ("labels", json!(options.labels)),
        ("metrics", json!(options.metrics)),
        ("params", json!(options.params)),
        ("parents", with_names(parents)),
        ("run", without_nulls(run)),
        ("source", without_nulls(source)),
    ];
    let said = members.into_iter().filter(|(_, value)| !is_empty(value));
    said.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What was captured, in the same form.
fn captured(options: &SnapshotOptions) -> Members {
    let members = options.captured.iter().map(|(name, value)| match value {
        Value::Array(list) => (name.clone(), with_names(list)),
        other => (name.clone(), without_nulls(other)),
    });
    members.filter(|(_, value)| !is_empty(value)).collect()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// A list of objects; a text is one that has it as its name.
fn with_names(list: &[Value]) -> Value {
    let item = |item: &Value| match item {
        Value::String(name) => json!({ "name": name }),
        other => without_nulls(other),
    };
    list.iter().map(item).collect()
}

/// An object without the members that say nothing.
fn without_nulls(value: &Value) -> Value {
    let Value::Object(members) = value else { return value.clone() };
    let said = members.iter().filter(|(_, value)| !value.is_null());
    said.map(|(name, value)| (name.clone(), value.clone())).collect::<Members>().into()
}

/// Equal for snapshots of the same content of which the same is said, circumstances left out. What is found
/// in the files follows from the content.
pub(super) fn fingerprint(
    digest: TreeDigest,
    options: &SnapshotOptions,
    user: Option<&Members>,
) -> TreeDigest {
    let mut said = declared(options);
    add(&mut said, &captured(options));
    said.retain(|name, _| !CIRCUMSTANCES.contains(&name.as_str()));
    // What the first releases had was always there; later members only where they say something.
    for name in OBJECTS {
        said.entry(name).or_insert(json!({}));
    }
    said.entry("datasets").or_insert(json!([]));
    said.insert("message".to_owned(), json!(options.message));
    said.insert("user".to_owned(), json!(user));
    let text = canonical::encode(&json!({ "declared": said, "digest": digest }));
    TreeDigest(blake3::derive_key("modelfs fingerprint v1", text.as_bytes()))
}

/// All that is said, and which is which.
pub(super) fn members(options: &SnapshotOptions, found: &Found) -> Value {
    let mut members = declared(options);
    let names: Vec<String> = members.keys().cloned().collect();
    let mut auto = add(&mut members, &captured(options));
    auto.extend(add(&mut members, &found.members));
    auto.sort();
    auto.dedup();
    let missing = missing(&members);
    // Whoever said it: what is written down once cannot be taken back.
    members.iter_mut().for_each(|(name, value)| redact::hide(name, value));
    let mut capture = json!({ "auto": auto, "declared": names, "missing": missing });
    if !found.notes.is_empty() {
        capture["notes"] = json!(found.notes);
    }
    for name in OBJECTS {
        members.entry(name).or_insert(json!({}));
    }
    for name in LISTS {
        members.entry(name).or_insert(json!([]));
    }
    members.insert(CAPTURE.to_owned(), capture);
    Value::Object(members)
}

/// Adds what is there of `more`; the names of the members that it changed.
fn add(members: &mut Members, more: &Members) -> Vec<String> {
    let mut changed = Vec::new();
    for (name, value) in more {
        let is_new = match members.get_mut(name) {
            None => members.insert(name.clone(), value.clone()).is_none(),
            // Inputs of the one and outputs of the other would be nobody's.
            Some(_) if name == "interface" => false,
            Some(member) => merge(member, value),
        };
        if is_new {
            changed.push(name.clone());
        }
    }
    changed
}

/// Adds to a value what another has more, where it has something of its own that counts; whether that was
/// anything.
fn merge(value: &mut Value, more: &Value) -> bool {
    match (value, more) {
        (Value::Object(members), Value::Object(more)) => {
            let mut is_changed = false;
            for (name, value) in more {
                is_changed |= match members.get_mut(name) {
                    Some(inner) => merge(inner, value),
                    None => members.insert(name.clone(), value.clone()).is_none(),
                };
            }
            is_changed
        }
        (Value::Array(items), Value::Array(more)) => {
            let is_there = |item: &Value| {
                let same = |it: &&Value| it["name"].is_string() && it["name"] == item["name"];
                items.contains(item) || items.iter().any(|it| same(&it))
            };
            let new: Vec<Value> = more.iter().filter(|item| !is_there(item)).cloned().collect();
            let is_changed = !new.is_empty();
            items.extend(new);
            is_changed
        }
        _ => false,
    }
}

/// What a version should say and does not. Part of a member counts where the member is there.
fn missing(members: &Members) -> Vec<&'static str> {
    let is_missing = |path: &&str| match path.split_once('.') {
        None => members.get(*path).is_none_or(is_empty),
        Some((member, part)) => members.get(member).is_some_and(|it| is_empty(&it[part])),
    };
    EXPECTED.into_iter().filter(is_missing).collect()
}

/// What was found, as far as it is in the form of the schema.
pub(super) fn vetted(mut found: Found) -> Found {
    for (name, value) in std::mem::take(&mut found.members) {
        match schema::check(&name, &value) {
            Ok(()) => drop(found.members.insert(name, value)),
            Err(fault) => found.note(format!("what was found of `{name}` was not taken: {fault}")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Source;

    fn options(provenance: Value, captured: Value) -> SnapshotOptions {
        SnapshotOptions {
            model: "churn".parse().unwrap(),
            source: Source::Draft { sub: None },
            message: String::new(),
            metrics: Default::default(),
            params: Default::default(),
            labels: Default::default(),
            datasets: vec![json!({"name": "a", "rows": 1}), json!({"uri": "x"})],
            provenance: Box::new(serde_json::from_value(provenance).unwrap()),
            captured: serde_json::from_value(captured).unwrap(),
            alias: None,
        }
    }

    fn captured_by_a_run() -> Value {
        json!({
            "datasets": [{"name": "a", "rows": 2}, {"uri": "y"}, {"uri": "x"}],
            "source": {"commit": "cc", "branch": "main"},
            "environment": {"packages": {"numpy": "2.0"}}, "run": {"exit_code": 0},
        })
    }

    #[test]
    fn what_is_declared_counts_before_what_is_captured_and_that_before_what_is_found() {
        let declared = json!({"source": {"commit": "dd"}, "interface": {"inputs": []}});
        let options = options(declared, captured_by_a_run());
        check(&options).unwrap();
        let mut found = Found::default();
        found.put_within("environment", "packages", "numpy", json!("1.0"));
        found.put_within("environment", "packages", "torch", json!("2.1"));
        found.set("interface", json!({"outputs": []}));
        let all = members(&options, &found);
        assert_eq!(all["source"], json!({"commit": "dd", "branch": "main"}));
        assert_eq!(all["datasets"], json!([{"name": "a", "rows": 1}, {"uri": "x"}, {"uri": "y"}]));
        assert_eq!(all["environment"]["packages"], json!({"numpy": "2.0", "torch": "2.1"}));
        assert_eq!(all["interface"], json!({"inputs": []}));
        let auto = json!(["datasets", "environment", "run", "source"]);
        assert_eq!(all["capture"]["auto"], auto);
        assert_eq!(all["capture"]["declared"], json!(["datasets", "interface", "source"]));
        assert_eq!(all["capture"]["missing"], json!(["metrics", "params"]));
    }

    #[test]
    fn circumstances_make_no_other_version_and_all_else_does() {
        let of = |provenance, captured| {
            fingerprint(TreeDigest::of(b"x"), &options(provenance, captured), None)
        };
        let plain = of(json!({}), json!({}));
        assert_eq!(
            of(json!({"run": {"exit_code": 1}}), json!({"environment": {"os": "x"}})),
            plain
        );
        assert_ne!(of(json!({}), json!({"source": {"commit": "a"}})), plain);
        assert_eq!(
            of(json!({}), json!({"source": {"commit": "a"}})),
            of(json!({"source": {"commit": "a"}}), json!({})),
        );
        assert_ne!(of(json!({"parents": ["a"]}), json!({})), plain);
    }

    #[test]
    fn what_is_too_much_or_unknown_is_refused() {
        let refused = |captured| check(&options(json!({}), captured)).unwrap_err().to_string();
        assert!(refused(json!({"model": "x"})).contains("`model` is no member that can be given"));
        let long: Members = (0..9_000).map(|i| (i.to_string(), json!("x".repeat(200)))).collect();
        let why = refused(json!({"source": {"commit": "a"}, "environment": {"packages": long}}));
        assert!(why.contains("at most 1048576; `environment` has"), "{why}");
    }
}
