//! A diff as a document: what a person asks first comes first, and long lists are cut.

mod models;

use std::cmp::Ordering;

use serde_json::Value;

use super::document::{Block, Cell, Document, Grid};
use super::figures::{figure, number};
use super::log;
use super::plot::{self, Column};
use super::table::{Align, bytes, count, time};
use crate::ops::{
    DiffReport, DiffSide, EntryForm, EntryKind, Figures, FileChanges, LayerChange, LogReport,
    MetadataChanges, Spread, TensorChange, TensorChanges, TensorForm, ValueChange,
};

/// Rows of each list of a page.
const PAGE_ROWS_MAX: usize = 1_000;
/// Metrics that are plotted.
const METRIC_PLOTS_MAX: usize = 24;
/// Layers that are plotted: more columns than that cannot be told apart.
const LAYER_COLUMNS_MAX: usize = 300;
/// Rows of each list that a person is shown; JSON has them all.
pub const ROWS_SHOWN: usize = 40;
/// Characters of a value that are shown.
const VALUE_CHARACTERS_MAX: usize = 60;

const LEFT: Align = Align::Left;
const RIGHT: Align = Align::Right;

/// What changed, with so many rows of each list.
pub fn diff(report: &DiffReport, rows_max: usize) -> Document {
    page(report, None, rows_max)
}

/// The same with plots: metrics over the versions of a model, and how far each layer went.
pub fn diff_page(report: &DiffReport, log: &LogReport) -> Document {
    page(report, Some(log), PAGE_ROWS_MAX)
}

fn page(report: &DiffReport, log: Option<&LogReport>, rows_max: usize) -> Document {
    let (before, after) = (&report.before, &report.after);
    let mut marks = vec![(after.version.get(), "after")];
    if before.model == after.model {
        marks.insert(0, (before.version.get(), "before"));
    }
    let plots = log.map(|log| Plots { log, marks });
    let mut page = Page { document: Document::new(title(report)), rows_max, plots };
    page.document.grid(sides(before, after));
    page.metadata(&report.metadata);
    page.files(&report.files);
    page.tensors(&report.tensors);
    page.layers(&report.layers);
    page.tensor_lists(&report.tensors);
    models::show(&mut page, report);
    page.document.heading("Cost");
    page.document.note(match report.bytes_read {
        0 => "no file had to be read".to_owned(),
        read => format!("{} of files read to tell this", bytes(read)),
    });
    page.document
}

/// `churn/v6 → churn/v7`
pub fn title(report: &DiffReport) -> String {
    let name = |side: &DiffSide| format!("{}/{}", side.model, side.version);
    format!("{} → {}", name(&report.before), name(&report.after))
}

fn sides(before: &DiffSide, after: &DiffSide) -> Grid {
    let mut grid = Grid::new(&[("", LEFT), ("BEFORE", LEFT), ("AFTER", LEFT)]);
    let mut row = |what: &str, of: fn(&DiffSide) -> String| {
        grid.row([what.into(), of(before).into(), of(after).into()]);
    };
    row("version", |side| format!("{}/{}", side.model, side.version));
    row("sealed", |side| format!("{} by {}", time(side.sealed), side.by));
    row("size", |side| format!("{}, {}", count(side.files, "file"), bytes(side.bytes)));
    row("message", |side| short(side.message.lines().next().unwrap_or_default()));
    row("digest", |side| side.digest.to_string()[..16].to_owned());
    grid
}

/// A document as it grows.
struct Page<'a> {
    document: Document,
    rows_max: usize,
    plots: Option<Plots<'a>>,
}

/// What is plotted in it.
struct Plots<'a> {
    log: &'a LogReport,
    /// Versions that stand out, and the word for each.
    marks: Vec<(u64, &'static str)>,
}

