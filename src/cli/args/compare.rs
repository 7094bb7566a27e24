//! Arguments of the commands that compare versions.

use std::path::PathBuf;

use clap::Args;

use crate::format::names::{ModelName, Reference};

/// Show what changed from one version to another
///
/// Files, tensors and metadata, of one model or of two. Tensors that are the same are told by their digests;
/// only the others are read.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs diff churn/v6 churn/v7
  modelfs diff churn/prod churn --json
  modelfs diff churn/v6 churn/v7 --markdown > comment.md
  modelfs diff churn/v6 churn/v7 --html report.html

`cat /models/churn/.diff/v6..v7` shows the same.")]
pub struct Diff {
    /// The earlier version: MODEL, MODEL/vN or MODEL/ALIAS
    #[arg(value_name = "REF")]
    pub before: Reference,
    /// The later version
    #[arg(value_name = "REF")]
    pub after: Reference,
    /// Print markdown
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Write a page with plots, which any browser shows: one file that loads nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "markdown"])]
    pub html: Option<PathBuf>,
}

/// List the versions of a model with their metrics, or plot one
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs log churn
  modelfs log churn --metric auc --metric f1 --last 20
  modelfs log churn --plot auc > auc.svg")]
pub struct Log {
    /// Name of the model
    pub model: ModelName,
    /// A metric to show, by the name that it has in metadata.json; may be repeated [default: the usual ones]
    #[arg(long, value_name = "NAME")]
    pub metric: Vec<String>,
    /// So many versions, the newest ones
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub last: Option<usize>,
    /// Print this metric over the versions as a picture, SVG
    #[arg(long, value_name = "METRIC", conflicts_with_all = ["json", "metric"])]
    pub plot: Option<String>,
}

fn parse_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count != 0);
    count.ok_or_else(|| format!("`{text}` is no count: expected a whole number from 1 on"))
}
