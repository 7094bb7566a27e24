//! Mounting and unmounting: `mount(2)` for root, `fusermount3` for everybody else.
//!
//! An unmount is always lazy: a path leaves the tree at once and what is open stays usable until it
//! is closed, so nothing here waits for a stranger's program. Nothing here speaks FUSE.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::statfs::statfs;
use nix::unistd::{getegid, geteuid};

/// What `mount` and `df` show as the kind of our mounts.
pub const FS_TYPE: &str = "fuse.modelfs";

const DEVICE: &str = "/dev/fuse";
const MOUNTINFO: &str = "/proc/self/mountinfo";
const HELPER: &str = "fusermount3";
/// The helper sends the descriptor over the socket whose number is in this variable.
const HELPER_SOCKET: &str = "_FUSE_COMMFD";
/// How long a mount may take to say that it is alive.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// A line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Number of the mount; another one after each mounting.
    pub id: u64,
    /// Major and minor number of its device.
    pub device: (u32, u32),
    pub mountpoint: PathBuf,
    pub fs_type: String,
    pub source: PathBuf,
}

/// How a mounted path answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Alive,
    /// Its process is gone: every access gives ENOTCONN.
    Dead,
    /// No answer within five seconds.
    Silent,
}

/// The topmost mount exactly at `mountpoint`, an absolute path without links.
pub fn find(mountpoint: &Path) -> io::Result<Option<MountEntry>> {
    Ok(parse_mountinfo(&fs::read(MOUNTINFO)?).into_iter().rfind(|e| e.mountpoint == mountpoint))
}

/// `path` made absolute and without links; also where a dead mount is at it.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        // The kernel will not even look at a dead mount, but at the directory it is in.
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            let name = path.file_name().ok_or(error)?;
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            Ok(parent.canonicalize()?.join(name))
        }
        resolved => resolved,
    }
}

/// Whether the mount at `path` has lost its process.
pub fn is_dead(path: &Path) -> bool {
    health(path) == Health::Dead
}

/// Asks the file system at `path` for its size, and waits at most five seconds.
pub fn health(path: &Path) -> Health {
    let (answer, answered) = mpsc::channel();
    let path = path.to_owned();
    // A thread of its own: a stopped daemon would keep the caller for ever.
    let asked = thread::Builder::new().name("statfs".to_owned()).spawn(move || {
        // The other end may have given up waiting, then nobody needs this.
        let _ = answer.send(statfs(&path));
    });
    if asked.is_err() {
        return Health::Silent;
    }
    match answered.recv_timeout(ANSWER_TIME_MAX) {
        Ok(Err(Errno::ENOTCONN | Errno::ECONNABORTED)) => Health::Dead,
        Ok(_) => Health::Alive,
        Err(_) => Health::Silent,
    }
}

/// Takes what is mounted at `path` out of the tree, at once, without waiting for its users.
pub fn detach(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => {
            let arguments =
                [OsStr::new("-u"), OsStr::new("-z"), OsStr::new("--"), path.as_os_str()];
            let output = Command::new(HELPER).args(arguments).stdin(Stdio::null()).output();
            helper_result(&output.map_err(without_helper)?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Mounts a FUSE file system whose requests come out of the descriptor in the answer.
///
/// The kernel checks permissions (`default_permissions`); without `Others` it lets nobody but the
/// caller's own user in, not even root.
pub fn mount_fuse(mountpoint: &Path, source: &OsStr, audience: Audience) -> io::Result<OwnedFd> {
    if geteuid().is_root() {
        mount_directly(mountpoint, source, audience)
    } else {
        mount_by_helper(mountpoint, source, audience)
    }
}

/// Who may enter a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The user who mounts it.
    Owner,
    /// Everybody whom the permissions let in.
    Others,
}

/// Whether this process may open the FUSE device itself, which cloned descriptors need.
pub fn can_open_device() -> bool {
    open_device().is_ok()
}

/// Lets the kernel read ahead `kib` KiB on the mount's device. Needs root.
pub fn set_read_ahead(device: (u32, u32), kib: u32) -> io::Result<()> {
    let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", device.0, device.1);
    fs::write(path, kib.to_string())
}

fn open_device() -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot open `{DEVICE}`: {error}")))
}

fn mount_directly(mountpoint: &Path, source: &OsStr, audience: Audience) -> io::Result<OwnedFd> {
    let device = open_device()?;
    let kind = fs::metadata(mountpoint)?.mode() & libc::S_IFMT;
    let others = match audience {
        Audience::Owner => "",
        Audience::Others => ",allow_other",
    };
    let data = format!(
        "fd={},rootmode={kind:o},user_id={},group_id={},default_permissions{others}",
        device.as_raw_fd(),
        geteuid(),
        getegid(),
    );
    let source = CString::new(source.as_bytes())?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(source.as_c_str()), mountpoint, Some(FS_TYPE), flags, Some(data.as_str()))?;
    Ok(device.into())
}

