//! Which hot files there are, what is believed of them, and which go first: only memory.
//!
//! Invariant W1: what is charged and reserved together is at most the limit at all times, and a file
//! is charged from before it is made until after it is gone.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::format::hot::Stamp;
use crate::format::ids::{BlobDigest, ManifestId};

/// Versions that are remembered of one file, for "an alias points to it".
const VERSIONS_MAX: usize = 8;
/// The disk gives space in pieces of this, and a name and a line of the index cost less.
const UNIT_BYTES: u64 = 4_096;
/// What the directory and the index take besides their share of each file.
const OWN_BYTES: u64 = 64 << 10;

/// What is known of a hot file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Belief {
    /// Nothing: they are not handed out before they were hashed.
    Unknown,
    /// They had the digest when the file had this stamp.
    Good { stamp: Stamp, durable: bool },
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub bytes: u64,
    pub belief: Belief,
    charge: u64,
    /// Moment of the last use; unique.
    used: u64,
    versions: Vec<ManifestId>,
}

/// For whom a file is made, and what may go for it.
#[derive(Clone, Debug)]
pub struct Claim {
    pub version: ManifestId,
    /// Files of other aliased versions may go too, last.
    pub strong: bool,
    /// Versions that an alias points to.
    pub aliased: HashSet<ManifestId>,
}

#[derive(Debug)]
pub(super) struct Table {
    limit: u64,
    entries: HashMap<BlobDigest, Entry>,
    order: BTreeMap<u64, BlobDigest>,
    next_use: u64,
    charged: u64,
    reserved: u64,
}

