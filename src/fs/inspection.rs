//! `.modelfs/inspect/v7.json` of a model: what the files of a version say of themselves.

use std::ffi::OsStr;

use jiff::Timestamp;

use super::inode::Identity;
use super::listing::Named;
use super::made::{MadePlace, Side};
use super::nodes::Node;
use super::texts::json_line;
use super::{Child, Filesystem, FsError, Kind};
use crate::format::names::ModelName;
use crate::ops::{Context, InspectOptions, Progress, Workspace};

/// The directory's name.
pub(super) const INSPECT: &str = "inspect";

/// At the end of a name.
const JSON_ENDING: &str = ".json";

/// Bytes of JSON about the files of a version: past this, they are only named, and then counted. The command
/// line gives much more.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A file of `.modelfs/inspect`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct InspectionPlace {
    pub model: ModelName,
    of: Side,
}

impl InspectionPlace {
    pub fn new(model: ModelName, of: Side) -> Self {
        Self { model, of }
    }

    pub fn identity(&self) -> Identity {
        let (model, manifest) = (self.model.as_str().as_bytes(), self.of.manifest.as_bytes());
        Identity::of("inspection", &[model, manifest])
    }

    /// When the version was sealed.
    pub fn sealed(&self) -> Timestamp {
        self.of.sealed
    }

    pub fn command(&self) -> String {
        format!("modelfs inspect {} --json", self.of.reference(&self.model))
    }

    /// The text: JSON as the command line gives, but no more than fits into a file that everybody may open.
    pub fn make(
        &self,
        workspace: &Workspace,
        context: &Context,
        progress: &dyn Progress,
    ) -> Result<Option<Vec<u8>>, FsError> {
        let options = InspectOptions { reference: self.of.reference(&self.model), path: None };
        let report = workspace.inspect(context, &options, ANSWER_BYTES_MAX, progress)?;
        Ok(json_line(&report))
    }
}

/// The directory, where `name` is that of it.
pub(super) fn directory(model: &ModelName, name: &OsStr) -> Option<Child> {
    (name == INSPECT).then(|| Child::fixed(Node::Inspections(model.clone())))
}

impl Filesystem {
    /// `v7.json`: a version that is there, by number or alias.
    pub(super) fn inspection_child(
        &self,
        model: &ModelName,
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        let version = name.to_str().and_then(|name| name.strip_suffix(JSON_ENDING));
        let Some(version) = version else { return Ok(None) };
        let Some(of) = self.side(model, version)? else { return Ok(None) };
        let place = MadePlace::Inspection(InspectionPlace::new(model.clone(), of));
        Ok(Some(Child::moving(Node::Made(place.into()))))
    }

    /// A file for each version.
    pub(super) fn inspection_names(&self, model: &ModelName) -> Result<Vec<Named>, FsError> {
        let state = self.workspace.state();
        let Some(found) = state.model(model) else { return Ok(Vec::new()) };
        let body = found.body()?;
        let names = body.versions.iter().map(|version| {
            let (number, manifest, sealed) = (version.number, version.manifest, version.sealed);
            let of = Side { number, manifest, sealed };
            let place = MadePlace::Inspection(InspectionPlace::new(model.clone(), of));
            (format!("{number}{JSON_ENDING}").into(), Kind::File, place.identity())
        });
        Ok(names.collect())
    }
}
