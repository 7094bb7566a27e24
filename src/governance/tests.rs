//! Tests of verdicts: one line a case, what the rules say and what the facts are.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::format::ids::TreeDigest;
use crate::format::record::{Access, Door, Outcome, Verdict};

/// The moment of every decision here.
const NOW: &str = "2026-06-01T12:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

fn version(number: u64) -> VersionFacts {
    let declared = json!({
        "metrics": {"auc": 0.91, "n": 100, "zero": 0, "label": "good", "nothing": null},
        "params": {"lr": 0.1, "seed": 7},
        "labels": {"team": "risk"},
        "datasets": [{"name": "train", "rows": 5}, {"name": "test", "rows": 2}],
    });
    let declared: BTreeMap<String, serde_json::Value> = serde_json::from_value(declared).unwrap();
    let file = |path: &str, format: &str, size| FileFact {
        path: path.to_owned(),
        size,
        format: format.to_owned(),
        sha256: "ab".repeat(32),
    };
    VersionFacts {
        version: format!("v{number}").parse().unwrap(),
        digest: TreeDigest::of(b"tree"),
        sealed_at: ago(48),
        sealed_by: "ann".to_owned(),
        message: "weekly".to_owned(),
        declared,
        files: vec![file("model.onnx", "onnx", 1_000), file("extra.pkl", "pickle", 10)],
        files_count: 2,
    }
}

pub(super) fn facts() -> Facts {
    let approval = |user: &str, uid, role: &str, hours| ApprovalFact {
        user: user.to_owned(),
        uid,
        role: role.parse().ok(),
        message: String::new(),
        at: ago(hours),
        seq: u64::from(uid),
    };
    let check = |name: &str, passed, hours| CheckFact {
        name: name.parse().unwrap(),
        passed,
        is_of_suite: name != "drift",
        at: ago(hours),
        by: "ci".to_owned(),
        metrics: BTreeMap::from([("gap".to_owned(), json!(0.02))]),
    };
    let mut current = version(7);
    current.declared.insert("metrics".to_owned(), json!({"auc": 0.92}));
    Facts {
        now: now(),
        model: "churn".parse().unwrap(),
        alias: "prod".parse().unwrap(),
        actor: "ops".to_owned(),
        roles: vec!["oncall".to_owned(), "everyone".to_owned()],
        version: Arc::new(version(8)),
        current: Some(Arc::new(current)),
        approvals: vec![
            approval("ann", 1, "validator", 5),
            approval("bob", 2, "validator", 4),
            approval("cyd", 3, "auditor", 3),
            approval("dan", 4, "", 2),
        ],
        checks: vec![
            check("fairness", true, 24),
            check("drift", false, 1),
            check("old", true, 1_000),
        ],
        mark: "",
    }
}

fn question(to: Option<u64>) -> Question<'static> {
    let model = Box::leak(Box::new("churn".parse().unwrap()));
    let alias = Box::leak(Box::new("prod".parse().unwrap()));
    let to = to.map(|number| format!("v{number}").parse().unwrap());
    let (was_allowed, is_bad, is_failing) = (false, false, false);
    let (forbidden, emergency) = (None, None);
    Question { model, alias, to, was_allowed, is_bad, is_failing, forbidden, emergency }
}

