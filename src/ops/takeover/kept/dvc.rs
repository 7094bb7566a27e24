//! DVC: `.dvc` files and `dvc.lock` name the MD5 of outputs; the bytes are in a cache.
//!
//! Source: the pages "DVC files" and "Internal directories and files" of DVC's user guide. Caches of
//! releases before 3.0 have no `files/md5`.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::{Keeper, Kept, SAYING_BYTES_MAX, Said, read_short, read_text};
use crate::capture::document;

/// Where DVC keeps what is at hand, if nothing else is said; below its directory.
const CACHE: &str = "cache";
/// Files with settings, the last of which counts.
const SETTINGS: [&str; 2] = ["config", "config.local"];
/// Longest list of the files of a directory, in bytes.
const LIST_BYTES_MAX: u64 = 16 * SAYING_BYTES_MAX;
/// Behind the digest of a list of files.
const LIST_END: &str = ".dir";
/// Hexadecimal digits of an MD5.
const MD5_DIGITS: usize = 32;

/// Whether a file of this name says something of outputs.
pub(super) fn is_one(path: &Path) -> bool {
    let is_named = path.extension().is_some_and(|end| end == "dvc") && path.file_stem().is_some();
    is_named || path.ends_with("dvc.lock")
}

/// The cache of a `.dvc` directory.
pub(super) fn cache(dvc: &Path) -> PathBuf {
    let named = SETTINGS.iter().rev().find_map(|settings| {
        let text = read_text(&dvc.join(settings)).ok()?;
        cache_named_by(&text)
    });
    dvc.join(named.as_deref().unwrap_or(CACHE))
}

/// `dir` of the section `cache`.
fn cache_named_by(settings: &str) -> Option<String> {
    let mut lines = settings.lines().map(str::trim);
    lines.find(|line| *line == "[cache]")?;
    let section = lines.take_while(|line| !line.starts_with('['));
    let mut pairs = section.filter_map(|line| line.split_once('='));
    pairs.find(|(key, _)| key.trim() == "dir").map(|(_, value)| value.trim().to_owned())
}

/// The outputs that a file names.
pub(super) fn said(path: &Path, bytes: &[u8], cache: &Path) -> Vec<Said> {
    let (Ok(text), Some(folder)) = (document::yaml(bytes), path.parent()) else {
        return Vec::new();
    };
    let below =
        |directory: &Value| directory.as_str().map_or(folder.to_owned(), |it| folder.join(it));
    let mut said = said_by_all(&text, &below(&text["wdir"]), cache);
    let Some(stages) = text["stages"].as_object() else { return said };
    // A lock does not repeat where its stages run.
    let pipeline = read_short(&folder.join("dvc.yaml"), SAYING_BYTES_MAX).ok();
    let pipeline = pipeline.and_then(|it| document::yaml(&it).ok()).unwrap_or_default();
    for (name, stage) in stages {
        let definition = &pipeline["stages"][name.split('@').next().unwrap_or(name)];
        said.extend(said_by_all(stage, &below(&definition["wdir"]), cache));
    }
    said
}

fn said_by_all(outputs: &Value, place: &Path, cache: &Path) -> Vec<Said> {
    let outputs = outputs["outs"].as_array().into_iter().flatten();
    outputs.filter_map(|output| said_by(output, place, cache)).collect()
}

/// One output; the list of a directory that is not there has no files.
fn said_by(output: &Value, place: &Path, cache: &Path) -> Option<Said> {
    let path = plain(&place.join(output["path"].as_str()?))?;
    let digest = output["md5"].as_str()?;
    let keeper = Keeper::Dvc;
    let Some(list) = digest.strip_suffix(LIST_END) else {
        let files = vec![Kept { path: path.clone(), object: object(cache, digest, "")? }];
        return Some(Said { keeper, path, files });
    };
    let list = object(cache, list, LIST_END)?;
    let kept = |(name, digest): (PathBuf, String)| {
        let object = object(cache, &digest, "")?;
        Some(Kept { path: path.join(name), object })
    };
    let files = listed(&list).into_iter().flatten().filter_map(kept).collect();
    Some(Said { keeper, files, path })
}

