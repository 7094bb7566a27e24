//! Older states of what Git LFS and DVC keep: the commits say when they were there, the objects are there
//! still.

use std::path::{Path, PathBuf};

use super::{Keeper, Said, Stores, look};
use crate::capture::git;
use crate::format::manifest::Mtime;
use crate::ops::takeover::candidate::Noted;
use crate::ops::takeover::kinds::{Role, kind_of};
use crate::ops::takeover::scan::Reading;
use crate::ops::takeover::walk::Found;
use serde_json::json;

/// The label with the commit that a state was in.
const COMMIT: &str = "git_commit";

/// A state of a file or of a directory.
#[derive(Debug)]
pub(in crate::ops::takeover) struct Past {
    /// Below the root.
    pub path: PathBuf,
    pub is_folder: bool,
    pub files: Vec<Reading>,
    pub noted: Noted,
}

/// All states of models in the history of the working trees, the earliest first. What cannot be told, and
/// what is not there any more, is noted among the places that could not be looked at.
pub(in crate::ops::takeover) fn past(found: &mut Found, stores: &Stores) -> Vec<Past> {
    let mut past = Vec::new();
    if stores.is_empty() {
        return past;
    }
    for top in &stores.trees {
        let wants = |path: &Path, bytes: u64| {
            let path = top.join(path);
            path.starts_with(&found.root) && stores.may_say(&path, bytes)
        };
        let files = match git::past(top, &wants) {
            Ok(files) => files,
            Err(error) => {
                found.cannot(top.clone(), format!("its history cannot be read: {error}"));
                continue;
            }
        };
        for file in files {
            for said in stores.said(&top.join(&file.path), &file.bytes) {
                past.extend(state(found, said, &file));
            }
        }
    }
    past
}

/// What a commit had, where that is a model.
fn state(found: &mut Found, said: Said, from: &git::PastFile) -> Option<Past> {
    let path = said.path.strip_prefix(&found.root).ok()?.to_owned();
    let is_folder = said.files.iter().any(|kept| kept.path != said.path);
    let place = if is_folder { said.path.as_path() } else { said.path.parent()? };
    let modified = Mtime { seconds: from.seconds, nanos: 0 };
    let mut files = Vec::new();
    for kept in &said.files {
        let name = kept.path.strip_prefix(place).ok()?.to_owned();
        let known = look(&kept.object).ok();
        let bytes = known.map_or(0, |(bytes, _)| bytes);
        let kind = kind_of(name.file_name()?, &kept.object, bytes);
        if known.is_none() && kind.role == Role::Model {
            let shown = PathBuf::from(format!("{} in {}", path.display(), from.commit.id.short()));
            found.cannot(shown, said.keeper.absent());
            return None;
        }
        let (source, keeper) = (kept.object.clone(), Some(said.keeper));
        files.push(Reading { source, name, bytes, modified, uid: 0, kind, keeper });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.iter().find(|file| file.kind.role == Role::Model)?;
    let noted = noted(said.keeper, from, modified);
    Some(Past { path, is_folder, files, noted })
}

fn noted(keeper: Keeper, from: &git::PastFile, time: Mtime) -> Noted {
    let labels = [
        (COMMIT.to_owned(), json!(from.commit.id)),
        ("git_author".to_owned(), json!(from.commit.author)),
    ];
    Noted {
        keeper: Some(keeper),
        message: from.commit.subject.clone(),
        labels: labels.into(),
        time: Some(time),
        ..Noted::default()
    }
}
