//! What two states differ in: one that somebody answers from, and the one that the history makes.
//!
//! A checkpoint is believed without reading what it is the sum of (G2). Who does read all of the history
//! holds the two against each other here, member by member.

use std::collections::BTreeSet;

use crate::format::names::{AliasName, VersionNumber};
use crate::registry::model::{Body, Model};
use crate::registry::state::State;
use crate::store::StoreError;

/// More would help nobody.
const DIFFERENCES_MAX: usize = 16;

/// What `found` says that `made` does not: the first of it, in words. O(n).
///
/// # Errors
/// As [`Model::body`].
pub fn differences(found: &State, made: &State) -> Result<Vec<String>, StoreError> {
    let mut list = List::default();
    list.hold(found.head() == made.head(), || "another newest record".to_owned());
    list.hold(found.time() == made.time(), || "another time of the newest record".to_owned());
    list.hold(found.signed_by() == made.signed_by(), || "who signed the newest record".to_owned());
    list.hold(found.store() == made.store(), || "another store".to_owned());
    list.hold(found.root_access() == made.root_access(), || "the access of the root".to_owned());
    list.hold(found.policy() == made.policy(), || "the policy in force".to_owned());
    list.hold(found.data() == made.data(), || {
        "which versions were made from which data".to_owned()
    });
    list.hold(found.lines() == made.lines(), || "how long the records are".to_owned());
    for model in made.models() {
        let is_there = found.model(&model.name).is_some();
        list.hold(is_there, || format!("there is no model `{}`", model.name));
    }
    for model in found.models() {
        if list.is_full() {
            break;
        }
        match made.model(&model.name) {
            Some(other) => compare_models(model, other, &mut list)?,
            None => list.hold(false, || format!("there is a model `{}`", model.name)),
        }
    }
    Ok(list.0)
}

#[derive(Default)]
struct List(Vec<String>);

impl List {
    fn is_full(&self) -> bool {
        DIFFERENCES_MAX <= self.0.len()
    }

    /// Adds what is not the same.
    fn hold(&mut self, is_same: bool, what: impl FnOnce() -> String) {
        if !is_same && !self.is_full() {
            self.0.push(what());
        }
    }
}

fn compare_models(found: &Model, made: &Model, list: &mut List) -> Result<(), StoreError> {
    let name = &found.name;
    list.hold(found.access == made.access, || format!("the access of `{name}`"));
    let aliases: BTreeSet<&AliasName> = found.aliases.keys().chain(made.aliases.keys()).collect();
    for alias in aliases {
        let (it, other) = (found.aliases.get(alias), made.aliases.get(alias));
        list.hold(it == other, || match it {
            Some(it) => format!("`{name}/{alias}` is {}, by {}", it.version, it.by.user),
            None => format!("there is no alias `{name}/{alias}`"),
        });
    }
    compare_bodies(found, &*found.body()?, &*made.body()?, list);
    list.hold(found.is_listed_as(made), || format!("how `{name}` is listed"));
    Ok(())
}

fn compare_bodies(model: &Model, found: &Body, made: &Body, list: &mut List) {
    let name = &model.name;
    let numbers = |body: &Body| body.versions.iter().map(|it| it.number).collect::<Vec<_>>();
    let versions: BTreeSet<VersionNumber> =
        numbers(found).into_iter().chain(numbers(made)).collect();
    let mut is_said_alike = true;
    for number in versions {
        let (it, other) = (found.versions.get(number), made.versions.get(number));
        list.hold(it == other, || match it {
            Some(_) => format!("what `{name}/{number}` is"),
            None => format!("there is no version `{name}/{number}`"),
        });
        let Some(manifest) = it.or(other).map(|version| version.manifest) else { continue };
        let is_alike = found.vettings.of(&manifest) == made.vettings.of(&manifest);
        is_said_alike &= is_alike;
        list.hold(is_alike, || format!("who approved, checked or marked `{name}/{number}`"));
    }
    let is_alike = !is_said_alike || found.vettings == made.vettings;
    list.hold(is_alike, || format!("what the gates of `{name}` let in"));
    list.hold(found.records == made.records, || format!("which records are of `{name}`"));
}
