//! What the mount asks and is answered, as plain values.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::handles::Handle;

/// How long the kernel may keep what never changes.
pub const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long the kernel may believe the attributes of a model's directory.
///
/// Owner, group and mode change through the mount only, so the kernel knows; without this it asks
/// again right after it has looked the model up. Only the time of the last change may be late.
pub const BRIEFLY: Duration = Duration::from_secs(1);

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requester {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
}

/// What kind of thing an inode is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Directory,
    File,
    Symlink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
}

/// Attributes of an inode, as `stat` shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    pub number: u64,
    pub kind: Kind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    pub bytes: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub block_bytes: u32,
    pub device: u32,
    pub accessed: SystemTime,
    pub modified: SystemTime,
    pub changed: SystemTime,
}

/// An inode that a look-up found, counted until it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    pub attributes: Attributes,
    /// How long the kernel may believe that the name means this inode.
    pub entry_ttl: Duration,
    /// How long it may believe the attributes.
    pub attribute_ttl: Duration,
}

/// The answer to a look-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    Found(Found),
    /// There is no such name, and will not be for `ttl`.
    Missing {
        ttl: Duration,
    },
}

/// How the kernel caches what it reads through a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cache {
    /// Not at all: each read comes to us.
    Direct,
    /// From this open on.
    Plain,
    /// Over opens, since it never changes.
    Keep,
}

/// A file or directory was opened.
#[derive(Debug)]
pub struct Opened {
    pub handle: u64,
    pub cache: Cache,
    /// Reads have no offset: what was written is answered by what is read next.
    pub stream: bool,
    /// A close needs no word with us.
    pub no_flush: bool,
    /// A file of the disk that holds the same bytes, for passthrough.
    pub backing: Option<Backing>,
}

/// A file that the kernel may use instead of asking us.
#[derive(Clone, Debug)]
pub struct Backing(pub(super) Arc<Handle>);

impl AsFd for Backing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &*self.0 {
            Handle::Draft(file) => file.file().as_fd(),
            Handle::Sealed(_, Some(hot), _) => hot.file().as_fd(),
            _ => unreachable!("only draft files and hot files back others"),
        }
    }
}

impl Backing {
    /// Itself, where it must never change: a hot file. To be asked about at each further open.
    pub fn immutable(&self) -> Option<Self> {
        matches!(&*self.0, Handle::Sealed(..)).then(|| self.clone())
    }

    /// Whether it is what it was; one that was changed behind our back may not be used once more.
    pub fn is_intact(&self) -> bool {
        match &*self.0 {
            Handle::Sealed(_, Some(hot), _) => hot.is_intact(),
            _ => true,
        }
    }
}

/// How the kernel reads and writes a file that was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// By itself, from a file of the disk.
    Passthrough,
    /// Through us.
    Cached,
}

/// How sealed files were opened and read since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Opens that the kernel serves from a hot file.
    pub passed: AtomicU64,
    /// Opens that come to us.
    pub cached: AtomicU64,
    /// Reads that we answered from a hot file.
    pub hot_reads: AtomicU64,
}

/// Who wants to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reader {
    /// A program, with read(2) or its like.
    Program,
    /// The kernel, to fill its cache: for a mapping, or for sendfile(2) and splice(2), which go by
    /// the size in the attributes.
    PageCache,
}

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewTime {
    Now,
    At(SystemTime),
}

/// Attributes to change; `None` keeps what is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub bytes: Option<u64>,
    pub accessed: Option<NewTime>,
    pub modified: Option<NewTime>,
}

impl Changes {
    pub fn has_times(&self) -> bool {
        self.accessed.is_some() || self.modified.is_some()
    }

    pub fn has_access(&self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some()
    }
}

/// How a rename treats what is at its goal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    Replace,
    KeepExisting,
    Exchange,
}

/// Size of the disk behind the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    pub block_bytes: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
}

/// The time `seconds` and `nanos` after 1970; the nearest there is where that is out of range.
pub fn time(seconds: i64, nanos: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let start = match seconds {
        0.. => UNIX_EPOCH.checked_add(whole),
        _ => UNIX_EPOCH.checked_sub(whole),
    };
    start
        .and_then(|time| time.checked_add(Duration::from_nanos(nanos.into())))
        .unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_kept() {
        let time = time(-2, 750_000_000);
        assert_eq!(UNIX_EPOCH.duration_since(time).unwrap(), Duration::from_millis(1_250));
        assert_eq!(
            super::time(i64::MAX, 999_999_999).max(UNIX_EPOCH),
            super::time(i64::MAX, 999_999_999)
        );
    }
}
