//! Documents: headings, tables and notes, before anybody decides how they look.

use super::table::Align;

/// What is to be shown, from top to bottom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    pub title: String,
    pub blocks: Vec<Block>,
}

/// A part of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    Heading(String),
    Note(String),
    Grid(Grid),
    /// SVG, beside each other where there is room; text has none of it.
    Plots(Vec<String>),
}

/// A table: columns with their headings, and rows of as many cells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    pub columns: Vec<(String, Align)>,
    pub rows: Vec<Vec<Cell>>,
}

/// What stands in one place of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Text(String),
    /// A share of the longest bar, 0 to 1.
    Bar(f64),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Grid {
    /// A table without rows.
    pub fn new<S: ToString>(columns: &[(S, Align)]) -> Self {
        let columns = columns.iter().map(|(head, align)| (head.to_string(), *align));
        Self { columns: columns.collect(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    fn drop_empty_columns(&mut self) {
        for column in (0..self.columns.len()).rev() {
            if self.rows.iter().all(|row| row[column].is_empty()) {
                self.columns.remove(column);
                self.rows.iter_mut().for_each(|row| drop(row.remove(column)));
            }
        }
    }
}

impl Cell {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Text(text) if text.is_empty())
    }
}

impl Document {
    /// An empty document.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), blocks: Vec::new() }
    }

    pub fn heading(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Heading(text.into()));
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Note(text.into()));
    }

    /// Adds a table without the columns in which nothing stands, unless it has no rows.
    pub fn grid(&mut self, mut grid: Grid) {
        grid.drop_empty_columns();
        if !grid.rows.is_empty() {
            self.blocks.push(Block::Grid(grid));
        }
    }
}

/// Cells of a bar in text.
const BAR_CHARACTERS: usize = 20;

/// A bar of block characters: what is more than nothing is seen.
pub(super) fn bar(share: f64) -> String {
    // Eighths of a character; a share is 0 to 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let eighths = (share.clamp(0.0, 1.0) * 8.0 * BAR_CHARACTERS as f64).round() as usize;
    let eighths = if 0.0 < share { eighths.max(1) } else { 0 };
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_in_which_nothing_stands_is_left_out() {
        let mut grid = Grid::new(&[("A", Align::Left), ("B", Align::Left), ("", Align::Left)]);
        grid.row(["1".into(), "".into(), Cell::Bar(0.0)]);
        grid.row(["".into(), "".into(), Cell::Bar(0.5)]);
        let mut document = Document::new("");
        document.grid(grid);
        let [Block::Grid(grid)] = &document.blocks[..] else { panic!("{document:?}") };
        let heads: Vec<_> = grid.columns.iter().map(|(head, _)| head.as_str()).collect();
        assert_eq!(heads, ["A", ""]);
        assert_eq!(grid.rows[0], ["1".into(), Cell::Bar(0.0)]);
    }

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(1e-9), "▏");
        assert_eq!(bar(0.5), "█".repeat(10));
        assert_eq!(bar(0.52), "█".repeat(10) + "▍");
        assert_eq!(bar(7.0), "█".repeat(20));
        assert_eq!(bar(f64::NAN), "");
    }
}
