//! Present: reports as text, markdown, HTML and plots. Values in, text out.
//!
//! The same report is shown by several doors: the mount has it as a file, the command line prints it. A
//! report becomes a [`Document`] first, headings and tables, which then is written in any of the forms.
//! Nothing here reads anything, and no name that comes from others is put into a page as it is.

mod diff;
mod document;
mod figures;
mod html;
mod inventory;
mod log;
mod markdown;
mod plot;
pub mod table;
mod text;

pub use diff::{ROWS_SHOWN, diff, diff_page};
pub use document::{Block, Cell, Document, Grid};
pub use html::html;
pub use inventory::{inventory, inventory_csv, plan_text};
pub use log::{history_alone, log};
pub use markdown::markdown;
pub use text::text;
