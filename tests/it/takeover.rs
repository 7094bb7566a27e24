//! Taking over a folder of models: what lies there is found, and all of it arrives, once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use modelfs::ops::{Plan, PlanVersion};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{Bench, MODELFS, Mount, PATIENCE, fixtures};
use crate::python::Python;
use crate::syscalls::User;

/// What makes the models of the graveyard.
const MAKERS: [&str; 7] = [
    "joblib==1.6.0",
    "lightgbm==4.7.0",
    "numpy==2.4.6",
    "onnx==1.23.2",
    "safetensors==0.8.0",
    "scikit-learn==1.9.1",
    "xgboost-cpu==3.2.0",
];

/// How often the import is killed, each time after so many more records and another while.
const KILLS: u64 = 6;
const RECORDS_BETWEEN: u64 = 13;
const WHILES_MS: [u64; 4] = [0, 3, 9, 27];

/// All files below a directory, by their paths below it.
fn files(root: &Path) -> BTreeMap<String, PathBuf> {
    let (mut files, mut pending) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let below = path.strip_prefix(root).expect("below it").display().to_string();
                files.insert(below, path);
            }
        }
    }
    files
}

/// Sizes and times of all files: equal before and after what changes nothing.
fn listing(root: &Path) -> Vec<(String, u64, i64, i64)> {
    let status = |(name, path): (String, PathBuf)| {
        let status = fs::symlink_metadata(path).expect("it is there");
        (name, status.len(), status.mtime(), status.ctime())
    };
    files(root).into_iter().map(status).collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("text")).collect()
}

fn versions_of(model: &Value) -> &[Value] {
    model["versions"].as_array().expect("a list")
}

/// Every family of the truth is one model with these versions in this order.
fn check_families(report: &Value, truth: &Value) {
    let mut found = BTreeMap::new();
    for model in report["models"].as_array().expect("a list") {
        let whole = versions_of(model).iter().filter(|version| version.get("faults").is_none());
        let paths: Vec<&str> = whole.map(|it| it["path"].as_str().expect("text")).collect();
        found.insert(model["name"].as_str().expect("text"), paths);
    }
    for (family, paths) in truth["families"].as_object().expect("an object") {
        let paths = texts(paths);
        let holders: Vec<_> =
            found.values().filter(|them| paths.iter().any(|path| them.contains(path))).collect();
        assert_eq!(holders, [&paths], "the family {family}");
    }
}

