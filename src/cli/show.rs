//! `modelfs show`: one version, with its files, of which there may be a million: they are printed as they are
//! read.

use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use super::args::Show;
use super::client::{Absent, Session};
use super::failure::failure;
use super::mount::Shown;
use super::{print, render, write_out};
use crate::format::metadata::{self, ListedFile};
use crate::format::names::{At, Reference};
use crate::ops::{Failure, FailureKind, NoProgress, Report, Request};
use crate::present::table::{bytes, printable};

/// Text that is printed at once: what is shorter is printed whole or not at all.
const PRINT_BYTES: usize = 1 << 20;

/// Prints a version.
///
/// # Errors
/// Those of the way to the store and of the verbs; `Damaged` where its list of files is none.
pub fn run(show: &Show, store: &Path, shown: Shown) -> Result<(), Failure> {
    let session = Session::open(store.into(), Absent::Refuse)?;
    let asked = Request::Show { reference: show.reference.clone() };
    let answer = session.run(asked, &NoProgress)?;
    let Report::Version { summary, .. } = &answer else {
        unreachable!("a verb answers with its report");
    };
    // By its number: an alias may move while it is read.
    let (model, at) = (show.reference.model.clone(), At::Version(summary.version));
    let mut text = MetadataText::new(&session, Reference { model, at });
    match shown {
        Shown::Text => print_text(&answer, text),
        Shown::Json => {
            let summary = serde_json::to_value(summary).expect("a report has text keys only");
            print_json(&summary, &mut text)
        }
    }
}

/// `metadata.json` as it is, and the summary.
fn print_json(summary: &Value, text: &mut MetadataText<'_>) -> Result<(), Failure> {
    let mut out = "{\"metadata\":".to_owned();
    while let Some(part) = text.next_part()? {
        out += part.trim_end_matches('\n');
        if PRINT_BYTES <= out.len() {
            if write_out(&out).is_err() {
                break;
            }
            out.clear();
        }
    }
    print(&format!("{out},\"summary\":{summary}}}\n"))
}

/// What a person wants to know, and a table of the files.
fn print_text(answer: &Report, mut text: MetadataText<'_>) -> Result<(), Failure> {
    let mut out = render::text(answer) + "\n" + &file_line("SIZE", "SHA-256", "FILE");
    let mut each = |ListedFile { size, sha256, path, .. }: ListedFile| {
        out += &file_line(&size.map_or_else(String::new, bytes), &sha256, &path);
        if out.len() < PRINT_BYTES {
            return ControlFlow::Continue(());
        }
        if write_out(&out).is_err() {
            return ControlFlow::Break(());
        }
        out.clear();
        ControlFlow::Continue(())
    };
    let read = metadata::read_files(BufReader::new(&mut text), &mut each);
    match (text.failed, read) {
        (Some(failed), _) => Err(failed),
        (None, Err(error)) => {
            let of = text.reference;
            let message = format!("cannot understand the `metadata.json` of `{of}`");
            let because = vec![error.to_string()];
            Err(Failure { because, ..failure(FailureKind::Damaged, message) })
        }
        (None, Ok(())) => print(&out),
    }
}

/// A line of the table of files. A size has eight characters at most.
fn file_line(size: &str, sha256: &str, path: &str) -> String {
    format!("{size:>8}  {:64}  {}\n", printable(sha256), printable(path))
}

/// The text of the `metadata.json` of a version, as it is read.
struct MetadataText<'a> {
    session: &'a Session<'a>,
    reference: Reference,
    /// Bytes that were asked for before.
    offset: u64,
    part: Vec<u8>,
    /// Bytes of the part that were read.
    at: usize,
    /// Why there was no next part: who parses the text knows errors of the system only.
    failed: Option<Failure>,
}

impl<'a> MetadataText<'a> {
    fn new(session: &'a Session<'a>, reference: Reference) -> Self {
        Self { session, reference, offset: 0, part: Vec::new(), at: 0, failed: None }
    }

    /// The next part; `None` at the end.
    fn next_part(&mut self) -> Result<Option<String>, Failure> {
        let (reference, offset) = (self.reference.clone(), self.offset);
        let answer = self.session.run(Request::Metadata { reference, offset }, &NoProgress)?;
        let Report::Metadata { part } = answer else {
            unreachable!("a verb answers with its report");
        };
        self.offset += part.len() as u64;
        Ok(if part.is_empty() { None } else { Some(part) })
    }
}

impl Read for MetadataText<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.part.len() {
            let next = self.next_part().map_err(|failed| {
                let text = failed.message.clone();
                self.failed = Some(failed);
                io::Error::other(text)
            })?;
            (self.part, self.at) = (next.unwrap_or_default().into_bytes(), 0);
        }
        let count = (&self.part[self.at..]).read(out)?;
        self.at += count;
        Ok(count)
    }
}
