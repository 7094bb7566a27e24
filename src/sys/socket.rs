//! Unix sockets: paths of any length, and who is at the other end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::identity::GROUPS_MAX;

/// Longest path that fits into a socket address, in bytes; the terminating zero is left out.
const ADDRESS_BYTES_MAX: usize = 107;

/// The process at the other end of a connection, as the kernel saw it when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Listens on a new socket at `path`.
///
/// # Errors
/// Those of `bind`: `AddrInUse` where the name is taken.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    at_short_path(path, |short| UnixListener::bind(short))
}

/// Connects to the socket at `path`.
///
/// # Errors
/// Those of `connect`: `NotFound` without such a file, `ConnectionRefused` where nobody listens.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    at_short_path(path, |short| UnixStream::connect(short))
}

/// Ends a listener from another thread: its `accept` returns with an error from now on.
///
/// # Errors
/// Those of `shutdown`.
pub fn stop_listening(listener: &UnixListener) -> io::Result<()> {
    Ok(nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both)?)
}

/// Who is at the other end of `stream`.
///
/// # Errors
/// Those of `getsockopt`.
pub fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let found = nix::sys::socket::getsockopt(stream, nix::sys::socket::sockopt::PeerCredentials)?;
    let pid = u32::try_from(found.pid()).map_err(io::Error::other)?;
    Ok(Peer { pid, uid: found.uid(), gid: found.gid(), groups: peer_groups(stream)? })
}

/// A path too long for an address is reached through an open descriptor of its directory.
fn at_short_path<T>(path: &Path, act: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return act(path);
    }
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let name = path.file_name().ok_or_else(invalid)?;
    let parent = path.parent().ok_or_else(invalid)?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let directory = File::options().read(true).custom_flags(flags).open(parent)?;
    act(&PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name))
}

/// Supplementary groups of the peer, for which nix has no name.
fn peer_groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let capacity = size_of_val(groups.as_slice());
        let mut bytes = libc::socklen_t::try_from(capacity).map_err(io::Error::other)?;
        // SAFETY: `groups` has room for `bytes` bytes and outlives the call, which writes at most
        // that many; any bits are a valid u32.
        let rc = unsafe {
            libc::getsockopt(
                stream.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        let found = usize::try_from(bytes).map_err(io::Error::other)? / size_of::<u32>();
        if rc == 0 {
            groups.truncate(found);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || found <= groups.len() || GROUPS_MAX < found
        {
            return Err(error);
        }
        groups.resize(found, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::identity;

    #[test]
    fn the_peer_of_our_own_connection_is_us() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a".repeat(120)).join("socket");
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        let listener = listen(&path).unwrap();
        assert!(path.exists());
        let _client = connect(&path).unwrap();
        let found = peer(&listener.accept().unwrap().0).unwrap();
        assert_eq!((found.pid, found.uid), (std::process::id(), identity::own_uid()));
        assert_eq!(found.groups.len(), identity::own_groups().unwrap().len());
    }

    #[test]
    fn a_stopped_listener_lets_its_thread_go() {
        let directory = tempfile::tempdir().unwrap();
        let listener = listen(&directory.path().join("socket")).unwrap();
        std::thread::scope(|scope| {
            let accepting = scope.spawn(|| listener.accept().is_err());
            std::thread::sleep(std::time::Duration::from_millis(50));
            stop_listening(&listener).unwrap();
            assert!(accepting.join().unwrap());
        });
    }

    #[test]
    fn a_missing_socket_is_not_a_dead_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(listen(&path).unwrap());
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
