//! `.modelfs/approve/v8`, `.modelfs/mark/v8`, `.modelfs/break-glass/prod`: files to say something of a
//! version or an alias. One write is one command; reading shows what was said.

use std::ffi::OsStr;

use super::handles::Handle;
use super::listing::Named;
use super::nodes::Node;
use super::{Child, Filesystem, FsError, Kind, Requester};
use crate::format::names::{At, Label, ModelName, Reference};
use crate::format::record::Mark;
use crate::ops::{
    ApproveOptions, BreakGlassOptions, Context, MarkOptions, NoProgress, Report, Request,
    RevokeOptions,
};

/// Longest command, in bytes.
pub const COMMAND_BYTES_MAX: usize = 4 << 10;
/// Size in `stat`: a file of size 0 would be empty to sendfile(2), without a word to us.
const SIZE_BYTES: u64 = 4_096;

/// What can be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    Approve,
    BreakGlass,
    Mark,
}

impl Deed {
    pub const ALL: [Self; 3] = [Self::Approve, Self::BreakGlass, Self::Mark];

    /// The directory's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::BreakGlass => "break-glass",
            Self::Mark => "mark",
        }
    }
}

/// The directory called `name` in a model's `.modelfs`.
pub(super) fn directory(model: &ModelName, name: &OsStr) -> Option<Child> {
    let deed = Deed::ALL.into_iter().find(|deed| name == deed.name())?;
    Some(Child::fixed(Node::Deeds(model.clone(), deed)))
}

impl Filesystem {
    /// The file for a version or an alias that is there.
    pub(super) fn deed_child(
        &self,
        model: &ModelName,
        deed: Deed,
        name: &OsStr,
    ) -> Result<Option<Child>, FsError> {
        let Some(Ok(at)) = name.to_str().map(str::parse::<At>) else { return Ok(None) };
        let state = self.workspace.state();
        let Some(found) = state.model(model) else { return Ok(None) };
        let is_there = match (&at, deed) {
            (At::Version(_), Deed::Approve | Deed::Mark) => found.resolve(&at)?.is_some(),
            (At::Alias(alias), Deed::BreakGlass) => found.aliases.contains_key(alias),
            _ => false,
        };
        Ok(is_there.then(|| Child::moving(Node::Deed(model.clone(), deed, at.into()))))
    }

    /// Versions, or aliases.
    pub(super) fn deed_names(&self, model: &ModelName, deed: Deed) -> Result<Vec<Named>, FsError> {
        let state = self.workspace.state();
        let Some(found) = state.model(model) else { return Ok(Vec::new()) };
        let names: Vec<At> = match deed {
            Deed::Approve | Deed::Mark => {
                found.body()?.versions.iter().map(|version| At::Version(version.number)).collect()
            }
            Deed::BreakGlass => found.aliases.keys().cloned().map(At::Alias).collect(),
        };
        let named = |at: At| {
            let name = at.to_string().into();
            (name, Kind::File, Node::Deed(model.clone(), deed, at.into()).identity())
        };
        Ok(names.into_iter().map(named).collect())
    }

    /// Whoever may enter the model may approve; to mark and to break the glass takes the right to
    /// change it.
    pub(super) fn deed_attributes(
        &self,
        model: &ModelName,
        deed: Deed,
    ) -> Result<super::Attributes, FsError> {
        let facts = self.model_facts(model)?;
        let attributes = facts.file(0o666, SIZE_BYTES);
        let enter = facts.access.mode & 0o111;
        Ok(match deed {
            Deed::Approve => super::Attributes { mode: enter << 2 | enter << 1, ..attributes },
            Deed::Mark | Deed::BreakGlass => attributes,
        })
    }

    /// What is read from the file: all that was said of the version.
    pub(super) fn deed_text(
        &self,
        requester: Requester,
        model: &ModelName,
        deed: Deed,
        at: &At,
    ) -> Result<String, FsError> {
        if deed == Deed::BreakGlass {
            return Ok("write the reason of the emergency here\n".to_owned());
        }
        let reference = Reference { model: model.clone(), at: at.clone() };
        let context = self.context(requester);
        let report = self.workspace.run(&context, Request::Approvals { reference }, &NoProgress)?;
        let value = match report {
            Report::Vetting(report) => serde_json::to_string_pretty(&report),
            other => serde_json::to_string_pretty(&other),
        };
        Ok(value.expect("a report has text keys only") + "\n")
    }

    /// Does what is written to the file.
    pub(super) fn do_deed(
        &self,
        context: &Context,
        model: &ModelName,
        (deed, at): (Deed, &At),
        command: &[u8],
    ) -> Result<usize, FsError> {
        let reference = Reference { model: model.clone(), at: at.clone() };
        let request = parse_deed(deed, reference, command)?;
        self.workspace.run(context, request, &NoProgress)?;
        Ok(command.len())
    }

