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
}
