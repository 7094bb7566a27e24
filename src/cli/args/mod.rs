//! The command line: every command and flag, with the help that a stranger reads.

mod compare;
mod data;
mod governance;
mod inspect;
mod takeover;
mod training;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;

pub use self::compare::{Diff, Log};
pub use self::data::FingerprintArguments;
pub use self::governance::{
    Approvals, Approve, BreakGlass, Check, CheckCommand, Mark, MarkWord, Policy, PolicyCommand,
    Revoke,
};
pub use self::inspect::Inspect;
pub use self::takeover::{Export, ExportFormat, Import, Inventory};
pub use self::training::{DataPath, Run, Step, Training, Watch};
use super::config::{SIGN_KEY_VARIABLE, STORE_VARIABLE};
use super::size::parse_bytes;
use crate::format::names::{AliasName, ModelName, NameError, Reference};
use crate::ops::{Anchor, Promotion};

/// Longest key of a metric, parameter or label, in bytes.
const KEY_BYTES_MAX: usize = 256;

const OVERVIEW: &str = "\
A reference (REF) is a path as in the mount: `churn/v7` a version, `churn/prod` an alias, `churn` its latest.

Example, from nothing to a version in production and back:
  mkdir -p /models
  modelfs mount /models --background --allow-other
  mkdir /models/churn                                  make a model
  cp model.onnx /models/churn/draft/                   put the next version together
  echo \"first\" > /models/churn/snapshot                seal it: v1
  modelfs promote churn/v1 prod                        /models/churn/prod -> v1
  modelfs rollback churn prod                          back to what prod was before

Exit codes: 0 done, 1 could not, 2 usage, 3 refused by a gate or a permission, 4 no such thing,
5 busy or conflict, 6 damaged data.";

/// Versions of machine-learning models as ordinary directories
#[derive(Parser, Debug, PartialEq)]
#[command(name = "modelfs", version, after_help = OVERVIEW)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Debug, PartialEq)]
pub struct Global {
    /// The store's directory [default: /var/lib/modelfs for root, else $XDG_DATA_HOME/modelfs]
    #[arg(long, global = true, value_name = "DIR", env = STORE_VARIABLE, hide_env_values = true)]
    pub store: Option<PathBuf>,
    /// Sign each record of the history with this key: Ed25519 in PEM (PKCS#8), or of OpenSSH
    ///
    /// The key of a running daemon counts, not that of a command that speaks to it.
    #[arg(long, global = true, value_name = "FILE", env = SIGN_KEY_VARIABLE, hide_env_values = true)]
    pub sign_key: Option<PathBuf>,
    /// Print one JSON document; a failure is one on standard error
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Subcommand, Debug, PartialEq)]
pub enum Command {
    Mount(Mount),
    Umount(Umount),
    Snapshot(Snapshot),
    Run(Run),
    Watch(Watch),
    List(List),
    Show(Show),
    Inspect(Inspect),
    Diff(Diff),
    Fingerprint(FingerprintArguments),
    Log(Log),
    History(History),
    Stats(Stats),
    Status(Status),
    Promote(Promote),
    Rollback(Rollback),
    Alias(Alias),
    Approve(Approve),
    Approvals(Approvals),
    Revoke(Revoke),
    Mark(Mark),
    Check(Check),
    Policy(Policy),
    BreakGlass(BreakGlass),
    Inventory(Inventory),
    Import(Import),
    Export(Export),
    Warm(Warm),
    Verify(Verify),
    Repair(Repair),
    Debug(Debug),
}

/// Serve a store at a directory, until it is unmounted
///
/// Makes the store where there is none. Runs until `modelfs umount`, SIGTERM or Ctrl-C; snapshots
/// under way are finished first. What a killed daemon left mounted is replaced.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Example:\n  modelfs mount /models --background --allow-other")]
pub struct Mount {
    /// An empty directory
    pub mountpoint: PathBuf,
    /// Return once it is mounted; the daemon goes on and logs to daemon.log in the store
    #[arg(long)]
    pub background: bool,
    /// Let other users in, as far as the owner, group and mode of each model say
    #[arg(long)]
    pub allow_other: bool,
    /// Room for plain copies of files in use, such as 10G; 0 for none [default: a tenth of the disk, at
    /// most 50G]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub hot_bytes: Option<u64>,
    /// Room in memory for what was decoded and may be read again, such as 1G [default: 128M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub cache_bytes: Option<u64>,
    /// Set by `--background` for the process that it starts.
    #[arg(long, hide = true, conflicts_with = "background")]
    pub detached: bool,
}

/// End the daemon of a mount, or remove what a dead one left
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Example:\n  modelfs umount /models")]
pub struct Umount {
    /// The directory it is mounted at
    pub mountpoint: PathBuf,
}

