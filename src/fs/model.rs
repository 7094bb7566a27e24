//! A model's directory: versions, aliases, draft, control file; links that move aliases.
//!
//! An alias moves in one step of the history, whichever tool asks: `ln -sfn` makes a link under a
//! temporary name and renames it, `mv -T` renames an alias, busybox unlinks and links anew.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use jiff::Timestamp;

use super::answer::{Attributes, Kind, time};
use super::diff::DIFF;
use super::listing::Named;
use super::nodes::{AliasLink, Node, View};
use super::root::{INFO, LIVE, PAST};
use super::temporary::{is_passing_name, is_temporary_name};
use super::{Child, Filesystem, FsError, RenameMode, Requester, show, version};
use crate::format::manifest::EntryIndex;
use crate::format::names::{
    AliasName, At, DRAFT, LATEST, ModelName, NameError, SNAPSHOT, VersionNumber,
};
use crate::format::record::Access;
use crate::ops::{Must, Wish};
use crate::registry::model::Model;

/// Block size that `stat` shows where there is no disk behind.
pub(super) const BLOCK_BYTES: u32 = 4_096;

/// Names of views, here or in the root; never links.
const KEPT_NAMES: [&str; 4] = [LIVE, INFO, PAST, DIFF];

/// What a model's attributes are made of; the root's as well.
pub(super) struct Facts {
    pub access: Access,
    pub changed: Timestamp,
}

impl Facts {
    /// Attributes of a directory with the permissions in `mask`.
    pub(super) fn directory(&self, mask: u32) -> Attributes {
        self.attributes(Kind::Directory, self.access.mode & mask, 0, self.changed)
    }

    /// Attributes of a file with the permissions in `mask`.
    pub(super) fn file(&self, mask: u32, bytes: u64) -> Attributes {
        self.attributes(Kind::File, self.access.mode & mask, bytes, self.changed)
    }

    /// Attributes of a symbolic link made at `since`.
    pub(super) fn link(&self, bytes: u64, since: Timestamp) -> Attributes {
        self.attributes(Kind::Symlink, 0o777, bytes, since)
    }

    fn attributes(&self, kind: Kind, mode: u32, bytes: u64, at: Timestamp) -> Attributes {
        let at = system_time(at);
        Attributes {
            number: 0,
            kind,
            mode,
            links: 1,
            uid: self.access.uid,
            gid: self.access.gid,
            bytes,
            blocks: bytes.div_ceil(512),
            block_bytes: BLOCK_BYTES,
            device: 0,
            accessed: at,
            modified: at,
            changed: at,
        }
    }
}

/// What a name means to the operations that change a model's directory.
enum Entry {
    Alias(AliasName),
    /// A link in memory, there or not.
    Temporary,
    Version(VersionNumber),
    /// `latest`, `draft`, `snapshot`, `v01`: nobody's to make or remove.
    Reserved,
    /// `.live`, `.modelfs`, `.diff`, `.at`.
    View,
}

impl Filesystem {
    pub(super) fn model_facts(&self, model: &ModelName) -> Result<Facts, FsError> {
        let state = self.workspace.state();
        let model = state.model(model).ok_or(FsError::Missing)?;
        Ok(Facts { access: model.access, changed: model.changed })
    }

    pub(super) fn model_child(
        &self,
        model: &ModelName,
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        match name.to_str() {
            Some(LIVE) => return Ok(Some(Child::fixed(Node::Live(Some(model.clone()))))),
            Some(INFO) => return Ok(Some(Child::fixed(Node::Info(Some(model.clone()))))),
            Some(DIFF) => return Ok(Some(Child::fixed(Node::Diffs(model.clone())))),
            Some(DRAFT) => return self.draft_root(model).map(Some),
            Some(SNAPSHOT) => return Ok(Some(Child::moving(Node::Control(model.clone())))),
            Some(text) => {
                if let Ok(at) = text.parse::<At>()
                    && let Some(child) = self.reference_child(model, at)?
                {
                    return Ok(Some(child));
                }
            }
            None => {}
        }
        let link = self.temporary.lock().find(model, name, (self.settings.now)());
        Ok(link.map(|link| Child::moving(Node::Temporary(model.clone(), link.into()))))
    }

