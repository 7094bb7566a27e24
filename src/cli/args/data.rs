//! Commands about the data that a model is trained on.

use std::path::PathBuf;

use clap::Args;

/// Say what data holds: a digest, and of tables the columns and rows
///
/// The digest is of names and contents alone, so that the same data has the same one anywhere; that of a
/// file is its BLAKE3. CSV, lines of JSON and Parquet are summed up by column; of texts only lengths are
/// told. Nothing is stored.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs fingerprint train.csv
  modelfs fingerprint data/train data/test --json
  ls /models/.by-data/$(modelfs fingerprint data/train --digest)")]
pub struct FingerprintArguments {
    /// Files and directories, each a data set
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Print the digests alone, a line each
    #[arg(long)]
    pub digest: bool,
}
