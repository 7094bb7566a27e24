//! The command line: arguments to requests, reports to text, failures to exit codes.
//!
//! The only layer that prints. An answer goes to standard output, whole or not at all, unless it is a list of
//! very many files; failures, progress and the log go to standard error.

pub mod args;
mod check;
mod client;
pub mod config;
mod debug;
mod declared;
mod describe;
mod diff;
mod export;
pub mod failure;
mod fingerprint;
mod governance;
mod inspect;
mod key;
mod mount;
mod progress;
mod render;
mod show;
mod size;
mod sources;
mod stats;
mod takeover;
mod training;
mod umount;
mod usage;
mod verbs;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use self::args::{Arguments, Command, Policy, PolicyCommand};
use self::client::{Client, StorePlace};
use self::failure::{EXIT_DONE, exit_code, failure, failure_with_hint, of_config, of_io};
use self::mount::Shown;
use self::progress::Bar;
use crate::daemon::log::DaemonLog;
use crate::format::record::Verdict;
use crate::ops::{self, Failure, FailureKind, Report, Request};
use crate::present::table;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage::answer(&error),
    };
    let log = start_log(&arguments.command);
    let shown = if arguments.global.json { Shown::Json } else { Shown::Text };
    match (run(&arguments, shown, log), &arguments.command) {
        (Ok(code), _) => ExitCode::from(code),
        // It has told the process that started it, which says it.
        (Err(failure), Command::Mount(mount)) if mount.detached => {
            ExitCode::from(exit_code(failure.kind))
        }
        (Err(failure), _) => say(&failure, shown),
    }
}

/// Says something on standard error, where a command that ran in our place has the other stream.
fn say_text(text: &str) {
    // Where it is closed nobody listens.
    drop(io::stderr().write_all(text.as_bytes()));
}

/// Prints a failure and gives its exit code.
fn say(failure: &Failure, shown: Shown) -> ExitCode {
    let text = match shown {
        Shown::Text => failure::render_text(failure),
        Shown::Json => failure::render_json(failure),
    };
    say_text(&text);
    ExitCode::from(exit_code(failure.kind))
}

/// Does what is asked for, and gives the exit code.
fn run(arguments: &Arguments, shown: Shown, log: DaemonLog) -> Result<u8, Failure> {
    let store = || config::store(arguments.global.store.as_deref()).map_err(|e| of_config(&e));
    let sign_key = arguments.global.sign_key.as_deref();
    let done = match &arguments.command {
        Command::Run(run) => {
            let store = store()?;
            return training::run::run(run, StorePlace { directory: &store, sign_key }, shown);
        }
        Command::Watch(watch) => {
            let store = store()?;
            training::watch::run(watch, StorePlace { directory: &store, sign_key }, shown)
        }
        Command::Mount(mount) => mount::run(mount, &store()?, sign_key, shown, log),
        Command::Umount(umount) => umount::run(umount, shown),
        Command::Inspect(arguments) => inspect::run(arguments, store, shown),
        Command::Diff(arguments) => diff::run(arguments, &store()?, shown),
        Command::Fingerprint(arguments) => fingerprint::run(arguments, shown),
        Command::Log(arguments) => diff::run_log(arguments, &store()?, shown),
        Command::Inventory(inventory) => takeover::inventory(inventory, shown),
        Command::Import(import) => {
            let store = store()?;
            takeover::import(import, StorePlace { directory: &store, sign_key }, shown)
        }
        Command::Export(export) => export::run(export, &store()?, shown),
        Command::Show(show) => show::run(show, &store()?, shown),
        Command::Check(check) => {
            let store = store()?;
            check::run(check, StorePlace { directory: &store, sign_key }, shown)
        }
        command => match (verbs::request(command)?, command) {
            (Some(request), _) => {
                let store = store()?;
                let place = StorePlace { directory: &store, sign_key };
                run_verb(request, place, shown)
            }
            (None, Command::Policy(policy)) => check_policy(policy),
            (None, Command::Debug(debug)) => debug::run(&debug.command, &store()?, shown),
            (None, _) => unreachable!("every other command is a verb"),
        },
    };
    done.map(|()| EXIT_DONE)
}

/// `policy check`: needs no store.
fn check_policy(policy: &Policy) -> Result<(), Failure> {
    let PolicyCommand::Check { file } = &policy.command else {
        unreachable!("the others are verbs");
    };
    let text = verbs::read_policy(file)?;
    ops::check_policy(&text).map_err(|error| Failure::from(&error))?;
    print("no mistakes\n")
}

/// Has one request done, by the daemon or here.
fn ask<'a>(request: Request, store: impl Into<StorePlace<'a>>) -> Result<Report, Failure> {
    let (absent, hot_limit) = (verbs::where_absent(&request), verbs::hot_limit(&request));
    let client = Client::open(store, absent, hot_limit)?;
    client.run(request, &Bar::default())
}

fn run_verb(request: Request, store: StorePlace<'_>, shown: Shown) -> Result<(), Failure> {
    let report = ask(request, store)?;
    print(&match shown {
        Shown::Text => render::text(&report),
        Shown::Json => render::json(&report),
    })?;
    judge(&report)
}

/// A check that found damage is a failure, however well it went.
fn judge(report: &Report) -> Result<(), Failure> {
    let (message, hint) = match report {
        Report::Verify(report) if !report.damage.is_empty() => (
            format!("the store is damaged in {} places", report.damage.len()),
            "versions that are not named still read well; restore the files named from a copy",
        ),
        Report::Repair(report) if !report.damage.is_empty() => (
            format!("{} files could not be read for the catalog", report.damage.len()),
            "modelfs verify --read-data",
        ),
        Report::Plan(plan) => {
            let refused = plan.moves.iter().find(|it| it.verdict == Verdict::Refused);
            let Some(refused) = refused else { return Ok(()) };
            let message = "it would be refused".to_owned();
            let failed = failure(FailureKind::Refused, message);
            return Err(Failure {
                because: refused.why.clone(),
                hint: refused.next.first().cloned(),
                ..failed
            });
        }
        _ => return Ok(()),
    };
    Err(failure_with_hint(FailureKind::Damaged, message, hint))
}

/// Writes an answer to standard output. A reader who has seen enough (`| head -1`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match write_out(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(of_io("cannot write to standard output", &error))
        }
        _ => Ok(()),
    }
}

fn write_out(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Says on standard error what a log without a file holds.
fn spill(log: &DaemonLog) {
    drop(io::stderr().write_all(&log.take_early()));
}

/// Starts the log: on standard error, and for a detached daemon in a file once it has one.
fn start_log(command: &Command) -> DaemonLog {
    let log = DaemonLog::default();
    let level = match command {
        Command::Mount(_) => log::LevelFilter::Info,
        _ => log::LevelFilter::Warn,
    };
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).parse_env(config::LOG_VARIABLE);
    if matches!(command, Command::Mount(mount) if mount.detached) {
        builder.target(env_logger::Target::Pipe(Box::new(log.clone())));
        let log = log.clone();
        std::panic::set_hook(Box::new(move |panic| {
            log::error!("{panic}");
            spill(&log);
        }));
    }
    builder.init();
    log
}
