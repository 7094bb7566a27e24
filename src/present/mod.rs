//! Present: reports as text, markdown, HTML and plots. Values in, text out.
//!
//! The same report is shown by several doors: the mount has it as a file, the command line prints it. A
//! report becomes a [`Document`] first, headings and tables, which then is written in any of the forms.
//! Nothing here reads anything, and no name that comes from others is put into a page as it is.

mod diff;
mod document;
mod figures;
mod markdown;
pub mod table;
mod text;

pub use diff::{ROWS_SHOWN, diff};
pub use document::{Block, Cell, Document, Grid};
pub use markdown::markdown;
pub use text::text;