impl Page<'_> {
    /// Adds the first rows of a list and says how many there are more of `total`.
    fn list<T>(&mut self, mut grid: Grid, items: &[T], total: u64, row: impl Fn(&T) -> Vec<Cell>) {
        items.iter().take(self.rows_max).for_each(|item| grid.row(row(item)));
        let more = total.saturating_sub(grid.rows.len() as u64);
        self.document.grid(grid);
        if more != 0 {
            self.document.note(format!("and {more} more, in the JSON"));
        }
    }

    fn metadata(&mut self, changes: &MetadataChanges) {
        let MetadataChanges {
            metrics,
            params,
            labels,
            datasets,
            packages,
            source,
            environment,
            interface,
            user,
        } = changes;
        self.metrics(metrics);
        for (heading, changes) in [
            ("Parameters", params),
            ("Labels", labels),
            ("Packages", packages),
            ("Source", source),
            ("Environment", environment),
            ("Interface", interface),
            ("User metadata", user),
        ] {
            self.values(heading, changes);
        }
        self.values("Datasets", &members(datasets));
    }

    fn metrics(&mut self, metrics: &[ValueChange]) {
        if metrics.is_empty() {
            return;
        }
        self.document.heading("Metrics");
        let columns = [("BEFORE", RIGHT), ("AFTER", RIGHT), ("CHANGE", RIGHT), ("METRIC", LEFT)];
        self.list(Grid::new(&columns), metrics, metrics.len() as u64, |change| {
            let (before, after) = (value(change.before.as_ref()), value(change.after.as_ref()));
            vec![before.into(), after.into(), step(change).into(), change.key.as_str().into()]
        });
        let Some(Plots { log, marks }) = &self.plots else { return };
        let is_number = |change: &&ValueChange| {
            [&change.before, &change.after].into_iter().flatten().any(Value::is_number)
        };
        let plotted = metrics.iter().filter(is_number).take(METRIC_PLOTS_MAX);
        let plots: Vec<String> =
            plotted.map(|change| log::history(log, &change.key, marks)).collect();
        self.document.blocks.push(Block::Plots(plots));
    }

    fn values(&mut self, heading: &str, changes: &[ValueChange]) {
        if changes.is_empty() {
            return;
        }
        self.document.heading(heading);
        self.value_grid(changes);
    }

    fn value_grid(&mut self, changes: &[ValueChange]) {
        let columns = [("NAME", LEFT), ("BEFORE", LEFT), ("AFTER", LEFT)];
        self.list(Grid::new(&columns), changes, changes.len() as u64, |change| {
            let (before, after) = (value(change.before.as_ref()), value(change.after.as_ref()));
            vec![change.key.as_str().into(), before.into(), after.into()]
        });
    }

    fn files(&mut self, changes: &FileChanges) {
        self.document.heading("Files");
        let FileChanges { changed_total, added_total, removed_total, renamed_total, .. } = changes;
        self.document.note(tally(&[
            (changes.same, changes.same_bytes, "the same"),
            (*changed_total, 0, "changed"),
            (*added_total, 0, "added"),
            (*removed_total, 0, "removed"),
            (*renamed_total, 0, "renamed"),
        ]));
        let mut rows: Vec<[Cell; 5]> = Vec::new();
        for change in &changes.changed {
            let share = ratio(change.shared_bytes, change.after.bytes) * 100.0;
            let kept = match (change.before.kind, change.after.kind) {
                (
                    EntryKind::File | EntryKind::Executable,
                    EntryKind::File | EntryKind::Executable,
                ) => {
                    format!("{share:.1} %")
                }
                _ => String::new(),
            };
            let (before, after) = (form(&change.before), form(&change.after));
            let path = change.path.as_str();
            rows.push(["changed".into(), before.into(), after.into(), kept.into(), path.into()]);
        }
        for line in &changes.added {
            let (form, path) = (form(&line.form), line.path.as_str());
            rows.push(["added".into(), "".into(), form.into(), "".into(), path.into()]);
        }
        for line in &changes.removed {
            let (form, path) = (form(&line.form), line.path.as_str());
            rows.push(["removed".into(), form.into(), "".into(), "".into(), path.into()]);
        }
        for rename in &changes.renamed {
            let (size, names) = (bytes(rename.bytes), arrow(&rename.before, &rename.after));
            let (before, after) = (size.clone().into(), size.into());
            rows.push(["renamed".into(), before, after, "100 %".into(), names.into()]);
        }
        let columns =
            [("", LEFT), ("BEFORE", RIGHT), ("AFTER", RIGHT), ("KEPT", RIGHT), ("FILE", LEFT)];
        let total = changed_total + added_total + removed_total + renamed_total;
        self.list(Grid::new(&columns), &rows, total, |row| row.to_vec());
    }

    fn tensors(&mut self, changes: &TensorChanges) {
        let tally = tally(&[
            (changes.same, changes.same_bytes, "the same"),
            (changes.changed_total, changes.changed_bytes, "changed"),
            (changes.reshaped_total, 0, "of another shape or type"),
            (changes.added_total, 0, "added"),
            (changes.removed_total, 0, "removed"),
            (changes.renamed_total, 0, "renamed"),
        ]);
        if !tally.is_empty() {
            self.document.heading("Tensors");
            self.document.note(tally);
        }
    }

    fn layers(&mut self, layers: &[LayerChange]) {
        if layers.is_empty() {
            return;
        }
        self.document.heading("Layers that changed");
        let far = |layer: &LayerChange| layer.relative_l2.unwrap_or(0.0);
        let longest = layers.iter().map(far).fold(0.0, f64::max);
        if self.plots.is_some() && longest != 0.0 {
            let column = |layer: &LayerChange| {
                let label = layer.layer.clone();
                layer.relative_l2.map(|value| Column { label, value })
            };
            let columns = layers.iter().filter_map(column).take(LAYER_COLUMNS_MAX);
            let columns: Vec<Column> = columns.collect();
            let title = "Relative L2 of each layer that changed";
            self.document.blocks.push(Block::Plots(vec![plot::columns(title, &columns)]));
        }
        let columns = [
            ("CHANGED", RIGHT),
            ("SIZE", RIGHT),
            ("MAX ABS", RIGHT),
            ("RELATIVE L2", RIGHT),
            ("", LEFT),
            ("LAYER", LEFT),
        ];
        self.list(Grid::new(&columns), layers, layers.len() as u64, |layer| {
            let touched = layer.changed + layer.added + layer.removed;
            let share = if longest == 0.0 { 0.0 } else { far(layer) / longest };
            vec![
                format!("{touched} of {}", layer.tensors).into(),
                bytes(layer.changed_bytes).into(),
                number(layer.max_abs).into(),
                number(layer.relative_l2).into(),
                Cell::Bar(share),
                layer.layer.as_str().into(),
            ]
        });
    }

    fn tensor_lists(&mut self, changes: &TensorChanges) {
        self.changed("Tensors that changed", &changes.changed, changes.changed_total);
        let recast = "Tensors of another shape or type";
        self.changed(recast, &changes.reshaped, changes.reshaped_total);
        if !changes.renamed.is_empty() {
            self.document.heading("Tensors of another name");
            let columns = [("SIZE", RIGHT), ("BEFORE", LEFT), ("AFTER", LEFT)];
            self.list(Grid::new(&columns), &changes.renamed, changes.renamed_total, |rename| {
                let (before, after) = (&rename.before.name, &rename.after.name);
                vec![
                    bytes(rename.after.bytes).into(),
                    before.as_str().into(),
                    after.as_str().into(),
                ]
            });
        }
        for (heading, tensors, total) in [
            ("Tensors added", &changes.added, changes.added_total),
            ("Tensors removed", &changes.removed, changes.removed_total),
        ] {
            if tensors.is_empty() {
                continue;
            }
            self.document.heading(heading);
            let columns = [("SIZE", RIGHT), ("DTYPE", LEFT), ("SHAPE", LEFT), ("TENSOR", LEFT)];
            self.list(Grid::new(&columns), tensors, total, |tensor| {
                let TensorForm { dtype, shape, name, .. } = tensor;
                let size = bytes(tensor.bytes);
                vec![
                    size.into(),
                    dtype.as_str().into(),
                    dimensions(shape).into(),
                    name.as_str().into(),
                ]
            });
        }
    }

    /// Those that moved furthest first.
    fn changed(&mut self, heading: &str, changes: &[TensorChange], total: u64) {
        if changes.is_empty() {
            return;
        }
        self.document.heading(heading);
        let mut sorted: Vec<&TensorChange> = changes.iter().collect();
        sorted.sort_by(|a, b| further(b, a));
        let columns = [
            ("RELATIVE L2", RIGHT),
            ("COSINE", RIGHT),
            ("MAX ABS", RIGHT),
            ("MEAN", LEFT),
            ("STD", LEFT),
            ("NAN, INF", LEFT),
            ("DTYPE", LEFT),
            ("SHAPE", LEFT),
            ("TENSOR", LEFT),
        ];
        self.list(Grid::new(&columns), &sorted, total, |change| cells(change).into());
    }
}

