//! A keeper: a process between us and a command, to which all comes back that the command leaves behind.
//!
//! A program that detaches leaves its process group, its session and its parent. Linux then gives it to the
//! nearest ancestor that has asked for such orphans (PR_SET_CHILD_SUBREAPER), as `systemd` does for its services.
//! The keeper asks, and has no other children: whatever it has is the command's.
//! Invariant K1: when a keeper has ended, so has all that came from its command, but for who took on a user that
//! we may not signal. It ends all when the command ends, when it is told [`END`], and when we end, however.
//! Invariant K2: a keeper is the copy of one thread of a process that may have more. It makes system calls only:
//! it allocates nothing and takes no lock.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_pdeathsig};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, raise, signal};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, read};

/// Tells a keeper to end all that it has.
pub const END: Signal = Signal::SIGUSR1;

/// How long those are waited for that were killed and do not go.
const END_TIME_MAX: Duration = Duration::from_secs(2);
/// Pause between two looks at them.
const END_PAUSE: Duration = Duration::from_millis(1);
/// Bytes of the list of children that are looked at together.
const LIST_BYTES: usize = 4096;

/// Puts a keeper in the place of this process, the child of `parent`, and goes on as the keeper's child.
///
/// # Errors
/// Those of the calls; ESRCH where the parent has ended meanwhile.
///
/// # Safety
/// To be called between fork and exec.
pub unsafe fn stand_between(parent: Pid) -> io::Result<()> {
    set_pdeathsig(END)?;
    set_child_subreaper(true)?;
    // Where it were ignored, children would be gone before they could be asked how they ended.
    // SAFETY: no handler of ours is replaced, nor is one set.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    // Those that come before they are waited for stay.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    require_parent(parent)?;
    let keeper = getpid();
    // SAFETY: both sides make system calls only, up to exec and to the end (K2).
    match unsafe { fork() }? {
        ForkResult::Parent { child } => keep(child),
        ForkResult::Child => {
            set_pdeathsig(Signal::SIGKILL)?;
            require_parent(keeper)?;
            Ok(mask.thread_set_mask()?)
        }
    }
}

/// Whoever died before we asked to hear of it has told nobody.
fn require_parent(parent: Pid) -> nix::Result<()> {
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Waits until the command ends, or somebody wants it to, ends all that is left, and ends as the command did.
fn keep(command: Pid) -> ! {
    // Else the other end of our parent's pipes would be held open.
    // SAFETY: nothing that is called from here on uses a descriptor that was open before.
    unsafe { close_all() };
    let mut ended = None;
    while ended.is_none() && SigSet::all().wait() != Ok(END) {
        reap(command, &mut ended);
    }
    let limit = Instant::now() + END_TIME_MAX;
    loop {
        let has_more = reap(command, &mut ended);
        if !has_more || limit < Instant::now() {
            end_as(ended)
        }
        kill_children();
        std::thread::sleep(END_PAUSE);
    }
}

/// # Safety
/// Nobody may use a descriptor that is open.
unsafe fn close_all() {
    // SAFETY: the caller's promise; both calls take numbers only.
    unsafe {
        // Not there before Linux 5.9.
        if libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) != 0 {
            (0..libc::getdtablesize()).for_each(|descriptor| _ = libc::close(descriptor));
        }
    }
}

/// Takes leave of all children that have ended; whether there are others.
fn reap(command: Pid, ended: &mut Option<WaitStatus>) -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(status) if status.pid() == Some(command) => *ended = Some(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Kills our children; theirs are ours once they are gone.
fn kill_children() {
    let path = c"/proc/thread-self/children";
    let Ok(list) = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) else { return };
    let mut bytes = [0; LIST_BYTES];
    let count = read(&list, &mut bytes).unwrap_or_default();
    let mut number = 0_i32;
    // Each number is followed by a space: one that was cut off is not taken for another.
    for byte in &bytes[..count] {
        match byte {
            b'0'..=b'9' => number = number.wrapping_mul(10).wrapping_add(i32::from(byte - b'0')),
            _ => {
                if 0 < number {
                    let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
                }
                number = 0;
            }
        }
    }
}

/// Ends as the command did, for whoever waits for it.
fn end_as(ended: Option<WaitStatus>) -> ! {
    let code = match ended {
        Some(WaitStatus::Exited(_, code)) => code,
        ended => {
            let signalled = match ended {
                Some(WaitStatus::Signaled(_, by, _)) => by,
                _ => Signal::SIGKILL,
            };
            // What the command left behind of itself is enough.
            let _ = set_dumpable(false);
            // SAFETY: no handler of ours is replaced, nor is one set.
            let _ = unsafe { signal(signalled, SigHandler::SigDfl) };
            let _ = raise(signalled);
            let _ = SigSet::from(signalled).thread_unblock();
            128 + signalled as i32
        }
    };
    // SAFETY: ends the process, without what its other threads would have done at its end.
    unsafe { libc::_exit(code) }
}
