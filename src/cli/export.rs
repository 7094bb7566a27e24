//! `modelfs export`: the one verb that may need two questions, as the key stays here.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::args::{Export, ExportFormat};
use super::failure::{failure_with_hint, of_config, of_io};
use super::mount::Shown;
use super::{ask, config, print, render};
use crate::format::names::Reference;
use crate::ops::{self, Document, ExportOptions, Failure, FailureKind, Report, Request};

/// Longest key.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// Has a version written, and says what was.
///
/// # Errors
/// `Usage` for options that do not go together or a key that cannot sign, else the verb's.
pub fn run(export: &Export, store: &Path, shown: Shown) -> Result<(), Failure> {
    let directory = config::absolute(&export.directory).map_err(|e| of_config(&e))?;
    check(export)?;
    let mut reference = export.reference.clone();
    let mut documents = Vec::new();
    if export.sha256sums {
        documents.push(Document::Sha256Sums);
    }
    for format in &export.format {
        let document = match format {
            ExportFormat::CycloneDx => Document::CycloneDx,
            ExportFormat::Mlflow => Document::Mlflow,
            ExportFormat::ModelSigning => {
                let key = export.key.as_deref().expect("checked above");
                let (signed, bundle) = signature(&reference, key, store)?;
                // What was signed is what is written, wherever an alias moves meanwhile.
                reference = signed;
                Document::Signature { bundle }
            }
        };
        if !documents.contains(&document) {
            documents.push(document);
        }
    }
    let documents_only = export.documents_only;
    let options = ExportOptions { reference, directory, documents, documents_only };
    let report = ask(Request::Export(options), store)?;
    print(&match shown {
        Shown::Text => render::text(&report),
        Shown::Json => render::json(&report),
    })
}

/// Options that go together.
fn check(export: &Export) -> Result<(), Failure> {
    let usage = |message: &str| {
        Err(failure_with_hint(FailureKind::Usage, message, "modelfs export --help"))
    };
    let signs = export.format.contains(&ExportFormat::ModelSigning);
    match (signs, &export.key) {
        (true, None) => return usage("`--format model-signing` needs a key: `--key FILE`"),
        (false, Some(_)) => return usage("`--key` goes with `--format model-signing`"),
        _ => {}
    }
    if export.documents_only && export.format.is_empty() && !export.sha256sums {
        return usage("`--documents-only` without a document leaves nothing to write");
    }
    Ok(())
}

/// The version by its number, and its signature.
fn signature(
    reference: &Reference,
    key: &Path,
    store: &Path,
) -> Result<(Reference, String), Failure> {
    let pem = read_key(key)?;
    let request = Request::Statement { reference: reference.clone() };
    let Report::Statement(statement) = ask(request, store)? else {
        unreachable!("a verb answers with its report");
    };
    let bundle = ops::sign(&statement.payload, &pem).map_err(|error| Failure {
        because: vec![error.to_string()],
        ..failure_with_hint(
            FailureKind::Usage,
            format!("cannot sign with `{}`", key.display()),
            "openssl ecparam -name prime256v1 -genkey -noout -out key.pem",
        )
    })?;
    Ok((statement.reference, bundle))
}

fn read_key(path: &Path) -> Result<String, Failure> {
    let failed = |error| of_io(format!("cannot read `{}`", path.display()), &error);
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(KEY_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}
