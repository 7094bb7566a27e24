//! How this program fails: one exit code a kind, one way to say it.
//!
//! Text says what could not be done, why, and what to do next, each on its own line; JSON has the same
//! as fields. Failures go to standard error, so that standard output holds an answer or nothing.

use std::io;

use serde::Serialize;

use super::config::ConfigError;
use super::table::printable;
use crate::daemon::error::DaemonError;
use crate::daemon::protocol::ProtocolError;
use crate::ops::{Failure, FailureKind};

/// All is done.
pub const EXIT_DONE: u8 = 0;

/// The exit code of a kind of failure. README.md, "Exit codes", has the same table.
pub fn exit_code(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::CouldNot => 1,
        FailureKind::Usage => 2,
        FailureKind::Refused => 3,
        FailureKind::NotFound => 4,
        FailureKind::Busy => 5,
        FailureKind::Damaged => 6,
    }
}

/// A failure that this layer found itself.
pub fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into(), because: Vec::new(), hint: None }
}

/// The same with what to do about it.
pub fn failure_with_hint(
    kind: FailureKind,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> Failure {
    Failure { hint: Some(hint.into()), ..failure(kind, message) }
}

/// Something went wrong with a call to the system.
pub fn of_io(what: impl Into<String>, error: &io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => FailureKind::Refused,
        io::ErrorKind::NotFound => FailureKind::NotFound,
        _ => FailureKind::CouldNot,
    };
    Failure { because: vec![error.to_string()], ..failure(kind, what) }
}

/// The talk with the daemon broke off.
pub fn of_protocol(error: &ProtocolError) -> Failure {
    let (message, hint) = match error {
        ProtocolError::Cut | ProtocolError::Io(_) => (
            "the daemon has gone before it answered",
            "`modelfs history` shows whether the request was done; `modelfs status` who serves now",
        ),
        ProtocolError::Long { .. } => (
            "the answer of the daemon is too long",
            "read `.modelfs/history.jsonl` in the mount instead",
        ),
        ProtocolError::Json(_) | ProtocolError::Version { .. } => (
            "the answer of the daemon cannot be understood",
            "use the same version of `modelfs` as the daemon",
        ),
    };
    Failure {
        because: vec![error.to_string()],
        ..failure_with_hint(FailureKind::CouldNot, message, hint)
    }
}

/// The path of the store cannot be told.
pub fn of_config(error: &ConfigError) -> Failure {
    let hint = "name it with `--store DIR`, or set `MODELFS_STORE`";
    match error {
        ConfigError::NoStore | ConfigError::EmptyStore => {
            failure_with_hint(FailureKind::Usage, error.to_string(), hint)
        }
        ConfigError::NoState => {
            let hint = "set `XDG_STATE_HOME` to a directory of yours";
            failure_with_hint(FailureKind::Usage, error.to_string(), hint)
        }
        ConfigError::Path { .. } => failure(FailureKind::CouldNot, error.to_string()),
    }
}

/// The daemon did not start.
pub fn of_daemon(error: &DaemonError) -> Failure {
    Failure::from(error)
}

/// What the person at the terminal reads.
pub fn render_text(failure: &Failure) -> String {
    let mut text = format!("error: {}\n", printable(&failure.message));
    for cause in &failure.because {
        text += &format!("  because: {}\n", printable(cause));
    }
    if let Some(hint) = &failure.hint {
        text += &format!("  try: {}\n", printable(hint));
    }
    text
}

/// What a program reads: one line of JSON.
pub fn render_json(failure: &Failure) -> String {
    #[derive(Serialize)]
    struct Shown<'a> {
        ok: bool,
        exit: u8,
        kind: FailureKind,
        error: &'a str,
        because: &'a [String],
        hint: Option<&'a str>,
    }
    let Failure { kind, message, because, hint } = failure;
    let (exit, hint) = (exit_code(*kind), hint.as_deref());
    let shown = Shown { ok: false, exit, kind: *kind, error: message, because, hint };
    let mut text = serde_json::to_string(&shown).expect("a failure has text keys only");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_failure_has_its_exit_code_and_its_text() {
        let check =
            |kind: FailureKind, code: u8, because: &[&str], hint: Option<&str>, text: &str| {
                let failure = Failure {
                    kind,
                    message: "cannot read `churn/prod`".to_owned(),
                    because: because.iter().map(|cause| (*cause).to_owned()).collect(),
                    hint: hint.map(str::to_owned),
                };
                assert_eq!(exit_code(kind), code);
                assert_eq!(render_text(&failure), text);
                let json: serde_json::Value = serde_json::from_str(&render_json(&failure)).unwrap();
                assert_eq!((&json["ok"], &json["exit"]), (&false.into(), &code.into()));
                assert_eq!(json["error"], "cannot read `churn/prod`");
                assert_eq!((&json["because"], &json["hint"]), (&because.into(), &hint.into()));
            };
        let first = "error: cannot read `churn/prod`\n";
        check(FailureKind::CouldNot, 1, &[], None, first);
        check(FailureKind::Usage, 2, &[], Some("x"), &format!("{first}  try: x\n"));
        let long = format!("{first}  because: a\n  because: b\n  try: c d\n");
        check(FailureKind::Refused, 3, &["a", "b"], Some("c d"), &long);
        check(FailureKind::NotFound, 4, &["a"], None, &format!("{first}  because: a\n"));
        check(FailureKind::Busy, 5, &[], None, first);
        check(
            FailureKind::Damaged,
            6,
            &["\u{1b}[2J"],
            None,
            &format!("{first}  because: \\u{{1b}}[2J\n"),
        );
    }
}
