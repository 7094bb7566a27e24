//! From arguments to requests: the commands that are one verb.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::args::{
    self, AliasCommand, Command, DebugCommand, MarkWord, Pair, PolicyCommand, Promote, Revoke,
    Rollback, Snapshot,
};
use super::client::Absent;
use super::failure::{failure_with_hint, of_config, of_io};
use super::{config, declared};
use crate::format::names::{At, ModelName, Reference};
use crate::format::record::Mark;
use crate::format::signature::{KEY_BYTES_MAX, PublicKey};
use crate::ops::{
    ApproveOptions, BreakGlassOptions, Failure, FailureKind, HistoryOptions, HotLimit, MarkOptions,
    POLICY_BYTES_MAX, PromoteOptions, Promotion, Request, RevokeOptions, RollbackOptions,
    SnapshotOptions, Source, StatsOptions, VerifyOptions, WarmOptions,
};

/// The request that a command stands for; `None` for those that are more than one verb.
///
/// # Errors
/// `Usage` for arguments that do not go together.
pub fn request(command: &Command) -> Result<Option<Request>, Failure> {
    Ok(Some(match command {
        Command::Mount(_)
        | Command::Umount(_)
        | Command::Run(_)
        | Command::Watch(_)
        | Command::Inspect(_)
        | Command::Diff(_)
        | Command::Fingerprint(_)
        | Command::Log(_)
        | Command::Check(_)
        | Command::Inventory(_)
        | Command::Import(_)
        | Command::Export(_)
        | Command::Show(_) => {
            return Ok(None);
        }
        Command::Debug(debug) => match debug.command {
            DebugCommand::Catalog => Request::DebugCatalog,
            _ => return Ok(None),
        },
        Command::Snapshot(snapshot) => Request::Snapshot(snapshot_options(snapshot)?),
        Command::List(list) => Request::List { model: list.model.clone() },
        Command::History(history) => Request::History(history_options(history)?),
        Command::Stats(stats) => {
            Request::Stats(StatsOptions { reference: stats.reference.clone(), files: stats.files })
        }
        Command::Status(_) => Request::Status,
        Command::Promote(promote) if promote.plan => Request::Plan(promote_options(promote)),
        Command::Promote(promote) => Request::Promote(promote_options(promote)),
        Command::Approve(approve) => Request::Approve(ApproveOptions {
            reference: approve.reference.clone(),
            role: approve.role.clone(),
            message: approve.message.clone(),
            expires_s: approve.expires.map(|time| time.as_secs()),
        }),
        Command::Approvals(approvals) => {
            Request::Approvals { reference: approvals.reference.clone() }
        }
        Command::Revoke(revoke) => Request::Revoke(revoke_options(revoke)),
        Command::Mark(mark) => Request::Mark(mark_options(mark)),
        Command::Policy(policy) => match &policy.command {
            PolicyCommand::Set { file } => Request::PolicySet { text: read_policy(file)? },
            PolicyCommand::Check { .. } => return Ok(None),
            PolicyCommand::Show => Request::PolicyShow,
        },
        Command::BreakGlass(window) => Request::BreakGlass(BreakGlassOptions {
            model: window.model.clone(),
            alias: window.alias.clone(),
            reason: window.message.clone(),
        }),
        Command::Rollback(rollback) => Request::Rollback(rollback_options(rollback)?),
        Command::Alias(alias) => match &alias.command {
            AliasCommand::List { model } => Request::AliasList { model: model.clone() },
            AliasCommand::Remove { model, alias } => {
                Request::AliasRemove { model: model.clone(), alias: alias.clone() }
            }
        },
        Command::Warm(warm) => Request::Warm(WarmOptions {
            reference: warm.reference.clone(),
            path: warm.path.clone(),
        }),
        Command::Verify(verify) => Request::Verify(VerifyOptions { read_data: verify.read_data }),
        Command::Repair(_) => Request::Repair,
    }))
}

/// Only `warm` is told to make hot files; other commands leave them to the daemon.
pub fn hot_limit(request: &Request) -> HotLimit {
    match request {
        Request::Warm(_) => HotLimit::Kept,
        _ => HotLimit::Untouched,
    }
}

