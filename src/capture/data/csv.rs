//! Values separated by commas, semicolons, tabs or bars, read as a stream.

use csv_core::{ReadFieldResult, Reader, ReaderBuilder};

use super::column::{Cell, Column};
use super::table::{COLUMNS_MAX, Table, TableFormat, TableParser};

/// Bytes of a field that are looked at; more are counted only.
const FIELD_BYTES_MAX: usize = 256 << 10;
/// Bytes in which the separator is looked for.
const SNIFF_BYTES: usize = 64 << 10;
/// Longest text that may be a date and a time.
const TIME_BYTES_MAX: usize = 35;

/// What separates fields, the likeliest first.
const SEPARATORS: [u8; 4] = *b",\t;|";

/// What stands for no value, as pandas reads it.
const MISSING: [&[u8]; 10] =
    [b"", b"NA", b"N/A", b"NaN", b"nan", b"null", b"NULL", b"None", b"<NA>", b"n/a"];

/// Reads one table.
pub struct CsvParser {
    /// `None` before the first bytes, which tell the separator.
    reader: Option<Reader>,
    field: Vec<u8>,
    /// Bytes of the field so far; those past the limit are not kept.
    kept: usize,
    length: u64,
    /// Fields of the first record, which may name the columns.
    first: Vec<Vec<u8>>,
    columns: Vec<Column>,
    /// Place of the next field in its record.
    index: usize,
    rows: u64,
    has_names: bool,
    ragged_rows: u64,
    is_ragged: bool,
    failure: Option<String>,
}

impl Default for CsvParser {
    fn default() -> Self {
        Self {
            reader: None,
            field: vec![0; FIELD_BYTES_MAX],
            kept: 0,
            length: 0,
            first: Vec::new(),
            columns: Vec::new(),
            index: 0,
            rows: 0,
            has_names: false,
            ragged_rows: 0,
            is_ragged: false,
            failure: None,
        }
    }
}

impl TableParser for CsvParser {
    fn feed(&mut self, bytes: &[u8]) {
        if self.failure.is_some() || bytes.is_empty() {
            return;
        }
        let mut reader = self.reader.take().unwrap_or_else(|| {
            let separator = separator_of(&bytes[..bytes.len().min(SNIFF_BYTES)]);
            ReaderBuilder::new().delimiter(separator).build()
        });
        self.read(&mut reader, bytes);
        self.reader = Some(reader);
    }

    fn finish(mut self: Box<Self>) -> Result<Table, String> {
        if let Some(mut reader) = self.reader.take() {
            // The empty input is the end: it ends the last record where no newline did.
            self.step(&mut reader, b"");
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if self.columns.is_empty() {
            return Err("it is empty".to_owned());
        }
        let ragged = self.ragged_rows;
        let notes = (0 < ragged).then(|| format!("{ragged} rows have more or fewer fields"));
        let (format, notes) = (TableFormat::Csv, notes.into_iter().collect());
        Ok(Table { format, columns: self.columns, rows: self.rows, notes })
    }
}

impl CsvParser {
    fn read(&mut self, reader: &mut Reader, mut bytes: &[u8]) {
        // The reader takes an empty input for the end, which this is not.
        while self.failure.is_none() && !bytes.is_empty() {
            let taken = self.step(reader, bytes);
            bytes = &bytes[taken..];
        }
    }

    /// Reads up to the end of a field; the bytes that were taken.
    fn step(&mut self, reader: &mut Reader, bytes: &[u8]) -> usize {
        let (result, taken, given) = reader.read_field(bytes, &mut self.field[self.kept..]);
        self.kept += given;
        self.length += given as u64;
        match result {
            ReadFieldResult::InputEmpty | ReadFieldResult::End => {}
            // What is kept is enough to go by: the rest of the field overwrites its end.
            ReadFieldResult::OutputFull => self.kept = FIELD_BYTES_MAX / 2,
            ReadFieldResult::Field { record_end } => self.end_field(record_end),
        }
        taken
    }

    fn end_field(&mut self, record_end: bool) {
        let field = std::mem::take(&mut self.field);
        self.take_field(&field[..self.kept]);
        self.field = field;
        (self.kept, self.length) = (0, 0);
        if record_end {
            self.end_record();
        }
    }

