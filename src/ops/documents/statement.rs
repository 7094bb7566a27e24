//! The statement that a signature of a version is about: in-toto, as the `model_signing` tool makes it
//! (predicate `signature/v1.0`, whole files, SHA-256).

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Described, Document, from_hex};
use crate::format::ids::to_hex;
use crate::ops::OpsError;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";

/// What that tool leaves out of a directory unless it is told otherwise.
const GIT_PATHS: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];

/// The statement of a version.
///
/// # Errors
/// `Option` for a version that the tool could not read: names that are not text, links to no file.
pub(super) fn value(described: &Described) -> Result<Value, OpsError> {
    let mut root = Sha256::new();
    let mut resources = Vec::new();
    for (path, sha256) in signed(described)? {
        let Some(name) = path.to_str() else {
            return Err(unfit(described, path, "its name is not UTF-8"));
        };
        root.update(from_hex(sha256).expect("digests in metadata are hexadecimal digits"));
        resources.push(json!({ "name": name, "digest": sha256, "algorithm": "sha256" }));
    }
    // Our own documents may lie beside the files, and are not what was signed.
    let ignored: Vec<&str> = GIT_PATHS.into_iter().chain(Document::NAMES).collect();
    Ok(json!({
        "_type": STATEMENT,
        "subject": [{
            "name": format!("{}/{}", described.model, described.version),
            "digest": { "sha256": to_hex(&root.finalize()) },
        }],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": !described.links.is_empty(),
                "ignore_paths": ignored,
            },
            "resources": resources,
        },
    }))
}

/// What is signed, in the order of its paths' components: files, and links to files as those.
fn signed(described: &Described) -> Result<Vec<(&Path, &str)>, OpsError> {
    let files = described.files.iter().map(|file| (file.path.as_path(), file.sha256.as_str()));
    let mut signed: Vec<_> = files.collect();
    for (path, end) in &described.links {
        let Some(end) = end else {
            let why =
                "it is a link that leads to no file, and model_signing refuses or skips those";
            return Err(unfit(described, path, why));
        };
        signed.push((path, &described.files[*end].sha256));
    }
    signed.retain(|(path, _)| !GIT_PATHS.iter().any(|git| path.starts_with(git)));
    signed.sort_unstable();
    Ok(signed)
}

fn unfit(described: &Described, path: &Path, why: &str) -> OpsError {
    let (model, version) = (&described.model, described.version);
    let why = format!("`{}` in {model}/{version} cannot be signed: {why}", path.display());
    OpsError::Option { what: "the version", why }
}

#[cfg(test)]
mod tests {
    use super::super::samples::described;
    use super::*;

    #[test]
    fn a_statement_names_every_file_and_a_digest_of_their_digests() {
        let statement = value(&described()).expect("all can be signed");
        let resources = statement["predicate"]["resources"].as_array().expect("a list");
        let names: Vec<_> =
            resources.iter().map(|line| line["name"].as_str().expect("text")).collect();
        assert_eq!(names, ["b/odd\nname", "metadata.json", "model.onnx"]);
        let mut root = Sha256::new();
        for line in resources {
            root.update(from_hex(line["digest"].as_str().expect("text")).expect("digits"));
        }
        assert_eq!(statement["subject"][0]["digest"]["sha256"], to_hex(&root.finalize()));
    }

    #[test]
    fn a_link_is_signed_as_the_file_that_it_leads_to() {
        let mut described = described();
        described.links.push(("alias.onnx".into(), Some(2)));
        let statement = value(&described).expect("it leads to a file");
        assert_eq!(statement["predicate"]["serialization"]["allow_symlinks"], true);
        assert_eq!(statement["predicate"]["resources"][0]["digest"], "ab".repeat(32));
        described.links.push(("nowhere".into(), None));
        assert!(value(&described).is_err());
    }
}
