//! FlatBuffers: tables with fields by number, read where they lie in a file.
//!
//! Offsets lead forward only, so that nothing is a ring; whatever leads out of the buffer is refused.
//! Source: "FlatBuffers internals" of the FlatBuffers documentation.

use std::ops::Range;

use super::Stop;
use super::reader::Reader;

/// Entries of one vector.
pub(super) const VECTOR_COUNT_MAX: u64 = 1_000_000;

/// A buffer within a file.
pub(super) struct Buffer<'a, 'b> {
    pub reader: &'a mut Reader<'b>,
    range: Range<u64>,
}

/// A table: where it begins, and where its fields are.
#[derive(Clone, Debug)]
pub(super) struct Table {
    start: u64,
    /// Offsets of the fields, two bytes each.
    fields: Range<u64>,
}

/// A vector: where its first entry is, and how many there are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vector {
    start: u64,
    pub count: u64,
}

impl<'a, 'b> Buffer<'a, 'b> {
    /// The buffer in a range of a file, and its root.
    pub fn new(reader: &'a mut Reader<'b>, range: Range<u64>) -> Result<(Self, Table), Stop> {
        let start = range.start;
        let mut buffer = Self { reader, range };
        let root = buffer.follow(start)?;
        let root = buffer.table(root)?;
        Ok((buffer, root))
    }

    fn u32(&mut self, at: u64) -> Result<u32, Stop> {
        let mut at = Reader::range(at, 4, &self.range)?.start;
        self.reader.u32(&mut at)
    }

    /// Where the offset at `at` leads.
    fn follow(&mut self, at: u64) -> Result<u64, Stop> {
        let offset = self.u32(at)?;
        match offset {
            0 => Err(Stop::Malformed("an offset leads nowhere")),
            offset => Ok(at + u64::from(offset)),
        }
    }

    fn table(&mut self, start: u64) -> Result<Table, Stop> {
        let back = self.u32(start)?.cast_signed();
        let fields = start.checked_add_signed(-i64::from(back));
        let fields = fields.ok_or(Stop::Malformed("a table leads past what holds it"))?;
        let mut at = Reader::range(fields, 4, &self.range)?.start;
        let bytes = u64::from(self.reader.u16(&mut at)?);
        let fields = Reader::range(fields, bytes.max(4), &self.range)?;
        Ok(Table { start, fields: fields.start + 4..fields.end })
    }

    /// Where a field of a table lies; `None` where it has its default.
    fn field(&mut self, table: &Table, number: u64) -> Result<Option<u64>, Stop> {
        let mut at = table.fields.start + 2 * number;
        if table.fields.end < at + 2 {
            return Ok(None);
        }
        let offset = self.reader.u16(&mut at)?;
        Ok((offset != 0).then(|| table.start + u64::from(offset)))
    }

    /// A number of four bytes; 0 where it is not there.
    pub fn number(&mut self, table: &Table, number: u64) -> Result<u32, Stop> {
        match self.field(table, number)? {
            Some(at) => self.u32(at),
            None => Ok(0),
        }
    }

    /// A number of one byte; 0 where it is not there.
    pub fn byte(&mut self, table: &Table, number: u64) -> Result<u8, Stop> {
        match self.field(table, number)? {
            Some(at) => {
                let mut at = Reader::range(at, 1, &self.range)?.start;
                self.reader.byte(&mut at)
            }
            None => Ok(0),
        }
    }

    /// A table within a table.
    pub fn inner(&mut self, table: &Table, number: u64) -> Result<Option<Table>, Stop> {
        let Some(at) = self.field(table, number)? else { return Ok(None) };
        let start = self.follow(at)?;
        self.table(start).map(Some)
    }

    /// A text, cut at `bytes_max`; empty where it is not there.
    pub fn text(&mut self, table: &Table, number: u64, bytes_max: usize) -> Result<String, Stop> {
        let found = self.vector(table, number, 1)?;
        let end = found.start + found.count;
        self.reader.text_up_to(&(found.start..end), bytes_max)
    }

    /// A vector of entries of so many bytes; empty where it is not there.
    pub fn vector(&mut self, table: &Table, number: u64, entry_bytes: u64) -> Result<Vector, Stop> {
        let Some(at) = self.field(table, number)? else { return Ok(Vector::default()) };
        let length = self.follow(at)?;
        let count = u64::from(self.u32(length)?);
        let bytes = count
            .checked_mul(entry_bytes)
            .filter(|_| entry_bytes == 1 || count <= VECTOR_COUNT_MAX);
        let bytes = bytes.ok_or(Stop::Malformed("a list is too long"))?;
        let entries = Reader::range(length + 4, bytes, &self.range)?;
        Ok(Vector { start: entries.start, count })
    }

    /// The tables of a vector, one at a time.
    pub fn entry(&mut self, vector: Vector, index: u64) -> Result<Table, Stop> {
        let start = self.follow(vector.start + 4 * index)?;
        self.table(start)
    }

    /// An entry of a vector of numbers of four bytes.
    pub fn number_in(&mut self, vector: Vector, index: u64) -> Result<i32, Stop> {
        Ok(self.u32(vector.start + 4 * index)?.cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with one field of each kind behind a vtable of `fields`.
    fn buffer(fields: &[u16]) -> Vec<u8> {
        let vtable_bytes = 4 + 2 * fields.len();
        let start = (4 + vtable_bytes).next_multiple_of(4);
        let mut bytes = (start as u32).to_le_bytes().to_vec();
        bytes.extend((vtable_bytes as u16).to_le_bytes());
        bytes.extend(12_u16.to_le_bytes());
        fields.iter().for_each(|field| bytes.extend(field.to_le_bytes()));
        bytes.resize(start, 0);
        bytes.extend((start as i32 - 4).to_le_bytes());
        bytes.extend(7_u32.to_le_bytes());
        // The text lies behind its own offset.
        bytes.extend(4_u32.to_le_bytes());
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(b"abc");
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(u32, String), Stop> {
        let mut reader = Reader::new(&bytes);
        let (mut buffer, root) = Buffer::new(&mut reader, 0..bytes.len() as u64)?;
        Ok((buffer.number(&root, 0)?, buffer.text(&root, 1, 100)?))
    }

    #[test]
    fn fields_are_found_by_their_numbers_and_have_defaults() {
        assert_eq!(read(&buffer(&[4, 8])).expect("a buffer"), (7, "abc".to_owned()));
        assert_eq!(read(&buffer(&[0, 8])).expect("a buffer"), (0, "abc".to_owned()));
        assert_eq!(read(&buffer(&[4])).expect("a buffer"), (7, String::new()));
        assert_eq!(read(&buffer(&[])).expect("a buffer"), (0, String::new()));
    }

    #[test]
    fn what_leads_out_of_the_buffer_is_refused() {
        for (fields, what) in [(&[4, 200][..], "a text"), (&[200, 8], "a number")] {
            assert!(read(&buffer(fields)).is_err(), "{what}");
        }
        let whole = buffer(&[4, 8]);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} bytes");
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                // An answer or an error.
                let _ = read(&bytes);
            }
        }
    }
}