    /// The version or alias called `at`.
    fn reference_child(&self, model: &ModelName, at: At) -> Result<Option<Child>, FsError> {
        let id = match &at {
            At::Version(number) => {
                let state = self.workspace.state();
                let Some(found) = state.model(model) else { return Ok(None) };
                found.body()?.versions.get(*number).map(|version| version.manifest)
            }
            At::Latest | At::Alias(_) => {
                let state = self.workspace.state();
                let link = state.model(model).and_then(|model| alias_link(model, at));
                return Ok(link.map(|link| Child::moving(Node::Alias(link.into()))));
            }
        };
        let Some(id) = id else { return Ok(None) };
        let manifest = self.workspace.manifest(&id)?;
        Ok(Some(Child::fixed(version::root(View::Model, id, manifest))))
    }

    /// What `ls` shows of a model: no dot names, no temporary links.
    pub(super) fn model_names(&self, model: &ModelName) -> Result<Vec<Named>, FsError> {
        let draft = self.draft_root(model)?.node.identity();
        let control = Node::Control(model.clone()).identity();
        let mut names =
            vec![(DRAFT.into(), Kind::Directory, draft), (SNAPSHOT.into(), Kind::File, control)];
        let state = self.workspace.state();
        let found = state.model(model).ok_or(FsError::Missing)?;
        let links = std::iter::once(At::Latest).chain(found.aliases.keys().cloned().map(At::Alias));
        names.extend(links.filter_map(|alias| alias_link(found, alias)).map(|link| {
            let name = link.alias.to_string().into();
            (name, Kind::Symlink, Node::Alias(link.into()).identity())
        }));
        names.extend(found.body()?.versions.iter().map(|version| {
            let identity = View::Model.identity(&version.manifest, EntryIndex::ROOT);
            (version.number.to_string().into(), Kind::Directory, identity)
        }));
        Ok(names)
    }

    /// Makes an alias, or a link that waits to be renamed to one.
    pub(super) fn link_alias(
        &self,
        requester: Requester,
        model: &ModelName,
        name: &OsStr,
        target: &OsStr,
    ) -> Result<Child, FsError> {
        match classify(name) {
            Entry::View => return Err(FsError::Exists { name: show(name) }),
            Entry::Version(_) | Entry::Reserved => return Err(self.refuse_in_model(model, name)),
            Entry::Temporary => {
                // A wrong target is said here, where `ln` shows it best, and again at the rename.
                self.resolve_target(model, target)?;
                let now = (self.settings.now)();
                let link = self.temporary.lock().add(model, name, target, now)?;
                return Ok(Child::moving(Node::Temporary(model.clone(), link.into())));
            }
            Entry::Alias(alias) => {
                let to = Some(At::Version(self.resolve_target(model, target)?));
                let wish = Wish { model: model.clone(), alias, to, must: Must::BeAbsent };
                self.workspace.retarget(&self.context(requester), &[wish], "")?;
            }
        }
        self.model_child(model, name)?.ok_or(FsError::Missing)
    }

    /// Removes an alias or a temporary link.
    pub(super) fn unlink_alias(
        &self,
        requester: Requester,
        model: &ModelName,
        name: &OsStr,
    ) -> Result<(), FsError> {
        match classify(name) {
            Entry::Temporary => {
                self.temporary.lock().remove(model, name).map(drop).ok_or(FsError::Missing)
            }
            Entry::Alias(alias) => {
                let wish = Wish { model: model.clone(), alias, to: None, must: Must::Exist };
                self.workspace.retarget(&self.context(requester), &[wish], "")?;
                Ok(())
            }
            Entry::Version(_) | Entry::Reserved | Entry::View => {
                Err(self.refuse_in_model(model, name))
            }
        }
    }

