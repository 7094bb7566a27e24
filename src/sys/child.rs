//! A command that ends: it has a process group of its own, a time limit, and its output is kept in part.
//!
//! Invariant P1: when `run` returns, nothing that the command started is alive, however the command ended and
//! wherever that went (`keeper` says who is the exception).
//! Invariant P2: so it is soon after this program has ended, however, while `run` is at work.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getpid};
use parking_lot::Mutex;

use super::keeper;

/// How long the end of the output is waited for once the group is gone.
const OUTPUT_TIME_MAX: Duration = Duration::from_secs(1);
/// Bytes that are read from a pipe at a time.
const READ_BYTES: usize = 16 << 10;
/// More than the events there are: nobody waits to tell one.
const EVENT_COUNT_MAX: usize = 8;

/// What is to be run, and how.
#[derive(Clone, Debug)]
pub struct CommandOptions {
    /// Looked for in the `PATH` of `environment` where it has no slash.
    pub program: OsString,
    pub arguments: Vec<OsString>,
    pub directory: PathBuf,
    /// All variables that the command has.
    pub environment: Vec<(OsString, OsString)>,
    pub time_max: Duration,
    /// How long one that is to end early may take to do so, from SIGTERM to SIGKILL; 0: not asked at all.
    pub grace: Duration,
    /// Bytes that are kept of each stream and of both together: the last ones.
    pub output_bytes_max: usize,
    /// Where the first bytes of its output go as they come.
    pub log: Option<Log>,
}

/// A file that takes so many bytes, and no more.
#[derive(Clone, Debug)]
pub struct Log {
    pub file: Arc<File>,
    pub bytes_max: u64,
}

/// How a command ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    Exit(i32),
    Signal(i32),
    /// It took too long.
    TimedOut,
    /// Whoever runs it was told to end.
    Interrupted,
}

/// What a command did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandReport {
    pub ending: Ending,
    pub duration: Duration,
    /// The end of what it wrote to standard output.
    pub stdout: Vec<u8>,
    /// The end of what it wrote to standard output and error, as it came.
    pub output: Vec<u8>,
    /// All that it wrote.
    pub output_bytes: u64,
}

/// A way to have a running command ended from outside.
#[derive(Clone)]
pub struct Interrupt(SyncSender<Event>);

impl Interrupt {
    /// Ends the command; nothing where it has ended.
    pub fn interrupt(&self) {
        drop(self.0.try_send(Event::Interrupted));
    }
}

enum Event {
    Ended,
    Closed,
    Interrupted,
}

/// The last bytes of a stream; the first ones go into the log.
struct Tail {
    bytes: Vec<u8>,
    bytes_max: usize,
    total: u64,
    log: Option<Log>,
}