    /// The handle of such a file: its text, or a place for a command.
    pub(super) fn open_deed(
        &self,
        requester: Requester,
        (model, deed, at): (&ModelName, Deed, &At),
        flags: i32,
    ) -> Result<Handle, FsError> {
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Ok(Handle::Text(self.deed_text(requester, model, deed, at)?.into_bytes()));
        }
        let seq = self.workspace.state().model(model).ok_or(FsError::Missing)?.seq;
        let opener = self.context(requester).caller;
        Ok(Handle::Deed { model: model.clone(), seq, deed, at: at.clone(), opener })
    }
}

/// What is asked for by writing `command` to the file of a version or an alias.
///
/// # Errors
/// `Malformed`, with what can be written instead.
pub fn parse_deed(deed: Deed, reference: Reference, command: &[u8]) -> Result<Request, FsError> {
    if COMMAND_BYTES_MAX < command.len() {
        let bytes = command.len();
        return Err(malformed(deed, format!("has {bytes} bytes, at most {COMMAND_BYTES_MAX}")));
    }
    let text = std::str::from_utf8(command);
    let text = text.map_err(|error| malformed(deed, format!("is not UTF-8: {error}")))?;
    parse(deed, reference, text.trim())
}

/// `approve`, `approve as validator: the message`, `revoke: the message`; `bad: why`, `golden`, `none`.
fn parse(deed: Deed, reference: Reference, text: &str) -> Result<Request, FsError> {
    let (word, message) = text.split_once(':').unwrap_or((text, ""));
    let (word, message) = (word.trim(), message.trim().to_owned());
    let wrong = || malformed(deed, format!("is `{}`", text.escape_debug()));
    match deed {
        Deed::BreakGlass => {
            let At::Alias(alias) = reference.at else { return Err(wrong()) };
            let (model, reason) = (reference.model, text.to_owned());
            Ok(Request::BreakGlass(BreakGlassOptions { model, alias, reason }))
        }
        Deed::Mark => {
            let mark = match word {
                "bad" => Some(Mark::Bad),
                "golden" => Some(Mark::Golden),
                "none" => None,
                _ => return Err(wrong()),
            };
            Ok(Request::Mark(MarkOptions { reference, mark, message }))
        }
        Deed::Approve if word == "revoke" => {
            Ok(Request::Revoke(RevokeOptions { reference, user: None, message }))
        }
        Deed::Approve => {
            let rest = word.strip_prefix("approve").ok_or_else(wrong)?.trim();
            let role: Option<Label> = match rest.strip_prefix("as ") {
                Some(role) => Some(role.trim().parse()?),
                None if rest.is_empty() => None,
                None => return Err(wrong()),
            };
            let expires_s = None;
            Ok(Request::Approve(ApproveOptions { reference, role, message, expires_s }))
        }
    }
}

fn malformed(deed: Deed, reason: String) -> FsError {
    FsError::Malformed {
        what: format!("what was written to `{}`", deed.name()),
        reason,
        advice: match deed {
            Deed::Approve => {
                "write `approve`, `approve as ROLE: why`, or `revoke: why`; `modelfs approve` can more"
            }
            Deed::Mark => "write `bad: why`, `golden: why`, or `none`",
            Deed::BreakGlass => "write what the emergency is, in a few words",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_word_and_a_reason() {
        let check = |deed: Deed, at: &str, text: &str, expected: &str| {
            let reference = format!("churn/{at}").parse().unwrap();
            let found = match parse(deed, reference, text) {
                Ok(request) => serde_json::to_string(&request).unwrap(),
                Err(error) => error.to_string(),
            };
            assert!(found.contains(expected), "{text}: {found}");
        };
        check(Deed::Approve, "v8", "approve", r#""role":null,"message":"""#);
        check(
            Deed::Approve,
            "v8",
            "approve as validator: fine: really",
            r#""message":"fine: really""#,
        );
        check(Deed::Approve, "v8", "revoke: wrong set", r#""verb":"revoke""#);
        check(Deed::Approve, "v8", "approved", "write `approve`");
        check(Deed::Approve, "v8", "approve as a b", "cannot be the name of a role");
        check(Deed::Approve, "v8", "", "write `approve`");
        check(Deed::Mark, "v8", "bad: drifts", r#""mark":"bad""#);
        check(Deed::Mark, "v8", "awful", "write `bad: why`");
        check(Deed::BreakGlass, "prod", "INC-1: down", r#""reason":"INC-1: down""#);
    }
}
