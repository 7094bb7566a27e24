//! Values separated by commas, semicolons, tabs or bars, read as a stream.

use csv_core::{ReadFieldResult, Reader, ReaderBuilder};

use super::column::{Cell, Column};
use super::names::Names;
use super::table::{COLUMNS_MAX, Table, TableFormat, TableParser};
use super::time::time;

/// Bytes of a field that are looked at; more are counted only.
const FIELD_BYTES_MAX: usize = 256 << 10;
/// Bytes in which the separator is looked for.
const SNIFF_BYTES: usize = 64 << 10;
/// What a file may begin with to say that it is in UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What a file in UTF-16 begins with.
const WIDE_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// What separates fields, the likeliest first.
const SEPARATORS: [u8; 4] = *b",\t;|";

/// What stands for no value, as pandas reads it.
const MISSING: [&[u8]; 19] = [
    b"",
    b"NA",
    b"N/A",
    b"NaN",
    b"nan",
    b"null",
    b"NULL",
    b"None",
    b"<NA>",
    b"n/a",
    b"#N/A",
    b"#N/A N/A",
    b"#NA",
    b"-NaN",
    b"-nan",
    b"1.#IND",
    b"-1.#IND",
    b"1.#QNAN",
    b"-1.#QNAN",
];

/// A field of the first record.
struct First {
    /// Of the column below it, if it is one.
    name: String,
    /// The field alone, if it is a value.
    column: Column,
    is: Looks,
}

/// What a field of the first record looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Looks {
    /// Nothing, or what stands for it.
    Missing,
    /// A number, a date or the like.
    Value,
    /// A text that has a letter or a digit.
    Name,
    /// Any other text.
    Text,
}

/// Reads one table.
pub struct CsvParser {
    /// `None` before the first bytes, which tell the separator.
    reader: Option<Reader>,
    field: Vec<u8>,
    /// Bytes of the field so far; those past the limit are not kept.
    kept: usize,
    length: u64,
    /// The first record, which may name the columns: what is below it tells.
    first: Vec<First>,
    names: Names,
    columns: Vec<Column>,
    /// Place of the next field in its record.
    index: usize,
    rows: u64,
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
            names: Names::default(),
            columns: Vec::new(),
            index: 0,
            rows: 0,
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
        let Some(mut reader) = self.reader.take() else { return self.begin(bytes) };
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
        let mut notes = Vec::new();
        if names_columns(&self.first, &self.columns) {
            for (column, first) in self.columns.iter_mut().zip(self.first) {
                column.name = first.name;
            }
        } else {
            for (number, (column, first)) in (1..).zip(self.columns.iter_mut().zip(self.first)) {
                let below = std::mem::replace(column, first.column);
                column.merge(&below);
                column.name = format!("column {number}");
            }
            self.rows += 1;
            notes.push("its first record is counted as a row, not taken for names".to_owned());
        }
        if 0 < self.ragged_rows {
            notes.push(format!("{} rows have more or fewer fields", self.ragged_rows));
        }
        Ok(Table { format: TableFormat::Csv, columns: self.columns, rows: self.rows, notes })
    }
}

impl CsvParser {
    /// Takes the first bytes, which tell how the others are to be read.
    fn begin(&mut self, bytes: &[u8]) {
        if WIDE_MARKS.iter().any(|mark| bytes.starts_with(mark)) {
            self.failure = Some("it is in UTF-16".to_owned());
            return;
        }
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let separator = separator_of(&bytes[..bytes.len().min(SNIFF_BYTES)]);
        let mut reader = ReaderBuilder::new().delimiter(separator).build();
        self.read(&mut reader, bytes);
        self.reader = Some(reader);
    }

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
            match self.first_field(field) {
                Ok(first) => self.first.push(first),
                Err(failure) => self.failure = Some(failure),
            }
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
            let columns = self.first.iter().map(|_| Column::new(String::new()));
            self.columns = columns.collect();
            return;
        }
        for column in self.columns.iter_mut().skip(self.index) {
            column.add_missing(1);
            self.is_ragged = true;
        }
        self.ragged_rows += u64::from(std::mem::take(&mut self.is_ragged));
        self.rows += 1;
        self.index = 0;
    }

    fn first_field(&mut self, field: &[u8]) -> Result<First, String> {
        let number = self.first.len() + 1;
        if COLUMNS_MAX < number {
            return Err(format!("it has more than {COLUMNS_MAX} columns"));
        }
        let text = String::from_utf8_lossy(field);
        let name = match text.trim_ascii() {
            "" => self.names.add(&format!("column {number}"))?,
            _ => self.names.add(&text)?,
        };
        let mut column = Column::new(String::new());
        add(&mut column, field, self.length);
        Ok(First { name, column, is: Looks::of(field) })
    }
}

impl Looks {
    fn of(field: &[u8]) -> Self {
        let text = String::from_utf8_lossy(field.trim_ascii());
        if is_missing(text.as_bytes()) {
            Self::Missing
        } else if plain(&text).is_some() {
            Self::Value
        } else if text.contains(char::is_alphanumeric) {
            Self::Name
        } else {
            Self::Text
        }
    }
}

fn is_missing(trimmed: &[u8]) -> bool {
    MISSING.contains(&trimmed)
}