/// A row of a table of tensors that changed.
fn cells(change: &TensorChange) -> [Cell; 9] {
    let TensorChange { before, after, figures } = change;
    let of = |pick: fn(&Figures) -> String| figures.as_ref().map_or(String::new(), pick);
    fn both(figures: &Figures, pick: fn(&Spread) -> Option<f64>) -> String {
        arrow(&number(pick(&figures.before)), &number(pick(&figures.after)))
    }
    [
        of(|it| number(it.relative_l2)).into(),
        of(|it| it.cosine.map_or(String::new(), |cosine| format!("{cosine:.6}"))).into(),
        of(|it| number(it.max_abs)).into(),
        of(|it| both(it, |side| side.mean)).into(),
        of(|it| both(it, |side| side.std)).into(),
        of(strange).into(),
        arrow(&before.dtype, &after.dtype).into(),
        arrow(&dimensions(&before.shape), &dimensions(&after.shape)).into(),
        arrow(&before.name, &after.name).into(),
    ]
}

/// What moved from zero counts most, what was not measured least.
fn further(a: &TensorChange, b: &TensorChange) -> Ordering {
    let rank = |change: &TensorChange| match change.figures {
        Some(Figures { relative_l2: Some(far), .. }) => far,
        Some(_) => f64::INFINITY,
        None => -1.0,
    };
    rank(a).total_cmp(&rank(b))
}