/// The files of a directory, from its list in the cache.
fn listed(list: &Path) -> Option<Vec<(PathBuf, String)>> {
    let entries = document::json(&read_short(list, LIST_BYTES_MAX).ok()?).ok()?;
    let entry = |entry: &Value| {
        let name = PathBuf::from(entry["relpath"].as_str()?);
        let is_plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        is_plain.then_some((name, entry["md5"].as_str()?.to_owned()))
    };
    Some(entries.as_array()?.iter().filter_map(entry).collect())
}

/// Where the bytes with a digest are, or would be.
fn object(cache: &Path, digest: &str, end: &str) -> Option<PathBuf> {
    if digest.len() != MD5_DIGITS || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (first, rest) = digest.split_at(2);
    let name = format!("{rest}{end}");
    let old = cache.join(first).join(&name);
    Some(if old.exists() { old } else { cache.join("files/md5").join(first).join(name) })
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if !plain.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const DIGESTS: [&str; 3] = [
        "826114fa6b086f61891629af1e9fb070",
        "46abeb7ba49cf6c3adc7b7f349753d7b",
        "8a80554c91d9fca8acb82f023de02f11",
    ];

    #[test]
    fn outputs_are_found_in_the_cache() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let [m, list, a] = DIGESTS;
        let cache = root.join("cache");
        let new = cache.join("files/md5").join(&list[..2]);
        fs::create_dir_all(&new).unwrap();
        let entries = format!(
            r#"[{{"md5": "{a}", "relpath": "x/a.pt"}}, {{"md5": "{a}", "relpath": "../b.pt"}}]"#
        );
        fs::write(new.join(format!("{}.dir", &list[2..])), entries).unwrap();
        let old = cache.join(&a[..2]);
        fs::create_dir_all(&old).unwrap();
        fs::write(old.join(&a[2..]), "").unwrap();
        fs::write(root.join("dvc.yaml"), "stages: {train: {wdir: sub, cmd: x}}").unwrap();
        let check = |name: &str, text: &str, expected: &[(&str, PathBuf)]| {
            let found = said(&root.join(name), text.as_bytes(), &cache);
            let files = found.iter().flat_map(|it| &it.files);
            let found: Vec<_> = files
                .map(|it| {
                    (it.path.strip_prefix(root).unwrap().display().to_string(), it.object.clone())
                })
                .collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(path, object)| ((*path).to_owned(), object.clone()))
                .collect();
            assert_eq!(found, expected, "{text}");
        };
        let absent = cache.join("files/md5").join(&m[..2]).join(&m[2..]);
        let file = format!("outs:\n- md5: {m}\n  hash: md5\n  path: m.npz\n");
        check("d/m.npz.dvc", &file, &[("d/m.npz", absent.clone())]);
        check("d/m.npz.dvc", &format!("wdir: ../e\n{file}"), &[("e/m.npz", absent.clone())]);
        let folder = format!("outs:\n- {{md5: {list}.dir, path: bundle}}\n");
        check("bundle.dvc", &folder, &[("bundle/x/a.pt", old.join(&a[2..]))]);
        let lock = format!("stages:\n  train@1:\n    outs: [{{path: o.pkl, md5: {m}}}]\n");
        check("dvc.lock", &lock, &[("sub/o.pkl", absent)]);
        for wrong in ["", "outs: 7", "outs: [{path: m, md5: ../../x}]", "outs: [{md5: 0}]", ": :"] {
            check("m.dvc", wrong, &[]);
        }
    }

    #[test]
    fn settings_may_name_another_cache() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(cache_named_by(text).as_deref(), expected, "{text}");
        };
        check(
            "[core]\n    dir = x\n[cache]\n    type = symlink\n    dir = /big/cache\n",
            Some("/big/cache"),
        );
        check("[cache]\n    type = symlink\n['remote \"a\"']\n    dir = x\n", None);
        check("", None);
    }
}
