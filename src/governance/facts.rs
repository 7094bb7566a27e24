//! What rules look at, and how it looks to an expression.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::common::traits::{Container, Indexer, Sizer};
use cel::common::types::{CelInt, CelList, CelString, MAP_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::objects::{Key, Map};
use cel::{Context, ExecutionError, Value};
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::format::ids::TreeDigest;
use crate::format::names::{AliasName, Label, ModelName, VersionNumber};

/// Names that an expression can begin with, as the README explains them.
pub(super) const NAMES: [&str; 27] = [
    "actor",
    "age",
    "alias",
    "approvals",
    "checks",
    "current",
    "datasets",
    "digest",
    "environment",
    "files",
    "from",
    "interface",
    "labels",
    "mark",
    "message",
    "metrics",
    "model",
    "now",
    "params",
    "parents",
    "run",
    "sealed_at",
    "sealed_by",
    "source",
    "files_count",
    "user",
    "version",
];

/// Members of `metadata.json` that rules look at as they are: what whoever sealed it declared, and what was
/// found in the files.
pub const DECLARED: [&str; 10] = [
    "datasets",
    "environment",
    "interface",
    "labels",
    "metrics",
    "params",
    "parents",
    "run",
    "source",
    "user",
];

/// Most files of a version that rules can look at one by one.
pub const FILES_MAX: usize = 10_000;

/// One file of a version.
#[derive(Clone, Debug)]
pub struct FileFact {
    pub path: String,
    pub size: u64,
    pub format: String,
    pub sha256: String,
}

/// What a version says of itself.
#[derive(Clone, Debug)]
pub struct VersionFacts {
    pub version: VersionNumber,
    pub digest: TreeDigest,
    pub sealed_at: Timestamp,
    pub sealed_by: String,
    pub message: String,
    /// Those of [`DECLARED`] that are there.
    pub declared: BTreeMap<String, Json>,
    pub files: Vec<FileFact>,
    /// All of them; `files` is empty where there are more than [`FILES_MAX`].
    pub files_count: u64,
}

/// An approval that counts.
#[derive(Clone, Debug)]
pub struct ApprovalFact {
    pub user: String,
    pub uid: u32,
    pub role: Option<Label>,
    pub message: String,
    pub at: Timestamp,
    pub seq: u64,
}

/// The last result of a check.
#[derive(Clone, Debug)]
pub struct CheckFact {
    pub name: Label,
    pub passed: bool,
    /// A suite gave it; else it was recorded from outside.
    pub is_of_suite: bool,
    pub at: Timestamp,
    pub by: String,
    pub metrics: BTreeMap<String, Json>,
}

/// Everything about one move.
#[derive(Clone, Debug)]
pub struct Facts {
    pub now: Timestamp,
    pub model: ModelName,
    pub alias: AliasName,
    /// Who moves the alias.
    pub actor: String,
    pub roles: Vec<String>,
    pub version: Arc<VersionFacts>,
    /// What is in the alias now.
    pub current: Option<Arc<VersionFacts>>,
    pub approvals: Vec<ApprovalFact>,
    pub checks: Vec<CheckFact>,
    /// `bad`, `golden` or nothing.
    pub mark: &'static str,
}

impl Facts {
    /// Whether all files of the version can be looked at one by one.
    pub(super) fn has_all_files(&self) -> bool {
        self.version.files.len() as u64 == self.version.files_count
    }

    /// The facts as variables: the long lists only where `wanted` names them.
    pub(super) fn context<'f>(&'f self, wanted: &dyn Fn(&str) -> bool) -> Context<'f, 'f> {
        let mut context = Context::with_env(super::expression::environment());
        let mut add = |name: &str, value: Value| context.add_variable_from_value(name, value);
        for name in DECLARED.into_iter().filter(|name| wanted(name)) {
            add(name, of_declared(&self.version, name));
        }
        for (name, value) in of_version(&self.version, self.now, false) {
            add(name, value);
        }
        let current = self.current.as_ref().filter(|_| wanted("current")).map(|version| {
            let declared = DECLARED.map(|name| (name, of_declared(version, name)));
            map(declared.into_iter().chain(of_version(version, self.now, true)))
        });
        add("current", current.unwrap_or(Value::Null));
        add("now", time(self.now));
        add("model", text(self.model.as_str()));
        add("alias", text(self.alias.as_str()));
        let from = self.current.as_ref().map(|version| text(&version.version.to_string()));
        add("from", from.unwrap_or(Value::Null));
        let roles = self.roles.iter().map(|role| text(role)).collect();
        add("actor", map([("user", text(&self.actor)), ("roles", list(roles))]));
        add("mark", text(self.mark));
        let approvals: &[ApprovalFact] = if wanted("approvals") { &self.approvals } else { &[] };
        let approvals = approvals.iter().map(|approval| Element::Approval(approval, self.now));
        let checks =
            self.checks.iter().map(|check| (check.name.as_str(), of_check(check, self.now)));
        add("checks", map(checks));
        let files: &[FileFact] = if wanted("files") { &self.version.files } else { &[] };
        context.add_variable_as_val("approvals", elements(approvals));
        context.add_variable_as_val("files", elements(files.iter().map(Element::File)));
        context
    }
}

/// A member as it is; empty where it is absent.
fn of_declared(version: &VersionFacts, name: &str) -> Value {
    let empty = match name {
        "datasets" | "parents" => Json::Array(Vec::new()),
        _ => Json::Object(serde_json::Map::new()),
    };
    from_json(version.declared.get(name).unwrap_or(&empty))
}

