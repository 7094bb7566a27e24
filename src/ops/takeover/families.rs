//! Families: which models are versions of one, in which order, and which are copies of others.
//!
//! Guessed from names, times, tensors in common and equal architectures; a person decides by the plan.
//! Invariant F1: every candidate is in one family, or a copy of one that is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::candidate::{Candidate, is_part, overlaps};
use super::order;
use crate::format::ids::BlobDigest;
use crate::format::names::ModelName;

/// Parts of two models in common from which they are versions of one whatever they are called, of 100.
const OVERLAP_PERCENT_SURE: u64 = 90;
/// The same where their names do not say otherwise.
const OVERLAP_PERCENT_LIKELY: u64 = 30;
/// Longest name that is made for a model, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// What a model is called of which nothing is known.
const NAMELESS: &str = "model";

/// Versions of one model, the earliest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Family {
    pub name: ModelName,
    pub members: Vec<usize>,
}

/// All families, and what is in none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    /// In the order of their names.
    pub families: Vec<Family>,
    /// Copies, by the candidate that holds all that is in them.
    pub copies: BTreeMap<usize, usize>,
    /// The earlier member of its family that a candidate has most in common with, and how much of 100.
    pub nearest: BTreeMap<usize, (usize, u64)>,
}

/// Sorts candidates into families.
pub(super) fn families(candidates: &mut [Candidate], root: &Path) -> Families {
    read_numbers(candidates);
    let candidates = &*candidates;
    let copies = copies(candidates);
    let originals = (0..candidates.len()).filter(|place| !copies.contains_key(place));
    let common = overlaps(candidates, originals);
    let mut groups = Groups::new(candidates, &copies);
    groups.join_by_name();
    groups.join_by_architecture();
    groups.join_by_overlap(&common);
    let mut families = Families { copies, ..Families::default() };
    let mut names = Names::default();
    let mut found: Vec<_> = groups.finish();
    found.sort_by_cached_key(|members| {
        let first = members.iter().map(|place| &candidates[*place].path).min();
        (name_of(candidates, members, root), first.cloned())
    });
    for members in found {
        let name = names.unused(&name_of(candidates, &members, root));
        let members = order::ordered(candidates, members);
        families.families.push(Family { name, members });
    }
    families.find_nearest(candidates, &common);
    families
}

impl Families {
    fn find_nearest(&mut self, candidates: &[Candidate], common: &HashMap<(usize, usize), u64>) {
        let mut places = HashMap::new();
        for (number, family) in self.families.iter().enumerate() {
            let members = family.members.iter().enumerate();
            places.extend(members.map(|(order, place)| (*place, (number, order))));
        }
        for ((a, b), bytes) in common {
            let ((family, order_a), (other, order_b)) = (places[a], places[b]);
            let percent = percent_common(candidates, *bytes, *a, *b);
            if family != other || percent == 0 {
                continue;
            }
            let (before, place) = if order_a < order_b { (*a, *b) } else { (*b, *a) };
            let nearest = self.nearest.entry(place).or_insert((before, percent));
            if (nearest.1, nearest.0) < (percent, before) {
                *nearest = (before, percent);
            }
        }
    }
}

/// Takes the digits at the end of names for numbers where names beside them go on without a gap: `risk`,
/// `risk2`, `risk3`, but not `resnet18` and `resnet50`.
fn read_numbers(candidates: &mut [Candidate]) {
    let mut rows = BTreeMap::<(PathBuf, Vec<String>, &str), BTreeMap<u64, Vec<usize>>>::new();
    for (place, candidate) in candidates.iter().enumerate() {
        let Some((stem, number)) = candidate.name.numbered() else { continue };
        let folder = candidate.path.parent().unwrap_or(Path::new("")).to_owned();
        let row = rows.entry((folder, stem, candidate.kind().word)).or_default();
        row.entry(number).or_default().push(place);
    }
    for ((_, stem, _), row) in rows {
        let first = row.keys().next().copied().unwrap_or_default();
        let is_row =
            first <= 1 && 1 < row.len() && row.keys().copied().eq((first..).take(row.len()));
        if is_row {
            for (number, place) in
                row.iter().flat_map(|(number, them)| them.iter().map(move |it| (number, it)))
            {
                candidates[*place].name.set_numbered(&stem, *number);
            }
        }
    }
}