impl Table {
    /// An empty table for `limit` bytes on the disk.
    pub fn new(limit: u64) -> Self {
        let (entries, order) = (HashMap::new(), BTreeMap::new());
        Self { limit, entries, order, next_use: 0, charged: 0, reserved: 0 }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Lets the limit be what there is, where that is more.
    pub fn raise_limit(&mut self) {
        self.limit = self.limit.max(self.charged + self.reserved + OWN_BYTES);
    }

    /// Files, and the bytes in them.
    pub fn totals(&self) -> (u64, u64) {
        let bytes = self.entries.values().map(|entry| entry.bytes).sum();
        (self.entries.len() as u64, bytes)
    }

    pub fn get(&self, digest: &BlobDigest) -> Option<&Entry> {
        self.entries.get(digest)
    }

    pub fn digests(&self) -> Vec<BlobDigest> {
        self.order.values().copied().collect()
    }

    /// Adds a file, or replaces what was known of it, as the one used last. `allocated` is what the
    /// disk says that it takes.
    pub fn put(&mut self, digest: BlobDigest, bytes: u64, allocated: u64, belief: Belief) {
        let old = self.remove(&digest);
        let charge = charge_of(bytes.max(allocated));
        let versions = old.map(|old| old.versions).unwrap_or_default();
        let used = self.tick(digest);
        self.charged += charge;
        self.entries.insert(digest, Entry { bytes, belief, charge, used, versions });
    }

    pub fn remove(&mut self, digest: &BlobDigest) -> Option<Entry> {
        let entry = self.entries.remove(digest)?;
        self.order.remove(&entry.used);
        self.charged -= entry.charge;
        Some(entry)
    }

    /// Counts a use of a file, for a version.
    pub fn touch(&mut self, digest: &BlobDigest, version: &ManifestId) {
        let Some(old) = self.entries.get(digest).map(|entry| entry.used) else { return };
        self.order.remove(&old);
        let used = self.tick(*digest);
        self.entries.get_mut(digest).expect("it was there just now").used = used;
        self.mark(digest, version);
    }

    /// Says that a file belongs to a version.
    pub fn mark(&mut self, digest: &BlobDigest, version: &ManifestId) {
        let Some(entry) = self.entries.get_mut(digest) else { return };
        if !entry.versions.contains(version) {
            if entry.versions.len() == VERSIONS_MAX {
                entry.versions.remove(0);
            }
            entry.versions.push(*version);
        }
    }

    pub fn set_belief(&mut self, digest: &BlobDigest, belief: Belief) {
        if let Some(entry) = self.entries.get_mut(digest) {
            entry.belief = belief;
        }
    }

    /// Keeps room free; give it back with `release`.
    pub fn reserve(&mut self, bytes: u64) {
        self.reserved += charge_of(bytes);
    }

    pub fn release(&mut self, bytes: u64) {
        self.reserved -= charge_of(bytes);
    }

    /// Whether `bytes` more fit beside all that is there.
    pub fn has_room(&self, bytes: u64) -> bool {
        let kept = self.charged + self.reserved + OWN_BYTES;
        kept.saturating_add(charge_of(bytes)) <= self.limit
    }

    /// What would have to go for `bytes` more, the least recently used first and files of aliased
    /// versions last; `None` where it does not fit whatever goes. Files of the claim's own version
    /// stay.
    pub fn victims(&self, bytes: u64, claim: &Claim) -> Option<Vec<BlobDigest>> {
        let kept = self.charged + self.reserved + OWN_BYTES;
        let wanted = kept.saturating_add(charge_of(bytes));
        let mut excess = wanted.saturating_sub(self.limit);
        let mut victims = Vec::new();
        for aliased in [false, true] {
            if aliased && !claim.strong {
                break;
            }
            for digest in self.order.values() {
                if excess == 0 {
                    break;
                }
                let entry = &self.entries[digest];
                let is_aliased = entry.versions.iter().any(|id| claim.aliased.contains(id));
                if is_aliased == aliased && !entry.versions.contains(&claim.version) {
                    excess = excess.saturating_sub(entry.charge);
                    victims.push(*digest);
                }
            }
        }
        (excess == 0).then_some(victims)
    }

    /// What has to go because the limit is lower than what is there; the oldest first.
    pub fn overflow(&self) -> Vec<BlobDigest> {
        let mut kept = self.charged + self.reserved + OWN_BYTES;
        let mut victims = Vec::new();
        for digest in self.order.values() {
            if kept <= self.limit {
                break;
            }
            kept -= self.entries[digest].charge;
            victims.push(*digest);
        }
        victims
    }

    fn tick(&mut self, digest: BlobDigest) -> u64 {
        self.next_use += 1;
        self.order.insert(self.next_use, digest);
        self.next_use
    }
}

/// What a file of so many bytes counts against the limit.
fn charge_of(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT_BYTES).saturating_mul(UNIT_BYTES).saturating_add(UNIT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_BYTES: u64 = 1 << 20;

    fn digest(text: &str) -> BlobDigest {
        BlobDigest::of(text.as_bytes())
    }

    fn version(text: &str) -> ManifestId {
        ManifestId::of(text.as_bytes())
    }

    fn claim(of: &str, strong: bool, aliased: &[&str]) -> Claim {
        let aliased = aliased.iter().map(|name| version(name)).collect();
        Claim { version: version(of), strong, aliased }
    }

    /// Room for three files, with files a, b and c of versions of the same names.
    fn full() -> Table {
        let mut table = Table::new(3 * charge_of(FILE_BYTES) + OWN_BYTES);
        for name in ["a", "b", "c"] {
            table.put(digest(name), FILE_BYTES, FILE_BYTES, Belief::Unknown);
            table.touch(&digest(name), &version(name));
        }
        table
    }

    #[test]
    fn the_least_recently_used_goes_first_and_aliased_versions_go_last() {
        let check = |table: &Table, claim: &Claim, bytes: u64, expected: Option<&[&str]>| {
            let victims = table.victims(bytes, claim);
            let expected = expected.map(|names| names.iter().map(|name| digest(name)).collect());
            assert_eq!(victims, expected, "{claim:?} {bytes}");
        };
        let mut table = full();
        check(&table, &claim("d", false, &[]), FILE_BYTES, Some(&["a"]));
        table.touch(&digest("a"), &version("a"));
        check(&table, &claim("d", false, &[]), FILE_BYTES, Some(&["b"]));
        check(&table, &claim("d", false, &["b"]), FILE_BYTES, Some(&["c"]));
        check(&table, &claim("d", false, &["b"]), 2 * FILE_BYTES, Some(&["c", "a"]));
        check(&table, &claim("d", false, &["b"]), 3 * FILE_BYTES, None);
        check(&table, &claim("d", true, &["b"]), 3 * FILE_BYTES, Some(&["c", "a", "b"]));
        check(&table, &claim("d", true, &[]), 4 * FILE_BYTES, None);
        check(&table, &claim("b", true, &["b"]), 3 * FILE_BYTES, None);
        check(&table, &claim("b", true, &["a", "b"]), FILE_BYTES, Some(&["c"]));
    }

    #[test]
    fn w1_what_is_charged_and_reserved_is_within_the_limit() {
        let mut table = Table::new(2 * charge_of(FILE_BYTES) + OWN_BYTES);
        let claim = claim("d", true, &[]);
        assert_eq!(table.victims(FILE_BYTES, &claim), Some(Vec::new()));
        table.reserve(FILE_BYTES);
        table.put(digest("a"), FILE_BYTES, FILE_BYTES, Belief::Unknown);
        assert_eq!(table.victims(FILE_BYTES, &claim), Some(vec![digest("a")]));
        table.release(FILE_BYTES);
        assert_eq!(table.victims(FILE_BYTES, &claim), Some(Vec::new()));
        // Blocks beyond the end count as well, and the same file once.
        table.put(digest("a"), FILE_BYTES, 2 * FILE_BYTES, Belief::Unknown);
        assert_eq!(table.victims(FILE_BYTES, &claim), Some(vec![digest("a")]));
        assert_eq!(table.totals(), (1, FILE_BYTES));
        table.remove(&digest("a"));
        assert_eq!((table.charged, table.reserved, table.order.len()), (0, 0, 0));
        assert_eq!(table.victims(u64::MAX, &claim), None);
    }

    #[test]
    fn a_lower_limit_takes_the_oldest() {
        let mut table = full();
        assert!(table.overflow().is_empty());
        table.limit -= 1;
        assert_eq!(table.overflow(), [digest("a")]);
        table.limit = 0;
        assert_eq!(table.overflow().len(), 3);
    }
}
