//! Documents: what a version is, in the forms that other tools read.
//!
//! Made of the version's metadata and its tree alone, no file is read for them; so they speak of exactly
//! what the mount shows. Equal versions make equal documents.

mod bom;
mod mlflow;
mod signature;
mod statement;
mod sums;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Context, OpsError, StatementReport, Workspace};
use crate::format::ids::{ManifestId, from_hex, to_hex};
use crate::format::manifest::{METADATA_NAME, Manifest, Node};
use crate::format::metadata::ListedFile;
use crate::format::names::{At, ModelName, Reference, VersionNumber};

pub use signature::{SignError, sign};

/// Links that a link's target may lead through, as in Linux.
const LINKS_MAX: usize = 40;

/// What is written beside a version's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Document {
    /// For `sha256sum -c`.
    Sha256Sums,
    /// A CycloneDX 1.6 bill of materials with a model card.
    CycloneDx,
    /// An MLflow model's description of itself.
    Mlflow,
    /// A statement of [`StatementReport`] that was signed by [`sign`].
    Signature { bundle: String },
}

impl Document {
    /// All names that documents have.
    pub const NAMES: [&str; 4] = ["SHA256SUMS", "bom.cdx.json", "MLmodel", "model.sig"];

    /// Its name in the directory.
    pub fn name(&self) -> &'static str {
        let [sums, bom, mlflow, signature] = Self::NAMES;
        match self {
            Self::Sha256Sums => sums,
            Self::CycloneDx => bom,
            Self::Mlflow => mlflow,
            Self::Signature { .. } => signature,
        }
    }

    /// Its text for a version.
    ///
    /// # Errors
    /// `Option` for what cannot be said of this version.
    pub(super) fn text(&self, described: &Described) -> Result<Vec<u8>, OpsError> {
        Ok(match self {
            Self::Sha256Sums => sums::text(described),
            Self::CycloneDx => pretty(&bom::value(described)),
            Self::Mlflow => pretty(&mlflow::value(described)),
            Self::Signature { bundle } => bundle.clone().into_bytes(),
        })
    }
}

/// A file of a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DescribedFile {
    pub path: PathBuf,
    pub bytes: u64,
    pub sha256: String,
    pub blake3: String,
    /// The word for its format.
    pub format: String,
}

/// What is known of a version without reading it.
pub(super) struct Described {
    pub model: ModelName,
    pub version: VersionNumber,
    /// The `metadata.json` without its list of files.
    pub metadata: Value,
    /// All files, `metadata.json` among them, in the order of their paths' components.
    pub files: Vec<DescribedFile>,
    /// Symbolic links, with the place in `files` of what they lead to, if that is a file.
    pub links: Vec<(PathBuf, Option<usize>)>,
}

impl Workspace {
    /// A version, for documents about it.
    ///
    /// # Errors
    /// Where it cannot be read, or its metadata lacks what every version has.
    pub(super) fn described(
        &self,
        model: &ModelName,
        version: VersionNumber,
        id: &ManifestId,
    ) -> Result<Described, OpsError> {
        let manifest = self.manifest(id)?;
        let (mut files, mut unnamed) = (Vec::new(), 0);
        self.read_listed(id, |file| match described_file(file) {
            Some(file) => files.push(file),
            None => unnamed += 1,
        })?;
        if 0 < unnamed {
            let reference = format!("{model}/{version}");
            let why = format!("the metadata of `{reference}` does not name its files");
            return Err(OpsError::Option { what: "the version", why });
        }
        files.push(self.metadata_file(id)?);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let links = links_of(&manifest, &files);
        let metadata = manifest.metadata.clone();
        Ok(Described { model: model.clone(), version, metadata, files, links })
    }

    /// `metadata.json` itself, which does not list itself.
    fn metadata_file(&self, id: &ManifestId) -> Result<DescribedFile, OpsError> {
        let (file, sha256) = self.digest_metadata(id)?;
        Ok(DescribedFile {
            path: OsStr::from_bytes(METADATA_NAME).into(),
            bytes: file.bytes,
            sha256: to_hex(&sha256),
            blake3: file.digest.to_string(),
            format: "json".to_owned(),
        })
    }

    /// What is to be signed of a version: an in-toto statement for the `model_signing` tool.
    pub(super) fn statement(
        &self,
        context: &Context,
        reference: &Reference,
    ) -> Result<StatementReport, OpsError> {
        let summary = self.resolve(context, reference)?;
        let (model, version) = (reference.model.clone(), summary.version);
        let described = self.described(&model, version, &summary.manifest)?;
        let statement = statement::value(&described)?;
        let reference = Reference { model, at: At::Version(version) };
        Ok(StatementReport { reference, payload: statement.to_string() })
    }
}

