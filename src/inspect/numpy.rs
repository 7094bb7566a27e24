//! NumPy: `.npy` files, and `.npz` archives of them.
//!
//! Source: "The NPY file format", `numpy/lib/format.py`.

use std::ops::Range;

use super::reader::Reader;
use super::table::TableBuilder;
use super::zip::Member;
use super::{Dtype, FileFormat, RANK_MAX, Stop, TensorTable};

/// The first bytes of a `.npy` file.
pub(super) const MAGIC: [u8; 6] = *b"\x93NUMPY";
/// How the members of an archive are called.
pub(super) const EXTENSION: &str = ".npy";
/// Bytes of the longest header; NumPy itself refuses more than 10,000.
const ARRAY_HEADER_BYTES_MAX: u64 = 64 << 10;
/// What the array of a lone file is called.
const ARRAY_NAME: &str = "array";

/// What the header of an array says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Header {
    /// `None` when it is not a plain text: a structure.
    descr: Option<String>,
    /// Innermost first.
    is_fortran: bool,
    shape: Vec<u64>,
}

/// Finds the tensor of a lone file.
pub(super) fn parse(reader: &mut Reader<'_>) -> Result<TensorTable, Stop> {
    let mut table = TableBuilder::new(reader.bytes());
    let file = 0..reader.bytes();
    add_array(reader, &mut table, ARRAY_NAME, file)?;
    table.finish(FileFormat::Npy)
}

/// Finds the tensors of an archive. Members that are no arrays are passed over.
pub(super) fn parse_archive(
    reader: &mut Reader<'_>,
    members: &[Member],
) -> Result<TensorTable, Stop> {
    let mut table = TableBuilder::new(reader.bytes());
    for member in members {
        let Some(name) = member.name.strip_suffix(EXTENSION) else { continue };
        let content = member.content(reader)?;
        add_array(reader, &mut table, name, content)?;
    }
    table.finish(FileFormat::Npz)
}

/// Adds the array that is all of `file`.
fn add_array(
    reader: &mut Reader<'_>,
    table: &mut TableBuilder,
    name: &str,
    file: Range<u64>,
) -> Result<(), Stop> {
    let mut at = file.start;
    let magic: [u8; 6] = reader.array(&mut at)?;
    let [major, _minor] = reader.array(&mut at)?;
    let length = match major {
        1 => reader.u16(&mut at)?.into(),
        2 | 3 => reader.u32(&mut at)?.into(),
        _ => return Err(Stop::Malformed("its version is none of 1 to 3")),
    };
    if magic != MAGIC || ARRAY_HEADER_BYTES_MAX < length {
        return Err(Stop::Malformed("an array has no header, or too long a one"));
    }
    let text = Reader::range(at, length, &file)?;
    let data = text.end..file.end;
    let Some(header) = parse_header(&reader.bytes_of(&text)?) else {
        return Err(Stop::Malformed("the header of an array is not as NumPy writes it"));
    };
    let Header { descr, is_fortran, mut shape } = header;
    if is_fortran {
        // As the bytes lie: the last dimension is then the outermost.
        shape.reverse();
    }
    let dtype = descr.as_deref().map_or(Dtype::Other, dtype_of);
    let bytes = match dtype {
        Dtype::Other => data,
        known => {
            let length = known.bytes(&shape);
            let length = length.ok_or(Stop::Malformed("an array's shape is impossible"))?;
            Reader::range(data.start, length, &data)?
        }
    };
    table.add(name.to_owned(), dtype, shape, bytes)
}

fn dtype_of(descr: &str) -> Dtype {
    match descr {
        "<f8" => Dtype::F64,
        "<f4" => Dtype::F32,
        "<f2" => Dtype::F16,
        "<i8" => Dtype::I64,
        "<i4" => Dtype::I32,
        "<i2" => Dtype::I16,
        "|i1" | "<i1" => Dtype::I8,
        "<u8" => Dtype::U64,
        "<u4" => Dtype::U32,
        "<u2" => Dtype::U16,
        "|u1" | "<u1" => Dtype::U8,
        "|b1" => Dtype::Bool,
        _ => Dtype::Other,
    }
}

/// Parses the Python dictionary `{'descr': …, 'fortran_order': …, 'shape': (…)}`.
fn parse_header(text: &[u8]) -> Option<Header> {
    let mut scanner = Scanner { rest: text };
    let mut header = Header::default();
    // Each of the three must be there once.
    let mut seen = [false; 3];
    scanner.expect(b'{')?;
    while !scanner.accept(b'}') {
        let key = scanner.quoted()?;
        scanner.expect(b':')?;
        let index = ["descr", "fortran_order", "shape"].iter().position(|name| *name == key)?;
        if std::mem::replace(seen.get_mut(index)?, true) {
            return None;
        }
        match index {
            0 => header.descr = scanner.descr()?,
            1 => header.is_fortran = scanner.boolean()?,
            _ => header.shape = scanner.shape()?,
        }
        if !scanner.accept(b',') {
            scanner.expect(b'}')?;
            break;
        }
    }
    (seen == [true; 3] && scanner.rest.trim_ascii().is_empty()).then_some(header)
}

