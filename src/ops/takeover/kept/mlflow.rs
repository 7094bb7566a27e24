//! The directory of a local MLflow, usually `mlruns`: experiments, runs, logged models, and versions that
//! were registered.
//!
//! Everything is told by the `meta.yaml` of its directory, wherever the whole lies now.
//! Source: `mlflow/store/tracking/file_store.py` and `mlflow/store/model_registry/file_store.py`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Keeper, read_short};
use crate::capture::document;
use crate::format::manifest::Mtime;
use crate::ops::takeover::candidate::{Candidate, Noted};
use crate::ops::takeover::names::{is_generic, without_end};
use crate::ops::takeover::walk::{FolderIndex, Found};

/// What says what a directory is.
const META: &str = "meta.yaml";
/// Longest such file, and longest value of a parameter or tag, in bytes.
const META_BYTES_MAX: u64 = 256 << 10;
/// Values of one kind that are read of a run.
const VALUE_COUNT_MAX: usize = 1_000;
/// The experiment of those who made none.
const DEFAULT_EXPERIMENT: &str = "Default";
/// What MLflow calls the stage of a version that is in none.
const NO_STAGE: &str = "None";

/// Labels by the tags of MLflow that they repeat.
const TAGS: [(&str, &str); 5] = [
    ("mlflow_run_name", "mlflow.runName"),
    ("mlflow_user", "mlflow.user"),
    ("mlflow_source", "mlflow.source.name"),
    ("git_commit", "mlflow.source.git.commit"),
    ("git_branch", "mlflow.source.git.branch"),
];
/// The tag with what people wrote about a run.
const NOTE: &str = "mlflow.note.content";

/// All that lies in directories of MLflow.
#[derive(Default)]
struct Store {
    /// Names of experiments, by their directories.
    experiments: HashMap<PathBuf, String>,
    /// Runs and logged models, by their directories.
    runs: HashMap<PathBuf, Run>,
    /// The directory of each by its identifier.
    places: HashMap<String, PathBuf>,
    registered: Vec<Registered>,
}

/// A run, or a model that a run logged.
#[derive(Default)]
struct Run {
    id: String,
    name: String,
    time: Option<Mtime>,
    /// The run that logged a model.
    made_by: Option<String>,
}

/// A version in the registry.
struct Registered {
    model: String,
    version: u64,
    description: String,
    alias: Option<String>,
    /// The run or logged model with its files, and where below its artifacts they are.
    id: String,
    below: PathBuf,
}

/// Notes what MLflow knows of the models that it keeps.
pub(in crate::ops::takeover) fn note_runs(found: &Found, candidates: &mut [Candidate]) {
    let store = Store::read(found);
    if store.runs.is_empty() {
        return;
    }
    for candidate in candidates {
        if let Some(noted) = store.noted(found, &candidate.path) {
            candidate.noted = noted;
        }
    }
}

impl Store {
    fn read(found: &Found) -> Self {
        let mut store = Self::default();
        for index in 0..found.folders.len() {
            let folder = FolderIndex(u32::try_from(index).expect("the walk has a limit"));
            if found.file_called(folder, META.as_ref()).is_some() {
                let place = found.path(folder);
                if let Some(meta) = meta(&found.root.join(&place)) {
                    store.take(&found.root, place, &meta);
                }
            }
        }
        store
    }

    /// Takes what a directory is for what its `meta.yaml` says.
    fn take(&mut self, root: &Path, place: PathBuf, meta: &Value) {
        let text = |key: &str| text_of(&meta[key]);
        let own = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let id = ["model_id", "run_id", "run_uuid"]
            .into_iter()
            .find_map(|key| text(key).filter(|id| *id == own));
        if let Some(id) = id {
            let time = meta["start_time"].as_i64().or(meta["creation_timestamp"].as_i64());
            let name = text("run_name").or_else(|| text("name")).unwrap_or_default();
            let made_by = text("source_run_id");
            self.places.insert(id.clone(), place.clone());
            self.runs.insert(place, Run { id, name, time: time.map(time_of), made_by });
        } else if let Some(version) = own.strip_prefix("version-").and_then(|it| it.parse().ok()) {
            self.registered.extend(registered(&root.join(&place), version, meta));
        } else if let (Some(_), Some(name)) = (text("experiment_id"), text("name")) {
            self.experiments.insert(place, name);
        }
    }