/// Only a snapshot of files outside makes a store: a draft that is not there cannot be sealed.
pub fn where_absent(request: &Request) -> Absent {
    match request {
        Request::Snapshot(SnapshotOptions { source: Source::Path(_), .. }) | Request::Import(_) => {
            Absent::Create
        }
        _ => Absent::Refuse,
    }
}

fn history_options(history: &args::History) -> Result<HistoryOptions, Failure> {
    let keys = history.key.iter().map(|file| read_public_key(file));
    Ok(HistoryOptions {
        model: history.model.clone(),
        verify: history.verify,
        anchor: history.head,
        keys: keys.collect::<Result<_, _>>()?,
    })
}

fn revoke_options(revoke: &Revoke) -> RevokeOptions {
    let Revoke { reference, user, message } = revoke.clone();
    RevokeOptions { reference, user, message }
}

fn mark_options(mark: &args::Mark) -> MarkOptions {
    let (reference, message) = (mark.reference.clone(), mark.message.clone());
    let mark = match mark.mark {
        MarkWord::Bad => Some(Mark::Bad),
        MarkWord::Golden => Some(Mark::Golden),
        MarkWord::None => None,
    };
    MarkOptions { reference, mark, message }
}

fn promote_options(promote: &Promote) -> PromoteOptions {
    let Promote { reference, alias, set, message, .. } = promote;
    let one = reference.clone().zip(alias.clone());
    let one = one.map(|(reference, alias)| Promotion { reference, alias });
    let promotions = one.into_iter().chain(set.iter().cloned()).collect();
    PromoteOptions { promotions, message: message.clone() }
}

/// The text of a policy's file.
///
/// # Errors
/// `Usage` for what is no text or too long to be one.
pub fn read_policy(file: &Path) -> Result<String, Failure> {
    read_text(file, POLICY_BYTES_MAX, "modelfs policy --help")
}

fn read_public_key(file: &Path) -> Result<PublicKey, Failure> {
    let hint = "`openssl pkey -in KEY -pubout` prints one, `ssh-keygen` leaves one in KEY.pub";
    let text = read_text(file, KEY_BYTES_MAX, hint)?;
    PublicKey::parse(&text).map_err(|error| Failure {
        because: vec![error.to_string()],
        ..failure_with_hint(
            FailureKind::Usage,
            format!("cannot read the key `{}`", file.display()),
            hint,
        )
    })
}

/// The text of a file that somebody wrote for us; `hint` says what it should be.
///
/// # Errors
/// `Usage` for what is no text or longer than `bytes_max`.
pub fn read_text(file: &Path, bytes_max: usize, hint: &str) -> Result<String, Failure> {
    let what = || format!("cannot read `{}`", file.display());
    let opened = std::fs::File::open(file).map_err(|error| of_io(what(), &error))?;
    let mut text = Vec::new();
    let limit = bytes_max as u64 + 1;
    opened.take(limit).read_to_end(&mut text).map_err(|error| of_io(what(), &error))?;
    if bytes_max < text.len() {
        let why = format!("`{}` is longer than {bytes_max} bytes", file.display());
        return Err(failure_with_hint(FailureKind::Usage, why, hint));
    }
    String::from_utf8(text).map_err(|error| Failure {
        because: vec![error.to_string()],
        ..failure_with_hint(FailureKind::Usage, what(), "it has to be text in UTF-8")
    })
}

fn snapshot_options(snapshot: &Snapshot) -> Result<SnapshotOptions, Failure> {
    let declared =
        snapshot.metadata.as_deref().map(declared::read).transpose()?.unwrap_or_default();
    Ok(SnapshotOptions {
        model: snapshot.model.clone(),
        source: match &snapshot.path {
            None => Source::Draft { sub: None },
            Some(path) => Source::Path(existing(path)?),
        },
        message: snapshot.message.clone(),
        metrics: joined(declared.metrics, map("--metric", &snapshot.metric)?),
        params: joined(declared.params, map("--param", &snapshot.param)?),
        labels: joined(declared.labels, map("--label", &snapshot.label)?),
        datasets: declared.datasets,
        provenance: declared.provenance,
        captured: Map::new(),
        alias: snapshot.alias.clone(),
    })
}

/// Members of `map` under those of `more`, which count.
fn joined(map: BTreeMap<String, Value>, more: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    map.into_iter().chain(more).collect()
}

