//! Values of the tree as fuser has them, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, FopenFlags, INodeNo, TimeOrNow};

use crate::fs::{Attributes, Cache, FsError, Kind, NewTime, Opened};

pub(super) fn errno(error: &FsError) -> Errno {
    Errno::from_i32(error.errno() as i32)
}

pub(super) fn kind(kind: Kind) -> FileType {
    match kind {
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

pub(super) fn attributes(from: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(from.number),
        size: from.bytes,
        blocks: from.blocks,
        atime: from.accessed,
        mtime: from.modified,
        ctime: from.changed,
        crtime: UNIX_EPOCH,
        kind: kind(from.kind),
        perm: u16::try_from(from.mode & 0o7777).expect("masked to 12 bits"),
        nlink: from.links,
        uid: from.uid,
        gid: from.gid,
        rdev: from.device,
        blksize: from.block_bytes,
        flags: 0,
    }
}

/// Attributes of which only number and kind are known; the kernel looks at no more of `.`, `..`,
/// and at nothing but the number 0 of a name that is not there.
pub(super) fn bare_attributes(number: u64, kind: Kind) -> FileAttr {
    attributes(&Attributes {
        number,
        kind,
        mode: 0,
        links: 1,
        uid: 0,
        gid: 0,
        bytes: 0,
        blocks: 0,
        block_bytes: 0,
        device: 0,
        accessed: UNIX_EPOCH,
        modified: UNIX_EPOCH,
        changed: UNIX_EPOCH,
    })
}

/// How an open file is cached.
pub(super) fn file_flags(opened: &Opened) -> FopenFlags {
    let mut flags = match opened.cache {
        Cache::Direct => FopenFlags::FOPEN_DIRECT_IO,
        Cache::Plain => FopenFlags::empty(),
        Cache::Keep => FopenFlags::FOPEN_KEEP_CACHE,
    };
    flags.set(FopenFlags::FOPEN_STREAM, opened.stream);
    flags.set(FopenFlags::FOPEN_NOFLUSH, opened.no_flush);
    flags
}

/// How the listing of an open directory is cached: for ever, or not at all.
pub(super) fn directory_flags(opened: &Opened) -> FopenFlags {
    match opened.cache {
        Cache::Keep => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        Cache::Plain | Cache::Direct => FopenFlags::empty(),
    }
}

pub(super) fn new_time(time: TimeOrNow) -> NewTime {
    match time {
        TimeOrNow::Now => NewTime::Now,
        TimeOrNow::SpecificTime(time) => NewTime::At(corrected(time)),
    }
}

/// fuser 0.18 takes the nanoseconds of a time before 1970 off instead of adding them: -2 s and
/// 0.8 s, which is 1.2 s before 1970, arrives as 2.8 s before it.
fn corrected(time: SystemTime) -> SystemTime {
    let Err(early) = time.duration_since(UNIX_EPOCH) else { return time };
    let before = early.duration();
    let nanos = Duration::from_nanos(before.subsec_nanos().into());
    let whole = UNIX_EPOCH.checked_sub(before - nanos);
    whole.and_then(|whole| whole.checked_add(nanos)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_is_the_one_that_was_asked_for() {
        let arrived = UNIX_EPOCH - Duration::from_millis(2_800);
        assert_eq!(corrected(arrived), UNIX_EPOCH - Duration::from_millis(1_200));
        let whole = UNIX_EPOCH - Duration::from_secs(2);
        assert_eq!(corrected(whole), whole);
        let later = UNIX_EPOCH + Duration::from_millis(2_800);
        assert_eq!(corrected(later), later);
    }
}
