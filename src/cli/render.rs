//! Reports as text for people. `--json` prints the same values as they are.

use serde_json::Value;

use super::describe::Tensors;
use super::table::{Align, Table, bytes, count, pairs, printable, time};
use super::{describe, diff, governance, stats, takeover};
use crate::format::record::{Actor, Move};
use crate::ops::{
    AliasSummary, CatalogReport, Damage, ExportReport, HistoryReport, HotStatus, ModelSummary,
    RepairReport, Report, RetargetReport, SignedReport, SnapshotReport, StatusReport, VerifyReport,
    VersionSummary, WarmReport,
};

/// Most lines of a message in a table.
const MESSAGE_CHARACTERS_MAX: usize = 60;

/// The report for a person.
pub fn text(report: &Report) -> String {
    match report {
        Report::Snapshot(report) => snapshot(report),
        Report::Import(report) => takeover::version(report),
        Report::Models(models) => model_table(models),
        Report::Versions { versions, .. } => version_table(versions),
        Report::Version { summary, metadata } => version(summary, metadata),
        Report::Metadata { part } => part.clone(),
        Report::Diff(report) => diff::text(report),
        Report::Log(report) => diff::log_text(report, &[]),
        Report::History(report) => history(report),
        Report::Stats(report) => stats::text(report),
        Report::Status(report) => status(report),
        Report::Retarget(report) => retarget(report),
        Report::Plan(report) => governance::plan(report),
        Report::Vetting(report) => governance::vetting(report),
        Report::Policy(report) => governance::policy(report),
        Report::BreakGlass(report) => governance::break_glass(report),
        Report::Aliases { model, aliases } => alias_table(model.as_str(), aliases),
        Report::Export(report) => export(report),
        Report::Statement(report) => format!("{}\n", report.payload),
        Report::Inspect(report) => describe::text(report, Tensors::Few),
        Report::Warm(report) => warm(report),
        Report::Verify(report) => verify(report),
        Report::Repair(report) => repair(report),
        Report::Catalog(report) => catalog(report),
    }
}

/// The report for a program: the value alone, since the command says which kind it is.
pub fn json(report: &Report) -> String {
    let mut value = serde_json::to_value(report).expect("a report has text keys only");
    let mut text = value["value"].take().to_string();
    text.push('\n');
    text
}

fn snapshot(report: &SnapshotReport) -> String {
    let SnapshotReport { model, version, .. } = report;
    let mut text = if report.existing {
        format!("{model}/{version} has the same content and metadata already: nothing was sealed\n")
    } else {
        let files = count(report.files, "file");
        let (size, stored) = (bytes(report.bytes), bytes(report.stored_bytes));
        let seconds = report.ms as f64 / 1e3;
        format!("{model}/{version}: {files}, {size}, {stored} of it new, {seconds:.1} s\n")
    };
    for note in &report.notes {
        text += &format!("note: {}\n", printable(note));
    }
    text
}

fn model_table(models: &[ModelSummary]) -> String {
    if models.is_empty() {
        return "no models yet\n".to_owned();
    }
    let mut table = Table::new(&[
        ("MODEL", Align::Left),
        ("VERSIONS", Align::Right),
        ("SIZE", Align::Right),
        ("CHANGED", Align::Left),
        ("LATEST", Align::Left),
        ("ALIASES", Align::Left),
    ]);
    for model in models {
        let aliases = model.aliases.iter().map(|each| format!("{}={}", each.alias, each.version));
        table.row([
            model.model.to_string(),
            model.versions.to_string(),
            bytes(model.bytes),
            time(model.changed),
            model.latest.map_or("-".to_owned(), |version| version.to_string()),
            aliases.collect::<Vec<_>>().join(" "),
        ]);
    }
    table.render()
}

fn version_table(versions: &[VersionSummary]) -> String {
    if versions.is_empty() {
        return "no versions yet\n".to_owned();
    }
    let mut table = Table::new(&[
        ("VERSION", Align::Left),
        ("SEALED", Align::Left),
        ("BY", Align::Left),
        ("FILES", Align::Right),
        ("SIZE", Align::Right),
        ("NEW", Align::Right),
        ("ALIASES", Align::Left),
        ("MESSAGE", Align::Left),
    ]);
    for version in versions {
        table.row([
            version.version.to_string(),
            time(version.sealed),
            version.by.user.clone(),
            version.files.to_string(),
            bytes(version.bytes),
            bytes(version.stored_bytes),
            version.aliases.join(" "),
            first_line(&version.message),
        ]);
    }
    table.render()
}

