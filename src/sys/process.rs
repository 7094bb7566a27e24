//! Settings of this process as a whole: file mode mask, limits, session, signals, standard streams.
//!
//! They are global, so only `daemon` sets them, once, before it starts its first thread.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;

/// Most open files that are asked for; the hard limit where that is lower.
const OPEN_FILES_MAX: u64 = 1 << 20;

/// Sets the file mode mask: these permission bits are taken from every file that is made.
pub fn set_umask(mask: u32) {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask));
}

/// Raises the limit of open files as far as it may go, and gives what holds now.
///
/// # Errors
/// Those of `getrlimit` and `setrlimit`.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let wanted = limit.rlim_max.min(OPEN_FILES_MAX);
    if limit.rlim_cur < wanted {
        limit.rlim_cur = wanted;
        // SAFETY: as above; the call only reads.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Leaves the session and the terminal of the parent.
///
/// # Errors
/// `PermissionDenied` for the leader of a process group.
pub fn start_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    Ok(())
}

/// Points standard input, output and error to `/dev/null`.
///
/// # Errors
/// Those of opening it.
pub fn close_standard_streams() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(null.as_fd())?;
    nix::unistd::dup2_stdout(null.as_fd())?;
    nix::unistd::dup2_stderr(null.as_fd())?;
    Ok(())
}

/// The signals that ask a process to end, taken away from their default action.
pub struct EndSignals(SigSet);

impl EndSignals {
    /// Holds SIGTERM, SIGINT and SIGHUP back in this thread and in all that it starts from now on.
    ///
    /// # Errors
    /// Those of `pthread_sigmask`.
    pub fn hold() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block()?;
        Ok(Self(set))
    }

    /// Waits for the next of them, and gives its name.
    ///
    /// # Errors
    /// Those of `sigwait`.
    pub fn wait(&self) -> io::Result<&'static str> {
        Ok(self.0.wait()?.as_str())
    }
}

/// Whether a process `pid` is there, ours or not.
pub fn is_alive(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    let asked = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
    asked != Err(nix::errno::Errno::ESRCH)
}

/// Kills all processes that have this mark; how many there were.
///
/// # Errors
/// Where `/proc` cannot be listed.
pub fn kill_marked(variable: &str, value: impl AsRef<OsStr>) -> io::Result<usize> {
    let all = find_marked(variable, value)?;
    let killed = all.into_iter().filter_map(|pid| i32::try_from(pid).ok()).filter(|pid| {
        let pid = nix::unistd::Pid::from_raw(*pid);
        nix::sys::signal::kill(pid, Signal::SIGKILL).is_ok()
    });
    Ok(killed.count())
}

/// The processes, without this one, that have this variable with this value in their environment, as all
/// have that were started, however indirectly, by one that had. Those of other users are not seen.
///
/// # Errors
/// Where `/proc` cannot be listed.
pub fn find_marked(variable: &str, value: impl AsRef<OsStr>) -> io::Result<Vec<u32>> {
    let mark = [variable.as_bytes(), b"=", value.as_ref().as_encoded_bytes()].concat();
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let Some(pid) = pid.filter(|pid| *pid != own) else { continue };
        // It may have ended, or be somebody else's.
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|it| it == mark) {
            found.push(pid);
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_only_rises() {
        let first = raise_open_files().unwrap();
        assert!(0 < first);
        assert_eq!(raise_open_files().unwrap(), first);
    }

    #[test]
    fn what_was_started_under_a_mark_is_killed() {
        let mark = format!("{}-{:?}", std::process::id(), std::thread::current().id());
        let mut shell = std::process::Command::new("sh");
        // The one that is left when the shell is gone has a session of its own.
        shell.args(["-c", "setsid sleep 1000 >/dev/null 2>&1 & sleep 1000"]);
        let mut shell = shell.env("MODELFS_TEST_MARK", &mark).spawn().unwrap();
        // The shell and both sleeps, whether they had begun yet or not.
        while kill_marked("MODELFS_TEST_MARK", &mark).unwrap() == 0 {}
        assert_eq!(shell.wait().unwrap().code(), None, "a signal ended it");
        while 0 < kill_marked("MODELFS_TEST_MARK", &mark).unwrap() {}
        assert_eq!(kill_marked("MODELFS_TEST_MARK", "another").unwrap(), 0);
    }

    #[test]
    fn we_are_alive_and_nobody_has_the_largest_number() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(i32::MAX as u32));
        assert!(!is_alive(u32::MAX));
    }
}
