//! Commands that bring models in from elsewhere, and take versions out.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::format::names::Reference;

/// Write a version's files into a directory
///
/// With `--sha256sums` and `--format` documents about it are written there too. They name each file with its
/// digest; none is made from anything but the version.
#[derive(Args, Debug, PartialEq)]
#[command(after_help = "Examples:
  modelfs export churn/prod ./churn-prod --sha256sums && (cd churn-prod && sha256sum -c SHA256SUMS)
  modelfs export churn/prod ./bom --format cyclonedx --documents-only
  modelfs export churn/v7 ./signed --format model-signing --sign-key key.pem --documents-only
  model_signing verify key /models/churn/v7 --signature signed/model.sig --public_key key.pub

Formats:
  cyclonedx      bom.cdx.json: a CycloneDX 1.6 bill of materials with a model card
  model-signing  model.sig: a signature for the tool model_signing, by a P-256 key (--sign-key)
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
    pub sign_key: Option<PathBuf>,
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