/// The first line of a message, cut where it is long.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let mut characters = line.chars();
    let short: String = characters.by_ref().take(MESSAGE_CHARACTERS_MAX).collect();
    let is_cut = characters.next().is_some() || line.len() < message.trim_end().len();
    if is_cut { format!("{short}…") } else { short }
}

/// All but the files.
fn version(summary: &VersionSummary, metadata: &Value) -> String {
    let mut lines = vec![
        ("version", format!("{}/{}", text_of(&metadata["model"]), summary.version)),
        ("sealed", format!("{} by {}", time(summary.sealed), actor(&summary.by))),
        ("aliases", summary.aliases.join(" ")),
        ("supersedes", summary.follows.map_or("-".to_owned(), |version| version.to_string())),
        ("size", format!("{}, {} of it new", bytes(summary.bytes), bytes(summary.stored_bytes))),
        ("digest", summary.digest.to_string()),
        ("manifest", summary.manifest.to_string()),
    ];
    lines.retain(|(_, value)| !value.is_empty());
    let mut text = pairs(&lines);
    for line in summary.message.lines() {
        text += &format!("    {}\n", printable(line));
    }
    for kind in ["metrics", "params", "labels", "source", "environment", "run", "user"] {
        text += &values(kind, &metadata[kind]);
    }
    for kind in ["datasets", "parents"] {
        text += &list(kind, &metadata[kind]);
    }
    for side in ["inputs", "outputs"] {
        text += &list(side, &metadata["interface"][side]);
    }
    let missing = metadata["capture"]["missing"].as_array().into_iter().flatten();
    let missing: Vec<_> = missing.map(text_of).collect();
    if !missing.is_empty() {
        text += &format!("\nnot known: {}\n", printable(&missing.join(", ")));
    }
    text
}

/// Items of a list, below its name; nothing where it is empty or absent.
fn list(kind: &str, list: &Value) -> String {
    let Some(list) = list.as_array().filter(|list| !list.is_empty()) else { return String::new() };
    let lines = list.iter().map(|each| format!("  {}\n", printable(&text_of(each))));
    format!("\n{kind}\n{}", lines.collect::<String>())
}

/// Names and values of an object, below its own name; nothing where it is empty or absent.
fn values(kind: &str, object: &Value) -> String {
    let Some(object) = object.as_object().filter(|object| !object.is_empty()) else {
        return String::new();
    };
    let mut text = format!("\n{kind}\n");
    let width = object.keys().map(|key| key.chars().count()).max().unwrap_or(0);
    for (key, value) in object {
        let shown = match (kind, key.as_str(), value) {
            // Hundreds of them; `--json` has all.
            ("environment", "packages", Value::Object(all)) => count(all.len() as u64, "package"),
            _ => text_of(value),
        };
        text += &format!("  {:width$}  {}\n", printable(key), printable(&shown));
    }
    text
}

/// A text as it is, anything else as JSON, nothing for what is absent.
fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn actor(by: &Actor) -> String {
    let door = serde_json::to_value(by.door).expect("a door is a word");
    format!("{} (uid {}, {})", by.user, by.uid, text_of(&door))
}

fn history(report: &HistoryReport) -> String {
    let mut text = String::new();
    for record in &report.records {
        let moment = record["time"].as_str().and_then(|time| time.parse().ok());
        let moment = moment.map_or_else(|| text_of(&record["time"]), time);
        let (user, door) = (text_of(&record["actor"]["user"]), text_of(&record["actor"]["door"]));
        let line = format!(
            "{:>5}  {moment}  {user}/{door}  {}",
            text_of(&record["seq"]),
            deed(&record["op"])
        );
        text += &format!("{}\n", printable(line.trim_end()));
    }
    if report.verified {
        let records = count(report.seq, "record");
        text += &format!("{records}, each chained to the one before it; head {}\n", report.anchor);
    }
    if let Some(SignedReport { first, records }) = &report.signed {
        text += &format!("{} from {first} on, each signed\n", count(*records, "record"));
    }
    text
}

