//! One column of a table: what kind of values it has, how many are missing, where the numbers lie.

use std::fmt;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::time::instant;

/// Bits of a hash that choose a register of the sketch: 2,048 registers, 2.3 % standard error.
const SKETCH_BITS: u32 = 11;
/// Values of a column that are told apart one by one; of more it is estimated how many differ.
const DISTINCT_MAX: usize = 1_024;
/// Largest whole number that a float holds exactly.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// What the values of a column are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// All are missing.
    Empty,
    Boolean,
    Integer,
    Number,
    Date,
    Time,
    Text,
    Bytes,
    List,
    Object,
    /// Of several kinds that are not all plain.
    Mixed,
}

impl ColumnKind {
    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// What is told of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnSummary {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: ColumnKind,
    /// Rows without a value; absent where the file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<u64>,
    /// How many values differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<u64>,
    /// Whether that is an estimate, to 2 or 3 %, as it is past 1,024; absent where not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub distinct_estimated: bool,
    /// Of numbers, dates and times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Standard deviation of the population.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Bytes of the shortest and the longest text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_min: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_max: Option<u64>,
}

/// One value, as far as a summary needs it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cell<'a> {
    Missing,
    Boolean,
    Integer(f64),
    Number(f64),
    Date(&'a str),
    Time(&'a str),
    /// Its length in bytes.
    Text(u64),
    List,
    Object,
}

/// Count, extremes and moments of numbers, by Welford's recurrence.
#[derive(Clone, Debug)]
struct Numbers {
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
    /// Sum of the squared distances from the mean.
    squares: f64,
}

impl Numbers {
    const NONE: Self =
        Self { count: 0, min: f64::INFINITY, max: f64::NEG_INFINITY, mean: 0.0, squares: 0.0 };

    fn add(&mut self, number: f64) {
        self.count += 1;
        self.min = self.min.min(number);
        self.max = self.max.max(number);
        let distance = number - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (number - self.mean);
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (own, more) = (self.count as f64, other.count as f64);
        let distance = other.mean - self.mean;
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.mean += distance * more / (own + more);
        self.squares += other.squares + distance * distance * own * more / (own + more);
    }
}

/// Counts distinct values, about, in little memory: HyperLogLog.
#[derive(Clone)]
struct Sketch(Box<[u8; 1 << SKETCH_BITS]>);

impl Sketch {
    fn new() -> Self {
        Self(Box::new([0; 1 << SKETCH_BITS]))
    }

    fn add(&mut self, hash: u64) {
        let register = (hash >> (64 - SKETCH_BITS)) as usize;
        // At most 54: the bits that chose the register are shifted out, and one is put in.
        let rank = ((hash << SKETCH_BITS) | (1 << (SKETCH_BITS - 1))).leading_zeros() + 1;
        let rank = u8::try_from(rank).expect("at most 64");
        self.0[register] = self.0[register].max(rank);
    }

    fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0[..]).for_each(|(own, more)| *own = (*own).max(*more));
    }

    /// Source: Flajolet et al., HyperLogLog, 2007; small counts by the registers that are empty.
    fn estimate(&self) -> u64 {
        let registers = f64::from(1_u32 << SKETCH_BITS);
        let sum: f64 = self.0.iter().map(|rank| (-f64::from(*rank)).exp2()).sum();
        let raw = 0.7213 / (1.0 + 1.079 / registers) * registers * registers / sum;
        let empty = self.0.iter().filter(|rank| **rank == 0).count();
        let is_small = raw <= 2.5 * registers && 0 < empty;
        let estimate = if is_small { registers * (registers / empty as f64).ln() } else { raw };
        estimate.round() as u64
    }
}

impl fmt::Debug for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "about {}", self.estimate())
    }
}

/// The values of a column, by their hashes.
#[derive(Clone, Debug)]
enum Distinct {
    /// In order: up to `DISTINCT_MAX`.
    Few(Vec<u64>),
    Many(Sketch),
}

impl Distinct {
    fn add(&mut self, hash: u64) {
        match self {
            Self::Few(hashes) => {
                let Err(place) = hashes.binary_search(&hash) else { return };
                hashes.insert(place, hash);
                if DISTINCT_MAX < hashes.len() {
                    let mut sketch = Sketch::new();
                    hashes.iter().for_each(|hash| sketch.add(*hash));
                    *self = Self::Many(sketch);
                }
            }
            Self::Many(sketch) => sketch.add(hash),
        }
    }

    fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Many(own), Self::Many(more)) => own.merge(more),
            (_, Self::Few(more)) => more.iter().for_each(|hash| self.add(*hash)),
            (Self::Few(own), Self::Many(more)) => {
                let mut sketch = more.clone();
                own.iter().for_each(|hash| sketch.add(*hash));
                *self = Self::Many(sketch);
            }
        }
    }

    fn is_estimated(&self) -> bool {
        matches!(self, Self::Many(_))
    }

    /// How many of `present` values differ.
    fn count(&self, present: u64) -> u64 {
        match self {
            Self::Few(hashes) => hashes.len() as u64,
            // There were more than could be told apart, and no more than there are.
            Self::Many(sketch) => sketch.estimate().max(DISTINCT_MAX as u64 + 1).min(present),
        }
    }
}

/// A date or a time, as it is written.
#[derive(Clone, Debug)]
struct Moment {
    at: SignedDuration,
    text: String,
}

/// A column while its table is read.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// Bits of the kinds that were seen.
    kinds: u16,
    present: u64,
    missing: Option<u64>,
    numbers: Numbers,
    /// The first and the last date or time.
    times: Option<(Moment, Moment)>,
    lengths: Option<(u64, u64)>,
    /// Absent where the values were not read.
    distinct: Option<Distinct>,
}

impl Column {
    /// A column whose values will be added one by one.
    pub fn new(name: String) -> Self {
        Self {
            name,
            kinds: 0,
            present: 0,
            missing: Some(0),
            numbers: Numbers::NONE,
            times: None,
            lengths: None,
            distinct: Some(Distinct::Few(Vec::new())),
        }
    }

    /// A column of which a file's footer tells all that is known.
    pub fn told(
        name: String,
        kind: ColumnKind,
        missing: Option<u64>,
        range: Option<(f64, f64)>,
    ) -> Self {
        let mut numbers = Numbers::NONE;
        if let Some((min, max)) = range {
            numbers = Numbers { min, max, ..numbers };
        }
        let column = Self::new(name);
        Self { kinds: kind.bit(), missing, numbers, distinct: None, ..column }
    }

    /// Whether a value can still make it anything but text.
    pub fn is_text(&self) -> bool {
        self.kinds & ColumnKind::Text.bit() != 0
    }

    /// Whether it has values, and none that is a mere text.
    pub fn has_only_values(&self) -> bool {
        use ColumnKind as Kind;
        let kind = self.kind();
        matches!(kind, Kind::Boolean | Kind::Integer | Kind::Number | Kind::Date | Kind::Time)
    }

    /// Rows that have a value.
    pub fn present(&self) -> u64 {
        self.present
    }

    /// Counts rows that do not have it.
    pub fn add_missing(&mut self, rows: u64) {
        self.missing = self.missing.and_then(|missing| missing.checked_add(rows));
    }

    /// Takes a value; `raw` is its text, by which values are told apart.
    pub fn add(&mut self, cell: Cell<'_>, raw: &[u8]) {
        let kind = match cell {
            Cell::Missing => return self.add_missing(1),
            Cell::Boolean => ColumnKind::Boolean,
            Cell::Integer(number) => {
                self.numbers.add(number);
                ColumnKind::Integer
            }
            Cell::Number(number) => {
                self.numbers.add(number);
                ColumnKind::Number
            }
            Cell::Date(text) => {
                self.add_time(text);
                ColumnKind::Date
            }
            Cell::Time(text) => {
                self.add_time(text);
                ColumnKind::Time
            }
            Cell::Text(_) => ColumnKind::Text,
            Cell::List => ColumnKind::List,
            Cell::Object => ColumnKind::Object,
        };
        let length = match cell {
            Cell::Text(length) => length,
            _ => raw.len() as u64,
        };
        let (min, max) = self.lengths.unwrap_or((length, length));
        self.lengths = Some((min.min(length), max.max(length)));
        self.kinds |= kind.bit();
        self.present += 1;
        if let Some(distinct) = &mut self.distinct {
            distinct.add(xxh3_64(raw));
        }
    }

    fn add_time(&mut self, text: &str) {
        let Some(at) = instant(text) else { return };
        let moment = || Moment { at, text: text.to_owned() };
        match &mut self.times {
            None => self.times = Some((moment(), moment())),
            Some((first, _)) if at < first.at => *first = moment(),
            Some((_, last)) if last.at < at => *last = moment(),
            Some(_) => {}
        }
    }