/// Reads the few Python literals of a header.
struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    /// Steps over `byte` if it is next, and over space.
    fn accept(&mut self, byte: u8) -> bool {
        self.rest = self.rest.trim_ascii_start();
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.accept(byte).then_some(())
    }

    /// A text between quotes, without escapes.
    fn quoted(&mut self) -> Option<&'a str> {
        let quote = if self.accept(b'"') { b'"' } else { b'\'' };
        if quote == b'\'' {
            self.expect(quote)?;
        }
        let length = self.rest.iter().position(|byte| *byte == quote)?;
        let text = str::from_utf8(&self.rest[..length]).ok()?;
        self.rest = &self.rest[length + 1..];
        Some(text)
    }

    /// The value of `descr`: a text, or the list of a structure's fields, which is stepped over.
    fn descr(&mut self) -> Option<Option<String>> {
        if !self.accept(b'[') {
            return Some(Some(self.quoted()?.to_owned()));
        }
        let mut open = 1_usize;
        while 0 < open {
            self.rest = self.rest.trim_ascii_start();
            let first = *self.rest.first()?;
            match first {
                b'\'' | b'"' => {
                    self.quoted()?;
                    continue;
                }
                b'[' | b'(' => open += 1,
                b']' | b')' => open -= 1,
                _ => {}
            }
            self.rest = &self.rest[1..];
        }
        Some(None)
    }

    fn boolean(&mut self) -> Option<bool> {
        self.rest = self.rest.trim_ascii_start();
        for (word, value) in [(b"True".as_slice(), true), (b"False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Some(value);
            }
        }
        None
    }

    fn shape(&mut self) -> Option<Vec<u64>> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.accept(b')') {
            if RANK_MAX <= shape.len() {
                return None;
            }
            shape.push(self.number()?);
            if !self.accept(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Some(shape)
    }

    fn number(&mut self) -> Option<u64> {
        self.rest = self.rest.trim_ascii_start();
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit());
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        str::from_utf8(digits).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{npy, table, zip};
    use super::*;

    #[test]
    fn numpy_lists_its_array() {
        let check = |header: &str, data_bytes: usize, expected: Option<(Dtype, &[u64], u64)>| {
            let file = npy(1, header, &vec![0; data_bytes]);
            let found = table(&file, "weights").map(|mut table| table.tensors.remove(0));
            let start = (file.len() - data_bytes) as u64;
            let found = found.map(|t| (t.dtype, t.shape, t.bytes.end - start));
            assert_eq!(found, expected.map(|(d, s, b)| (d, s.to_vec(), b)), "{header}");
        };
        let plain = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n";
        check(plain, 48, Some((Dtype::F32, &[3, 4], 48)));
        check(plain, 50, Some((Dtype::F32, &[3, 4], 48)));
        check(plain, 47, None);
        let with = |descr: &str, order: &str, shape: &str| {
            format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}")
        };
        check(&with("'|b1'", "False", "(5,)"), 5, Some((Dtype::Bool, &[5], 5)));
        check(&with("'<i8'", "False", "()"), 8, Some((Dtype::I64, &[], 8)));
        check(&with("'<f2'", "True", "(2, 3)"), 12, Some((Dtype::F16, &[3, 2], 12)));
        check(&with("'>f4'", "False", "(3,)"), 12, Some((Dtype::Other, &[3], 12)));
        check(&with("'|O'", "False", "(3,)"), 99, Some((Dtype::Other, &[3], 99)));
        let structure = "[('a]', '<f4'), ('b', '<i2', (2, 2))]";
        check(&with(structure, "False", "(3,)"), 36, Some((Dtype::Other, &[3], 36)));
        check(&with("'<f4'", "False", "(9223372036854775808,)"), 8, None);
        check(&with("'<f4'", "False", "(99999999999999999999,)"), 8, None);
        check(&with("'<f4'", "False", "(-1,)"), 8, None);
        check(&with("'<f4'", "Maybe", "(1,)"), 8, None);
        check(&with("[[[[", "False", "(1,)"), 8, None);
        check("{'descr': '<f4', 'shape': (1,)}", 8, None);
        check("{'shape': (1,), 'shape': (1,), 'descr': '<f4', 'fortran_order': False}", 8, None);
        check("", 8, None);
    }

    #[test]
    fn numpy_archives_list_their_stored_arrays() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        let array = |version| npy(version, header, &[0; 8]);
        let file = zip(&[
            ("first.npy", &array(1)),
            ("notes.txt", b"hello"),
            ("second.npy", &array(2)),
            ("empty/third.npy", &array(3)),
        ]);
        let table = table(&file, "arrays").unwrap();
        assert_eq!(table.format, FileFormat::Npz);
        let names: Vec<_> = table.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["first", "second", "empty/third"]);
        assert!(table.tensors.iter().all(|t| t.bytes.end - t.bytes.start == 8));
    }
}
