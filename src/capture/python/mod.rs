//! Python: which interpreter a command runs, and which packages that one has.
//!
//! The interpreter is asked where it looks for packages, by whoever may run programs; the packages are
//! told by the files that installers leave (PEP 376, 610, 627), which are read here.

mod interpreter;
mod packages;
mod shell;

use std::path::PathBuf;

use serde::Deserialize;

pub use interpreter::{Question, question};
pub use packages::{Packages, packages};

/// Longest answer of an interpreter, in bytes.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What prints the answer, for Python 2.7 and later. Modules are its own ones, whatever `platform.py` lies
/// where it is started.
const SCRIPT: &str = "import os, sys; path = list(sys.path); \
                      sys.path[:] = [os.path.dirname(os.__file__)] + [it for it in path if it]; \
                      import json, platform; print(json.dumps({\
                      'version': platform.python_version(), \
                      'implementation': platform.python_implementation(), \
                      'executable': sys.executable, 'path': path}))";

/// What an interpreter says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Answer {
    version: String,
    implementation: String,
    pub executable: Option<String>,
    /// Where it looks for packages; an empty one is where it was started.
    pub path: Vec<PathBuf>,
}

impl Answer {
    /// What it printed last; others may have printed something before.
    pub fn parse(stdout: &[u8]) -> Option<Self> {
        let last = stdout.trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?;
        serde_json::from_slice(last).ok()
    }

    /// Such as `3.11.7`; those that are not CPython say so.
    pub fn version(&self) -> String {
        match self.implementation.as_str() {
            "CPython" => self.version.clone(),
            other => format!("{} ({other})", self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_answer() {
        let line = r#"{"version": "3.1", "implementation": "PyPy", "executable": "/p", "path": ["", "/x"]}"#;
        let answer = Answer::parse(format!("hello\n{line}\n").as_bytes()).unwrap();
        assert_eq!(answer.version(), "3.1 (PyPy)");
        assert_eq!(answer.path, [PathBuf::new(), PathBuf::from("/x")]);
        for bad in ["", "{}", "3.11", "{\"version\": 3}"] {
            assert_eq!(Answer::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