/// How much of the larger of two models is in the other, of 100; so many bytes are in both.
fn percent_common(candidates: &[Candidate], bytes: u64, a: usize, b: usize) -> u64 {
    let larger = candidates[a].part_bytes.max(candidates[b].part_bytes);
    // Rounded down: 100 means that all is the same.
    (bytes * 100).checked_div(larger).unwrap_or(0)
}

/// Which candidates hold nothing that another does not.
fn copies(candidates: &[Candidate]) -> BTreeMap<usize, usize> {
    let digests: Vec<_> = candidates.iter().map(Candidate::digests).collect();
    // The most likely originals first: whatever holds the same, or less, is a copy.
    let mut places: Vec<usize> = (0..candidates.len()).collect();
    places.sort_by_cached_key(|place| originality(&candidates[*place]));
    let rank: HashMap<usize, usize> = places.iter().copied().zip(0..).collect();
    let (mut copies, mut firsts) = (BTreeMap::new(), HashMap::new());
    let mut holders = HashMap::<BlobDigest, Vec<usize>>::new();
    for place in places {
        let Some(own) = digests[place].as_ref().filter(|_| 0 < candidates[place].bytes()) else {
            continue;
        };
        if let Some(first) = firsts.get(own) {
            copies.insert(place, *first);
            continue;
        }
        firsts.insert(own, place);
        let mut once = own.clone();
        once.dedup();
        once.into_iter().for_each(|digest| holders.entry(digest).or_default().push(place));
    }
    for (own, place) in firsts {
        let rarest = own.iter().min_by_key(|digest| holders[*digest].len());
        let others = rarest.into_iter().flat_map(|digest| &holders[digest]);
        let all = |other: usize| digests[other].as_ref().expect("it is a holder");
        let larger = others.copied().filter(|it| own.len() < all(*it).len());
        let whole = larger.filter(|other| is_part(own, all(*other)));
        if let Some(original) = whole.min_by_key(|other| rank[other]) {
            copies.insert(place, original);
        }
    }
    // A copy of a copy is one of the original.
    let ends: Vec<_> = copies.keys().map(|place| (*place, end_of(&copies, *place))).collect();
    ends.into_iter().collect()
}

fn end_of(copies: &BTreeMap<usize, usize>, place: usize) -> usize {
    let mut at = place;
    while let Some(next) = copies.get(&at) {
        at = *next;
    }
    at
}

/// What a tool registered comes before what it noted, that before what lies around, what is called a copy or
/// a backup after it.
fn originality(candidate: &Candidate) -> impl Ord + use<> {
    let noted = &candidate.noted;
    let noted = (noted.order == 0, noted.time.is_none(), candidate.keeper().is_none());
    let is_later = candidate.name.is_copy || candidate.name.state.rank < 0;
    let length = (candidate.path.components().count(), candidate.path.as_os_str().len());
    let time = (candidate.time().seconds, candidate.time().nanos);
    (noted, is_later, time, length, candidate.path.clone())
}

/// Candidates that are joined step by step.
struct Groups<'a> {
    candidates: &'a [Candidate],
    places: Vec<usize>,
    /// The one above each in its group; itself at the top.
    above: Vec<usize>,
    /// What other tools say that the group of a top is.
    noted: HashMap<usize, String>,
}

impl<'a> Groups<'a> {
    fn new(candidates: &'a [Candidate], copies: &BTreeMap<usize, usize>) -> Self {
        let places = (0..candidates.len()).filter(|place| !copies.contains_key(place)).collect();
        let noted = candidates.iter().enumerate();
        let noted =
            noted.filter_map(|(place, it)| Some((place, it.noted.family.clone()?))).collect();
        Self { candidates, places, above: (0..candidates.len()).collect(), noted }
    }

    fn top(&mut self, place: usize) -> usize {
        let mut at = place;
        while self.above[at] != at {
            self.above[at] = self.above[self.above[at]];
            at = self.above[at];
        }
        at
    }

