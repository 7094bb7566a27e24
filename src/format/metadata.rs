//! `metadata.json` as its readers see it: one place that knows how its members were called when.
//!
//! Versions that were sealed by the first releases have `follows` and `files` where later ones have
//! `supersedes` and `artifacts`. They never change, so readers take either.

use std::fmt;
use std::io::Read;
use std::ops::ControlFlow;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The schema's name and version, the member `schema`.
pub const SCHEMA: &str = "modelfs/metadata-v1";

/// The member that lists the files, and its name in the first releases.
pub const ARTIFACTS: &str = "artifacts";
const FILES: &str = "files";
/// The member that names the version before.
pub const SUPERSEDES: &str = "supersedes";
/// The member that says where the others come from.
pub const CAPTURE: &str = "capture";
/// Members that say something of how a version was made, whoever says it, in the order of their names.
pub const DECLARABLE: [&str; 9] = [
    "datasets",
    "environment",
    "interface",
    "labels",
    "metrics",
    "params",
    "parents",
    "run",
    "source",
];

/// What the list says of a file; empty where it says nothing. `metadata.json` itself is not listed.
#[derive(Deserialize, Debug, Default, PartialEq)]
#[serde(default)]
pub struct ListedFile {
    /// Within the version; where it is not UTF-8, as well as it can be shown.
    pub path: String,
    /// The bytes of a path that is not UTF-8, in hexadecimal digits.
    pub path_hex: Option<String>,
    pub size: Option<u64>,
    pub blake3: String,
    pub sha256: String,
    /// The word for its format.
    pub format: String,
}

/// Calls `each` with every file that a `metadata.json` of whatever release lists, while it is read: there may
/// be a million of them. Reads no further where that breaks.
///
/// # Errors
/// As reading it, and for what is no such text.
pub fn read_files(
    text: impl Read,
    each: &mut dyn FnMut(ListedFile) -> ControlFlow<()>,
) -> Result<(), serde_json::Error> {
    let mut is_over = false;
    let mut each = |file| {
        is_over = each(file).is_break();
        is_over
    };
    let mut text = serde_json::Deserializer::from_reader(text);
    let read = text.deserialize_map(Members(&mut each)).and_then(|()| text.end());
    if is_over { Ok(()) } else { read }
}

/// Takes a file, and says whether that is enough.
type Take<'a> = dyn FnMut(ListedFile) -> bool + 'a;

/// The members of the whole, of which one is the list.
struct Members<'a>(&'a mut Take<'a>);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the metadata of a version")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<String>()? {
            match name.as_str() {
                ARTIFACTS | FILES => members.next_value_seed(List(&mut *self.0))?,
                _ => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

struct List<'a>(&'a mut Take<'a>);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<(), D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the files of a version")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut files: A) -> Result<(), A::Error> {
        while let Some(file) = files.next_element()? {
            if (self.0)(file) {
                return Err(A::Error::custom("enough was read"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<ListedFile>, serde_json::Error> {
        let mut found = Vec::new();
        read_files(text.as_bytes(), &mut |file| {
            found.push(file);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    #[test]
    fn nothing_is_read_once_enough_was() {
        let (text, mut count) = (r#"{"artifacts": [{}, {}, {}, no JSON"#, 0);
        let mut each = |_| {
            count += 1;
            if count < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        read_files(text.as_bytes(), &mut each).unwrap();
        assert_eq!(count, 3);
    }

    #[test]
    fn the_list_of_the_first_releases_is_found_by_its_name_then() {
        let text = r#"{"LIST": [{"blake3": "b", "details": {"x": [{}]}, "format": "onnx", "path": "a",
            "sha256": "s", "size": 3}, {"path": "c\u0009"}], "x": {"artifacts": [{}], "files": 7}}"#;
        for name in ["artifacts", "files"] {
            let [first, second] = &read(&text.replace("LIST", name)).unwrap()[..] else {
                panic!("two files");
            };
            let ListedFile { path, size, blake3, sha256, format, path_hex: None } = first else {
                panic!("{first:?}");
            };
            assert_eq!((&path[..], *size), ("a", Some(3)));
            assert_eq!((&blake3[..], &sha256[..], &format[..]), ("b", "s", "onnx"));
            assert_eq!(*second, ListedFile { path: "c\t".to_owned(), ..Default::default() });
        }
        assert_eq!(read("{}").unwrap(), []);
    }

    #[test]
    fn what_is_no_metadata_is_an_error() {
        for text in
            ["", "7", "[]", "{", r#"{"artifacts": 7}"#, r#"{"files": [{"size": "x"}]}"#, "{}{}"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
