//! Which errno a program sees for each error. The only place that decides it.

use std::io;

use nix::errno::Errno;

use super::error::FsError;
use crate::format::names::NameError;
use crate::ops::OpsError;
use crate::store::StoreError;

impl FsError {
    /// What the system call of the program gives.
    pub fn errno(&self) -> Errno {
        match self {
            Self::ReadOnly { .. } => Errno::EROFS,
            Self::Missing | Self::Unknown { .. } => Errno::ENOENT,
            Self::Exists { .. } => Errno::EEXIST,
            Self::Refused { .. } => Errno::EPERM,
            Self::Malformed { .. } => Errno::EINVAL,
            Self::Name(error) => name(error),
            Self::TooManyLinks { .. } => Errno::ENOSPC,
            Self::TooManySnapshots { .. }
            | Self::TooManyTexts { .. }
            | Self::TooManyOpen { .. } => Errno::EAGAIN,
            Self::LongText { .. } => Errno::EFBIG,
            Self::Text(error) => error.errno(),
            Self::Slow | Self::SlowText => Errno::ETIMEDOUT,
            Self::OtherTree => Errno::EXDEV,
            Self::NameLength { .. } => Errno::ENAMETOOLONG,
            Self::NotDirectory => Errno::ENOTDIR,
            Self::Directory => Errno::EISDIR,
            Self::Attribute | Self::Operation => Errno::EOPNOTSUPP,
            Self::Device => Errno::ENOTTY,
            Self::Handle => Errno::EBADF,
            Self::Stale => Errno::ESTALE,
            Self::Panic => Errno::EIO,
            Self::Draft(error) | Self::Disk(error) => disk(error),
            Self::Thread(_) => Errno::EAGAIN,
            Self::Ops(error) => ops(error),
        }
    }

    /// The errno's name, such as `EBUSY`.
    pub fn errno_name(&self) -> String {
        format!("{:?}", self.errno())
    }
}

fn name(error: &NameError) -> Errno {
    match error {
        NameError::Reserved { .. } => Errno::EPERM,
        NameError::Characters { .. } | NameError::Version { .. } | NameError::Reference { .. } => {
            Errno::EINVAL
        }
    }
}

/// What the disk said; EIO where the error did not come from a system call.
fn disk(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn ops(error: &OpsError) -> Errno {
    match error {
        OpsError::Name(error) => name(error),
        OpsError::NoModel { .. }
        | OpsError::NoApproval { .. }
        | OpsError::NoMetric { .. }
        | OpsError::NoVersion { .. }
        | OpsError::NoAlias { .. }
        | OpsError::NoEarlierVersion { .. } => Errno::ENOENT,
        OpsError::ModelExists { .. } | OpsError::AliasExists { .. } => Errno::EEXIST,
        OpsError::ModelInUse { .. } | OpsError::NotEmpty { .. } => Errno::ENOTEMPTY,
        OpsError::Denied { .. } | OpsError::Gated { .. } | OpsError::NoRole { .. } => Errno::EACCES,
        OpsError::SealInProgress { .. }
        | OpsError::DraftBusy { .. }
        | OpsError::NotAsPlanned { .. }
        | OpsError::Changed { .. }
        | OpsError::Closing => Errno::EBUSY,
        OpsError::Empty { .. } => Errno::ENODATA,
        OpsError::Unfit { .. }
        | OpsError::Option { .. }
        | OpsError::BadPolicy { .. }
        | OpsError::ManyRoles { .. } => Errno::EINVAL,
        OpsError::PolicyUnreadable { .. } => Errno::EIO,
        OpsError::HotOff => Errno::EOPNOTSUPP,
        OpsError::NoKey => Errno::EROFS,
        OpsError::File { source, .. } => disk(source),
        OpsError::Store(error) => store(error),
    }
}

fn store(error: &StoreError) -> Errno {
    match error {
        StoreError::Io { .. } | StoreError::Catalog(_) => {
            error.raw_errno().map_or(Errno::EIO, Errno::from_raw)
        }
        StoreError::Unwritable { .. } => Errno::EINVAL,
        StoreError::Conflict { .. } => Errno::EBUSY,
        StoreError::Missing { .. }
        | StoreError::Foreign { .. }
        | StoreError::Locked { .. }
        | StoreError::Config { .. }
        | StoreError::Pack { .. }
        | StoreError::Record { .. }
        | StoreError::Chain { .. }
        | StoreError::Signature { .. }
        | StoreError::RecordMissing { .. }
        | StoreError::Diverged { .. }
        | StoreError::CheckpointSignature { .. }
        | StoreError::ChunkMissing { .. }
        | StoreError::ChunkDamaged { .. }
        | StoreError::ManifestMissing { .. }
        | StoreError::ManifestDamaged { .. }
        | StoreError::ManifestUnreadable { .. }
        | StoreError::Encoder { .. }
        | StoreError::Checkpoint { .. }
        | StoreError::Untrue { .. } => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_has_its_name() {
        let busy = FsError::Draft(io::Error::from_raw_os_error(libc::EBUSY));
        assert_eq!(busy.errno_name(), "EBUSY");
        assert_eq!(FsError::Missing.errno_name(), "ENOENT");
        assert_eq!(FsError::Draft(io::Error::other("no call")).errno(), Errno::EIO);
    }

    #[test]
    fn a_reserved_name_is_forbidden_and_a_strange_one_is_wrong() {
        let errno = |text: &str| {
            let error = text.parse::<crate::format::names::AliasName>().unwrap_err();
            FsError::from(error).errno()
        };
        assert_eq!(errno("latest"), Errno::EPERM);
        assert_eq!(errno("a/b"), Errno::EINVAL);
    }
}