/// Seal a version: of the model's draft, or of any directory or file
///
/// Without PATH all that is in the draft becomes the version, and the draft is empty afterwards.
/// With PATH the files there are read and left as they are; a model that does not exist is made.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs snapshot churn -m \"weekly retrain\" --metric auc=0.93
  modelfs snapshot churn ./out --param lr=0.01 --label team=risk --alias staging

VALUE is JSON where it is a number, true, false, null, an array or an object; else it is text.")]
pub struct Snapshot {
    /// Name of the model
    pub model: ModelName,
    /// A directory or a file to seal instead of the draft
    pub path: Option<PathBuf>,
    /// Why this version was made
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub message: String,
    /// A result, such as auc=0.93; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub metric: Vec<Pair>,
    /// A setting of the training; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub param: Vec<Pair>,
    /// Anything else worth finding it by; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub label: Vec<Pair>,
    /// A JSON object with more of its metadata: datasets, environment, interface, labels, metrics,
    /// params, parents, run, source
    #[arg(long, value_name = "FILE")]
    pub metadata: Option<PathBuf>,
    /// Point this alias to the new version in the same step
    #[arg(long, value_name = "NAME")]
    pub alias: Option<AliasName>,
}

/// List the models, or the versions of one
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:\n  modelfs list\n  modelfs list churn --json")]
pub struct List {
    /// Name of a model
    pub model: Option<ModelName>,
}

/// Show a version: who sealed it, when, why, its files and metrics
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Example:\n  modelfs show churn/prod")]
pub struct Show {
    /// The version: MODEL, MODEL/vN or MODEL/ALIAS
    #[arg(value_name = "REF")]
    pub reference: Reference,
}

/// Show who did what, when
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs history churn
  modelfs history --verify --key auditor.pub
  modelfs history --verify --head 180:5b1c…            a head that an earlier check printed")]
pub struct History {
    /// Name of a model; without one, everything
    pub model: Option<ModelName>,
    /// Check that every record is chained to the one before it, and print the newest one's digest
    #[arg(long)]
    pub verify: bool,
    /// A head that an earlier check printed: the history must still hold it
    #[arg(long, value_name = "SEQ:DIGEST", requires = "verify")]
    pub head: Option<Anchor>,
    /// The public half of a key that records are signed with: from the first one on, all must be. May be
    /// repeated, for keys that followed one another
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub key: Vec<PathBuf>,
}

/// Show how much is stored, in how little, and why
///
/// Of the whole store, or of one version.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs stats
  modelfs stats churn/prod --files

A chunk that is in several places is divided among them evenly, so that files, dtypes and codecs each
add up to the whole.")]
pub struct Stats {
    /// A version: MODEL, MODEL/vN or MODEL/ALIAS; without one, the store
    #[arg(value_name = "REF")]
    pub reference: Option<Reference>,
    /// Show what each file and each dtype takes
    #[arg(long)]
    pub files: bool,
}

/// Show how the store is doing and who serves it
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Example:\n  modelfs status --json")]
pub struct Status {}

/// Point an alias to a version
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs promote churn/v7 prod -m \"better on last week\"
  modelfs promote churn/staging prod
  modelfs promote --plan churn/v7 prod
  modelfs promote --set churn/v7=prod --set fraud/v9=prod

`ln -sfn v7 /models/churn/prod` does the same.")]
pub struct Promote {
    /// The version: MODEL, MODEL/vN or MODEL/ALIAS
    #[arg(value_name = "REF", required_unless_present = "set", requires = "alias")]
    pub reference: Option<Reference>,
    /// Name of the alias, which need not exist yet
    pub alias: Option<AliasName>,
    /// One of several moves that are made together or not at all
    #[arg(long, value_name = "REF=ALIAS", value_parser = parse_promotion)]
    #[arg(conflicts_with = "reference")]
    pub set: Vec<Promotion>,
    /// Show what would change and what each rule says to it, and move nothing
    #[arg(long)]
    pub plan: bool,
    /// Why
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub message: String,
}

/// Point an alias back to what it pointed to before, or to a given version
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs rollback churn prod
  modelfs rollback churn prod --to churn/v6 -m \"v7 is slow\"")]
pub struct Rollback {
    /// Name of the model
    pub model: ModelName,
    /// Name of the alias
    pub alias: AliasName,
    /// The version to go back to, as MODEL/vN or vN
    #[arg(long, value_name = "REF")]
    pub to: Option<String>,
    /// Why
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub message: String,
}

/// List or remove aliases; `promote` makes and moves them
#[derive(Args, Debug, PartialEq)]
#[command(disable_help_subcommand = true)]
#[command(
    after_help = "Examples:\n  modelfs alias list churn\n  modelfs alias remove churn staging"
)]
pub struct Alias {
    #[command(subcommand)]
    pub command: AliasCommand,
}

