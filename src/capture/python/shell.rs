//! The text of a shell script, cut into its commands. Nothing is run or expanded.
//!
//! What stands in a here-document, a comment or between quotes starts nothing. Which commands are reached
//! is not known: conditions and loops are no more than words.

use std::iter::Peekable;
use std::str::Chars;

/// Words that may stand before a command.
const KEYWORDS: [&str; 10] =
    ["!", "do", "elif", "else", "if", "then", "time", "until", "while", "{"];

/// The simple commands of `text` in their order, keywords left out; words without their quotes.
pub fn commands(text: &str) -> Vec<Vec<String>> {
    let mut reader = Reader {
        rest: text.chars().peekable(),
        word: None,
        words: Vec::new(),
        found: Vec::new(),
        documents: Vec::new(),
    };
    while let Some(sign) = reader.rest.next() {
        reader.read(sign);
    }
    reader.end_command();
    reader.found
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    /// That is being read; an empty one where there were quotes around nothing.
    word: Option<String>,
    words: Vec<String>,
    found: Vec<Vec<String>>,
    /// The lines that here-documents end with, which begin after this line.
    documents: Vec<String>,
}

impl Reader<'_> {
    fn read(&mut self, sign: char) {
        match sign {
            '\\' => match self.rest.next() {
                // The line goes on.
                Some('\n') | None => {}
                Some(sign) => self.push(sign),
            },
            '\'' => {
                self.word.get_or_insert_default();
                while let Some(sign) = self.rest.next_if(|sign| *sign != '\'') {
                    self.push(sign);
                }
                self.rest.next();
            }
            '"' => self.read_quoted(),
            '#' if self.word.is_none() => {
                while self.rest.next_if(|sign| *sign != '\n').is_some() {}
            }
            '\n' => {
                self.end_command();
                self.skip_documents();
            }
            ';' | '&' | '|' | '(' | ')' | '`' => self.end_command(),
            '<' if self.rest.next_if_eq(&'<').is_some() => self.begin_document(),
            // What is written to or read from is a word of its own, which starts nothing.
            '<' | '>' => self.end_word(),
            blank if blank.is_whitespace() => self.end_word(),
            sign => self.push(sign),
        }
    }

    fn push(&mut self, sign: char) {
        self.word.get_or_insert_default().push(sign);
    }

    fn read_quoted(&mut self) {
        self.word.get_or_insert_default();
        while let Some(sign) = self.rest.next() {
            match sign {
                '"' => return,
                '\\' => match self.rest.next() {
                    Some(sign @ ('"' | '\\' | '$' | '`')) => self.push(sign),
                    Some('\n') | None => {}
                    Some(sign) => {
                        self.push('\\');
                        self.push(sign);
                    }
                },
                sign => self.push(sign),
            }
        }
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self) {
        self.end_word();
        let words = std::mem::take(&mut self.words);
        let words: Vec<String> =
            words.into_iter().skip_while(|word| KEYWORDS.contains(&word.as_str())).collect();
        if !words.is_empty() {
            self.found.push(words);
        }
    }

    /// Behind `<<`: the word that ends the document. Of `<<<` the text is the next word.
    fn begin_document(&mut self) {
        self.end_word();
        if self.rest.next_if_eq(&'<').is_some() {
            return;
        }
        while self.rest.next_if(|sign| matches!(sign, '-' | ' ' | '\t')).is_some() {}
        let is_of_word = |sign: &char| !sign.is_whitespace() && !";&|()<>".contains(*sign);
        let mut end = String::new();
        while let Some(sign) = self.rest.next_if(is_of_word) {
            if !matches!(sign, '\'' | '"' | '\\') {
                end.push(sign);
            }
        }
        self.documents.push(end);
    }

    fn skip_documents(&mut self) {
        for end in std::mem::take(&mut self.documents) {
            while self.rest.peek().is_some() {
                let mut line = String::new();
                while let Some(sign) = self.rest.next_if(|sign| *sign != '\n') {
                    line.push(sign);
                }
                self.rest.next();
                if line.trim_start_matches('\t') == end {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let found: Vec<String> = commands(text).iter().map(|words| words.join(" ")).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_script_is_cut_into_commands() {
        check(
            "#!/bin/sh\nset -e # python x\na b\\\n  c; d&&e|f &g",
            &["set -e", "a b c", "d", "e", "f", "g"],
        );
        check("if ! a; then b; else c; fi", &["a", "b", "c", "fi"]);
        check("for x in 1 2; do time a $x; done", &["for x in 1 2", "a $x", "done"]);
        check("f() { a; }\n(cd x && b)", &["f", "a", "}", "cd x", "b"]);
        check("x=$(a b) `c`", &["x=$", "a b", "c"]);
        check("a >log 2>&1 <in; b", &["a log 2", "1 in", "b"]);
    }

    #[test]
    fn what_is_quoted_starts_nothing() {
        check("echo 'a; python x' \"b | c\\\"\" ''", &["echo a; python x b | c\" "]);
        check("cd \"$(dirname \"$0\")\"; x\\ y\\;z", &["cd $(dirname $0)", "x y;z"]);
        check("cat <<EOF; b\npython x\nEOF\nc", &["cat", "b", "c"]);
        check("cat <<-'A' <<B\npython x\n\tA\ny\nB\nc", &["cat", "c"]);
        check("cat <<< python\nc", &["cat python", "c"]);
        check("cat <<EOF\npython x", &["cat"]);
        for text in ["'a", "\"a", "a\\", "\"a\\"] {
            check(text, &["a"]);
        }
        check("\\", &[]);
    }
}