    fn take_field(&mut self, field: &[u8]) {
        if self.columns.is_empty() {
            if COLUMNS_MAX <= self.first.len() {
                self.failure = Some(format!("it has more than {COLUMNS_MAX} columns"));
                return;
            }
            self.first.push(field.to_vec());
            return;
        }
        match self.columns.get_mut(self.index) {
            Some(column) => add(column, field, self.length),
            None => self.is_ragged = true,
        }
        self.index += 1;
    }

    fn end_record(&mut self) {
        if self.columns.is_empty() {
            return self.begin_table();
        }
        for column in self.columns.iter_mut().skip(self.index) {
            column.add_missing(1);
            self.is_ragged = true;
        }
        self.ragged_rows += u64::from(std::mem::take(&mut self.is_ragged));
        self.rows += 1;
        self.index = 0;
    }

    /// Makes columns of the first record; where that is no list of names, it is a row.
    fn begin_table(&mut self) {
        let first = std::mem::take(&mut self.first);
        self.has_names = is_header(&first);
        let names = (1..).zip(&first).map(|(number, field)| match self.has_names {
            true => String::from_utf8_lossy(field).trim_start_matches('\u{feff}').to_owned(),
            false => format!("column {number}"),
        });
        self.columns = names.map(Column::new).collect();
        if !self.has_names {
            for (column, field) in self.columns.iter_mut().zip(&first) {
                add(column, field, field.len() as u64);
            }
            self.rows = 1;
        }
    }
}

fn add(column: &mut Column, field: &[u8], length: u64) {
    let trimmed = field.trim_ascii();
    if MISSING.contains(&trimmed) {
        return column.add(Cell::Missing, b"");
    }
    // Nothing that comes after a text makes the column anything else.
    let cell =
        if column.is_text() { None } else { std::str::from_utf8(trimmed).ok().and_then(plain) };
    column.add(cell.unwrap_or(Cell::Text(length)), trimmed);
}

/// What a text is where it is no mere text.
fn plain(text: &str) -> Option<Cell<'_>> {
    match text.bytes().next()? {
        b'0'..=b'9' => number(text).or_else(|| time(text)),
        b'-' | b'+' | b'.' => number(text),
        b't' | b'T' | b'f' | b'F' => {
            let words = ["true", "True", "TRUE", "false", "False", "FALSE"];
            words.contains(&text).then_some(Cell::Boolean)
        }
        _ => None,
    }
}

fn number(text: &str) -> Option<Cell<'static>> {
    let number: f64 = text.parse().ok()?;
    if !number.is_finite() {
        return None;
    }
    let is_whole = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+'));
    // `007` is a code, not a number; as is what a float cannot hold exactly: an identifier.
    let digits = text.trim_start_matches(['-', '+']);
    if is_whole && (digits.len() > 1 && digits.starts_with('0') || 15 < digits.len()) {
        return None;
    }
    Some(if is_whole { Cell::Integer(number) } else { Cell::Number(number) })
}

/// `2026-06-01`, `2026-06-01 12:00:00`, `2026-06-01T12:00:00.5+02:00`.
pub fn time(text: &str) -> Option<Cell<'_>> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| -> Option<u32> {
        let digits = bytes.get(range)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
    };
    digits(0..4)?;
    let (month, day) = (digits(5..7)?, digits(8..10)?);
    let is_date = bytes[4] == b'-' && bytes[7] == b'-' && (1..=12).contains(&month);
    if !is_date || !(1..=31).contains(&day) {
        return None;
    }
    if bytes.len() == 10 {
        return Some(Cell::Date(text));
    }
    let (hour, minute) = (digits(11..13)?, digits(14..16)?);
    let rest = bytes.get(16..)?;
    let is_time = matches!(bytes[10], b'T' | b' ') && bytes[13] == b':' && hour < 24 && minute < 60;
    let is_plain = rest.iter().all(|byte| byte.is_ascii_digit() || b":.+-Z".contains(byte));
    (is_time && is_plain && bytes.len() <= TIME_BYTES_MAX).then_some(Cell::Time(text))
}

/// Whether a record names columns: no field is empty, a number or a date, and none occurs twice.
fn is_header(fields: &[Vec<u8>]) -> bool {
    let mut seen = std::collections::HashSet::new();
    fields.iter().all(|field| {
        let text = field.trim_ascii();
        let is_value = std::str::from_utf8(text).is_ok_and(|text| plain(text).is_some());
        !text.is_empty() && !is_value && seen.insert(text)
    })
}

