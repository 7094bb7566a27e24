//! `modelfs run`: a command that runs as if nobody looked, and a version that says how it was made.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::git::Repository;
use crate::harness::{Bench, MODELFS, Mount, Output, bounded, status_number, wait_for};
use crate::python::Python;

/// A mount with `churn`, and a Git repository beside it.
pub struct Workshop {
    pub mount: Mount,
    pub repository: Repository,
}

impl Workshop {
    pub fn new() -> Self {
        let mount = Mount::with_churn();
        let repository = Repository::new(mount.bench.root.join("churn"));
        Self { mount, repository }
    }

    /// `modelfs ARGS…` in the repository, with some variables that a training has.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = bounded(MODELFS);
        command.args(args).current_dir(&self.repository.path);
        self.mount.environment(&mut command);
        command.env("GITHUB_RUN_ID", "77").env("AWS_SECRET_ACCESS_KEY", "environmentsecret");
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        Output::of(&mut self.command(args))
    }

    fn metadata(&self, version: &str) -> Value {
        serde_json::from_str(&self.mount.text(&format!("churn/{version}/metadata.json")))
            .expect("JSON")
    }

    fn draft(&self, name: &str) -> PathBuf {
        self.mount.path("churn/draft").join(name)
    }

    /// The record that was left in the draft.
    fn record(&self) -> Value {
        let text = fs::read_to_string(self.draft("modelfs-run.json")).expect("a record");
        serde_json::from_str(&text).expect("JSON")
    }

    /// `modelfs run` of a script that goes on until it is told to end; returned once it has begun.
    fn begun(&self, script: &str) -> Child {
        // Where the tests run in the background of a shell, SIGINT is ignored, which all would inherit.
        let mut command = Command::new("env");
        command.args(["--default-signal", MODELFS, "run", "--seal-on-success", "--"]);
        command
            .args(["sh", "-c", script])
            .current_dir(&self.repository.path)
            .process_group(0)
            .stderr(Stdio::null());
        self.mount.environment(&mut command);
        let child = command.spawn().expect("it starts");
        wait_for("the training to begin", || self.draft("begun").exists().then_some(()));
        child
    }
}

/// A table with few columns, all numbers.
fn table() -> String {
    let rows = (0..200).map(|i| format!("{},{},{}\n", 18 + i % 60, 1_000 + 37 * i, i * i % 3 % 2));
    format!("age,income,churned\n{}", rows.collect::<String>())
}

fn kill(pid: u32, signal: &str) {
    Output::of(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()])).ok();
}

/// Runs the training of the repository, with what must not be told among its arguments.
fn train(workshop: &Workshop) -> Output {
    let python = Python::models();
    let interpreter = python.interpreter().to_str().expect("text");
    let flags = "--data train=train.csv --step dedupe:prep.py --seal-on-success";
    let arguments = "train.py --data train.csv --seed 7 --api-token commandsecret";
    let words = [&["run"], &words(flags)[..], &["--", interpreter], &words(arguments)].concat();
    workshop.run(&words)
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// Commits a training and its data; the commit.
fn commit_training(repository: &Repository) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/train.py");
    repository.write("train.py", fs::read(script).expect("a fixture"));
    repository.write("prep.py", "# drops what is there twice\n");
    repository.write("train.csv", table());
    repository.git(&["remote", "add", "origin", "https://ann:gitsecret@example.org/churn.git"]);
    repository.commit("first")
}

