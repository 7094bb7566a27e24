//! An inventory as a document, as lines of CSV, and as comments of its plan.

use std::path::Path;

use super::document::{Document, Grid};
use super::table::{Align, bytes, count, time};
use crate::ops::{FoundModel, FoundVersion, InventoryReport, Nearest, Plan};

const LEFT: Align = Align::Left;
const RIGHT: Align = Align::Right;
/// Calls of a pickle that are named in a note.
const CALLS_SHOWN: usize = 3;

/// What lies there, family by family, and what a store would make of it; so many rows of each list.
pub fn inventory(report: &InventoryReport, rows_max: usize) -> Document {
    let mut document = Document::new(format!("{}: {}", report.root.display(), totals(report)));
    for model in &report.models {
        document.heading(title(model, report.is_sampled));
        let mut grid = Grid::new(&[
            ("", RIGHT),
            ("PATH", LEFT),
            ("FORMAT", LEFT),
            ("SIZE", RIGHT),
            ("MODIFIED", LEFT),
            ("OWNER", LEFT),
            ("LIKE", LEFT),
            ("NOTE", LEFT),
        ]);
        for (number, version) in (1..=rows_max).zip(&model.versions) {
            grid.row([
                number.to_string().into(),
                shown(&version.path).into(),
                version.formats.join(" ").into(),
                bytes(version.bytes).into(),
                version.modified.map(time).unwrap_or_default().into(),
                version.owner.clone().into(),
                version.nearest.as_ref().map(nearest).unwrap_or_default().into(),
                notes(version).join("; ").into(),
            ]);
        }
        let more = model.versions.len().saturating_sub(rows_max);
        document.grid(grid);
        if more != 0 {
            document.note(format!("and {more} more, in the JSON"));
        }
    }
    document.heading("Sizes");
    document.grid(sizes(report));
    unreadable(report, rows_max, &mut document);
    document
}

/// How much there is, in a line.
fn totals(report: &InventoryReport) -> String {
    let versions = report.models.iter().map(|model| model.versions.len() as u64).sum();
    format!(
        "{} in {} of {}",
        count(versions, "version"),
        count(report.models.len() as u64, "model"),
        count(report.files, "file"),
    )
}

fn title(model: &FoundModel, is_sampled: bool) -> String {
    let about = if is_sampled { "about " } else { "" };
    let versions = count(model.versions.len() as u64, "version");
    let (size, stored) = (bytes(model.bytes), bytes(model.stored_bytes));
    format!("{}: {versions}, {size}, {about}{stored} stored", model.name)
}

fn sizes(report: &InventoryReport) -> Grid {
    let mut grid = Grid::new(&[("", LEFT), ("SIZE", RIGHT)]);
    let saved = u64::try_from(report.saved_bytes).unwrap_or(0);
    let about = if report.is_sampled { "would be stored, about" } else { "would be stored" };
    for (what, size) in [
        ("models found", report.model_bytes),
        ("of them copies", report.copy_bytes),
        ("of them broken", report.broken_bytes),
        (about, report.stored_bytes),
        ("would be saved", saved),
    ] {
        grid.row([what.into(), bytes(size).into()]);
    }
    grid
}

fn unreadable(report: &InventoryReport, rows_max: usize, document: &mut Document) {
    if report.unreadable_count == 0 {
        return;
    }
    document.heading(format!("Could not be looked at: {}", report.unreadable_count));
    let mut grid = Grid::new(&[("PATH", LEFT), ("WHY", LEFT)]);
    for place in report.unreadable.iter().take(rows_max) {
        grid.row([shown(&place.path).into(), place.why.clone().into()]);
    }
    document.grid(grid);
}

fn nearest(nearest: &Nearest) -> String {
    format!("{} % {}", nearest.percent, shown(&nearest.path))
}

