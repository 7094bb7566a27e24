//! Commands that bring models in from elsewhere, and take versions out.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::format::names::Reference;

/// Find the models below a directory, and what a store would make of them
///
/// Needs no store and changes nothing: it tells formats, sizes, owners and dates, what lies there twice or is
/// nearly the same, which files are versions of one model and in which order, which are broken, which run code
/// when loaded, and what would be saved. `--plan` writes it as a plan for `modelfs import`, to be edited first.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs inventory /srv/models --plan plan.toml
  modelfs inventory /srv/models --csv > models.csv")]
pub struct Inventory {
    /// The directory to look through
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Print a line for each version and copy, with commas
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// Write a plan for `modelfs import` into a file that does not exist yet, or is empty
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
}

/// Take over what a plan says: each version is sealed and read back
///
/// What was taken over before is not taken again, so an import that was cut off goes on where it was. The plan
/// is checked before anything is done, and so is whether its files are still as they were found and can be
/// sealed. Dates, names and places are kept as labels; the files are left as they are.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs import --plan plan.toml --dry-run
  modelfs import --plan plan.toml")]
pub struct Import {
    /// A plan as `modelfs inventory --plan` writes it
    #[arg(long, value_name = "FILE")]
    pub plan: PathBuf,
    /// Check the plan and its files, and say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Leave out versions whose files changed since the plan was made, or cannot be sealed
    #[arg(long)]
    pub skip_changed: bool,
}

/// Write a version's files into a directory
///
/// With `--sha256sums` and `--format` documents about it are written there too. They name each file with its
/// digest; none is made from anything but the version.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs export churn/prod ./churn-prod --sha256sums && (cd churn-prod && sha256sum -c SHA256SUMS)
  modelfs export churn/prod ./bom --format cyclonedx --documents-only
  modelfs export churn/v7 ./signed --format model-signing --key key.pem --documents-only
  model_signing verify key /models/churn/v7 --signature signed/model.sig --public_key key.pub

Formats:
  cyclonedx      bom.cdx.json: a CycloneDX 1.6 bill of materials with a model card
  model-signing  model.sig: a signature for the tool model_signing, by a P-256 key (--key)
  mlflow         MLmodel: makes the directory one that MLflow loads")]
pub struct Export {
    /// The version: MODEL, MODEL/vN or MODEL/ALIAS
    #[arg(value_name = "REF")]
    pub reference: Reference,
    /// A directory that is empty or does not exist yet
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Write SHA256SUMS, for `sha256sum -c`
    #[arg(long)]
    pub sha256sums: bool,
    /// Write a document for another tool; may be repeated
    #[arg(long, value_name = "FORMAT")]
    pub format: Vec<ExportFormat>,
    /// The private key to sign with, a P-256 key in PEM; it stays with this command
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Leave out the files themselves
    #[arg(long)]
    pub documents_only: bool,
}

/// For which tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    #[value(name = "cyclonedx")]
    CycloneDx,
    ModelSigning,
    Mlflow,
}
