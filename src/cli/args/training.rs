//! Commands that run a training.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::size::parse_bytes;
use crate::format::duration;
use crate::format::names::{AliasName, ModelName};

/// Longest name of a step or a role, in bytes.
const WORD_BYTES_MAX: usize = 256;

/// What both commands are told of the training.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct Training {
    /// Data that it reads, a file or directory: its fingerprint is recorded. May be repeated, with what the
    /// data is for in front, as in train=data/train.csv
    #[arg(long, value_name = "[ROLE=]PATH", value_parser = parse_data)]
    pub data: Vec<DataPath>,
    /// How that data was made, and with which file, as in dedupe:prep.py. May be repeated, in the order of
    /// the steps
    #[arg(long, value_name = "NAME[:FILE]", value_parser = parse_step, requires = "data")]
    pub step: Vec<Step>,
    /// What it belongs to [default: MLFLOW_EXPERIMENT_NAME and its like]
    #[arg(long, value_name = "NAME")]
    pub experiment: Option<String>,
}

/// Run a training, record how it was done, and seal what it made
///
/// The command writes into the model's draft in the mount, which it finds in MODELFS_DRAFT; with --output,
/// into that directory. Recorded are the command, the state of the Git repository, the interpreter and its
/// packages, machine, data, seeds, times and the exit status; values that look like secrets are not. The
/// exit status is that of the command, or 128 and the number of the signal that ended it. Signals are passed
/// on to it. What it made is sealed where it exits with 0 and nothing asked it to end before. Without
/// --seal-on-success, or without success, what was made is left where it is, with the record beside it as
/// modelfs-run.json: it counts when somebody seals that.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs run --model churn --seal-on-success -- python train.py --lr 0.01
  modelfs run --model churn --data train=data/train.csv --step dedupe:prep.py \\
      --output out --seal-on-success -- ./train.sh
  modelfs run --model churn -- ./train.sh && echo good > /models/churn/snapshot

What the command prints stays as it is; what this one has to say goes to standard error. With --json a
report goes to standard output, and the command's own output to standard error.")]
pub struct Run {
    /// Name of the model [default: that of the Git repository's directory, else of the current one]
    #[arg(long, value_name = "NAME")]
    pub model: Option<ModelName>,
    #[command(flatten)]
    pub training: Training,
    /// Where the command writes, instead of the draft: this directory is sealed, and left as it is
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Start although the draft holds something: that is sealed too
    #[arg(long, conflicts_with = "output")]
    pub add: bool,
    /// Seal what was made where the command exits with 0
    #[arg(long)]
    pub seal_on_success: bool,
    /// Why [default: the command]
    #[arg(short, long, requires = "seal_on_success")]
    pub message: Option<String>,
    /// Point this alias to the new version, in the same step
    #[arg(long, value_name = "NAME", requires = "seal_on_success")]
    pub alias: Option<AliasName>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Train each new commit of a branch, and seal what it makes
///
/// Each commit is checked out into a directory of its own, and the command runs there; it finds in
/// MODELFS_DRAFT where to write. Where it exits with 0 that is sealed, with all that `modelfs run` records and
/// the commit's subject as the message; else its output is kept as a log. The first start trains the commit
/// that the branch is at. Later ones, after a kill too, go on with the oldest commit that is not done. Of merges the
/// first parent counts; of a branch that was written anew, its last commit. Nothing is fetched: have
/// `git fetch` do that, and watch `origin/main`.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Example:
  modelfs watch --repo ~/src/churn --ref main --model churn -- ./train.sh

One watch of a model runs at a time. What it did, and the logs, are in $XDG_STATE_HOME/modelfs/watch, else
~/.local/state/modelfs/watch. Prints a line for each commit; with --json, an object.")]
pub struct Watch {
    /// The Git repository, with a working tree or without
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub repo: PathBuf,
    /// The branch
    #[arg(long = "ref", value_name = "NAME", default_value = "HEAD")]
    pub reference: String,
    /// Name of the model
    #[arg(long, value_name = "NAME")]
    pub model: ModelName,
    #[command(flatten)]
    pub training: Training,
    /// Where the command writes, a directory relative to the check-out
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Point this alias to each new version, in the same step
    #[arg(long, value_name = "NAME")]
    pub alias: Option<AliasName>,
    /// How often the branch is looked at
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub interval: Duration,
    /// How long one training may take
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_time)]
    pub timeout: Duration,
    /// Room on disk that one training may take, its check-out included
    #[arg(long, value_name = "BYTES", default_value = "100G", value_parser = parse_bytes)]
    pub disk_bytes: u64,
    /// How much of the output of one training is kept
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = parse_bytes)]
    pub log_bytes: u64,
    /// End when nothing is left to do; exit with 1 where a commit failed
    #[arg(long)]
    pub once: bool,
    /// Count the commit as failed that an earlier start did not finish
    #[arg(long)]
    pub give_up: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Data, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPath {
    pub role: Option<String>,
    pub path: PathBuf,
}

/// A step of preprocessing, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub name: String,
    pub file: Option<PathBuf>,
}

/// A word before the first `=` is a role; a path that has one there begins with `./`.
fn parse_data(text: &str) -> Result<DataPath, String> {
    let is_word = |word: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        (1..=WORD_BYTES_MAX).contains(&word.len()) && word.chars().all(plain)
    };
    let (role, path) = match text.split_once('=').filter(|(word, _)| is_word(word)) {
        Some((role, path)) => (Some(role.to_owned()), path),
        None => (None, text),
    };
    if path.is_empty() {
        return Err(format!("`{text}` names no data: expected a path, or ROLE=PATH"));
    }
    Ok(DataPath { role, path: path.into() })
}

fn parse_step(text: &str) -> Result<Step, String> {
    let (name, file) = match text.split_once(':') {
        Some((name, file)) => (name, Some(file)),
        None => (text, None),
    };
    let is_long = WORD_BYTES_MAX < name.len();
    if name.is_empty() || is_long || name.contains(char::is_control) || file == Some("") {
        return Err(format!("`{text}` is no step: expected NAME or NAME:FILE, as dedupe:prep.py"));
    }
    Ok(Step { name: name.to_owned(), file: file.map(PathBuf::from) })
}

fn parse_time(text: &str) -> Result<Duration, String> {
    duration::parse(text).map(|time| time.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_may_say_what_it_is_for() {
        let check = |text: &str, role: Option<&str>, path: &str| {
            let expected = DataPath { role: role.map(str::to_owned), path: path.into() };
            assert_eq!(parse_data(text), Ok(expected));
        };
        check("data/train.csv", None, "data/train.csv");
        check("train=data/a=b.csv", Some("train"), "data/a=b.csv");
        check("./a=b", None, "./a=b");
        check("data/lr=1/x", None, "data/lr=1/x");
        assert!(parse_data("").is_err() && parse_data("train=").is_err());
    }

    #[test]
    fn a_step_may_name_its_file() {
        let step = |name: &str, file: Option<&str>| {
            Ok(Step { name: name.to_owned(), file: file.map(PathBuf::from) })
        };
        assert_eq!(parse_step("dedupe:src/prep.py"), step("dedupe", Some("src/prep.py")));
        assert_eq!(parse_step("normalise by hand"), step("normalise by hand", None));
        for bad in ["", ":x", "a:", "a\nb"] {
            assert!(parse_step(bad).is_err(), "{bad}");
        }
    }
}
