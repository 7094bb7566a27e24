//! Documents as plain text.

use super::document::{Block, Cell, Document, bar};
use super::table::{Table, printable};

/// The document as lines for a terminal or a file.
pub fn text(document: &Document) -> String {
    let mut text = printable(&document.title) + "\n";
    let mut after_grid = false;
    for block in &document.blocks {
        if after_grid && matches!(block, Block::Grid(_)) {
            text.push('\n');
        }
        after_grid = matches!(block, Block::Grid(_));
        match block {
            Block::Heading(heading) => text += &format!("\n{}\n", printable(heading)),
            Block::Note(note) => text += &format!("{}\n", printable(note)),
            Block::Plots(_) => {}
            Block::Grid(grid) => {
                let mut table = Table::new(&grid.columns);
                grid.rows.iter().for_each(|row| table.row(row.iter().map(shown)));
                text += &table.render();
            }
        }
    }
    text
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        Cell::Bar(share) => bar(*share),
    }
}
