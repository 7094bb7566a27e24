//! What a policy says, case by case: each line is a gate, what people did before, who moves which version
//! into `prod` then, and the verdict with the reason for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use modelfs::format::duration;
use modelfs::format::names::{At, ModelName, Reference};
use modelfs::format::record::{Access, CheckResult, Door, Mark, Subject, Verdict};
use modelfs::ops::{
    ApproveOptions, BreakGlassOptions, Caller, CheckOptions, Context, HotLimit, MarkOptions,
    NoProgress, OpenOptions, OpsError, PromoteOptions, Promotion, Report, Request, RevokeOptions,
    RollbackOptions, Workspace,
};
use modelfs::sys::io::Real;
use serde_json::json;

use crate::harness::quick_directory;

/// Users by name; `ann` and `bob` are validators, `olga` is on call, `ci` tests. `sealer` owns all.
const USERS: [(&str, u32); 7] = [
    ("root", 0),
    ("sealer", 500),
    ("ann", 501),
    ("bob", 502),
    ("olga", 503),
    ("ci", 504),
    ("eve", 505),
];

const ROLES: &str = "[roles.validator]\nusers = ['ann', 'bob', 'sealer']\n\
                     [roles.oncall]\nusers = ['olga']\n[roles.tester]\nusers = ['ci']\n";

/// Rules that stand in more than one line.
const FOUR_EYES: &str =
    "approvals.filter(a, a.role == 'validator' && a.user != sealed_by).size() >= 2";
const ONE_APPROVES: &str = "approvals.exists(a, a.role == 'validator')";
const FAIR: &str = "checks['fair'].passed && checks['fair'].age < duration('24h')";

/// Parts of a gate beside its rules.
const BACK: &str = "rollback = { to = 'previously-approved' }";
const GLASS: &str = "break_glass = { roles = ['oncall'], needs = 'reason', for = '4h' }";

struct Table {
    workspace: Workspace,
    place: PathBuf,
    now: Timestamp,
    cases: usize,
    wrong: Vec<String>,
    _keep: tempfile::TempDir,
}

/// The verdict about the last step, and what was said.
type Answer = (Verdict, String);

impl Table {
    fn new() -> Self {
        let keep = quick_directory();
        let place = keep.path().to_owned();
        let now = start();
        let options = OpenOptions {
            directory: place.join("store"),
            create: true,
            holder: "cases".to_owned(),
            cache_bytes: 1 << 20,
            hot_limit: HotLimit::Untouched,
            clock: start,
            signer: None,
        };
        let workspace = Workspace::open(options, Arc::new(Real), now, &caller("root"));
        let workspace = workspace.expect("a new store");
        for (version, files) in [("v1", ["model.bin", "notes"]), ("v2", ["model.bin", "model.pkl"])]
        {
            for name in files {
                let bytes = if name == "model.pkl" { &b"\x80\x04K\x01."[..] } else { b"weights" };
                let path = place.join(version).join(name);
                fs::create_dir_all(path.parent().expect("below")).expect("a directory");
                fs::write(path, bytes).expect("room for a file");
            }
        }
        fs::write(place.join("v1/metadata.json"), "{\"ticket\":\"INC-7\"}").expect("room");
        Self { workspace, place, now, cases: 0, wrong: Vec::new(), _keep: keep }
    }

    fn run(&self, user: &str, request: Request) -> Result<Report, OpsError> {
        let context = Context { caller: caller(user), now: self.now, assume: false };
        self.workspace.run(&context, request, &NoProgress)
    }

    /// A model with v1 (good), v2 (worse, with a pickle) and v3 (the content of v1, said otherwise).
    fn model(&mut self) -> ModelName {
        self.cases += 1;
        let model: ModelName = format!("m{}", self.cases).parse().expect("a name");
        let context = Context { caller: caller("root"), now: self.now, assume: false };
        let access = Access { uid: 500, gid: 500, mode: 0o777 };
        self.workspace.create_model(&context, &model, access).expect("new");
        for (files, auc, message) in
            [("v1", 0.91, "weekly"), ("v2", 0.80, "again"), ("v1", 0.91, "")]
        {
            let request = json!({"verb": "snapshot", "options": {"model": model,
                "source": {"path": self.place.join(files)}, "message": message,
                "metrics": {"auc": auc, "n": 100, "zero": 0, "word": "good", "nothing": null},
                "params": {"depth": 6}, "labels": {"team": "risk"},
                "datasets": [{"name": "train", "rows": 5}], "alias": null}});
            let request = serde_json::from_value(request).expect("a request");
            self.run("sealer", request).expect("sealed");
        }
        model
    }

