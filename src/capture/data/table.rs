//! Tables of a data set: each is summed up by itself, then all of them together.

use std::collections::{HashMap, HashSet};

use super::column::{Column, ColumnSummary};

/// Columns of one table. One with more is taken as bytes.
pub const COLUMNS_MAX: usize = 4_096;

/// How a table is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableFormat {
    Csv,
    JsonLines,
    Parquet,
}

impl TableFormat {
    /// By the end of a file's name.
    pub fn of(name: &[u8]) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end.as_bytes()));
        if ends(&[".csv", ".tsv"]) {
            Some(Self::Csv)
        } else if ends(&[".jsonl", ".ndjson"]) {
            Some(Self::JsonLines)
        } else if ends(&[".parquet"]) {
            Some(Self::Parquet)
        } else {
            None
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::JsonLines => "json-lines",
            Self::Parquet => "parquet",
        }
    }
}

/// One table, summed up.
#[derive(Clone, Debug)]
pub struct Table {
    pub format: TableFormat,
    pub columns: Vec<Column>,
    pub rows: u64,
    /// What was passed over, in words.
    pub notes: Vec<String>,
}

/// Takes the bytes of a table as they are read.
pub trait TableParser {
    fn feed(&mut self, bytes: &[u8]);
    /// The table, or why it is none.
    fn finish(self: Box<Self>) -> Result<Table, String>;
}

/// All tables of a data set, in the order of their files.
#[derive(Debug, Default)]
pub struct Tables {
    /// `None` before the first.
    sum: Option<Table>,
    /// One could not be read.
    unreadable: bool,
    /// They have no columns in common.
    differ: bool,
    notes: Vec<String>,
}

/// What is told of them.
#[derive(Debug)]
pub struct TablesSummary {
    pub format: Option<String>,
    pub rows: Option<u64>,
    pub schema: Vec<ColumnSummary>,
    pub notes: Vec<String>,
}

impl Tables {
    /// Takes in the next table, or why `name` is none.
    pub fn add(&mut self, name: &str, table: Result<Table, String>) {
        let table = match table {
            Ok(table) => table,
            Err(why) => {
                self.unreadable = true;
                return self.note(format!("`{name}` is no table: {why}"));
            }
        };
        table.notes.iter().for_each(|note| self.note(format!("`{name}`: {note}")));
        match &mut self.sum {
            None => self.sum = Some(table),
            // A footer of Parquet says how many there are, and may lie.
            Some(sum) if sum.rows.checked_add(table.rows).is_none() => {
                self.unreadable = true;
                self.note(format!("with `{name}` there are more rows than can be counted"));
            }
            Some(sum) => {
                if !merge(sum, &table) && !self.differ {
                    self.differ = true;
                    self.note(format!("`{name}` has other columns than the tables before it"));
                }
            }
        }
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < super::NOTES_MAX {
            self.notes.push(note);
        }
    }

    pub fn summary(self) -> TablesSummary {
        let sum = self.sum.as_ref().filter(|_| !self.unreadable);
        let alike = sum.filter(|_| !self.differ);
        let schema = alike.map(|sum| sum.columns.iter().map(Column::summary).collect());
        TablesSummary {
            format: alike.map(|sum| sum.format.word().to_owned()),
            rows: sum.map(|sum| sum.rows),
            schema: schema.unwrap_or_default(),
            notes: self.notes,
        }
    }
}

/// Adds the rows of another table; false where the columns are not the same, and left as they are.
fn merge(sum: &mut Table, more: &Table) -> bool {
    let rows = sum.rows;
    sum.rows += more.rows;
    if sum.format != more.format {
        return false;
    }
    // Lines of JSON name their columns, and leave out those that they have no value for.
    if sum.format == TableFormat::JsonLines {
        return merge_by_name(sum, more, rows);
    }
    let names = |columns: &[Column]| columns.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    if names(&sum.columns) != names(&more.columns) {
        return false;
    }
    sum.columns.iter_mut().zip(&more.columns).for_each(|(own, more)| own.merge(more));
    true
}

fn merge_by_name(sum: &mut Table, more: &Table, rows_before: u64) -> bool {
    let place: HashMap<&str, &Column> = more.columns.iter().map(|it| (&*it.name, it)).collect();
    for own in &mut sum.columns {
        match place.get(&*own.name) {
            Some(more) => own.merge(more),
            None => own.add_missing(more.rows),
        }
    }
    let known: HashSet<String> = sum.columns.iter().map(|it| it.name.clone()).collect();
    for column in more.columns.iter().filter(|it| !known.contains(&it.name)) {
        if COLUMNS_MAX <= sum.columns.len() {
            return false;
        }
        let mut column = column.clone();
        column.add_missing(rows_before);
        sum.columns.push(column);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::column::ColumnKind;
    use super::*;

    #[test]
    fn more_rows_than_can_be_counted_are_not_told() {
        let mut tables = Tables::default();
        for _ in 0..5 {
            let rows = 1 << 62;
            let missing = Some(rows + (rows - 1));
            let column = Column::told("a".to_owned(), ColumnKind::Integer, missing, None);
            let (format, columns, notes) = (TableFormat::Parquet, vec![column], Vec::new());
            tables.add("part.parquet", Ok(Table { format, columns, rows, notes }));
        }
        let found = tables.summary();
        assert_eq!((found.rows, found.schema.len()), (None, 0), "{found:?}");
        assert!(found.notes[0].contains("more rows than can be counted"), "{found:?}");
    }
}
