//! A CycloneDX 1.6 bill of materials: the model with its card, its files, and the data that it was made from.

use serde_json::{Map, Value, json};

use super::{Described, DescribedFile};
use crate::format::ids::to_hex;
use crate::inspect::runs_code;

/// Version of this program, which made the document.
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The document. Everything in it comes from the version, its time and serial number too.
pub(super) fn value(described: &Described) -> Value {
    let metadata = &described.metadata;
    let reference = format!("{}/{}", described.model, described.version);
    let data = datasets(metadata);
    let files: Vec<Value> =
        described.files.iter().map(|file| file_component(&reference, file)).collect();
    let needed: Vec<&Value> = files.iter().chain(&data).map(|it| &it["bom-ref"]).collect();
    let dependencies = json!([{ "ref": reference, "dependsOn": needed }]);
    let model = model(described, &reference, &data);
    let mut bom = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial_number(described),
        "version": 1,
        "metadata": {
            "tools": { "components": [
                { "type": "application", "name": "modelfs", "version": OWN_VERSION },
            ] },
            "component": model,
        },
        "components": files,
        "dependencies": dependencies,
    });
    bom["components"].as_array_mut().expect("made as a list").extend(data);
    if let Some(at) = metadata["sealed"]["at"].as_str() {
        bom["metadata"]["timestamp"] = json!(at);
    }
    bom
}

/// A UUID of the kind that says "made of what its maker likes" (version 8): of what the version is.
fn serial_number(described: &Described) -> String {
    let name =
        format!("{}/{}/{}", described.model, described.version, described.metadata["digest"]);
    let digest = blake3::derive_key("modelfs bill of materials v1", name.as_bytes());
    let mut bytes: [u8; 16] = *digest.first_chunk().expect("a digest has 32 bytes");
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = to_hex(&bytes);
    let (a, b, c, d, e) =
        (&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]);
    format!("urn:uuid:{a}-{b}-{c}-{d}-{e}")
}

fn model(described: &Described, reference: &str, data: &[Value]) -> Value {
    let metadata = &described.metadata;
    let mut model = json!({
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": described.model,
        "version": described.version,
        "modelCard": card(metadata, data),
        "properties": properties("modelfs:label:", &metadata["labels"]),
    });
    let digest = json!({ "name": "modelfs:digest", "value": text(&metadata["digest"]) });
    model["properties"].as_array_mut().expect("made as a list").insert(0, digest);
    if let Some(message) = metadata["message"].as_str().filter(|message| !message.is_empty()) {
        model["description"] = json!(message);
    }
    if let Some(user) = metadata["sealed"]["by"]["user"].as_str() {
        model["authors"] = json!([{ "name": user }]);
    }
    if let Some(license) = license(metadata) {
        model["licenses"] = json!([license]);
    }
    let source = &metadata["source"];
    if let Some(remote) = source["remote"].as_str().filter(|remote| !remote.is_empty()) {
        let mut vcs = json!({ "type": "vcs", "url": remote });
        if let Some(commit) = source["commit"].as_str() {
            vcs["comment"] = json!(format!("commit {commit}"));
        }
        model["externalReferences"] = json!([vcs]);
    }
    model
}

/// What a person reads of the model first: data, interface, metrics, parameters.
fn card(metadata: &Value, data: &[Value]) -> Value {
    let mut parameters = Map::new();
    if !data.is_empty() {
        let refs = data.iter().map(|one| json!({ "ref": one["bom-ref"] }));
        parameters.insert("datasets".to_owned(), refs.collect());
    }
    for side in ["inputs", "outputs"] {
        let Some(list) = metadata["interface"][side].as_array() else { continue };
        let formats = list.iter().map(|one| json!({ "format": tensor(one) }));
        parameters.insert(side.to_owned(), formats.collect());
    }
    let metrics = metadata["metrics"].as_object().into_iter().flatten();
    let metrics: Vec<Value> =
        metrics.map(|(name, value)| json!({ "type": name, "value": text(value) })).collect();
    let mut card = json!({ "properties": properties("modelfs:param:", &metadata["params"]) });
    if !parameters.is_empty() {
        card["modelParameters"] = Value::Object(parameters);
    }
    if !metrics.is_empty() {
        card["quantitativeAnalysis"] = json!({ "performanceMetrics": metrics });
    }
    card
}