/// Numbers that are none and infinite ones, before and after, where there are any.
fn strange(figures: &Figures) -> String {
    let Figures { before, after, .. } = figures;
    let part = |word: &str, before: u64, after: u64| match (before, after) {
        (0, 0) => None,
        _ => Some(format!("{word} {}", arrow(&before.to_string(), &after.to_string()))),
    };
    let parts = [part("nan", before.nan, after.nan), part("inf", before.infinite, after.infinite)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What there are, how many, and their bytes where those are told: `5 changed (1.2 MiB)`.
fn tally(counts: &[(u64, u64, &str)]) -> String {
    let part = |(count, size, what): &(u64, u64, &str)| match (count, size) {
        (0, _) => None,
        (_, 0) => Some(format!("{count} {what}")),
        _ => Some(format!("{count} {what} ({})", bytes(*size))),
    };
    counts.iter().filter_map(part).collect::<Vec<_>>().join(", ")
}

/// Both, or one where they are the same.
fn arrow(before: &str, after: &str) -> String {
    if before == after { after.to_owned() } else { format!("{before} → {after}") }
}

/// `768 x 3072`; of a single number `1`.
fn dimensions(shape: &[u64]) -> String {
    if shape.is_empty() {
        return "1".to_owned();
    }
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
}

fn form(form: &EntryForm) -> String {
    match (form.kind, &form.target) {
        (EntryKind::Symlink, Some(target)) => format!("link to {target}"),
        (EntryKind::Symlink, None) => "link".to_owned(),
        (EntryKind::Directory, _) => "empty directory".to_owned(),
        (EntryKind::Executable, _) => format!("{} (x)", bytes(form.bytes)),
        (EntryKind::File, _) => bytes(form.bytes),
    }
}

/// Members of objects that changed: a data set is told by its own.
fn members(changes: &[ValueChange]) -> Vec<ValueChange> {
    let mut found = Vec::new();
    for change in changes {
        let (Some(Value::Object(before)), Some(Value::Object(after))) =
            (&change.before, &change.after)
        else {
            found.push(change.clone());
            continue;
        };
        let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys.into_iter().filter(|key| before.get(*key) != after.get(*key)) {
            let (before, after) = (before.get(key).cloned(), after.get(key).cloned());
            found.push(ValueChange { key: format!("{}.{key}", change.key), before, after });
        }
    }
    found
}

/// A text as it is, anything else as JSON, a dash for what is absent; cut where it is long.
pub(super) fn value(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => short(text),
        Some(other) => short(&other.to_string()),
    }
}

/// How far a number went, with its sign and no more digits than the numbers have.
fn step(change: &ValueChange) -> String {
    let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_f64);
    let (Some(before), Some(after)) = (number(&change.before), number(&change.after)) else {
        return String::new();
    };
    let step = after - before;
    if step == 0.0 {
        String::new()
    } else {
        format!("{}{}", if step < 0.0 { "" } else { "+" }, figure(step))
    }
}

fn short(text: &str) -> String {
    let mut characters = text.chars();
    let mut shown: String = characters.by_ref().take(VALUE_CHARACTERS_MAX).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

// For a display of a few digits.
#[allow(clippy::cast_precision_loss)]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_metric_shows_how_far_it_went() {
        let step = |before: Value, after: Value| {
            step(&ValueChange { key: String::new(), before: Some(before), after: Some(after) })
        };
        assert_eq!(step(json!(0.912), json!(0.921)), "+0.009");
        assert_eq!(step(json!(7), json!(5)), "-2");
        assert_eq!(step(json!(7), json!(7)), "");
        assert_eq!(step(json!("a"), json!(7)), "");
    }

    #[test]
    fn a_value_is_short_and_a_data_set_is_its_members() {
        assert_eq!(value(None), "-");
        assert_eq!(value(Some(&json!("text"))), "text");
        assert_eq!(value(Some(&json!([1, "a"]))), "[1,\"a\"]");
        assert_eq!(value(Some(&json!("é".repeat(61)))), "é".repeat(60) + "…");
        let (before, after) =
            (json!({"name": "t", "rows": 1, "x": 2}), json!({"name": "t", "rows": 3}));
        let both = ValueChange { key: "t".into(), before: Some(before), after: Some(after) };
        let new = ValueChange { key: "u".into(), before: None, after: Some(json!("u")) };
        let keys: Vec<_> = members(&[both, new]).into_iter().map(|change| change.key).collect();
        assert_eq!(keys, ["t.rows", "t.x", "u"]);
    }
}
