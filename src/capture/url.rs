//! Addresses without what must not be kept: user names, passwords, tokens.

/// The address without credentials: no user (but `git` of SSH, which is everybody's), no query, no
/// fragment. A path is left as it is.
pub fn without_credentials(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return short_form(address) };
    if scheme.is_empty()
        || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    {
        return address.to_owned();
    }
    let (user, rest) = match user_bytes(rest) {
        Some(end) => (Some(&rest[..end]), &rest[end + 1..]),
        None => (None, rest),
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let user = user.filter(|user| *user == "git").map_or("", |_| "git@");
    format!("{scheme}://{user}{rest}")
}

/// Where the user and the password end, at an `@`; the last sign counts, as a password may have others.
fn user_bytes(rest: &str) -> Option<usize> {
    let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    // What stands behind the colon of a host is a number: else it is part of a password.
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match host.split_once(':') {
        Some((name, port)) if !host.contains('@') && !name.starts_with('[') && !is_port(port) => {
            rest.rfind('@')
        }
        _ => host.rfind('@'),
    }
}

/// `user@host:path`, as SSH has it.
fn short_form(address: &str) -> String {
    let Some((user, rest)) = address.split_once('@') else { return address.to_owned() };
    let is_path = address.starts_with(['/', '.']) || user.contains('/');
    // `user@` without a colon behind it is a file's name.
    if is_path || user == "git" || !address.contains(':') {
        return address.to_owned();
    }
    // A password may have the sign too.
    let host = rest.rsplit_once('@').filter(|_| user.contains(':')).map_or(rest, |(_, host)| host);
    host.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_left_out() {
        let check = |address: &str, expected: &str| {
            assert_eq!(without_credentials(address), expected, "{address}");
        };
        check("https://github.com/org/repo.git", "https://github.com/org/repo.git");
        check("https://x-access-token:ghp_abc@github.com/org/repo", "https://github.com/org/repo");
        check("https://ann:p@ss:w@host:8443/r?token=1#x", "https://host:8443/r");
        check("https://ann:pa/ss@host/r.git", "https://host/r.git");
        check("https://ann:p?w#x@host/r", "https://host/r");
        check("https://host:8443/a@b", "https://host:8443/a@b");
        check("http://[::1]:80/a@b", "http://[::1]:80/a@b");
        check("https://token@host", "https://host");
        check("ssh://git@host:22/r", "ssh://git@host:22/r");
        check("ssh://ann:secret@host/r", "ssh://host/r");
        check("git@github.com:org/repo.git", "git@github.com:org/repo.git");
        check("ann@host:r", "host:r");
        check("ann:pw@host:r", "host:r");
        check("ann:p@w@host:r", "host:r");
        check("ann@host", "ann@host");
        check("s3://key:secret@bucket/data/", "s3://bucket/data/");
        check("/srv/git/repo.git", "/srv/git/repo.git");
        check("../a@b:c", "../a@b:c");
        check("data/a@b:c", "data/a@b:c");
        check("://x@y", "://x@y");
    }
}
