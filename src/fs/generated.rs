//! `.modelfs`: what the store and each model say of themselves, made when it is asked for.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::answer::Attributes;
use super::model::system_time;
use super::nodes::{Generated, Node, Scope};
use super::{Child, Filesystem, FsError};
use crate::format::names::{LATEST, ModelName};
use crate::format::path;
use crate::format::record::Actor;
use crate::format::schema;
use crate::ops::SealStatus;
use crate::registry::model::{Model, Version};

/// Permissions of the store's own files: its history names all models, whoever may see them.
const STORE_MODE: u32 = 0o440;
/// Those of what names no model: who is bound by the policy may read it.
const OPEN_MODE: u32 = 0o444;

/// The last refusals of the store and of each model.
#[derive(Debug, Default)]
pub struct Refusals {
    /// No other lock is taken while it is held.
    last: Mutex<HashMap<Scope, (Timestamp, String)>>,
}

impl Refusals {
    /// Keeps why something was refused, instead of what was kept before.
    pub fn keep(&self, scope: Scope, now: Timestamp, error: &FsError) {
        let text = format!("{now} {}: {}", error.errno_name(), error.account());
        self.last.lock().insert(scope, (now, text));
    }

    /// Drops what a model that is gone refused.
    pub fn forget(&self, model: &ModelName) {
        self.last.lock().remove(&Some(model.clone()));
    }

    fn last(&self, scope: &Scope) -> Option<(Timestamp, String)> {
        self.last.lock().get(scope).cloned()
    }
}

/// The directory of what `metadata.json` and its like look like.
pub(super) const SCHEMAS: &str = "schema";

/// What `name` is in that directory.
pub(super) fn schema_child(name: &OsStr) -> Option<Child> {
    let is_there = name == Generated::Schema.name();
    is_there.then(|| Child::fixed(Node::Generated(None, Generated::Schema)))
}

/// What `name` is in `.modelfs`.
pub(super) fn child(scope: &Scope, name: &OsStr) -> Option<Child> {
    if scope.is_none() && name == SCHEMAS {
        return Some(Child::fixed(Node::Schemas));
    }
    let file = Generated::all(scope).iter().find(|file| name == file.name())?;
    Some(Child::fixed(Node::Generated(scope.clone(), *file)))
}

impl Filesystem {
    pub(super) fn keep_refusal(&self, scope: Scope, error: &FsError) {
        self.refusals.keep(scope, (self.settings.now)(), error);
    }

    pub(super) fn generated_attributes(
        &self,
        scope: &Scope,
        file: Generated,
    ) -> Result<Attributes, FsError> {
        let bytes = match file {
            Generated::History => self.workspace.history_bytes(scope.as_ref())?,
            Generated::Status | Generated::Why | Generated::Policy | Generated::Schema => {
                self.text(scope, file)?.len() as u64
            }
        };
        let attributes = match scope {
            Some(model) => self.model_facts(model)?.file(0o444, bytes),
            None => {
                let root = self.root_attributes();
                let kind = super::Kind::File;
                let blocks = bytes.div_ceil(512);
                let mode = match file {
                    Generated::Policy | Generated::Schema => OPEN_MODE,
                    Generated::Status | Generated::History | Generated::Why => STORE_MODE,
                };
                Attributes { kind, mode, bytes, blocks, ..root }
            }
        };
        match (file, self.refusals.last(scope)) {
            (Generated::Why, Some((at, _))) => {
                let at = system_time(at);
                Ok(Attributes { accessed: at, modified: at, changed: at, ..attributes })
            }
            _ => Ok(attributes),
        }
    }

    /// The text of a generated file as it is now; that of the history is not one.
    pub(super) fn text(&self, scope: &Scope, file: Generated) -> Result<String, FsError> {
        let value = match (file, scope) {
            (Generated::Why, _) => {
                let last = self.refusals.last(scope).map(|(_, text)| text);
                return Ok(last.unwrap_or_else(|| "nothing was refused yet\n".to_owned()));
            }
            (Generated::Policy, _) => return Ok(self.workspace.policy_text()),
            (Generated::Schema, _) => return Ok(schema::TEXT.to_owned()),
            (Generated::History, _) => return Err(FsError::Operation),
            (Generated::Status, Some(model)) => self.model_status(model)?,
            (Generated::Status, None) => self.store_status(),
        };
        let text = serde_json::to_string_pretty(&value);
        Ok(text.expect("a JSON value is always writable") + "\n")
    }

    fn store_status(&self) -> Value {
        let free_bytes = self.workspace.space().ok();
        let free_bytes = free_bytes.map(|s| s.blocks_available * s.block_bytes);
        let sealing = self.workspace.sealing();
        let hot = self.hot_status();
        let state = self.workspace.state();
        let head = state.head();
        json!({
            "daemon": self.daemon_status(),
            "free_bytes": free_bytes,
            "head": head.digest,
            "hot": hot,
            "models": state.models().len(),
            "sealing": sealing,
            "seq": head.seq,
            "store": path::value(self.workspace.directory()),
            "time": state.time(),
            "versions": state.models().map(Model::version_count).sum::<u64>(),
        })
    }

    /// What is hot, and how sealed files were opened and read since the start.
    fn hot_status(&self) -> Value {
        let status = self.workspace.hot_status();
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        json!({
            "bytes": status.bytes,
            "bytes_max": status.bytes_max,
            "files": status.files,
            "opens_cached": count(&self.counts.cached),
            "opens_passed_through": count(&self.counts.passed),
            "reads": count(&self.counts.hot_reads),
            "waiting": status.waiting,
            "warming": status.warming,
        })
    }

    fn model_status(&self, name: &ModelName) -> Result<Value, FsError> {
        let sealing = self.workspace.sealing();
        let sealing: Vec<SealStatus> =
            sealing.into_iter().filter(|status| status.model == *name).collect();
        // The last answer is JSON; should it ever not be, its text still says what happened.
        let last = self.desk.last(name).map(|line| {
            serde_json::from_str(&line).unwrap_or_else(|_| Value::String(line.to_string()))
        });
        let state = self.workspace.state();
        let model = state.model(name).ok_or(FsError::Missing)?;
        let head = state.head();
        let body = model.body()?;
        let aliases = model.aliases.iter().map(|(alias, found)| {
            let by: &Actor = &found.by;
            json!({"alias": alias, "version": found.version, "since": found.since, "by": by})
        });
        Ok(json!({
            "access": model.access,
            "aliases": aliases.collect::<Vec<_>>(),
            "changed": model.changed,
            "created": model.created,
            "daemon": self.daemon_status(),
            "head": head.digest,
            "last": last,
            "latest": model.latest().map(|version| version.number),
            "model": name,
            "sealing": sealing,
            "seq": head.seq,
            "versions": body.versions.iter().map(|v| version(model, v)).collect::<Vec<_>>(),
        }))
    }
}

fn version(model: &Model, version: &Version) -> Value {
    let number = version.number;
    let latest = model.latest().filter(|latest| latest.number == number);
    let named = model.aliases.iter().filter(|(_, alias)| alias.version == number);
    let aliases = named.map(|(name, _)| name.as_str()).chain(latest.map(|_| LATEST));
    json!({
        "aliases": aliases.collect::<Vec<_>>(),
        "by": version.by,
        "bytes": version.bytes,
        "digest": version.digest,
        "files": version.files,
        "follows": version.follows,
        "manifest": version.manifest,
        "message": version.message,
        "sealed": version.sealed,
        "stored_bytes": version.stored_bytes,
        "version": number,
    })
}