/// What a record says was done, in a line.
fn deed(op: &Value) -> String {
    let model = text_of(&op["model"]);
    let message = match first_line(&text_of(&op["message"])) {
        empty if empty.is_empty() => empty,
        message => format!("  \"{message}\""),
    };
    match op["kind"].as_str() {
        Some("init") => format!("made the store {}", text_of(&op["store"])),
        Some("create_model") => format!("made {model} ({})", access(&op["access"])),
        Some("remove_model") => format!("removed {model}"),
        Some("set_access") if model.is_empty() => format!("root: {}", access(&op["access"])),
        Some("set_access") => format!("{model}: {}", access(&op["access"])),
        Some("seal") => {
            let files = count(op["files"].as_u64().unwrap_or(0), "file");
            let size = bytes(op["bytes"].as_u64().unwrap_or(0));
            let moves = moves(&op["moves"]);
            let moves = if moves.is_empty() { moves } else { format!(", {moves}") };
            format!("sealed {model}/{} ({files}, {size}){moves}{message}", text_of(&op["version"]))
        }
        Some("retarget") => format!("{}{message}", moves(&op["moves"])),
        Some("set_policy") if op["text"] == "" => "took the policy away".to_owned(),
        Some("set_policy") => format!("set the policy {}", text_of(&op["digest"])),
        Some("approve") => {
            let role = match text_of(&op["role"]) {
                role if role.is_empty() => role,
                role => format!(" as {role}"),
            };
            format!("approved {}{role}{message}", subject(op))
        }
        Some("revoke") => {
            format!(
                "took back the approval of {} by {}{message}",
                subject(op),
                text_of(&op["user"])
            )
        }
        Some("check") => {
            let word = if op["passed"] == true { "passed" } else { "failed" };
            format!("check {} of {} {word}", text_of(&op["name"]), subject(op))
        }
        Some("mark") if op["mark"].is_null() => format!("unmarked {}{message}", subject(op)),
        Some("mark") => format!("marked {} {}{message}", subject(op), text_of(&op["mark"])),
        Some("break_glass") => {
            let (alias, until) = (text_of(&op["alias"]), text_of(&op["until"]));
            format!(
                "broke the glass of {model}/{alias} until {until}  \"{}\"",
                text_of(&op["reason"])
            )
        }
        Some("refused") => {
            let what = match moves(&op["moves"]) {
                none if none.is_empty() => format!("{} on {model}", text_of(&op["action"])),
                moves => moves,
            };
            format!("REFUSED {what}: {}", first_line(&text_of(&op["why"][0])))
        }
        _ => op.to_string(),
    }
}

/// The version that an approval, check or mark is about.
fn subject(op: &Value) -> String {
    format!("{}/{}", text_of(&op["model"]), text_of(&op["version"]))
}

fn access(access: &Value) -> String {
    let mode = access["mode"].as_u64().unwrap_or(0);
    format!("owner {}, group {}, mode {mode:04o}", text_of(&access["uid"]), text_of(&access["gid"]))
}

fn moves(list: &Value) -> String {
    let moves = serde_json::from_value::<Vec<Move>>(list.clone()).unwrap_or_default();
    moves.iter().map(move_line).collect::<Vec<_>>().join(", ")
}

/// One move as text.
pub fn move_line(step: &Move) -> String {
    let Move { model, alias, from, to, .. } = step;
    match (from, to) {
        (None, Some(to)) => format!("{model}/{alias} -> {to}"),
        (Some(from), Some(to)) => format!("{model}/{alias} -> {to} (was {from})"),
        (Some(from), None) => format!("{model}/{alias} removed (was {from})"),
        (None, None) => format!("{model}/{alias} unchanged"),
    }
}

fn status(report: &StatusReport) -> String {
    let mut lines = vec![
        (
            "store",
            format!(
                "{} (id {}, format {})",
                report.store.display(),
                report.store_id,
                report.format
            ),
        ),
        ("history", format!("{}, head {}", count(report.seq, "record"), report.head)),
        ("models", report.models.to_string()),
        ("versions", report.versions.to_string()),
        ("free", bytes(report.free_bytes)),
        ("hot", hot(&report.hot)),
    ];
    match &report.daemon {
        None => lines.push(("daemon", "none".to_owned())),
        Some(daemon) => {
            lines.push((
                "mounted",
                format!("{} since {}", daemon.mountpoint.display(), time(daemon.since)),
            ));
            lines.push(("daemon", format!("process {}, modelfs {}", daemon.pid, daemon.version)));
            let passthrough = if daemon.passthrough { "yes" } else { "no" };
            lines.push(("passthrough", passthrough.to_owned()));
        }
    }
    for seal in &report.sealing {
        let (done, total) = (bytes(seal.bytes_done), bytes(seal.bytes_total));
        lines.push((
            "sealing",
            format!("{}: {done} of {total} since {}", seal.model, time(seal.since)),
        ));
    }
    pairs(&lines)
}

