//! `metadata.json` as its readers see it: one place that knows how its members were called when.
//!
//! Versions that were sealed by the first releases have `follows` and `files` where later ones have
//! `supersedes` and `artifacts`. They never change, so readers take either, through [`Metadata`].

use serde::Deserialize;
use serde_json::Value;

use super::names::VersionNumber;

/// The schema's name and version, the member `schema`.
pub const SCHEMA: &str = "modelfs/metadata-v1";

/// The member that lists the files.
pub const ARTIFACTS: &str = "artifacts";
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

/// A `metadata.json` that was parsed, of whatever release.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a>(pub &'a Value);

/// One file of the list, of whatever release. What is not as we write it is empty.
#[derive(Clone, Copy, Debug)]
pub struct Artifact<'a>(pub &'a Value);

/// The list of files of a `metadata.json`, of whatever release, without all else: there may be many.
#[derive(Deserialize, Debug)]
pub struct Listed<'a> {
    #[serde(borrow, default, alias = "files")]
    pub artifacts: Vec<ListedFile<'a>>,
}

/// What the list says of the content of a file; empty where it says nothing.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub struct ListedFile<'a> {
    pub size: u64,
    pub blake3: &'a str,
    pub sha256: &'a str,
}

impl<'a> Metadata<'a> {
    /// A member by its name today; `null` where it is absent.
    pub fn member(self, name: &str) -> &'a Value {
        match name {
            ARTIFACTS => self.either(ARTIFACTS, "files"),
            SUPERSEDES => self.either(SUPERSEDES, "follows"),
            name => &self.0[name],
        }
    }

    fn either(self, name: &str, earlier: &str) -> &'a Value {
        self.0.get(name).unwrap_or(&self.0[earlier])
    }

    /// The files of the version, `metadata.json` left out.
    pub fn artifacts(self) -> impl ExactSizeIterator<Item = Artifact<'a>> + Clone {
        let list = self.member(ARTIFACTS).as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().map(Artifact)
    }

    /// The version that was the newest before this one.
    pub fn supersedes(self) -> Option<VersionNumber> {
        self.member(SUPERSEDES).as_str()?.parse().ok()
    }
}

impl<'a> Artifact<'a> {
    /// A member as text; empty where it is absent.
    pub fn text(self, name: &str) -> &'a str {
        self.0[name].as_str().unwrap_or_default()
    }

    /// The path within the version; where it is not UTF-8, as well as it can be shown.
    pub fn path(self) -> &'a str {
        self.text("path")
    }

    pub fn size(self) -> Option<u64> {
        self.0["size"].as_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_of_the_first_releases_are_found_by_their_names_today() {
        let file = json!({"path": "a", "size": 3, "format": "onnx"});
        for (artifacts, supersedes) in [("artifacts", "supersedes"), ("files", "follows")] {
            let value = json!({artifacts: [file], supersedes: "v6"});
            let metadata = Metadata(&value);
            let found: Vec<_> = metadata.artifacts().map(|it| (it.path(), it.size())).collect();
            assert_eq!(found, [("a", Some(3))]);
            assert_eq!(metadata.supersedes().map(VersionNumber::get), Some(6));
            assert_eq!(metadata.artifacts().next().unwrap().text("format"), "onnx");
        }
        let text =
            r#"{"files": [{"blake3": "b", "path": "a", "sha256": "s", "size": 3}], "x": {}}"#;
        for text in [text.to_owned(), text.replace("files", "artifacts")] {
            let listed: Listed<'_> = serde_json::from_str(&text).unwrap();
            let [ListedFile { size: 3, blake3: "b", sha256: "s" }] = listed.artifacts[..] else {
                panic!("{listed:?}");
            };
        }
        let strange = json!({"artifacts": 7, "supersedes": null});
        assert_eq!(Metadata(&strange).artifacts().len(), 0);
        assert_eq!(Metadata(&strange).supersedes(), None);
    }
}