    /// Takes in the same column of another file.
    pub fn merge(&mut self, other: &Self) {
        self.kinds |= other.kinds;
        self.present += other.present;
        self.missing =
            self.missing.zip(other.missing).and_then(|(own, more)| own.checked_add(more));
        let range =
            (self.numbers.min.min(other.numbers.min), self.numbers.max.max(other.numbers.max));
        self.numbers.merge(&other.numbers);
        (self.numbers.min, self.numbers.max) = range;
        if let Some((first, last)) = &other.times {
            self.add_time(&first.text);
            self.add_time(&last.text);
        }
        self.lengths = match (self.lengths, other.lengths) {
            (Some(own), Some(more)) => Some((own.0.min(more.0), own.1.max(more.1))),
            (own, more) => own.or(more),
        };
        match (&mut self.distinct, &other.distinct) {
            (Some(own), Some(more)) => own.merge(more),
            _ => self.distinct = None,
        }
    }

    fn kind(&self) -> ColumnKind {
        use ColumnKind as Kind;
        let only = |kinds: &[Kind]| kinds.iter().fold(0, |bits, kind| bits | kind.bit());
        let is_of = |kinds: &[Kind]| self.kinds & !only(kinds) & !Kind::Empty.bit() == 0;
        let narrow: [&[Kind]; 10] = [
            &[],
            &[Kind::Boolean],
            &[Kind::Integer],
            &[Kind::Integer, Kind::Number],
            &[Kind::Date],
            &[Kind::Date, Kind::Time],
            &[Kind::Bytes],
            &[Kind::List],
            &[Kind::Object],
            &[Kind::Boolean, Kind::Integer, Kind::Number, Kind::Date, Kind::Time, Kind::Text],
        ];
        let found = narrow.into_iter().find(|kinds| is_of(kinds));
        found.map_or(Kind::Mixed, |kinds| kinds.last().copied().unwrap_or(Kind::Empty))
    }

    /// What is told of the column (D3).
    pub fn summary(&self) -> ColumnSummary {
        let kind = self.kind();
        let is_number = matches!(kind, ColumnKind::Integer | ColumnKind::Number);
        let numbers = Some(&self.numbers).filter(|it| is_number && it.min <= it.max);
        let moments = numbers.filter(|it| 0 < it.count);
        let times = matches!(kind, ColumnKind::Date | ColumnKind::Time);
        let times = self.times.as_ref().filter(|_| times);
        let lengths = self.lengths.filter(|_| kind == ColumnKind::Text);
        let bound = |of: fn(&Numbers) -> f64, moment: fn(&(Moment, Moment)) -> &Moment| {
            let number = numbers.and_then(|numbers| number(of(numbers)));
            number.or_else(|| times.map(|times| json!(moment(times).text)))
        };
        // Of infinite numbers, and of such as are too large to be added up, there is none.
        let finite = |moment: fn(&Numbers) -> f64| moments.map(moment).filter(|it| it.is_finite());
        ColumnSummary {
            name: self.name.clone(),
            kind,
            missing: self.missing,
            distinct: self.distinct.as_ref().map(|distinct| distinct.count(self.present)),
            distinct_estimated: self.distinct.as_ref().is_some_and(Distinct::is_estimated),
            min: bound(|numbers| numbers.min, |times| &times.0),
            max: bound(|numbers| numbers.max, |times| &times.1),
            mean: finite(|it| it.mean),
            std: finite(|it| (it.squares / it.count as f64).sqrt()),
            length_min: lengths.map(|(min, _)| min),
            length_max: lengths.map(|(_, max)| max),
        }
    }
}

