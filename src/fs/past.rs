//! `.at/<time>/…`: models, versions and aliases as they were at a moment.
//!
//! Who may look is decided by what the models are now. Names are of times that have passed: nothing
//! below one changes, but it is looked up each time, as the last moment may still get a record.

use std::ffi::OsStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::answer::Kind;
use super::listing::Named;
use super::model::alias_link;
use super::nodes::{Node, View};
use super::{Child, Filesystem, FsError, Requester, version};
use crate::format::manifest::EntryIndex;
use crate::format::names::{At, ModelName};

/// The name of a moment, and the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moment {
    /// As it was asked for: each name has inodes of its own.
    pub name: String,
    pub at: Timestamp,
}

impl Moment {
    /// `2026-06-01T12:00:00Z`, any RFC 3339 time; a date is its first moment in UTC.
    pub fn parse(name: &str) -> Option<Self> {
        // Exactly a date: the parser passes over a time without a zone, which is no moment.
        let date = || {
            Some(Date::strptime("%Y-%m-%d", name).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
        };
        let at = name.parse::<Timestamp>().ok().or_else(date)?;
        Some(Self { name: name.to_owned(), at })
    }
}

impl Filesystem {
    /// `/.at/<name>`; nothing for a time that is still to come.
    pub(super) fn past_child(&self, name: &OsStr) -> Option<Child> {
        let moment = Moment::parse(name.to_str()?)?;
        (moment.at <= (self.settings.now)()).then(|| Child::moving(Node::Past(moment.into())))
    }

    /// `/.at/<time>/<model>`: who may not enter the model has nothing added up.
    pub(super) fn past_model_child(
        &self,
        moment: &Moment,
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        let Some(Ok(model)) = name.to_str().map(str::parse::<ModelName>) else { return Ok(None) };
        let state = self.workspace.state();
        let was_there = state.model(&model).is_some_and(|it| it.created <= moment.at);
        Ok(was_there.then(|| Child::moving(Node::PastModel(moment.clone().into(), model))))
    }

    /// `/.at/<time>/<model>/<version or alias>`
    pub(super) fn past_version_child(
        &self,
        requester: Requester,
        (moment, model): (&Moment, &ModelName),
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        let Some(Ok(at)) = name.to_str().map(str::parse::<At>) else { return Ok(None) };
        let found = self.workspace.model_at(requester.uid, model, moment.at)?;
        let Some(found) = found else { return Ok(None) };
        let At::Version(number) = at else {
            return Ok(alias_link(&found, at).map(|link| Child::moving(Node::Alias(link.into()))));
        };
        let Some(id) = found.body()?.versions.get(number).map(|it| it.manifest) else {
            return Ok(None);
        };
        let manifest = self.workspace.manifest(&id)?;
        let view = View::Past(moment.name.clone());
        Ok(Some(Child::moving(version::root(view, id, manifest))))
    }

    /// The models of a moment that are still there.
    pub(super) fn past_models(&self, moment: &Moment) -> Result<Vec<Named>, FsError> {
        let names: Vec<ModelName> = {
            let state = self.workspace.state();
            let there = state.models().filter(|model| model.created <= moment.at);
            there.map(|model| model.name.clone()).collect()
        };
        let named = |model: ModelName| {
            let name = model.as_str().into();
            (name, Kind::Directory, Node::PastModel(moment.clone().into(), model).identity())
        };
        Ok(names.into_iter().map(named).collect())
    }

    /// The versions and aliases that a model had.
    pub(super) fn past_names(
        &self,
        requester: Requester,
        moment: &Moment,
        model: &ModelName,
    ) -> Result<Vec<Named>, FsError> {
        let found = self.workspace.model_at(requester.uid, model, moment.at)?;
        let found = found.ok_or(FsError::Missing)?;
        let links = std::iter::once(At::Latest).chain(found.aliases.keys().cloned().map(At::Alias));
        let links = links.filter_map(|alias| alias_link(&found, alias)).map(|link| {
            let name = link.alias.to_string().into();
            (name, Kind::Symlink, Node::Alias(link.into()).identity())
        });
        let view = View::Past(moment.name.clone());
        let body = found.body()?;
        let versions = body.versions.iter().map(|version| {
            let identity = view.identity(&version.manifest, EntryIndex::ROOT);
            (version.number.to_string().into(), Kind::Directory, identity)
        });
        Ok(links.chain(versions).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_with_its_zone_or_a_date() {
        let second = |name: &str| Moment::parse(name).map(|moment| moment.at.as_second());
        assert_eq!(second("1970-01-02T00:00:00Z"), Some(86_400));
        assert_eq!(second("1970-01-02T01:00:00+01:00"), Some(86_400));
        assert_eq!(second("1970-01-02"), Some(86_400));
        for bad in ["", "now", "1970-13-01", "yesterday", "1970-01-02T00:00:00", "v1", ".."] {
            assert_eq!(second(bad), None, "{bad}");
        }
    }
}
