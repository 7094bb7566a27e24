//! Why a daemon did not start, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::mountpoint::MountpointError;
use crate::fuse::MountError;
use crate::ops::{Failure, FailureKind, OpsError};

/// Why a daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("cannot mount: {0}")]
    Mountpoint(#[from] MountpointError),
    #[error(transparent)]
    Store(#[from] OpsError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("cannot listen at `{path}`")]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot {what}")]
    Setup { what: &'static str, source: io::Error },
}

impl From<&DaemonError> for Failure {
    fn from(error: &DaemonError) -> Failure {
        let (kind, hint) = match error {
            DaemonError::Store(error) => return Failure::from(error),
            DaemonError::Mountpoint(error) => of_mountpoint(error),
            DaemonError::Mount(error) => of_mount(error),
            DaemonError::Socket { .. } | DaemonError::Setup { .. } => (FailureKind::CouldNot, None),
        };
        Failure { kind, message: error.to_string(), because: causes(error), hint }
    }
}

fn of_mount(error: &MountError) -> (FailureKind, Option<String>) {
    match error {
        MountError::NotDirectory { .. } => (FailureKind::CouldNot, None),
        MountError::Occupied { .. } | MountError::Silent { .. } => (FailureKind::Busy, None),
        MountError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            let hint = "mount as root, or have FUSE opened for users: `/dev/fuse` with mode 0666, and \
                        for `--allow-other` the line `user_allow_other` in `/etc/fuse.conf`";
            (FailureKind::Refused, Some(hint.to_owned()))
        }
        MountError::Io { .. } => (FailureKind::CouldNot, None),
    }
}

fn of_mountpoint(error: &MountpointError) -> (FailureKind, Option<String>) {
    match error {
        MountpointError::Missing(path) => {
            (FailureKind::NotFound, Some(format!("mkdir -p {}", path.display())))
        }
        MountpointError::NotADirectory(_) => {
            (FailureKind::CouldNot, Some("name an empty directory".to_owned()))
        }
        MountpointError::NotEmpty(_) => {
            (FailureKind::Busy, Some("move its files away, or name an empty directory".to_owned()))
        }
        MountpointError::Mounted { mountpoint, .. } => (
            FailureKind::Busy,
            Some(format!("umount {}, or name another directory", mountpoint.display())),
        ),
        MountpointError::Nested { .. } => (
            FailureKind::Usage,
            Some("keep the store outside of the directory that shows it".to_owned()),
        ),
        MountpointError::Unreadable { .. } => (FailureKind::CouldNot, None),
    }
}

/// The chain of causes below an error. What a message has in it is no cause of it.
fn causes(error: &DaemonError) -> Vec<String> {
    if matches!(error, DaemonError::Mountpoint(_)) {
        return Vec::new();
    }
    let error: &dyn std::error::Error = error;
    std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string).collect()
}