#[derive(Subcommand, Debug, PartialEq)]
pub enum AliasCommand {
    /// List the aliases of a model
    List {
        /// Name of the model
        model: ModelName,
    },
    /// Remove an alias; the version stays
    Remove {
        /// Name of the model
        model: ModelName,
        /// Name of the alias
        alias: AliasName,
    },
}

/// Make plain copies of a version's files, so that they are read as fast as any file
///
/// The copies are a cache within `--hot-bytes`: what was used least goes, versions with an alias last.
/// Moving an alias does the same in the background.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:\n  modelfs warm churn/prod\n  modelfs warm churn/v7 weights")]
pub struct Warm {
    /// The version: MODEL, MODEL/vN or MODEL/ALIAS
    #[arg(value_name = "REF")]
    pub reference: Reference,
    /// A file or directory in it, instead of all
    pub path: Option<PathBuf>,
}

/// Check the store: history, manifests, packs
///
/// Exits with 6 where anything is damaged, and says which versions it hits.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Example:\n  modelfs verify --read-data")]
pub struct Verify {
    /// Read and check every stored byte too
    #[arg(long)]
    pub read_data: bool,
}

/// Build the catalog anew from packs, manifests and history
///
/// Nothing but the catalog is changed, and nothing else is ever needed: it may be deleted at any time.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Example:\n  modelfs repair")]
pub struct Repair {}

/// Look into the files of a store, a broken one too
#[derive(Args, Debug, PartialEq)]
#[command(disable_help_subcommand = true)]
#[command(after_help = "Examples:\n  modelfs debug manifest churn/v1\n  modelfs debug catalog")]
pub struct Debug {
    #[command(subcommand)]
    pub command: DebugCommand,
}

#[derive(Subcommand, Debug, PartialEq)]
pub enum DebugCommand {
    /// Where a chunk is stored, and whether its bytes are right
    Chunk {
        /// Identifier of the chunk, 64 hexadecimal digits
        id: String,
    },
    /// What a pack holds
    Pack {
        /// Identifier of the pack, or the path of its file
        pack: String,
    },
    /// What a manifest says
    Manifest {
        /// Identifier of the manifest, the path of its file, or a reference such as churn/v1
        manifest: String,
    },
    /// What the catalog holds
    Catalog,
}

/// One `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    pub key: String,
    pub value: Value,
}

fn parse_promotion(text: &str) -> Result<Promotion, String> {
    let (reference, alias) =
        text.split_once('=').ok_or("expected REF=ALIAS, such as churn/v7=prod")?;
    let reference = reference.parse().map_err(|error: NameError| error.to_string())?;
    let alias = alias.parse().map_err(|error: NameError| error.to_string())?;
    Ok(Promotion { reference, alias })
}

/// Why a text is no `KEY=VALUE`.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    #[error("`{0}` has no `=`: expected KEY=VALUE, such as auc=0.93")]
    NoSign(String),
    #[error("the key of `{0}` has to be 1 to {KEY_BYTES_MAX} bytes without control characters")]
    Key(String),
}

fn parse_pair(text: &str) -> Result<Pair, PairError> {
    let (key, value) = text.split_once('=').ok_or_else(|| PairError::NoSign(text.to_owned()))?;
    if key.is_empty() || KEY_BYTES_MAX < key.len() || key.contains(char::is_control) {
        return Err(PairError::Key(text.to_owned()));
    }
    Ok(Pair { key: key.to_owned(), value: parse_value(value) })
}

/// JSON where the text is that, but never a string, and never where a digit would be lost.
fn parse_value(text: &str) -> Value {
    let as_text = || Value::String(text.to_owned());
    match serde_json::from_str(text) {
        Err(_) | Ok(Value::String(_)) => as_text(),
        Ok(Value::Number(number)) if number.is_f64() && is_digits(text) => as_text(),
        Ok(value) => value,
    }
}

