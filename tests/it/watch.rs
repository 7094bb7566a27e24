//! `modelfs watch`: each commit is trained once, whatever happens meanwhile.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::git::Repository;
use crate::harness::{Bench, MODELFS, Output, as_user_command, bounded, copy_tree, wait_for};
use crate::syscalls::User;

/// A training that counts how often it was started, and by whom.
const TRAIN: &str = "#!/bin/sh\necho start $$ >> $COUNT\n";

/// A repository with a training, and a store that no daemon serves.
struct Watched {
    bench: Bench,
    repository: Repository,
}

impl Watched {
    fn new() -> Self {
        let bench = Bench::new();
        let repository = Repository::new(bench.root.join("source"));
        repository.git(&["remote", "add", "origin", "https://ann:secret@example.org/churn.git"]);
        Self { bench, repository }
    }

    /// Commits a training that does this; the commit.
    fn commit(&self, script: &str, message: &str) -> String {
        self.repository.write("train.sh", format!("{TRAIN}{script}\n"));
        let path = self.repository.path.join("train.sh");
        Output::of(Command::new("chmod").arg("+x").arg(path)).ok();
        self.repository.commit(message)
    }

    /// `modelfs watch ARGS… -- ./train.sh`
    fn command(&self, program: Command, args: &[&str]) -> Command {
        let mut command = program;
        command.arg("--store").arg(&self.bench.store).arg("watch").arg("--repo");
        command.arg(&self.repository.path).args(["--ref", "main", "--model", "churn"]).args(args);
        command.args(["--", "./train.sh"]).current_dir(&self.bench.root);
        command.env("XDG_STATE_HOME", self.bench.root.join("state"));
        command.env("COUNT", self.bench.root.join("count")).env("GO", self.bench.root.join("go"));
        command.env_remove("MODELFS_STORE");
        command
    }

    fn once(&self, args: &[&str]) -> Output {
        let args = [&["--once"], args].concat();
        Output::of(&mut self.command(bounded(MODELFS), &args))
    }

    /// A watch that goes on.
    fn begin(&self) -> Child {
        self.begin_with(&[])
    }

    fn begin_with(&self, args: &[&str]) -> Child {
        let args = [&["--interval", "50ms"], args].concat();
        let mut command = self.command(Command::new(MODELFS), &args);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    }

    /// Numbers of the processes that were started so far.
    fn started(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.bench.root.join("count")).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix("start ")?.parse().ok()).collect()
    }

    fn wait_for_starts(&self, count: usize) {
        wait_for("a training to begin", || (self.started().len() == count).then_some(()));
    }

    /// The commits of all versions, in their order.
    fn sealed(&self) -> Vec<Value> {
        let output = self.bench.cli(&["list", "churn", "--json"]);
        let list = output.ok().json();
        let versions = list["versions"].as_array().expect("versions").clone();
        let of = |version: &Value| self.show(version["version"].as_str().expect("a number"));
        let mut shown: Vec<Value> = versions.iter().map(of).collect();
        shown.sort_by_key(|it| it["sealed"]["at"].as_str().map(str::to_owned));
        shown.into_iter().map(|it| it["source"]["commit"].clone()).collect()
    }

    fn show(&self, version: &str) -> Value {
        self.bench.cli_json(&["show", &format!("churn/{version}")])["metadata"].clone()
    }

    /// The directory of the watch, once there is one.
    fn find_place(&self) -> Option<PathBuf> {
        let mut all = fs::read_dir(self.bench.root.join("state/modelfs/watch")).ok()?;
        Some(all.next()?.expect("an entry").path())
    }

    fn place(&self) -> PathBuf {
        self.find_place().expect("it was started")
    }

    fn state(&self) -> Value {
        let read = |place: PathBuf| fs::read_to_string(place.join("state.json")).ok();
        let text = self.find_place().and_then(read).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn log(&self, commit: &str) -> String {
        fs::read_to_string(self.place().join(format!("logs/{commit}.log"))).unwrap_or_default()
    }
}

fn kill(pid: u32, signal: &str) {
    Output::of(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()])).ok();
}

