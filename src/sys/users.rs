//! Users as the machine knows them: names of numbers, groups of users.
//!
//! Answers come from the system's user database at each call; nothing is remembered here.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User};

/// The name of user `uid`, or the number as text where it has none.
pub fn name_of(uid: u32) -> String {
    match find(uid) {
        Some(user) => user.name,
        None => uid.to_string(),
    }
}

/// The supplementary groups that the user database gives to user `uid`, `gid` among them; `gid`
/// alone where it knows no such user.
pub fn groups_of(uid: u32, gid: u32) -> Vec<u32> {
    let name = find(uid).and_then(|user| CString::new(user.name).ok());
    let listed = name.and_then(|name| nix::unistd::getgrouplist(&name, Gid::from_raw(gid)).ok());
    match listed {
        Some(groups) => groups.into_iter().map(Gid::as_raw).collect(),
        None => vec![gid],
    }
}

/// The supplementary groups that a process, or one of its threads, acts with on files, `gid` among them. Where
/// that cannot be told, as it lives in another world of processes, those of the user database.
///
/// For one that waits for our answer, so that its number is not another's meanwhile.
pub fn groups_of_process(pid: u32, uid: u32, gid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let listed = status.ok().and_then(|status| parse_groups(&status, uid));
    let mut groups = listed.unwrap_or_else(|| groups_of(uid, gid));
    groups.push(gid);
    groups
}

/// The groups in `/proc/<pid>/status`, if it is that of a process that acts as `uid`.
fn parse_groups(status: &str, uid: u32) -> Option<Vec<u32>> {
    let numbers = |name: &str| -> Option<Vec<u32>> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
    };
    // Real, effective, saved, and that for files.
    let [_, _, _, files] = numbers("Uid:")?[..] else { return None };
    (files == uid).then(|| numbers("Groups:")).flatten()
}

/// The number of the group called `name`.
pub fn group_called(name: &str) -> Option<u32> {
    Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
}

/// A database that cannot be asked is one that knows nobody: the number is as good.
fn find(uid: u32) -> Option<User> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_name_is_its_number() {
        assert_eq!(name_of(0), "root");
        assert_eq!(name_of(3_999_999_999), "3999999999");
        assert_eq!(groups_of(3_999_999_999, 7), [7]);
        assert!(groups_of(0, 0).contains(&0));
    }

    #[test]
    fn a_process_has_the_groups_that_the_kernel_shows() {
        let status = "Name:\tcat\nUid:\t1\t2\t3\t4\nGid:\t5\t5\t5\t5\nGroups:\t7 4500 \nNgid:\t0\n";
        assert_eq!(parse_groups(status, 4), Some(vec![7, 4_500]));
        assert_eq!(parse_groups(status, 1), None, "it is somebody else by now");
        assert_eq!(parse_groups(&status.replace("7 4500 ", ""), 4), Some(vec![]));
        assert_eq!(parse_groups("", 4), None);
        let own = crate::sys::identity::own_groups().unwrap();
        let (uid, gid) = (crate::sys::identity::own_uid(), crate::sys::identity::own_gid());
        let found = groups_of_process(std::process::id(), uid, gid);
        assert!(own.iter().all(|group| found.contains(group)), "{own:?} {found:?}");
        assert_eq!(groups_of_process(0, 3_999_999_999, 7), [7, 7]);
    }
}
