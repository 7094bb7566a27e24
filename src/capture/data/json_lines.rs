//! Lines of JSON: one object a line, whose members are the columns.
//!
//! Invariant: of a line no more is built than a place for each column: what lies within a member is passed
//! over, however much it is.

use std::collections::HashMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::column::{Cell, Column};
use super::csv::BYTE_ORDER_MARK;
use super::names::{Names, shorten};
use super::table::{COLUMNS_MAX, Table, TableFormat, TableParser};
use super::time::time;

/// Bytes of one line. A file with a longer one is taken as bytes.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Reads one table.
#[derive(Default)]
pub struct JsonLinesParser {
    /// The begin of a line whose end has not come.
    line: Vec<u8>,
    columns: Vec<Column>,
    names: Names,
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
        let is_first = self.rows == 0;
        let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| is_first).unwrap_or(line);
        if line.trim_ascii().is_empty() {
            return;
        }
        let Err(error) = self.read(line) else { return };
        if self.failure.is_none()
            && let Some(line) = without_constants(line)
            && self.read(&line).is_ok()
        {
            return;
        }
        // The error's own words may have some of the text in them.
        let (row, column) = (self.rows + 1, error.column());
        let why = || format!("row {row}, column {column}: no object of JSON");
        self.failure.get_or_insert_with(why);
    }

    /// Reads a row.
    fn read(&mut self, line: &[u8]) -> serde_json::Result<()> {
        let mut deserializer = serde_json::Deserializer::from_slice(line);
        let values = deserializer.deserialize_map(Members(self))?;
        deserializer.end()?;
        self.rows += 1;
        for (column, value) in self.columns.iter_mut().zip(values) {
            if let Some(value) = value {
                add(column, value.get());
            }
        }
        Ok(())
    }

    /// The column of a member, which may be new.
    fn place(&mut self, name: &str) -> Result<usize, String> {
        let name = shorten(name);
        if let Some(place) = self.places.get(&*name) {
            return Ok(*place);
        }
        let place = self.columns.len();
        if place == COLUMNS_MAX {
            return Err(format!("it has more than {COLUMNS_MAX} columns"));
        }
        self.columns.push(Column::new(self.names.add(&name)?));
        self.places.insert(name.into_owned(), place);
        Ok(place)
    }
}

/// Reads an object: the text of its members, each at the place of its column. Of members of the same name
/// the last counts.
struct Members<'a>(&'a mut JsonLinesParser);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(place) = members.next_key_seed(Place(self.0))? {
            if values.len() <= place {
                values.resize(place + 1, None);
            }
            values[place] = Some(members.next_value()?);
        }
        Ok(values)
    }
}

/// Reads a name, which is not kept: the place of its column.
struct Place<'a>(&'a mut JsonLinesParser);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Place<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<usize, E> {
        self.0.place(name).map_err(|why| {
            self.0.failure = Some(why);
            E::custom("no table")
        })
    }
}

/// Takes a value, which is JSON.
fn add(column: &mut Column, json: &str) {
    match json.as_bytes().first() {
        Some(b'[') => return column.add(Cell::List, json.as_bytes()),
        Some(b'{') => return column.add(Cell::Object, json.as_bytes()),
        _ => {}
    }
    match serde_json::from_str(json) {
        // Counted at the end, with those that are not there.
        Ok(Value::Null) => {}
        Ok(Value::Number(number)) => {
            let float = number.as_f64().unwrap_or(f64::NAN);
            let cell = if number.is_f64() { Cell::Number(float) } else { Cell::Integer(float) };
            column.add(cell, number.to_string().as_bytes());
        }
        Ok(Value::String(text)) => {
            column.add(time(&text).unwrap_or(Cell::Text(text.len() as u64)), text.as_bytes());
        }
        Ok(Value::Bool(_)) => column.add(Cell::Boolean, json.as_bytes()),
        // A number past what a float holds, or a text with half of a surrogate pair, which is no UTF-8.
        Ok(Value::Array(_) | Value::Object(_)) | Err(_) => {
            let number = json.parse().map(Cell::Number);
            column.add(number.unwrap_or(Cell::Text(json.len() as u64)), json.as_bytes());
        }
    }
}

/// A line with JSON in place of what Python writes for numbers that JSON does not have: `null` for `NaN`,
/// and for those that are infinite such as no float can hold. `None` where it has none of these.
fn without_constants(line: &[u8]) -> Option<Vec<u8>> {
    const CONSTANTS: [(&[u8], &[u8]); 2] = [(b"NaN", b"null"), (b"Infinity", b"1e999")];
    let (mut found, mut rest, mut is_text) = (Vec::with_capacity(line.len()), line, false);
    while let [byte, after @ ..] = rest {
        let constant = CONSTANTS.iter().find(|(word, _)| !is_text && rest.starts_with(word));
        if let Some((word, json)) = constant {
            found.extend_from_slice(json);
            rest = &rest[word.len()..];
            continue;
        }
        found.push(*byte);
        rest = after;
        match (byte, after) {
            (b'"', _) => is_text = !is_text,
            (b'\\', [escaped, after @ ..]) if is_text => {
                found.push(*escaped);
                rest = after;
            }
            _ => {}
        }
    }
    (found != line).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::super::column::ColumnKind as Kind;
    use super::super::names::NAME_BYTES_MAX;
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
        check("{\"a\":1} {}\n", "row 1, column 9: no object");
    }

    #[test]
    fn long_names_are_cut() {
        let long = "n".repeat(1 << 20);
        let text: String = (0..6).map(|n| format!("{{\"{long}{}\":1}}\n", n % 3)).collect();
        let table = parse(&text, 1 << 20).unwrap();
        let names: Vec<_> = table.columns.iter().map(|column| column.name.len()).collect();
        assert_eq!((table.rows, names), (6, vec![NAME_BYTES_MAX; 3]));
        assert_eq!(table.columns[0].summary().missing, Some(4));
        let many: Vec<_> = (0..COLUMNS_MAX).map(|n| format!("\"{n:0500}\":1")).collect();
        let failure = parse(&format!("{{{}}}", many.join(",")), 1 << 20).unwrap_err();
        assert!(failure.contains("names of its columns"), "{failure}");
    }

    #[test]
    fn of_members_of_one_name_the_last_counts() {
        let table = parse("{\"a\":1,\"a\":null}\n{\"a\":1,\"a\":2,\"a\":3}\n", 100).unwrap();
        let found = table.columns[0].summary();
        assert_eq!((found.missing, found.min, found.distinct), (Some(1), Some(3.into()), Some(1)));
    }

    #[test]
    fn what_python_writes_besides_json_is_read_as_pandas_does() {
        let text = "\u{feff}{\"a\":NaN,\"b\":-Infinity,\"c\":\"NaN \\\" NaN\",\"d\":[NaN]}\n\
                    {\"a\":1.5,\"b\":1e999,\"c\":\"\\ud800\"}\n";
        let table = parse(text, 1_000).unwrap();
        let found: Vec<_> = table.columns.iter().map(Column::summary).collect();
        let told: Vec<_> = found.iter().map(|it| (it.kind, it.missing.unwrap())).collect();
        assert_eq!(told, [(Kind::Number, 1), (Kind::Number, 0), (Kind::Text, 0), (Kind::List, 1)]);
        assert_eq!((found[1].distinct, found[2].length_min), (Some(2), Some(8)));
        assert!(parse("{\"a\":NaNa}\n", 100).unwrap_err().contains("row 1, column"));
    }
}
