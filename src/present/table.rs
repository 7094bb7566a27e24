//! Plain text for people: aligned columns, sizes, times, and names that cannot play with a terminal.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A column's side that is straight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    Left,
    Right,
}

/// Rows below a line of headings.
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<S: AsRef<str>>(columns: &[(S, Align)]) -> Self {
        let head = |(head, align): &(S, Align)| (printable(head.as_ref()), *align);
        Self { columns: columns.iter().map(head).collect(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().map(|cell| printable(&cell)).collect();
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// The table as text. The last column is as wide as it is, so nothing ends in blanks.
    pub fn render(&self) -> String {
        let heads: Vec<String> = self.columns.iter().map(|(head, _)| head.clone()).collect();
        let mut widths: Vec<usize> = heads.iter().map(|head| head.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let blanks = " ".repeat(width - cell.chars().count());
                match align {
                    Align::Left => line += &format!("{cell}{blanks}  "),
                    Align::Right => line += &format!("{blanks}{cell}  "),
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Lines of a name and what it is, the second straight.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| {
        let line = format!("{name:width$}  {}", printable(value));
        format!("{}\n", line.trim_end())
    };
    pairs.iter().map(line).collect()
}

/// The text with control characters written as escapes: what comes from others never reaches a
/// terminal as a command.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_plain(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_default());
        }
    }
    shown
}

/// Not a control character, nor one that ends a line or changes the direction of what follows.
fn is_plain(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A size with three digits and its unit: `1.25 GiB`, `999 B`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1 << 10 {
        return format!("{count} B");
    }
    // A display of three digits: what a float cannot hold of a u64 is not among them.
    #[allow(clippy::cast_precision_loss)]
    let mut value = count as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().expect("there are six");
    while 999.5 <= value {
        let Some(next) = units.next() else { break };
        unit = next;
        value /= 1024.0;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {unit}")
}

/// A moment to the second, in UTC: `2026-01-02 03:04:05Z`.
pub fn time(moment: Timestamp) -> String {
    moment.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `1 file`, `2 files`.
pub fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_straight_and_lines_end_where_their_text_does() {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("X", Align::Left)]);
        table.row(["é".into(), "1 B".into(), String::new()]);
        table.row(["longer".into(), "12.5 MiB".into(), "a\nb\u{1b}".into()]);
        let expected = "NAME        SIZE  X\né            1 B\nlonger  12.5 MiB  a\\nb\\u{1b}\n";
        assert_eq!(table.render(), expected);
        assert_eq!(pairs(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2\n");
    }

    #[test]
    fn what_others_wrote_cannot_steer_a_terminal() {
        for steering in
            "\n\r\t\u{1b}\u{7f}\u{9b}\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202e}\u{2066}"
                .chars()
        {
            let shown = printable(&format!("a{steering}b"));
            assert_eq!(shown, format!("a{}b", steering.escape_default()));
        }
        let plain = "ä 模型 ‘x’ 🙂 \u{200d}";
        assert_eq!(printable(plain), plain);
    }

    #[test]
    fn a_size_has_three_digits() {
        for (count, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_239, "10.0 KiB"),
            (1 << 20, "1.00 MiB"),
            (1_048_064, "1.00 MiB"),
            (123 << 20, "123 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), expected, "{count}");
        }
    }

    #[test]
    fn a_time_is_utc_to_the_second() {
        assert_eq!(time("2026-01-02T03:04:05.9Z".parse().unwrap()), "2026-01-02 03:04:05Z");
    }
}
