//! Parquet: the footer tells columns, rows and ranges; no page of data is read.
//!
//! A file ends with its footer in Thrift's compact protocol, the footer's length in 4 bytes, and `PAR1`.

mod thrift;

use std::fs::File;
use std::os::unix::fs::FileExt;

use self::thrift::{Kind, Malformed, Reader};
use super::column::{Column, ColumnKind};
use super::names::Names;
use super::table::{COLUMNS_MAX, Table, TableFormat};

/// Largest footer.
const FOOTER_BYTES_MAX: u64 = 64 << 20;
/// Elements of a schema: columns with the groups around them.
const ELEMENTS_MAX: usize = 100_000;
/// Groups within each other.
const DEPTH_MAX: usize = 32;
const MAGIC: &[u8; 4] = b"PAR1";
/// Length and magic at the end.
const TAIL_BYTES: u64 = 8;

/// The table of a file that has `bytes`, or why it is none.
pub fn read(file: &File, bytes: u64) -> Result<Table, String> {
    let failed = |error: std::io::Error| format!("its footer cannot be read: {error}");
    let mut tail = [0; TAIL_BYTES as usize];
    let end = bytes.checked_sub(TAIL_BYTES).ok_or("it is shorter than a footer")?;
    file.read_exact_at(&mut tail, end).map_err(failed)?;
    let (length, magic) = tail.split_first_chunk::<4>().expect("eight bytes");
    if magic != MAGIC {
        return Err("it does not end as Parquet does, or its footer is encrypted".to_owned());
    }
    let length = u64::from(u32::from_le_bytes(*length));
    let start = end.checked_sub(length).filter(|_| length <= FOOTER_BYTES_MAX);
    let start = start.ok_or_else(|| format!("its footer is said to have {length} bytes"))?;
    let mut footer = vec![0; usize::try_from(length).expect("at most 64 MiB")];
    file.read_exact_at(&mut footer, start).map_err(failed)?;
    parse_footer(&footer)
}

/// The table that a footer tells of, or why it tells of none.
pub fn parse_footer(footer: &[u8]) -> Result<Table, String> {
    let (mut table, names) =
        parse(footer).map_err(|Malformed(why)| format!("its footer does not parse: {why}"))?;
    let mut distinct = Names::default();
    for (column, name) in table.columns.iter_mut().zip(names) {
        column.name = distinct.add(&String::from_utf8_lossy(name))?;
    }
    Ok(table)
}

/// One element of the schema.
#[derive(Clone, Debug, Default)]
struct Element<'a> {
    name: &'a [u8],
    physical: Option<i64>,
    repetition: i64,
    children: i64,
    converted: Option<i64>,
    /// Number of the field of the union.
    logical: Option<i16>,
}

/// What the row groups say of one leaf.
#[derive(Clone, Debug)]
struct Leaf {
    missing: Option<u64>,
    range: Option<(f64, f64)>,
}

/// The table, and the names of its columns.
fn parse(footer: &[u8]) -> Result<(Table, Vec<&[u8]>), Malformed> {
    let mut reader = Reader::new(footer);
    let (mut elements, mut rows) = (Vec::new(), None);
    let mut leaves: Option<Vec<Leaf>> = None;
    let mut physical = Vec::new();
    reader.structure(|reader, id, kind| match (id, kind) {
        (2, Kind::List) => {
            reader.list(|reader, kind| {
                if ELEMENTS_MAX <= elements.len() {
                    return Err(Malformed("more elements of a schema than any table has"));
                }
                elements.push(element(reader, kind)?);
                Ok(())
            })?;
            let leaf = |element: &&Element| element.children == 0;
            physical = elements.iter().skip(1).filter(leaf).map(|it| it.physical).collect();
            Ok(())
        }
        (3, Kind::Whole) => {
            rows = Some(u64::try_from(reader.whole()?).map_err(|_| Malformed("rows below 0"))?);
            Ok(())
        }
        (4, Kind::List) => reader.list(|reader, kind| {
            let group = row_group(reader, kind, &physical)?;
            match &mut leaves {
                None => leaves = Some(group),
                Some(leaves) => {
                    leaves.iter_mut().zip(&group).for_each(|(own, more)| own.merge(more));
                }
            }
            Ok(())
        }),
        _ => reader.skip(kind),
    })?;
    let rows = rows.ok_or(Malformed("it does not say how many rows there are"))?;
    let (columns, names) = columns(&elements, &leaves.unwrap_or_default())?;
    Ok((Table { format: TableFormat::Parquet, columns, rows, notes: Vec::new() }, names))
}

