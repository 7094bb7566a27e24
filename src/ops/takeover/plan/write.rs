//! A plan as text: TOML with what a person wants to know beside it.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::{Plan, PlanFile, PlanModel, PlanVersion, shown};

impl Plan {
    /// The text, with these comments at its head.
    pub fn to_text(&self, head: &[String]) -> String {
        let mut text = String::new();
        comment(&mut text, head);
        let _ = writeln!(text, "\nroot = {}", path(&self.root));
        self.models.iter().for_each(|it| model(&mut text, it));
        text
    }
}

fn model(text: &mut String, model: &PlanModel) {
    text.push('\n');
    comment(text, &model.comments);
    let _ = writeln!(text, "[[model]]\nname = {}", quoted(model.name.as_str()));
    model.versions.iter().for_each(|it| version(text, it));
}

fn version(text: &mut String, version: &PlanVersion) {
    text.push('\n');
    comment(text, &version.comments);
    text.push_str("[[model.version]]\n");
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    line("path", path(&version.path));
    if let Some(name) = &version.name {
        line("as", path(name));
    }
    if !version.files.is_empty() {
        let file = |file: &PlanFile| {
            let (from, name) = (path(&file.from), path(&file.name));
            format!("  {{ from = {from}, as = {name} }},\n")
        };
        let files: String = version.files.iter().map(file).collect();
        line("files", format!("[\n{files}]"));
    }
    if !version.message.is_empty() {
        line("message", quoted(&version.message));
    }
    if let Some(modified) = version.modified {
        line("modified", modified.to_string());
    }
    if let Some(bytes) = version.bytes {
        line("bytes", bytes.to_string());
    }
    if let Some(content) = version.content {
        line("content", quoted(&content.to_string()));
    }
    if let Some(alias) = &version.alias {
        line("alias", quoted(alias.as_str()));
    }
    if !version.copies.is_empty() {
        let copies: Vec<String> = version.copies.iter().map(|copy| path(copy)).collect();
        line("copies", format!("[{}]", copies.join(", ")));
    }
    for (key, values) in
        [("params", &version.params), ("metrics", &version.metrics), ("labels", &version.labels)]
    {
        let value = |(key, value): (&String, &Value)| {
            Some(format!("{} = {}", quoted(key), of_json(value)?))
        };
        let values: Vec<String> = values.iter().filter_map(value).collect();
        if !values.is_empty() {
            line(key, format!("{{ {} }}", values.join(", ")));
        }
    }
    if let Some(skip) = &version.skip {
        line("skip", quoted(skip));
    }
}

/// Lines that are read past.
fn comment(text: &mut String, lines: &[String]) {
    for line in lines.iter().flat_map(|line| line.lines()) {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let line: String = line.chars().map(plain).collect();
        let _ = writeln!(text, "{}", format!("# {line}").trim_end());
    }
}

fn path(path: &Path) -> String {
    quoted(&shown(path))
}

/// A basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            other if other.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(other));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A value as TOML, which has no null.
fn of_json(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.to_string(),
        // A whole number that TOML cannot hold, and what is no number there, are texts.
        Value::Number(number) if number.is_u64() && !number.is_i64() => quoted(&number.to_string()),
        Value::Number(number) if number.is_f64() => format!("{:?}", number.as_f64()?),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().filter_map(of_json).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(values) => {
            let value = |(key, value): (&String, &Value)| {
                Some(format!("{} = {}", quoted(key), of_json(value)?))
            };
            let values: Vec<String> = values.iter().filter_map(value).collect();
            format!("{{ {} }}", values.join(", "))
        }
    })
}
