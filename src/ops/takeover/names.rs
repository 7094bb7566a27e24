//! What people's names for models say: which model it is, and which state of it.
//!
//! A name is cut into words; some say what the model is (`churn`), some which version (`v2`, `final`,
//! `2024-03-01`, `epoch-7`), some nothing (`model`, `best`). Only a guess, for a plan that a person reads.

use std::path::Path;

/// Words that say which state it is, and how late that is likely to be.
const STATES: [(&str, i32); 36] = [
    ("obsolete", -3),
    ("deprecated", -3),
    ("old", -2),
    ("older", -3),
    ("prev", -2),
    ("previous", -2),
    ("bak", -2),
    ("backup", -2),
    ("archive", -2),
    ("archived", -2),
    ("orig", -1),
    ("original", -1),
    ("initial", -1),
    ("first", -1),
    ("draft", 0),
    ("wip", 0),
    ("tmp", 0),
    ("temp", 0),
    ("test", 0),
    ("retrain", 1),
    ("retrained", 1),
    ("new", 1),
    ("newer", 1),
    ("updated", 1),
    ("fix", 1),
    ("fixed", 1),
    ("good", 1),
    ("ok", 1),
    ("really", 1),
    ("real", 1),
    ("use", 1),
    ("this", 1),
    ("newest", 1),
    ("final", 1),
    ("finale", 1),
    ("finished", 1),
];

/// Words that say that it is the same as something else.
const COPIES: [&str; 4] = ["copy", "kopie", "copie", "duplicate"];

/// Words before a number that say what is counted.
const COUNTED: [&str; 15] = [
    "v",
    "ver",
    "version",
    "rev",
    "r",
    "epoch",
    "ep",
    "step",
    "iter",
    "iteration",
    "run",
    "exp",
    "try",
    "attempt",
    "checkpoint",
];

/// Words that say nothing of which model it is.
const GENERIC: [&str; 60] = [
    "ai",
    "artifact",
    "artifacts",
    "converted",
    "convert",
    "reexport",
    "reexported",
    "resaved",
    "best",
    "bin",
    "checkpoint",
    "checkpoints",
    "ckpt",
    "ckpts",
    "classifier",
    "clf",
    "current",
    "data",
    "deploy",
    "deployed",
    "download",
    "downloads",
    "epoch",
    "exp",
    "experiment",
    "experiments",
    "export",
    "exported",
    "exports",
    "file",
    "files",
    "home",
    "last",
    "latest",
    "ml",
    "misc",
    "model",
    "models",
    "net",
    "network",
    "onnx",
    "out",
    "output",
    "outputs",
    "prod",
    "production",
    "pytorch",
    "release",
    "result",
    "results",
    "run",
    "runs",
    "save",
    "saved",
    "serving",
    "staging",
    "state",
    "tf",
    "trained",
    "weights",
];

/// Ends of names that are no words of it, the longer first.
const ENDS: [&str; 4] = [".pth.tar", ".tar.gz", ".onnx.data", ".safetensors.index.json"];

/// What one name says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Name {
    /// Words that say which model it is, in lower case and in their order.
    pub stem: Vec<String>,
    pub state: State,
    /// It says that it is the same as something else.
    pub is_copy: bool,
}

/// Which state of a model it is, as far as the name says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// How late the words say it is; 0 where there are none.
    pub rank: i32,
    /// `v2.1` and `epoch-7`, in their order.
    pub numbers: Vec<u64>,
    /// Year, month, day and time of day, as far as given.
    pub date: Option<Vec<u64>>,
    /// The words without numbers and dates: two names of one pattern differ in those only.
    pub pattern: Vec<String>,
}

impl Name {
    /// What the name of a file or directory says.
    pub fn of(name: &str) -> Self {
        let mut words = words_of(without_end(name));
        let mut read = Self::default();
        read.state.date = take_date(&mut words);
        let mut rest = words.into_iter().peekable();
        while let Some(word) = rest.next() {
            let lower = word.to_lowercase();
            if let Some(number) = counted_number(&lower) {
                read.state.numbers.push(number);
                read.state.pattern.push("#".to_owned());
                // `v2.1` is one number of two parts.
                continue;
            }
            if COUNTED.contains(&lower.as_str())
                && let Some(number) = rest.peek().and_then(|next| plain_number(next))
            {
                rest.next();
                read.state.numbers.push(number);
                read.state.pattern.push(format!("{lower}#"));
                continue;
            }
            if let Some(number) = plain_number(&word) {
                read.state.numbers.push(number);
                read.state.pattern.push("#".to_owned());
                continue;
            }
            if COPIES.contains(&lower.as_str()) || lower == "of" && read.is_copy {
                read.is_copy = true;
                continue;
            }
            if let Some((_, rank)) = STATES.iter().find(|(state, _)| *state == lower) {
                read.state.rank += rank + i32::from(is_shouted(&word));
                read.state.pattern.push(lower);
                continue;
            }
            read.state.pattern.push(lower.clone());
            if !is_generic(&lower) {
                read.stem.push(lower);
            }
        }
        read
    }