fn of_version(
    version: &VersionFacts,
    now: Timestamp,
    with_files: bool,
) -> Vec<(&'static str, Value)> {
    let files: &[FileFact] = if with_files { &version.files } else { &[] };
    vec![
        ("version", text(&version.version.to_string())),
        ("digest", text(&version.digest.to_string())),
        ("sealed_at", time(version.sealed_at)),
        ("sealed_by", text(&version.sealed_by)),
        ("age", since(version.sealed_at, now)),
        ("message", text(&version.message)),
        ("files", list(files.iter().map(of_file).collect())),
        ("files_count", number(version.files_count)),
    ]
}

fn of_file(file: &FileFact) -> Value {
    map([
        ("path", text(&file.path)),
        ("size", number(file.size)),
        ("format", text(&file.format)),
        ("sha256", text(&file.sha256)),
    ])
}

fn of_check(check: &CheckFact, now: Timestamp) -> Value {
    let metrics = check.metrics.iter().map(|(name, value)| (name.as_str(), from_json(value)));
    map([
        ("passed", Value::Bool(check.passed)),
        ("at", time(check.at)),
        ("age", since(check.at, now)),
        ("by", text(&check.by)),
        ("metrics", map(metrics)),
    ])
}

/// An element of a long list: a map that has its members where they are. Loops copy it in each round.
#[derive(Clone, Copy, Debug)]
enum Element<'f> {
    Approval(&'f ApprovalFact, Timestamp),
    File(&'f FileFact),
}

impl<'f> Element<'f> {
    fn members(self) -> &'static [&'static str] {
        match self {
            Self::Approval(..) => &["user", "uid", "role", "message", "at", "age"],
            Self::File(_) => &["path", "size", "format", "sha256"],
        }
    }

    fn member(self, name: &str) -> Option<Box<dyn Val + 'f>> {
        let text = |text: &'f str| -> Box<dyn Val + 'f> { Box::new(CelString::from(text)) };
        Some(match (self, name) {
            (Self::Approval(approval, _), "user") => text(&approval.user),
            (Self::Approval(approval, _), "uid") => plain(number(approval.uid.into())),
            (Self::Approval(approval, _), "role") => {
                text(approval.role.as_ref().map_or("", Label::as_str))
            }
            (Self::Approval(approval, _), "message") => text(&approval.message),
            (Self::Approval(approval, _), "at") => plain(time(approval.at)),
            (Self::Approval(approval, now), "age") => plain(since(approval.at, now)),
            (Self::File(file), "path") => text(&file.path),
            (Self::File(file), "size") => plain(number(file.size)),
            (Self::File(file), "format") => text(&file.format),
            (Self::File(file), "sha256") => text(&file.sha256),
            (Self::Approval(..) | Self::File(_), _) => return None,
        })
    }
}

impl Val for Element<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Indexer for Element<'_> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = key.downcast_ref::<CelString>().map_or("", |name| name.inner());
        let none = || ExecutionError::NoSuchKey(Arc::new(name.to_owned()));
        self.member(name).map(CowVal::Owned).ok_or_else(none)
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(key).map(CowVal::into_owned)
    }
}

impl Container for Element<'_> {
    fn contains(&self, key: &dyn Val) -> Result<bool, ExecutionError> {
        let name = key.downcast_ref::<CelString>();
        Ok(name.is_some_and(|name| self.members().contains(&name.inner())))
    }
}

impl Sizer for Element<'_> {
    fn size(&self) -> CelInt {
        i64::try_from(self.members().len()).expect("a few").into()
    }
}

/// A long list.
fn elements<'f>(elements: impl Iterator<Item = Element<'f>>) -> Box<dyn Val + 'f> {
    let boxed = |element| -> Box<dyn Val + 'f> { Box::new(element) };
    Box::new(CelList::from(elements.map(boxed).collect::<Vec<_>>()))
}

fn plain(value: Value) -> Box<dyn Val> {
    value.try_into().expect("a plain value is a value")
}

fn text(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

fn number(number: u64) -> Value {
    i64::try_from(number).map_or(Value::UInt(number), Value::Int)
}

fn list(values: Vec<Value>) -> Value {
    Value::List(Arc::new(values))
}

fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let entries = entries.into_iter().map(|(name, value)| (Key::from(name.to_owned()), value));
    Value::Map(Map { map: Arc::new(entries.collect::<HashMap<_, _>>()) })
}

fn time(at: Timestamp) -> Value {
    let nanos = u32::try_from(at.subsec_nanosecond().max(0)).unwrap_or(0);
    let at = chrono::DateTime::from_timestamp(at.as_second(), nanos).unwrap_or_default();
    Value::Timestamp(at.fixed_offset())
}

fn since(then: Timestamp, now: Timestamp) -> Value {
    let elapsed = now.duration_since(then);
    let elapsed = chrono::Duration::new(
        elapsed.as_secs(),
        u32::try_from(elapsed.subsec_nanos()).unwrap_or(0),
    );
    Value::Duration(elapsed.unwrap_or_default())
}

/// What people wrote; a whole number is one, as long as it fits.
fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(bool) => Value::Bool(*bool),
        Json::Number(found) => match (found.as_i64(), found.as_u64(), found.as_f64()) {
            (Some(whole), _, _) => Value::Int(whole),
            (None, Some(whole), _) => Value::UInt(whole),
            (None, None, real) => real.map_or(Value::Null, Value::Float),
        },
        Json::String(found) => text(found),
        Json::Array(values) => list(values.iter().map(from_json).collect()),
        Json::Object(fields) => {
            map(fields.iter().map(|(name, value)| (name.as_str(), from_json(value))))
        }
    }
}
