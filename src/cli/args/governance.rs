//! Commands about who may do what, and which version is fit for what.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::format::duration;
use crate::format::names::{AliasName, Label, ModelName, Reference};

/// Approve a version: say, as yourself, that it is fit
///
/// Rules of the policy may ask for it before an alias moves. It holds for this version alone, and a
/// later approval of the same user replaces it.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs approve churn/v8 -m \"looked at the drift report\"
  modelfs approve churn/v8 --as validator --expires 30d

`echo approve > /models/churn/.modelfs/approve/v8` does the same.")]
pub struct Approve {
    /// The version: MODEL, MODEL/vN or MODEL/ALIAS
    #[arg(value_name = "REF")]
    pub reference: Reference,
    /// Why
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub message: String,
    /// In which role, for who has several
    #[arg(long = "as", value_name = "ROLE")]
    pub role: Option<Label>,
    /// For how long it holds, such as 30d
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub expires: Option<SignedDuration>,
}

/// Show who approved a version, what checks of it gave, how it is marked
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Example:\n  modelfs approvals churn/v8")]
pub struct Approvals {
    /// The version: MODEL, MODEL/vN or MODEL/ALIAS
    #[arg(value_name = "REF")]
    pub reference: Reference,
}

/// Take your approval of a version back
///
/// What has been moved because of it stays where it is.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(
    after_help = "Examples:\n  modelfs revoke churn/v8 -m \"wrong test set\"\n  modelfs revoke churn/v8 --user ann"
)]
pub struct Revoke {
    /// The version: MODEL, MODEL/vN or MODEL/ALIAS
    #[arg(value_name = "REF")]
    pub reference: Reference,
    /// Whose approval; that of another only for the owner of the mount's root
    #[arg(long)]
    pub user: Option<String>,
    /// Why
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub message: String,
}

/// Mark a version bad or golden
///
/// A bad version passes no gate, and rollback goes past it.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs mark churn/v7 bad -m \"scores drift after a week\"
  modelfs mark churn/v7 none")]
pub struct Mark {
    /// The version: MODEL, MODEL/vN or MODEL/ALIAS
    #[arg(value_name = "REF")]
    pub reference: Reference,
    pub mark: MarkWord,
    /// Why
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub message: String,
}

/// What a version can be marked as.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum MarkWord {
    Bad,
    Golden,
    /// Take the mark away
    None,
}

/// Check a version: run commands on it, and record what they found
///
/// The commands of a suite run one after the other as you, in the suite's directory, on the version's files
/// in the mount, or on a copy of them where there is no mount. Each has a time limit. Results are compared
/// with the limits in the suite, and with the version in an alias. Exits with 3 if a check does not pass:
/// then the gates of aliases are shut to the version until it does.
#[derive(Args, Debug, PartialEq)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(disable_help_subcommand = true)]
#[command(after_help = "Examples:
  modelfs check churn/v8 --suite tests/churn.toml
  modelfs check record churn/v8 fairness --result fairness.json

A suite, in TOML:
  [[check]]
  name = \"accuracy\"
  run = [\"python3\", \"evaluate.py\"]    a program and its arguments
  timeout = \"10m\"                     less than a day; this is the default
  against = \"prod\"                    run it on this alias's version too, and compare
  metrics = { auc = { min = 0.85, max_drop = 0.01 }, latency_ms = { max = 40, max_rise = 5 } }
  env = { TZ = \"UTC\" }                variables beside PATH, HOME, LANG and TMPDIR
  pass = [\"CUDA_VISIBLE_DEVICES\"]     variables of yours that it gets

A command finds the files at $MODELFS_PATH. Its result is one JSON object, such as {\"auc\": 0.91}:
what it writes to the file $MODELFS_RESULT, or the last line that it prints. In it, `passed` (true
or false) and `why` mean themselves.")]
pub struct Check {
    /// The version: MODEL, MODEL/vN or MODEL/ALIAS
    #[arg(value_name = "REF", required = true)]
    pub reference: Option<Reference>,
    /// What to run, a file of TOML
    #[arg(long, value_name = "FILE", default_value = "checks.toml")]
    pub suite: PathBuf,
    #[command(subcommand)]
    pub command: Option<CheckCommand>,
}

#[derive(Subcommand, Debug, PartialEq)]
pub enum CheckCommand {
    /// Record the result of a check that ran elsewhere
    Record {
        /// The version: MODEL, MODEL/vN or MODEL/ALIAS
        #[arg(value_name = "REF")]
        reference: Reference,
        /// Name of the check
        name: Label,
        /// One JSON object with `passed`, such as {"passed": true, "gap": 0.02}; `-` for standard input
        #[arg(long, value_name = "FILE")]
        result: PathBuf,
    },
}

/// Set, check or show the policy: who may do what, and what a version must be for an alias
#[derive(Args, Debug, PartialEq)]
#[command(disable_help_subcommand = true)]
#[command(after_help = "Examples:
  modelfs policy check policy.toml
  modelfs policy set policy.toml
  modelfs policy show")]
pub struct Policy {
    #[command(subcommand)]
    pub command: PolicyCommand,
}

#[derive(Subcommand, Debug, PartialEq)]
pub enum PolicyCommand {
    /// Put a policy in force; an empty file takes all rules away
    Set {
        /// A file of TOML
        file: PathBuf,
    },
    /// Look for mistakes in a policy, and change nothing
    Check {
        /// A file of TOML
        file: PathBuf,
    },
    /// Print the policy in force
    Show,
}

/// Pass the gates of an alias for a while, in an emergency
///
/// Only for roles that the policy names for it. The reason and every move are recorded.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Example:
  modelfs break-glass churn prod -m \"v8 answers nonsense, INC-4711\"
  modelfs promote churn/v6 prod")]
pub struct BreakGlass {
    /// Name of the model
    pub model: ModelName,
    /// Name of the alias
    pub alias: AliasName,
    /// What the emergency is
    #[arg(short, long)]
    pub message: String,
}