fn element<'a>(reader: &mut Reader<'a>, kind: Kind) -> Result<Element<'a>, Malformed> {
    let mut found = Element::default();
    reader.expect_structure(kind)?;
    reader.structure(|reader, id, kind| match (id, kind) {
        (1, Kind::Whole) => {
            found.physical = Some(reader.whole()?);
            Ok(())
        }
        (3, Kind::Whole) => {
            found.repetition = reader.whole()?;
            Ok(())
        }
        (4, Kind::Binary) => {
            found.name = reader.binary()?;
            Ok(())
        }
        (5, Kind::Whole) => {
            found.children = reader.whole()?;
            Ok(())
        }
        (6, Kind::Whole) => {
            found.converted = Some(reader.whole()?);
            Ok(())
        }
        // A union: the one field that is there says which.
        (10, Kind::Structure) => reader.structure(|reader, id, kind| {
            found.logical = Some(id);
            reader.skip(kind)
        }),
        _ => reader.skip(kind),
    })?;
    Ok(found)
}

fn row_group(
    reader: &mut Reader<'_>,
    kind: Kind,
    physical: &[Option<i64>],
) -> Result<Vec<Leaf>, Malformed> {
    let mut leaves = Vec::new();
    reader.expect_structure(kind)?;
    reader.structure(|reader, id, kind| match (id, kind) {
        (1, Kind::List) => reader.list(|reader, kind| {
            let of = physical.get(leaves.len()).ok_or(Malformed("more columns than its schema"))?;
            leaves.push(column_chunk(reader, kind, *of)?);
            Ok(())
        }),
        _ => reader.skip(kind),
    })?;
    Ok(leaves)
}

fn column_chunk(
    reader: &mut Reader<'_>,
    kind: Kind,
    physical: Option<i64>,
) -> Result<Leaf, Malformed> {
    let mut leaf = Leaf { missing: None, range: None };
    reader.expect_structure(kind)?;
    reader.structure(|reader, id, kind| match (id, kind) {
        (3, Kind::Structure) => reader.structure(|reader, id, kind| match (id, kind) {
            (12, Kind::Structure) => {
                leaf = statistics(reader, physical)?;
                Ok(())
            }
            _ => reader.skip(kind),
        }),
        _ => reader.skip(kind),
    })?;
    Ok(leaf)
}

fn statistics(reader: &mut Reader<'_>, physical: Option<i64>) -> Result<Leaf, Malformed> {
    let (mut missing, mut max, mut min) = (None, None, None);
    reader.structure(|reader, id, kind| match (id, kind) {
        (3, Kind::Whole) => {
            missing = u64::try_from(reader.whole()?).ok();
            Ok(())
        }
        (5, Kind::Binary) => {
            max = number(reader.binary()?, physical);
            Ok(())
        }
        (6, Kind::Binary) => {
            min = number(reader.binary()?, physical);
            Ok(())
        }
        _ => reader.skip(kind),
    })?;
    Ok(Leaf { missing, range: min.zip(max) })
}

/// A number as a statistic has it: plain, little endian.
fn number(bytes: &[u8], physical: Option<i64>) -> Option<f64> {
    let number = match physical? {
        1 => f64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        2 => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
        4 => f64::from(f32::from_le_bytes(bytes.try_into().ok()?)),
        5 => f64::from_le_bytes(bytes.try_into().ok()?),
        _ => return None,
    };
    Some(number).filter(|number| number.is_finite())
}

impl Leaf {
    fn merge(&mut self, other: &Self) {
        self.missing =
            self.missing.zip(other.missing).and_then(|(own, more)| own.checked_add(more));
        let ranges = self.range.zip(other.range);
        self.range = ranges.map(|(own, more)| (own.0.min(more.0), own.1.max(more.1)));
    }
}

