//! Arguments of the commands that compare versions.

use clap::Args;

use crate::format::names::Reference;

/// Show what changed from one version to another
///
/// Files, tensors and metadata, of one model or of two. Tensors that are the same are told by their digests;
/// only the others are read.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs diff churn/v6 churn/v7
  modelfs diff churn/prod churn --json
  modelfs diff churn/v6 churn/v7 --markdown > comment.md

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
}