    fn set_policy(&self, gate: &str, rules: &[&str]) {
        let rule = |(index, expr): (usize, &&str)| {
            let (expr, enforce) = match expr.strip_prefix("warn ") {
                Some(expr) => (expr, "warn"),
                None => (*expr, "block"),
            };
            format!("{{ name = 'r{index}', expr = \"\"\"{expr}\"\"\", enforce = '{enforce}' }}")
        };
        let rules: Vec<String> = rules.iter().enumerate().map(rule).collect();
        let text = format!(
            "{ROLES}[[gate]]\nmodels = ['*']\naliases = ['prod']\n{gate}\nrules = [{}]\n",
            rules.join(", ")
        );
        self.run("root", Request::PolicySet { text }).expect("a policy");
    }

    /// `ann approves v1 as validator for 2h`, `ci fails v1 fair`, `wait 3h`, `root moves v1`, …
    fn step(&mut self, model: &ModelName, step: &str) -> Result<Report, OpsError> {
        let words: Vec<&str> = step.split(' ').collect();
        if let ["wait", time] = words[..] {
            self.now += duration::parse(time).expect("a time");
            return self.run("root", Request::Status);
        }
        if let ["policy", "none"] = words[..] {
            return self.run("root", Request::PolicySet { text: String::new() });
        }
        if let ["policy", "shut"] = words[..] {
            self.set_policy(BACK, &["false"]);
            return self.run("root", Request::Status);
        }
        // Each thing that people do takes a moment.
        self.now += SignedDuration::from_secs(2);
        let request = self.request(model, &words);
        self.run(words[0], request)
    }

    fn request(&self, model: &ModelName, words: &[&str]) -> Request {
        let [_, deed, on] = words[..3] else { panic!("{words:?}: expected WHO DOES WHAT") };
        let after = |word: &str| {
            let at = words.iter().position(|it| *it == word)?;
            Some(words[at + 1])
        };
        let reference = || {
            let at: At = on.parse().expect("a version or an alias");
            Reference { model: model.clone(), at }
        };
        let message = String::new();
        match deed {
            "approves" => Request::Approve(ApproveOptions {
                reference: reference(),
                role: after("as").map(|role| role.parse().expect("a role")),
                message,
                expires_s: after("for")
                    .map(|time| duration::parse(time).expect("a time").as_secs()),
            }),
            "revokes" => {
                let user = after("of").map(str::to_owned);
                Request::Revoke(RevokeOptions { reference: reference(), user, message })
            }
            "marks" => {
                let mark = match words[3] {
                    "bad" => Some(Mark::Bad),
                    "golden" => Some(Mark::Golden),
                    _ => None,
                };
                Request::Mark(MarkOptions { reference: reference(), mark, message })
            }
            "passes" | "fails" => {
                let subject = self.subject(reference());
                let metrics = BTreeMap::from([("gap".to_owned(), json!(0.02))]);
                let result = json!({"model": subject.model, "version": subject.version,
                    "manifest": subject.manifest, "digest": subject.digest, "name": words[3],
                    "passed": deed == "passes", "metrics": metrics, "duration_ms": 1});
                let result: CheckResult = serde_json::from_value(result).expect("a result");
                Request::Check(CheckOptions { result: Box::new(result) })
            }
            "breaks" => Request::BreakGlass(BreakGlassOptions {
                model: model.clone(),
                alias: on.parse().expect("a name"),
                reason: "INC-1".to_owned(),
            }),
            "moves" => Request::Promote(PromoteOptions {
                promotions: vec![Promotion {
                    reference: reference(),
                    alias: "prod".parse().expect("a name"),
                }],
                message,
            }),
            "rolls" => Request::Rollback(RollbackOptions {
                model: model.clone(),
                alias: "prod".parse().expect("a name"),
                to: None,
                message,
            }),
            "removes" => {
                Request::AliasRemove { model: model.clone(), alias: on.parse().expect("a name") }
            }
            other => panic!("{words:?}: nobody can do `{other}`"),
        }
    }

    fn subject(&self, reference: Reference) -> Subject {
        match self.run("root", Request::Approvals { reference }).expect("it is there") {
            Report::Vetting(report) => report.subject,
            other => panic!("expected a vetting, found {other:?}"),
        }
    }