/// The columns of a table: the children of the root. One that is a group is a list or an object.
fn columns<'a>(
    elements: &[Element<'a>],
    leaves: &[Leaf],
) -> Result<(Vec<Column>, Vec<&'a [u8]>), Malformed> {
    let Some((root, below)) = elements.split_first() else {
        return Err(Malformed("it has no schema"));
    };
    let (mut at, mut leaf) = (0, 0);
    let (mut columns, mut names) = (Vec::new(), Vec::new());
    while at < below.len() {
        if COLUMNS_MAX <= columns.len() {
            return Err(Malformed("more columns than are told of"));
        }
        let element = &below[at];
        let (kind, is_plain) = (kind_of(element), element.children == 0 && element.repetition != 2);
        let (next, leaf_count) = extent(below, at)?;
        let told = leaves.get(leaf).filter(|_| is_plain);
        let is_number = matches!(kind, ColumnKind::Integer | ColumnKind::Number);
        let range = told.and_then(|leaf| leaf.range).filter(|_| is_number);
        let missing = told.and_then(|leaf| leaf.missing);
        columns.push(Column::told(String::new(), kind, missing, range));
        names.push(element.name);
        (at, leaf) = (next, leaf + leaf_count);
    }
    if usize::try_from(root.children).ok() != Some(columns.len()) {
        return Err(Malformed("its schema is no tree"));
    }
    Ok((columns, names))
}

/// Where the element after the one at `at` and all that is below it stands, and how many leaves it has.
fn extent(elements: &[Element<'_>], at: usize) -> Result<(usize, usize), Malformed> {
    let (mut next, mut leaves) = (at, 0);
    // Elements that are still to come, of each group that is open.
    let mut open = vec![1_i64];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let element = elements.get(next).ok_or(Malformed("its schema ends early"))?;
        next += 1;
        match element.children {
            0 => leaves += 1,
            children if children < 0 => return Err(Malformed("a group of fewer than none")),
            _ if DEPTH_MAX < open.len() => return Err(Malformed("groups nested too deep")),
            children => open.push(children),
        }
    }
    Ok((next, leaves))
}

fn kind_of(element: &Element<'_>) -> ColumnKind {
    if 0 < element.children {
        let is_list = element.logical == Some(3) || element.converted == Some(3);
        return if is_list { ColumnKind::List } else { ColumnKind::Object };
    }
    if element.repetition == 2 {
        return ColumnKind::List;
    }
    // By the numbers of the fields of `LogicalType`, else those of `ConvertedType`.
    match (element.logical, element.converted, element.physical) {
        (Some(1 | 4 | 12 | 14), ..) | (None, Some(0 | 4 | 19), _) => ColumnKind::Text,
        (Some(5 | 15), ..) | (None, Some(5), _) => ColumnKind::Number,
        (Some(6), ..) | (None, Some(6), _) => ColumnKind::Date,
        (Some(7 | 8), ..) | (None, Some(7..=10), _) => ColumnKind::Time,
        (_, _, Some(0)) => ColumnKind::Boolean,
        (_, _, Some(1 | 2)) => ColumnKind::Integer,
        // Of old, a time stamp in 12 bytes.
        (_, _, Some(3)) => ColumnKind::Time,
        (_, _, Some(4 | 5)) => ColumnKind::Number,
        _ => ColumnKind::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::NAME_BYTES_MAX;
    use super::*;

    /// A footer of one row, whose columns are integers with these names.
    fn footer(names: &[String]) -> Vec<u8> {
        let varint = |number: usize| -> Vec<u8> {
            (0..3)
                .map(|n| (number >> (7 * n) & 0x7f) as u8 | if n < 2 { 0x80 } else { 0 })
                .collect()
        };
        let list = [&[0x29, 0xfc][..], &varint(names.len() + 1)].concat();
        // The root: field 5, its children, of which the zigzag is twice as many.
        let root = [&[0x55][..], &varint(2 * names.len()), &[0]].concat();
        let leaf = |name: &String| {
            [&[0x15, 2, 0x38][..], &varint(name.len()), name.as_bytes(), &[0]].concat()
        };
        let leaves: Vec<_> = names.iter().flat_map(leaf).collect();
        [&list[..], &root, &leaves, &[0x16, 2, 0]].concat()
    }

    #[test]
    fn long_names_are_cut_and_names_differ() {
        let long = "n".repeat(15_000);
        let names = [long.clone() + "1", long + "2", "a".to_owned(), "a".to_owned()];
        let table = parse_footer(&footer(&names)).unwrap();
        let found: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!((table.rows, &found[2..]), (1, &["a", "a.1"][..]));
        assert!(found[0] != found[1] && found[0].len() <= NAME_BYTES_MAX, "{}", found[0].len());
        let many: Vec<_> = (0..2_000).map(|number| format!("{number:0>1000}")).collect();
        assert!(parse_footer(&footer(&many)).unwrap_err().contains("names of its columns"));
    }
}
