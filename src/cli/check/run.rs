//! Running one check on one version: its command, its result, what is kept of its output.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::cli::config::{self, CHECK_RESULT_VARIABLE, CheckPlace};
use crate::cli::failure::{failure, failure_with_hint, of_io};
use crate::governance::{Check, MEASUREMENT_BYTES_MAX, Measurement};
use crate::ops::{Failure, FailureKind, OUTPUT_BYTES_MAX};
use crate::sys::child::{self, CommandOptions, CommandReport, Ending, Interrupt};
use crate::sys::process::EndSignals;

/// Bytes of the output that are looked through for what it must not show: more than are kept, so that what
/// is kept never begins within such a value.
const CAPTURE_BYTES: usize = OUTPUT_BYTES_MAX + (4 << 10);
/// A value that is shorter is no secret, and stands in the output for other reasons.
const SECRET_BYTES_MIN: usize = 8;
/// What is shown in its place.
const HIDDEN: &[u8] = b"***";
/// What stands for the beginning of a long output.
const CUT: &str = "…";

/// Runs the commands of a suite, one after the other.
pub struct Runner {
    /// Where relative paths of the suite start.
    directory: PathBuf,
    /// A directory of ours, for results and what commands leave behind.
    scratch: PathBuf,
    /// Commands so far: each has a place of its own.
    count: usize,
    /// The command that runs. Nothing is locked under it.
    running: Arc<Mutex<Option<Interrupt>>>,
}

/// What a check gave on one version.
pub struct Outcome {
    pub measurement: Measurement,
    /// Why it cannot have passed, whatever it measured.
    pub failures: Vec<String>,
    pub exit: Option<i32>,
    pub duration: Duration,
    pub output: String,
}

impl Runner {
    /// A runner that ends what runs, and removes `scratch`, when this process is told to end.
    ///
    /// # Errors
    /// Where signals cannot be held back.
    pub fn new(directory: PathBuf, scratch: PathBuf) -> Result<Self, Failure> {
        let running = Arc::new(Mutex::new(None::<Interrupt>));
        let held = EndSignals::hold();
        let signals = held.map_err(|error| of_io("cannot hold signals back", &error))?;
        let (watched, left) = (Arc::clone(&running), scratch.clone());
        thread::spawn(move || {
            while signals.wait().is_ok() {
                match &*watched.lock() {
                    Some(interrupt) => interrupt.interrupt(),
                    None => {
                        drop(fs::remove_dir_all(&left));
                        std::process::exit(i32::from(crate::cli::exit_code(FailureKind::CouldNot)));
                    }
                }
            }
        });
        Ok(Self { directory, scratch, count: 0, running })
    }

    /// Runs a check on the version `reference`, whose files are below `files`.
    ///
    /// # Errors
    /// Where the command cannot be started, or this process was told to end: nothing is known then.
    pub fn run(
        &mut self,
        check: &Check,
        reference: &str,
        files: &Path,
    ) -> Result<Outcome, Failure> {
        self.count += 1;
        let place = self.scratch.join(format!("check-{}", self.count));
        let (result, temporary) = (place.join("result"), place.join("tmp"));
        let made = fs::create_dir(&place).and_then(|()| fs::create_dir(&temporary));
        made.map_err(|error| of_io(format!("cannot make `{}`", place.display()), &error))?;
        let place = CheckPlace { files, reference, result: &result, temporary: &temporary };
        let options = self.command(check, place);
        let begun = |interrupt| *self.running.lock() = Some(interrupt);
        let report = child::run(&options, begun);
        *self.running.lock() = None;
        let report = report.map_err(|error| cannot_start(check, &options.program, &error))?;
        if report.ending == Ending::Interrupted {
            let message = format!("the check `{}` was ended before it was done", check.name);
            return Err(failure_with_hint(
                FailureKind::CouldNot,
                message,
                "nothing of it was recorded; run it again",
            ));
        }
        Ok(outcome(check, report, &result))
    }

    fn command(&self, check: &Check, place: CheckPlace<'_>) -> CommandOptions {
        let (program, arguments) = check.run.split_first().expect("a suite names a program");
        let program = match program.contains('/') {
            true => self.directory.join(program).into_os_string(),
            false => program.into(),
        };
        CommandOptions {
            program,
            arguments: arguments.iter().map(OsString::from).collect(),
            directory: self.directory.clone(),
            environment: config::check_environment(check, place),
            time_max: check.timeout,
            grace: Duration::ZERO,
            output_bytes_max: CAPTURE_BYTES,
            log: None,
        }
    }
}

fn cannot_start(check: &Check, program: &OsString, error: &io::Error) -> Failure {
    let what = format!("cannot start `{}` for the check `{}`", program.display(), check.name);
    Failure { hint: Some("nothing of it was recorded".to_owned()), ..of_io(what, error) }
}

