//! `fingerprint`: what data holds. Needs no store.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::args::FingerprintArguments;
use super::failure::{failure_with_hint, of_io};
use super::mount::Shown;
use super::progress::Bar;
use super::table::{Align, Table, bytes, count, printable};
use crate::capture::data::{self, ColumnSummary, DataError, Fingerprint, Stamp, Watcher};
use crate::format::path;
use crate::ops::{Failure, FailureKind, Progress};

/// A fingerprint with the path that it was asked for by.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(with = "path")]
    path: &'a Path,
    #[serde(flatten)]
    found: &'a Fingerprint,
}

/// Takes the fingerprints and prints them, all or none.
pub fn run(arguments: &FingerprintArguments, shown: Shown) -> Result<(), Failure> {
    let bar = Bar::default();
    let mut found = Vec::new();
    for path in &arguments.paths {
        found.push(take(path, &bar, &|| true)?.0);
    }
    drop(bar);
    let told = arguments.paths.iter().zip(&found).map(|(path, found)| Told { path, found });
    super::print(&match (shown, arguments.digest) {
        (Shown::Json, _) => {
            let told: Vec<_> = told.collect();
            serde_json::to_string(&told).expect("a fingerprint has text keys only") + "\n"
        }
        (Shown::Text, true) => found.iter().map(|it| format!("{}\n", it.digest)).collect(),
        (Shown::Text, false) => told.map(|told| text(&told)).collect::<Vec<_>>().join("\n"),
    })
}

/// Whether work goes on.
pub type IsWanted<'a> = &'a (dyn Fn() -> bool + Sync);

/// The fingerprint of what is at `path`, with all cores.
///
/// # Errors
/// Where it cannot be read, changed meanwhile, or is wanted no more.
pub fn take(
    path: &Path,
    bar: &Bar,
    is_wanted: IsWanted<'_>,
) -> Result<(Fingerprint, Stamp), Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = data::fingerprint(path, threads, &Shower { path, bar, is_wanted });
    found.map_err(|error| of_data(&error))
}

/// Why there is no fingerprint, as a failure.
fn of_data(error: &DataError) -> Failure {
    let message = error.to_string();
    match error {
        DataError::Io { source, .. } => of_io(message, source),
        DataError::Changed { .. } => {
            let hint = "stop what is writing to it, then try again";
            failure_with_hint(FailureKind::Busy, message, hint)
        }
        DataError::Unfit { .. } | DataError::Large { .. } => {
            failure_with_hint(FailureKind::CouldNot, message, "name files or smaller directories")
        }
        DataError::Stopped => of_io(message, &io::Error::from(io::ErrorKind::Interrupted)),
    }
}

/// Shows on a bar how far it is.
struct Shower<'a> {
    path: &'a Path,
    bar: &'a Bar,
    is_wanted: IsWanted<'a>,
}

impl Watcher for Shower<'_> {
    fn begin(&self, bytes_total: u64) {
        self.bar.begin(&format!("reading {}", self.path.display()), bytes_total);
    }

    fn advance(&self, bytes: u64) -> bool {
        Progress::advance(self.bar, bytes);
        (self.is_wanted)()
    }
}

fn text(told: &Told<'_>) -> String {
    let Told { path, found } = told;
    let mut text = format!("{}\n", printable(&path.display().to_string()));
    text += &format!("  digest  {}\n", found.digest);
    text += &format!("  size    {}, {}\n", bytes(found.bytes), count(found.files, "file"));
    if let Some(rows) = found.rows {
        let format = found.format.as_ref().map_or_else(String::new, |format| format!("{format}, "));
        let columns = match found.schema.len() as u64 {
            0 => String::new(),
            columns => format!(", {}", count(columns, "column")),
        };
        text += &format!("  table   {format}{}{columns}\n", count(rows, "row"));
    }
    for note in &found.notes {
        text += &format!("  note    {}\n", printable(note));
    }
    if !found.schema.is_empty() {
        text += &columns(&found.schema);
    }
    text
}

fn columns(schema: &[ColumnSummary]) -> String {
    let heads = ["MISSING", "DISTINCT", "MIN", "MAX", "MEAN", "STD"];
    let heads = heads.map(|head| (head, Align::Right));
    let mut table =
        Table::new(&[&[("COLUMN", Align::Left), ("TYPE", Align::Left)][..], &heads].concat());
    let whole = |number: Option<u64>| number.map_or_else(String::new, |it| it.to_string());
    let float = |float: Option<f64>| float.map_or_else(String::new, |it| format!("{it:.6}"));
    for column in schema {
        let kind = serde_json::to_value(column.kind).unwrap_or_default();
        // Of texts their lengths, as they are all that is told.
        let bound = |value: &Option<Value>, length: Option<u64>| match (value, length) {
            (Some(Value::String(text)), _) => text.clone(),
            (Some(value), _) => value.to_string(),
            (None, Some(length)) => format!("{length} B"),
            (None, None) => String::new(),
        };
        let about = if column.distinct_estimated { "~" } else { "" };
        table.row([
            column.name.clone(),
            kind.as_str().unwrap_or_default().to_owned(),
            whole(column.missing),
            format!("{about}{}", whole(column.distinct)),
            bound(&column.min, column.length_min),
            bound(&column.max, column.length_max),
            float(column.mean),
            float(column.std),
        ]);
    }
    format!("\n{}", table.render())
}
