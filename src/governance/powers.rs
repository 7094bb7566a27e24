//! Which role may do what to which model: the `[[allow]]` parts of a policy.
//!
//! They narrow what permission bits give and never widen it. A model that no part names is as open
//! as its bits say.

use crate::format::names::{AliasName, ModelName};

use super::pattern::Pattern;
use super::policy::Policy;

/// Something that a role can be allowed to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Power {
    /// Change the draft.
    Write,
    Snapshot,
    Move(AliasName),
    Approve,
    Check,
    Mark,
    /// Change owner, group or mode.
    Access,
}

impl Power {
    /// The words for it in a policy.
    pub fn name(&self) -> String {
        match self {
            Self::Write => "write".to_owned(),
            Self::Snapshot => "snapshot".to_owned(),
            Self::Move(alias) => format!("move:{alias}"),
            Self::Approve => "approve".to_owned(),
            Self::Check => "check".to_owned(),
            Self::Mark => "mark".to_owned(),
            Self::Access => "access".to_owned(),
        }
    }
}

/// One word of a `may` list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Grant {
    Plain(&'static str),
    Move(Pattern),
}

/// The words of a `may` list that stand for themselves.
const PLAIN: [&str; 6] = ["write", "snapshot", "approve", "check", "mark", "access"];

impl Grant {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(alias) = text.strip_prefix("move:") {
            return Pattern::parse(alias).map(Self::Move);
        }
        let known = PLAIN.into_iter().find(|word| *word == text);
        known.map(Self::Plain).ok_or_else(|| {
            format!(
                "`{text}` is nothing that can be allowed: expected {}, move:ALIAS",
                PLAIN.join(", ")
            )
        })
    }

    fn covers(&self, power: &Power) -> bool {
        match (self, power) {
            (Self::Move(pattern), Power::Move(alias)) => pattern.matches(alias.as_str()),
            (Self::Plain(word), power) => !matches!(power, Power::Move(_)) && *word == power.name(),
            (Self::Move(_), _) => false,
        }
    }
}

/// Whether someone with `roles` may do this to `model`; else which roles may.
///
/// # Errors
/// The roles that may, in the order of the policy; none where nobody may.
pub fn permit(
    policy: &Policy,
    roles: &[&str],
    model: &ModelName,
    power: &Power,
) -> Result<(), Vec<String>> {
    let about = policy.allows.iter().filter(|allow| allow.is_about(model)).collect::<Vec<_>>();
    if about.is_empty() {
        return Ok(());
    }
    let mut able: Vec<String> = Vec::new();
    for allow in about {
        if allow.may.iter().any(|grant| grant.covers(power)) {
            if allow.roles.iter().any(|role| roles.contains(&role.as_str())) {
                return Ok(());
            }
            able.extend(allow.roles.iter().cloned());
        }
    }
    able.dedup();
    Err(able)
}