/// Copies, what is broken and what runs code are told, and nothing else is.
fn check_notes(report: &Value, truth: &Value) {
    let (mut copies, mut broken, mut unsafe_paths) =
        (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let models = report["models"].as_array().expect("a list").iter();
    for version in models.flat_map(versions_of) {
        let path = version["path"].as_str().expect("text");
        for copy in version.get("copies").map(texts).unwrap_or_default() {
            copies.insert(copy, path);
        }
        if version.get("faults").is_some() {
            broken.insert(path);
        } else if version["runs_code"] == true {
            unsafe_paths.insert(path);
        }
    }
    assert_eq!(broken, texts(&truth["broken"]).into_iter().collect());
    assert_eq!(unsafe_paths, texts(&truth["pickles"]).into_iter().collect());
    let expected = truth["copies"].as_object().expect("an object");
    let named: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
    assert_eq!(copies.keys().copied().collect::<BTreeSet<_>>(), named);
    for (copy, original) in copies {
        // A lone file of a directory is a copy of that directory.
        let source = expected[copy].as_str().expect("text");
        assert!(source.starts_with(original), "{copy} is of {source}, not of {original}");
    }
}

/// Runs the import until so many records are there, and kills it a while later.
fn import_killed(bench: &Bench, plan: &str, records: u64, wait: Duration) {
    let mut child = Command::new(MODELFS)
        .arg("--store")
        .arg(&bench.store)
        .args(["import", "--plan", plan])
        .current_dir(&bench.root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary was built by cargo");
    let begun = Instant::now();
    let count = || fs::read_dir(bench.store.join("history")).map_or(0, |entries| entries.count());
    while (count() as u64) < records && child.try_wait().expect("our child").is_none() {
        assert!(begun.elapsed() < PATIENCE, "the import does not get on");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(wait);
    assert!(child.try_wait().expect("our child").is_none(), "it ended before it was killed");
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
}

fn within_5_percent(what: &str, found: u64, expected: u64) {
    let difference = found.abs_diff(expected);
    assert!(difference * 20 <= expected, "{what}: {found}, expected {expected}");
}

/// SHA-256 of all files of all versions, and how many versions there are.
fn stored(bench: &Bench) -> (BTreeSet<String>, usize) {
    let (mut digests, mut count) = (BTreeSet::new(), 0);
    for model in bench.cli_json(&["list"]).as_array().expect("a list") {
        let model = model["model"].as_str().expect("text");
        for version in bench.cli_json(&["list", model])["versions"].as_array().expect("a list") {
            count += 1;
            let version = version["version"].as_str().expect("text");
            let shown = bench.cli_json(&["show", &format!("{model}/{version}")]);
            let files = shown["metadata"]["artifacts"].as_array().expect("a list").iter();
            digests.extend(files.map(|it| it["sha256"].as_str().expect("text").to_owned()));
        }
    }
    (digests, count)
}

fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).expect("it is there"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_graveyard_is_sorted_and_taken_over_whole_in_spite_of_kills() {
    let bench = Bench::new();
    let yard = bench.root.join("yard");
    let truth = Python::with("graveyard", &MAKERS).run("graveyard.py", &[&yard]);
    assert!(40 <= truth["directories"].as_u64().expect("a number"), "{}", truth["directories"]);
    let before = listing(&yard);

    let report = bench.cli_json(&["inventory", "yard", "--plan", "plan.toml"]);
    assert_eq!(listing(&yard), before, "an inventory changes nothing");
    assert!(!bench.store.exists(), "an inventory needs no store");
    check_families(&report, &truth);
    check_notes(&report, &truth);
    let models = report["models"].as_array().expect("a list");
    let mut versions = models.iter().flat_map(versions_of);
    let v2 = versions.find(|it| it["path"] == "vision/digits_final_FINAL_v2.safetensors");
    let nearest = &v2.expect("it is there")["nearest"];
    assert_eq!(nearest["path"], "vision/digits_final_FINAL.safetensors");
    assert!(95 <= nearest["percent"].as_u64().expect("a number"), "{nearest}");

    let planned = bench.cli_json(&["import", "--plan", "plan.toml", "--dry-run"]);
    let planned = planned["planned"].as_array().expect("a list").len();
    for kill in 1..=KILLS {
        let wait = Duration::from_millis(WHILES_MS[kill as usize % WHILES_MS.len()]);
        import_killed(&bench, "plan.toml", kill * RECORDS_BETWEEN, wait);
        bench.cli(&["verify"]).ok();
    }
    let imported = bench.cli_json(&["import", "--plan", "plan.toml"]);
    let taken = versions_of(&imported);
    assert_eq!(taken.len(), planned);
    assert!(taken.iter().any(|it| it["existing"] == true), "what was there is not taken again");
    let again = bench.cli_json(&["import", "--plan", "plan.toml"]);
    assert!(versions_of(&again).iter().all(|it| it["existing"] == true), "{again}");
    assert_eq!(listing(&yard), before, "an import changes nothing there");

    let (digests, count) = stored(&bench);
    assert_eq!(count, planned, "nothing is there twice");
    let lost = files(&yard).into_iter().filter(|(_, path)| !digests.contains(&sha256(path)));
    let expected = [texts(&truth["broken"]), texts(&truth["others"])].concat();
    assert_eq!(
        lost.map(|(path, _)| path).collect::<BTreeSet<_>>(),
        expected.into_iter().map(str::to_owned).collect(),
        "all that is whole and belongs to a model is there",
    );
    check_sizes(&bench, &report);
    bench.cli(&["verify", "--read-data"]).ok();
    let plan = fs::read_to_string(bench.root.join("plan.toml")).expect("the plan");
    let plan = Plan::parse(&plan).expect("it was written by us");
    let compared = check_mounted(&Mount::on(bench), &plan);
    assert_eq!(compared, planned, "every version is in the mount");
}

/// Every file of every version in the mount is, byte for byte, the one that it was taken from; how many
/// versions there are.
fn check_mounted(mount: &Mount, plan: &Plan) -> usize {
    let mut count = 0;
    for model in &plan.models {
        let name = model.name.as_str();
        if !mount.path(name).exists() {
            assert!(model.versions.iter().all(|it| it.skip.is_some()), "`{name}` is not there");
            continue;
        }
        for version in mount.names(name).iter().filter(|it| it.starts_with('v')) {
            let below = format!("{name}/{version}");
            let metadata =
                serde_json::from_str::<Value>(&mount.text(&format!("{below}/metadata.json")));
            let labels = &metadata.expect("JSON")["labels"];
            let from =
                |it: &&PlanVersion| json!(plan.root.join(&it.path)) == labels["imported_from"];
            let planned = model.versions.iter().find(from).expect("it is of the plan");
            for (file, path) in files(&mount.path(&below)) {
                if file == "metadata.json" {
                    continue;
                }
                let original = plan.root.join(original_of(plan, planned, &file));
                let is_same =
                    fs::read(&path).expect("it is mounted") == fs::read(&original).expect("a file");
                assert!(is_same, "`{below}/{file}` is not `{}`", original.display());
            }
            count += 1;
        }
    }
    count
}

/// Where a file of a version was.
fn original_of(plan: &Plan, version: &PlanVersion, file: &str) -> PathBuf {
    let listed = version.files.iter().find(|it| it.name == Path::new(file));
    match listed {
        Some(listed) => listed.from.clone(),
        None if plan.root.join(&version.path).is_dir() => version.path.join(file),
        None => version.path.clone(),
    }
}

/// What the inventory said would be stored is.
fn check_sizes(bench: &Bench, report: &Value) {
    let stats = bench.cli_json(&["stats"]);
    let number = |key: &str| stats[key].as_u64().expect("a number");
    // What was written before a kill and is used by nothing is not what the models take.
    let kept = number("pack_bytes") - number("unused_bytes");
    let taken = kept + number("manifest_bytes") + number("history_bytes");
    let told = |key: &str| report[key].as_u64().expect("a number");
    within_5_percent("stored", told("stored_bytes"), taken);
    let whole = told("model_bytes") - told("broken_bytes");
    within_5_percent("saved", told("saved_bytes"), whole - taken);
}

/// Three states of one model in a directory `yard`, and the plan for them.
fn small_yard(bench: &Bench) -> PathBuf {
    for (version, day) in [("v1", "2024-01-05"), ("v2", "2024-02-05"), ("v3", "2024-03-05")] {
        let name = format!("yard/churn_{version}.onnx");
        let path = bench.write(
            &name,
            fs::read(fixtures().join(version).join("weights.onnx")).expect("a fixture"),
        );
        let status =
            Command::new("touch").args(["-d", day]).arg(path).status().expect("touch runs");
        assert!(status.success());
    }
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).ok().says("churn: 3 versions");
    bench.root.join("plan.toml")
}

#[test]
fn dates_names_and_places_are_kept_as_labels() {
    let bench = Bench::new();
    small_yard(&bench);
    bench.cli(&["import", "--plan", "plan.toml"]).ok().says("3 versions taken over");
    let shown = bench.cli_json(&["show", "churn/v2"]);
    let labels = &shown["metadata"]["labels"];
    assert_eq!(labels["original_name"], "churn_v2.onnx");
    assert!(labels["original_mtime"].as_str().expect("text").starts_with("2024-02-0"), "{labels}");
    let place = bench.root.join("yard/churn_v2.onnx");
    assert_eq!(labels["imported_from"], json!(place));
    let file = &shown["metadata"]["artifacts"][0];
    assert_eq!((&file["path"], &file["sha256"]), (&json!("churn.onnx"), &json!(sha256(&place))));
}

#[test]
fn a_plan_with_mistakes_does_nothing() {
    let bench = Bench::new();
    let plan = small_yard(&bench);
    let text = fs::read_to_string(&plan).expect("the plan");
    let check = |from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{from}: {text}");
        fs::write(&plan, text.replacen(from, to, 1)).expect("the plan");
        let failed = bench.cli(&["import", "--plan", "plan.toml"]).exits(2);
        failed.says(expected).says("nothing was done");
        assert!(!bench.store.exists());
    };
    check("name = \"churn\"", "name = \"ch/urn\"", "line 11, column 8: ");
    check("[[model.version]]", "[[model.versions]]", "unknown field `versions`");
    check(
        "path = \"churn_v1.onnx\"",
        "path = \"../churn_v1.onnx\"",
        "expected a path below the root",
    );
    check("path = \"churn_v2.onnx\"", "path = \"churn_v1.onnx\"", "is taken twice");
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).exits(2).says("exists already");
}