    /// Makes two groups one, unless other tools say that they are two.
    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.top(a), self.top(b));
        if a == b {
            return;
        }
        match (self.noted.get(&a), self.noted.get(&b)) {
            (Some(of_a), Some(of_b)) if of_a != of_b => return,
            (None, Some(of_b)) => drop(self.noted.insert(a, of_b.clone())),
            _ => {}
        }
        self.above[b] = a;
    }

    fn join_all<K: Ord>(&mut self, key: impl Fn(&Candidate) -> Option<K>) {
        let mut first = BTreeMap::<K, usize>::new();
        for place in self.places.clone() {
            let Some(key) = key(&self.candidates[place]) else { continue };
            match first.get(&key) {
                Some(other) => self.join(*other, place),
                None => drop(first.insert(key, place)),
            }
        }
    }

    /// Equal words, in the same format; without words, in the same directory.
    fn join_by_name(&mut self) {
        self.join_all(|candidate| candidate.noted.family.clone());
        self.join_all(|candidate| {
            let stem = candidate.name.stem_text();
            let place = match stem.is_empty() {
                true => candidate.path.parent().map(Path::to_owned),
                false => None,
            };
            Some((stem, place, candidate.kind().word))
        });
    }

    /// Equal tensors by name, shape and dtype, where the names have a word in common, or say nothing.
    fn join_by_architecture(&mut self) {
        let mut alike = BTreeMap::<u64, Vec<usize>>::new();
        for place in &self.places {
            if let Some(architecture) = self.candidates[*place].architecture() {
                alike.entry(architecture).or_default().push(*place);
            }
        }
        for places in alike.into_values() {
            // Each with the first of every stem: as many comparisons as there are stems.
            let mut stems = BTreeMap::<Vec<String>, usize>::new();
            for place in places {
                let own = &self.candidates[place];
                let near = |other: usize| {
                    let other = &self.candidates[other];
                    are_compatible(own, other) || own.path.parent() == other.path.parent()
                };
                let joined: Vec<usize> = stems.values().copied().filter(|it| near(*it)).collect();
                joined.into_iter().for_each(|other| self.join(other, place));
                stems.entry(own.name.stem.clone()).or_insert(place);
            }
        }
    }

    fn join_by_overlap(&mut self, common: &HashMap<(usize, usize), u64>) {
        let mut pairs: Vec<_> = common.iter().collect();
        pairs.sort_unstable();
        for ((a, b), bytes) in pairs {
            let percent = percent_common(self.candidates, *bytes, *a, *b);
            let is_likely = OVERLAP_PERCENT_LIKELY <= percent
                && are_compatible(&self.candidates[*a], &self.candidates[*b]);
            if is_likely || OVERLAP_PERCENT_SURE <= percent {
                self.join(*a, *b);
            }
        }
    }

    /// The members of each group.
    fn finish(mut self) -> Vec<Vec<usize>> {
        let mut groups = BTreeMap::<usize, Vec<usize>>::new();
        for place in self.places.clone() {
            let top = self.top(place);
            groups.entry(top).or_default().push(place);
        }
        groups.into_values().collect()
    }
}

/// Whether names do not say that these are different models.
fn are_compatible(a: &Candidate, b: &Candidate) -> bool {
    let (a, b) = (&a.name.stem, &b.name.stem);
    a.is_empty() || b.is_empty() || a.iter().any(|word| b.contains(word))
}

/// What a family is to be called: what a tool noted, else the words that most of its members have.
fn name_of(candidates: &[Candidate], members: &[usize], root: &Path) -> String {
    let noted = members.iter().find_map(|place| candidates[*place].noted.family.clone());
    if let Some(noted) = noted {
        return sanitized(&noted);
    }
    let mut counts = BTreeMap::<String, usize>::new();
    for place in members {
        *counts.entry(candidates[*place].name.stem_text()).or_default() += 1;
    }
    counts.remove("");
    let most = counts.into_iter().max_by_key(|(stem, count)| (*count, usize::MAX - stem.len()));
    let nearest = || root.file_name().map(|name| name.to_string_lossy().into_owned());
    sanitized(&most.map(|(stem, _)| stem).or_else(nearest).unwrap_or_default())
}

