//! The interpreter that a training is going to run, asked what it is.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Subject, value_of};
use crate::capture::python::{self, ANSWER_BYTES_MAX, Answer, Question};
use crate::capture::record::RunRecord;
use crate::sys::child::{self, CommandOptions, Ending};

/// How long it may take to answer: tools that choose an environment make one first, maybe.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Records version and packages, as far as there is a Python in the command.
pub fn record(record: &mut RunRecord, subject: &Subject<'_>) {
    let path = value_of(subject.environment, "PATH").unwrap_or_default();
    let Some(question) = python::question(subject.words, subject.directory, &path) else { return };
    let Some(answer) = ask(&question, subject) else {
        record.note(format!("`{}` did not say which Python it is", question.words[0].display()));
        return;
    };
    record.put("environment", "python", answer.version());
    record.put("environment", "executable", answer.executable.clone());
    let places: Vec<PathBuf> =
        answer.path.iter().map(|place| question.directory.join(place)).collect();
    let packages = python::packages(&places);
    if packages.is_cut {
        record.note("not all packages are here: there are too many");
    }
    let versions = packages.versions.into_iter().map(|(name, it)| (name, Value::String(it)));
    record.put("environment", "packages", versions.collect::<Map<_, _>>());
}

fn ask(question: &Question, subject: &Subject<'_>) -> Option<Answer> {
    let (program, arguments) = question.words.split_first()?;
    let options = CommandOptions {
        program: program.clone(),
        arguments: arguments.to_vec(),
        directory: question.directory.clone(),
        environment: subject.environment.to_vec(),
        time_max: ANSWER_TIME_MAX,
        grace: Duration::ZERO,
        output_bytes_max: ANSWER_BYTES_MAX,
        log: None,
    };
    let report = child::run(&options, |_| {}).ok()?;
    (report.ending == Ending::Exit(0)).then(|| Answer::parse(&report.stdout))?
}
