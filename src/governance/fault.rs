//! Mistakes in the files that people write, each with its place.

use std::fmt;
use std::ops::Range;

/// Mistakes that are told at a time.
pub const FAULTS_MAX: usize = 20;

/// A mistake in a policy or a suite.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// Characters from the start of the line, from 1.
    pub column: usize,
    pub why: String,
}

impl Fault {
    /// The first mistake there can be: the text as a whole.
    pub fn of_whole(why: String) -> Self {
        Self { line: 1, column: 1, why }
    }

    /// What a parser of TOML says.
    pub fn of_toml(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().unwrap_or_default().start;
        Self::at(text, start, error.message().trim().to_owned())
    }

    /// A mistake at a place of a text, in bytes from its start.
    pub fn at(text: &str, offset: usize, why: String) -> Self {
        let (line, column) = place(text, offset);
        Self { line, column, why }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, why } = self;
        write!(f, "line {line}, column {column}: {why}")
    }
}

/// Gathers what is wrong with a text.
pub struct Faults<'a> {
    text: &'a str,
    found: Vec<Fault>,
}

impl<'a> Faults<'a> {
    pub fn of(text: &'a str) -> Self {
        Self { text, found: Vec::new() }
    }

    pub fn add(&mut self, span: &Range<usize>, why: String) {
        self.found.push(Fault::at(self.text, span.start, why));
    }

    /// A mistake within a string of the text, so many characters from its start where that is known.
    pub fn add_within(
        &mut self,
        span: &Range<usize>,
        value: &str,
        offset: Option<usize>,
        why: String,
    ) {
        self.found.push(Fault::at(self.text, within(self.text, span, value, offset), why));
    }

    /// The value, unless something was wrong.
    ///
    /// # Errors
    /// The mistakes in the order of the text, the first of them.
    pub fn unless_any<T>(mut self, value: T) -> Result<T, Vec<Fault>> {
        if self.found.is_empty() {
            return Ok(value);
        }
        self.found.sort_by_key(|fault| (fault.line, fault.column));
        self.found.truncate(FAULTS_MAX);
        Err(self.found)
    }
}

/// Line and column, from 1, of a place in a text.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

/// Where a character of a string is in the text, if the string is written as it is.
fn within(text: &str, span: &Range<usize>, value: &str, offset: Option<usize>) -> usize {
    let written = text.get(span.clone()).unwrap_or_default();
    let quote = written.find(value).filter(|quote| *quote <= 3);
    let (Some(quote), Some(offset)) = (quote, offset) else { return span.start };
    let inside = value.char_indices().nth(offset).map_or(value.len(), |(at, _)| at);
    span.start + quote + inside
}