/// A text as the name of a model.
fn sanitized(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' };
    let name: String = text.chars().map(plain).collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = name.chars().take(NAME_BYTES_MAX).collect();
    if name.is_empty() { NAMELESS.to_owned() } else { name }
}

/// Names of models that are taken.
#[derive(Default)]
struct Names {
    /// In lower case.
    taken: HashSet<String>,
    /// The number that is tried next behind a name that was taken.
    next: HashMap<String, u64>,
}

impl Names {
    /// The name, or one with a number behind it where that is taken.
    fn unused(&mut self, name: &str) -> ModelName {
        let mut free = name.to_owned();
        while !self.taken.insert(free.to_lowercase()) {
            let number = self.next.entry(name.to_lowercase()).or_insert(2);
            free = format!("{name}-{number}");
            *number += 1;
        }
        free.parse().expect("it was made of the characters of a name")
    }
}

#[cfg(test)]
mod tests {
    use super::super::candidate::CandidateFile;
    use super::super::kinds::{Kind, Role};
    use super::super::scan::{Content, Part, Reading, Scanned};
    use super::super::units::Shape;
    use super::*;

    /// A file of so many seconds, with parts of these numbers, 1000 bytes each.
    fn candidate(path: &str, seconds: i64, parts: &[u64]) -> Candidate {
        let parts: Vec<_> = parts.iter().map(|id| Part { id: *id, bytes: 1_000 }).collect();
        let digest = BlobDigest::of(format!("{parts:?}").as_bytes());
        let content = Content { digest, chunks: Vec::new(), parts, architecture: None };
        let scanned = Scanned { content: Some(content), fault: None, calls: Vec::new() };
        let kind = Kind { word: "onnx", role: Role::Model, is_pointer: false, is_seen: true };
        let path = Path::new(path);
        let reading = Reading {
            source: Path::new("/r").join(path),
            name: path.file_name().expect("it has one").into(),
            bytes: 1_000,
            modified: crate::format::manifest::Mtime { seconds, nanos: 0 },
            uid: 0,
            kind,
            keeper: None,
        };
        let place = path.parent().expect("a path").to_owned();
        Candidate::new(place, Shape::File, vec![CandidateFile { reading, scanned }])
    }

    #[test]
    fn very_many_equal_files_are_copies_of_the_first() {
        let mut candidates: Vec<_> = (0..20_000)
            .map(|number| candidate(&format!("d{number}/m.onnx"), number, &[1]))
            .collect();
        let found = families(&mut candidates, Path::new("/r"));
        assert_eq!(found.families.len(), 1);
        assert_eq!(found.families[0].members, [0]);
        assert_eq!(found.copies.len(), 19_999);
        assert!(found.copies.values().all(|original| *original == 0));
    }

    #[test]
    fn the_nearest_is_the_earlier_one_with_most_in_common() {
        let mut candidates = [
            candidate("m_v1.onnx", 1, &[1, 2, 3, 4]),
            candidate("m_v2.onnx", 2, &[2, 3, 4, 5]),
            candidate("m_v3.onnx", 3, &[3, 4, 5, 6]),
            candidate("m_v3 copy.onnx", 4, &[3, 4, 5, 6]),
            candidate("other.onnx", 5, &[1]),
        ];
        let found = families(&mut candidates, Path::new("/r"));
        assert_eq!(found.families[0].members, [0, 1, 2]);
        assert_eq!(found.copies, BTreeMap::from([(3, 2)]));
        assert_eq!(found.nearest, BTreeMap::from([(1, (0, 75)), (2, (1, 75))]));
    }

    #[test]
    fn names_that_are_taken_get_the_next_number() {
        let mut names = Names::default();
        let given: Vec<_> =
            ["m", "M", "m-2", "m"].map(|name| names.unused(name).to_string()).into();
        assert_eq!(given, ["m", "M-2", "m-2-2", "m-3"]);
        let many = (0..100_000).map(|_| names.unused("n").to_string());
        assert_eq!(many.last().expect("some"), "n-100000");
    }
}
