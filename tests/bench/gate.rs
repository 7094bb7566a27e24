//! What a gate costs a promotion: 20 rules and 1,000 approvals on file, beside an alias without a gate.
//!
//! `cargo bench --bench gate [DIRECTORY]` asks in process, then through a mount (a symbolic link and a rename over the
//! alias, as `ln -sfn` makes them), each with the store in DIRECTORY and in memory, where an fsync costs nothing: what
//! is left there is all that a promotion costs beyond its fsyncs. The two aliases take turns, so that the difference
//! of their medians is the decision itself.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use modelfs::format::names::{AliasName, Reference};
use modelfs::format::record::Door;
use modelfs::ops::{
    ApproveOptions, Caller, Context, HotLimit, NoProgress, OpenOptions, PromoteOptions, Promotion,
    Request, SnapshotOptions, Source, Workspace,
};
use modelfs::sys::io::Real;

const APPROVALS: u32 = 1_000;
const RULES: usize = 20;
const ROUNDS: usize = 501;

/// A file system without a disk below it.
const MEMORY: &str = "/dev/shm";

fn context(uid: u32) -> Context {
    let (user, groups, door) = (format!("user{uid}"), vec![uid], Door::Cli);
    let caller = Caller { user, uid, gid: uid, groups, door };
    Context { caller, now: Timestamp::now(), assume: false }
}

fn run(workspace: &Workspace, uid: u32, request: Request) {
    workspace.run(&context(uid), request, &NoProgress).expect("the store is sound");
}

fn seal(workspace: &Workspace, file: &Path, auc: f64) {
    let options = SnapshotOptions {
        model: "churn".parse().expect("a name"),
        source: Source::Path(file.to_owned()),
        message: format!("with {auc}"),
        metrics: [("auc".to_owned(), auc.into())].into(),
        params: Default::default(),
        labels: Default::default(),
        datasets: Vec::new(),
        provenance: Default::default(),
        captured: Default::default(),
        alias: None,
    };
    run(workspace, 0, Request::Snapshot(options));
}

/// A store at `directory` with two versions that 1,000 people approved, and the rules for `prod`.
fn fill(directory: &Path) -> Workspace {
    let file = directory.join("model.bin");
    fs::write(&file, vec![7; 4_096]).expect("room for a file");
    let options = OpenOptions {
        directory: directory.join("store"),
        create: true,
        holder: "gate".to_owned(),
        cache_bytes: 1 << 20,
        hot_limit: HotLimit::Untouched,
        clock: Timestamp::now,
        signer: None,
    };
    let workspace = Workspace::open(options, Arc::new(Real), Timestamp::now(), &context(0).caller);
    let workspace = workspace.expect("a new store");
    seal(&workspace, &file, 0.90);
    seal(&workspace, &file, 0.91);
    for uid in 1..=APPROVALS {
        for version in ["churn/v1", "churn/v2"] {
            let (role, message, expires_s) = (None, "looked at it".to_owned(), None);
            let reference = version.parse().expect("a reference");
            let options = ApproveOptions { reference, role, message, expires_s };
            run(&workspace, uid, Request::Approve(options));
        }
    }
    let rule = |index: usize| match index % 4 {
        0 => format!("{{ name = 'auc{index}', expr = 'metrics.auc >= 0.{index}' }}"),
        1 => format!(
            "{{ name = 'two{index}', expr = \"approvals.filter(a, a.user != sealed_by).size() >= {index}\" }}"
        ),
        2 => format!("{{ name = 'who{index}', expr = \"approvals.exists(a, a.uid == {index})\" }}"),
        _ => format!("{{ name = 'no{index}', expr = \"!files.exists(f, f.format == 'pickle')\" }}"),
    };
    let rules: Vec<String> = (0..RULES).map(rule).collect();
    let text =
        format!("[[gate]]\nmodels = ['*']\naliases = ['prod']\nrules = [{}]\n", rules.join(", "));
    run(&workspace, 0, Request::PolicySet { text });
    workspace
}

/// Prints the medians of `promote(alias, version)` for the alias with a gate and the one without.
fn measure(door: &str, place: &str, promote: impl Fn(&str, &str)) {
    let (mut gated, mut free) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let version = ["v1", "v2"][round % 2];
        for (alias, times) in [("prod", &mut gated), ("free", &mut free)] {
            let begun = Instant::now();
            promote(alias, version);
            times.push(begun.elapsed().as_micros());
        }
    }
    let [gated, free] = [gated, free].map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2]
    });
    let decision = gated.saturating_sub(free);
    println!("{door:<18} {place:<10} {gated:>6} us {free:>6} us {decision:>6} us");
}

/// Promotes in the workspace itself.
fn in_process(workspace: &Workspace, alias: &str, version: &str) {
    let alias: AliasName = alias.parse().expect("a name");
    let reference: Reference = format!("churn/{version}").parse().expect("a reference");
    let promotions = vec![Promotion { reference, alias }];
    run(workspace, 0, Request::Promote(PromoteOptions { promotions, message: String::new() }));
}

/// Promotes as `ln -sfn` does.
fn by_link(model: &Path, alias: &str, version: &str) {
    let temporary = model.join(".next");
    symlink(version, &temporary).expect("a link that waits");
    fs::rename(&temporary, model.join(alias)).expect("the rules are fulfilled");
}

fn modelfs(directory: &Path, args: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_modelfs"));
    command.arg("--store").arg(directory.join("store")).args(args).stdout(Stdio::null());
    let status = command.status().expect("it was built with this");
    assert!(status.success(), "modelfs {args:?}: {status}");
}

fn main() {
    let on_disk = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let on_disk = on_disk.map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "a promotion, median of {ROUNDS}: {RULES} rules, {APPROVALS} approvals of each version"
    );
    println!("{:<18} {:<10} {:>9} {:>9} {:>9}", "", "STORE", "GATED", "FREE", "DECISION");
    for (place, directory) in [("in memory", Path::new(MEMORY)), ("on disk", &on_disk)] {
        let keep = tempfile::tempdir_in(directory).expect("room for a store");
        let workspace = fill(keep.path());
        measure("in process", place, |alias, version| in_process(&workspace, alias, version));
        workspace.close();
        drop(workspace);
        let point = keep.path().join("models");
        fs::create_dir(&point).expect("room for a directory");
        let point = point.to_str().expect("a plain path");
        modelfs(keep.path(), &["mount", point, "--background"]);
        let model = Path::new(point).join("churn");
        measure("through the mount", place, |alias, version| by_link(&model, alias, version));
        modelfs(keep.path(), &["umount", point]);
    }
}
