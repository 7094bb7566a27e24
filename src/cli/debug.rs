//! `modelfs debug`: looks into the files of a store, without its lock and without its catalog.

use std::path::Path;

use serde_json::Value;

use super::args::DebugCommand;
use super::client::{Absent, Client, no_store};
use super::failure::failure_with_hint;
use super::mount::Shown;
use super::print;
use super::table::{Align, Table, bytes, pairs, printable};
use crate::format::ids::{ChunkId, ManifestId, PackId};
use crate::format::names::Reference;
use crate::ops::debug;
use crate::ops::{Failure, FailureKind, HotLimit, NoProgress, OpsError, Report, Request};
use crate::store::StoreError;
use crate::sys::io::Real;

/// Digits of a tensor's digest in a table; `--json` has all.
const DIGITS_SHOWN: usize = 16;

/// Runs one of the commands that read files.
///
/// # Errors
/// `Usage` for what names nothing, else what reading gives.
pub fn run(command: &DebugCommand, store: &Path, shown: Shown) -> Result<(), Failure> {
    if !store.is_dir() {
        return Err(no_store(store));
    }
    let told = |found: Result<Value, OpsError>| found.map_err(|error| of_debug(&error));
    let (value, text): (Value, fn(&Value) -> String) = match command {
        DebugCommand::Chunk { id } => {
            let id: ChunkId = parse(id, "chunk")?;
            (told(debug::chunk(&Real, store, &id))?, chunk_text)
        }
        DebugCommand::Pack { pack } => {
            let id: PackId = parse(file_name(pack), "pack")?;
            (told(debug::pack(&Real, store, &id))?, pack_text)
        }
        DebugCommand::Manifest { manifest } => {
            let id = manifest_id(manifest, store)?;
            (told(debug::manifest(&Real, store, &id))?, manifest_text)
        }
        DebugCommand::Catalog => unreachable!("a verb"),
    };
    print(&match shown {
        Shown::Json => format!("{value}\n"),
        Shown::Text => text(&value),
    })
}

/// What is missing may be damage to a version; here it was only asked for.
fn of_debug(error: &OpsError) -> Failure {
    let told = Failure::from(error);
    let (kind, hint) = match error {
        OpsError::Store(StoreError::ChunkMissing { .. } | StoreError::ManifestMissing { .. }) => {
            (FailureKind::NotFound, None)
        }
        OpsError::Store(StoreError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            (FailureKind::NotFound, None)
        }
        _ => (told.kind, told.hint.clone()),
    };
    Failure { kind, hint, ..told }
}

/// Packs and manifests may be named by the path of their file, whose name is the identifier.
fn file_name(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or(text)
}

fn parse<T>(text: &str, what: &str) -> Result<T, Failure>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| {
        let hint = match what {
            "manifest" => "modelfs list".to_owned(),
            _ => {
                format!("`modelfs debug manifest REF` and the store's directories name each {what}")
            }
        };
        failure_with_hint(FailureKind::Usage, error.to_string(), hint)
    })
}

