//! `.modelfs/inspect/v7.json` of a model: what the files of a version say of themselves.

use std::ffi::OsStr;

use jiff::Timestamp;

use super::inode::Identity;
use super::listing::Named;
use super::made::{MadePlace, Side};
use super::nodes::Node;
use super::{Child, Filesystem, FsError, Kind};
use crate::format::names::ModelName;
use crate::ops::{Context, InspectOptions, NoProgress, Workspace};

/// The directory's name.
pub(super) const INSPECT: &str = "inspect";

/// At the end of a name.
const JSON_ENDING: &str = ".json";

/// A file of `.modelfs/inspect`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct InspectionPlace {
    pub model: ModelName,
    of: Side,
}

impl InspectionPlace {
    pub fn identity(&self) -> Identity {
        let (model, manifest) = (self.model.as_str().as_bytes(), self.of.manifest.as_bytes());
        Identity::of("inspection", &[model, manifest])
    }

    /// When the version was sealed.
    pub fn sealed(&self) -> Timestamp {
        self.of.sealed
    }

    /// The text: the same JSON as the command line gives.
    pub fn make(&self, workspace: &Workspace, context: &Context) -> Result<String, FsError> {
        let options = InspectOptions { reference: self.of.reference(&self.model), path: None };
        let report = workspace.inspect(context, &options, &NoProgress)?;
        let value = serde_json::to_value(report).expect("a report has text keys only");
        Ok(format!("{value}\n"))
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
        let place = MadePlace::Inspection(InspectionPlace { model: model.clone(), of });
        Ok(Some(Child::moving(Node::Made(place))))
    }

    /// A file for each version.
    pub(super) fn inspection_names(&self, model: &ModelName) -> Result<Vec<Named>, FsError> {
        let state = self.workspace.state();
        let Some(found) = state.model(model) else { return Ok(Vec::new()) };
        let body = found.body()?;
        let names = body.versions.iter().map(|version| {
            let (number, manifest, sealed) = (version.number, version.manifest, version.sealed);
            let of = Side { number, manifest, sealed };
            let place = MadePlace::Inspection(InspectionPlace { model: model.clone(), of });
            (format!("{number}{JSON_ENDING}").into(), Kind::File, place.identity())
        });
        Ok(names.collect())
    }
}