fn mount_by_helper(mountpoint: &Path, source: &OsStr, audience: Audience) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut options = OsString::from("rw,nosuid,nodev,default_permissions,subtype=modelfs,fsname=");
    options.push(escape_option(source));
    if audience == Audience::Others {
        options.push(",allow_other");
    }
    let mut command = Command::new(HELPER);
    command.arg("-o").arg(options).arg("--").arg(mountpoint);
    command.env(HELPER_SOCKET, theirs.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let inherited = theirs.as_raw_fd();
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe, on a
    // descriptor that `theirs` keeps open until the child was started.
    unsafe { command.pre_exec(move || keep_over_exec(inherited)) };
    let child = command.spawn().map_err(without_helper)?;
    drop(theirs);
    let received = receive_descriptor(&ours);
    helper_result(&child.wait_with_output()?)?;
    received
}

fn keep_over_exec(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: F_SETFD takes plain integers and touches no memory of ours.
    match unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part
            && let Some(&descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
            return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Err(io::Error::other(format!("`{HELPER}` sent no descriptor")))
}

fn helper_result(output: &std::process::Output) -> io::Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim().strip_prefix("fusermount3: ").unwrap_or(text.trim()).to_owned();
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("`{HELPER}` says: {text}")))
}

fn without_helper(error: io::Error) -> io::Error {
    let advice = "it comes with the package `fuse3`; root does not need it";
    io::Error::new(error.kind(), format!("cannot start `{HELPER}`: {error}; {advice}"))
}

/// The helper splits its options at commas.
fn escape_option(text: &OsStr) -> OsString {
    let mut escaped = Vec::with_capacity(text.len());
    for &byte in text.as_bytes() {
        if matches!(byte, b',' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    OsString::from_vec(escaped)
}

/// Lines that are not as proc(5) says are left out: better blind to one mount than to all.
fn parse_mountinfo(text: &[u8]) -> Vec<MountEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
    let id = number(fields.next()?)?;
    let device = std::str::from_utf8(fields.nth(1)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let mountpoint = unescape(fields.nth(1)?);
    // Optional fields end with a lone dash.
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = String::from_utf8_lossy(rest.next()?).into_owned();
    let source = unescape(rest.next()?);
    let device = (major.parse().ok()?, minor.parse().ok()?);
    Some(MountEntry { id, device, mountpoint, fs_type, source })
}

/// The kernel writes blank, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        if byte == b'\\'
            && let Some(digits) = octal
        {
            let value = digits.iter().fold(0, |sum, digit| sum * 8 + u32::from(digit - b'0'));
            bytes.push(u8::try_from(value & 0xff).expect("masked to a byte"));
            rest = &after[3..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_read_with_its_escapes() {
        let text = b"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
            broken line\n\
            90 22 0:45 / /mnt/a\\040b\\134c rw - fuse.modelfs /var/lib/store\\011x rw,user_id=0\n";
        let entries = parse_mountinfo(text);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].fs_type, "ext4");
        assert_eq!(entries[1].mountpoint, Path::new("/mnt/a b\\c"));
        assert_eq!(entries[1].source, Path::new("/var/lib/store\tx"));
        assert_eq!((entries[1].id, entries[1].device), (90, (0, 45)));
    }

    #[test]
    fn the_root_is_mounted_and_alive() {
        assert!(find(Path::new("/")).unwrap().is_some());
        assert!(!is_dead(Path::new("/")));
        assert_eq!(find(Path::new("/no/such/mount")).unwrap(), None);
    }

    #[test]
    fn commas_in_a_source_do_not_become_options() {
        assert_eq!(escape_option(OsStr::new("/a,b\\c")), OsStr::new("/a\\,b\\\\c"));
    }
}
