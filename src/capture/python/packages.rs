//! Installed packages: the directories `*.dist-info` and `*.egg-info` that installers leave.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::capture::redact;
use crate::capture::url::without_credentials;

/// Packages that are told.
const PACKAGE_COUNT_MAX: usize = 10_000;
/// Entries of the directories that are looked at.
const ENTRY_COUNT_MAX: usize = 200_000;
/// Bytes of a package's description that are read: what is asked for stands at its beginning.
const HEADER_BYTES_MAX: u64 = 16 << 10;
/// Characters of a version that are kept.
const VERSION_CHARACTERS_MAX: usize = 500;

/// Name to version, as `pip freeze` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packages {
    pub versions: BTreeMap<String, String>,
    /// Whether there were more.
    pub is_cut: bool,
}

/// Where a package came from that is not from an index (PEP 610).
#[derive(Deserialize)]
struct Origin {
    url: String,
    vcs_info: Option<Vcs>,
    dir_info: Option<Directory>,
}

#[derive(Deserialize)]
struct Vcs {
    vcs: String,
    commit_id: String,
}

#[derive(Deserialize)]
struct Directory {
    #[serde(default)]
    editable: bool,
}

/// The packages that an interpreter with this search path finds: of one name the first counts.
pub fn packages(search_path: &[PathBuf]) -> Packages {
    let mut found: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut seen = 0;
    for directory in search_path {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut places: Vec<PathBuf> = Vec::new();
        for entry in entries {
            seen += 1;
            if ENTRY_COUNT_MAX < seen {
                return Packages { versions: by_name(found), is_cut: true };
            }
            let name = entry.file_name();
            let is_info = |name: &str| name.ends_with(".dist-info") || name.ends_with(".egg-info");
            if name.to_str().is_some_and(is_info) {
                places.push(entry.path());
            }
        }
        places.sort();
        for (name, version) in places.iter().filter_map(|place| describe(place)) {
            if found.len() == PACKAGE_COUNT_MAX && !found.contains_key(&normal(&name)) {
                return Packages { versions: by_name(found), is_cut: true };
            }
            found.entry(normal(&name)).or_insert((name, version));
        }
    }
    Packages { versions: by_name(found), is_cut: false }
}

fn by_name(found: BTreeMap<String, (String, String)>) -> BTreeMap<String, String> {
    found.into_values().collect()
}

/// Names that differ only so are one package (PEP 503).
fn normal(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_lowercase()
}

/// Name and version of what `place` tells of.
fn describe(place: &Path) -> Option<(String, String)> {
    // The old form may be a file by itself.
    let files = [place.join("METADATA"), place.join("PKG-INFO"), place.to_owned()];
    let header = files.iter().find_map(|file| header(file))?;
    let field = |name: &str| {
        let lines = header.lines().take_while(|line| !line.is_empty());
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value: String = values.next()?.trim().chars().take(VERSION_CHARACTERS_MAX).collect();
        Some(value).filter(|value| !value.is_empty())
    };
    let (name, mut version) = (field("Name")?, field("Version")?);
    if let Some(origin) = header_of_origin(place) {
        version += &origin;
    }
    Some((name, version))
}

/// ` @ git+https://…@commit`, of what was installed from elsewhere.
fn header_of_origin(place: &Path) -> Option<String> {
    let Origin { url, vcs_info, dir_info } =
        serde_json::from_str(&header(&place.join("direct_url.json"))?).ok()?;
    let url = redact::text(&without_credentials(&url));
    let shown = match (vcs_info, dir_info) {
        (Some(Vcs { vcs, commit_id }), _) => format!(" @ {vcs}+{url}@{commit_id}"),
        (None, Some(Directory { editable: true })) => format!(" @ {url} (editable)"),
        (None, _) => format!(" @ {url}"),
    };
    Some(shown.chars().take(VERSION_CHARACTERS_MAX).collect())
}

fn header(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file =
        path.metadata().ok().filter(fs::Metadata::is_file).and_then(|_| File::open(path).ok());
    file?.take(HEADER_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_told_as_pip_freeze_does() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "a/scikit_learn-1.5.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: scikit-learn\nVersion: 1.5\n\nName: x\n",
        );
        write("a/mine-0.1.dist-info/METADATA", "Name: mine\nVersion: 0.1\n");
        write(
            "a/mine-0.1.dist-info/direct_url.json",
            r#"{"url": "file:///home/ann/mine", "dir_info": {"editable": true}}"#,
        );
        write("a/theirs-2.dist-info/METADATA", "Name: theirs\nVersion: 2\n");
        write(
            "a/theirs-2.dist-info/direct_url.json",
            r#"{"url": "https://ann:pw@host/theirs.git", "vcs_info": {"vcs": "git", "commit_id": "1f0c"}}"#,
        );
        write("a/broken-1.dist-info/METADATA", "nothing");
        write("a/empty-1.dist-info/other", "");
        write("b/old.egg-info", "Name: Old.Thing\nVersion: 3\n");
        write("b/older.egg-info/PKG-INFO", "Name: older\nVersion: 4\n");
        write("b/Scikit.Learn-0.1.dist-info/METADATA", "Name: Scikit_Learn\nVersion: 0.1\n");
        let paths = ["a", "none", "b", "b/old.egg-info"].map(|name| root.path().join(name));
        let found = packages(&paths);
        let expected = [
            ("Old.Thing", "3"),
            ("mine", "0.1 @ file:///home/ann/mine (editable)"),
            ("older", "4"),
            ("scikit-learn", "1.5"),
            ("theirs", "2 @ git+https://host/theirs.git@1f0c"),
        ];
        let expected = expected.map(|(name, version)| (name.to_owned(), version.to_owned()));
        assert_eq!(found, Packages { versions: expected.into(), is_cut: false });
    }
}