fn is_gone(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    status.map_or(true, |text| text.contains("State:\tZ") || text.contains("State:\tX"))
}

#[test]
fn each_commit_is_trained_in_a_clean_check_out_and_a_failure_keeps_its_log() {
    let watched = Watched::new();
    let make = "test ! -e left && touch left && cp train.sh $MODELFS_DRAFT/weights";
    watched.repository.write(".gitignore", "left\n");
    watched.repository.write("left", "by somebody's own work");
    let first = watched.commit(make, "first");
    watched.once(&[]).ok().says("churn/v1  first");
    let fails = "touch left; echo half > $MODELFS_DRAFT/weights; echo oh; exit 3";
    let failing = watched.commit(fails, "second");
    let third = watched.commit(&format!("{make} # again"), "third: once more");
    assert_eq!(watched.state()["done"], json!([first]));
    let answer =
        watched.once(&[]).exits(1).says("failed: it exited with 3").says("churn/v2  third");
    assert!(answer.stderr.contains("commits that failed: 1"), "{answer:?}");
    assert_eq!(watched.sealed(), [json!(first), json!(third)]);
    assert_eq!(watched.log(&failing), "oh\n\nmodelfs: it exited with 3\n");
    assert_eq!(watched.log(&first) + &watched.log(&third), "", "of a success none is kept");
    let found = watched.show("v2");
    let expected = json!({
        "vcs": "git", "remote": "https://example.org/churn.git", "branch": "main", "commit": third,
        "dirty": false, "entrypoint": "train.sh",
    });
    assert_eq!((&found["source"], &found["message"]), (&expected, &"third: once more".into()));
    assert_eq!(
        (&found["run"]["exit_code"], &found["run"]["experimenter"]),
        (&0.into(), &"Ann".into())
    );
    assert_eq!(watched.once(&[]).ok().stdout, "", "nothing is done twice");
    assert_eq!(watched.started().len(), 3);
    assert!(!watched.place().join("current").exists(), "nothing is left behind");
}

#[test]
fn what_was_killed_is_trained_again_and_nothing_twice() {
    let watched = Watched::new();
    let endless = "echo w > $MODELFS_DRAFT/weights; while [ ! -e $GO ]; do sleep 0.01; done";
    let first = watched.commit(endless, "first");
    let mut watch = watched.begin();
    watched.wait_for_starts(1);
    watched.once(&[]).exits(5).says("`churn` is watched already").says("kill ");
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
    let second = watched.commit(endless, "second");
    let mut watch = watched.begin();
    watched.wait_for_starts(2);
    assert!(is_gone(watched.started()[0]), "what the killed one left running was ended");
    assert!(!watched.bench.store.exists(), "no version yet");
    kill(watch.id(), "TERM");
    assert!(watch.wait().expect("it ends").success(), "told to end, it did");
    assert!(is_gone(watched.started()[1]), "and its training with it");
    fs::write(watched.bench.root.join("go"), "").expect("room");
    watched.once(&[]).ok().says("churn/v1  first").says("churn/v2  second");
    assert_eq!(watched.sealed(), [json!(first), json!(second)]);
    assert_eq!(watched.started().len(), 4);
}

#[test]
fn what_was_trained_is_sealed_once_and_without_being_trained_again() {
    let watched = Watched::new();
    watched.bench.cli(&["snapshot", "other", "/etc/hostname"]).ok();
    let first = watched.commit("echo $$ > $MODELFS_DRAFT/weights", "first");
    // Somebody has the store, and does not answer.
    let lock = watched.bench.store.join("lock");
    let mut holder = Command::new("flock")
        .arg("-F")
        .arg(&lock)
        .args(["sleep", "100"])
        .spawn()
        .expect("it starts");
    let is_held = || {
        let free = Command::new("flock").args(["-n"]).arg(&lock).arg("true").status();
        (!free.expect("flock").success()).then_some(())
    };
    wait_for("the lock", is_held);
    fs::write(&lock, format!("{} modelfs mount\n", holder.id())).expect("it is ours");
    let mut watch = watched.begin();
    wait_for("the training", || watched.state()["current"]["trained"].is_object().then_some(()));
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
    let kept = watched.bench.root.join("kept");
    copy_tree(&watched.place(), &kept);
    holder.kill().expect("it runs");
    holder.wait().expect("it ends");
    watched.once(&[]).ok().says("churn/v1  first");
    // As if it had been killed once more, after the version was recorded and before that was noted.
    let place = watched.place();
    fs::remove_dir_all(&place).expect("it is ours");
    copy_tree(&kept, &place);
    watched.once(&[]).ok().says("churn/v1  first");
    assert_eq!((watched.sealed(), watched.started().len()), (vec![json!(first)], 1));
}