    /// All steps but the last must work.
    #[track_caller]
    fn check(&mut self, gate: &str, rules: &[&str], steps: &str, verdict: Verdict, words: &str) {
        let model = self.model();
        self.set_policy(gate, rules);
        let mut steps: Vec<&str> = steps.split("; ").collect();
        let last = steps.pop().expect("at least one step");
        for step in &steps {
            self.step(&model, step).unwrap_or_else(|error| panic!("{step}: {error:?}"));
        }
        let (found, said) = answer(self.step(&model, last));
        if found != verdict || !said.contains(words) {
            let steps = [&steps[..], &[last]].concat().join("; ");
            self.wrong.push(format!(
                "{gate} {rules:?}, {steps}: {found:?}, {said}; expected {verdict:?}, {words}"
            ));
        }
    }

    #[track_caller]
    fn done(&self) {
        assert!(self.wrong.is_empty(), "of {} cases:\n{}", self.cases, self.wrong.join("\n"));
    }
}

/// When every table begins.
fn start() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().expect("a time")
}

fn caller(user: &str) -> Caller {
    let (_, uid) = USERS.iter().find(|(name, _)| *name == user).expect("one of them");
    let (user, door) = (user.to_owned(), Door::Cli);
    Caller { user, uid: *uid, gid: *uid, groups: Vec::new(), door }
}

fn answer(result: Result<Report, OpsError>) -> Answer {
    match result {
        Ok(Report::Retarget(report)) => {
            let step = report.moves.first().expect("it moved");
            let judged = step.judgement.as_ref().expect("prod has a gate");
            let rule =
                |it: &modelfs::format::record::RuleResult| format!("{}: {}", it.rule, it.found);
            let rules: Vec<String> = judged.rules.iter().map(rule).collect();
            (judged.verdict, rules.join(", "))
        }
        Ok(other) => (Verdict::Allowed, format!("{other:?}")),
        Err(
            error @ (OpsError::Gated { .. } | OpsError::NoRole { .. } | OpsError::Denied { .. }),
        ) => (Verdict::Refused, format!("{error}: {}", error.reasons().join("; "))),
        Err(error) => panic!("{error:?}"),
    }
}

const YES: Verdict = Verdict::Allowed;
const NO: Verdict = Verdict::Refused;

#[test]
fn what_a_version_says_of_itself_decides() {
    let table = &mut Table::new();
    let mut check = |rule: &str, version: &str, verdict, words| {
        table.check("", &[rule], &format!("root moves {version}"), verdict, words);
    };
    // Each kind of fact: fulfilled, not fulfilled, missing, of another type.
    check("metrics.auc >= 0.85", "v1", YES, "metrics.auc is 0.91");
    check("metrics.auc >= 0.85", "v2", NO, "metrics.auc is 0.8; it needs >= 0.85");
    check("metrics.f1 >= 0.85", "v1", NO, "there is no `metrics.f1`");
    check("metrics.word >= 0.85", "v1", NO, "metrics.word is 'good', which does not go together");
    check("metrics.nothing >= 0.85", "v1", NO, "null");
    check("metrics.n / metrics.zero > 1", "v1", NO, "zero");
    check("metrics.auc", "v1", NO, "neither true nor false");
    check("has(metrics.f1) || metrics.auc > 0.9", "v1", YES, "true");
    check("params.depth <= 8", "v1", YES, "params.depth is 6");
    check("params.depth < 6", "v1", NO, "params.depth is 6; it needs < 6");
    check("params.rate < 1.0", "v1", NO, "there is no `params.rate`");
    check("params.depth == 'six'", "v1", NO, "params.depth is 6");
    check("labels.team in ['risk', 'fraud']", "v1", YES, "labels.team is 'risk'");
    check("labels.team == 'fraud'", "v1", NO, "labels.team is 'risk'; it needs == 'fraud'");
    check("labels.owner == 'ann'", "v1", NO, "there is no `labels.owner`");
    check("datasets.exists(d, d.name == 'train' && d.rows >= 5)", "v1", YES, "true");
    check("datasets.all(d, d.rows > 5)", "v1", NO, "false");
    check("datasets[1].rows > 5", "v1", NO, "there is no `datasets[1]`");
    check("user.ticket.startsWith('INC-')", "v1", YES, "true");
    check("user.ticket != ''", "v2", NO, "there is no `user.ticket`");
    check("!files.exists(f, f.format == 'pickle')", "v1", YES, "true");
    check("!files.exists(f, f.format == 'pickle')", "v2", NO, "false");
    check("files.all(f, f.size < 3)", "v1", NO, "false");
    check("files_count <= 3", "v1", YES, "files_count is");
    check("message != ''", "v1", YES, "message is 'weekly'");
    check("message != ''", "v3", NO, "message is ''");
    check("sealed_by == 'sealer'", "v1", YES, "sealed_by is 'sealer'");
    check("sealed_by in ['ann', 'bob']", "v1", NO, "sealed_by is 'sealer'");
    check("age < duration('1h')", "v1", YES, "age is");
    check("age > duration('24h')", "v1", NO, "it needs > 24h0m");
    check("age > 5", "v1", NO, "does not go together with 5");
    check("now < timestamp('2026-01-01T00:00:00Z')", "v1", NO, "now is 2026-06-01");
    check("actor.user == 'root' && alias == 'prod'", "v1", YES, "true");
    check("'oncall' in actor.roles", "v1", NO, "it needs to hold 'oncall'");
    check("current == null", "v1", YES, "current is null");
    check("metrics.auc >= current.metrics.auc", "v1", NO, "current");
    check("version == 'v1' && from == null", "v1", YES, "true");
    check("warn metrics.auc > 0.99", "v1", YES, "r0: metrics.auc is 0.91");
    table.done();
}

