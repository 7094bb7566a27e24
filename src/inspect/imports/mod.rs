//! Imports of pickles: what loading one would import and call, told without importing or calling anything.
//!
//! Arrays that joblib writes between the opcodes are stepped over, and the pickles of old PyTorch files and
//! of arrays of objects are followed as well. What cannot be followed is said, never guessed.
//! Source: `pickletools.py` of Python, `numpy_pickle.py` of joblib, `serialization.py` of PyTorch.

mod danger;
mod machine;
mod opcode;
mod source;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Stop;
use super::description::{Draft, most, short};
use super::reader::Reader;

use machine::Machine;
use source::{Compression, Source};

pub use danger::Danger;

/// Most imports that are listed.
const GLOBAL_COUNT_MAX: usize = 10_000;
/// Most reasons that are listed.
const REASON_COUNT_MAX: usize = 100;
/// Most pickles of one file, one behind the other or within each other.
const PICKLE_COUNT_MAX: u64 = 100_000;
/// What the first pickle of a file that PyTorch wrote before it wrote archives holds.
const TORCH_MAGIC: [u8; 14] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
/// Who wrote such a file.
const TORCH: &str = "torch";
const JOBLIB: &str = "joblib";
/// Pickles of such a file; behind them lie the storages.
const TORCH_PICKLES: u64 = 5;

/// What the pickles of a file would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PickleDetails {
    /// The highest that any of them names; 0 where none does.
    pub protocol: u8,
    /// Who wrote the file: `pickle`, `joblib`, `torch`.
    pub writer: String,
    /// How the whole file is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// Pickles in the file.
    pub pickles: u64,
    /// How often each opcode stands in them, by the names of `pickletools`.
    pub opcodes: BTreeMap<String, u64>,
    /// `module.name` of what would be imported, and what is known of it.
    pub globals: BTreeMap<String, Danger>,
    /// Why it is not safe to load, a sentence each; empty where nothing was found that is not.
    #[serde(rename = "unsafe")]
    pub reasons: Vec<String>,
    /// Whether all of it could be followed.
    pub complete: bool,
}

impl PickleDetails {
    pub(super) fn summary(&self) -> Map<String, Value> {
        let mut summary = Map::new();
        let mut add = |name: &str, value: Value| summary.insert(name.to_owned(), value);
        add("writer", json!(self.writer));
        add("protocol", json!(self.protocol));
        if let Some(compression) = &self.compression {
            add("compression", json!(compression));
        }
        let of = |danger: Danger| self.globals.iter().filter(move |(_, it)| **it == danger);
        let worst = [Danger::Dangerous, Danger::Unknown, Danger::Library, Danger::Safe];
        let names: Vec<_> = worst.into_iter().flat_map(of).map(|(name, _)| short(name)).collect();
        add("imports", json!(names.len()));
        add(
            "imported",
            json!(names.iter().take(super::description::SUMMARY_COUNT_MAX).collect::<Vec<_>>()),
        );
        let reasons = self.reasons.iter().take(super::description::SUMMARY_COUNT_MAX);
        if !self.reasons.is_empty() {
            add("unsafe", json!(reasons.map(|reason| short(reason)).collect::<Vec<_>>()));
        }
        add("opcodes", most(&self.opcodes));
        summary
    }

    /// Whether PyTorch wrote it, as no archive.
    pub(super) fn is_torch(&self) -> bool {
        self.writer == TORCH
    }