    /// What a path below a folder says: the last part first, those above it where it names no model.
    pub fn of_path(path: &Path) -> Self {
        let mut whole = Self::default();
        for part in path.iter().rev() {
            let part = Self::of(&part.to_string_lossy());
            whole.is_copy |= part.is_copy;
            let state = &mut whole.state;
            state.rank += part.state.rank;
            state.date = state.date.take().or(part.state.date);
            // Numbers further up count before those below them.
            state.numbers.splice(0..0, part.state.numbers);
            state.pattern.splice(0..0, part.state.pattern);
            if !part.stem.is_empty() {
                whole.stem = part.stem;
                break;
            }
        }
        whole
    }

    /// The stem without the digits at its end, and their number: 1 where there are none.
    pub fn numbered(&self) -> Option<(Vec<String>, u64)> {
        let (last, before) = self.stem.split_last()?;
        let letters = last.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = match &last[letters.len()..] {
            "" => 1,
            digits => digits.parse().ok()?,
        };
        let mut stem = before.to_vec();
        stem.push(letters.to_owned());
        (!letters.is_empty()).then_some((stem, number))
    }

    /// Takes this for the stem, and the digits behind it for the number of a version.
    pub fn set_numbered(&mut self, stem: &[String], number: u64) {
        if let Some(word) = self.stem.last() {
            self.state.pattern.retain(|other| other != word);
        }
        self.stem = stem.to_vec();
        self.state.pattern.extend(stem.last().cloned());
        self.state.pattern.push("#".to_owned());
        self.state.numbers.push(number);
    }

    /// The stem as one text.
    pub fn stem_text(&self) -> String {
        self.stem.join("-")
    }
}

/// Whether a word says nothing of which model it is.
pub(super) fn is_generic(word: &str) -> bool {
    GENERIC.contains(&word) || word.chars().all(|c| !c.is_alphanumeric())
}

/// The name without what says the format.
pub(super) fn without_end(name: &str) -> &str {
    let lower = name.to_ascii_lowercase();
    if let Some(end) = ENDS.iter().find(|end| lower.ends_with(*end)) {
        return &name[..name.len() - end.len()];
    }
    match name.rsplit_once('.') {
        Some((stem, end)) if !stem.is_empty() && is_end(end) => stem,
        _ => name,
    }
}

/// Whether it looks like what says a format: letters, some digits, short. `v2.1` has no such end.
fn is_end(end: &str) -> bool {
    (1..=11).contains(&end.len())
        && end.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && end.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// The words of a name: what stands between signs, before a capital letter, before the `T` of a time,
/// and digits after a word that says nothing alone (`model2`).
fn words_of(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in name.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()) {
        let mut word = String::new();
        let mut before: Option<char> = None;
        for next in part.chars() {
            let is_start = before.is_some_and(|before| {
                before.is_lowercase() && next.is_uppercase()
                    || before.is_ascii_digit() && next == 'T'
            });
            if is_start {
                words.extend(split_number(&std::mem::take(&mut word)));
            }
            word.push(next);
            before = Some(next);
        }
        words.extend(split_number(&word));
    }
    words
}

/// A word and the digits behind it, where the word is one that is counted or says nothing.
fn split_number(word: &str) -> Vec<String> {
    let start = word.find(|c: char| c.is_ascii_digit()).unwrap_or(word.len());
    let (letters, digits) = word.split_at(start);
    let lower = letters.to_lowercase();
    let counts = COUNTED.contains(&lower.as_str())
        || is_generic(&lower)
        || STATES.iter().any(|(state, _)| *state == lower);
    let splits = !letters.is_empty() && plain_number(digits).is_some() && counts;
    match splits && lower != "v" {
        true => vec![letters.to_owned(), digits.to_owned()],
        false => vec![word.to_owned()],
    }
}

/// The number of `v2`.
fn counted_number(word: &str) -> Option<u64> {
    plain_number(word.strip_prefix('v')?)
}

fn plain_number(word: &str) -> Option<u64> {
    let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| word.parse().ok())?
}

