//! Archives with a JSON document that says what is in them: skops, Keras.
//!
//! Source: `skops/io/_utils.py` and `_audit.py` of skops; `keras/src/saving/saving_lib.py` of Keras.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::description::{Draft, SUMMARY_COUNT_MAX, most, short};
use super::reader::Reader;
use super::zip::{self, Member};
use super::{NAME_BYTES_MAX, Stop};

/// Bytes of a document.
const DOCUMENT_BYTES_MAX: usize = 64 << 20;
/// Different types that are listed.
const TYPE_COUNT_MAX: usize = 10_000;
/// Modules whose types skops trusts, or that are as harmless.
const TRUSTED: [&str; 6] =
    ["builtins", "collections", "numpy", "scipy.sparse", "sklearn", "lightgbm.sklearn"];
/// What skops makes functions and methods of.
const LOADERS_OF_CODE: [&str; 3] = ["FunctionNode", "MethodNode", "OperatorFuncNode"];

/// What a skops file is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SkopsDetails {
    pub skops_version: String,
    pub protocol: u64,
    /// `module.class` of every object in it, and how often it is there.
    pub types: BTreeMap<String, u64>,
    /// Types of which skops asks whether to trust them, and functions.
    pub untrusted: Vec<String>,
}

impl SkopsDetails {
    pub(super) fn summary(&self) -> Map<String, Value> {
        let untrusted: Vec<_> =
            self.untrusted.iter().take(SUMMARY_COUNT_MAX).map(|name| short(name)).collect();
        let summary = json!({
            "skops_version": short(&self.skops_version),
            "types": most(&self.types),
            "untrusted": untrusted,
        });
        summary.as_object().cloned().unwrap_or_default()
    }
}

/// What a Keras file is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KerasDetails {
    pub keras_version: String,
    pub date_saved: String,
    /// How often each class of layers and other parts is in it.
    pub classes: BTreeMap<String, u64>,
    /// Why it is not safe to load, a sentence each.
    #[serde(rename = "unsafe")]
    pub reasons: Vec<String>,
}

impl KerasDetails {
    pub(super) fn summary(&self) -> Map<String, Value> {
        let summary = json!({
            "keras_version": short(&self.keras_version),
            "classes": most(&self.classes),
            "unsafe": self.reasons,
        });
        summary.as_object().cloned().unwrap_or_default()
    }
}

fn document(reader: &mut Reader<'_>, members: &[Member], name: &str) -> Result<Vec<u8>, Stop> {
    let found = members.iter().find(|member| member.name == name).ok_or(Stop::Unknown)?;
    found.unpacked(reader, DOCUMENT_BYTES_MAX)
}

/// Lists the types in a skops file.
pub(super) fn describe_skops(
    reader: &mut Reader<'_>,
    draft: &mut Draft,
) -> Result<SkopsDetails, Stop> {
    let members = zip::read_directory(reader)?;
    let text = document(reader, &members, "schema.json")?;
    let mut found = SkopsDetails::default();
    let mut visit = |object: &Texts| {
        let (Some(module), Some(class)) = (object.get("__module__"), object.get("__class__"))
        else {
            return;
        };
        let loader = object.get("__loader__").unwrap_or_default();
        let path = format!("{module}.{class}");
        let is_trusted = TRUSTED.iter().any(|root| {
            module.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        if !found.types.contains_key(&path) {
            if TYPE_COUNT_MAX <= found.types.len() || !draft.admit("types", 2 * path.len()) {
                return;
            }
            if !is_trusted || LOADERS_OF_CODE.contains(&loader) {
                found.untrusted.push(path.clone());
            }
        }
        *found.types.entry(path).or_default() += 1;
    };
    let top =
        walk(&text, &["__module__", "__class__", "__loader__", "_skops_version"], &mut visit)?;
    found.skops_version = top.get("_skops_version").unwrap_or_default().to_owned();
    found.protocol = top.protocol;
    Ok(found)
}

/// Lists the classes in a Keras file.
pub(super) fn describe_keras(
    reader: &mut Reader<'_>,
    draft: &mut Draft,
) -> Result<KerasDetails, Stop> {
    let members = zip::read_directory(reader)?;
    let text = document(reader, &members, "metadata.json")?;
    let top = walk(&text, &["keras_version", "date_saved"], &mut |_| ())?;
    let mut found = KerasDetails {
        keras_version: top.get("keras_version").unwrap_or_default().to_owned(),
        date_saved: top.get("date_saved").unwrap_or_default().to_owned(),
        ..KerasDetails::default()
    };
    let text = document(reader, &members, "config.json")?;
    walk(&text, &["class_name"], &mut |object| {
        let Some(class) = object.get("class_name") else { return };
        if found.classes.contains_key(class) || draft.admit("classes", class.len()) {
            *found.classes.entry(class.to_owned()).or_default() += 1;
        }
    })?;
    if found.classes.contains_key("Lambda") || found.classes.contains_key("__lambda__") {
        found.reasons.push("it has a Lambda layer, which runs code of the file".to_owned());
    }
    Ok(found)
}

/// Some texts of one object of a document.
#[derive(Default)]
struct Texts {
    texts: Vec<(usize, String)>,
    names: &'static [&'static str],
    protocol: u64,
}

impl Texts {
    fn get(&self, name: &str) -> Option<&str> {
        let place = self.names.iter().position(|it| *it == name)?;
        self.texts.iter().find(|(at, _)| *at == place).map(|(_, text)| text.as_str())
    }
}

/// Calls `visit` with the texts called `names` of every object; those of the outermost.
fn walk(
    text: &[u8],
    names: &'static [&'static str],
    visit: &mut dyn FnMut(&Texts),
) -> Result<Texts, Stop> {
    let wrong = |_not_as_it_must_be| Stop::Malformed("its document is no JSON, or too deep");
    let mut parser = serde_json::Deserializer::from_slice(text);
    let mut top = Texts { names, ..Texts::default() };
    Seed { names, visit, into: Some(&mut top) }.deserialize(&mut parser).map_err(wrong)?;
    parser.end().map_err(wrong)?;
    Ok(top)
}