/// One input or output in a line: `x: f32[?, 10]`.
fn tensor(one: &Value) -> String {
    let shape = one["shape"].as_array().into_iter().flatten();
    let shape: Vec<String> =
        shape.map(|size| if size.is_null() { "?".to_owned() } else { text(size) }).collect();
    format!("{}: {}[{}]", text(&one["name"]), text(&one["dtype"]), shape.join(", "))
}

fn file_component(reference: &str, file: &DescribedFile) -> Value {
    let path = file.path.display().to_string();
    let mut properties = vec![
        json!({ "name": "modelfs:format", "value": file.format }),
        json!({ "name": "modelfs:size", "value": file.bytes.to_string() }),
    ];
    if runs_code(&file.format) {
        properties.push(json!({ "name": "modelfs:runs-code-when-loaded", "value": "true" }));
    }
    json!({
        "type": "file",
        "bom-ref": format!("{reference}/{path}"),
        "name": path,
        "hashes": [
            { "alg": "SHA-256", "content": file.sha256 },
            { "alg": "BLAKE3", "content": file.blake3 },
        ],
        "properties": properties,
    })
}

/// The data that the version was made from, as components.
fn datasets(metadata: &Value) -> Vec<Value> {
    let list = metadata["datasets"].as_array().into_iter().flatten();
    (1..).zip(list).map(|(number, dataset)| data_component(number, dataset)).collect()
}

fn data_component(number: usize, dataset: &Value) -> Value {
    let name = ["name", "uri", "digest"].into_iter().find_map(|key| dataset[key].as_str());
    let named = name.map_or_else(|| format!("dataset {number}"), str::to_owned);
    let mut component = json!({
        "type": "data",
        "bom-ref": format!("dataset/{number}"),
        "name": named,
        "data": [{ "type": "dataset", "name": named }],
        "properties": properties("modelfs:dataset:", dataset),
    });
    if let Some(uri) = dataset["uri"].as_str().filter(|uri| !uri.contains(char::is_whitespace)) {
        component["data"][0]["contents"] = json!({ "url": uri });
    }
    component
}

/// The licence that the labels or the trainer's own metadata name: by its SPDX identifier where it has one.
fn license(metadata: &Value) -> Option<Value> {
    let places = [&metadata["labels"], &metadata["user"]];
    let mut words = places.into_iter().flat_map(|place| [&place["license"], &place["licence"]]);
    let name = words.find_map(Value::as_str).filter(|name| !name.is_empty())?;
    // Model cards write them in lower case.
    let mut known = spdx::identifiers::LICENSES.iter();
    Some(match known.find(|known| known.name.eq_ignore_ascii_case(name)) {
        Some(known) => json!({ "license": { "id": known.name } }),
        None => json!({ "license": { "name": name } }),
    })
}

/// The members of an object as names and values.
fn properties(prefix: &str, object: &Value) -> Value {
    let members = object.as_object().into_iter().flatten();
    members
        .map(|(name, value)| json!({ "name": format!("{prefix}{name}"), "value": text(value) }))
        .collect()
}

/// A text as it is, everything else as its JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::samples::described;
    use super::*;

    #[test]
    fn a_bill_names_the_model_its_files_and_its_data() {
        let bom = value(&described());
        let model = &bom["metadata"]["component"];
        assert_eq!((&model["name"], &model["version"]), (&json!("churn"), &json!("v7")));
        assert_eq!(model["licenses"], json!([{ "license": { "id": "Apache-2.0" } }]));
        let metrics = &model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"];
        assert_eq!(metrics[0], json!({ "type": "auc", "value": "0.93" }));
        assert_eq!(bom["components"].as_array().map(Vec::len), Some(4));
        assert_eq!(bom["dependencies"][0]["dependsOn"].as_array().map(Vec::len), Some(4));
        assert_eq!(bom, value(&described()), "equal versions make equal documents");
    }

    #[test]
    fn a_licence_has_its_identifier_or_its_own_words() {
        let check = |name: &str, expected: Value| {
            assert_eq!(
                license(&json!({ "labels": { "license": name } })),
                Some(expected),
                "{name}"
            );
        };
        check("MIT", json!({ "license": { "id": "MIT" } }));
        check("apache-2.0", json!({ "license": { "id": "Apache-2.0" } }));
        check("MIT with a twist", json!({ "license": { "name": "MIT with a twist" } }));
        assert_eq!(license(&json!({})), None);
    }
}
