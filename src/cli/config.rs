//! What the environment says, and the defaults of this program.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::format::record::Door;
use crate::governance::Check;
use crate::ops::{Caller, Context};
use crate::sys::{identity, users};

/// Names the directory of the store.
pub const STORE_VARIABLE: &str = "MODELFS_STORE";
/// Names the file of the key that signs records.
pub const SIGN_KEY_VARIABLE: &str = "MODELFS_SIGN_KEY";
/// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or one for each module.
pub const LOG_VARIABLE: &str = "MODELFS_LOG";

/// Tells a check where the files of the version are.
const CHECK_PATH_VARIABLE: &str = "MODELFS_PATH";
/// Tells it which version that is.
const CHECK_REFERENCE_VARIABLE: &str = "MODELFS_REF";
/// Tells it in which file its result is looked for first.
pub const CHECK_RESULT_VARIABLE: &str = "MODELFS_RESULT";
/// Tells a training where to write.
pub const DRAFT_VARIABLE: &str = "MODELFS_DRAFT";
/// Marks what a watch starts.
pub const WATCH_VARIABLE: &str = "MODELFS_WATCH";
/// What a check has of the environment of whoever runs it: where programs are, and where they look for
/// their settings.
const CHECK_INHERITED: [&str; 2] = ["PATH", HOME_VARIABLE];
/// The same words everywhere, in UTF-8.
const CHECK_LANGUAGE: (&str, &str) = ("LANG", "C.UTF-8");
const TEMPORARY_VARIABLE: &str = "TMPDIR";

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Decoded blocks that a daemon keeps, in bytes. The kernel's page cache is the real cache.
pub const DAEMON_CACHE_BYTES: u64 = 128 << 20;
/// Decoded blocks that one command keeps, in bytes.
pub const COMMAND_CACHE_BYTES: u64 = 32 << 20;

/// Where root keeps models, and a daemon for all users serves them from.
pub const ROOT_STORE: &str = "/var/lib/modelfs";
const DATA_VARIABLE: &str = "XDG_DATA_HOME";
const HOME_VARIABLE: &str = "HOME";
const DATA_BELOW_HOME: &str = ".local/share";
const STATE_VARIABLE: &str = "XDG_STATE_HOME";
const STATE_BELOW_HOME: &str = ".local/state";
const OURS: &str = "modelfs";

/// Why there is no store to speak of.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("no store is named, and neither `{DATA_VARIABLE}` nor `{HOME_VARIABLE}` is set")]
    NoStore,
    #[error("neither `{STATE_VARIABLE}` nor `{HOME_VARIABLE}` is set to an absolute path")]
    NoState,
    #[error("the path of a store is empty")]
    EmptyStore,
    #[error("cannot find `{path}`: {source}")]
    Path { path: PathBuf, source: io::Error },
}

/// The store's directory: as named, else the default; absolute, its links resolved where it exists.
///
/// # Errors
/// Says what is missing.
pub fn store(named: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let path = match named {
        Some(path) if path.as_os_str().is_empty() => return Err(ConfigError::EmptyStore),
        Some(path) => path.to_owned(),
        None => default_store(
            identity::own_uid(),
            env::var_os(DATA_VARIABLE).map(PathBuf::from),
            env::var_os(HOME_VARIABLE).map(PathBuf::from),
        )?,
    };
    let path = absolute(&path)?;
    Ok(path.canonicalize().unwrap_or(path))
}

/// A path that means the same in another process.
///
/// # Errors
/// Where the current directory is gone.
pub fn absolute(path: &Path) -> Result<PathBuf, ConfigError> {
    std::path::absolute(path).map_err(|source| ConfigError::Path { path: path.to_owned(), source })
}

