//! Temporary links: what `ln -sfn` makes before it renames it over an alias.
//!
//! They live in memory only, are not listed, and are gone a minute after they were made.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use jiff::{SignedDuration, Timestamp};

use super::FsError;
use super::nodes::TemporaryLink;
use crate::format::names::{AliasName, ModelName, NameError};

/// Most temporary links of one model.
const LINKS_MAX: usize = 1_024;
/// How long a temporary link waits to be renamed.
const LIFETIME: SignedDuration = SignedDuration::from_secs(60);

/// Whether a link called `name` waits for a rename instead of being an alias at once.
///
/// So do names that start with a dot or have other characters than an alias, and those that
/// coreutils makes: `Cu` and six letters or digits. A reserved word is never a link.
pub fn is_temporary_name(name: &OsStr) -> bool {
    let Some(text) = name.to_str() else { return true };
    match text.parse::<AliasName>() {
        Ok(_) => is_coreutils_name(text),
        Err(NameError::Reserved { .. }) => false,
        Err(_) => true,
    }
}

/// Whether tools use `name` for a link that they will rename: it starts with a dot, or is one of
/// coreutils'.
pub fn is_passing_name(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") || name.to_str().is_some_and(is_coreutils_name)
}

fn is_coreutils_name(text: &str) -> bool {
    let rest = text.strip_prefix("Cu").map(str::as_bytes);
    rest.is_some_and(|rest| rest.len() == 6 && rest.iter().all(u8::is_ascii_alphanumeric))
}

/// The temporary links of all models.
#[derive(Debug, Default)]
pub struct TemporaryLinks {
    links: HashMap<ModelName, BTreeMap<OsString, TemporaryLink>>,
    last: u64,
}

impl TemporaryLinks {
    /// Adds a link; EEXIST where the name is taken, ENOSPC where there are too many.
    pub fn add(
        &mut self,
        model: &ModelName,
        name: &OsStr,
        target: &OsStr,
        now: Timestamp,
    ) -> Result<TemporaryLink, FsError> {
        self.reap(now);
        let links = self.links.entry(model.clone()).or_default();
        if links.contains_key(name) {
            return Err(FsError::Exists { name: name.as_bytes().escape_ascii().to_string() });
        }
        if LINKS_MAX <= links.len() {
            return Err(FsError::TooManyLinks { model: model.clone(), limit: LINKS_MAX });
        }
        self.last += 1;
        let link = TemporaryLink { id: self.last, target: target.to_owned(), made: now };
        links.insert(name.to_owned(), link.clone());
        Ok(link)
    }

    /// The link called `name`, unless its time is over.
    pub fn find(
        &mut self,
        model: &ModelName,
        name: &OsStr,
        now: Timestamp,
    ) -> Option<TemporaryLink> {
        if self.links.is_empty() {
            return None;
        }
        self.reap(now);
        self.links.get(model)?.get(name).cloned()
    }

    /// Takes a link away; what it was.
    pub fn remove(&mut self, model: &ModelName, name: &OsStr) -> Option<TemporaryLink> {
        let links = self.links.get_mut(model)?;
        let removed = links.remove(name);
        if links.is_empty() {
            self.links.remove(model);
        }
        removed
    }

    /// Puts a link under a name, over what was there.
    pub fn put(&mut self, model: &ModelName, name: &OsStr, link: TemporaryLink) {
        self.links.entry(model.clone()).or_default().insert(name.to_owned(), link);
    }

    /// A fresh link in place of another, for an exchange with an alias.
    pub fn renew(&mut self, target: &OsStr, now: Timestamp) -> TemporaryLink {
        self.last += 1;
        TemporaryLink { id: self.last, target: target.to_owned(), made: now }
    }

    fn reap(&mut self, now: Timestamp) {
        let is_young = |link: &TemporaryLink| now.duration_since(link.made) < LIFETIME;
        for links in self.links.values_mut() {
            links.retain(|_, link| is_young(link));
        }
        self.links.retain(|_, links| !links.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn names_that_tools_make_for_the_moment_are_temporary() {
        let is = |name: &str| is_temporary_name(OsStr::new(name));
        for name in [".prod", "CuA1b2C3", "prod~", "#prod", "a b", "\u{e9}"] {
            assert!(is(name), "{name}");
        }
        for name in ["prod", "CuA1b2C", "CuA1b2C34", "CuA1b-C3", "draft", "v7", "v007", "prod.tmp"]
        {
            assert!(!is(name), "{name}");
        }
        assert!(is_temporary_name(OsStr::from_bytes(b"\xff")));
        assert!(is_passing_name(OsStr::new(".t")) && is_passing_name(OsStr::new("CuA1b2C3")));
        assert!(!is_passing_name(OsStr::new("a b")));
    }

    #[test]
    fn a_temporary_link_is_gone_after_a_minute() {
        let (mut links, model) = (TemporaryLinks::default(), "churn".parse().unwrap());
        let name = OsStr::new(".tmp");
        links.add(&model, name, OsStr::new("v1"), at(0)).unwrap();
        assert_eq!(links.find(&model, name, at(59)).unwrap().target, "v1");
        assert!(links.find(&model, name, at(60)).is_none());
        assert!(links.links.is_empty());
    }

    #[test]
    fn each_link_has_an_identity_of_its_own_and_their_number_is_limited() {
        let (mut links, model) = (TemporaryLinks::default(), "churn".parse().unwrap());
        let mut add = |name: String| links.add(&model, OsStr::new(&name), OsStr::new("v1"), at(0));
        let first = add(".0".into()).unwrap();
        assert_ne!(first.id, add(".1".into()).unwrap().id);
        assert!(matches!(add(".0".into()), Err(FsError::Exists { .. })));
        for index in 2..LINKS_MAX {
            add(format!(".{index}")).unwrap();
        }
        let error = add(".last".into()).unwrap_err();
        assert!(matches!(error, FsError::TooManyLinks { .. }), "{error:?}");
    }
}