#[test]
fn a_training_is_sealed_with_all_that_can_be_known_of_it() {
    let workshop = Workshop::new();
    let commit = commit_training(&workshop.repository);
    let answer = train(&workshop).ok().says("churn/v1: 2 files");
    assert_eq!(answer.stdout, "trained 5 rounds\n", "the command's own");
    let found = workshop.metadata("v1");
    let expected = json!({
        "vcs": "git", "remote": "https://example.org/churn.git", "commit": commit, "branch": "main",
        "dirty": false, "entrypoint": "train.py",
    });
    assert_eq!(found["source"], expected);
    let run = &found["run"];
    assert_eq!((&run["exit_code"], &run["ci"]), (&0.into(), &json!({"GITHUB_RUN_ID": "77"})));
    assert!(
        run["duration_s"].as_f64().unwrap() > 0.0
            && run["started"].as_str() < run["ended"].as_str()
    );
    assert_eq!(run["command"][1], "train.py");
    assert_eq!(run["command"].as_array().unwrap().last(), Some(&"***".into()));
    let environment = &found["environment"];
    assert_eq!(environment["packages"]["xgboost-cpu"], "3.2.0");
    assert!(environment["python"].as_str().unwrap().starts_with("3."), "{environment}");
    assert!(environment["cpu"]["processors"].as_u64() > Some(0) && environment["os"].is_string());
    assert_eq!(environment["seeds"], json!({"seed": 7}));
    let data = &found["datasets"][0];
    let digest = blake3::hash(table().as_bytes()).to_string();
    assert_eq!((&data["digest"], &data["uri"]), (&digest.into(), &"train.csv".into()));
    assert_eq!((&data["role"], &data["rows"]), (&"train".into(), &200.into()));
    assert_eq!(data["preprocessing"][0]["name"], "dedupe");
    assert_eq!(data["preprocessing"][0]["file"], "prep.py");
    assert_eq!(found["metrics"].as_object().unwrap().len(), 1, "read from its file: {found}");
    assert_eq!(found["capture"]["missing"], json!(["interface", "params"]));
    assert_eq!(workshop.mount.names("churn/draft"), Vec::<String>::new());
    let all = workshop.mount.text("churn/v1/metadata.json")
        + &workshop.mount.text(".modelfs/history.jsonl");
    assert!(!all.contains("secret"), "{all}");
}