#[test]
fn approvals_decide_as_long_as_they_hold_for_what_they_are_of() {
    let table = &mut Table::new();
    let mut check = |rule: &str, steps: &str, verdict, words| {
        table.check("", &[rule], steps, verdict, words);
    };
    check(ONE_APPROVES, "root moves v1", NO, "false");
    check(ONE_APPROVES, "ann approves v1; root moves v1", YES, "true");
    check(ONE_APPROVES, "ann approves v2; root moves v1", NO, "false");
    // The same files with another message are another version.
    check(ONE_APPROVES, "ann approves v3; root moves v1", NO, "false");
    check(ONE_APPROVES, "eve approves v1; root moves v1", NO, "false");
    check(ONE_APPROVES, "eve approves v1 as validator", NO, "does not have the role `validator`");
    check(ONE_APPROVES, "ann approves v1 for 2h; wait 1h; root moves v1", YES, "true");
    check(ONE_APPROVES, "ann approves v1 for 2h; wait 3h; root moves v1", NO, "false");
    check(ONE_APPROVES, "ann approves v1; ann revokes v1; root moves v1", NO, "false");
    check(ONE_APPROVES, "ann approves v1; root revokes v1 of ann; root moves v1", NO, "false");
    check(ONE_APPROVES, "ann approves v1; eve revokes v1 of ann", NO, "to be root");
    check(ONE_APPROVES, "ann approves v1; ann revokes v1; ann approves v1; root moves v1", YES, "");
    check(FOUR_EYES, "ann approves v1; root moves v1", NO, "1; it needs >= 2");
    check(FOUR_EYES, "ann approves v1; ann approves v1; root moves v1", NO, "1; it needs >= 2");
    check(FOUR_EYES, "ann approves v1; sealer approves v1; root moves v1", NO, "1; it needs >= 2");
    check(FOUR_EYES, "ann approves v1; bob approves v1; root moves v1", YES, "true");
    check(
        FOUR_EYES,
        "ann approves v1 for 1h; bob approves v1; wait 2h; root moves v1",
        NO,
        "1; it",
    );
    check("approvals.all(a, a.user != actor.user)", "ann approves v1; ann moves v1", NO, "false");
    check(
        "approvals.exists(a, a.age < duration('1h'))",
        "ann approves v1; wait 2h; root moves v1",
        NO,
        "",
    );
    check(
        "approvals[0].uid == 'ann'",
        "ann approves v1; root moves v1",
        NO,
        "approvals[0].uid is 501",
    );
    check("approvals[0].uid == 501", "root moves v1", NO, "there is no `approvals[0]`");
    table.done();
}

#[test]
fn checks_and_marks_decide() {
    let table = &mut Table::new();
    let mut check = |gate: &str, rule: &str, steps: &str, verdict, words| {
        table.check(gate, &[rule], steps, verdict, words);
    };
    let lenient = "failing_checks = 'allowed'";
    check("", FAIR, "root moves v1", NO, "there is no `checks['fair']`");
    check("", FAIR, "ci passes v1 fair; root moves v1", YES, "true");
    check("", FAIR, "ci passes v2 fair; root moves v1", NO, "there is no `checks['fair']`");
    check(
        "",
        FAIR,
        "ci passes v1 fair; wait 25h; root moves v1",
        NO,
        "checks['fair'].age is 25h0m",
    );
    check("", FAIR, "ci passes v1 fair; ci fails v1 fair; root moves v1", NO, "failed: `fair`");
    check(lenient, FAIR, "ci fails v1 fair; root moves v1", NO, "checks['fair'].passed is false");
    check("", FAIR, "ci fails v1 fair; ci passes v1 fair; root moves v1", YES, "true");
    check("", FAIR, "ci passes v1 fair; ci fails v1 drift; root moves v1", NO, "failed: `drift`");
    check(lenient, FAIR, "ci passes v1 fair; ci fails v1 drift; root moves v1", YES, "true");
    check("", "checks['fair'].by == 'ci'", "eve passes v1 fair; root moves v1", NO, ".by is 'eve'");
    check("", "checks['fair'].metrics.gap < 0.05", "ci passes v1 fair; root moves v1", YES, "0.02");
    check(
        "",
        "checks['fair'].metrics.gone < 1.0",
        "ci passes v1 fair; root moves v1",
        NO,
        ".gone`",
    );
    check("", "checks['fair'].metrics.gap == 'x'", "ci passes v1 fair; root moves v1", NO, "0.02");
    check("", "true", "ann marks v1 bad; root moves v1", NO, "is marked bad");
    check("", "true", "ann marks v1 bad; ann marks v1 none; root moves v1", YES, "true");
    check("", "mark == 'golden'", "ann marks v1 golden; root moves v1", YES, "mark is 'golden'");
    check("", "mark == 'golden'", "root moves v1", NO, "mark is ''");
    table.done();
}