#[test]
fn a_training_has_limits() {
    let watched = Watched::new();
    let check = |script: &str, flags: &[&str], why: &str| {
        let commit = watched.commit(script, "one more");
        watched.once(flags).exits(1).says(why);
        watched.log(&commit)
    };
    check(
        "echo w > $MODELFS_DRAFT/w; sleep 1000",
        &["--timeout", "300ms"],
        "took longer than 0.3 s",
    );
    let fill = "head -c 3M /dev/zero > $MODELFS_DRAFT/w";
    check(fill, &["--disk-bytes", "1M"], "took more than 1.00 MiB of disk");
    check(
        &format!("{fill}; sleep 1000"),
        &["--disk-bytes", "1M"],
        "took more than 1.00 MiB of disk",
    );
    let log = check("yes | head -c 1M; exit 1", &["--log-bytes", "1K"], "exited with 1");
    assert_eq!(log, "y\n".repeat(512) + "\nmodelfs: it exited with 1\n");
    check("true", &[], "wrote nothing into");
    check("kill -9 $$", &[], "signal 9 ended it");
    check("true", &["--output", "out"], "wrote nothing into");
    let log = check("true", &["--data", "none.csv"], "none.csv");
    assert!(log.starts_with("\nmodelfs: cannot ") && log.lines().count() == 2, "{log}");
    let outside = watched.bench.write("home/secret", "mine");
    let link = watched.repository.path.join("link");
    std::os::unix::fs::symlink(outside.parent().expect("a directory"), &link).expect("it is ours");
    check("true", &["--output", "link"], "a symbolic link");
    check("mkdir link/deep; touch link/deep/x", &["--output", "link/deep"], "a symbolic link");
    let commit = watched.commit("mkdir out; echo w > out/weights", "the last one");
    watched.once(&["--output", "out", "--data", "train.sh"]).ok().says("churn/v1  the last one");
    assert_eq!(watched.show("v1")["datasets"][0]["uri"], "train.sh");
    assert_eq!(watched.show("v1")["artifacts"][0]["path"], "weights", "{commit}");
}

#[test]
fn what_left_the_training_of_one_commit_is_ended_before_anything_is_sealed() {
    let watched = Watched::new();
    let flee = "setsid sh -c 'echo $$ > $COUNT.fled; while :; do echo old > $MODELFS_DRAFT/weights; done' \
                >/dev/null 2>&1 & while [ ! -s $COUNT.fled ]; do sleep 0.01; done; exit $1";
    let first = watched.commit(&flee.replace("$1", "0"), "first");
    let fled = watched.bench.root.join("count.fled");
    let check = || {
        let pid = fs::read_to_string(&fled).expect("it ran").trim().parse().expect("a number");
        assert!(is_gone(pid), "the process {pid} that left was ended");
        fs::remove_file(&fled).expect("it is there");
    };
    watched.once(&[]).ok().says("churn/v1  first");
    check();
    watched.commit(&flee.replace("$1", "3"), "second");
    watched.once(&[]).exits(1).says("failed: it exited with 3");
    check();
    let third =
        watched.commit("echo new > $MODELFS_DRAFT/weights; echo $MODELFS_DRAFT >> $COUNT", "third");
    let fourth = watched
        .commit("echo new > $MODELFS_DRAFT/weights; echo $MODELFS_DRAFT >> $COUNT #", "fourth");
    watched.once(&[]).ok();
    assert_eq!(watched.sealed(), [first, third, fourth].map(|commit| json!(commit)));
    let text = fs::read_to_string(watched.bench.root.join("count")).expect("it is there");
    let drafts: Vec<&str> = text.lines().filter(|line| line.ends_with("/draft")).collect();
    assert!(drafts.len() == 2 && drafts[0] != drafts[1], "a directory for each: {drafts:?}");
}

