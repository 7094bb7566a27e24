//! The log of a model as a document, and its metrics as plots.

use std::collections::BTreeMap;

use super::document::{Cell, Document, Grid};
use super::figures::rounded;
use super::plot::{self, Point};
use super::table::{Align, bytes, time};
use crate::format::names::LATEST;
use crate::ops::{LogReport, LogVersion};

/// Metrics that are shown where nobody chose any.
const METRICS_SHOWN: usize = 6;
/// Digits of a metric that are shown.
const METRIC_DIGITS: u8 = 6;
/// Characters of a message that are shown.
const MESSAGE_CHARACTERS_MAX: usize = 40;

/// The versions as a table; with these metrics, or with those that most of them have.
pub fn log(report: &LogReport, metrics: &[String]) -> Document {
    let mut document = Document::new(report.model.to_string());
    if report.versions.is_empty() {
        document.note("no versions yet");
        return document;
    }
    let metrics = if metrics.is_empty() { usual(report) } else { metrics.to_vec() };
    let mut columns = vec![("VERSION".to_owned(), Align::Left), ("SEALED".to_owned(), Align::Left)];
    columns.extend(metrics.iter().map(|metric| (metric.clone(), Align::Right)));
    for (head, align) in [("SIZE", Align::Right), ("NEW", Align::Right)] {
        columns.push((head.to_owned(), align));
    }
    for head in ["ALIASES", "MESSAGE"] {
        columns.push((head.to_owned(), Align::Left));
    }
    let mut grid = Grid::new(&columns);
    for version in &report.versions {
        grid.row(row(version, &metrics));
    }
    document.grid(grid);
    if report.left_out != 0 {
        document.note(format!("and {} before these", report.left_out));
    }
    document
}

fn row(version: &LogVersion, metrics: &[String]) -> Vec<Cell> {
    let summary = &version.summary;
    let mut cells = vec![summary.version.to_string().into(), time(summary.sealed).into()];
    cells.extend(metrics.iter().map(|metric| {
        let value = version.metrics.get(metric);
        let number = value.and_then(serde_json::Value::as_f64);
        match (number, value) {
            (Some(number), _) => rounded(number, METRIC_DIGITS).into(),
            (None, Some(value)) => super::diff::value(Some(value)).into(),
            (None, None) => Cell::from(""),
        }
    }));
    let message = summary.message.lines().next().unwrap_or_default();
    let mut short: String = message.chars().take(MESSAGE_CHARACTERS_MAX).collect();
    if short.len() < summary.message.trim_end().len() {
        short.push('…');
    }
    cells.extend([
        bytes(summary.bytes).into(),
        bytes(summary.stored_bytes).into(),
        summary.aliases.join(" ").into(),
        short.into(),
    ]);
    cells
}

/// The numbers that most versions have, in the order of their names.
fn usual(report: &LogReport) -> Vec<String> {
    let mut counts: BTreeMap<&String, u64> = BTreeMap::new();
    for version in &report.versions {
        for (metric, value) in &version.metrics {
            if value.is_number() {
                *counts.entry(metric).or_default() += 1;
            }
        }
    }
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut shown: Vec<String> =
        sorted.into_iter().take(METRICS_SHOWN).map(|(metric, _)| metric.clone()).collect();
    shown.sort();
    shown
}

/// A metric over the versions; those with an alias, or in `marks`, stand out.
pub fn history(report: &LogReport, metric: &str, marks: &[(u64, &str)]) -> String {
    let point = |version: &LogVersion| {
        let number = version.summary.version;
        let mark = marks.iter().find(|(marked, _)| *marked == number.get());
        let aliases: Vec<&str> = version.summary.aliases.iter().map(String::as_str).collect();
        let aliases = aliases.into_iter().filter(|alias| *alias != LATEST).collect::<Vec<_>>();
        let mark = match mark {
            Some((_, word)) => Some((*word).to_owned()),
            None if marks.is_empty() && !aliases.is_empty() => Some(aliases.join(" ")),
            None => None,
        };
        let value = version.metrics.get(metric).and_then(serde_json::Value::as_f64);
        Point { label: number.to_string(), value: value.filter(|it| it.is_finite()), mark }
    };
    let points: Vec<Point> = report.versions.iter().map(point).collect();
    plot::line(metric, &points)
}

/// The same as a file of its own.
pub fn history_alone(report: &LogReport, metric: &str) -> String {
    plot::alone(&history(report, metric, &[]))
}
