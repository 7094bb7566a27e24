//! `modelfs diff` and `modelfs log`: reports in several forms.

use std::path::Path;

use super::args::{Diff, Log};
use super::failure::of_io;
use super::mount::Shown;
use super::table::{bytes, printable};
use super::{ask, print, render};
use crate::ops::{DiffOptions, DiffReport, Failure, LogOptions, LogReport, Report, Request};
use crate::present;

/// Versions whose metrics a page shows.
const PAGE_VERSIONS_MAX: usize = 200;

/// Compares two versions and prints what changed, or writes a page of it.
pub fn run(diff: &Diff, store: &Path, shown: Shown) -> Result<(), Failure> {
    let Diff { before, after, markdown, html } = diff.clone();
    let report = ask(Request::Diff(DiffOptions { before, after }), store)?;
    let text = match (&report, shown) {
        (Report::Diff(report), Shown::Text) => match html {
            Some(file) => return write_page(report, &file, store),
            None if markdown => present::markdown(&present::diff(report, present::ROWS_SHOWN)),
            None => text(report),
        },
        (report, Shown::Text) => render::text(report),
        (report, Shown::Json) => render::json(report),
    };
    print(&text)
}

fn write_page(report: &DiffReport, file: &Path, store: &Path) -> Result<(), Failure> {
    let (model, metrics) = (report.after.model.clone(), Vec::new());
    let log = ask_log(LogOptions { model, metrics, last: Some(PAGE_VERSIONS_MAX) }, store)?;
    let page = present::html(&present::diff_page(report, &log));
    let shown = printable(&file.display().to_string());
    std::fs::write(file, &page)
        .map_err(|error| of_io(format!("cannot write `{shown}`"), &error))?;
    print(&format!("{shown}: {}\n", bytes(page.len() as u64)))
}

/// Tells of the versions of a model.
pub fn run_log(log: &Log, store: &Path, shown: Shown) -> Result<(), Failure> {
    let Log { model, metric, last, plot } = log.clone();
    let metrics = plot.iter().cloned().chain(metric).collect::<Vec<_>>();
    let report = ask_log(LogOptions { model, metrics: metrics.clone(), last }, store)?;
    print(&match (plot, shown) {
        (Some(metric), _) => present::history_alone(&report, &metric),
        (None, Shown::Text) => log_text(&report, &metrics),
        (None, Shown::Json) => render::json(&Report::Log(report)),
    })
}

fn ask_log(options: LogOptions, store: &Path) -> Result<LogReport, Failure> {
    match ask(Request::Log(options), store)? {
        Report::Log(report) => Ok(report),
        _ => unreachable!("a log is answered by one"),
    }
}

/// The report as plain text.
pub fn text(report: &DiffReport) -> String {
    present::text(&present::diff(report, present::ROWS_SHOWN))
}

/// The versions as a table with these metrics.
pub fn log_text(report: &LogReport, metrics: &[String]) -> String {
    present::text(&present::log(report, metrics))
}