/// What separates the fields of the first record: what occurs in it most often, outside of quotes.
fn separator_of(bytes: &[u8]) -> u8 {
    let mut counts = [0_usize; SEPARATORS.len()];
    let mut quoted = false;
    for byte in bytes {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            byte if !quoted => {
                if let Some(index) = SEPARATORS.iter().position(|it| it == byte) {
                    counts[index] += 1;
                }
            }
            _ => {}
        }
    }
    let most = *counts.iter().max().expect("there are four");
    let index = counts.iter().position(|count| *count == most).expect("it is one of them");
    SEPARATORS[index]
}

#[cfg(test)]
mod tests {
    use super::super::column::ColumnKind as Kind;
    use super::*;

    fn parse(bytes: &[u8], step: usize) -> Result<Table, String> {
        let mut parser = Box::<CsvParser>::default();
        bytes.chunks(step).for_each(|part| parser.feed(part));
        parser.finish()
    }

    #[test]
    fn a_table_is_the_same_in_whatever_pieces_it_comes() {
        let text =
            b"\xef\xbb\xbfid,name,score,when,ok\r\n1,\"a, \"\"b\"\"\n c\",0.5,2026-01-02,true\r\n\
            2,,1e3,2026-03-04,false\r\n3,NA,,2025-01-01,TRUE";
        for step in [1, 2, 3, 7, 1_000] {
            let table = parse(text, step.max(4)).unwrap();
            let found: Vec<_> = table.columns.iter().map(Column::summary).collect();
            let kinds: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.kind)).collect();
            assert_eq!(table.rows, 3, "{step}");
            assert_eq!(
                kinds,
                [
                    ("id", Kind::Integer),
                    ("name", Kind::Text),
                    ("score", Kind::Number),
                    ("when", Kind::Date),
                    ("ok", Kind::Boolean)
                ]
            );
            assert_eq!((found[1].missing, found[1].length_max), (Some(2), Some(9)));
            assert_eq!((&found[2].min, &found[2].max), (&Some(0.5.into()), &Some(1000.into())));
            assert_eq!(found[3].min, Some("2025-01-01".into()));
        }
    }

    #[test]
    fn a_record_of_values_is_no_header() {
        let table = parse(b"5.1,3.5,setosa\n4.9,3.0,setosa\n", 100).unwrap();
        assert_eq!((table.rows, table.columns[2].name.as_str()), (2, "column 3"));
    }

    #[test]
    fn separators_are_found() {
        for (text, columns) in [
            ("a;b;c\n1,5;2;3\n", 3),
            ("a\tb\n1\t2\n", 2),
            ("\"x;y;z\",b\n", 2),
            ("a\n1\n", 1),
            ("a|b\n", 2),
        ] {
            assert_eq!(parse(text.as_bytes(), 100).unwrap().columns.len(), columns, "{text}");
        }
    }

    #[test]
    fn identifiers_are_not_numbers() {
        let cell = |text| plain(text);
        assert_eq!(cell("007"), None);
        assert_eq!(cell("1234567890123456"), None);
        assert_eq!(cell("0"), Some(Cell::Integer(0.0)));
        assert_eq!(cell("-12"), Some(Cell::Integer(-12.0)));
        assert_eq!(cell("1.5e-3"), Some(Cell::Number(0.0015)));
        assert_eq!(cell("infinity"), None);
        assert_eq!(cell("2026-13-01"), None);
        assert_eq!(
            cell("2026-06-01T12:00:00.5+02:00"),
            Some(Cell::Time("2026-06-01T12:00:00.5+02:00"))
        );
        assert_eq!(cell("2026-06-01T12:00 lunch with ann"), None);
    }

    #[test]
    fn rows_of_other_lengths_are_counted() {
        let table = parse(b"a,b\n1\n1,2,3\n1,2\n", 100).unwrap();
        assert_eq!(table.rows, 3);
        assert_eq!(table.notes, ["2 rows have more or fewer fields"]);
    }

    #[test]
    fn a_field_without_an_end_takes_no_memory() {
        let mut text = b"a,b\n\"".to_vec();
        text.resize(3 << 20, b'x');
        let table = parse(&text, 1 << 16).unwrap();
        assert_eq!(table.rows, 1);
        let wide = ",".repeat(COLUMNS_MAX + 1);
        assert!(parse(wide.as_bytes(), 100).unwrap_err().contains("columns"));
        assert!(parse(b"", 1).unwrap_err().contains("empty"));
    }
}
