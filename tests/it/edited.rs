//! Bytes of a checkpoint that somebody turned, with all its checks made to fit: nothing panics, and no answer
//! is wrong that `verify` does not tell of.

use std::fs;
use std::sync::Arc;

use jiff::Timestamp;
use modelfs::ops::{
    HotLimit, NoProgress, OpenOptions, OpsError, Report, Request, VerifyOptions, Workspace,
};
use modelfs::sys::io::Real;
use serde_json::json;

use crate::checkpoint::{checkpoint, newest, record};
use crate::forged::{forge, store};
use crate::harness::Bench;
use crate::tamper::context;

/// Bytes between two that are turned.
const STEP: usize = 31;

fn open(bench: &Bench) -> Result<Workspace, OpsError> {
    let options = OpenOptions {
        directory: bench.store.clone(),
        create: false,
        holder: "edited".to_owned(),
        cache_bytes: 1 << 20,
        hot_limit: HotLimit::Untouched,
        clock: Timestamp::now,
        signer: None,
    };
    Workspace::open(options, Arc::new(Real), Timestamp::now(), &context().caller)
}

fn run(workspace: &Workspace, request: serde_json::Value) -> Result<Report, OpsError> {
    let request: Request = serde_json::from_value(request).expect("a request");
    workspace.run(&context(), request, &NoProgress)
}

/// All that a store says of itself, but for what it says as a whole.
fn answers(workspace: &Workspace) -> Vec<String> {
    let mut requests = vec![
        json!({"verb": "list", "options": {"model": null}}),
        json!({"verb": "policy_show"}),
        json!({"verb": "history", "options": {"model": null, "verify": false, "anchor": null}}),
    ];
    for model in ["churn", "fraud"] {
        let log = json!({"model": model, "metrics": [], "last": null});
        let history = json!({"model": model, "verify": false, "anchor": null});
        let moves = json!({"promotions": [{"reference": format!("{model}/v1"), "alias": "prod"}], "message": ""});
        requests.extend([
            json!({"verb": "list", "options": {"model": model}}),
            json!({"verb": "alias_list", "options": {"model": model}}),
            json!({"verb": "show", "options": {"reference": model}}),
            json!({"verb": "approvals", "options": {"reference": format!("{model}/v2")}}),
            json!({"verb": "approvals", "options": {"reference": format!("{model}/v1")}}),
            json!({"verb": "log", "options": log}),
            json!({"verb": "history", "options": history}),
            json!({"verb": "plan", "options": moves}),
        ]);
    }
    requests.into_iter().map(|request| format!("{:?}", run(workspace, request))).collect()
}

/// Has it change what it holds, whatever comes of it.
fn change(workspace: &Workspace) {
    for model in ["churn", "fraud"] {
        let moves = json!({"promotions": [{"reference": format!("{model}/v1"), "alias": "qa"}], "message": ""});
        let subject = format!("{model}/v2");
        let approval =
            json!({"reference": subject, "role": null, "message": "", "expires_s": null});
        let back = json!({"model": model, "alias": "prod", "to": null, "message": ""});
        let requests = [
            json!({"verb": "promote", "options": moves}),
            json!({"verb": "approve", "options": approval}),
            json!({"verb": "rollback", "options": back}),
            json!({"verb": "alias_remove", "options": {"model": model, "alias": "prod"}}),
        ];
        requests.into_iter().for_each(|request| drop(run(workspace, request)));
    }
}

#[test]
fn whatever_byte_of_a_checkpoint_was_turned_nothing_panics_and_verify_tells() {
    let bench = store();
    let kept = fs::read(checkpoint(&bench)).expect("a checkpoint");
    let last = newest(&bench);
    let expected = answers(&open(&bench).expect("a good store"));
    let mut parts = Vec::new();
    forge(&checkpoint(&bench), |it| parts = it.models.iter().map(|(_, body)| body.len()).collect());
    // The index, about.
    parts.push(kept.len());
    let (mut same, mut told) = (0, 0);
    for (part, bytes) in parts.iter().enumerate() {
        for at in (0..*bytes).step_by(STEP) {
            let bits = 1 << (at / STEP % 8);
            fs::write(checkpoint(&bench), &kept).expect("it is ours");
            forge(&checkpoint(&bench), |it| match it.models.get_mut(part) {
                Some((_, body)) => body[at] ^= bits,
                None => it.flip = Some((at, bits)),
            });
            let what = format!("byte {at} of part {part}");
            // The history is there: nothing in its cache can keep a store from opening.
            let workspace = open(&bench).unwrap_or_else(|error| panic!("{what}: {error}"));
            let found = answers(&workspace);
            let verify = json!({"verb": "verify", "options": VerifyOptions { read_data: false }});
            match run(&workspace, verify).expect("it can look") {
                Report::Verify(report) if report.damage.is_empty() => {
                    assert_eq!(found, expected, "{what}");
                    same += 1;
                }
                _ => told += 1,
            }
            change(&workspace);
            drop(workspace);
            (last + 1..)
                .map(|seq| record(&bench, seq))
                .take_while(|it| fs::remove_file(it).is_ok())
                .for_each(drop);
        }
    }
    assert!(20 < same && 5 < told, "{same} the same, {told} told");
}
