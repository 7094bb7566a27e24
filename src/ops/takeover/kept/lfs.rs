//! Git LFS: small files that name the SHA-256 of what they stand for, and where that is kept.
//!
//! Source: `docs/spec.md` of git-lfs. A place that `lfs.storage` names is not looked at.

use std::path::{Path, PathBuf};

use super::{Keeper, Kept, Said, read_text};
use crate::ops::takeover::kinds::POINTER;

/// A pointer is shorter than this.
pub(super) const POINTER_BYTES_MAX: u64 = 1024;
/// Hexadecimal digits of a SHA-256.
const OID_DIGITS: usize = 64;

/// Where the objects of a working tree are; `git` is its `.git`, a directory or a file that names one.
pub(super) fn objects(git: &Path) -> Option<PathBuf> {
    let directory = match git.is_dir() {
        true => git.to_owned(),
        false => {
            let text = read_text(git).ok()?;
            git.parent()?.join(text.strip_prefix("gitdir:")?.trim())
        }
    };
    // Working trees of one repository have it in common.
    let common = match read_text(&directory.join("commondir")) {
        Ok(common) => directory.join(common.trim()),
        Err(_none) => directory,
    };
    let objects = common.join("lfs/objects").canonicalize().ok()?;
    objects.is_dir().then_some(objects)
}

/// What a pointer stands for.
pub(super) fn said(path: &Path, bytes: &[u8], objects: &Path) -> Option<Said> {
    let text = std::str::from_utf8(bytes.strip_prefix(&POINTER[..])?).ok()?;
    let oid = text.lines().find_map(|line| line.strip_prefix("oid sha256:"))?;
    if oid.len() != OID_DIGITS || !oid.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let object = objects.join(&oid[..2]).join(&oid[2..4]).join(oid);
    let files = vec![Kept { path: path.to_owned(), object }];
    Some(Said { keeper: Keeper::GitLfs, path: path.to_owned(), files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_names_its_object() {
        let of = |text: &str| said(Path::new("/w/m.onnx"), text.as_bytes(), Path::new("/o"));
        let head = "version https://git-lfs.github.com/spec/v1\n";
        let oid = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";
        let found = of(&format!("{head}oid sha256:{oid}\nsize 12345\n")).unwrap();
        assert_eq!(found.files[0].object, Path::new(&format!("/o/4d/7a/{oid}")));
        for wrong in ["", "oid sha256:../../../../etc/passwd\n", "oid sha256:4d7a\n", "size 1\n"] {
            assert_eq!(of(&format!("{head}{wrong}")), None, "{wrong}");
        }
        assert_eq!(of(&format!("oid sha256:{oid}\n")), None);
    }

    #[test]
    fn objects_are_those_of_the_repository_of_a_working_tree() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let git = root.join("main/.git");
        std::fs::create_dir_all(git.join("lfs/objects")).unwrap();
        std::fs::create_dir_all(git.join("worktrees/side")).unwrap();
        std::fs::create_dir(root.join("side")).unwrap();
        std::fs::write(git.join("worktrees/side/commondir"), "../..\n").unwrap();
        std::fs::write(root.join("side/.git"), "gitdir: ../main/.git/worktrees/side\n").unwrap();
        assert_eq!(objects(&git), Some(git.join("lfs/objects")));
        assert_eq!(objects(&root.join("side/.git")), Some(git.join("lfs/objects")));
        assert_eq!(objects(&root.join("none/.git")), None);
    }
}
