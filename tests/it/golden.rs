//! A store that was made when the format was frozen opens for ever, and gives what it was given.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Bench, copy_tree, fixtures};

const VERSIONS: [&str; 5] = ["churn/v1", "churn/v2", "odd/v1", "tuned/v1", "tuned/v2"];

fn golden() -> PathBuf {
    fixtures().with_file_name("format-v1")
}

fn bench() -> Bench {
    let bench = Bench::new();
    copy_tree(&golden().join("store"), &bench.store);
    bench
}

/// A fixture of one version: `churn-v1` and the ending.
fn kept(version: &str, ending: &str) -> String {
    let path = golden().join(version.replace('/', "-") + ending);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_store_of_format_1_is_sound() {
    let bench = bench();
    bench.cli(&["verify", "--read-data"]).ok();
    let aliases = bench.cli_json(&["alias", "list", "churn"]).to_string();
    assert!(aliases.contains(r#""alias":"prod""#) && !aliases.contains("staging"), "{aliases}");
}

#[test]
fn a_store_of_format_1_shows_what_it_showed() {
    let bench = bench();
    for version in VERSIONS {
        let expected: Value = serde_json::from_str(&kept(version, ".json")).unwrap();
        assert_eq!(bench.cli_json(&["show", version]), expected, "{version}");
    }
}

#[test]
fn a_store_of_format_1_gives_the_files_back() {
    let bench = bench();
    for version in VERSIONS {
        let to = bench.root.join(version.replace('/', "-"));
        bench.cli(&["export", version, to.to_str().unwrap()]).ok();
        // Sizes and digests are in the metadata, which the fixture has beside it.
        let expected: Value = serde_json::from_str(&kept(version, ".json")).unwrap();
        let mut files = BTreeMap::new();
        digests(&to, &to, &mut files);
        let mut listed = 0;
        for file in expected["metadata"]["files"].as_array().unwrap() {
            let Some(path) = file["path"].as_str().filter(|_| file["path_hex"].is_null()) else {
                continue;
            };
            assert_eq!(files.get(path).map(String::as_str), file["blake3"].as_str(), "{path}");
            listed += 1;
        }
        assert!(3 <= listed, "{version}");
        assert!(kept(version, ".sha256").lines().count() > listed, "{version}: and metadata.json");
    }
    let odd = bench.root.join("odd-v1");
    assert_eq!(fs::read_link(odd.join("deep/link")).unwrap(), Path::new("../tool"));
    assert!(odd.join("empty directory").is_dir());
}

fn digests(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            digests(root, &path, found);
        } else if kind.is_file() {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            found.insert(name, blake3::hash(&fs::read(&path).unwrap()).to_string());
        }
    }
}
