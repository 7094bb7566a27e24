//! `MLmodel`: what makes a directory a model that MLflow loads. JSON, which is YAML too.
//!
//! A flavor says how MLflow's own loaders read a file; formats that need more than a file to be loaded
//! get none, and pickles get none on purpose: loading one runs what it says.

use serde_json::{Map, Value, json};

use super::{Described, DescribedFile};

/// Which loader of MLflow reads a format, and which member of its flavor says what class it is.
struct Loader {
    format: &'static str,
    flavor: &'static str,
    module: &'static str,
    class: Option<&'static str>,
}

const LOADERS: [Loader; 4] = [
    Loader { format: "onnx", flavor: "onnx", module: "mlflow.onnx", class: None },
    Loader {
        format: "xgboost-json",
        flavor: "xgboost",
        module: "mlflow.xgboost",
        class: Some("xgboost.core.Booster"),
    },
    Loader {
        format: "xgboost-ubj",
        flavor: "xgboost",
        module: "mlflow.xgboost",
        class: Some("xgboost.core.Booster"),
    },
    Loader {
        format: "lightgbm",
        flavor: "lightgbm",
        module: "mlflow.lightgbm",
        class: Some("lightgbm.basic.Booster"),
    },
];

/// Dtypes of an interface by the names that NumPy has for them.
const NUMPY_NAMES: [(&str, &str); 13] = [
    ("f64", "float64"),
    ("f32", "float32"),
    ("f16", "float16"),
    ("i64", "int64"),
    ("i32", "int32"),
    ("i16", "int16"),
    ("i8", "int8"),
    ("u64", "uint64"),
    ("u32", "uint32"),
    ("u16", "uint16"),
    ("u8", "uint8"),
    ("bool", "bool"),
    ("string", "str"),
];

/// The document.
pub(super) fn value(described: &Described) -> Value {
    let Described { model, version, metadata, files, .. } = described;
    let own = json!({ "model": model, "version": version, "digest": metadata["digest"] });
    let mut document = json!({
        "flavors": flavors(files),
        "model_size_bytes": files.iter().map(|file| file.bytes).sum::<u64>(),
        "metadata": {
            "modelfs": own,
            "message": metadata["message"],
            "metrics": metadata["metrics"],
            "params": metadata["params"],
            "labels": metadata["labels"],
        },
    });
    if let Some(digest) = metadata["digest"].as_str() {
        document["model_uuid"] = json!(digest.chars().take(32).collect::<String>());
    }
    if let Some(at) = metadata["sealed"]["at"].as_str() {
        // MLflow writes it so: in UTC, without saying that, down to microseconds.
        let time: String = at.trim_end_matches('Z').replace('T', " ").chars().take(26).collect();
        document["utc_time_created"] = json!(time);
    }
    if let Some(signature) = signature(&metadata["interface"]) {
        document["signature"] = signature;
    }
    document
}

/// The flavors of the one file that MLflow can load, if there is one and no other of its kind.
fn flavors(files: &[DescribedFile]) -> Value {
    let mut flavors = Map::new();
    for Loader { format, flavor, module, class } in LOADERS {
        // Its loaders look for the document beside the file.
        let at_root = |file: &&DescribedFile| file.path.components().count() == 1;
        let mut those = files.iter().filter(|file| file.format == format).filter(at_root);
        let (Some(file), None) = (those.next(), those.next()) else { continue };
        let Some(data) = file.path.to_str() else { continue };
        let mut own = json!({ "data": data });
        if let Some(class) = class {
            own["model_class"] = json!(class);
        }
        flavors.insert(flavor.to_owned(), own);
        let python = json!({ "loader_module": module, "data": data });
        flavors.entry("python_function").or_insert(python);
    }
    Value::Object(flavors)
}

/// Inputs and outputs as MLflow's signature: texts of JSON.
fn signature(interface: &Value) -> Option<Value> {
    let mut signature = Map::new();
    for side in ["inputs", "outputs"] {
        let list = interface[side].as_array().filter(|list| !list.is_empty())?;
        let tensors: Option<Vec<Value>> = list.iter().map(tensor).collect();
        signature.insert(side.to_owned(), json!(Value::from(tensors?).to_string()));
    }
    Some(Value::Object(signature))
}

/// One input or output; `None` where NumPy has no such dtype. A size that is not a number is -1.
fn tensor(one: &Value) -> Option<Value> {
    let dtype = one["dtype"].as_str()?;
    let (_, numpy) = NUMPY_NAMES.iter().find(|(ours, _)| *ours == dtype)?;
    let shape = one["shape"].as_array()?.iter();
    let shape: Vec<Value> =
        shape.map(|size| if size.is_u64() { size.clone() } else { json!(-1) }).collect();
    let spec = json!({ "dtype": numpy, "shape": shape });
    Some(json!({ "name": one["name"], "type": "tensor", "tensor-spec": spec }))
}

#[cfg(test)]
mod tests {
    use super::super::samples::described;
    use super::*;

    #[test]
    fn one_loadable_file_has_its_flavor_and_two_have_none() {
        let mut described = described();
        let document = value(&described);
        let flavors = &document["flavors"];
        assert_eq!(flavors["onnx"]["data"], "model.onnx");
        assert_eq!(flavors["python_function"]["loader_module"], "mlflow.onnx");
        let second = DescribedFile { path: "b.onnx".into(), ..described.files[2].clone() };
        described.files.push(second);
        assert_eq!(value(&described)["flavors"], json!({}));
    }

    #[test]
    fn an_interface_is_a_signature_where_numpy_has_its_dtypes() {
        let side = |dtype: &str| json!([{ "name": "x", "dtype": dtype, "shape": ["batch", 4] }]);
        let found = signature(&json!({ "inputs": side("f32"), "outputs": side("i64") }));
        let inputs = found.expect("both have names")["inputs"].as_str().expect("text").to_owned();
        assert!(inputs.contains(r#"{"dtype":"float32","shape":[-1,4]}"#), "{inputs}");
        assert_eq!(signature(&json!({ "inputs": side("bf16"), "outputs": side("f32") })), None);
    }
}
