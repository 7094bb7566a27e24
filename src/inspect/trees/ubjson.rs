//! UBJSON, as far as XGBoost writes it: values with their types in front, big endian.
//!
//! Source: the specification at ubjson.org, draft 12.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::super::description::VALUE_BYTES_MAX;
use super::super::reader::Reader;
use super::super::{NESTING_MAX, Stop};

/// Reads one value after the other.
pub(super) struct Ubjson<'a, 'b> {
    reader: &'a mut Reader<'b>,
    at: u64,
    depth: usize,
}

impl<'a, 'b> Ubjson<'a, 'b> {
    /// Starts at the beginning of a file.
    pub fn new(reader: &'a mut Reader<'b>) -> Self {
        Self { reader, at: 0, depth: 0 }
    }

    /// The type of the next value, which is stepped over.
    fn marker(&mut self) -> Result<u8, Stop> {
        loop {
            let marker = self.reader.byte(&mut self.at)?;
            // Nothing at all, which may stand anywhere.
            if marker != b'N' {
                return Ok(marker);
            }
        }
    }

    /// The type of the next value, which stays.
    fn next_marker(&mut self) -> Result<u8, Stop> {
        let marker = self.marker()?;
        self.at -= 1;
        Ok(marker)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.reader.array(&mut self.at)
    }

    /// A whole number of the type `marker`.
    fn integer(&mut self, marker: u8) -> Result<i64, Stop> {
        Ok(match marker {
            b'i' => i8::from_be_bytes(self.array()?).into(),
            b'U' => u8::from_be_bytes(self.array()?).into(),
            b'I' => i16::from_be_bytes(self.array()?).into(),
            b'l' => i32::from_be_bytes(self.array()?).into(),
            b'L' => i64::from_be_bytes(self.array()?),
            _ => return Err(Stop::Malformed("a number is of an impossible type")),
        })
    }

    /// A length or count.
    fn length(&mut self) -> Result<u64, Stop> {
        let marker = self.marker()?;
        let length = self.integer(marker)?;
        u64::try_from(length).map_err(|_negative| Stop::Malformed("a length is less than 0"))
    }

    /// A text behind its length.
    fn text(&mut self) -> Result<String, Stop> {
        let length = self.length()?;
        if (VALUE_BYTES_MAX as u64) < length {
            return Err(Stop::Malformed("a text in it is too long"));
        }
        let range = Reader::range(self.at, length, &(0..self.reader.bytes()))?;
        self.at = range.end;
        self.reader.text_up_to(&range, VALUE_BYTES_MAX)
    }

    /// What is said in front of an array or object: the type of all its values, their count.
    fn head(&mut self) -> Result<(Option<u8>, Option<u64>), Stop> {
        let mut kind = None;
        if self.next_marker()? == b'$' {
            self.marker()?;
            let marker = self.marker()?;
            // Values that take no bytes could be as many as one likes.
            if !b"iUIlLdDSC".contains(&marker) {
                return Err(Stop::Malformed("the values of an array are of an impossible type"));
            }
            kind = Some(marker);
        }
        let count = match self.next_marker()? {
            b'#' => {
                self.marker()?;
                Some(self.length()?)
            }
            _ if kind.is_some() => return Err(Stop::Malformed("an array has no count")),
            _ => None,
        };
        Ok((kind, count))
    }

    /// Gives the value of type `marker` to `visitor`.
    fn value<'de, V: Visitor<'de>>(
        &mut self,
        marker: u8,
        visitor: V,
    ) -> Result<V::Value, UbjsonError> {
        match marker {
            b'Z' => visitor.visit_unit(),
            b'T' => visitor.visit_bool(true),
            b'F' => visitor.visit_bool(false),
            b'd' => visitor.visit_f32(f32::from_be_bytes(self.array()?)),
            b'D' => visitor.visit_f64(f64::from_be_bytes(self.array()?)),
            b'S' | b'H' => visitor.visit_string(self.text()?),
            b'C' => visitor.visit_char(char::from(self.array::<1>()?[0])),
            b'[' | b'{' => {
                self.depth += 1;
                if NESTING_MAX < self.depth {
                    return Err(Stop::Malformed("its values are too deep").into());
                }
                let (kind, left) = self.head()?;
                let end = if marker == b'[' { b']' } else { b'}' };
                let items = Items { of: self, kind, left, end };
                let visited = match marker {
                    b'[' => visitor.visit_seq(items),
                    _ => visitor.visit_map(items),
                };
                self.depth -= 1;
                visited
            }
            marker => visitor.visit_i64(self.integer(marker)?),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Ubjson<'_, '_> {
    type Error = UbjsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjsonError> {
        let marker = self.marker()?;
        self.value(marker, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The values of an array or object that are left.
struct Items<'s, 'a, 'b> {
    of: &'s mut Ubjson<'a, 'b>,
    /// The type of all of them.
    kind: Option<u8>,
    /// Their count; without one they go on up to `end`.
    left: Option<u64>,
    end: u8,
}

impl Items<'_, '_, '_> {
    /// Whether another one is there.
    fn go_on(&mut self) -> Result<bool, Stop> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.of.next_marker()? == self.end => {
                self.of.marker()?;
                self.left = Some(0);
                Ok(false)
            }
            None => Ok(true),
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'_, '_, '_> {
    type Error = UbjsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, UbjsonError> {
        if !self.go_on()? {
            return Ok(None);
        }
        let (of, kind) = (&mut *self.of, self.kind);
        seed.deserialize(Typed { of, kind }).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_, '_, '_> {
    type Error = UbjsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, UbjsonError> {
        if !self.go_on()? {
            return Ok(None);
        }
        // A key has no type in front, since it is always a text.
        seed.deserialize(Typed { of: self.of, kind: Some(b'S') }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, UbjsonError> {
        let (of, kind) = (&mut *self.of, self.kind);
        seed.deserialize(Typed { of, kind })
    }
}

/// A value whose type may be known already.
struct Typed<'s, 'a, 'b> {
    of: &'s mut Ubjson<'a, 'b>,
    kind: Option<u8>,
}

impl<'de> Deserializer<'de> for Typed<'_, '_, '_> {
    type Error = UbjsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, UbjsonError> {
        match self.kind {
            Some(marker) => self.of.value(marker, visitor),
            None => self.of.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Why a value could not be read.
#[derive(Debug)]
pub(super) struct UbjsonError(Stop);

impl UbjsonError {
    pub fn into_stop(self) -> Stop {
        self.0
    }
}

impl From<Stop> for UbjsonError {
    fn from(stop: Stop) -> Self {
        Self(stop)
    }
}

impl fmt::Display for UbjsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for UbjsonError {}

impl Error for UbjsonError {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(Stop::Malformed("a value is not what is wanted there"))
    }
}
