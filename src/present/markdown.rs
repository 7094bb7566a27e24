//! Documents as markdown, for a comment on a change or a page of notes.

use super::document::{Block, Cell, Document, bar};
use super::table::{Align, printable};

/// The document as markdown with tables.
pub fn markdown(document: &Document) -> String {
    let mut text = format!("## {}\n", escaped(&document.title));
    for block in &document.blocks {
        if matches!(block, Block::Plots(_)) {
            continue;
        }
        text.push('\n');
        match block {
            Block::Plots(_) => {}
            Block::Heading(heading) => text += &format!("### {}\n", escaped(heading)),
            Block::Note(note) => text += &format!("{}\n", escaped(note)),
            Block::Grid(grid) => {
                let heads = grid.columns.iter().map(|(head, _)| escaped(head));
                text += &line(heads);
                let rule = |(_, align): &(_, Align)| match align {
                    Align::Left => "---".to_owned(),
                    Align::Right => "--:".to_owned(),
                };
                text += &line(grid.columns.iter().map(rule));
                grid.rows.iter().for_each(|row| text += &line(row.iter().map(shown)));
            }
        }
    }
    text
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => escaped(text),
        Cell::Bar(share) => bar(*share),
    }
}

/// What means something in markdown, or begins HTML in it, with a backslash before it.
fn escaped(text: &str) -> String {
    const MARKS: &str = "\\`*_{}[]<>()#!|~&@$";
    let mut shown = String::with_capacity(text.len());
    for character in printable(text).chars() {
        if MARKS.contains(character) {
            shown.push('\\');
        }
        shown.push(character);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::document::Grid;
    use super::*;

    #[test]
    fn a_document_is_headings_and_tables_and_names_mean_nothing() {
        let mut document = Document::new("a_b");
        document.heading("files");
        let mut grid = Grid::new(&[("NAME", Align::Left), ("SIZE", Align::Right)]);
        grid.row(["<script>|\n".into(), Cell::Bar(0.05)]);
        document.grid(grid);
        document.grid(Grid::new(&[("EMPTY", Align::Left)]));
        let expected = "## a\\_b\n\n### files\n\n| NAME | SIZE |\n| --- | --: |\n\
                        | \\<script\\>\\|\\\\n | █ |\n";
        assert_eq!(markdown(&document), expected);
    }
}
