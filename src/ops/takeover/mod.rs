//! Taking over a folder of models: an inventory of what lies there, and a plan of what it is to become.
//!
//! Nothing there is changed and no store is needed: what a person corrects in the plan, `import` does.

mod candidate;
mod draft;
mod estimate;
mod families;
mod faults;
mod kept;
mod kinds;
mod names;
mod order;
mod plan;
mod report;
mod scan;
mod units;
mod walk;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::ops::{Context, OpsError, Progress};

pub use plan::{PLAN_BYTES_MAX, Plan, PlanFile, PlanModel, PlanVersion};
pub use report::{FoundModel, FoundVersion, InventoryReport, Nearest, UnreadablePlace};

use candidate::{Candidate, CandidateFile};
use draft::Draft;
use families::families;
use kept::Past;
use scan::{reading_of, scan, scan_unit};
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
    let mut found = Found::walk(root, progress)?;
    let stores = kept::Stores::of(&found);
    kept::fill_in(&mut found, &stores)?;
    let past = kept::past(&mut found, &stores);
    let kinds = kinds::kinds(&found);
    let units = units(&found, &kinds);
    let mut scanned = scan(&found, &kinds, &units, progress);
    let mut candidates = Vec::new();
    for unit in &units {
        let files = unit.files.iter().map(|file| CandidateFile {
            reading: reading_of(&found, &kinds, unit, *file),
            scanned: scanned.remove(file).expect("every file of a unit was read"),
        });
        let mut candidate = Candidate::new(found.path(unit.folder), unit.shape, files.collect());
        candidate.look(root);
        candidates.push(candidate);
    }
    kept::note_runs(&found, &mut candidates);
    add_past(&mut candidates, past, progress);
    let families = families(&mut candidates, root);
    let draft = Draft { found: &found, candidates: &candidates, families: &families };
    let plan = draft.plan();
    let estimates = draft.estimate(&plan, context, progress)?;
    let report = draft.report(&plan, &estimates);
    Ok((report, plan))
}

/// Adds the states that tools kept. Of one that lies there, its place in the past is noted; what of one lies
/// there in pieces is no model of its own.
fn add_past(candidates: &mut Vec<Candidate>, past: Vec<Past>, progress: &dyn Progress) {
    let mut by_path = BTreeMap::<PathBuf, usize>::new();
    by_path.extend(candidates.iter().enumerate().map(|(place, it)| (it.path.clone(), place)));
    let mut pieces = HashSet::new();
    for past in past {
        let scanned = scan_unit(&past.files, progress);
        let state = Candidate::of_past(past, scanned);
        let mut around = state.path.ancestors().filter_map(|above| by_path.get(above)).copied();
        let Some(same) = around.find(|place| state.is_part_of(&candidates[*place])) else {
            let below = by_path.range(state.path.clone()..);
            let below = below.take_while(|(path, _)| path.starts_with(&state.path));
            pieces.extend(
                below.map(|(_, place)| *place).filter(|it| candidates[*it].is_part_of(&state)),
            );
            candidates.push(state);
            continue;
        };
        if candidates[same].noted.time.is_none() {
            candidates[same].noted = state.noted;
        }
    }
    let mut place = 0_usize..;
    candidates.retain(|_| !pieces.contains(&place.next().expect("numbers do not end")));
}
