//! Paths as JSON: a text where they are UTF-8, and nothing is lost of those that are not.
//!
//! A path is bytes, and serde refuses one that is no text. Each path that is written goes through here:
//! `#[serde(with = "path")]`, of an optional one `path::option`, of several `path::list`. One that is not
//! UTF-8 is an object of two members, called as in `metadata.json`: `path`, shown as well as can be, and
//! `path_hex`, its bytes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::format::ids::{from_hex, to_hex};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Text(Cow<'a, str>),
    Bytes { path: Cow<'a, str>, path_hex: String },
}

impl<'a> Written<'a> {
    fn of(path: &'a Path) -> Self {
        let bytes = path.as_os_str().as_bytes();
        match String::from_utf8_lossy(bytes) {
            Cow::Borrowed(text) => Self::Text(Cow::Borrowed(text)),
            path @ Cow::Owned(_) => Self::Bytes { path, path_hex: to_hex(bytes) },
        }
    }

    fn read<E: Error>(self) -> Result<PathBuf, E> {
        match self {
            Self::Text(text) => Ok(text.into_owned().into()),
            Self::Bytes { path_hex, .. } => {
                let bytes = from_hex(&path_hex);
                let bytes = bytes.ok_or_else(|| E::custom("`path_hex` is not hexadecimal"))?;
                Ok(OsStr::from_bytes(&bytes).into())
            }
        }
    }
}

pub fn serialize<P: AsRef<Path>, S: Serializer>(path: &P, to: S) -> Result<S::Ok, S::Error> {
    Written::of(path.as_ref()).serialize(to)
}

pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    Written::deserialize(from)?.read()
}

/// A path as a member of a value that is put together by hand.
pub fn value(path: &Path) -> Value {
    serde_json::to_value(Written::of(path)).expect("it has text keys only")
}

/// A path that may be absent.
pub mod option {
    use super::*;

    pub fn serialize<P: AsRef<Path>, S: Serializer>(
        path: &Option<P>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        path.as_ref().map(|path| Written::of(path.as_ref())).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        Option::<Written<'_>>::deserialize(from)?.map(Written::read).transpose()
    }
}

/// Several paths.
pub mod list {
    use super::*;

    pub fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(paths.iter().map(|path| Written::of(path)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
        Vec::<Written<'_>>::deserialize(from)?.into_iter().map(Written::read).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Paths {
        #[serde(with = "super")]
        one: PathBuf,
        #[serde(default, with = "super::option")]
        maybe: Option<PathBuf>,
        #[serde(with = "super::list")]
        all: Vec<PathBuf>,
    }

    #[test]
    fn any_path_is_read_back_as_it_was() {
        let check = |bytes: &[u8], expected: Value| {
            let path = PathBuf::from(OsStr::from_bytes(bytes));
            let paths = Paths {
                one: path.clone(),
                maybe: Some(path.clone()),
                all: vec![path.clone(), path],
            };
            let written = serde_json::to_value(&paths).unwrap();
            let all = json!([&expected, &expected]);
            assert_eq!(written, json!({ "one": &expected, "maybe": &expected, "all": all }));
            let text = written.to_string();
            assert_eq!(serde_json::from_str::<Paths>(&text).unwrap(), paths, "{text}");
        };
        check(b"a/\xc3\xa4\n\"", json!("a/\u{e4}\n\""));
        check(b"", json!(""));
        check(b"x\xff.csv", json!({ "path": "x\u{fffd}.csv", "path_hex": "78ff2e637376" }));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for one in [json!({ "path": "x", "path_hex": "7" }), json!({ "path": "x" }), json!(1)] {
            let paths = json!({ "one": one, "all": [] });
            assert!(serde_json::from_value::<Paths>(paths).is_err(), "{one}");
        }
        let absent: Paths = serde_json::from_value(json!({ "one": "x", "all": [] })).unwrap();
        assert_eq!(absent.maybe, None);
    }
}