/// Written in capitals, as people do who mean it.
fn is_shouted(word: &str) -> bool {
    1 < word.len() && word.chars().all(char::is_uppercase)
}

/// Takes the first date out of the words: `2024-03-01`, `20240301`, `2024 03`, each perhaps with a time.
fn take_date(words: &mut Vec<String>) -> Option<Vec<u64>> {
    for start in 0..words.len() {
        let Some((mut date, mut count)) = date_at(&words[start..]) else { continue };
        if let Some(time) = words.get(start + count).and_then(|word| time_of(word))
            && date.len() == 3
        {
            date.push(time);
            count += 1;
        }
        words.drain(start..start + count);
        return Some(date);
    }
    None
}

/// The date that words begin with, and how many of them it takes.
fn date_at(words: &[String]) -> Option<(Vec<u64>, usize)> {
    let number = |index: usize, length: usize| {
        let word = words.get(index).filter(|word| word.len() == length)?;
        plain_number(word)
    };
    let is_year = |year: u64| (1990..2100).contains(&year);
    let is_month = |month: u64| (1..=12).contains(&month);
    let is_day = |day: u64| (1..=31).contains(&day);
    if let Some(whole) = number(0, 8) {
        let (year, month, day) = (whole / 10_000, whole / 100 % 100, whole % 100);
        return (is_year(year) && is_month(month) && is_day(day))
            .then(|| (vec![year, month, day], 1));
    }
    let year = number(0, 4).filter(|year| is_year(*year))?;
    let month = number(1, 2).filter(|month| is_month(*month))?;
    match number(2, 2).filter(|day| is_day(*day)) {
        Some(day) => Some((vec![year, month, day], 3)),
        None => Some((vec![year, month], 2)),
    }
}

/// A time of day in four or six digits, perhaps behind a `T`.
fn time_of(word: &str) -> Option<u64> {
    let digits = word.strip_prefix(['T', 't']).unwrap_or(word);
    let time = plain_number(digits)?;
    match digits.len() {
        4 if time < 2_400 => Some(time * 100),
        6 if time < 240_000 => Some(time),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_model_it_is_and_which_state() {
        let check = |name: &str, stem: &str, rank: i32, numbers: &[u64], date: Option<&[u64]>| {
            let read = Name::of(name);
            assert_eq!(read.stem_text(), stem, "{name}: {read:?}");
            let state = (read.state.rank, &read.state.numbers[..], read.state.date.as_deref());
            assert_eq!(state, (rank, numbers, date), "{name}: {read:?}");
        };
        check("churn.onnx", "churn", 0, &[], None);
        check("churn_v2.onnx", "churn", 0, &[2], None);
        check("churn_v2.1.pkl", "churn", 0, &[2, 1], None);
        check("model_final.pkl", "", 1, &[], None);
        check("model_final_FINAL_v2.pkl", "", 3, &[2], None);
        check("ChurnModelFinal", "churn", 1, &[], None);
        check("churn_2024-03-01.pkl", "churn", 0, &[], Some(&[2024, 3, 1]));
        check("churn-20240301T1200.pkl", "churn", 0, &[], Some(&[2024, 3, 1, 120_000]));
        check("churn_20240301_1200.pkl", "churn", 0, &[], Some(&[2024, 3, 1, 120_000]));
        check("churn_2024_03.pkl", "churn", 0, &[], Some(&[2024, 3]));
        check("checkpoint-500", "", 0, &[500], None);
        check("epoch=7-step=900.ckpt", "", 0, &[7, 900], None);
        check("model2.pt", "", 0, &[2], None);
        check("resnet50.pt", "resnet50", 0, &[], None);
        check("minilm-ft-bf16.safetensors", "minilm-ft-bf16", 0, &[], None);
        check("chgnet_0.3.0.pth.tar", "chgnet", 0, &[0, 3, 0], None);
        check("old_churn.bak", "churn", -2, &[], None);
        check("Copy of churn (1).onnx", "churn", 0, &[1], None);
        check("", "", 0, &[], None);
    }

    #[test]
    fn a_path_is_named_by_the_last_part_that_names_a_model() {
        let check = |path: &str, stem: &str, numbers: &[u64]| {
            let read = Name::of_path(Path::new(path));
            assert_eq!(
                (read.stem_text().as_str(), &read.state.numbers[..]),
                (stem, numbers),
                "{path}"
            );
        };
        check("churn/v3/model.onnx", "churn", &[3]);
        check("fraud/runs/exp2/epoch-7.pt", "fraud", &[2, 7]);
        check("archive/churn_v2.pkl", "churn", &[2]);
        check("models/final/weights.bin", "", &[]);
    }
}