/// A whole number without a point; JSON has no infinite one.
fn number(number: f64) -> Option<Value> {
    let is_whole = number.fract() == 0.0 && number.abs() < WHOLE_MAX;
    number.is_finite().then(|| if is_whole { json!(number as i64) } else { json!(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(cells: &[(Cell<'_>, &str)]) -> Column {
        let mut column = Column::new("c".to_owned());
        cells.iter().for_each(|(cell, raw)| column.add(*cell, raw.as_bytes()));
        column
    }

    #[test]
    fn a_column_is_of_the_narrowest_kind_that_holds_all_values() {
        let check = |cells: &[Cell<'_>], expected: ColumnKind| {
            let cells: Vec<_> = cells.iter().map(|cell| (*cell, "x")).collect();
            assert_eq!(column(&cells).summary().kind, expected, "{cells:?}");
        };
        let (whole, half, text) = (Cell::Integer(1.0), Cell::Number(0.5), Cell::Text(1));
        let (date, time) = (Cell::Date("2026-01-02"), Cell::Time("2026-01-02T03:04:05Z"));
        check(&[], ColumnKind::Empty);
        check(&[Cell::Missing], ColumnKind::Empty);
        check(&[whole, Cell::Missing], ColumnKind::Integer);
        check(&[whole, half], ColumnKind::Number);
        check(&[date], ColumnKind::Date);
        check(&[date, time], ColumnKind::Time);
        check(&[whole, Cell::Boolean], ColumnKind::Text);
        check(&[half, text], ColumnKind::Text);
        check(&[Cell::List], ColumnKind::List);
        check(&[Cell::List, whole], ColumnKind::Mixed);
    }

    #[test]
    fn parts_of_a_column_tell_the_same_as_the_whole() {
        let numbers: Vec<f64> = (0..1_000).map(|n| f64::from(n * n % 977) / 8.0).collect();
        let texts: Vec<String> = numbers.iter().map(f64::to_string).collect();
        let cells = numbers.iter().zip(&texts).map(|(n, text)| (Cell::Number(*n), text.as_str()));
        let cells: Vec<_> = cells.collect();
        let whole = column(&cells).summary();
        let mut parts = column(&cells[..300]);
        parts.merge(&column(&[]));
        parts.merge(&column(&cells[300..]));
        let parts = parts.summary();
        assert_eq!((&parts.min, &parts.max), (&whole.min, &whole.max));
        assert_eq!(parts.distinct, whole.distinct);
        let mean = numbers.iter().sum::<f64>() / 1e3;
        let variance = numbers.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / 1e3;
        for found in [&whole, &parts] {
            assert!((found.mean.unwrap() - mean).abs() < 1e-9, "{found:?}");
            assert!((found.std.unwrap() - variance.sqrt()).abs() < 1e-9, "{found:?}");
        }
    }

    #[test]
    fn distinct_values_are_counted_and_many_of_them_estimated() {
        for count in [0_u64, 1, 10, 100, 1_000, 1_024, 1_025, 100_000] {
            let mut parts = [0, 1].map(|_| Column::new("c".to_owned()));
            for value in (0..count).chain(0..count) {
                let text = value.to_string();
                parts[(value % 2) as usize].add(Cell::Text(1), text.as_bytes());
            }
            let [mut column, more] = parts;
            column.merge(&more);
            let found = column.summary();
            let is_many = 1_024 < count;
            assert_eq!(found.distinct_estimated, is_many);
            let found = found.distinct.unwrap();
            let error = (found as f64 - count as f64).abs();
            assert!(error <= if is_many { 0.08 * count as f64 } else { 0.0 }, "{found} of {count}");
        }
    }

    #[test]
    fn no_more_values_differ_than_there_are() {
        for count in [2_000_u64, 20_000, 50_000, 200_000] {
            let mut column = Column::new("c".to_owned());
            (0..count).for_each(|value| column.add(Cell::Text(1), &value.to_le_bytes()));
            let found = column.summary().distinct.unwrap();
            assert!(found <= count && 1_024 < found, "{found} of {count}");
        }
    }

    #[test]
    fn times_are_compared_as_instants() {
        let times = ["2026-06-01T12:00:00+02:00", "2026-06-01T11:00:00Z", "2026-06-01T10:30:00Z"];
        let found = column(&times.map(|text| (Cell::Time(text), text))).summary();
        assert_eq!((found.min, found.max), (Some(times[0].into()), Some(times[1].into())));
    }

    #[test]
    fn what_is_too_large_to_be_added_up_has_no_mean() {
        let found = column(&[(Cell::Number(1e308), "1"), (Cell::Number(-1e308), "2")]).summary();
        assert_eq!((found.min, found.max), (Some((-1e308).into()), Some(1e308.into())));
        assert_eq!((found.mean, found.std), (None, None));
    }

    #[test]
    fn no_text_is_told() {
        let found = column(&[(Cell::Text(3), "ann"), (Cell::Text(5), "bobby")]).summary();
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains("ann") && !text.contains("bobby"), "{text}");
        assert_eq!((found.length_min, found.length_max), (Some(3), Some(5)));
        let mixed = column(&[(Cell::Date("1990-01-02"), "1990-01-02"), (Cell::Text(3), "ann")]);
        assert!(!serde_json::to_string(&mixed.summary()).unwrap().contains("1990"));
    }
}
