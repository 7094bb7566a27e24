//! `.diff/v6..v7` of a model: what changed, as text; `v6..v7.json` the same for programs.

use std::ffi::OsStr;

use jiff::Timestamp;

use super::inode::Identity;
use super::made::{MadePlace, Side};
use super::nodes::Node;
use super::texts::json_line;
use super::{Child, Filesystem, FsError};
use crate::format::names::ModelName;
use crate::ops::{Context, DiffOptions, Progress, Workspace};
use crate::present;

/// The directory's name.
pub(super) const DIFF: &str = ".diff";

/// Between the two versions in a name.
const BETWEEN: &str = "..";
/// At the end of a name for programs.
const JSON_ENDING: &str = ".json";

/// How a diff is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    Text,
    Json,
}

/// A file of `.diff`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DiffPlace {
    pub model: ModelName,
    before: Side,
    after: Side,
    form: Form,
}

impl DiffPlace {
    pub fn identity(&self) -> Identity {
        let form: &[u8] = match self.form {
            Form::Text => b"text",
            Form::Json => b"json",
        };
        let (before, after) = (&self.before.manifest, &self.after.manifest);
        let model = self.model.as_str().as_bytes();
        Identity::of("diff", &[model, before.as_bytes(), after.as_bytes(), form])
    }

    /// When the later version was sealed.
    pub fn sealed(&self) -> Timestamp {
        self.before.sealed.max(self.after.sealed)
    }

    pub fn command(&self) -> String {
        let Self { model, before, after, form } = self;
        let option = match form {
            Form::Text => "",
            Form::Json => " --json",
        };
        format!("modelfs diff {} {}{option}", before.reference(model), after.reference(model))
    }

    /// The text, or nothing where it is too long. Tensors may have to be read for it.
    pub fn make(
        &self,
        workspace: &Workspace,
        context: &Context,
        progress: &dyn Progress,
    ) -> Result<Option<Vec<u8>>, FsError> {
        let (before, after) =
            (self.before.reference(&self.model), self.after.reference(&self.model));
        let report = workspace.diff(context, &DiffOptions { before, after }, progress)?;
        Ok(match self.form {
            Form::Text => {
                Some(present::text(&present::diff(&report, present::ROWS_SHOWN)).into_bytes())
            }
            Form::Json => json_line(&*report),
        })
    }
}

/// All ways to read `before..after`: an alias may have dots, too.
fn readings(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let places =
        (0..text.len()).filter(|at| text.as_bytes()[*at..].starts_with(BETWEEN.as_bytes()));
    places.map(|at| (&text[..at], &text[at + BETWEEN.len()..]))
}

impl Filesystem {
    /// `/churn/.diff/<name>`: two versions that are there, by number or alias.
    pub(super) fn diff_child(
        &self,
        model: &ModelName,
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        let Some(name) = name.to_str() else { return Ok(None) };
        let json = name.strip_suffix(JSON_ENDING).map(|rest| (rest, Form::Json));
        // An alias may end in `.json`: the longer name is tried first.
        for (text, form) in std::iter::once((name, Form::Text)).chain(json) {
            for (before, after) in readings(text) {
                let (before, after) = (self.side(model, before)?, self.side(model, after)?);
                if let (Some(before), Some(after)) = (before, after) {
                    let place = DiffPlace { model: model.clone(), before, after, form };
                    return Ok(Some(Child::moving(Node::Made(MadePlace::Diff(place).into()))));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_every_way_that_it_can_be() {
        let check = |text: &str, expected: &[(&str, &str)]| {
            assert_eq!(readings(text).collect::<Vec<_>>(), expected, "{text}");
        };
        check("v6..v7", &[("v6", "v7")]);
        check("v6...x", &[("v6", ".x"), ("v6.", "x")]);
        check("a..b..c", &[("a", "b..c"), ("a..b", "c")]);
        check("é..ü", &[("é", "ü")]);
        check("v6.v7", &[]);
        check("", &[]);
    }
}
