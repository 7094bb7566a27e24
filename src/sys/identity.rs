//! Acting on files as somebody else, on one thread.
//!
//! Linux keeps user, group and supplementary groups per thread; glibc hides that, so the raw system
//! calls are used here. Only the identity that file access is checked with changes (`fsuid`,
//! `fsgid`, groups): the kernel drops the file capabilities of root with it.
//! Invariant I1: no thread but the fresh one ever changes its identity, and that one ends with the
//! work, so nothing can run on with a borrowed identity.

use std::io;
use std::thread;

/// Most supplementary groups that are taken on; the kernel's own limit.
pub const GROUPS_MAX: usize = 65_536;

/// The user that this process acts as on files.
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The group that this process acts as on files.
pub fn own_gid() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// The name that this machine gives itself; empty where it has none in UTF-8.
pub fn host_name() -> String {
    let named = nix::sys::utsname::uname();
    named.ok().and_then(|it| it.nodename().to_str().map(str::to_owned)).unwrap_or_default()
}

/// The supplementary groups of this process.
///
/// # Errors
/// Those of `getgroups`.
pub fn own_groups() -> io::Result<Vec<u32>> {
    Ok(nix::unistd::getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect())
}

/// Runs `work` with the file access rights of `uid`, `gid` and `groups`, and gives its result.
///
/// Where `uid` is our own, `work` runs here and now. Else it runs on a fresh thread, and threads that
/// it starts have the same rights.
///
/// # Errors
/// `PermissionDenied` where this process may not act for others, in which case `work` has not run.
///
/// # Panics
/// When `work` does, with what it panicked with.
pub fn run_as<T: Send>(
    uid: u32,
    gid: u32,
    groups: &[u32],
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    if uid == own_uid() {
        return Ok(work());
    }
    thread::scope(|scope| {
        let worker =
            thread::Builder::new().name(format!("as-{uid}")).spawn_scoped(scope, || {
                assume(uid, gid, groups)?;
                Ok(work())
            })?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Changes the identity of the calling thread for good.
fn assume(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    if GROUPS_MAX < groups.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the pointer and the count describe `groups`, which outlives the call; the kernel only
    // reads it. The raw call concerns this thread alone.
    let rc = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // The group first: without user 0 it could not be changed any more.
    set_file_id(libc::SYS_setfsgid, gid)?;
    set_file_id(libc::SYS_setfsuid, uid)
}

/// `setfsuid` or `setfsgid`. They report the id before, never an error: asked again with an id that
/// nobody can have, they tell what holds now.
fn set_file_id(call: libc::c_long, id: u32) -> io::Result<()> {
    // SAFETY: both calls take one number and touch no memory.
    let now = unsafe {
        libc::syscall(call, id);
        libc::syscall(call, u32::MAX)
    };
    if now == libc::c_long::from(id) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn work_for_ourselves_runs_on_the_same_thread() {
        let here = thread::current().id();
        let there = run_as(own_uid(), own_gid(), &[], || thread::current().id()).unwrap();
        assert_eq!(here, there);
    }

    #[test]
    fn another_user_has_its_own_rights_and_we_keep_ours() {
        if own_uid() != 0 {
            let refused = run_as(own_uid() + 1, 1, &[], || ()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused:?}");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        fs::write(&secret, "x").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::chown(&secret, Some(0), Some(4_242)).unwrap();

        let read = |groups: &[u32]| run_as(4_000, 4_001, groups, || fs::read(&secret)).unwrap();
        assert_eq!(read(&[]).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(read(&[4_242]).unwrap(), b"x");
        let made = directory.path().join("made");
        run_as(4_000, 4_001, &[], || fs::write(&made, "y")).unwrap().unwrap();
        let made = fs::metadata(&made).unwrap();
        assert_eq!((made.uid(), made.gid()), (4_000, 4_001));
        assert!(fs::read(&secret).is_ok());
    }

    #[test]
    fn a_panic_of_the_work_is_the_callers() {
        let uid = if own_uid() == 0 { 4_000 } else { own_uid() };
        let caught = std::panic::catch_unwind(|| run_as(uid, 1, &[], || panic!("of the work")));
        let panic = caught.unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"of the work"));
    }
}
