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
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    // The last sign counts: a password may have others.
    let (user, host) =
        host.rsplit_once('@').map_or((None, host), |(user, host)| (Some(user), host));
    let user = user.filter(|user| *user == "git").map_or("", |_| "git@");
    format!("{scheme}://{user}{host}{path}")
}

/// `user@host:path`, as SSH has it.
fn short_form(address: &str) -> String {
    let Some((before, path)) = address.split_once(':') else { return address.to_owned() };
    match before.rsplit_once('@') {
        Some((user, host)) if !before.contains('/') && user != "git" => format!("{host}:{path}"),
        _ => address.to_owned(),
    }
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
        check("https://token@host", "https://host");
        check("ssh://git@host:22/r", "ssh://git@host:22/r");
        check("ssh://ann:secret@host/r", "ssh://host/r");
        check("git@github.com:org/repo.git", "git@github.com:org/repo.git");
        check("ann@host:r", "host:r");
        check("s3://key:secret@bucket/data/", "s3://bucket/data/");
        check("/srv/git/repo.git", "/srv/git/repo.git");
        check("../a@b:c", "../a@b:c");
        check("://x@y", "://x@y");
    }
}
