//! Lines of JSON: one object a line, whose members are the columns.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::column::{Cell, Column};
use super::csv::time;
use super::table::{COLUMNS_MAX, Table, TableFormat, TableParser};

/// Bytes of one line. A file with a longer one is taken as bytes.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Reads one table.
#[derive(Default)]
pub struct JsonLinesParser {
    /// The begin of a line whose end has not come.
    line: Vec<u8>,
    columns: Vec<Column>,
    places: HashMap<String, usize>,
    rows: u64,
    failure: Option<String>,
}

impl TableParser for JsonLinesParser {
    fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while self.failure.is_none() {
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                if LINE_BYTES_MAX < self.line.len() + rest.len() {
                    self.failure = Some(format!("a line of more than {LINE_BYTES_MAX} bytes"));
                    return;
                }
                self.line.extend_from_slice(rest);
                return;
            };
            let mut line = std::mem::take(&mut self.line);
            if line.is_empty() {
                self.take(&rest[..end]);
            } else {
                line.extend_from_slice(&rest[..end]);
                self.take(&line);
                line.clear();
                self.line = line;
            }
            rest = &rest[end + 1..];
        }
    }

    fn finish(mut self: Box<Self>) -> Result<Table, String> {
        let line = std::mem::take(&mut self.line);
        if self.failure.is_none() {
            self.take(&line);
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        for column in &mut self.columns {
            let absent = self.rows - column.present();
            // Those that are `null` are counted here, with those that are not there.
            column.add_missing(absent);
        }
        let (format, notes) = (TableFormat::JsonLines, Vec::new());
        Ok(Table { format, columns: self.columns, rows: self.rows, notes })
    }
}

impl JsonLinesParser {
    fn take(&mut self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let object: Map<String, Value> = match serde_json::from_slice(line) {
            Ok(object) => object,
            Err(error) => {
                // The error's own words may have some of the text in them.
                let (row, column) = (self.rows + 1, error.column());
                self.failure = Some(format!("row {row}, column {column}: no object of JSON"));
                return;
            }
        };
        self.rows += 1;
        for (name, value) in object {
            let Some(cell) = cell_of(&value) else { continue };
            let index = match self.places.get(&name) {
                Some(index) => *index,
                None if self.columns.len() == COLUMNS_MAX => {
                    self.failure = Some(format!("it has more than {COLUMNS_MAX} columns"));
                    return;
                }
                None => {
                    self.columns.push(Column::new(name.clone()));
                    self.places.insert(name, self.columns.len() - 1);
                    self.columns.len() - 1
                }
            };
            let text;
            let raw = match &value {
                Value::String(text) => text.as_bytes(),
                other => {
                    text = other.to_string();
                    text.as_bytes()
                }
            };
            self.columns[index].add(cell, raw);
        }
    }
}

/// `None` for `null`.
fn cell_of(value: &Value) -> Option<Cell<'_>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => Cell::Boolean,
        Value::Number(number) => {
            let float = number.as_f64()?;
            if number.is_f64() { Cell::Number(float) } else { Cell::Integer(float) }
        }
        Value::String(text) => time(text).unwrap_or(Cell::Text(text.len() as u64)),
        Value::Array(_) => Cell::List,
        Value::Object(_) => Cell::Object,
    })
}

#[cfg(test)]
mod tests {
    use super::super::column::ColumnKind as Kind;
    use super::*;

    fn parse(text: &str, step: usize) -> Result<Table, String> {
        let mut parser = Box::<JsonLinesParser>::default();
        text.as_bytes().chunks(step).for_each(|part| parser.feed(part));
        parser.finish()
    }

    #[test]
    fn members_are_columns() {
        let text =
            "{\"id\":1,\"text\":\"hé\"}\n\n{\"id\":2.5,\"tags\":[1],\"text\":null}\n{\"meta\":{}}";
        for step in [1, 5, 1_000] {
            let table = parse(text, step).unwrap();
            let found: Vec<_> = table.columns.iter().map(Column::summary).collect();
            let told: Vec<_> =
                found.iter().map(|it| (&*it.name, it.kind, it.missing.unwrap())).collect();
            assert_eq!(
                told,
                [
                    ("id", Kind::Number, 1),
                    ("text", Kind::Text, 2),
                    ("tags", Kind::List, 2),
                    ("meta", Kind::Object, 2)
                ]
            );
            assert_eq!((table.rows, found[1].length_max), (3, Some(3)));
        }
    }

    #[test]
    fn what_is_no_table_says_why() {
        let check = |text: &str, expected: &str| {
            let found = parse(text, 1 << 20).unwrap_err();
            assert!(found.contains(expected), "{found}");
        };
        check("{}\n[1]\n", "row 2, column 0: no object");
        check(&"[".repeat(100_000), "row 1, column");
        check(&"x".repeat(LINE_BYTES_MAX + 1), "a line of more than");
        let wide: Vec<_> = (0..=COLUMNS_MAX).map(|n| format!("\"c{n}\":1")).collect();
        check(&format!("{{{}}}", wide.join(",")), "columns");
    }
}