#[test]
fn what_is_in_no_commit_is_told_by_digests() {
    let workshop = Workshop::new();
    let repository = &workshop.repository;
    let commit = commit_training(repository);
    let script = fs::read_to_string(repository.path.join("train.py")).expect("it was written");
    repository.write("train.py", script + "\n");
    repository.write("notes.txt", "not committed");
    train(&workshop).ok().says("churn/v1: 2 files");
    let patch = repository.git(&["diff", "--binary", "--full-index", "--no-renames", "HEAD"]);
    let source = workshop.metadata("v1")["source"].clone();
    assert_eq!((&source["commit"], &source["branch"]), (&commit.into(), &"main".into()));
    assert_eq!((&source["dirty"], &source["untracked"]), (&true.into(), &1.into()), "{source}");
    let digest =
        Output::of(Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum", "sh", &patch]))
            .ok();
    assert_eq!(source["dirty_patch_sha256"], digest.stdout.split(' ').next().unwrap());
}

#[test]
fn a_training_that_fails_or_is_killed_is_recorded_and_not_sealed() {
    let workshop = Workshop::new();
    let (repository, python) = (&workshop.repository, Python::models());
    let interpreter = python.interpreter().to_str().expect("text");
    let commit = commit_training(repository);
    let script = fs::read_to_string(repository.path.join("train.py")).expect("it was written");
    repository.write("train.py", script.clone() + "raise ValueError('worse than before')\n");
    let flags = ["run", "--data", "train.csv", "--seal-on-success", "--", interpreter];
    let failing = [&flags[..], &["train.py", "--data", "train.csv"]].concat();
    workshop.run(&failing).exits(1).says("worse than before").says("not sealed");
    let record = workshop.record();
    assert_eq!(
        (&record["run"]["exit_code"], &record["source"]["dirty"]),
        (&1.into(), &true.into())
    );
    assert!(record["source"]["dirty_patch_sha256"].is_string(), "{record}");
    assert_eq!(record["environment"]["packages"]["xgboost-cpu"], "3.2.0");
    assert_eq!(record["datasets"][0]["rows"], 200);
    repository.write("train.py", script);
    let endless = ["train.py", "--data", "train.csv", "--rounds", "100000000", "--checkpoints"];
    for name in workshop.mount.names("churn/draft") {
        fs::remove_file(workshop.draft(&name)).expect("it is there");
    }
    let mut child = workshop.command(&[&flags[..], &endless].concat());
    let mut child = child.stderr(Stdio::null()).spawn().expect("it starts");
    wait_for("a checkpoint", || (!workshop.mount.names("churn/draft").is_empty()).then_some(()));
    let draft = workshop.mount.path("churn/draft");
    let started = modelfs::sys::process::find_marked("MODELFS_DRAFT", &draft).expect("processes");
    assert_eq!(started.len(), 1, "the training alone");
    kill(started[0], "KILL");
    assert_eq!(status_number(child.wait().expect("it ends")), 137);
    let record = workshop.record();
    assert_eq!((&record["run"]["signal"], &record["run"]["exit_code"]), (&9.into(), &Value::Null));
    let source = &record["source"];
    assert_eq!((&source["commit"], &source["dirty"]), (&commit.into(), &false.into()));
    assert_eq!(workshop.mount.names("churn"), ["draft", "snapshot"], "no version");
    // What it got to is worth keeping all the same: whoever seals it seals how it ended.
    workshop.mount.seal("churn", "the last checkpoint");
    assert_eq!(workshop.metadata("v1")["run"]["signal"], 9);
}

#[test]
fn a_script_of_another_repository_is_told_with_that_one() {
    let workshop = Workshop::new();
    let commit = commit_training(&workshop.repository);
    workshop.repository.write("sub/make.sh", "echo w > $MODELFS_DRAFT/w\n");
    let elsewhere = Repository::new(workshop.mount.bench.root.join("notes"));
    elsewhere.commit("notes");
    let run = |directory: &Path, script: &str, version: &str| {
        let words =
            ["run", "--seal-on-success", "-m", version, "--model", "churn", "--", "sh", script];
        Output::of(workshop.command(&words).current_dir(directory)).ok();
        let found = workshop.metadata(version);
        let of = |member: &str, part: &str| found[member][part].clone();
        (of("source", "commit"), of("source", "entrypoint"), of("run", "directory"))
    };
    let notes = elsewhere.path.to_str().expect("text");
    let expected = (json!(commit), json!("sub/make.sh"), json!(notes));
    assert_eq!(run(&elsewhere.path, "../churn/sub/make.sh", "v1"), expected);
    let sub = workshop.repository.path.join("sub");
    let expected = (json!(commit), json!("sub/make.sh"), json!("sub"));
    assert_eq!(run(&sub, "make.sh", "v2"), expected);
    let expected = (json!(commit), json!("sub/make.sh"), Value::Null);
    assert_eq!(run(&workshop.repository.path, "sub/make.sh", "v3"), expected);
}

#[test]
fn what_is_not_sealed_keeps_its_record_until_somebody_seals_it() {
    let workshop = Workshop::new();
    workshop.repository.commit("first");
    let script = "echo w > $MODELFS_DRAFT/weights; exit $1";
    let train = |flags: &[&str], exit: &str| {
        let words = [&["run"][..], flags, &["--", "sh", "-c", script, "sh", exit]].concat();
        workshop.run(&words)
    };
    train(&["--seal-on-success"], "3").exits(3).says("not sealed").says("modelfs-run.json");
    assert_eq!(workshop.record()["run"]["exit_code"], 3);
    assert_eq!(workshop.mount.names("churn/draft"), ["modelfs-run.json", "weights"]);
    train(&[], "0")
        .exits(5)
        .says("the draft of `churn` is not empty: it holds `weights`")
        .says("--add");
    assert_eq!(workshop.record()["run"]["exit_code"], 3, "of the first one, still");
    train(&["--add"], "0").ok().says("not sealed");
    assert_eq!(workshop.record()["run"]["exit_code"], 0);
    workshop.mount.seal("churn", "looked at it");
    let found = workshop.metadata("v1");
    assert_eq!(
        (&found["run"]["exit_code"], &found["message"]),
        (&0.into(), &"looked at it".into())
    );
    assert_eq!(found["run"]["command"], json!(["sh", "-c", script, "sh", "0"]));
    assert_eq!(found["source"]["branch"], "main");
    assert!(found["capture"]["auto"].as_array().unwrap().contains(&"run".into()), "{found}");
    let report =
        train(&["--seal-on-success", "--alias", "staging", "-m", "why", "--json"], "0").ok().json();
    assert_eq!(
        (&report["exit"], &report["sealed"]["version"]),
        (&0.into(), &"v2".into()),
        "{report}"
    );
    workshop.mount.assert_link("churn/staging", "v2");
    assert_eq!(workshop.metadata("v2")["message"], "why");
    workshop.run(&["run", "--", "true"]).ok().says("nothing was made, nothing is recorded");
    assert_eq!(workshop.mount.names("churn/draft"), Vec::<String>::new());
}

#[test]
fn signals_reach_the_training_and_what_was_ended_is_no_success() {
    let workshop = Workshop::new();
    let saves = "trap 'echo saved > $MODELFS_DRAFT/weights; exit 0' TERM INT
                 : > $MODELFS_DRAFT/begun; while :; do sleep 0.01; done";
    for signal in ["TERM", "INT"] {
        let mut child = workshop.begun(saves);
        kill(child.id(), signal);
        assert_eq!(status_number(child.wait().expect("it ends")), 0, "as the command ended");
        assert_eq!(workshop.mount.names("churn/draft"), ["begun", "modelfs-run.json", "weights"]);
        assert_eq!(workshop.record()["run"]["signals"], json!([format!("SIG{signal}")]));
        fs::remove_file(workshop.draft("begun")).expect("it is there");
        fs::remove_file(workshop.draft("weights")).expect("it is there");
    }
    // From a terminal the whole group gets it.
    let deadly = ": > $MODELFS_DRAFT/begun; while :; do sleep 0.01; done";
    let mut child = workshop.begun(deadly);
    Output::of(Command::new("kill").args(["-INT", "--", &format!("-{}", child.id())])).ok();
    assert_eq!(status_number(child.wait().expect("it ends")), 130);
    assert_eq!(workshop.record()["run"]["signal"], 2);
    assert_eq!(workshop.mount.names("churn"), ["draft", "snapshot"], "no version");
}

#[test]
fn a_signal_that_is_ignored_from_the_start_asks_for_nothing() {
    let workshop = Workshop::new();
    let script = ": > $MODELFS_DRAFT/begun; while [ -e $MODELFS_DRAFT/begun ]; do sleep 0.01; done
                  echo w > $MODELFS_DRAFT/weights";
    for (ignored, version) in [("HUP", "v1"), ("INT", "v2"), ("CHLD", "v3")] {
        let ours = [MODELFS, "run", "--seal-on-success", "-m", version, "--", "sh", "-c", script];
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' {ignored}; exec \"$@\""), "sh"]).args(ours);
        command.current_dir(&workshop.repository.path).stderr(Stdio::null());
        workshop.mount.environment(&mut command);
        let mut child = command.spawn().expect("it starts");
        wait_for("the training", || workshop.draft("begun").exists().then_some(()));
        kill(child.id(), ignored);
        fs::remove_file(workshop.draft("begun")).expect("it is there");
        assert_eq!(status_number(child.wait().expect("it ends")), 0, "{ignored}");
        let run = workshop.metadata(version)["run"].clone();
        assert!(run["signals"].is_null() && run["exit_code"] == 0, "{run}");
    }
}

#[test]
fn a_kill_of_either_leaves_the_draft_as_it_is() {
    let workshop = Workshop::new();
    let endless = "echo $$ > $MODELFS_DRAFT/begun; echo w > $MODELFS_DRAFT/weights
                   while [ -e $MODELFS_DRAFT/weights ]; do sleep 0.01; done";
    let pid_of_training = || -> u32 {
        wait_for("its number", || {
            fs::read_to_string(workshop.draft("begun")).ok()?.trim().parse().ok()
        })
    };
    let mut child = workshop.begun(endless);
    wait_for("the weights", || workshop.draft("weights").exists().then_some(()));
    kill(pid_of_training(), "KILL");
    assert_eq!(status_number(child.wait().expect("it ends")), 137);
    assert_eq!(workshop.mount.names("churn/draft"), ["begun", "modelfs-run.json", "weights"]);
    assert_eq!(workshop.record()["run"]["signal"], 9);
    for name in ["begun", "weights"] {
        fs::remove_file(workshop.draft(name)).expect("it is there");
    }
    let mut child = workshop.begun(endless);
    wait_for("the weights", || workshop.draft("weights").exists().then_some(()));
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert_eq!(workshop.mount.names("churn/draft"), ["begun", "weights"]);
    kill(pid_of_training(), "KILL");
    assert_eq!(workshop.mount.names("churn"), ["draft", "snapshot"], "no version");
}

#[test]
fn a_record_is_there_until_there_is_a_version() {
    let workshop = Workshop::new();
    let out = workshop.repository.path.join("out");
    let record = out.join("modelfs-run.json");
    let run = |words: &[&str]| {
        workshop.run(&[&["run", "--output", "out", "--seal-on-success", "--"], words].concat())
    };
    run(&["sh", "-c", "echo w > out/w; exit 3"]).exits(3);
    let first = fs::read(&record).expect("a record");
    run(&["no-such-program"]).exits(4);
    assert_eq!(fs::read(&record).expect("still of what is there"), first);
    // It told of another command, not of this one.
    run(&["sh", "-c", "while [ -e out/modelfs-run.json ]; do sleep 0.01; done; exit 1"]).exits(1);
    // The daemon does not answer while the version is to be sealed.
    let mut command = workshop.command(&["run", "--output", "out", "--seal-on-success", "--"]);
    fs::remove_file(&record).expect("it is there");
    let daemon = workshop.mount.pid();
    let stop = format!("kill -STOP {daemon}; echo x > out/w");
    let mut child = command.args(["sh", "-c", &stop]).spawn().expect("it starts");
    wait_for("the record", || record.exists().then_some(()));
    kill(child.id(), "TERM");
    assert_eq!(status_number(child.wait().expect("it ends")), 143);
    kill(daemon, "CONT");
    let text = fs::read_to_string(&record).expect("a record");
    let left: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(left["run"]["exit_code"], 0);
    // The daemon may be at what it was asked for before.
    let again = || Some(run(&["sh", "-c", "echo y > out/w"])).filter(|answer| answer.status == 0);
    wait_for("a version", again).says("1 file");
    assert_eq!(fs::read_dir(&out).expect("it is there").count(), 1, "as the command made it");
}

#[test]
fn the_exit_status_is_that_of_the_command_whatever_becomes_of_the_record() {
    let workshop = Workshop::new();
    let script = "mkdir -p out/modelfs-run.json/x; echo w > out/w; exit 7";
    let run = ["run", "--output", "out", "--", "sh", "-c", script];
    let answer = workshop.run(&run).exits(7).says("cannot write").says("out/modelfs-run.json");
    assert!(!answer.stderr.contains("nothing was made"), "{answer:?}");
}

#[test]
fn two_trainings_never_write_to_one_place() {
    let workshop = Workshop::new();
    let endless =
        "echo $$ > $MODELFS_DRAFT/begun; while [ -e $MODELFS_DRAFT/begun ]; do sleep 0.01; done
                   echo w > $MODELFS_DRAFT/weights";
    let mut child = workshop.begun(endless);
    let second =
        ["run", "--add", "--seal-on-success", "--", "sh", "-c", "echo w > $MODELFS_DRAFT/x"];
    let answer = workshop.run(&second).exits(5).says("another run writes to").says("end it: kill ");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let orphan = fs::read_to_string(workshop.draft("begun")).expect("its number");
    assert!(answer.stderr.contains(&format!("kill {}", orphan.trim())), "{answer:?}");
    workshop.run(&second).exits(5).says("another run writes to");
    fs::remove_file(workshop.draft("begun")).expect("it is there");
    // It ends by itself now, and what it left is there.
    wait_for("its end", || (workshop.run(&second).status == 0).then_some(()));
    let files = workshop.metadata("v1")["artifacts"].clone();
    assert_eq!(files.as_array().map(Vec::len), Some(2), "{files}");
    let elsewhere = [
        "run",
        "--output",
        "out",
        "--",
        "sh",
        "-c",
        "sleep 1000 >/dev/null 2>&1 & echo $! > out/pid",
    ];
    workshop.run(&elsewhere).ok();
    workshop.run(&elsewhere).exits(5).says("another run writes to");
    let pid = fs::read_to_string(workshop.repository.path.join("out/pid")).expect("its number");
    kill(pid.trim().parse().expect("a number"), "KILL");
    wait_for("its end", || {
        (workshop.run(&["run", "--output", "out", "--", "true"]).status == 0).then_some(())
    });
}

#[test]
fn only_an_interpreter_is_started_before_the_command() {
    let workshop = Workshop::new();
    let repository = &workshop.repository;
    // What a program of that name would do, whichever words it is given.
    let conda = "#!/bin/sh\nprintf '%s ' conda \"$@\" >> $STARTED\n";
    repository.write("bin/conda", conda);
    Output::of(Command::new("chmod").arg("+x").arg(repository.path.join("bin/conda"))).ok();
    let lines = "if false; then conda create -y -n churn python pip; fi\necho w > $MODELFS_DRAFT/w";
    repository.write("train.sh", lines);
    let module = "import os; open(os.environ['STARTED'], 'a').write('platform.py ')";
    repository.write("platform.py", module);
    repository
        .write("train.py", "import os; open(os.environ['MODELFS_DRAFT'] + '/w', 'w').close()");
    let started = workshop.mount.bench.root.join("started");
    let run = |command: &[&str]| {
        let mut run = workshop.command(&[&["run", "--seal-on-success", "--"], command].concat());
        let path = std::env::var("PATH").expect("text");
        run.env("PATH", format!("{}/bin:{path}", repository.path.display()));
        run.env("PYTHONPATH", ".").env("STARTED", &started);
        Output::of(&mut run).ok();
    };
    run(&["sh", "train.sh"]);
    run(&["python3", "train.py"]);
    let python = workshop.metadata("v2")["environment"]["python"].clone();
    assert!(python.as_str().is_some_and(|text| text.starts_with("3.")), "{python}");
    assert_eq!(fs::read_to_string(&started).unwrap_or_default(), "");
}

#[test]
fn an_interpreter_that_does_not_answer_ends_with_us() {
    let workshop = Workshop::new();
    let asked = workshop.mount.bench.root.join("asked");
    workshop.repository.write("python", "#!/bin/sh\necho $$ > $ASKED\nexec sleep 1000\n");
    let python = workshop.repository.path.join("python");
    Output::of(Command::new("chmod").arg("+x").arg(&python)).ok();
    let mut command = Command::new(MODELFS);
    command.args(["run", "--", "./python", "train.py"]).current_dir(&workshop.repository.path);
    workshop.mount.environment(&mut command);
    let mut child = command.env("ASKED", &asked).spawn().expect("it starts");
    let pid: u32 =
        wait_for("the question", || fs::read_to_string(&asked).ok()?.trim().parse().ok());
    kill(child.id(), "TERM");
    assert_eq!(status_number(child.wait().expect("it ends")), 143);
    let place = PathBuf::from(format!("/proc/{pid}/exe"));
    wait_for("its end", || fs::read_link(&place).is_err().then_some(()));
}

#[test]
fn without_a_mount_a_directory_is_sealed_and_without_git_there_is_no_source() {
    let bench = Bench::new();
    let work = bench.root.join("Fraud");
    fs::create_dir(&work).expect("room");
    let run = |args: &[&str]| {
        Output::of(bounded(MODELFS).arg("--store").arg(&bench.store).args(args).current_dir(&work))
    };
    let sealing = ["run", "--output", "out", "--seal-on-success", "--"];
    run(&[&sealing[..], &["sh", "-c", "echo w > out/w"]].concat()).ok().says("Fraud/v1: 1 file");
    let found = bench.cli_json(&["show", "Fraud"])["metadata"].clone();
    assert!(found["source"].is_null() && found["run"]["exit_code"] == 0, "{found}");
    assert!(work.join("out/w").exists(), "left as it is");
    run(&[&sealing[..], &["false"]].concat()).exits(1).says("not sealed");
    assert!(work.join("out/modelfs-run.json").exists());
    run(&["run", "--", "true"]).exits(4).says("is not mounted").says("--output DIR");
    run(&[&sealing[..], &["no-such-program"]].concat())
        .exits(4)
        .says("cannot start `no-such-program`");
    run(&["run", "--output", "out", "--data", "none.csv", "--", "touch", "out/ran"])
        .exits(4)
        .says("none.csv");
    assert!(!work.join("out/ran").exists(), "it was not started");
    run(&["run", "--step", "a:b", "--", "true"]).exits(2).says("--data");
    run(&["run", "--output", "out"]).exits(2);
}