    /// Moves aliases by renaming them, or a temporary link, within a model.
    pub(super) fn rename_alias(
        &self,
        requester: Requester,
        model: &ModelName,
        (from, to): (&OsStr, &OsStr),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let must = match mode {
            RenameMode::Replace => Must::Any,
            RenameMode::KeepExisting => Must::BeAbsent,
            RenameMode::Exchange => Must::Exist,
        };
        let wish = |alias, to, must| Wish { model: model.clone(), alias, to, must };
        let wishes = match (classify(from), classify(to)) {
            (Entry::Alias(old), Entry::Alias(new)) if old == new => return Ok(()),
            (Entry::Alias(old), Entry::Alias(new)) => {
                let version = self.alias_version(model, &old)?;
                let moved = wish(new.clone(), Some(At::Version(version)), must);
                let left = match mode {
                    RenameMode::Exchange => Some(At::Version(self.alias_version(model, &new)?)),
                    RenameMode::Replace | RenameMode::KeepExisting => None,
                };
                vec![wish(old, left, Must::Exist), moved]
            }
            (Entry::Temporary, Entry::Alias(alias)) => {
                return self.commit_link(requester, from, wish(alias, None, must), mode);
            }
            (Entry::Alias(alias), Entry::Temporary) if mode == RenameMode::Exchange => {
                return self.commit_link(requester, to, wish(alias, None, must), mode);
            }
            (Entry::Temporary, Entry::Temporary) if is_passing_name(to) => {
                return self.rename_temporary(model, (from, to), mode);
            }
            (Entry::Alias(_), Entry::Temporary) if is_passing_name(to) => {
                return Err(FsError::Refused {
                    action: format!("rename an alias to `{}`", show(to)),
                    advice: "such names are for links that tools make for a moment",
                });
            }
            (_, Entry::Temporary) => {
                // What a rename leaves behind is an alias, so this had to be a name for one.
                text(to)?.parse::<AliasName>()?;
                return Err(FsError::Missing);
            }
            _ => return Err(self.refuse_pair(model, from, to)),
        };
        self.workspace.retarget(&self.context(requester), &wishes, "")?;
        Ok(())
    }

    /// Points an alias to where a temporary link points, and takes the link away; in an exchange
    /// the link gets the alias's old target.
    fn commit_link(
        &self,
        requester: Requester,
        link_name: &OsStr,
        mut wish: Wish,
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let (model, now) = (wish.model.clone(), (self.settings.now)());
        let found = self.temporary.lock().find(&model, link_name, now);
        let link = found.ok_or(FsError::Missing)?;
        let old = match mode {
            RenameMode::Exchange => Some(self.alias_version(&model, &wish.alias)?),
            RenameMode::Replace | RenameMode::KeepExisting => None,
        };
        wish.to = Some(At::Version(self.resolve_target(&model, &link.target)?));
        self.workspace.retarget(&self.context(requester), &[wish], "")?;
        let mut links = self.temporary.lock();
        links.remove(&model, link_name);
        if let Some(old) = old {
            let swapped = links.renew(OsStr::new(&old.to_string()), now);
            links.put(&model, link_name, swapped);
        }
        Ok(())
    }

    fn rename_temporary(
        &self,
        model: &ModelName,
        (from, to): (&OsStr, &OsStr),
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let now = (self.settings.now)();
        let mut links = self.temporary.lock();
        let link = links.find(model, from, now).ok_or(FsError::Missing)?;
        let there = links.find(model, to, now);
        match (mode, there) {
            (RenameMode::KeepExisting, Some(_)) => Err(FsError::Exists { name: show(to) }),
            (RenameMode::Exchange, None) => Err(FsError::Missing),
            (RenameMode::Exchange, Some(there)) => {
                links.put(model, from, there);
                links.put(model, to, link);
                Ok(())
            }
            _ => {
                links.remove(model, from);
                links.put(model, to, link);
                Ok(())
            }
        }
    }

    fn alias_version(
        &self,
        model: &ModelName,
        alias: &AliasName,
    ) -> Result<VersionNumber, FsError> {
        let state = self.workspace.state();
        let model = state.model(model).ok_or(FsError::Missing)?;
        Ok(model.aliases.get(alias).ok_or(FsError::Missing)?.version)
    }

