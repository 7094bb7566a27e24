//! What gates cost a promotion: 20 rules, 1,000 approvals on file, beside an alias without a gate.
//!
//! Both make the same record durable, so that the difference of the medians is the decision itself.

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
const ROUNDS: usize = 201;

fn context(uid: u32) -> Context {
    let (user, groups, door) = (format!("user{uid}"), vec![uid], Door::Cli);
    let caller = Caller { user, uid, gid: uid, groups, door };
    Context { caller, now: Timestamp::now(), assume: false }
}

fn run(workspace: &Workspace, uid: u32, request: Request) {
    workspace.run(&context(uid), request, &NoProgress).expect("the store is sound");
}

fn seal(workspace: &Workspace, file: &std::path::Path, auc: f64) {
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

/// Median of the microseconds that a promotion to `alias` takes.
fn median_us(workspace: &Workspace, alias: &str) -> u128 {
    let alias: AliasName = alias.parse().expect("a name");
    let mut times: Vec<u128> = (0..ROUNDS)
        .map(|round| {
            let reference = format!("churn/v{}", round % 2 + 1);
            let reference: Reference = reference.parse().expect("a reference");
            let promotions = vec![Promotion { reference, alias: alias.clone() }];
            let begun = Instant::now();
            let options = PromoteOptions { promotions, message: String::new() };
            run(workspace, 0, Request::Promote(options));
            begun.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn main() {
    let place = tempfile::tempdir().expect("room for a store");
    let file = place.path().join("model.bin");
    std::fs::write(&file, vec![7; 4_096]).expect("room for a file");
    let options = OpenOptions {
        directory: place.path().join("store"),
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
    let (gated, free) = (median_us(&workspace, "prod"), median_us(&workspace, "free"));
    println!(
        "promotion, median of {ROUNDS}: {gated} us with {RULES} rules and {APPROVALS} approvals, {free} us without a gate"
    );
    println!("the decision: {} us", gated.saturating_sub(free));
    workspace.close();
}
