//! Arguments of `inspect`.

use std::path::PathBuf;

use clap::Args;

/// Show what model files say of themselves: tensors, inputs and outputs, operators, trees, imports
///
/// Reads headers, and never runs anything: a pickle is listed opcode by opcode. What is a file on disk is
/// looked into as it is; anything else is a version, or a file or directory of one.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs inspect churn/v7
  modelfs inspect churn/v7/weights.onnx
  modelfs inspect churn/prod weights --json
  modelfs inspect ./model.pkl

`cat /models/churn/.modelfs/inspect/v7.json` shows the same for programs.")]
pub struct Inspect {
    /// A file, or MODEL, MODEL/vN or MODEL/ALIAS with or without a path in it
    #[arg(value_name = "REF|FILE")]
    pub target: PathBuf,
    /// A file or directory of the version, instead of all
    pub path: Option<PathBuf>,
    /// List every tensor
    #[arg(long)]
    pub tensors: bool,
}