    /// What is known of a model at a path.
    fn noted(&self, found: &Found, path: &Path) -> Option<Noted> {
        let (place, run) = path.ancestors().find_map(|above| self.runs.get_key_value(above))?;
        let below = path.strip_prefix(place.join("artifacts")).ok()?;
        let mut noted = Noted { keeper: Some(Keeper::Mlflow), time: run.time, ..Noted::default() };
        let maker = run.made_by.as_ref().and_then(|id| self.places.get_key_value(id));
        let run_place = maker.map_or(place, |(_, place)| place);
        // What is noted of the run is newer than what is noted of a model that it logged on its way.
        for place in [place, run_place] {
            let whole = found.root.join(place);
            noted.params.extend(values(&whole.join("params"), |text| json!(text)));
            noted.metrics.extend(values(&whole.join("metrics"), latest_value));
        }
        let whole = found.root.join(run_place);
        let tags = values(&whole.join("tags"), |text| json!(text));
        for (label, tag) in TAGS {
            noted.labels.extend(tags.get(tag).map(|value| (label.to_owned(), value.clone())));
        }
        let run_id = maker.map_or(&run.id, |(id, _)| id);
        noted.labels.insert("mlflow_run_id".to_owned(), json!(run_id));
        let experiment = path.ancestors().find_map(|above| self.experiments.get(above));
        if let Some(experiment) = experiment {
            noted.labels.insert("mlflow_experiment".to_owned(), json!(experiment));
        }
        let message = tags.get(NOTE).and_then(Value::as_str).map(str::to_owned);
        let name = self.runs.get(run_place).map_or("", |run| &run.name);
        noted.message = message.unwrap_or_else(|| format!("MLflow run {name}"));
        let logged = (place != run_place).then_some(run.name.as_str());
        noted.family = Some(family(experiment.map(String::as_str), below, logged));
        if let Some(registered) =
            self.registered.iter().find(|it| it.id == run.id && it.below == below)
        {
            noted.family = Some(registered.model.clone());
            noted.order = registered.version;
            noted.alias = registered.alias.as_ref().and_then(|alias| alias.parse().ok());
            noted.labels.insert("mlflow_registered_model".to_owned(), json!(registered.model));
            noted.labels.insert("mlflow_version".to_owned(), json!(registered.version));
            if !registered.description.is_empty() {
                noted.message.clone_from(&registered.description);
            }
        }
        Some(noted)
    }
}

/// What versions are to be called that nobody registered: the experiment, and the artifact where that says
/// something.
fn family(experiment: Option<&str>, below: &Path, logged: Option<&str>) -> String {
    let first = below.iter().next().map(|name| without_end(&name.to_string_lossy()).to_owned());
    let artifact = first.as_deref().or(logged).unwrap_or("model");
    match experiment.filter(|name| *name != DEFAULT_EXPERIMENT) {
        Some(experiment) if is_generic(&artifact.to_lowercase()) => experiment.to_owned(),
        Some(experiment) => format!("{experiment}-{artifact}"),
        None => artifact.to_owned(),
    }
}

/// A version of the registry; its directory is beside those of the model's other versions.
fn registered(place: &Path, version: u64, meta: &Value) -> Option<Registered> {
    let text = |key: &str| text_of(&meta[key]);
    let model = text("name")?;
    let source = text("storage_location").or_else(|| text("source"))?;
    let id = text("model_id").or_else(|| text("run_id"))?;
    let below = source.rsplit_once(&format!("{id}/artifacts")).map_or("", |(_, below)| below);
    let aliases = values(&place.parent()?.join("aliases"), |text| json!(text.trim()));
    let named = aliases.iter().find(|(_, at)| at.as_str() == Some(&version.to_string()));
    let stage = text("current_stage").filter(|stage| stage != NO_STAGE);
    let alias = named.map(|(alias, _)| alias.clone()).or_else(|| stage.map(|it| it.to_lowercase()));
    let description = text("description").unwrap_or_default();
    let below = PathBuf::from(below.trim_start_matches('/'));
    Some(Registered { model, version, description, alias, id, below })
}

fn meta(folder: &Path) -> Option<Value> {
    let text = read(&folder.join(META))?;
    document::yaml(text.as_bytes()).ok().filter(Value::is_object)
}

fn read(path: &Path) -> Option<String> {
    String::from_utf8(read_short(path, META_BYTES_MAX).ok()?).ok()
}

/// A file for each value, called as it is.
fn values(folder: &Path, value: impl Fn(&str) -> Value) -> BTreeMap<String, Value> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        Some((name, value(&read(&entry.path())?)))
    };
    entries.filter_map(read).filter(|(_, value)| !value.is_null()).take(VALUE_COUNT_MAX).collect()
}

/// What MLflow takes for the latest value of a metric: that of the last step, and of the latest time there.
/// Each line is a time, a value, and a step.
fn latest_value(lines: &str) -> Value {
    let point = |line: &str| {
        let mut words = line.split_whitespace();
        let (time, value) =
            (words.next()?.parse::<i64>().ok()?, words.next()?.parse::<f64>().ok()?);
        let step = words.next().map_or(Some(0), |step| step.parse::<i64>().ok())?;
        Some((step, time, value))
    };
    let points = lines.lines().filter_map(point);
    let latest = points.max_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
    latest.map_or(Value::Null, |(_, _, value)| json!(value))
}

/// YAML may take an identifier for a number.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A time in milliseconds.
fn time_of(millis: i64) -> Mtime {
    let nanos = u32::try_from(millis.rem_euclid(1_000)).expect("less than a thousand") * 1_000_000;
    Mtime { seconds: millis.div_euclid(1_000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_nobody_registered_are_called_after_their_experiment() {
        let check = |experiment, below: &str, logged, expected: &str| {
            assert_eq!(family(experiment, Path::new(below), logged), expected);
        };
        check(Some("churn"), "model", None, "churn");
        check(Some("churn"), "scaler.pkl", None, "churn-scaler");
        check(Some("churn"), "", Some("model"), "churn");
        check(Some("Default"), "scaler.pkl", None, "scaler");
        check(None, "", None, "model");
    }

    #[test]
    fn a_metric_is_what_its_last_step_says() {
        assert_eq!(latest_value("20 0.5 0\n20 0.7 1\n20 0.5 0\n"), json!(0.7));
        assert_eq!(latest_value("20 0.5\n21 0.4\nnonsense\n"), json!(0.4));
        assert_eq!(latest_value("20 nan 0\n"), Value::Null);
        assert_eq!(latest_value(""), Value::Null);
    }
}