#[test]
fn files_that_changed_are_named_and_refused_or_left_out() {
    let bench = Bench::new();
    small_yard(&bench);
    bench.write("yard/churn_v2.onnx", "something else");
    let import = |more: &[&str]| {
        let args = ["import", "--plan", "plan.toml"];
        bench.cli(&args.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let refused = import(&[]).exits(5).says("`churn_v2.onnx` has 14 B, the plan says 233 KiB");
    refused.says("1 version changed since the plan was made: nothing was done");
    assert!(!bench.store.exists());
    import(&["--skip-changed"]).ok().says("churn: left out churn_v2.onnx");
    // Same size and time, other bytes: seen when it is read.
    let path = bench.root.join("yard/churn_v3.onnx");
    let mut bytes = fs::read(&path).expect("it is there");
    bytes[100_000] ^= 1;
    let time = fs::metadata(&path).expect("it is there").modified().expect("a time");
    fs::write(&path, &bytes).expect("it is ours");
    fs::File::options()
        .append(true)
        .open(&path)
        .and_then(|it| it.set_modified(time))
        .expect("ours");
    let plan = fs::read_to_string(bench.root.join("plan.toml")).expect("the plan");
    bench.write("plan.toml", plan.replace("name = \"churn\"", "name = \"other\""));
    let failed = import(&["--skip-changed"]).exits(5);
    failed.says("is not what the plan says").says("1 version before it were taken over");
}

#[test]
fn a_daemon_takes_over_with_the_rights_of_who_asks() {
    let mount = Mount::new();
    small_yard(&mount.bench);
    mount.cli(&["import", "--plan", "plan.toml", "--dry-run"]).ok().says("nothing was done");
    mount.cli(&["import", "--plan", "plan.toml"]).ok().says("3 versions taken over");
    let bytes = fs::read(mount.path("churn/v3/churn.onnx")).expect("it is mounted");
    assert_eq!(bytes, fs::read(fixtures().join("v3/weights.onnx")).expect("a fixture"));
    assert!(fs::read_link(mount.path("churn/latest")).expect("a link").ends_with("v3"));
    if !crate::syscalls::is_root() {
        return;
    }
    // What the daemon could read and the user cannot is not taken over for the user.
    let ann = User { uid: 4_001, gid: 4_001, groups: &[4_001] };
    let secret = mount.bench.write("yard/secret.onnx", "nobody's business");
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("ours");
    let plan = format!(
        "root = \"{}\"\n[[model]]\nname = \"stolen\"\n[[model.version]]\npath = \"yard/secret.onnx\"\n",
        mount.bench.root.display()
    );
    let plan = mount.bench.write("stolen.toml", plan);
    fs::set_permissions(&mount.point, std::os::unix::fs::PermissionsExt::from_mode(0o777))
        .expect("ours");
    let refused = mount.bench.cli_as(ann, &["import", "--plan", plan.to_str().expect("text")]);
    refused.exits(3).says("secret.onnx");
    assert!(!mount.path("stolen/v1").exists());
}

#[test]
fn an_inventory_has_a_line_of_csv_for_each_version_and_copy() {
    let bench = Bench::new();
    small_yard(&bench);
    fs::copy(bench.root.join("yard/churn_v1.onnx"), bench.root.join("yard/churn copy.onnx"))
        .expect("room");
    let csv = bench.cli(&["inventory", "yard", "--csv"]).ok().stdout;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 5, "{csv}");
    assert!(lines[0].starts_with("model,order,path,format,files,bytes,owner,modified,copy_of,"));
    assert!(lines[2].starts_with("churn,1,churn copy.onnx,onnx,1,202900,"), "{csv}");
    bench.cli(&["inventory", "nowhere"]).exits(4).says("nowhere");
}