/// A whole number: as a float it is one that 64 bits cannot hold.
fn is_digits(text: &str) -> bool {
    text.trim().trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;
    use serde_json::json;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("modelfs").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("  modelfs {}", command.get_name());
            assert!(help.contains(&example), "{}: {help:?}", command.get_name());
        }
    }

    #[test]
    fn the_command_line_is_read_as_written() {
        let model = || "churn".parse::<ModelName>().unwrap();
        let reference = |text: &str| text.parse::<Reference>().unwrap();
        let prod = || "prod".parse::<AliasName>().unwrap();
        let check = |line: &str, expected: Command| {
            assert_eq!(parse(line).unwrap_or_else(|e| panic!("{line}: {e}")).command, expected);
        };
        check("list", Command::List(List { model: None }));
        check("list churn", Command::List(List { model: Some(model()) }));
        check("show churn/prod/", Command::Show(Show { reference: reference("churn/prod") }));
        check(
            "history --verify",
            Command::History(History { model: None, verify: true, head: None, key: Vec::new() }),
        );
        check("stats", Command::Stats(Stats { reference: None, files: false }));
        let path = Some(PathBuf::from("a/b"));
        check("warm churn a/b", Command::Warm(Warm { reference: reference("churn"), path }));
        check("verify --read-data", Command::Verify(Verify { read_data: true }));
        let (set, plan, message) = (Vec::new(), false, "a".to_owned());
        let (named, alias) = (Some(reference("churn")), Some(prod()));
        check(
            "promote churn prod -ma",
            Command::Promote(Promote { reference: named, alias, set, plan, message }),
        );
        let (alias, message) = (prod(), String::new());
        let to = Some("v6".to_owned());
        check(
            "rollback churn prod --to v6",
            Command::Rollback(Rollback { model: model(), alias, to, message }),
        );
        let remove = AliasCommand::Remove { model: model(), alias: prod() };
        check("alias remove churn prod", Command::Alias(Alias { command: remove }));
        check("debug catalog", Command::Debug(Debug { command: DebugCommand::Catalog }));
        let mount = |background, detached| {
            let mountpoint = PathBuf::from("/models");
            let (allow_other, hot_bytes, cache_bytes) = (true, None, None);
            Command::Mount(Mount {
                mountpoint,
                background,
                allow_other,
                hot_bytes,
                cache_bytes,
                detached,
            })
        };
        check("mount /models --allow-other --background", mount(true, false));
        check("mount /models --allow-other --detached", mount(false, true));
        for (line, json) in [("--json stats", true), ("stats --json", true), ("stats", false)] {
            assert_eq!(parse(line).unwrap().global.json, json);
        }
        let global = parse("stats --store /s").unwrap().global;
        assert_eq!(global.store, Some(PathBuf::from("/s")));
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        let check = |line: &str, expected: ErrorKind| {
            assert_eq!(parse(line).unwrap_err().kind(), expected, "{line}");
        };
        check("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        check("frobnicate", ErrorKind::InvalidSubcommand);
        check("list a b", ErrorKind::UnknownArgument);
        check("list ../etc", ErrorKind::ValueValidation);
        check("show churn/draft", ErrorKind::ValueValidation);
        check("show", ErrorKind::MissingRequiredArgument);
        check("promote churn/v1", ErrorKind::MissingRequiredArgument);
        check("promote", ErrorKind::MissingRequiredArgument);
        check("promote churn/v1 prod --set a/v1=b", ErrorKind::ArgumentConflict);
        check("promote --set a/v1", ErrorKind::ValueValidation);
        check("approve churn/v1 --expires soon", ErrorKind::ValueValidation);
        check("mark churn/v1 awful", ErrorKind::InvalidValue);
        check("break-glass churn prod", ErrorKind::MissingRequiredArgument);
        check("promote churn/v1 latest", ErrorKind::ValueValidation);
        check("promote churn/v1 v2", ErrorKind::ValueValidation);
        check("snapshot churn --metric auc", ErrorKind::ValueValidation);
        check("mount /models --hot-bytes many", ErrorKind::ValueValidation);
        check("mount /models --cache-bytes -1", ErrorKind::UnknownArgument);
        check("snapshot churn --metric =1", ErrorKind::ValueValidation);
        check("alias remove churn", ErrorKind::MissingRequiredArgument);
        check("mount", ErrorKind::MissingRequiredArgument);
        check("mount / --background --detached", ErrorKind::ArgumentConflict);
        check("stats --hot-bytes 7", ErrorKind::UnknownArgument);
    }

    #[test]
    fn a_value_is_json_where_it_is_json_and_loses_no_digit() {
        let check = |text: &str, expected: Value| {
            let pair = parse_pair(&format!("k={text}")).unwrap();
            assert_eq!((pair.key.as_str(), pair.value), ("k", expected), "{text}");
        };
        check("0.93", json!(0.93));
        check("-7", json!(-7));
        check("18446744073709551615", json!(u64::MAX));
        check("18446744073709551616", json!("18446744073709551616"));
        check("-9223372036854775809", json!("-9223372036854775809"));
        check("1e3", json!(1000.0));
        check("1e999", json!("1e999"));
        check("007", json!("007"));
        check("NaN", json!("NaN"));
        check("true", json!(true));
        check("null", Value::Null);
        check("[1,\"a\"]", json!([1, "a"]));
        check("{\"a\":{}}", json!({"a": {}}));
        check("{a}", json!("{a}"));
        check("\"quoted\"", json!("\"quoted\""));
        check("a=b", json!("a=b"));
        check("", json!(""));
        for wrong in ["k", "", "=", "=v", "a\nb=1", &format!("{}=1", "k".repeat(257))] {
            assert!(parse_pair(wrong).is_err(), "{wrong:?}");
        }
    }
}