/// A value of which the objects are visited.
struct Seed<'v, 't> {
    names: &'static [&'static str],
    visit: &'v mut dyn FnMut(&Texts),
    /// Where the texts go, if this is an object.
    into: Option<&'t mut Texts>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self { names, visit, into } = self;
        let mut own = Texts { names, ..Texts::default() };
        while let Some(key) = map.next_key::<String>()? {
            if key == "protocol" {
                own.protocol = map.next_value::<Value>()?.as_u64().unwrap_or(0);
                continue;
            }
            let value = map.next_value_seed(Seed { names, visit: &mut *visit, into: None })?;
            let place = names.iter().position(|name| *name == key);
            own.texts.extend(place.zip(value));
        }
        visit(&own);
        if let Some(into) = into {
            *into = own;
        }
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let Self { names, visit, .. } = self;
        while values.next_element_seed(Seed { names, visit: &mut *visit, into: None })?.is_some() {}
        Ok(None)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok((text.len() <= NAME_BYTES_MAX).then(|| text.to_owned()))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::super::samples::zip;
    use super::super::{Details, InspectError, describe};

    #[test]
    fn a_skops_file_lists_its_types_and_those_that_are_not_trusted() {
        let schema = br#"{"__class__":"Pipeline","__module__":"sklearn.pipeline","__loader__":"ObjectNode",
            "protocol":2,"_skops_version":"0.16.0","content":[{"__class__":"Own","__module__":"mine.own"},
            {"__class__":"Own","__module__":"mine.own"},
            {"__class__":"f","__module__":"sklearn.x","__loader__":"FunctionNode"},{"__class__":3}]}"#;
        let file = zip(&[("schema.json", schema), ("1.npy", b"x")]);
        let found = describe(OsStr::new("m.skops"), &file.as_slice()).expect("a skops file");
        let Some(Details::Skops(skops)) = found.details else { panic!("{found:?}") };
        assert_eq!((skops.protocol, skops.skops_version.as_str()), (2, "0.16.0"));
        assert_eq!((skops.types["mine.own.Own"], skops.types.len()), (2, 3));
        assert_eq!(skops.untrusted, ["mine.own.Own", "sklearn.x.f"]);
    }

    #[test]
    fn a_keras_file_with_a_lambda_is_unsafe() {
        let file = |class: &str| {
            let config = format!(
                r#"{{"class_name":"Sequential","config":{{"layers":[{{"class_name":"{class}"}}]}}}}"#
            );
            let metadata = br#"{"keras_version":"3.4.1","date_saved":"2026-01-02"}"#;
            let file = zip(&[("metadata.json", &metadata[..]), ("config.json", config.as_bytes())]);
            describe(OsStr::new("m.keras"), &file.as_slice()).expect("a Keras file").details
        };
        let Some(Details::Keras(keras)) = file("Dense") else { panic!("no Keras file") };
        assert_eq!((keras.keras_version.as_str(), keras.classes["Dense"]), ("3.4.1", 1));
        assert!(keras.reasons.is_empty());
        let Some(Details::Keras(keras)) = file("Lambda") else { panic!("no Keras file") };
        assert_eq!(keras.reasons.len(), 1);
    }

    #[test]
    fn a_document_that_is_none_is_refused() {
        let deep = format!("{}1", r#"{"a":["#.repeat(200));
        for schema in ["", "[", "{\"a\":1}x", &deep] {
            let file = zip(&[("schema.json", schema.as_bytes())]);
            let found = describe(OsStr::new("m.skops"), &file.as_slice());
            assert!(matches!(found, Err(InspectError::Malformed { .. })), "{schema}: {found:?}");
        }
        let found = describe(OsStr::new("m.skops"), &zip(&[("x", b"")]).as_slice());
        assert!(matches!(found, Err(InspectError::Unknown)), "{found:?}");
    }
}