#[test]
fn a_result_counts_for_what_was_checked_only() {
    let table = &mut Table::new();
    let model = table.model();
    let words = ["ci", "passes", "v1", "fair"];
    let Request::Check(CheckOptions { result }) = table.request(&model, &words) else {
        panic!("expected the result of a check");
    };
    let Request::Check(CheckOptions { result: other }) =
        table.request(&model, &["ci", "passes", "v2", "fair"])
    else {
        panic!("expected the result of a check");
    };
    // The number of one version with what another is made of.
    let mut forged = result.clone();
    forged.subject.manifest = other.subject.manifest;
    let error = table.run("ci", Request::Check(CheckOptions { result: forged }));
    let error = error.expect_err("another was checked").to_string();
    assert!(error.contains("is not the version that was checked"), "{error}");
    table.run("ci", Request::Check(CheckOptions { result })).expect("it was this one");
}

#[test]
fn emergencies_and_ways_back_decide() {
    let table = &mut Table::new();
    let mut check = |gate: &str, rule: &str, steps: &str, verdict, words| {
        table.check(gate, &[rule], steps, verdict, words);
    };
    let (glass, rollback) = (Verdict::BreakGlass, Verdict::Rollback);
    check(GLASS, "false", "olga moves v1", NO, "false");
    check(GLASS, "false", "olga breaks prod; olga moves v1", glass, "false");
    check(GLASS, "false", "olga breaks prod; wait 3h; olga moves v1", glass, "false");
    check(GLASS, "false", "olga breaks prod; wait 5h; olga moves v1", NO, "false");
    check(GLASS, "false", "olga breaks prod; root moves v1", NO, "false");
    check(GLASS, "false", "root breaks prod", NO, "the roles that may: oncall");
    check(GLASS, "true", "olga breaks prod; olga moves v1", YES, "true");
    check("", "false", "olga breaks prod", NO, "have no `break_glass`");
    check(GLASS, "false", "ann marks v1 bad; olga breaks prod; olga moves v1", glass, "marked bad");
    check(BACK, "true", "root moves v1; root moves v2; policy shut; root rolls back", rollback, "");
    check(BACK, "true", "root moves v1; root moves v2; policy shut; root moves v1", rollback, "");
    check(BACK, "true", "root moves v1; root moves v2; policy shut; root moves v3", NO, "false");
    check("", "false", "root moves v1", NO, "false");
    check(
        BACK,
        "true",
        "root moves v1; root moves v2; ann marks v1 bad; root moves v1",
        NO,
        "marked bad",
    );
    check(
        BACK,
        "true",
        "root moves v1; root moves v2; ci fails v1 x; root rolls back",
        NO,
        "failed: `x`",
    );
    check(
        "",
        "metrics.auc < 0.85 || from == null",
        "root moves v1; root moves v2; root rolls back",
        NO,
        "",
    );
    // What was there before there was a gate was let in as well.
    let before = "policy none; root moves v1; root moves v2; policy shut";
    check("", "true", &format!("{before}; root rolls back"), rollback, "");
    check("", "true", &format!("{before}; root moves v3"), NO, "false");
    // An emergency is no precedent.
    let both = format!("{GLASS}\n{BACK}");
    let emergency = "olga breaks prod; olga moves v1; olga moves v2; wait 5h; olga moves v1";
    check(&both, "false", emergency, NO, "false");
    check("", "true", "root moves v1; root removes prod", NO, "moved, not removed");
    check("removal = 'allowed'", "true", "root moves v1; root removes prod", YES, "");
    check(GLASS, "true", "root moves v1; olga breaks prod; olga removes prod", glass, "");
    table.done();
}