    /// The version that a link's text means: `v6`, `./v6`, `v6/`, `../churn/v6`, the same below
    /// the mount point, or another alias in place of `v6`.
    fn resolve_target(&self, model: &ModelName, target: &OsStr) -> Result<VersionNumber, FsError> {
        let parsed = parse_target(model, target, &self.settings.mountpoint);
        let state = self.workspace.state();
        let found = state.model(model).ok_or(FsError::Missing)?;
        let unknown = |what: String| FsError::Unknown {
            what: format!("`{what}`"),
            advice: match found.latest() {
                Some(latest) => format!("the newest version is `{}`", latest.number),
                None => "the model has no version yet; write to `snapshot` to seal one".to_owned(),
            },
        };
        match parsed? {
            Target::Here(at) => match found.resolve(&at)? {
                Some(number) => Ok(number),
                None => Err(unknown(format!("{model}/{at}"))),
            },
            Target::NoVersion(text) => Err(unknown(format!("{model}/{text}"))),
            Target::Elsewhere(other) if state.model(&other).is_none() => {
                Err(unknown(other.to_string()))
            }
            Target::Elsewhere(other) => Err(FsError::Malformed {
                what: format!("`{}`", show(target)),
                reason: format!("is in `{other}`, not in `{model}`"),
                advice: "an alias points to a version of its own model, such as `v1`",
            }),
        }
    }

    /// Why nothing else than an alias can be made or removed in a model's directory.
    pub(super) fn refuse_in_model(&self, model: &ModelName, name: &OsStr) -> FsError {
        let (action, advice) = match classify(name) {
            Entry::Version(number) => {
                let state = self.workspace.state();
                let found = state.model(model).map(|found| found.resolve(&At::Version(number)));
                match found {
                    Some(Ok(Some(_))) => return version::read_only(model, number),
                    Some(Err(error)) => return error.into(),
                    Some(Ok(None)) | None => {}
                }
                ("make a version by hand", "write to `snapshot` to seal the draft")
            }
            Entry::View => return super::read_only(&Node::Info(Some(model.clone()))),
            Entry::Reserved if name == LATEST => {
                ("change `latest`", "it follows the newest version; use another alias")
            }
            Entry::Reserved if name == DRAFT => {
                ("change `draft` itself", "change what is in it, or write to `snapshot`")
            }
            Entry::Reserved if name == SNAPSHOT => {
                ("change `snapshot` itself", "write a message to it to seal the draft")
            }
            Entry::Reserved => ("use a reserved name", "choose an alias like `prod`"),
            Entry::Alias(_) | Entry::Temporary => {
                let advice = "a model's directory holds versions and aliases; put files into \
                    `draft`, and make aliases with `ln -s`";
                ("do this", advice)
            }
        };
        FsError::Refused { action: format!("{action} (`{model}/{}`)", show(name)), advice }
    }

    /// Why two names of a model cannot be renamed to each other.
    fn refuse_pair(&self, model: &ModelName, from: &OsStr, to: &OsStr) -> FsError {
        let is_link = |name: &OsStr| matches!(classify(name), Entry::Alias(_) | Entry::Temporary);
        let culprit = if is_link(from) { to } else { from };
        match self.refuse_in_model(model, culprit) {
            FsError::ReadOnly { path, reason } => FsError::ReadOnly { path, reason },
            first => match self.refuse_in_model(model, to) {
                second @ FsError::ReadOnly { .. } => second,
                _ => first,
            },
        }
    }
}

/// The link that an alias of a model is now.
pub(super) fn alias_link(model: &Model, alias: At) -> Option<AliasLink> {
    let (version, since, seq) = match &alias {
        At::Latest => {
            let latest = model.latest()?;
            (latest.number, latest.sealed, latest.number.get())
        }
        At::Alias(name) => {
            let alias = model.aliases.get(name)?;
            (alias.version, alias.since, alias.seq)
        }
        At::Version(_) => return None,
    };
    Some(AliasLink { model: model.name.clone(), alias, version, since, seq })
}

/// Why owner, group and mode of something in a model are not its own.
pub(super) fn refuse_access(what: &str) -> FsError {
    FsError::Refused {
        action: format!("change the attributes of {what}"),
        advice: "they follow the model's directory: use chown, chgrp and chmod on that",
    }
}

/// The text of a name that must be one.
pub(super) fn text(name: &OsStr) -> Result<&str, FsError> {
    name.to_str().ok_or_else(|| FsError::Malformed {
        what: format!("`{}`", show(name)),
        reason: "is not UTF-8".to_owned(),
        advice: "use A-Z a-z 0-9 . _ -",
    })
}

fn classify(name: &OsStr) -> Entry {
    let text = name.to_str().unwrap_or_default();
    if KEPT_NAMES.contains(&text) {
        Entry::View
    } else if let Ok(number) = text.parse() {
        Entry::Version(number)
    } else if is_temporary_name(name) {
        Entry::Temporary
    } else {
        text.parse().map_or(Entry::Reserved, Entry::Alias)
    }
}