#[test]
fn what_a_training_leaves_and_nobody_can_remove_hinders_nothing() {
    let watched = Watched::new();
    let make = "cp train.sh $MODELFS_DRAFT/weights; mkdir -p cache/deep; touch cache/deep/x; \
                chmod 555 cache/deep; chmod 0 cache";
    watched.commit(make, "first");
    let user = User { uid: 4_601, gid: 4_601, groups: &[] };
    let program = watched.bench.shared_binary();
    Output::of(bounded("chown").args(["-R", "4601:4601"]).arg(&watched.bench.root)).ok();
    let once = || {
        let mut command = watched.command(as_user_command(user, &program), &["--once"]);
        Output::of(command.env("HOME", &watched.bench.root))
    };
    let answer = once().ok().says("churn/v1  first");
    assert_eq!(answer.stderr, "", "what may be changed is removed");
    assert!(!watched.place().join("current").exists());
    let foreign = watched.place().join("current/foreign");
    fs::create_dir_all(&foreign).expect("we may");
    fs::write(foreign.join("file"), "").expect("we may");
    let answer = once().ok();
    assert!(answer.stderr.contains("where it was moved"), "{answer:?}");
    let aside = || {
        let names = fs::read_dir(watched.place()).expect("it is there").map(|it| it.expect("one"));
        names.filter(|it| it.file_name().to_string_lossy().starts_with("left-")).count()
    };
    assert_eq!((foreign.exists(), aside()), (false, 1));
    Output::of(bounded("chown").args(["-R", "0:0"]).arg(&watched.repository.path)).ok();
    watched.once(&[]).ok();
    assert_eq!(aside(), 0, "whoever may remove it does");
}

#[test]
fn a_commit_that_cannot_be_checked_out_or_sealed_fails_and_the_next_is_trained() {
    let watched = Watched::new();
    let make = "cp train.sh $MODELFS_DRAFT/weights";
    watched.commit(make, "first");
    watched.once(&[]).ok().says("churn/v1");
    let blob = "B=$(git hash-object -w train.sh); ";
    let trees = [
        ("a long name", "printf '100644 blob %s\\t%0300d\\n' $B 1 | git mktree"),
        (
            "a repository in it",
            "T=$(printf '100644 blob %s\\tconfig\\n' $B | git mktree); \
             printf '040000 tree %s\\t.git\\n' $T | git mktree",
        ),
        (
            "a blob that is missing",
            "printf '100644 blob 1234567890123456789012345678901234567890\\tx\\n' | git mktree --missing",
        ),
    ];
    for (what, tree) in trees {
        let user = "git -c user.name=Ann -c user.email=ann@example.org";
        let script = format!(
            "{blob} N=$({tree}) && C=$({user} commit-tree $N -p HEAD -m '{what}') && \
             git update-ref refs/heads/main $C && echo $C"
        );
        let mut shell = bounded("sh");
        shell.args(["-c", &script]).current_dir(&watched.repository.path);
        let commit = Output::of(&mut shell).ok().stdout;
        watched.once(&[]).exits(1).says("cannot be checked out: ").says(what);
        assert!(watched.log(commit.trim()).contains("cannot be checked out: "), "{what}");
    }
    watched.commit("ln -s /etc/passwd $MODELFS_DRAFT/weights; touch $MODELFS_DRAFT/x", "a link");
    watched.once(&[]).exits(1).says("the link to `/etc/passwd` leaves the tree");
    let long = "\u{1}".repeat(1 << 20);
    let message = watched.bench.write("message", format!("{long}\n"));
    watched.repository.write("new", "");
    watched.repository.git(&["add", "--all"]);
    watched.repository.write("train.sh", format!("{TRAIN}{make} #\n"));
    watched.repository.git(&["commit", "-q", "-a", "-F", message.to_str().expect("text")]);
    watched.once(&[]).ok();
    assert_eq!(watched.show("v2")["message"].as_str().map(str::len), Some(1_000));
}