fn default_store(
    uid: u32,
    data: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Result<PathBuf, ConfigError> {
    if uid == 0 {
        return Ok(ROOT_STORE.into());
    }
    // The specification says that a relative path there is to be ignored.
    let data = data.filter(|path| path.is_absolute());
    let home = home.filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(home?.join(DATA_BELOW_HOME)));
    Ok(data.ok_or(ConfigError::NoStore)?.join(OURS))
}

/// Where what is worth keeping between two starts is kept, for this user.
///
/// # Errors
/// Where the user has no place for that.
pub fn state_directory() -> Result<PathBuf, ConfigError> {
    let named = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || Some(named(HOME_VARIABLE)?.join(STATE_BELOW_HOME));
    Ok(named(STATE_VARIABLE).or_else(home).ok_or(ConfigError::NoState)?.join(OURS))
}

/// What a check is told of its surroundings.
#[derive(Clone, Copy, Debug)]
pub struct CheckPlace<'a> {
    pub files: &'a Path,
    pub reference: &'a str,
    pub result: &'a Path,
    pub temporary: &'a Path,
}

/// The environment of a check: little of ours, what its suite says, and where it is.
pub fn check_environment(check: &Check, place: CheckPlace<'_>) -> Vec<(OsString, OsString)> {
    let ours = |name: &str| Some((OsString::from(name), env::var_os(name)?));
    let inherited = CHECK_INHERITED.into_iter().chain(check.pass.iter().map(String::as_str));
    let mut variables: Vec<(OsString, OsString)> = inherited.filter_map(ours).collect();
    let (language, words) = CHECK_LANGUAGE;
    let said = check.env.iter().map(|(name, value)| (name.as_str(), OsStr::new(value)));
    let own = [
        (language, OsStr::new(words)),
        (TEMPORARY_VARIABLE, place.temporary.as_os_str()),
        (CHECK_PATH_VARIABLE, place.files.as_os_str()),
        (CHECK_REFERENCE_VARIABLE, OsStr::new(place.reference)),
        (CHECK_RESULT_VARIABLE, place.result.as_os_str()),
    ];
    // What the suite says comes later and counts; it cannot name ours.
    let more = own.into_iter().chain(said);
    variables.extend(more.map(|(name, value)| (name.into(), value.to_owned())));
    variables
}

/// Values that a check gets from whoever runs it, and that its output must not show.
pub fn passed_values(check: &Check) -> Vec<OsString> {
    check.pass.iter().filter_map(env::var_os).collect()
}

/// All variables of this process, for a command that is to run as if it had been started without us.
pub fn environment() -> Vec<(OsString, OsString)> {
    env::vars_os().collect()
}

/// The user of this process, through the door of the command line.
///
/// # Errors
/// Those of `getgroups`.
pub fn caller() -> io::Result<Caller> {
    let uid = identity::own_uid();
    Ok(Caller {
        user: users::name_of(uid),
        uid,
        gid: identity::own_gid(),
        groups: identity::own_groups()?,
        door: Door::Cli,
    })
}

/// The same now, for a verb that runs in this process.
///
/// # Errors
/// Those of `getgroups`.
pub fn context() -> io::Result<Context> {
    Ok(Context { caller: caller()?, now: Timestamp::now(), assume: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_store_is_where_the_user_keeps_data() {
        let check = |uid, data: Option<&str>, home: Option<&str>, expected: Option<&str>| {
            let found = default_store(uid, data.map(PathBuf::from), home.map(PathBuf::from)).ok();
            assert_eq!(found.as_deref(), expected.map(Path::new), "{uid} {data:?} {home:?}");
        };
        check(0, Some("/x"), Some("/root"), Some("/var/lib/modelfs"));
        check(7, Some("/x"), Some("/home/ann"), Some("/x/modelfs"));
        check(7, None, Some("/home/ann"), Some("/home/ann/.local/share/modelfs"));
        check(7, Some("x"), Some("/home/ann"), Some("/home/ann/.local/share/modelfs"));
        check(7, Some(""), Some(""), None);
        check(7, None, None, None);
    }
}