/// What a link's text means.
#[derive(Debug)]
enum Target {
    Here(At),
    /// `v0`, `v007`: written like a version, but no version has that name.
    NoVersion(String),
    /// In another model, there or not.
    Elsewhere(ModelName),
}

/// What a link's text means within `model`.
fn parse_target(model: &ModelName, target: &OsStr, mountpoint: &Path) -> Result<Target, FsError> {
    let malformed = |reason: String| FsError::Malformed {
        what: format!("`{}`", show(target)),
        reason,
        advice: "an alias points to a version of its own model, such as `v1`",
    };
    let below_mount = Path::new(target).strip_prefix(mountpoint).ok();
    let relative = below_mount.map_or(target, Path::as_os_str);
    let text = relative.to_str().ok_or_else(|| malformed("is not UTF-8".to_owned()))?;
    let mut parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let is_absolute = target.as_bytes().starts_with(b"/");
    if is_absolute && below_mount.is_none() {
        return Err(malformed("is outside of this mount".to_owned()));
    }
    if parts.first() == Some(&"..") && !is_absolute {
        parts.remove(0);
    } else if !is_absolute {
        parts.insert(0, model.as_str());
    }
    let &[named, at] = &parts[..] else { return Err(malformed("is no version".to_owned())) };
    let named: ModelName =
        named.parse().map_err(|error| malformed(format!("is no version: {error}")))?;
    if named != *model {
        return Ok(Target::Elsewhere(named));
    }
    match at.parse() {
        Ok(at) => Ok(Target::Here(at)),
        Err(NameError::Reserved { text }) if text != DRAFT && text != SNAPSHOT => {
            Ok(Target::NoVersion(text))
        }
        Err(error) => Err(malformed(format!("is no version: {error}"))),
    }
}

/// A time stamp for `stat`.
pub(super) fn system_time(at: Timestamp) -> std::time::SystemTime {
    // Nanoseconds may be negative before 1970; borrow a second then.
    let nanoseconds = at.as_nanosecond();
    let seconds = nanoseconds.div_euclid(1_000_000_000);
    let nanos = nanoseconds.rem_euclid(1_000_000_000);
    time(
        i64::try_from(seconds).expect("a time stamp has a year of four digits"),
        u32::try_from(nanos).expect("a remainder below 1,000,000,000"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(target: &str) -> Result<String, FsError> {
        let model: ModelName = "churn".parse().unwrap();
        Ok(match parse_target(&model, OsStr::new(target), Path::new("/mnt/models"))? {
            Target::Here(at) => at.to_string(),
            Target::NoVersion(text) => format!("no {text}"),
            Target::Elsewhere(model) => format!("in {model}"),
        })
    }

    #[test]
    fn a_link_may_name_a_version_in_all_the_usual_ways() {
        for target in ["v6", "./v6", "v6/", "././v6//", "../churn/v6", "/mnt/models/churn/v6"] {
            assert_eq!(parsed(target).unwrap(), "v6", "{target}");
        }
        assert_eq!(parsed("prod").unwrap(), "prod");
        assert_eq!(parsed("latest/").unwrap(), "latest");
        assert_eq!(parsed("v007").unwrap(), "no v007");
        assert_eq!(parsed("../other/v6").unwrap(), "in other");
        assert_eq!(parsed("/mnt/models/other/v6").unwrap(), "in other");
    }

    #[test]
    fn a_link_never_leads_out_of_its_model() {
        for target in [
            "",
            "/",
            ".",
            "..",
            "../v6",
            "../../churn/v6",
            "v6/file",
            "draft",
            "/mnt/models",
            "/mnt/models/v6",
            "/churn/v6",
            "/mnt/models/../models/churn/v6",
            "snapshot",
            "a b",
        ] {
            let error = parsed(target).unwrap_err();
            assert_eq!(error.errno(), nix::errno::Errno::EINVAL, "{target}: {error}");
        }
    }

    #[test]
    fn a_time_stamp_keeps_its_nanoseconds() {
        let at = Timestamp::new(-1, -500_000_000).unwrap();
        let early = std::time::UNIX_EPOCH.duration_since(system_time(at)).unwrap();
        assert_eq!(early, std::time::Duration::from_millis(1_500));
    }
}