fn gate(extra: &str, rules: &[&str]) -> Policy {
    let rules: Vec<String> = rules
        .iter()
        .enumerate()
        .map(|(i, rule)| {
            let (expr, enforce) = match rule.strip_prefix("warn ") {
                Some(expr) => (expr, "warn"),
                None => (*rule, "block"),
            };
            format!("{{ name = \"r{i}\", expr = \"\"\"{expr}\"\"\", enforce = \"{enforce}\" }}")
        })
        .collect();
    let text = format!(
        "[roles.validator]\nusers = [\"ann\", \"bob\"]\n[roles.oncall]\nusers = [\"ops\"]\n\
         [roles.auditor]\ngroups = [\"77\"]\n\
         [[gate]]\nmodels = [\"churn*\"]\naliases = [\"prod\", \"prod-*\"]\nrules = [{}]\n{extra}\n",
        rules.join(", ")
    );
    Policy::parse(&text).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

fn decided(policy: &Policy, question: Question<'_>, facts: Facts) -> Decision {
    decide::<()>(policy, question, || Ok(facts)).unwrap().expect("the alias has a gate")
}

/// Whether one rule lets v8 in, and what it is said to have found.
fn check(expr: &str, passes: bool, found: &str) {
    let decision = decided(&gate("", &[expr]), question(Some(8)), facts());
    let rule = &decision.judgement.rules[0];
    assert_eq!(rule.outcome == Outcome::Passed, passes, "{expr}: {rule:?}");
    assert_eq!(decision.is_refused(), !passes, "{expr}: {decision:?}");
    assert!(rule.found.contains(found), "{expr}: found {:?}, expected {found:?}", rule.found);
    assert_eq!(decision.why.is_empty(), passes, "{expr}: {decision:?}");
}

#[test]
fn metrics_decide() {
    check("metrics.auc >= 0.85", true, "metrics.auc is 0.91");
    check("metrics.auc >= 0.95", false, "metrics.auc is 0.91");
    check("0.95 <= metrics.auc", false, "metrics.auc is 0.91");
    check("metrics.auc >= current.metrics.auc - 0.02", true, "0.91");
    check("metrics.auc > current.metrics.auc", false, "metrics.auc is 0.91");
    check("metrics.n == 100", true, "metrics.n is 100");
    check("metrics.n >= 99.5", true, "metrics.n is 100");
    check("metrics.n > 100", false, "metrics.n is 100");
    check("metrics['auc'] > 0.9", true, "metrics['auc'] is 0.91");
    check("metrics.auc > 0.9 && metrics.n > 1000", false, "metrics.n is 100");
    check("metrics.auc > 0.99 || params.seed == 7", true, "true");
    check("params.lr < 0.05", false, "params.lr is 0.1");
}

#[test]
fn what_is_missing_fails_its_rule_and_is_named() {
    check("metrics.f1 >= 0.5", false, "there is no `metrics.f1`");
    check("metrics['f1'] >= 0.5", false, "there is no `metrics['f1']`");
    check("checks['latency'].passed", false, "there is no `checks['latency']`");
    check("has(metrics.f1) && metrics.f1 > 0.5", false, "false");
    check("!has(metrics.f1) || metrics.f1 > 0.5", true, "true");
    check("labels.owner == 'risk'", false, "there is no `labels.owner`");
    check("current.metrics.f1 < metrics.auc", false, "there is no `current.metrics.f1`");
    check("datasets[5].rows > 1", false, "there is no `datasets[5]`");
    check("user.anything == 1", false, "there is no `user.anything`");
    let mut alone = facts();
    alone.current = None;
    let policy = gate("", &["metrics.auc >= current.metrics.auc"]);
    let decision = decided(&policy, question(Some(8)), alone.clone());
    assert!(decision.is_refused() && decision.why[0].contains("current"), "{decision:?}");
    let policy = gate("", &["current == null || metrics.auc >= current.metrics.auc"]);
    assert!(!decided(&policy, question(Some(8)), alone).is_refused());
}

#[test]
fn wrong_types_fail_their_rule_and_never_panic() {
    check("metrics.label >= 0.85", false, "'good'");
    check("metrics.nothing >= 1", false, "");
    check("metrics.auc", false, "neither true nor false");
    check("'yes'", false, "neither true nor false");
    check("metrics.auc + 'x' == 'y'", false, "");
    check("metrics.n / metrics.zero > 1", false, "");
    check("metrics.n % metrics.zero > 1", false, "");
    check("9223372036854775807 + metrics.n > 0", false, "");
    check("metrics.auc.deeper > 1", false, "there is no `metrics.auc.deeper`");
    check("size(metrics.n) > 1", false, "");
    check("duration('soon') > age", false, "");
    check("timestamp('never') < now", false, "");
    check("version.matches('(')", false, "");
}

#[test]
fn approvals_decide() {
    check("approvals.filter(a, a.role == 'validator').size() >= 2", true, "true");
    check("size(approvals.filter(a, a.role == 'validator')) == 3", false, "2");
    check("approvals.filter(a, a.role == 'validator')[0].user == 'ann'", true, "true");
    check(
        "approvals.filter(a, a.role == 'validator' && a.user != sealed_by).size() >= 2",
        false,
        "1",
    );
    check(
        "approvals.filter(a, a.role == 'validator' && a.user != sealed_by).size() >= 1",
        true,
        "true",
    );
    check("approvals.exists(a, a.user == sealed_by)", true, "true");
    check("!approvals.exists(a, a.user == sealed_by)", false, "false");
    check("approvals.exists(a, a.role == 'auditor' && a.age < duration('4h'))", true, "true");
    check("approvals.exists(a, a.role == 'auditor' && a.age < duration('2h'))", false, "false");
    check("approvals.all(a, a.role != '')", false, "false");
    check("approvals.size() == 4", true, "4");
    check("approvals.filter(a, a.user == actor.user).size() == 0", true, "true");
    let mut none = facts();
    none.approvals.clear();
    let policy = gate("", &["approvals.filter(a, a.role == 'validator').size() >= 1"]);
    let decision = decided(&policy, question(Some(8)), none);
    assert!(
        decision.next[0].starts_with("modelfs approve churn/v8 --as validator"),
        "{decision:?}"
    );
    assert!(decision.next[0].contains("ann, bob"), "who may is said: {decision:?}");
}

#[test]
fn checks_files_and_times_decide() {
    check("checks['fairness'].passed && checks['fairness'].age < duration('720h')", true, "true");
    check("checks['old'].passed && checks['old'].age < duration('720h')", false, "1000h");
    check("checks['drift'].passed", false, "checks['drift'].passed is false");
    check("checks['fairness'].metrics.gap < 0.05", true, "0.02");
    check("checks.all(name, checks[name].passed)", false, "false");
    check("!files.exists(f, f.format == 'pickle')", false, "false");
    check("files.exists(f, f.path.endsWith('.onnx'))", true, "true");
    check("files.all(f, f.size < 5000)", true, "true");
    check("files_count <= 2", true, "files_count is 2");
    check("age > duration('24h')", true, "age is 48h");
    check("sealed_at < timestamp('2026-01-01T00:00:00Z')", false, "2026-05-30");
    check("now.getDayOfWeek('UTC') in [1, 2, 3, 4]", true, "");
    check("'oncall' in actor.roles", true, "");
    check("'validator' in actor.roles", false, "");
    check("model.startsWith('churn') && alias == 'prod'", true, "");
    check("mark == 'golden'", false, "mark is ''");
    check("labels.team in ['risk', 'fraud']", true, "labels.team is 'risk'");
    check("datasets.exists(d, d.name == 'test' && d.rows >= 3)", false, "false");
    check("message != ''", true, "message is 'weekly'");
    check("message.matches('^INC-[0-9]+')", false, "");
    check("from == 'v7' && version == 'v8'", true, "");
}

#[test]
fn a_warning_is_kept_and_blocks_nothing() {
    let policy = gate("", &["warn metrics.auc > 0.99", "metrics.auc > 0.9"]);
    let decision = decided(&policy, question(Some(8)), facts());
    assert_eq!(decision.judgement.verdict, Verdict::Allowed);
    assert_eq!(decision.judgement.rules[0].outcome, Outcome::Warned);
    assert_eq!(decision.why.len(), 1, "{decision:?}");
}

#[test]
fn the_glass_breaks_only_while_the_window_is_open() {
    let policy = gate(
        "break_glass = { roles = [\"oncall\"], needs = \"reason\", for = \"4h\" }",
        &["metrics.auc > 0.99"],
    );
    let open = Question { emergency: Some("INC-1"), ..question(Some(8)) };
    let decision = decided(&policy, open, facts());
    assert_eq!(decision.judgement.verdict, Verdict::BreakGlass);
    assert_eq!(decision.judgement.reason, "INC-1");
    // After its time there is no reason in the question.
    assert!(decided(&policy, question(Some(8)), facts()).is_refused());
    // Where the rules hold, nothing is broken.
    let policy = gate("", &["metrics.auc > 0.9"]);
    assert_eq!(decided(&policy, open, facts()).judgement.verdict, Verdict::Allowed);
}

#[test]
fn who_has_no_role_that_may_move_it_passes_in_an_emergency_only() {
    let policy = gate("rollback = { to = \"previously-approved\" }", &["metrics.auc > 0.9"]);
    let verdict = |to, was_allowed, emergency| {
        let forbidden = Some("`move:prod` is not allowed");
        let asked = Question { forbidden, was_allowed, emergency, ..question(to) };
        let judgement = decided(&policy, asked, facts()).judgement;
        assert_eq!(judgement.rules[0].rule.as_str(), "role-may-move", "{judgement:?}");
        judgement.verdict
    };
    for to in [Some(8), None] {
        for was_allowed in [false, true] {
            assert_eq!(verdict(to, was_allowed, None), Verdict::Refused);
            assert_eq!(verdict(to, was_allowed, Some("INC-1")), Verdict::BreakGlass);
        }
    }
}

#[test]
fn who_may_break_the_glass_is_said_by_every_gate() {
    let (model, alias) = ("churn".parse().unwrap(), "prod".parse().unwrap());
    let policy =
        gate("break_glass = { roles = [\"oncall\"], needs = \"reason\", for = \"4h\" }", &[]);
    assert_eq!(policy.break_glass(&["oncall"], &model, &alias), Ok(SignedDuration::from_hours(4)));
    assert_eq!(policy.break_glass(&["owner"], &model, &alias), Err(vec!["oncall".to_owned()]));
    assert_eq!(gate("", &[]).break_glass(&["oncall"], &model, &alias), Err(Vec::new()));
}

#[test]
fn back_goes_only_to_what_was_let_in_and_is_still_good() {
    let policy = gate("rollback = { to = \"previously-approved\" }", &["metrics.auc > 0.99"]);
    let verdict = |was_allowed, is_bad, is_failing| {
        let asked = Question { was_allowed, is_bad, is_failing, ..question(Some(8)) };
        decided(&policy, asked, facts()).judgement.verdict
    };
    assert_eq!(verdict(true, false, false), Verdict::Rollback);
    assert_eq!(verdict(false, false, false), Verdict::Refused, "never let in");
    assert_eq!(verdict(true, true, false), Verdict::Refused, "marked bad since");
    assert_eq!(verdict(true, false, true), Verdict::Refused, "a check fails since");
    let lenient = "rollback = { to = \"previously-approved\" }\nfailing_checks = \"allowed\"";
    let asked = Question { was_allowed: true, is_failing: true, ..question(Some(8)) };
    let decision = decided(&gate(lenient, &["metrics.auc > 0.99"]), asked, facts());
    assert_eq!(decision.judgement.verdict, Verdict::Rollback, "the gate says that checks may fail");
    let strict = gate("", &["metrics.auc > 0.99"]);
    let asked = Question { was_allowed: true, ..question(Some(8)) };
    assert!(decided(&strict, asked, facts()).is_refused(), "the gate has no way back");
}

#[test]
fn a_bad_version_passes_no_gate() {
    let policy = gate("", &["metrics.auc > 0.9"]);
    let asked = Question { is_bad: true, ..question(Some(8)) };
    let decision = decided(&policy, asked, facts());
    assert!(decision.is_refused() && decision.why[0].contains("marked bad"), "{decision:?}");
}

#[test]
fn a_version_of_which_a_check_fails_passes_no_gate_that_does_not_say_so() {
    let asked = Question { is_failing: true, ..question(Some(8)) };
    let decision = decided(&gate("", &["metrics.auc > 0.9"]), asked, facts());
    assert!(decision.is_refused() && decision.why[0].contains("failed: `drift`"), "{decision:?}");
    // It did not come from a suite.
    assert_eq!(decision.next[0], "modelfs check record churn/v8 drift --result FILE");
    let lenient = gate("failing_checks = \"allowed\"", &["metrics.auc > 0.9"]);
    assert!(!decided(&lenient, asked, facts()).is_refused());
}

#[test]
fn a_gated_alias_is_removed_only_where_its_gates_say_so() {
    assert!(decided(&gate("", &[]), question(None), facts()).is_refused());
    let policy = gate("removal = \"allowed\"", &["false"]);
    assert!(!decided(&policy, question(None), facts()).is_refused());
    let asked = Question { emergency: Some("INC"), ..question(None) };
    assert_eq!(decided(&gate("", &[]), asked, facts()).judgement.verdict, Verdict::BreakGlass);
}

#[test]
fn an_alias_without_a_gate_is_nobodys_business() {
    let staging = "staging".parse().unwrap();
    let asked = Question { alias: &staging, ..question(Some(8)) };
    let decision = decide::<()>(&gate("", &["false"]), asked, || panic!("nobody asks for facts"));
    assert_eq!(decision, Ok(None));
}

#[test]
fn parts_that_allow_narrow_what_roles_may_do() {
    let policy = "[roles.dev]\nusers = [\"5\"]\ngroups = [\"77\"]\n\
        [[allow]]\nroles = [\"dev\"]\nmodels = [\"churn*\"]\nmay = [\"write\", \"move:staging*\"]\n\
        [[allow]]\nroles = [\"owner\"]\nmodels = [\"churn\"]\nmay = [\"snapshot\", \"move:*\"]\n";
    let policy = Policy::parse(policy).unwrap();
    let caller = |uid, gid| {
        let (user, groups, door) = (format!("u{uid}"), vec![gid], Door::Cli);
        Caller { user, uid, gid, groups, door }
    };
    let access = Access { uid: 9, gid: 9, mode: 0o700 };
    let check = |uid, gid, model: &str, power: Power, allowed: bool| {
        let roles = policy.roles_of(&caller(uid, gid), access, &|_| None);
        let permitted = permit(&policy, &roles, &model.parse().unwrap(), &power);
        assert_eq!(permitted.is_ok(), allowed, "{uid} {gid} {model} {power:?} {roles:?}");
    };
    let to = |alias: &str| Power::Move(alias.parse().unwrap());
    check(5, 1, "churn", Power::Write, true);
    check(6, 77, "churn", Power::Write, true);
    check(6, 1, "churn", Power::Write, false);
    check(5, 1, "churn", Power::Snapshot, false);
    check(9, 1, "churn", Power::Snapshot, true);
    check(9, 1, "churn-eu", Power::Snapshot, false);
    check(5, 1, "churn", to("staging-2"), true);
    check(5, 1, "churn", to("prod"), false);
    check(9, 1, "churn", to("prod"), true);
    check(0, 0, "churn", to("prod"), false);
    check(6, 1, "fraud", Power::Write, true);
    check(5, 1, "churn", Power::Mark, false);
}

#[test]
fn a_mistake_has_its_line_and_column() {
    let check = |text: &str, place: (usize, usize), why: &str| {
        let faults = Policy::parse(text).unwrap_err();
        let first = &faults[0];
        assert_eq!((first.line, first.column), place, "{text}: {faults:?}");
        assert!(first.why.contains(why), "{text}: {first:?}, expected {why}");
    };
    let gate = |rule: &str| {
        format!("[[gate]]\nmodels = [\"*\"]\naliases = [\"*\"]\nrules = [\n  {rule}\n]\n")
    };
    check("roles = 3", (1, 9), "invalid type");
    check("[[gates]]\n", (1, 3), "unknown field");
    check(
        "[[allow]]\nroles = [\"nobody\"]\nmodels = [\"*\"]\nmay = []\n",
        (2, 10),
        "no role `nobody`",
    );
    check(
        "[[allow]]\nroles = [\"owner\"]\nmodels = [\"a b\"]\nmay = []\n",
        (3, 11),
        "matches no name",
    );
    check("[[allow]]\nroles = [\"owner\"]\nmodels = [\"*\"]\nmay = [\"fly\"]\n", (4, 8), "`fly`");
    check("[roles.owner]\nusers = []\n", (1, 8), "there already");
    check(&gate("{ name = \"a\", expr = \"metric.auc > 1\" }"), (5, 24), "nothing called `metric`");
    check(&gate("{ name = \"a\", expr = \"1 +\" }"), (5, 28), "");
    check(&gate("{ name = \"a\", expr = \"system('ls')\" }"), (5, 24), "no function `system`");
    check(&gate("{ name = \"a b\", expr = \"true\" }"), (5, 12), "cannot be the name");
    check(
        &gate("{ name = \"a\", expr = \"true\" }, { name = \"a\", expr = \"true\" }"),
        (5, 43),
        "two rules",
    );
    check(&gate("{ name = \"a\", expr = 1 }"), (5, 24), "invalid type");
    let nested = "files.all(a, files.all(b, files.all(c, a.size + b.size + c.size > 0)))";
    check(&gate(&format!("{{ name = \"a\", expr = \"{nested}\" }}")), (5, 24), "loops within");
    check(
        "[[gate]]\nmodels=['*']\naliases=['*']\nbreak_glass={roles=['owner'],needs='reason',for='soon'}\n",
        (4, 49),
        "no length of time",
    );
    let long = format!("# {}", "x".repeat(POLICY_BYTES_MAX));
    check(&long, (1, 1), "at most");
    assert!(Policy::parse("").is_ok());
}

#[test]
fn what_could_take_long_is_not_begun() {
    let mut many = facts();
    let one = many.approvals[0].clone();
    many.approvals = vec![one; 5_000];
    let slow =
        gate("", &["approvals.all(a, approvals.exists(b, a.user == b.user && a.uid != b.uid))"]);
    let decision = decided(&slow, question(Some(8)), many.clone());
    assert!(decision.is_refused() && decision.why[0].contains("steps"), "{decision:?}");
    let quick = gate("", &["approvals.all(a, a.user == 'ann')"]);
    assert!(!decided(&quick, question(Some(8)), many).is_refused());
    // Doubled again and again: each by itself is small.
    let doubling =
        (0..30).fold("'aaaaaaaa'".to_owned(), |text, _| format!("[{text}].map(a, a + a)[0]"));
    let policy = format!(
        "[[gate]]\nmodels=['*']\naliases=['*']\nrules=[{{name='r',expr=\"\"\"{doubling} == ''\"\"\"}}]"
    );
    match Policy::parse(&policy) {
        Err(faults) => assert!(!faults.is_empty()),
        Ok(policy) => assert!(decided(&policy, question(Some(8)), facts()).is_refused()),
    }
}

#[test]
fn more_files_than_a_rule_can_look_at_are_no_reason_to_pass() {
    let mut large = version(8);
    large.files.clear();
    large.files_count = 1_000_000;
    let many = Facts { version: Arc::new(large), ..facts() };
    let policy = gate("", &["!files.exists(f, f.format == 'pickle')"]);
    let decision = decided(&policy, question(Some(8)), many.clone());
    assert!(decision.is_refused() && decision.why[0].contains("1000000 files"), "{decision:?}");
    assert!(!decided(&gate("", &["metrics.auc > 0.5"]), question(Some(8)), many).is_refused());
}

/// Texts that look like expressions more often than noise does.
fn expressions() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "metrics",
        ".auc",
        "approvals",
        "files",
        ".exists(",
        "a",
        ",",
        ")",
        "(",
        "[",
        "]",
        "{",
        "}",
        "&&",
        "||",
        "!",
        "==",
        ">=",
        "0.5",
        "'x'",
        "9223372036854775807",
        "+",
        "-",
        "*",
        "/",
        "%",
        "size(",
        "duration('1h')",
        "age",
        ".matches('(a+)+')",
        "current",
        "null",
        "?",
        ":",
        "in",
        ".map(",
        ".filter(",
        "has(",
        "checks['x']",
        "\"",
        "\\",
        "é",
        " ",
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_expression_makes_a_decision_panic(expr in expressions()) {
        let quoted = json!(expr).to_string();
        let text = format!("[[gate]]\nmodels=['*']\naliases=['*']\nrules=[{{name='r',expr={quoted}}}]\n");
        match Policy::parse(&text) {
            Err(faults) => prop_assert!(faults.iter().all(|fault| fault.line >= 1 && fault.column >= 1)),
            Ok(policy) => drop(decided(&policy, question(Some(8)), facts())),
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\[\\[?(roles|gate|allow)(\\.x)?\\]?\\]?\n|[a-z]+ ?= ?[\\[\\]\"'a-z*0-9{},.=\n ]{0,40}|.{0,20}\n){0,12}") {
        if let Err(faults) = Policy::parse(&text) {
            prop_assert!(!faults.is_empty());
        }
    }
}
