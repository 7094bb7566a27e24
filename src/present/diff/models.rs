//! What changed within files: graphs, boosted trees, values that have names.

use super::{LEFT, Page, RIGHT, arrow, tally};
use crate::ops::{
    DiffReport, EnsembleChange, FeatureChange, FeatureUse, FileValues, GraphChange, MalformedFile,
    ValueChange,
};
use crate::present::document::{Cell, Grid};
use crate::present::figures::number;

/// Adds a part for each file that was looked into.
pub(super) fn show(page: &mut Page, report: &DiffReport) {
    report.graphs.iter().take(page.rows_max).for_each(|change| graph(page, change));
    report.ensembles.iter().take(page.rows_max).for_each(|change| ensemble(page, change));
    for FileValues { path, values } in report.values.iter().take(page.rows_max) {
        page.values(&format!("Values in {path}"), values);
    }
    malformed(page, &report.malformed);
}

fn malformed(page: &mut Page, files: &[MalformedFile]) {
    if files.is_empty() {
        return;
    }
    page.document.heading("Files that do not parse");
    let columns = [("FILE", LEFT), ("BEFORE", LEFT), ("AFTER", LEFT)];
    page.list(Grid::new(&columns), files, files.len() as u64, |file| {
        let why = |why: &Option<String>| why.clone().unwrap_or_else(|| "-".to_owned());
        vec![file.path.as_str().into(), why(&file.before).into(), why(&file.after).into()]
    });
}

fn graph(page: &mut Page, change: &GraphChange) {
    page.document.heading(format!("Graph of {}", change.path));
    let nodes = arrow(&change.nodes_before.to_string(), &change.nodes_after.to_string());
    let weights =
        arrow(&change.initializers_before.to_string(), &change.initializers_after.to_string());
    page.document.note(format!("{nodes} nodes, {weights} initializers"));
    let columns = [
        ("BEFORE", RIGHT),
        ("AFTER", RIGHT),
        ("ADDED", RIGHT),
        ("REMOVED", RIGHT),
        ("OPERATOR", LEFT),
    ];
    let operators = &change.operators;
    page.list(Grid::new(&columns), operators, operators.len() as u64, |it| {
        vec![
            it.before.to_string().into(),
            it.after.to_string().into(),
            some(it.added, '+'),
            some(it.removed, '-'),
            it.operator.as_str().into(),
        ]
    });
    let mut values = Vec::new();
    for (what, changes) in
        [("", &change.header), ("input ", &change.inputs), ("output ", &change.outputs)]
    {
        values.extend(changes.iter().map(|it| ValueChange {
            key: format!("{what}{}", it.key),
            before: it.before.clone(),
            after: it.after.clone(),
        }));
    }
    let name = |name: &String, added: bool| {
        let (before, after) = if added { (None, Some("added")) } else { (Some("removed"), None) };
        ValueChange {
            key: format!("initializer {name}"),
            before: before.map(Into::into),
            after: after.map(Into::into),
        }
    };
    values.extend(change.initializers_added.iter().map(|it| name(it, true)));
    values.extend(change.initializers_removed.iter().map(|it| name(it, false)));
    page.value_grid(&values);
}

/// A number with its sign; nothing for none.
fn some(count: u64, sign: char) -> Cell {
    if count == 0 { Cell::from("") } else { format!("{sign}{count}").into() }
}

fn ensemble(page: &mut Page, change: &EnsembleChange) {
    page.document.heading(format!("Trees of {}", change.path));
    let kept = tally(&[
        (change.trees_kept, 0, "kept"),
        (change.trees_added, 0, "added"),
        (change.trees_removed, 0, "removed"),
    ]);
    let first = match change.trees_kept_first {
        0 => String::new(),
        first if first == change.before.trees => {
            "; the earlier ones are the first of the later".into()
        }
        first => format!("; the first {first} are the same"),
    };
    page.document.note(format!("{kept}{first}"));
    let (before, after) = (&change.before, &change.after);
    let count = |before: u64, after: u64, what: &str| {
        format!("{} {what}", arrow(&before.to_string(), &after.to_string()))
    };
    page.document.note(
        [
            count(before.trees, after.trees, "trees"),
            count(before.splits, after.splits, "splits"),
            count(before.leaves, after.leaves, "leaves"),
            count(before.depth_max, after.depth_max, "deep at most"),
        ]
        .join(", "),
    );
    let columns = [
        ("SPLITS", LEFT),
        ("GAIN", LEFT),
        ("MEDIAN GAIN", LEFT),
        ("MEDIAN THRESHOLD", LEFT),
        ("FEATURE", LEFT),
    ];
    let features = &change.features;
    page.list(Grid::new(&columns), features, features.len() as u64, feature);
    let constraints = change.constraints.iter().map(|it| ValueChange {
        key: format!("constraint {}", it.key),
        before: it.before.clone(),
        after: it.after.clone(),
    });
    let values: Vec<ValueChange> = change.parameters.iter().cloned().chain(constraints).collect();
    page.value_grid(&values);
}

fn feature(change: &FeatureChange) -> Vec<Cell> {
    let both = |of: fn(&FeatureUse) -> String| -> Cell {
        arrow(&of(&change.before), &of(&change.after)).into()
    };
    vec![
        both(|it| it.splits.to_string()),
        both(|it| number(it.gain)),
        both(|it| number(it.gain_median)),
        both(|it| number(it.threshold_median)),
        change.feature.as_str().into(),
    ]
}
