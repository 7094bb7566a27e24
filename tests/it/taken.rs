//! Taking over what is odd: labels that lie, damage, files that changed places, names that are ours.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Bench, MODELFS, Mount, fixtures};

/// Writes a fixture's model to a path below the bench.
fn put(bench: &Bench, path: &str, version: &str) {
    let bytes = fs::read(fixtures().join(version).join("weights.onnx")).expect("a fixture");
    bench.write(path, bytes);
}

fn import(bench: &Bench) -> Value {
    bench.cli_json(&["import", "--plan", "plan.toml"])
}

/// Changes the text of the plan.
fn edit(bench: &Bench, from: &str, to: &str) {
    let plan = fs::read_to_string(bench.root.join("plan.toml")).expect("the plan");
    assert!(plan.contains(from), "{from}: {plan}");
    bench.write("plan.toml", plan.replacen(from, to, 1));
}

fn sha256_of(bench: &Bench, reference: &str) -> Value {
    bench.cli_json(&["show", reference])["metadata"]["artifacts"][0]["sha256"].clone()
}

#[test]
fn labels_that_say_taken_over_are_not_believed() {
    let bench = Bench::new();
    put(&bench, "yard/churn.onnx", "v1");
    put(&bench, "other.onnx", "v2");
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).ok();
    let plan = fs::read_to_string(bench.root.join("plan.toml")).expect("the plan");
    let content = plan.lines().find_map(|line| line.strip_prefix("content = ")).expect("a digest");
    let content = format!("imported_content={}", content.trim_matches('"'));
    let from = format!("imported_from={}", bench.root.join("yard/churn.onnx").display());
    bench.cli(&["snapshot", "churn", "other.onnx", "--label", &content, "--label", &from]).ok();
    let taken = import(&bench);
    assert_eq!(taken["versions"][0]["version"], "v2", "{taken}");
    assert_ne!(sha256_of(&bench, "churn/v2"), sha256_of(&bench, "churn/v1"));
    let again = import(&bench);
    assert_eq!(again["versions"][0]["version"], "v2", "{again}");
    assert_eq!(again["versions"][0]["existing"], true, "{again}");
}

#[test]
fn what_was_taken_over_before_is_read_back_and_damage_is_told() {
    let bench = Bench::new();
    put(&bench, "yard/churn.onnx", "v1");
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).ok();
    import(&bench);
    let again = import(&bench);
    assert_eq!(again["versions"][0]["verified_files"], 2, "{again}");
    for shard in fs::read_dir(bench.store.join("packs")).expect("packs") {
        let shard = shard.expect("an entry").path();
        let packs = fs::read_dir(shard).expect("a directory");
        packs.for_each(|pack| damage(&pack.expect("an entry").path()));
    }
    bench.cli(&["import", "--plan", "plan.toml"]).exits(6).says("churn.onnx");
}

/// Changes bytes in the middle of a file.
fn damage(path: &Path) {
    let file = fs::File::options().read(true).write(true).open(path).expect("a pack");
    let middle = file.metadata().expect("a file").len() / 2;
    let mut bytes = [0; 64];
    file.read_exact_at(&mut bytes, middle).expect("it is longer");
    file.write_all_at(&bytes.map(|byte| !byte), middle).expect("it is ours");
}

#[test]
fn an_alias_that_the_plan_got_later_is_made_and_one_that_moved_stays() {
    let bench = Bench::new();
    put(&bench, "yard/churn_v1.onnx", "v1");
    put(&bench, "yard/churn_v2.onnx", "v2");
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).ok();
    import(&bench);
    edit(&bench, "path = \"churn_v1.onnx\"", "path = \"churn_v1.onnx\"\nalias = \"prod\"");
    import(&bench);
    assert_eq!(bench.cli_json(&["show", "churn/prod"])["metadata"]["version"], "v1");
    bench.cli(&["promote", "churn/v2", "prod"]).ok();
    let run = bench.cli(&["import", "--plan", "plan.toml"]).ok();
    run.says("`prod` was moved to v2 since, and stays there");
    assert_eq!(bench.cli_json(&["show", "churn/prod"])["metadata"]["version"], "v2");
}

#[test]
fn files_that_changed_places_are_not_what_the_plan_says() {
    let bench = Bench::new();
    let [a, b] = [1, 2].map(|number| format!("yard/m/model-0000{number}-of-00002.onnx"));
    put(&bench, &a, "v1");
    let mut bytes = fs::read(bench.root.join(&a)).expect("it is there");
    bytes[100_000] ^= 1;
    bench.write(&b, bytes);
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).ok();
    let [a, b] = [a, b].map(|path| bench.root.join(path));
    let between = bench.root.join("between");
    for (from, to) in [(&a, &between), (&b, &a), (&between, &b)] {
        fs::rename(from, to).expect("they are ours");
    }
    bench.cli(&["import", "--plan", "plan.toml"]).exits(5).says("is not what the plan says");
}

