//! Python libraries as judges: what modelfs says of a file is what the file's own library says.
//!
//! Each set of requirements has an environment of its own below `target`, made once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Output, require_program};

/// The libraries of model formats.
const MODELS: [&str; 10] = [
    "gguf==0.19.0",
    "joblib==1.6.0",
    "lightgbm==4.7.0",
    "ml_dtypes==0.5.4",
    "numpy==2.4.6",
    "onnx==1.23.2",
    "safetensors==0.8.0",
    "scikit-learn==1.9.1",
    "skops==0.16.0",
    "xgboost-cpu==3.2.0",
];

/// An interpreter with libraries.
pub struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// The environment with the libraries of model formats.
    pub fn models() -> Self {
        Self::with("models", &MODELS)
    }

    /// The environment called `name` with exactly these requirements, such as `numpy==2.4.6`.
    pub fn with(name: &str, requirements: &[&str]) -> Self {
        require_program("python3", "python3");
        let mut hasher = DefaultHasher::new();
        requirements.hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
        std::fs::create_dir_all(&folder).expect("a directory below `target`");
        let place = folder.join(format!("{name}-{:016x}", hasher.finish()));
        // One at a time, whichever process: the others find it made.
        let script = r#"
            [ -e "$1/ready" ] && exit 0
            place=$1
            shift
            rm -rf "$place"
            python3 -m venv "$place" || { echo "apt-get install python3-venv" >&2; exit 1; }
            "$place/bin/pip" install --quiet --disable-pip-version-check --no-input --only-binary=:all: "$@" &&
                touch "$place/ready""#;
        let mut command = Command::new("flock");
        command.arg(folder.join("lock")).args(["sh", "-c", script, "sh"]).arg(&place);
        Output::of(command.args(requirements)).ok();
        Self { interpreter: place.join("bin/python") }
    }

    /// The program.
    pub fn interpreter(&self) -> &Path {
        &self.interpreter
    }

    /// Runs a script of `tests/python`; the JSON that it prints.
    #[track_caller]
    pub fn run(&self, script: &str, arguments: &[&Path]) -> Value {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
        let mut command = Command::new(&self.interpreter);
        command.arg("-B").arg(folder.join(script)).args(arguments);
        Output::of(&mut command).ok().json()
    }
}