fn hot(hot: &HotStatus) -> String {
    let mut text = format!("{}, {}", count(hot.files, "file"), bytes(hot.bytes));
    if hot.bytes_max != 0 {
        text += &format!(" of at most {}", bytes(hot.bytes_max));
    }
    if let Some(warming) = &hot.warming {
        let (done, total) = (bytes(warming.bytes_done), bytes(warming.bytes_total));
        text += &format!("; warming {}/{}: {done} of {total}", warming.model, warming.version);
    }
    text
}

fn warm(report: &WarmReport) -> String {
    let (files, size) = (count(report.files, "file"), bytes(report.bytes));
    let (model, version, made) = (&report.model, report.version, bytes(report.made_bytes));
    let mut text = format!("{model}/{version}: {files}, {size} hot, {made} of it new\n");
    for skip in &report.skipped {
        let (path, size) = (printable(&skip.path), bytes(skip.bytes));
        text += &format!("cold: {path}, {size}: {}\n", skip.why);
    }
    text
}

fn retarget(report: &RetargetReport) -> String {
    if report.moves.is_empty() {
        return "nothing to change: it is so already\n".to_owned();
    }
    report.moves.iter().map(|step| format!("{}\n", move_line(step))).collect()
}

fn alias_table(model: &str, aliases: &[AliasSummary]) -> String {
    if aliases.is_empty() {
        return format!("{model} has no aliases yet\n");
    }
    let columns = ["ALIAS", "VERSION", "SINCE", "BY"].map(|head| (head, Align::Left));
    let mut table = Table::new(&columns);
    for each in aliases {
        let (alias, version) = (each.alias.to_string(), each.version.to_string());
        table.row([alias, version, time(each.since), each.by.user.clone()]);
    }
    table.render()
}

fn export(report: &ExportReport) -> String {
    let ExportReport { model, version, directory, .. } = report;
    let (files, size) = (count(report.files, "file"), bytes(report.bytes));
    let directory = printable(&directory.display().to_string());
    let documents: String = report.documents.iter().map(|name| format!(", {name}")).collect();
    format!("{model}/{version}: {files}, {size}{documents} written to {directory}\n")
}

fn verify(report: &VerifyReport) -> String {
    let read = match report.read_data {
        true => format!("{} read", bytes(report.bytes_read)),
        false => "their bytes not read (`--read-data` does)".to_owned(),
    };
    let mut text = format!(
        "{}, {}, {}, {}, {}; {read}\n",
        count(report.records, "record"),
        count(report.versions, "version"),
        count(report.manifests, "manifest"),
        count(report.packs, "pack"),
        count(report.chunks, "chunk"),
    );
    if report.read_data {
        text += &format!("{} hashed\n", count(report.hot_files, "hot file"));
    }
    for name in &report.hot_removed {
        text += &format!("removed, had wrong bytes: {}\n", printable(name));
    }
    for name in &report.garbage {
        text += &format!("unused: {}\n", printable(name));
    }
    text += &damage_lines(&report.damage);
    text + if report.damage.is_empty() { "no damage\n" } else { "" }
}

fn repair(report: &RepairReport) -> String {
    let text = format!(
        "the catalog holds {}, {}, {}\n",
        count(report.records, "record"),
        count(report.packs, "pack"),
        count(report.chunks, "chunk"),
    );
    text + &damage_lines(&report.damage)
}

fn damage_lines(damage: &[Damage]) -> String {
    let mut text = String::new();
    for each in damage {
        text += &format!("damaged: {}: {}\n", printable(&each.place), printable(&each.what));
        if !each.hits.is_empty() {
            text += &format!("  hits {}\n", printable(&each.hits.join(" ")));
        }
    }
    text
}

fn catalog(report: &CatalogReport) -> String {
    pairs(&[
        ("packs", report.packs.to_string()),
        ("chunks", report.chunks.to_string()),
        ("records", report.records.to_string()),
        ("size", bytes(report.bytes)),
    ])
}