#[test]
fn a_directory_with_a_metadata_json_of_any_kind_is_taken_over_whole() {
    let bench = Bench::new();
    for (name, text) in [("object", r#"{"a": 1}"#), ("list", "[1, 2]"), ("text", "not JSON")] {
        put(&bench, &format!("yard/{name}/model.onnx"), "v1");
        bench.write(&format!("yard/{name}/metadata.json"), text);
        bench.write(&format!("yard/{name}/seed.txt"), name);
    }
    put(&bench, "yard/folder/model.onnx", "v2");
    bench.write("yard/folder/metadata.json/part.json", "{}");
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).ok();
    let taken = import(&bench);
    let count = taken["versions"].as_array().expect("a list").len();
    assert_eq!(count, 4, "{taken}");
    let mut kept = Vec::new();
    for version in taken["versions"].as_array().expect("a list") {
        let text = |key: &str| version[key].as_str().expect("text").to_owned();
        let reference = format!("{}/{}", text("model"), text("version"));
        let directory = reference.replace('/', "-");
        bench.cli(&["export", &reference, &directory]).ok();
        let places = ["original_metadata.json", "original_metadata.json/part.json"];
        let texts = places.iter().map(|it| bench.root.join(&directory).join(it));
        kept.extend(texts.filter_map(|path| fs::read_to_string(path).ok()));
    }
    kept.sort();
    assert_eq!(kept, ["[1, 2]", "not JSON", r#"{"a": 1}"#, "{}"]);
}

/// Names of the models that a plan would make, and what it leaves out with the reason.
fn planned(bench: &Bench) -> (Vec<String>, Vec<(String, String)>) {
    let report = bench.cli_json(&["import", "--plan", "plan.toml", "--dry-run"]);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let list = |key: &str| report[key].as_array().expect("a list").clone();
    let planned = list("planned").iter().map(|it| text(&it["path"])).collect();
    let skipped = list("skipped").iter().map(|it| (text(&it["path"]), text(&it["why"]))).collect();
    (planned, skipped)
}

fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
    assert!(made.success());
}

#[test]
fn what_no_version_can_hold_is_left_out_and_what_is_behind_it_gets_in() {
    let bench = Bench::new();
    for name in ["a_pipe", "b_link", "c_whole"] {
        put(&bench, &format!("yard/{name}/{name}.onnx"), "v1");
        bench.write(&format!("yard/{name}/seed.txt"), name);
    }
    make_fifo(&bench.root.join("yard/a_pipe/pipe"));
    let link = bench.root.join("yard/b_link/vocabulary.txt");
    std::os::unix::fs::symlink("/etc/passwd", link).expect("ours");
    let report = bench.cli_json(&["inventory", "yard", "--plan", "plan.toml"]);
    assert!(report["broken_bytes"].as_u64().expect("a number") > 400_000, "{report}");
    let (taken, skipped) = planned(&bench);
    assert_eq!(taken, ["c_whole"]);
    let [(a, fifo), (b, link)] = &skipped[..] else { panic!("{skipped:?}") };
    assert_eq!([a, b], ["a_pipe", "b_link"]);
    assert!(fifo.contains("`pipe`: it is a fifo"), "{fifo}");
    assert!(link.contains("`vocabulary.txt`: "), "{link}");
    let taken = import(&bench);
    let model = taken["versions"][0]["model"].as_str().expect("text");
    // What came after the inventory is seen before anything is done.
    bench.write("yard/c_whole/seed.txt", "c_other");
    edit(&bench, &format!("name = \"{model}\""), "name = \"other\"");
    make_fifo(&bench.root.join("yard/c_whole/late"));
    let refused = bench.cli(&["import", "--plan", "plan.toml", "--dry-run"]).exits(1);
    refused.says("c_whole/late`: it is a fifo").says("nothing was done");
    bench.cli(&["import", "--plan", "plan.toml", "--skip-changed"]).ok().says("left out c_whole");
}

#[test]
fn a_plan_that_says_too_much_or_twice_the_same_does_nothing() {
    let bench = Bench::new();
    put(&bench, "yard/churn.onnx", "v1");
    let check = |rest: &str, expected: &str| {
        let root = bench.root.join("yard");
        let head = format!("root = {root:?}\n[[model]]\nname = \"m\"\n[[model.version]]\n");
        bench.write("plan.toml", format!("{head}path = \"churn.onnx\"\n{rest}\n"));
        bench
            .cli(&["import", "--plan", "plan.toml"])
            .exits(2)
            .says(expected)
            .says("nothing was done");
        assert!(!bench.store.exists(), "{expected}");
    };
    let long = |bytes: usize| "x".repeat(bytes);
    check(&format!("message = \"{}\"", long(65_537)), "line 5, column 8: the message");
    let label = format!("labels = {{ a = \"{}\" }}", long(1 << 20));
    check(&label, "line 5, column 8: the metadata of the version");
    let file = |name: &str| format!("{{ from = \"churn.onnx\", as = \"{name}\" }}");
    let both = format!("files = [{}, {}]", file("a"), file("a/b"));
    check(&both, "it is a file and a directory");
    check(&format!("files = [{}]", file("")), "a plain path below it");
    check(&format!("files = [{}]", file("metadata.json/a")), "give it another name");
}

#[test]
fn a_directory_that_is_itself_a_model_is_taken_over() {
    let bench = Bench::new();
    put(&bench, "yard/model.onnx", "v1");
    bench.write("yard/config.json", "{}");
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).ok();
    let taken = import(&bench);
    assert_eq!(taken["versions"][0]["files"], 2, "{taken}");
    let again = import(&bench);
    assert_eq!(again["versions"][0]["existing"], true, "{again}");
    let model = taken["versions"][0]["model"].as_str().expect("text");
    let shown = bench.cli_json(&["show", &format!("{model}/v1")]);
    let root = bench.root.join("yard").display().to_string();
    let labels = &shown["metadata"]["labels"];
    assert_eq!(
        (&labels["imported_from"], &labels["original_name"]),
        (&root.into(), &"yard".into())
    );
}