fn add(column: &mut Column, field: &[u8], length: u64) {
    let trimmed = field.trim_ascii();
    if is_missing(trimmed) {
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
        b'-' | b'+' | b'.' | b'i' | b'I' => number(text),
        b't' | b'T' | b'f' | b'F' => {
            let words = ["true", "True", "TRUE", "false", "False", "FALSE"];
            words.contains(&text).then_some(Cell::Boolean)
        }
        _ => None,
    }
}

fn number(text: &str) -> Option<Cell<'static>> {
    let number: f64 = text.parse().ok()?;
    if number.is_nan() {
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

/// Whether the first record names the columns below it: it has names and no values, or a name above values
/// alone, or it counts the columns as pandas does, after an empty field for those of its index.
fn names_columns(first: &[First], columns: &[Column]) -> bool {
    let has_values = first.iter().any(|field| field.is == Looks::Value);
    let is_name = |(field, column): (&First, &Column)| {
        field.is == Looks::Name && (!has_values || column.has_only_values())
    };
    let is_counted = first.split_first().is_some_and(|(index, fields)| {
        let mut numbered = fields.iter().enumerate();
        index.is == Looks::Missing
            && !fields.is_empty()
            && numbered.all(|(number, field)| field.name == number.to_string())
    });
    is_counted || first.iter().zip(columns).any(is_name)
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
    use super::super::names::NAME_BYTES_MAX;
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
    fn a_header_may_have_empty_fields_numbers_and_names_that_occur_twice() {
        let check = |text: &str, rows: u64, names: &[&str]| {
            let table = parse(text.as_bytes(), 100).unwrap();
            let found: Vec<_> = table.columns.iter().map(|it| it.name.as_str()).collect();
            assert_eq!((table.rows, &*found), (rows, names), "{text}");
            let is_noted = table.notes.iter().any(|note| note.contains("first record"));
            assert_eq!(is_noted, names.iter().all(|name| name.starts_with("column ")), "{text}");
        };
        check(",a\n0,5\n1,6\n", 2, &["column 1", "a"]);
        check("a,a,a.1\n1,2,3\n", 1, &["a", "a.1", "a.1.1"]);
        check("x,2020\n1,5\n", 1, &["x", "2020"]);
        check("x,2020\n,5\n1,6\n", 2, &["x", "2020"]);
        check(",0,1\n0,0.5,0.25\n", 1, &["column 1", "0", "1"]);
        check("a,column 1,\n1,2,3\n", 1, &["a", "column 1", "column 3"]);
        check("a,b\nx,y\n", 1, &["a", "b"]);
        check("a,b", 0, &["a", "b"]);
        // What may be names or values is a row, and that is said.
        check("de,5\nfr,6\n", 2, &["column 1", "column 2"]);
        check("?,5\n1,6\n", 2, &["column 1", "column 2"]);
        check("1,2\n3,4\n", 2, &["column 1", "column 2"]);
        check(",2\n3,4\n", 2, &["column 1", "column 2"]);
        check(",,\n1,2,3\n", 2, &["column 1", "column 2", "column 3"]);
    }

    #[test]
    fn a_first_record_that_is_a_row_counts_as_the_others_do() {
        let long = "y".repeat(3_000);
        let table = parse(format!("1,{long}\n3,x\n5,\n").as_bytes(), 1_000).unwrap();
        let found: Vec<_> = table.columns.iter().map(Column::summary).collect();
        assert_eq!((&found[0].min, &found[0].max), (&Some(1.into()), &Some(5.into())));
        assert_eq!((found[0].mean, found[0].distinct), (Some(3.0), Some(3)));
        assert_eq!((found[1].length_max, found[1].missing), (Some(3_000), Some(1)));
    }

    #[test]
    fn names_take_little_memory() {
        let long = "n".repeat(2_000);
        let header: Vec<_> = (0..600).map(|number| format!("{long}{number}")).collect();
        let table = parse(format!("{}\n", header.join(",")).as_bytes(), 1 << 20).unwrap();
        let bytes: usize = table.columns.iter().map(|column| column.name.len()).sum();
        assert!(bytes <= 600 * NAME_BYTES_MAX, "{bytes}");
        let wide = header.join(",") + "," + &header.join(",");
        assert!(parse(wide.as_bytes(), 1 << 20).unwrap_err().contains("names"));
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
        assert_eq!(cell("-Infinity"), Some(Cell::Number(f64::NEG_INFINITY)));
        assert_eq!(cell("2026-06-01"), Some(Cell::Date("2026-06-01")));
    }

    #[test]
    fn what_pandas_takes_for_missing_or_infinite_leaves_a_column_of_numbers() {
        let table = parse(b"a\n1\ninf\n-nan\n#N/A\n3\n+Infinity\n", 100).unwrap();
        let found = table.columns[0].summary();
        assert_eq!((found.kind, found.missing, found.distinct), (Kind::Number, Some(2), Some(4)));
        // JSON has no infinity.
        assert_eq!((found.min, found.max), (Some(1.into()), None));
        assert_eq!((found.mean, found.std), (None, None));
    }

    #[test]
    fn marks_of_an_encoding_are_no_text() {
        let table = parse(b"\xef\xbb\xbf\"a\",b\n1,2\n", 100).unwrap();
        assert_eq!(table.columns[0].name, "a");
        let wide: Vec<u8> =
            "\u{feff}a,b\n1,2\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(parse(&wide, 100).unwrap_err().contains("UTF-16"));
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
