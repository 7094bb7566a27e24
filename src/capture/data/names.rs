//! Names of a table's columns: short enough to be kept, and each there once.

use std::borrow::Cow;
use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of one name. One with more is cut.
pub const NAME_BYTES_MAX: usize = 1 << 10;
/// Bytes of all names of a table. One with more is taken as bytes.
const NAMES_BYTES_MAX: usize = 1 << 20;

/// A name as it is kept: where it is too long its begin, and a hash that tells it from its like.
pub fn shorten(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_BYTES_MAX {
        return Cow::Borrowed(name);
    }
    let hash = format!("…{:016x}", xxh3_64(name.as_bytes()));
    let mut end = NAME_BYTES_MAX - hash.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(name[..end].to_owned() + &hash)
}

/// The names that a table has so far.
#[derive(Default)]
pub struct Names {
    /// Each with how often it was asked for again.
    taken: HashMap<String, u32>,
    bytes: usize,
}

impl Names {
    /// The name of the next column: where the table has it already with a number, as pandas does it.
    ///
    /// # Errors
    /// Where all names together are too long, in words.
    pub fn add(&mut self, name: &str) -> Result<String, String> {
        let name = shorten(name);
        let mut free = name.clone().into_owned();
        while self.taken.contains_key(&free) {
            let again = self.taken.entry(name.clone().into_owned()).or_default();
            *again += 1;
            free = format!("{name}.{again}");
        }
        self.bytes += free.len();
        if NAMES_BYTES_MAX < self.bytes {
            return Err(format!("the names of its columns have more than {NAMES_BYTES_MAX} bytes"));
        }
        self.taken.insert(free.clone(), 0);
        Ok(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let mut names = Names::default();
        let found = ["a", "b", "a", "a.1", "a", ""].map(|name| names.add(name).unwrap());
        assert_eq!(found, ["a", "b", "a.1", "a.1.1", "a.2", ""]);
    }

    #[test]
    fn long_names_are_cut_and_still_differ() {
        for letter in ["x", "é", "日"] {
            let long = letter.repeat(NAME_BYTES_MAX);
            let (first, second) = (long.clone() + "1", long + "2");
            let (first, second) = (shorten(&first), shorten(&second));
            assert!(first != second && first.contains('…'), "{first}");
            assert!(first.len() <= NAME_BYTES_MAX, "{}", first.len());
            assert_eq!(shorten(&first), first);
        }
    }

    #[test]
    fn all_names_together_are_bounded() {
        let mut names = Names::default();
        let all = (0..).map(|number| names.add(&format!("{number:01024}")));
        let found: Result<Vec<_>, _> = all.take(NAMES_BYTES_MAX / NAME_BYTES_MAX + 1).collect();
        assert!(found.unwrap_err().contains("names"));
    }
}