#[test]
fn more_files_than_a_daemon_takes_are_told_before_anything_is_done() {
    let mount = Mount::new();
    mount.bench.write("yard/a.bin", "a");
    put(&mount.bench, "yard/b.onnx", "v1");
    let file = |number: u32| format!("{{ from = \"a.bin\", as = \"{number}\" }},");
    let files: String = (0..20_000).map(file).collect();
    let plan = format!(
        "root = {:?}\n[[model]]\nname = \"b\"\n[[model.version]]\npath = \"b.onnx\"\n\
         [[model]]\nname = \"a\"\n[[model.version]]\npath = \"a.bin\"\nfiles = [{files}]\n",
        mount.bench.root.join("yard"),
    );
    mount.bench.write("plan.toml", plan);
    let refused = mount.cli(&["import", "--plan", "plan.toml"]).exits(2);
    refused.says("`a.bin` lists more than a daemon takes at a time").says("nothing was done");
    assert!(!mount.path("b").exists());
}

#[test]
fn a_fifo_where_a_tool_keeps_something_is_not_waited_for() {
    let bench = Bench::new();
    put(&bench, "yard/churn.onnx", "v1");
    let digest = "46abeb7ba49cf6c3adc7b7f349753d7b.dir";
    bench.write("yard/bundle.dvc", format!("outs:\n- {{md5: {digest}, path: bundle}}\n"));
    let list = bench.root.join("yard/.dvc/cache/files/md5").join(&digest[..2]);
    fs::create_dir_all(&list).expect("ours");
    make_fifo(&list.join(&digest[2..]));
    make_fifo(&bench.root.join("yard/.dvc/config"));
    make_fifo(&bench.root.join("yard/dvc.yaml"));
    bench.cli(&["inventory", "yard"]).ok().says("churn: 1 version");
}

#[test]
fn secrets_that_a_tool_noted_are_in_no_plan() {
    let bench = Bench::new();
    let id = "0123456789abcdef0123456789abcdef";
    let run = format!("yard/mlruns/1/{id}");
    put(&bench, &format!("{run}/artifacts/model.onnx"), "v1");
    for (path, text) in [
        ("meta.yaml", format!("run_id: {id}\nrun_name: r\nstart_time: 1700000000000\n")),
        ("params/api_key", "sesame1".to_owned()),
        ("params/lr", "0.5".to_owned()),
        ("tags/mlflow.source.name", "https://ann:sesame2@example.com/train.git".to_owned()),
        ("tags/mlflow.note.content", "made with --token sesame3".to_owned()),
    ] {
        bench.write(&format!("{run}/{path}"), text);
    }
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).ok();
    let plan = fs::read_to_string(bench.root.join("plan.toml")).expect("the plan");
    assert!(plan.contains("api_key") && plan.contains("0.5"), "{plan}");
    assert!(plan.contains("made with") && plan.contains("example.com"), "{plan}");
    assert!(!plan.contains("sesame"), "{plan}");
}

#[test]
fn a_plan_is_there_whole_or_not_at_all() {
    let bench = Bench::new();
    put(&bench, "yard/churn.onnx", "v1");
    // A file of more than 512 bytes ends the process that writes it.
    let inventory = format!("ulimit -f 1; exec {MODELFS} inventory yard --plan plan.toml");
    let run = Command::new("dash").args(["-c", &inventory]).current_dir(&bench.root).output();
    assert!(!run.expect("dash runs").status.success());
    assert_eq!(fs::read(bench.root.join("plan.toml")).expect("its place"), b"");
    bench.cli(&["import", "--plan", "plan.toml"]).exits(2).says("nothing was done");
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).ok();
    assert_eq!(import(&bench)["versions"].as_array().expect("a list").len(), 1);
    bench.cli(&["inventory", "yard", "--plan", "plan.toml"]).exits(2).says("exists already");
    assert!(!bench.root.join(".plan.toml.partial").exists());
}
