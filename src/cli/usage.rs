//! What clap has to say, in the words of this program.

use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::args::Arguments;
use super::failure::{EXIT_DONE, failure_with_hint};
use super::mount::Shown;
use super::say;
use crate::ops::{Failure, FailureKind};

/// Prints help or the version where that was asked for, else what is wrong with the arguments.
pub fn answer(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // `modelfs --help | head -1` is no failure.
            drop(error.print());
            ExitCode::from(EXIT_DONE)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(error.print());
            ExitCode::from(super::exit_code(FailureKind::Usage))
        }
        _ => {
            let words: Vec<OsString> = std::env::args_os().skip(1).collect();
            say(&failure_of(error, &words), shown(&words))
        }
    }
}

/// The arguments could not be read, so this looks for the one flag that says how to fail.
fn shown(words: &[OsString]) -> Shown {
    let mut flags = words.iter().take_while(|word| *word != OsStr::new("--"));
    if flags.any(|word| word == OsStr::new("--json")) { Shown::Json } else { Shown::Text }
}

fn failure_of(error: &clap::Error, words: &[OsString]) -> Failure {
    let text = error.render().to_string();
    let mut parts = text.split("\n\n");
    let first = parts.next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    // Our own validators say it better than clap does around them.
    let message = match (error.kind(), error.source()) {
        (ErrorKind::ValueValidation, Some(source)) => source.to_string(),
        _ => one_line(first).replace('\'', "`"),
    };
    // The other tip that clap has is `--` before a flag that it does not know: misleading here.
    let tips = parts.filter_map(|part| part.trim().strip_prefix("tip: "));
    let tips = tips.filter(|tip| tip.contains("similar"));
    let tip = tips.map(|tip| one_line(tip).replace('\'', "`")).next();
    let help = format!("{} --help", command_of(words));
    failure_with_hint(FailureKind::Usage, message, tip.unwrap_or(help))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The command that was meant, as far as it was understood.
fn command_of(words: &[OsString]) -> String {
    let mut command = Arguments::command();
    let mut name = command.get_name().to_owned();
    for word in words {
        if let Some(found) = command.find_subcommand(word) {
            name += &format!(" {}", found.get_name());
            command = found.clone();
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn a_usage_error_says_what_is_wrong_and_where_to_look() {
        let check = |line: &str, message: &str, hint: &str| {
            let words = std::iter::once("modelfs").chain(line.split_whitespace());
            let error = Arguments::try_parse_from(words.clone()).unwrap_err();
            let words: Vec<OsString> = words.skip(1).map(OsString::from).collect();
            let failure = failure_of(&error, &words);
            assert_eq!(failure.kind, FailureKind::Usage);
            assert!(failure.message.contains(message), "{line}: {failure:?}");
            assert_eq!(failure.hint.as_deref(), Some(hint), "{line}");
        };
        check("show", "required arguments were not provided: <REF>", "modelfs show --help");
        check("promote churn/v1 latest", "`latest` is reserved", "modelfs promote --help");
        check("list ../x", "`../x` cannot be the name of a model", "modelfs list --help");
        check("lst", "unrecognized subcommand `lst`", "a similar subcommand exists: `list`");
        check("--json alias remove churn", "not provided: <ALIAS>", "modelfs alias remove --help");
        check("list --frob", "unexpected argument `--frob` found", "modelfs list --help");
    }
}