/// Looked at here as well, so that a mistyped path makes no store and no model.
fn existing(path: &Path) -> Result<std::path::PathBuf, Failure> {
    let what = || format!("cannot read `{}`", path.display());
    std::fs::metadata(path).map_err(|error| super::failure::of_io(what(), &error))?;
    config::absolute(path).map_err(|error| of_config(&error))
}

fn map(flag: &str, pairs: &[Pair]) -> Result<BTreeMap<String, Value>, Failure> {
    let mut map = BTreeMap::new();
    for pair in pairs {
        if map.insert(pair.key.clone(), pair.value.clone()).is_some() {
            let message = format!("`{flag} {}=…` is given twice", pair.key);
            return Err(failure_with_hint(FailureKind::Usage, message, "give each key once"));
        }
    }
    Ok(map)
}

fn rollback_options(rollback: &Rollback) -> Result<RollbackOptions, Failure> {
    let to = rollback.to.as_deref().map(|to| target(&rollback.model, to)).transpose()?;
    Ok(RollbackOptions {
        model: rollback.model.clone(),
        alias: rollback.alias.clone(),
        to,
        message: rollback.message.clone(),
    })
}

/// `churn/v6`, or `v6` for short, as the model is named already.
fn target(model: &ModelName, text: &str) -> Result<Reference, Failure> {
    let found = if text.contains('/') || text == model.as_str() {
        text.parse::<Reference>()
    } else {
        text.parse::<At>().map(|at| Reference { model: model.clone(), at })
    };
    let hint = "modelfs rollback --help";
    found.map_err(|e| failure_with_hint(FailureKind::Usage, e.to_string(), hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Arguments;
    use clap::Parser;
    use serde_json::json;

    fn parse(line: &str) -> Result<Option<Request>, Failure> {
        let words = std::iter::once("modelfs").chain(line.split_whitespace());
        request(&Arguments::try_parse_from(words).unwrap().command)
    }

    #[test]
    fn a_command_is_its_request() {
        let check = |line: &str, expected: Value| {
            let found = parse(line).unwrap().map(|request| serde_json::to_value(request).unwrap());
            assert_eq!(found.unwrap_or_default(), expected, "{line}");
        };
        check("mount /models", Value::Null);
        check("umount /models", Value::Null);
        check("debug pack ab", Value::Null);
        check("debug catalog", json!({"verb": "debug_catalog"}));
        check("list", json!({"verb": "list", "options": {"model": null}}));
        check(
            "stats churn --files",
            json!({"verb": "stats", "options": {"reference": "churn/latest", "files": true}}),
        );
        let rollback = |to: &str| {
            json!({"verb": "rollback", "options":
            {"model": "churn", "alias": "prod", "to": to, "message": ""}})
        };
        check("rollback churn prod --to churn/v6", rollback("churn/v6"));
        check("rollback churn prod --to v6", rollback("churn/v6"));
        check("rollback churn prod --to churn", rollback("churn/latest"));
        check(
            "snapshot churn / --metric a=1 --metric b=x",
            json!({"verb": "snapshot", "options": {
            "model": "churn", "source": {"path": "/"}, "message": "", "metrics": {"a": 1, "b": "x"},
            "params": {}, "labels": {}, "datasets": [], "provenance": {}, "alias": null}}),
        );
    }

    #[test]
    fn only_a_snapshot_of_files_makes_a_store() {
        let absent = |line: &str| where_absent(&parse(line).unwrap().unwrap());
        assert_eq!(absent("snapshot churn /"), Absent::Create);
        assert_eq!(absent("snapshot churn"), Absent::Refuse);
        assert_eq!(absent("repair"), Absent::Refuse);
    }

    #[test]
    fn what_does_not_go_together_is_a_usage_error() {
        let kind = |line: &str| parse(line).unwrap_err().kind;
        assert_eq!(kind("snapshot churn --metric a=1 --metric a=2"), FailureKind::Usage);
        assert_eq!(kind("rollback churn prod --to draft"), FailureKind::Usage);
        assert_eq!(kind("rollback churn prod --to churn/a/b"), FailureKind::Usage);
        assert_eq!(kind("snapshot churn /no/such/file"), FailureKind::NotFound);
    }
}