impl Tail {
    fn push(&mut self, more: &[u8]) {
        if let Some(Log { file, bytes_max }) = &self.log {
            let room = usize::try_from(bytes_max.saturating_sub(self.total)).unwrap_or(usize::MAX);
            // What cannot be logged, as on a full disk, is no reason to end the command.
            let _ = file.as_ref().write_all(&more[..more.len().min(room)]);
        }
        self.total += more.len() as u64;
        self.bytes.extend_from_slice(more);
        // Seldom, so that each byte is moved once on average.
        if 2 * self.bytes_max < self.bytes.len() {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.bytes.drain(..self.bytes.len().saturating_sub(self.bytes_max));
    }
}

/// Runs a command to its end, and ends what it left behind. `begun` hears how to end it before its time.
///
/// # Errors
/// Where it cannot be started.
pub fn run(options: &CommandOptions, begun: impl FnOnce(Interrupt)) -> io::Result<CommandReport> {
    let started = Instant::now();
    let mut command = Command::new(&options.program);
    keep_with_us(&mut command);
    let mut child = command
        .args(&options.arguments)
        .current_dir(&options.directory)
        .env_clear()
        .envs(options.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    // The keeper, which leads the group.
    let leader = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let (sender, events) = sync_channel(EVENT_COUNT_MAX);
    begun(Interrupt(sender.clone()));
    let tail = |log| {
        let bytes_max = options.output_bytes_max;
        Arc::new(Mutex::new(Tail { bytes: Vec::new(), bytes_max, total: 0, log }))
    };
    let (stdout, output) = (tail(None), tail(options.log.clone()));
    let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    keep(out, vec![Arc::clone(&stdout), Arc::clone(&output)], sender.clone());
    keep(err, vec![Arc::clone(&output)], sender.clone());
    thread::spawn(move || {
        wait_unreaped(leader);
        drop(sender.try_send(Event::Ended));
    });
    let mut open_streams = 2;
    let early = wait_for_end(&events, started + options.time_max, &mut open_streams);
    if early.is_some() && !options.grace.is_zero() {
        let _ = killpg(leader, Signal::SIGTERM);
        let limit = Instant::now() + options.grace;
        while wait_for_end(&events, limit, &mut open_streams) == Some(Ending::Interrupted) {}
    }
    // It was not reaped yet, so that its number still stands for it and no other.
    let _ = kill(leader, keeper::END);
    let status = child.wait()?;
    let duration = started.elapsed();
    let limit = Instant::now() + OUTPUT_TIME_MAX;
    while 0 < open_streams {
        match events.recv_timeout(limit.saturating_duration_since(Instant::now())) {
            Ok(Event::Closed) => open_streams -= 1,
            Ok(Event::Ended | Event::Interrupted) => {}
            Err(_) => break,
        }
    }
    let ending = early.unwrap_or_else(|| match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exit(code),
        (None, signal) => Ending::Signal(signal.unwrap_or_default()),
    });
    let (stdout, (output, output_bytes)) = (kept(&stdout).0, kept(&output));
    Ok(CommandReport { ending, duration, stdout, output, output_bytes })
}

/// Has a command kept by a process that ends what it leaves behind, when it ends and when we do (P1, P2).
fn keep_with_us(command: &mut Command) {
    let ours = getpid();
    // SAFETY: it is called between fork and exec, and makes system calls only.
    unsafe { command.pre_exec(move || keeper::stand_between(ours)) };
}

/// Waits until the command and its keeper have ended, the time is up, or somebody says so; `None` for the first.
fn wait_for_end(
    events: &Receiver<Event>,
    limit: Instant,
    open_streams: &mut u32,
) -> Option<Ending> {
    loop {
        match events.recv_timeout(limit.saturating_duration_since(Instant::now())) {
            Ok(Event::Ended) => return None,
            Ok(Event::Closed) => *open_streams -= 1,
            Ok(Event::Interrupted) => return Some(Ending::Interrupted),
            Err(RecvTimeoutError::Timeout) => return Some(Ending::TimedOut),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Waits until a child has ended, and leaves it to be reaped.
fn wait_unreaped(child: Pid) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    while waitid(Id::Pid(child), flags) == Err(Errno::EINTR) {}
}

/// Reads a stream to its end, on a thread of its own: whoever holds it open may outlive the command.
fn keep(
    mut stream: impl Read + Send + 'static,
    tails: Vec<Arc<Mutex<Tail>>>,
    sender: SyncSender<Event>,
) {
    thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => tails.iter().for_each(|tail| tail.lock().push(&buffer[..count])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        drop(sender.try_send(Event::Closed));
    });
}

fn kept(tail: &Mutex<Tail>) -> (Vec<u8>, u64) {
    let mut tail = tail.lock();
    tail.cut();
    (tail.bytes.clone(), tail.total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::is_alive;

    fn shell(script: &str) -> CommandOptions {
        CommandOptions {
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            directory: "/".into(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            time_max: Duration::from_secs(60),
            grace: Duration::ZERO,
            output_bytes_max: 100,
            log: None,
        }
    }

    fn result(script: &str) -> CommandReport {
        run(&shell(script), |_| {}).unwrap()
    }

    #[test]
    fn a_command_ends_in_one_of_four_ways() {
        assert_eq!(result("exit 3").ending, Ending::Exit(3));
        assert_eq!(result("kill -9 $$").ending, Ending::Signal(9));
        let short = CommandOptions { time_max: Duration::from_millis(50), ..shell("sleep 100") };
        assert_eq!(run(&short, |_| {}).unwrap().ending, Ending::TimedOut);
        let interrupted = run(&shell("sleep 100"), |interrupt| interrupt.interrupt()).unwrap();
        assert_eq!(interrupted.ending, Ending::Interrupted);
        let missing = CommandOptions { program: "/no/such/program".into(), ..shell("") };
        assert_eq!(run(&missing, |_| {}).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_end_of_the_output_is_kept() {
        let report = result("echo one; echo two >&2; pwd");
        assert_eq!((&report.stdout[..], report.output.len()), (&b"one\n/\n"[..], 10));
        let bare = CommandOptions { program: "env".into(), arguments: Vec::new(), ..shell("") };
        assert_eq!(run(&bare, |_| {}).unwrap().stdout, b"PATH=/usr/bin:/bin\n");
        let long = result("i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i + 1)); done");
        assert_eq!((long.stdout.len(), long.output_bytes), (100, 3_890));
        assert!(long.stdout.ends_with(b"998\n999\n"));
    }

    /// Runs a script that makes the file `$READY`, and interrupts it then.
    fn interrupted(script: &str, grace: Duration) -> CommandReport {
        let place = tempfile::tempdir().unwrap();
        let ready = place.path().join("ready");
        let mut options = CommandOptions { grace, ..shell(script) };
        options.environment.push(("READY".into(), ready.clone().into()));
        let begun = |interrupt: Interrupt| {
            thread::spawn(move || {
                while !ready.exists() {
                    thread::yield_now();
                }
                interrupt.interrupt();
            });
        };
        run(&options, begun).unwrap()
    }

    #[test]
    fn one_that_is_to_end_may_clean_up() {
        let script = "trap 'echo cleaned; exit 0' TERM; : >$READY; while :; do sleep 0.01; done";
        let report = interrupted(script, Duration::from_secs(60));
        assert_eq!((report.ending, &report.stdout[..]), (Ending::Interrupted, &b"cleaned\n"[..]));
        let deaf = "trap '' TERM; : >$READY; while :; do sleep 0.01; done";
        let report = interrupted(deaf, Duration::from_millis(50));
        assert_eq!((report.ending, report.output_bytes), (Ending::Interrupted, 0));
    }

    #[test]
    fn the_begin_of_the_output_is_logged() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let file = Arc::new(log.reopen().unwrap());
        let options = shell("i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i + 1)); done");
        let log_to = Some(Log { file, bytes_max: 7 });
        let report = run(&CommandOptions { log: log_to, ..options }, |_| {}).unwrap();
        assert_eq!(
            (std::fs::read(log.path()).unwrap(), report.output_bytes),
            (b"0\n1\n2\n3".to_vec(), 3_890)
        );
    }

    /// Runs a script that tells of a process that it leaves behind; that is gone then.
    fn leaves_nothing(script: &str) {
        let report = result(script);
        assert_eq!(report.ending, Ending::Exit(0));
        let pid: u32 = String::from_utf8(report.stdout).unwrap().trim().parse().unwrap();
        assert!(!is_alive(pid), "{script}");
    }

    #[test]
    fn nothing_is_left_behind() {
        // The ones left behind hold the output open, and would for long.
        leaves_nothing("sleep 1000 & echo $!; exit 0");
        leaves_nothing("setsid sleep 1000 & echo $!; exit 0");
        let detached =
            "setsid -f env -i sh -c 'setsid -f sleep 1000; echo $$; exec sleep 1000' | head -1";
        leaves_nothing(detached);
    }
}
