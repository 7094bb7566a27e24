//! Taking over a folder of models: an inventory of what lies there, and a plan of what it is to become.
//!
//! Nothing there is changed and no store is needed: what a person corrects in the plan, `import` does.

mod candidate;
mod draft;
mod estimate;
mod families;
mod faults;
mod kinds;
mod names;
mod order;
mod plan;
mod report;
mod scan;
mod units;
mod walk;

use std::collections::HashSet;
use std::path::Path;

use crate::ops::{Context, OpsError, Progress};

pub use plan::{PLAN_BYTES_MAX, Plan, PlanFile, PlanModel, PlanVersion};
pub use report::{FoundModel, FoundVersion, InventoryReport, Nearest, UnreadablePlace};

use candidate::{Candidate, CandidateFile};
use draft::Draft;
use families::families;
use scan::{reading_of, scan};
use units::units;
use walk::Found;

/// Looks through everything below `root`, an absolute path: what is there, and a plan to take it over.
///
/// # Errors
/// Where `root` cannot be listed, or holds more than can be kept in mind. What cannot be read below it is
/// part of the report.
pub fn inventory(
    root: &Path,
    context: &Context,
    progress: &dyn Progress,
) -> Result<(InventoryReport, Plan), OpsError> {
    let found = Found::walk(root, progress)?;
    let kinds = kinds::kinds(&found);
    let units = units(&found, &kinds, &HashSet::new());
    let mut scanned = scan(&found, &kinds, &units, progress);
    let mut candidates = Vec::new();
    for unit in &units {
        let files = unit.files.iter().map(|file| CandidateFile {
            reading: reading_of(&found, &kinds, unit, *file),
            scanned: scanned.remove(file).expect("every file of a unit was read"),
        });
        candidates.push(Candidate::new(found.path(unit.folder), unit.shape, files.collect()));
    }
    let families = families(&mut candidates, root);
    let draft = Draft { found: &found, candidates: &candidates, families: &families };
    let plan = draft.plan();
    let estimates = draft.estimate(&plan, context, progress)?;
    let report = draft.report(&plan, &estimates);
    Ok((report, plan))
}