/// What a person should know of a version, a few words each.
fn notes(version: &FoundVersion) -> Vec<String> {
    let mut notes = version.faults.clone();
    if version.runs_code {
        notes.push(match &version.calls[..] {
            [] => "loading it runs code".to_owned(),
            calls => {
                let shown = calls.iter().take(CALLS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
                let more = calls.len().saturating_sub(CALLS_SHOWN);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                format!("loading it runs {shown}{more}")
            }
        });
    }
    if !version.copies.is_empty() {
        notes.push(count(version.copies.len() as u64, "copy").replace("copys", "copies"));
    }
    notes.extend(version.kept_by.clone().map(|tool| format!("kept by {tool}")));
    notes
}

/// A line for each version and each copy, after one of headings.
pub fn inventory_csv(report: &InventoryReport) -> String {
    const HEADINGS: [&str; 14] = [
        "model",
        "order",
        "path",
        "format",
        "files",
        "bytes",
        "owner",
        "modified",
        "copy_of",
        "nearest",
        "nearest_percent",
        "runs_code",
        "fault",
        "kept_by",
    ];
    let mut text = line(HEADINGS.map(str::to_owned));
    for model in &report.models {
        for (order, version) in (1_u64..).zip(&model.versions) {
            let row = |path: &Path, copy_of: Option<&Path>| {
                line([
                    model.name.to_string(),
                    order.to_string(),
                    shown(path),
                    version.formats.join(" "),
                    version.files.to_string(),
                    version.bytes.to_string(),
                    version.owner.clone(),
                    version.modified.map(|time| time.to_string()).unwrap_or_default(),
                    copy_of.map(shown).unwrap_or_default(),
                    version.nearest.as_ref().map(|it| shown(&it.path)).unwrap_or_default(),
                    version.nearest.as_ref().map(|it| it.percent.to_string()).unwrap_or_default(),
                    version.runs_code.to_string(),
                    version.faults.join("; "),
                    version.kept_by.clone().unwrap_or_default(),
                ])
            };
            text += &row(&version.path, None);
            for copy in &version.copies {
                text += &row(copy, Some(&version.path));
            }
        }
    }
    text
}

/// Fields as RFC 4180 has them.
fn line(fields: [String; 14]) -> String {
    let field = |field: &String| match field.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.clone(),
    };
    fields.iter().map(field).collect::<Vec<_>>().join(",") + "\n"
}

/// Says in a plan what the inventory found, and gives the text.
pub fn plan_text(mut plan: Plan, report: &InventoryReport) -> String {
    for (model, found) in plan.models.iter_mut().zip(&report.models) {
        model.comments = vec![title(found, report.is_sampled)];
        for (version, found) in model.versions.iter_mut().zip(&found.versions) {
            let of = found.nearest.iter().map(nearest);
            version.comments = of.chain(notes(found)).collect();
        }
    }
    let about = if report.is_sampled { "about " } else { "" };
    let head = [
        "What `modelfs import --plan` is to do with what lies below `root`, and how to change that:".to_owned(),
        "Rename a model, move versions to another model or into another order, delete what is not wanted.".to_owned(),
        "A version with `skip` is left out: take the line out to have it all the same. `as` is what a file is".to_owned(),
        "called in the version. `content` is what was found there: if it is not that any more, nothing is taken.".to_owned(),
        String::new(),
        format!("{}; {} of models, {about}{} stored.", totals(report), bytes(report.model_bytes), bytes(report.stored_bytes)),
    ];
    plan.to_text(&head)
}

fn shown(path: &Path) -> String {
    match path.display().to_string() {
        empty if empty.is_empty() => ".".to_owned(),
        path => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> InventoryReport {
        let version = FoundVersion {
            path: "a,b/\"m\".pkl".into(),
            formats: vec!["pickle".to_owned()],
            files: 1,
            bytes: 7,
            owner: "ann".to_owned(),
            modified: None,
            nearest: Some(Nearest { path: "m.pkl".into(), percent: 97 }),
            copies: vec!["copy.pkl".into()],
            runs_code: true,
            calls: vec!["os.system".to_owned()],
            faults: vec!["it is cut off".to_owned()],
            kept_by: None,
        };
        let name = "churn".parse().unwrap();
        let model = FoundModel { name, versions: vec![version], bytes: 7, stored_bytes: 5 };
        InventoryReport {
            root: "/srv".into(),
            files: 2,
            bytes: 14,
            models: vec![model],
            model_bytes: 14,
            copy_bytes: 7,
            broken_bytes: 0,
            stored_bytes: 5,
            saved_bytes: 9,
            is_sampled: false,
            unreadable: Vec::new(),
            unreadable_count: 0,
        }
    }

    #[test]
    fn a_line_of_csv_is_quoted_where_it_must_be() {
        let text = inventory_csv(&report());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].starts_with("churn,1,\"a,b/\"\"m\"\".pkl\",pickle,1,7,ann,,,m.pkl,97,true,")
        );
        assert!(lines[2].starts_with("churn,1,copy.pkl,"), "{}", lines[2]);
    }

    #[test]
    fn a_person_reads_what_is_like_what_and_what_is_wrong() {
        let text = super::super::text(&inventory(&report(), 10));
        for expected in ["97 % m.pkl", "it is cut off; loading it runs os.system; 1 copy", "9 B"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
