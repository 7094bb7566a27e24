//! What model files say of themselves, as text for people.

use serde_json::Value;

use super::table::{Align, Table, bytes, count, pairs, printable};
use crate::inspect::{Description, Dimension, Interface, Port, TensorInfo};
use crate::ops::{InspectReport, InspectedFile};

/// Which tensors are listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tensors {
    /// The first ones.
    Few,
    All,
}

/// Tensors that are listed where not all are asked for.
const FEW: usize = 16;

/// All files, one after the other.
pub fn text(report: &InspectReport, tensors: Tensors) -> String {
    if report.files.is_empty() {
        return "no files\n".to_owned();
    }
    let mut texts: Vec<String> = report.files.iter().map(|found| file(found, tensors)).collect();
    if 0 < report.more_files {
        texts
            .push(format!("{} more: name a directory or file\n", count(report.more_files, "file")));
    }
    texts.join("\n")
}

/// One file.
pub fn file(found: &InspectedFile, tensors: Tensors) -> String {
    let mut text = format!("{}\n", printable(&found.path));
    let mut lines = vec![("format", found.format.clone()), ("size", bytes(found.bytes))];
    if found.runs_code {
        lines.push(("loading", "runs what the file says: load it only if you trust it".to_owned()));
    }
    if let Some(why) = &found.why {
        lines.push(("unclear", why.clone()));
    }
    let summary = found.description.as_ref().map(Description::summary);
    let entries = summary.as_ref().and_then(Value::as_object).into_iter().flatten();
    let entries: Vec<(String, String)> =
        entries.map(|(name, value)| (name.replace('_', " "), words(value))).collect();
    let entries = entries.iter().filter(|(_, value)| !value.is_empty());
    lines.extend(entries.map(|(name, value)| (name.as_str(), value.clone())));
    let notes = found.description.iter().flat_map(|it| &it.notes);
    lines.extend(notes.map(|note| ("note", note.clone())));
    text += &indented(&pairs(&lines));
    let Some(description) = &found.description else { return text };
    if let Some(interface) = description.interface() {
        text += &ports(&interface);
    }
    text + &list(&description.tensors, description.tensor_count, tensors)
}

/// A value without the signs of JSON.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(name, value)| format!("{name} {}", words(value)));
            entries.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn ports(interface: &Interface) -> String {
    let mut table = Table::new(&[("", Align::Left), ("NAME", Align::Left), ("TYPE", Align::Left)]);
    let sides = [("input", &interface.inputs), ("output", &interface.outputs)];
    for (word, ports) in sides {
        for port in ports {
            table.row([word.to_owned(), port.name.clone(), kind(port)]);
        }
    }
    if interface.inputs.is_empty() && interface.outputs.is_empty() {
        return String::new();
    }
    indented(&table.render())
}

/// `f32[batch, 3, ?]`
fn kind(port: &Port) -> String {
    let Some(shape) = &port.shape else { return port.dtype.clone() };
    let sizes = shape.iter().map(|size| match size {
        Dimension::Size(size) => size.to_string(),
        Dimension::Name(name) => name.clone(),
        Dimension::Any(()) => "?".to_owned(),
    });
    format!("{}[{}]", port.dtype, sizes.collect::<Vec<_>>().join(", "))
}

fn list(tensors: &[TensorInfo], tensor_count: u64, which: Tensors) -> String {
    if tensors.is_empty() {
        return String::new();
    }
    let shown = if which == Tensors::All { tensors.len() } else { FEW.min(tensors.len()) };
    let mut table =
        Table::new(&[("TENSOR", Align::Left), ("DTYPE", Align::Left), ("SHAPE", Align::Left)]);
    for tensor in &tensors[..shown] {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        table.row([tensor.name.clone(), tensor.dtype.clone(), format!("[{}]", shape.join(", "))]);
    }
    let mut text = indented(&table.render());
    let more = tensor_count - shown as u64;
    if 0 < more {
        let way = if which == Tensors::All { "" } else { ": --tensors lists them" };
        text += &format!("  {} more{way}\n", count(more, "tensor"));
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
