//! What people write to say who may do what: policies, expressions, suites, results, commands.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use modelfs::format::ids::TreeDigest;
use modelfs::format::names::{AliasName, ModelName, Reference, VersionNumber};
use modelfs::format::record::Verdict;
use modelfs::format::signature::{PublicKey, Signer};
use modelfs::fs::{Deed, parse_deed};
use modelfs::governance::{
    ApprovalFact, CheckFact, Facts, Fault, FileFact, Measurement, Policy, Question, Suite,
    VersionFacts, decide,
};
use serde_json::json;

/// A policy: refused with the place of each mistake, or one that decides about any facts.
pub fn fuzz_policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Policy::parse(text) {
        Err(faults) => assert_placed(text, &faults),
        Ok(policy) => {
            let roles: Vec<&str> = policy.role_names().collect();
            assert_eq!(policy.digest, Policy::parse(text).expect("as before").digest);
            for (to, emergency) in [(Some(VersionNumber::FIRST), None), (None, Some("INC-1"))] {
                judge(&policy, to, emergency);
            }
            roles.iter().for_each(|role| drop(policy.members(role)));
        }
    }
}

/// An expression, as the only rule of a gate: a verdict, and a reason where it is against the version.
pub fn fuzz_expression(bytes: &[u8]) {
    let Ok(expression) = std::str::from_utf8(bytes) else { return };
    let quoted = toml_string(expression);
    let text = format!(
        "[[gate]]\nmodels = ['*']\naliases = ['*']\nrules = [{{ name = 'r', expr = {quoted} }}]\n"
    );
    match Policy::parse(&text) {
        Err(faults) => assert_placed(&text, &faults),
        Ok(policy) => judge(&policy, Some(VersionNumber::FIRST), None),
    }
}

/// A suite: refused with the place of each mistake, or checks that can be run.
pub fn fuzz_suite(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Suite::parse(text) {
        Err(faults) => assert_placed(text, &faults),
        Ok(suite) => {
            assert!(!suite.checks.is_empty());
            for check in &suite.checks {
                assert!(!check.run[0].is_empty() && !check.timeout.is_zero());
                let result = Measurement::parse(br#"{"auc": 0.9}"#).expect("a result");
                drop(result.failures(&check.limits, Some((&result, "itself"))));
            }
        }
    }
}

/// The result of a check, the text of a key, and what is written to the file of a version.
pub fn fuzz_command(bytes: &[u8]) {
    let reference: Reference = "m/v1".parse().expect("a reference");
    for deed in Deed::ALL {
        if let Err(error) = parse_deed(deed, reference.clone(), bytes) {
            assert!(!error.explanation().is_empty());
        }
    }
    if let Ok(result) = Measurement::parse(bytes) {
        static LIMITS: LazyLock<Suite> = LazyLock::new(|| {
            let text = "[[check]]\nname = 'a'\nrun = ['x']\nagainst = 'prod'\n\
                        metrics = { a = { min = 0, max = 1, max_drop = 0, max_rise = 0 } }\n";
            Suite::parse(text).expect("a suite")
        });
        let failures = result.failures(&LIMITS.checks[0].limits, Some((&result, "itself")));
        assert!(failures.len() < 32);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(Signer::parse(text));
        drop(PublicKey::parse(text));
    }
}

fn judge(policy: &Policy, to: Option<VersionNumber>, emergency: Option<&str>) {
    static MODEL: LazyLock<ModelName> = LazyLock::new(|| "churn".parse().expect("a name"));
    static ALIAS: LazyLock<AliasName> = LazyLock::new(|| "prod".parse().expect("a name"));
    let question = Question {
        model: &MODEL,
        alias: &ALIAS,
        to,
        was_allowed: false,
        is_bad: false,
        is_failing: false,
        forbidden: None,
        emergency,
    };
    let decided = decide::<()>(policy, question, || Ok(facts())).expect("facts are at hand");
    let Some(decision) = decided else { return };
    let is_refused = decision.judgement.verdict == Verdict::Refused;
    assert!(!is_refused || !decision.why.is_empty(), "a refusal has its reason");
    for rule in &decision.judgement.rules {
        assert!(rule.found.chars().count() <= 4_096, "a record has room for it");
    }
}

fn facts() -> Facts {
    static VERSION: LazyLock<Arc<VersionFacts>> = LazyLock::new(|| {
        let declared = json!({
            "metrics": {"auc": 0.91, "n": 100, "zero": 0, "word": "good", "nothing": null},
            "params": {"depth": 6}, "labels": {"team": "risk"},
            "datasets": [{"name": "train", "rows": 5}], "user": {"ticket": "INC-7"},
        });
        let declared = serde_json::from_value(declared).expect("an object");
        let file = |path: &str, format: &str| FileFact {
            path: path.to_owned(),
            size: 4_096,
            format: format.to_owned(),
            sha256: "ab".repeat(32),
        };
        Arc::new(VersionFacts {
            version: VersionNumber::FIRST,
            digest: TreeDigest::of(b""),
            sealed_at: Timestamp::UNIX_EPOCH,
            sealed_by: "ann".to_owned(),
            message: "weekly".to_owned(),
            declared,
            files: vec![file("model.onnx", "onnx"), file("a/model.pkl", "pickle")],
            files_count: 2,
        })
    });
    let approval = |user: &str, uid| ApprovalFact {
        user: user.to_owned(),
        uid,
        role: Some("validator".parse().expect("a name")),
        message: String::new(),
        at: Timestamp::UNIX_EPOCH,
        seq: 7,
    };
    let check = CheckFact {
        name: "fairness".parse().expect("a name"),
        passed: true,
        is_of_suite: true,
        at: Timestamp::UNIX_EPOCH,
        by: "ci".to_owned(),
        metrics: BTreeMap::from([("gap".to_owned(), json!(0.02))]),
    };
    Facts {
        now: "2026-06-01T12:00:00Z".parse().expect("a time"),
        model: "churn".parse().expect("a name"),
        alias: "prod".parse().expect("a name"),
        actor: "root".to_owned(),
        roles: vec!["owner".to_owned(), "everyone".to_owned()],
        version: Arc::clone(&VERSION),
        current: Some(Arc::clone(&VERSION)),
        approvals: vec![approval("ann", 1), approval("bob", 2)],
        checks: vec![check],
        mark: "",
    }
}

/// Each mistake is at a place that the text has, and says what it is.
fn assert_placed(text: &str, faults: &[Fault]) {
    assert!(!faults.is_empty());
    for Fault { line, column, why } in faults {
        let found = text.split('\n').nth(*line - 1).unwrap_or_else(|| panic!("line {line}"));
        assert!(*column <= found.chars().count() + 1, "column {column} of {found:?}");
        assert!(!why.trim().is_empty());
    }
}

/// A text in quotes, as TOML has it.
fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            plain => quoted.push(plain),
        }
    }
    quoted + "\""
}