fn outcome(check: &Check, report: CommandReport, result: &Path) -> Outcome {
    let secrets = config::passed_values(check);
    let hide = |bytes: &[u8]| hidden(bytes, &secrets);
    let found = match read_result(result) {
        Ok(None) => Ok(last_object(&report.stdout)),
        read => read,
    };
    let parsed = found.and_then(|found| found.map(|it| Measurement::parse(&hide(&it))).transpose());
    let mut failures = Vec::new();
    match report.ending {
        Ending::Exit(0) | Ending::Interrupted => {}
        Ending::Exit(status) => failures.push(format!("the command exited with {status}")),
        Ending::Signal(signal) => failures.push(format!("signal {signal} ended the command")),
        Ending::TimedOut => {
            let seconds = check.timeout.as_secs_f64();
            failures.push(format!("it took longer than {seconds} s, and was ended"));
        }
    }
    let measurement = match parsed {
        Ok(Some(measurement)) => measurement,
        Ok(None) => {
            if failures.is_empty() && !check.limits.is_empty() {
                failures.push(format!(
                    "it gave no result: no JSON object in the file ${CHECK_RESULT_VARIABLE}, nor as the last \
                     line of its output"
                ));
            }
            Measurement::default()
        }
        Err(why) => {
            failures.push(format!("its result cannot be read: {why}"));
            Measurement::default()
        }
    };
    let exit = match report.ending {
        Ending::Exit(status) => Some(status),
        Ending::Signal(_) | Ending::TimedOut | Ending::Interrupted => None,
    };
    let output = kept(&hide(&report.output), report.output_bytes);
    Outcome { measurement, failures, exit, duration: report.duration, output }
}

/// The file that a command may leave its result in; `None` where it is empty or not there.
fn read_result(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
    if !is_file {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(path).map(|file| file.take(MEASUREMENT_BYTES_MAX as u64 + 1));
    let read = opened.and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    Ok(Some(bytes).filter(|bytes| !bytes.trim_ascii().is_empty()))
}

/// The last line that is not blank, where it begins as an object does.
fn last_object(stdout: &[u8]) -> Option<Vec<u8>> {
    let last = stdout.trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?;
    let last = last.trim_ascii();
    last.starts_with(b"{").then(|| last.to_owned())
}

/// The bytes without the values of variables that were passed on: the history keeps no secrets.
fn hidden(bytes: &[u8], secrets: &[OsString]) -> Vec<u8> {
    let mut bytes = bytes.to_owned();
    for secret in secrets.iter().map(|secret| secret.as_encoded_bytes()) {
        if secret.len() < SECRET_BYTES_MIN {
            continue;
        }
        let mut at = 0;
        while let Some(found) = find(&bytes[at..], secret) {
            bytes.splice(at + found..at + found + secret.len(), HIDDEN.iter().copied());
            at += found + HIDDEN.len();
        }
    }
    bytes
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The end of an output as text, as much of it as the history takes.
fn kept(output: &[u8], bytes: u64) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim_end();
    if text.len() <= OUTPUT_BYTES_MAX && bytes <= CAPTURE_BYTES as u64 {
        return text.to_owned();
    }
    let mut start = text.len().saturating_sub(OUTPUT_BYTES_MAX - CUT.len());
    while !text.is_char_boundary(start) {
        start += 1;
    }
    format!("{CUT}{}", &text[start..])
}

/// A result that somebody gives from outside.
///
/// # Errors
/// `Usage` for what is none, or does not say whether the version passed.
pub fn read_given(path: &Path) -> Result<Measurement, Failure> {
    let what = || format!("cannot read the result `{}`", path.display());
    let opened: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(fs::File::open(path).map_err(|error| of_io(what(), &error))?),
    };
    let mut bytes = Vec::new();
    let limit = MEASUREMENT_BYTES_MAX as u64 + 1;
    opened.take(limit).read_to_end(&mut bytes).map_err(|error| of_io(what(), &error))?;
    let wrong = |why: String| Failure {
        because: vec![why],
        hint: Some("give one JSON object, such as {\"passed\": true, \"gap\": 0.02}".to_owned()),
        ..failure(FailureKind::Usage, what())
    };
    let measurement = Measurement::parse(&bytes).map_err(wrong)?;
    if measurement.passed.is_none() {
        return Err(wrong("it does not say whether the version `passed`".to_owned()));
    }
    Ok(measurement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_a_result_where_it_is_an_object() {
        let check = |stdout: &str, expected: Option<&str>| {
            let found = last_object(stdout.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{stdout}");
        };
        check("a\n{\"x\": 1}\n", Some("{\"x\": 1}"));
        check("{\"x\": 1}", Some("{\"x\": 1}"));
        check(" {\"x\": 1} \r\n\n  \n", Some("{\"x\": 1}"));
        check("{\"x\": 1}\nall well\n", None);
        check("", None);
        check("[1]\n", None);
    }

    #[test]
    fn what_was_passed_on_is_not_kept() {
        let secrets = [OsString::from("hunter22"), OsString::from("0")];
        assert_eq!(hidden(b"x hunter22hunter22 0 y", &secrets), b"x ****** 0 y");
        assert_eq!(hidden(b"hunter2", &secrets), b"hunter2");
    }

    #[test]
    fn the_end_of_an_output_fits_into_the_history() {
        assert_eq!(kept(b"a\nb\n", 4), "a\nb");
        let long = kept("é".repeat(CAPTURE_BYTES / 2).as_bytes(), 1 << 20);
        assert!(long.starts_with(CUT) && long.len() <= OUTPUT_BYTES_MAX, "{}", long.len());
        let bad = kept(&[0xff; CAPTURE_BYTES], CAPTURE_BYTES as u64);
        assert!(bad.len() <= OUTPUT_BYTES_MAX, "{}", bad.len());
    }
}
