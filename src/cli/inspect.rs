//! `modelfs inspect`: what model files say of themselves, of a version or on disk.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use super::args::Inspect;
use super::describe::{self, Tensors};
use super::failure::{failure_with_hint, of_io};
use super::mount::Shown;
use super::{ask, print, render};
use crate::format::names::Reference;
use crate::inspect::ReadAt;
use crate::ops::{Failure, FailureKind, InspectOptions, InspectedFile, Report, Request};

/// A file on disk.
struct OnDisk {
    file: File,
    bytes: u64,
}

impl ReadAt for OnDisk {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Looks into a file on disk, or into files of a version; `store` is asked for only then.
///
/// # Errors
/// `Usage` for what is neither, else the verb's or those of reading.
pub fn run(
    arguments: &Inspect,
    store: impl FnOnce() -> Result<PathBuf, Failure>,
    shown: Shown,
) -> Result<(), Failure> {
    let tensors = if arguments.tensors { Tensors::All } else { Tensors::Few };
    if let Some(file) = find_on_disk(&arguments.target)? {
        let failed = |e| of_io(format!("cannot inspect `{}`", arguments.target.display()), &e);
        let found = InspectedFile::of(&arguments.target, &file).map_err(failed)?;
        return print(&match shown {
            Shown::Text => describe::file(&found, tensors),
            Shown::Json => {
                serde_json::to_string(&found).expect("a description has text keys only") + "\n"
            }
        });
    }
    let (reference, inside) = parse_target(&arguments.target)?;
    let path = match (inside, &arguments.path) {
        (inside, None) => inside,
        (None, Some(path)) => Some(path.clone()),
        (Some(inside), Some(path)) => Some(inside.join(path)),
    };
    let report = ask(Request::Inspect(InspectOptions { reference, path }), store()?.as_path())?;
    print(&match (&report, shown) {
        (Report::Inspect(report), Shown::Text) => describe::text(report, tensors),
        (report, Shown::Text) => render::text(report),
        (report, Shown::Json) => render::json(report),
    })
}

/// The regular file at a path, if there is one.
fn find_on_disk(path: &Path) -> Result<Option<OnDisk>, Failure> {
    let failed = |e: &io::Error| of_io(format!("cannot open `{}`", path.display()), e);
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {
            let file = File::open(path).map_err(|e| failed(&e))?;
            Ok(Some(OnDisk { file, bytes: found.len() }))
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(&error)),
        // A path that can be no reference is told as what it is.
        Err(error) if !looks_like_reference(path) => Err(failed(&error)),
        Ok(_) | Err(_) => Ok(None),
    }
}

fn looks_like_reference(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// `churn/v7/weights/a.onnx` as a version and a path in it.
fn parse_target(target: &Path) -> Result<(Reference, Option<PathBuf>), Failure> {
    let wrong = |why: String| {
        let hint =
            "name a file, MODEL, MODEL/vN, MODEL/ALIAS, or a path below one: churn/v7/weights.onnx";
        let message = format!("`{}` is neither a file nor in a version", target.display());
        Failure { because: vec![why], ..failure_with_hint(FailureKind::Usage, message, hint) }
    };
    if !looks_like_reference(target) {
        return Err(wrong("there is no regular file there".to_owned()));
    }
    let mut parts = target.components();
    let named: PathBuf = parts.by_ref().take(2).collect();
    let inside = parts.as_path();
    let reference = named.to_str().unwrap_or_default().parse::<Reference>();
    let reference = reference.map_err(|error| wrong(error.to_string()))?;
    Ok((reference, (inside.as_os_str() != OsStr::new("")).then(|| inside.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_version_and_a_path_in_it() {
        let check = |target: &str, expected: Option<(&str, Option<&str>)>| {
            let found = parse_target(Path::new(target)).ok();
            let found = found.map(|(reference, path)| (reference.to_string(), path));
            let expected =
                expected.map(|(reference, path)| (reference.to_owned(), path.map(PathBuf::from)));
            assert_eq!(found, expected, "{target}");
        };
        check("churn", Some(("churn/latest", None)));
        check("churn/v7", Some(("churn/v7", None)));
        check("churn/v7/", Some(("churn/v7", None)));
        check("churn/prod/a/b.onnx", Some(("churn/prod", Some("a/b.onnx"))));
        check("/churn/v7", None);
        check("../churn", None);
        check("churn/draft", None);
        check("", None);
    }
}
