//! Protobuf: the fields of one message after the other, none of their contents.
//!
//! Source: protobuf's "Encoding" page. Groups, which nothing here uses, are refused.

use std::ops::Range;

use super::Stop;
use super::reader::Reader;

/// One field of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Field {
    pub number: u64,
    pub value: Value,
}

/// What a field holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value {
    Varint(u64),
    /// A text, bytes, a message or packed numbers: where it lies in the file.
    Bytes(Range<u64>),
    /// Four or eight bytes: where they lie in the file.
    Fixed(Range<u64>),
}

/// The next field of a message whose rest is `rest`, which is shortened by it; `None` at its end.
pub(super) fn next_field(
    reader: &mut Reader<'_>,
    rest: &mut Range<u64>,
) -> Result<Option<Field>, Stop> {
    if rest.is_empty() {
        return Ok(None);
    }
    let tag = read_varint(reader, rest)?;
    let number = tag >> 3;
    if number == 0 || u64::from(u32::MAX) < tag {
        return Err(Stop::Malformed("a field has an impossible number"));
    }
    let value = match tag & 7 {
        0 => Value::Varint(read_varint(reader, rest)?),
        1 => Value::Fixed(take(rest, 8)?),
        2 => {
            let length = read_varint(reader, rest)?;
            Value::Bytes(take(rest, length)?)
        }
        5 => Value::Fixed(take(rest, 4)?),
        _ => return Err(Stop::Malformed("a field is of an impossible type")),
    };
    Ok(Some(Field { number, value }))
}

/// The varint at the start of `rest`, which is shortened by it.
pub(super) fn read_varint(reader: &mut Reader<'_>, rest: &mut Range<u64>) -> Result<u64, Stop> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        if rest.is_empty() {
            return Err(Stop::Malformed("a number is cut off"));
        }
        let byte = reader.byte(&mut rest.start)?;
        let bits = u64::from(byte & 0x7f);
        if (bits << shift) >> shift != bits {
            break;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Stop::Malformed("a number is too large"))
}

fn take(rest: &mut Range<u64>, length: u64) -> Result<Range<u64>, Stop> {
    let taken = Reader::range(rest.start, length, rest)?;
    rest.start = taken.end;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All fields of a message.
    fn fields(bytes: &[u8]) -> Result<Vec<(u64, Value)>, Stop> {
        let mut reader = Reader::new(&bytes);
        let mut rest = 0..bytes.len() as u64;
        let mut found = Vec::new();
        while let Some(field) = next_field(&mut reader, &mut rest)? {
            found.push((field.number, field.value));
        }
        Ok(found)
    }

    #[test]
    fn a_message_is_its_fields() {
        let bytes = [
            &[0x08, 0x96, 0x01, 0x12, 0x03][..],
            b"abc\x1d\0\0\0\0\x21\0\0\0\0\0\0\0\0\x28",
            &[0xff; 9],
            &[0x01],
        ]
        .concat();
        let expected = [
            (1, Value::Varint(150)),
            (2, Value::Bytes(5..8)),
            (3, Value::Fixed(9..13)),
            (4, Value::Fixed(14..22)),
            (5, Value::Varint(u64::MAX)),
        ];
        assert_eq!(fields(&bytes).unwrap(), expected);
        assert_eq!(fields(&[]).unwrap(), []);
    }

    #[test]
    fn a_message_that_lies_is_refused() {
        for bytes in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x00, 0x00],
            &[0x0b],
            &[0x12, 0x02, 0x00],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x1d, 0, 0, 0],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        ] {
            let found = fields(bytes);
            assert!(matches!(found, Err(Stop::Malformed(_))), "{bytes:?}: {found:?}");
        }
    }
}
