//! A program that runs in our place: it has our terminal, gets the signals that we get, and we end as it does.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};

use nix::sys::signal::{self, SigHandler, SigSet, Signal};
use nix::unistd::Pid;

use super::child::Ending;

/// Signals that people and supervisors send, with the one that tells of a child's end.
const SIGNALS: [Signal; 7] = [
    Signal::SIGCHLD,
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Signals that are held back from their default action, in this thread and all that it starts.
pub struct HeldSignals(SigSet);

impl HeldSignals {
    /// Holds them back, those left out that this program was started to ignore, as `nohup` has it, and shells
    /// for what runs in the background: the command ignores them as well. To be called before the first
    /// thread is started, which would get them else.
    ///
    /// # Errors
    /// Those of `sigaction` and `pthread_sigmask`.
    pub fn hold() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in SIGNALS {
            if signal == Signal::SIGCHLD || !is_ignored(signal)? {
                set.add(signal);
            }
        }
        if is_ignored(Signal::SIGCHLD)? {
            // Else children would be gone before we could ask how they ended.
            // SAFETY: no handler of ours is replaced, nor is one set.
            unsafe { signal::signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
        }
        set.thread_block()?;
        Ok(Self(set))
    }

    /// Lets them act again; those that came until now are forgotten.
    ///
    /// # Errors
    /// Those of `sigtimedwait` and `pthread_sigmask`.
    pub fn release(self) -> io::Result<()> {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointers are to the set, nothing, and a local; all outlive the call.
        while 0 < unsafe { libc::sigtimedwait(self.0.as_ref(), std::ptr::null_mut(), &at_once) } {}
        Ok(self.0.thread_unblock()?)
    }

    /// Waits for the next of them.
    fn wait(&self) -> io::Result<Received> {
        loop {
            let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
            // SAFETY: both pointers are to locals that outlive the call, which fills `info` or fails.
            let number = unsafe { libc::sigwaitinfo(self.0.as_ref(), info.as_mut_ptr()) };
            if 0 < number {
                // SAFETY: a number above 0 says that it was filled.
                let code = unsafe { info.assume_init() }.si_code;
                return Ok(Received { number, from_terminal: code == libc::SI_KERNEL });
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is set; the pointer is to a local that outlives the call, which fills it or fails.
    let asked = unsafe { libc::sigaction(signal as i32, std::ptr::null(), action.as_mut_ptr()) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: 0 says that it was filled.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}

struct Received {
    number: i32,
    /// The kernel sent it to all of the terminal's foreground, the child among them.
    from_terminal: bool,
}

/// How a command went that ran in our place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForegroundReport {
    pub ending: Ending,
    /// Names of the signals that came meanwhile, those that the terminal sent to the command itself included.
    pub signals: Vec<&'static str>,
}

/// Runs a command to its end, and `begun` once it is started. Signals to us are passed on to it, those from
/// the terminal left out, which it gets by itself.
///
/// # Errors
/// Where it cannot be started.
pub fn run(
    command: &mut Command,
    signals: &HeldSignals,
    begun: impl FnOnce(),
) -> io::Result<ForegroundReport> {
    // The child starts without our mask: the standard library sees to that.
    let mut child = command.spawn()?;
    begun();
    let mut received = Vec::new();
    let status = wait(&mut child, signals, &mut received)?;
    let ending = match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exit(code),
        (None, signal) => Ending::Signal(signal.unwrap_or_default()),
    };
    Ok(ForegroundReport { ending, signals: received })
}

fn wait(
    child: &mut Child,
    signals: &HeldSignals,
    received: &mut Vec<&'static str>,
) -> io::Result<ExitStatus> {
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let next = signals.wait()?;
        let signal = Signal::try_from(next.number).ok().filter(|it| *it != Signal::SIGCHLD);
        let Some(signal) = signal else { continue };
        if !received.contains(&signal.as_str()) {
            received.push(signal.as_str());
        }
        if !next.from_terminal {
            // It was not reaped, so that its number is its own; it may have ended just now.
            let _ = nix::sys::signal::kill(pid, signal);
        }
    }
}