#[test]
fn a_commit_whose_training_does_not_end_well_can_be_given_up() {
    let watched = Watched::new();
    watched.commit("while :; do sleep 0.01; done", "first");
    let mut watch = watched.begin();
    watched.wait_for_starts(1);
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
    watched.once(&["--give-up"]).exits(1).says("failed: its training was given up  first");
    assert_eq!((watched.once(&[]).ok().stdout.as_str(), watched.started().len()), ("", 1));
}

#[test]
fn a_watch_ends_when_it_is_told_to_whatever_it_does() {
    let watched = Watched::new();
    watched.commit("trap '' TERM; echo deaf >> $COUNT; while :; do sleep 0.01; done", "first");
    let large = watched.bench.root.join("large");
    let file = fs::File::create(&large).expect("room");
    file.set_len(1 << 42).expect("it takes no room");
    let mut watch = watched.begin_with(&["--data", large.to_str().expect("text")]);
    wait_for("the begin", || watched.state()["current"]["training"].is_object().then_some(()));
    kill(watch.id(), "TERM");
    assert!(watch.wait().expect("it ends").success(), "while it reads data");
    assert_eq!(watched.started().len(), 0);
    let mut watch = watched.begin();
    let count = watched.bench.root.join("count");
    let is_deaf = || fs::read_to_string(&count).is_ok_and(|it| it.contains("deaf")).then_some(());
    wait_for("the training", is_deaf);
    kill(watch.id(), "TERM");
    let told_again = || {
        let ended = watch.try_wait().expect("it is ours");
        if ended.is_none() {
            kill(watch.id(), "TERM");
        }
        ended
    };
    assert_eq!(wait_for("the end", told_again).code(), Some(1), "at once, and not in its time");
    assert!(is_gone(watched.started()[0]), "and the training with it");
    let state = watched.place().join("state.json");
    fs::remove_file(&state).expect("it is there");
    Output::of(bounded("mkfifo").arg(&state)).ok();
    watched.once(&[]).exits(1).says("it is no regular file");
}

#[test]
fn commits_of_a_branch_that_was_written_anew_are_not_done_twice() {
    let watched = Watched::new();
    let make = "cp train.sh $MODELFS_DRAFT/weights";
    let first = watched.commit(make, "first");
    watched.once(&[]).ok().says("churn/v1");
    let second = watched.commit(make, "second");
    watched.once(&[]).ok().says("churn/v2");
    watched.repository.git(&["reset", "-q", "--hard", &first]);
    assert_eq!(watched.once(&[]).ok().stdout, "");
    let other = [watched.commit("exit 1", "other"), watched.commit(make, "another")];
    watched.once(&[]).exits(1).says("failed: it exited with 1  other").says("churn/v3  another");
    assert_eq!(watched.sealed(), [json!(first), json!(second), json!(other[1])]);
    assert!(!watched.log(&other[0]).is_empty());
}

#[test]
fn what_cannot_be_watched_is_refused_at_once() {
    let watched = Watched::new();
    watched.once(&[]).exits(4).says("there is no commit `main`").says("--ref NAME");
    watched.commit("true", "first");
    watched.once(&["--output", "/tmp"]).exits(2).says("`/tmp` is not below the check-out");
    watched.once(&["--output", "../x"]).exits(2).says("without `..`");
    watched.once(&["--timeout", "0s"]).exits(2);
    let mut homeless = watched.command(bounded(MODELFS), &["--once"]);
    homeless.env_remove("XDG_STATE_HOME").env_remove("HOME");
    Output::of(&mut homeless).exits(2).says("XDG_STATE_HOME");
    let watch = |repository: &str| {
        watched.bench.cli(&["watch", "--repo", repository, "--model", "churn", "--", "true"])
    };
    watched.repository.git(&["init", "--quiet", "--object-format=sha256", "sha256"]);
    watch("source/sha256").exits(1).says("only those of SHA-1 are read").says("--repo DIR");
    watch("/").exits(4).says("there is no Git repository at `/`");
    assert!(!watched.bench.store.exists() && watched.started().is_empty());
}