    fn add_reason(&mut self, reason: String) {
        if self.reasons.len() < REASON_COUNT_MAX && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// Notes an import.
    fn import(&mut self, module: &str, name: &str, draft: &mut Draft) {
        let module = danger::todays(module);
        let path = format!("{module}.{name}");
        if self.globals.contains_key(&path) {
            return;
        }
        let (danger, why) = danger::of(module, name);
        match danger {
            Danger::Dangerous => self.add_reason(format!("it imports `{path}`, {why}")),
            Danger::Unknown => {
                self.add_reason(format!("it imports `{path}`, which is not known here"))
            }
            Danger::Safe | Danger::Library => {}
        }
        if self.globals.len() < GLOBAL_COUNT_MAX && draft.admit("imports", path.len()) {
            self.globals.insert(path, danger);
        } else {
            draft.note("not all imports are listed: there are too many");
        }
    }
}

/// Describes a file that is a pickle, or several.
pub(super) fn describe(reader: &mut Reader<'_>, draft: &mut Draft) -> Result<PickleDetails, Stop> {
    let file = 0..reader.bytes();
    let head = reader.bytes_of(&(0..file.end.min(TORCH_MAGIC.len() as u64)))?;
    let is_torch = head.starts_with(&TORCH_MAGIC);
    let mut details = PickleDetails { complete: true, ..PickleDetails::default() };
    details.writer = if is_torch { TORCH } else { "pickle" }.to_owned();
    let compression = Compression::of(&head);
    details.compression = compression.map(|it| it.word().to_owned());
    let Some(mut source) = Source::new(reader, file, compression) else {
        details.complete = false;
        let word = details.compression.clone().unwrap_or_default();
        details.add_reason(format!("it is compressed with {word}, and was not looked into"));
        return Ok(details);
    };
    follow_all(&mut source, is_torch, &mut details, draft)?;
    if details.writer == JOBLIB {
        drop(source);
        let range = 0..reader.bytes();
        if let Some(mut source) = Source::new(reader, range, compression) {
            follow_plainly(&mut source, &mut details, draft);
        }
    }
    Ok(details)
}

/// Whether a file calls what it imports, if it is loaded as a pickle: not all begin as one.
pub(super) fn is_program(reader: &mut Reader<'_>) -> bool {
    let (mut details, mut draft) = (PickleDetails::default(), Draft::new());
    Machine::new(&mut Source::of(reader), &mut details, &mut draft).calls(|_| false)
}

/// Adds what a file of joblib calls in what joblib takes for arrays and other programs for opcodes.
fn follow_plainly(source: &mut Source<'_, '_>, details: &mut PickleDetails, draft: &mut Draft) {
    let mut plain = PickleDetails::default();
    let is_known = |path: &str| details.globals.contains_key(path) || !path.chars().all(is_of_name);
    if !Machine::new(source, &mut plain, draft).calls(is_known) {
        return;
    }
    plain.globals.retain(|path, _| !is_known(path));
    for path in plain.globals.keys() {
        details.add_reason(format!("without joblib it calls `{path}`, from within an array"));
    }
    details.globals.extend(plain.globals);
}

/// Whether names of modules and what is in them have it: numbers read as opcodes seldom do.
fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '.')
}

/// Adds what a pickle within a file does.
pub(super) fn describe_part(
    pickle: &[u8],
    details: &mut PickleDetails,
    draft: &mut Draft,
) -> Result<(), Stop> {
    follow_all(&mut Source::of(&mut Reader::of_whole(&pickle)), false, details, draft)
}

/// Follows pickles up to the end, or to where an old file of PyTorch has its storages.
fn follow_all(
    source: &mut Source<'_, '_>,
    is_torch: bool,
    details: &mut PickleDetails,
    draft: &mut Draft,
) -> Result<(), Stop> {
    let pickles_max = if is_torch { TORCH_PICKLES } else { PICKLE_COUNT_MAX };
    for found in 0..pickles_max {
        match follow_next(source, details, draft) {
            Ok(true) => {}
            Ok(false) => {
                if found == 0 {
                    details.complete = false;
                    details.add_reason("it is empty".to_owned());
                }
                return Ok(());
            }
            // A program that loads a pickle stops at its end, and never sees what lies behind.
            Err(Stop::Malformed(_)) if 0 < found => {
                details.add_reason("bytes lie behind its end that are no pickle".to_owned());
                return Ok(());
            }
            Err(Stop::Malformed(why)) => {
                details.complete = false;
                let place = source.place();
                details.add_reason(format!("it cannot be followed past byte {place}: {why}"));
                return Ok(());
            }
            Err(stop) => return Err(stop),
        }
    }
    Ok(())
}

/// Follows the next pickle; false at the end.
fn follow_next(
    source: &mut Source<'_, '_>,
    details: &mut PickleDetails,
    draft: &mut Draft,
) -> Result<bool, Stop> {
    if source.is_at_end()? {
        return Ok(false);
    }
    Machine::new(source, details, draft).follow()?;
    Ok(true)
}

#[cfg(test)]
mod tests;