/// A file as the metadata lists it; `None` where it does not say what every file has.
fn described_file(file: ListedFile) -> Option<DescribedFile> {
    let ListedFile { path, path_hex, size, blake3, sha256, format } = file;
    let path = match path_hex {
        Some(digits) => PathBuf::from(OsStr::from_bytes(&from_hex(&digits)?)),
        None => PathBuf::from(path),
    };
    let format = if format.is_empty() { "unknown".to_owned() } else { format };
    let is_whole = !path.as_os_str().is_empty() && !blake3.is_empty() && !sha256.is_empty();
    is_whole.then_some(DescribedFile { path, bytes: size?, sha256, blake3, format })
}

/// Symbolic links of a version, and the files that they lead to. What was sealed leads nowhere outside.
fn links_of(manifest: &Manifest, files: &[DescribedFile]) -> Vec<(PathBuf, Option<usize>)> {
    let mut targets = Vec::new();
    manifest.walk(|path, index, entry| {
        if matches!(entry.node, Node::Symlink { .. }) {
            let path = PathBuf::from(OsStr::from_bytes(path));
            targets.push((path, PathBuf::from(OsStr::from_bytes(manifest.target(index)))));
        }
    });
    let end_of = |link: &Path| {
        let mut at = link.to_owned();
        for _ in 0..LINKS_MAX {
            let Some((_, target)) = targets.iter().find(|(path, _)| *path == at) else { break };
            at = normal(&at.parent().unwrap_or(Path::new("")).join(target));
        }
        files.binary_search_by(|file| file.path.as_path().cmp(&at)).ok()
    };
    targets.iter().map(|(path, _)| (path.clone(), end_of(path))).collect()
}

/// A path below the version without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::Normal(name) => normal.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    normal
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("a JSON value is always writable");
    text.push(b'\n');
    text
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use serde_json::json;

    /// A version of two files, with all that metadata can say.
    pub fn described() -> Described {
        let file = |path: &str, format: &str| DescribedFile {
            path: path.into(),
            bytes: 7,
            sha256: "ab".repeat(32),
            blake3: "cd".repeat(32),
            format: format.to_owned(),
        };
        let metadata = json!({
            "model": "churn", "version": "v7", "digest": "ef".repeat(32), "message": "June data",
            "sealed": { "at": "2026-06-01T12:00:00Z", "by": { "user": "ann", "uid": 7 } },
            "metrics": { "auc": 0.93, "f1": 0.9 }, "params": { "depth": 6 },
            "labels": { "license": "apache-2.0" },
            "datasets": [{ "name": "June", "uri": "s3://data/june", "role": "train",
                           "digest": "01".repeat(32), "bytes": 9, "rows": 3 }],
        });
        let files = [("b/odd\nname", "unknown"), ("metadata.json", "json"), ("model.onnx", "onnx")];
        let files = files.map(|(path, format)| file(path, format)).into();
        let version = "v7".parse().expect("a version");
        let model = "churn".parse().expect("a name");
        Described { model, version, metadata, files, links: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_are_bytes() {
        assert_eq!(from_hex("00ff7a"), Some(vec![0, 255, 122]));
        for wrong in ["0", "0g", "é0"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_path_is_taken_without_its_detours() {
        let check =
            |path: &str, expected: &str| assert_eq!(normal(Path::new(path)), Path::new(expected));
        check("a/./b/../c", "a/c");
        check("a/..", "");
    }

    #[test]
    fn a_file_is_described_where_all_is_said_of_it() {
        let listed = |path: &str, path_hex: Option<&str>| ListedFile {
            path: path.to_owned(),
            path_hex: path_hex.map(str::to_owned),
            size: Some(0),
            blake3: "cd".repeat(32),
            sha256: "ab".repeat(32),
            format: String::new(),
        };
        let named = described_file(listed("a", None)).expect("all is said");
        assert_eq!((named.path.as_path(), &named.format[..]), (Path::new("a"), "unknown"));
        let odd = described_file(listed("\u{fffd}", Some("ff2f61"))).expect("all is said");
        assert_eq!(odd.path.as_os_str().as_bytes(), b"\xff/a");
        assert_eq!(described_file(listed("", None)), None);
        assert_eq!(described_file(listed("a", Some("f"))), None);
        assert_eq!(described_file(ListedFile { size: None, ..listed("a", None) }), None);
        assert_eq!(described_file(ListedFile { sha256: String::new(), ..listed("a", None) }), None);
    }
}
