//! Thrift's compact protocol, as far as a footer of Parquet needs it; hostile until it was checked.
//!
//! Invariant: every step takes at least one byte of the input, and nothing nests past a limit.

/// Structures, lists and maps within each other.
const DEPTH_MAX: usize = 32;

/// What is wrong with the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// In a structure its kind is its value.
    Boolean,
    Byte,
    /// Of 16, 32 or 64 bits.
    Whole,
    Double,
    Binary,
    /// A set looks the same.
    List,
    Map,
    Structure,
}

impl Kind {
    fn of(code: u8) -> Result<Self, Malformed> {
        Ok(match code {
            1 | 2 => Self::Boolean,
            3 => Self::Byte,
            4..=6 => Self::Whole,
            7 => Self::Double,
            8 => Self::Binary,
            9 | 10 => Self::List,
            11 => Self::Map,
            12 => Self::Structure,
            _ => return Err(Malformed("a kind of value that there is not")),
        })
    }
}

/// Reads values one after the other.
pub struct Reader<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, depth: 0 }
    }

    /// Reads a structure; `field` has to read each value, or skip it.
    pub fn structure(
        &mut self,
        mut field: impl FnMut(&mut Self, i16, Kind) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.deeper(|reader| {
            let mut id = 0_i16;
            loop {
                let head = reader.byte()?;
                if head == 0 {
                    return Ok(());
                }
                let step = i16::from(head >> 4);
                id = match step {
                    0 => {
                        i16::try_from(reader.whole()?).map_err(|_| Malformed("a field's number"))?
                    }
                    step => id.checked_add(step).ok_or(Malformed("a field's number"))?,
                };
                field(reader, id, Kind::of(head & 15)?)?;
            }
        })
    }

    /// Reads a list; `element` has to read each value.
    pub fn list(
        &mut self,
        mut element: impl FnMut(&mut Self, Kind) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.deeper(|reader| {
            let head = reader.byte()?;
            let count = match head >> 4 {
                15 => reader.unsigned()?,
                count => u64::from(count),
            };
            let kind = Kind::of(head & 15)?;
            // Each takes a byte at least: more than there are bytes is a lie.
            if (reader.rest.len() as u64) < count {
                return Err(Malformed("a list longer than the bytes left"));
            }
            for _ in 0..count {
                match kind {
                    Kind::Boolean => drop(reader.byte()?),
                    kind => element(reader, kind)?,
                }
            }
            Ok(())
        })
    }

    /// Passes over a value. A boolean of a structure has no bytes.
    pub fn skip(&mut self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Boolean => Ok(()),
            Kind::Byte => self.byte().map(drop),
            Kind::Whole => self.unsigned().map(drop),
            Kind::Double => self.take(8).map(drop),
            Kind::Binary => self.binary().map(drop),
            Kind::List => self.list(Self::skip),
            Kind::Structure => self.structure(|reader, _, kind| reader.skip(kind)),
            Kind::Map => self.skip_map(),
        }
    }

    fn skip_map(&mut self) -> Result<(), Malformed> {
        self.deeper(|reader| {
            let count = reader.unsigned()?;
            if count == 0 {
                return Ok(());
            }
            let kinds = reader.byte()?;
            let (key, value) = (Kind::of(kinds >> 4)?, Kind::of(kinds & 15)?);
            if (reader.rest.len() as u64) < count {
                return Err(Malformed("a map longer than the bytes left"));
            }
            for _ in 0..count {
                for kind in [key, value] {
                    match kind {
                        Kind::Boolean => drop(reader.byte()?),
                        kind => reader.skip(kind)?,
                    }
                }
            }
            Ok(())
        })
    }

    /// Sees to it that the elements of a list are structures.
    pub fn expect_structure(&self, kind: Kind) -> Result<(), Malformed> {
        match kind {
            Kind::Structure => Ok(()),
            _ => Err(Malformed("a list of something else than structures")),
        }
    }

    pub fn whole(&mut self) -> Result<i64, Malformed> {
        let zigzag = self.unsigned()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    pub fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.unsigned()?;
        self.take(usize::try_from(length).map_err(|_| Malformed("a text longer than memory"))?)
    }

    fn unsigned(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed("a number of more than 64 bits"))
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed("it ends early"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn deeper(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if DEPTH_MAX <= self.depth {
            return Err(Malformed("values nested too deep"));
        }
        self.depth += 1;
        let done = read(self);
        self.depth -= 1;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_zigzag_of_seven_bits_a_byte() {
        for (bytes, expected) in
            [(&[0][..], 0), (&[1], -1), (&[2], 1), (&[0xff, 0x01], -128), (&[0xac, 0x02], 150)]
        {
            assert_eq!(Reader::new(bytes).whole(), Ok(expected));
        }
        assert!(Reader::new(&[0xff; 11]).whole().is_err());
    }

    #[test]
    fn what_lies_is_an_error() {
        let skip = |bytes: &[u8], kind| Reader::new(bytes).skip(kind);
        assert!(skip(&[0xf5, 0xff, 0xff, 0xff, 0x7f], Kind::List).is_err());
        assert!(skip(&[0xff, 0xff, 0x03, 0x88], Kind::Map).is_err());
        assert!(skip(&[0x9c; 100], Kind::Structure).is_err());
        assert!(skip(&[0xff; 9], Kind::Binary).is_err());
        assert_eq!(skip(&[0x15, 0x02, 0x00], Kind::Structure), Ok(()));
    }
}
