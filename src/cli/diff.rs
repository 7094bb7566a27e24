//! `modelfs diff`: one report in several forms.

use std::path::Path;

use super::args::Diff;
use super::mount::Shown;
use super::{ask, print, render};
use crate::ops::{DiffOptions, DiffReport, Failure, Report, Request};
use crate::present;

/// Compares two versions and prints what changed.
pub fn run(diff: &Diff, store: &Path, shown: Shown) -> Result<(), Failure> {
    let Diff { before, after, markdown } = diff.clone();
    let report = ask(Request::Diff(DiffOptions { before, after }), store)?;
    let text = match (&report, shown) {
        (Report::Diff(report), Shown::Text) if markdown => {
            present::markdown(&present::diff(report, present::ROWS_SHOWN))
        }
        (report, Shown::Text) => render::text(report),
        (report, Shown::Json) => render::json(report),
    };
    print(&text)
}

/// The report as plain text.
pub fn text(report: &DiffReport) -> String {
    present::text(&present::diff(report, present::ROWS_SHOWN))
}