/// An identifier, a path, or a reference, which takes the store's history to understand.
fn manifest_id(text: &str, store: &Path) -> Result<ManifestId, Failure> {
    if let Ok(id) = file_name(text).parse() {
        return Ok(id);
    }
    let reference: Reference = parse(text, "manifest")?;
    let client = Client::open(store, Absent::Refuse, HotLimit::Untouched)?;
    match client.run(Request::Show { reference }, &NoProgress)? {
        Report::Version { summary, .. } => Ok(summary.manifest),
        other => unreachable!("a version was asked for, not {other:?}"),
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn size_of(value: &Value) -> String {
    value.as_u64().map_or_else(String::new, bytes)
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn chunk_text(value: &Value) -> String {
    let head = pairs(&[("chunk", text_of(&value["chunk"]))]);
    let mut table = Table::new(&[
        ("OFFSET", Align::Right),
        ("STORED", Align::Right),
        ("PLAIN", Align::Right),
        ("CODEC", Align::Right),
        ("PACK", Align::Left),
    ]);
    for place in rows(&value["places"]) {
        table.row([
            text_of(&place["offset"]),
            text_of(&place["record_bytes"]),
            text_of(&place["plain_bytes"]),
            text_of(&place["codec"]),
            text_of(&place["pack"]),
        ]);
    }
    head + &table.render()
}

fn pack_text(value: &Value) -> String {
    let mut lines = vec![("pack", text_of(&value["pack"])), ("size", size_of(&value["bytes"]))];
    if let Some(damage) = value["damaged_footer"].as_str() {
        lines.push(("footer", format!("damaged: {damage}")));
    }
    let mut table = Table::new(&[
        ("OFFSET", Align::Right),
        ("STORED", Align::Right),
        ("PLAIN", Align::Right),
        ("CODEC", Align::Right),
        ("CHUNK", Align::Left),
    ]);
    for record in rows(&value["records"]) {
        table.row([
            text_of(&record["offset"]),
            text_of(&record["record_bytes"]),
            text_of(&record["plain_bytes"]),
            text_of(&record["codec"]),
            text_of(&record["chunk"]),
        ]);
    }
    pairs(&lines) + &table.render()
}

fn manifest_text(value: &Value) -> String {
    let version = format!("{}/{}", text_of(&value["model"]), text_of(&value["version"]));
    let lines = [
        ("manifest", text_of(&value["manifest"])),
        ("version", version),
        ("digest", text_of(&value["digest"])),
    ];
    let columns = ["KIND", "SIZE", "CHUNKS", "TENSORS", "PATH"];
    let sides = [Align::Left, Align::Right, Align::Right, Align::Right, Align::Left];
    let columns: Vec<_> = columns.into_iter().zip(sides).collect();
    let mut table = Table::new(&columns);
    for entry in rows(&value["entries"]) {
        let kinds = ["directory", "symlink", "file"];
        let Some(kind) = kinds.into_iter().find(|kind| !entry[kind].is_null()) else { continue };
        let mut path = text_of(&entry[kind]);
        if let Some(target) = entry["target"].as_str() {
            path = format!("{path} -> {target}");
        }
        let count = |what: &str| {
            entry[what].as_array().map_or_else(String::new, |list| list.len().to_string())
        };
        let (chunks, tensors) = (count("chunks"), count("tensors"));
        table.row([kind.to_owned(), size_of(&entry["bytes"]), chunks, tensors, path]);
    }
    let mut text = pairs(&lines) + &table.render();
    if let Some(damage) = value["damaged_tensors"].as_str() {
        text += &format!("\ntensors are damaged: {}\n", printable(damage));
    }
    for entry in rows(&value["entries"]).filter(|entry| !entry["format"].is_null()) {
        let (path, format) = (text_of(&entry["file"]), text_of(&entry["format"]));
        text += &format!("\n{} ({format})\n", printable(&path));
        if rows(&entry["tensors"]).next().is_some() {
            text += &tensor_text(&entry["tensors"]);
        }
    }
    text
}

fn tensor_text(tensors: &Value) -> String {
    let mut table = Table::new(&[
        ("OFFSET", Align::Right),
        ("SIZE", Align::Right),
        ("DTYPE", Align::Left),
        ("SHAPE", Align::Left),
        ("DIGEST", Align::Left),
        ("NAME", Align::Left),
    ]);
    for tensor in rows(tensors) {
        let digest: String = text_of(&tensor["digest"]).chars().take(DIGITS_SHOWN).collect();
        table.row([
            text_of(&tensor["offset"]),
            size_of(&tensor["bytes"]),
            text_of(&tensor["dtype"]),
            tensor["shape"].to_string(),
            digest,
            text_of(&tensor["name"]),
        ]);
    }
    table.render()
}
