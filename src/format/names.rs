//! Names: models, versions, aliases, and the references made of them.
//!
//! One validator for every door. A name that was parsed is safe as a path component, in a message
//! and in a record. Reserved words are never aliases, so a path below a model has one meaning.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest model or alias name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// The alias that follows the newest version by itself.
pub const LATEST: &str = "latest";
/// The writable directory of a model.
pub const DRAFT: &str = "draft";
/// The control file of a model.
pub const SNAPSHOT: &str = "snapshot";

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "`{text}` cannot be the name of {what}: expected 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 . _ - \
         with a letter or digit first"
    )]
    Characters { what: &'static str, text: String },
    #[error("`{text}` is reserved and cannot be an alias: choose a name like `prod`")]
    Reserved { text: String },
    #[error("`{text}` is not a version: expected `v1`, `v2`, …")]
    Version { text: String },
    #[error("`{text}` is not a reference: expected MODEL, MODEL/vN or MODEL/ALIAS")]
    Reference { text: String },
}

fn has_name_characters(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(plain)
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

/// The name of a model, such as `churn`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModelName(String);
text_newtype!(ModelName);

impl FromStr for ModelName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if !has_name_characters(text) {
            return Err(NameError::Characters { what: "a model", text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name of an alias that people move, such as `prod`; never a reserved word.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AliasName(String);
text_newtype!(AliasName);

impl FromStr for AliasName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if !has_name_characters(text) {
            return Err(NameError::Characters { what: "an alias", text: text.to_owned() });
        }
        if is_reserved(text) {
            return Err(NameError::Reserved { text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name that people give to a role, a check or a rule, such as `validator`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Label(String);
text_newtype!(Label);

impl FromStr for Label {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if !has_name_characters(text) {
            let what = "a role, check or rule";
            return Err(NameError::Characters { what, text: text.to_owned() });
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether `text` names something else in a model's directory: `latest`, `draft`, `snapshot`, or a
/// `v` and digits, whether such a version exists or not.
pub fn is_reserved(text: &str) -> bool {
    let digits = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    matches!(text, LATEST | DRAFT | SNAPSHOT) || text.strip_prefix('v').is_some_and(digits)
}

/// The number of a version, from 1; as text `v1`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VersionNumber(u64);

impl VersionNumber {
    /// The first version of a model.
    pub const FIRST: Self = Self(1);

    /// The number itself, from 1.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for VersionNumber {
    type Err = NameError;
    /// One number has one text: `v01` and `v0` are not versions.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Version { text: text.to_owned() };
        let digits = text.strip_prefix('v').ok_or_else(wrong)?;
        if digits.starts_with('0') || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        digits.parse().map(Self).map_err(|_| wrong())
    }
}

impl Serialize for VersionNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VersionNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Which version of a model is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum At {
    /// The newest one.
    Latest,
    /// The one with this number.
    Version(VersionNumber),
    /// The one that this alias points to now.
    Alias(AliasName),
}

impl FromStr for At {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == LATEST {
            return Ok(Self::Latest);
        }
        match text.parse() {
            Ok(number) => Ok(Self::Version(number)),
            Err(_) => text.parse().map(Self::Alias),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str(LATEST),
            Self::Version(number) => number.fmt(f),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

/// A path as in the mount: `churn/v7`, `churn/prod`, `churn` (its latest).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    pub model: ModelName,
    pub at: At,
}

impl FromStr for Reference {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        match trimmed.split_once('/') {
            None => Ok(Self { model: trimmed.parse()?, at: At::Latest }),
            Some((_, at)) if at.contains('/') => {
                Err(NameError::Reference { text: text.to_owned() })
            }
            Some((model, at)) => Ok(Self { model: model.parse()?, at: at.parse()? }),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.model, self.at)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_name_is_one_plain_path_component() {
        for good in ["a", "churn", "v1", "7b", "prod-2025.03_x", &"x".repeat(128)] {
            assert!(good.parse::<ModelName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".x", "-x", "a/b", "a\n", "é", "a b", &"x".repeat(129)] {
            assert!(bad.parse::<ModelName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reserved_word_is_never_an_alias() {
        for reserved in ["latest", "draft", "snapshot", "v1", "v007", "v99999999999999999999999"] {
            let error = reserved.parse::<AliasName>().unwrap_err();
            assert!(matches!(error, NameError::Reserved { .. }), "{error:?}");
        }
        assert!("v1x".parse::<AliasName>().is_ok());
        assert!("v".parse::<AliasName>().is_ok());
    }

    #[test]
    fn a_version_has_one_text() {
        assert_eq!("v7".parse::<VersionNumber>().unwrap().get(), 7);
        for bad in ["v0", "v01", "7", "v", "v-1", "v+1", "V1", "v18446744073709551616"] {
            assert!(bad.parse::<VersionNumber>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reference_is_a_path_in_the_mount() {
        let text = |reference: &str| reference.parse::<Reference>().map(|found| found.to_string());
        assert_eq!(text("churn").unwrap(), "churn/latest");
        assert_eq!(text("churn/v7").unwrap(), "churn/v7");
        assert_eq!(text("churn/prod/").unwrap(), "churn/prod");
        for bad in ["", "/", "churn//", "churn/a/b", "churn/draft", "churn/v0", "/churn"] {
            assert!(text(bad).is_err(), "{bad}");
        }
    }
}
