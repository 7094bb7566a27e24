//! Who may look and change, by owner, group and mode: what decides where no policy does.
//!
//! The bits of a model's directory mean here what they mean in the mount.

use crate::format::record::{Access, Door};

/// Who asks, as the kernel says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user's name, or the number as text where it has none.
    pub user: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub door: Door,
}

/// What is to be done to a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Pass through it to what it holds: search.
    Enter,
    /// Look at what it holds: read and search.
    Read,
    /// Change what it holds: write and search.
    Write,
    /// Change its owner, group or mode: only its owner.
    Own,
    /// Look at the store as a whole, or mend it: only the owner of its root.
    Administer,
}

/// The answer to "may they?".
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Permission {
    Allowed,
    /// `needs` completes "… is missing" for the one who was refused.
    Refused {
        needs: String,
    },
}

/// Decides by owner, group and mode, as Linux would; root may do all.
///
/// Through the mount the kernel has decided already (`default_permissions`): its verdict stands.
pub fn may(caller: &Caller, access: Access, action: Action) -> Permission {
    if caller.door == Door::Mount {
        return Permission::Allowed;
    }
    by_bits(caller, access, action)
}

/// The same whichever door they came through: for what the kernel does not ask, as the way that it sees leads
/// past the directory.
pub fn by_bits(caller: &Caller, access: Access, action: Action) -> Permission {
    if caller.uid == 0 {
        return Permission::Allowed;
    }
    let (wanted, word) = match action {
        Action::Enter => (0o1, "search"),
        Action::Read => (0o5, "read"),
        Action::Write => (0o3, "write"),
        Action::Own | Action::Administer if caller.uid == access.uid => return Permission::Allowed,
        Action::Own | Action::Administer => {
            return Permission::Refused {
                needs: format!("to be root or its owner, uid {}", access.uid),
            };
        }
    };
    let (class, shift) = if caller.uid == access.uid {
        ("owner", 6)
    } else if caller.gid == access.gid || caller.groups.contains(&access.gid) {
        ("group", 3)
    } else {
        ("others", 0)
    };
    if access.mode >> shift & wanted == wanted {
        return Permission::Allowed;
    }
    let Access { uid, gid, mode } = access;
    Permission::Refused {
        needs: format!("{word} permission for {class} (owner {uid}, group {gid}, mode {mode:04o})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_bits_decide_as_linux_does() {
        let access = |mode| Access { uid: 10, gid: 20, mode };
        let check = |uid, gid, mode, action, allowed: bool| {
            let (user, groups, door) = (String::new(), vec![7], Door::Cli);
            let caller = Caller { user, uid, gid, groups, door };
            let verdict = may(&caller, access(mode), action);
            assert_eq!(verdict == Permission::Allowed, allowed, "{uid} {gid} {mode:o} {action:?}");
        };
        check(10, 1, 0o700, Action::Write, true);
        check(10, 20, 0o077, Action::Read, false);
        check(11, 20, 0o750, Action::Read, true);
        check(11, 20, 0o750, Action::Write, false);
        check(11, 20, 0o770, Action::Write, true);
        check(11, 1, 0o750, Action::Read, false);
        check(11, 1, 0o755, Action::Read, true);
        check(11, 1, 0o744, Action::Read, false);
        check(11, 1, 0o744, Action::Enter, false);
        check(11, 1, 0o711, Action::Enter, true);
        check(0, 0, 0o000, Action::Write, true);
        check(11, 20, 0o777, Action::Own, false);
        check(10, 1, 0o000, Action::Own, true);
    }
}
