//! Moving aliases: the one verb behind `ln`, `mv`, `rm`, promote, rollback and alias remove.

use std::collections::BTreeSet;

use super::{
    Change, Context, OpsError, PlanReport, PlannedMove, PromoteOptions, Promotion, RetargetReport,
    RollbackOptions, Workspace, permit,
};
use crate::format::names::{AliasName, At, ModelName, VersionNumber};
use crate::format::record::{Move, Op, Verdict};
use crate::governance::{Action, Power};
use crate::registry::model::Model;
use crate::registry::vetting::Vetting;

/// Most aliases that move in one step: each may take a rule a second to decide about.
const MOVES_MAX: usize = 256;

/// What must be true of the alias before it moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Must {
    Any,
    BeAbsent,
    Exist,
}

/// Whether an alias is put where it was before; only then does the next rollback go further back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    Forward,
    Back,
}

/// Where one alias shall point; `None` removes it.
#[derive(Clone, Debug)]
pub struct Wish {
    pub model: ModelName,
    pub alias: AliasName,
    pub to: Option<At>,
    pub must: Must,
}

impl Model {
    /// The move that brings an alias from where it is now to `to`.
    pub(super) fn move_to(&self, alias: &AliasName, to: Option<VersionNumber>) -> Move {
        let from = self.aliases.get(alias).map(|alias| alias.version);
        let (model, alias) = (self.name.clone(), alias.clone());
        Move { model, alias, from, to, judgement: None }
    }
}

impl Workspace {
    /// Moves aliases, all in one record or none. What is as wished for already is left alone.
    ///
    /// # Errors
    /// `NoModel`, `NoVersion`, `AliasExists`, `NoAlias`, `Denied`.
    pub fn retarget(
        &self,
        context: &Context,
        wishes: &[Wish],
        message: &str,
    ) -> Result<RetargetReport, OpsError> {
        self.move_aliases(context, wishes, message, Direction::Forward)
    }

    fn move_aliases(
        &self,
        context: &Context,
        wishes: &[Wish],
        message: &str,
        direction: Direction,
    ) -> Result<RetargetReport, OpsError> {
        check_wishes(wishes)?;
        for Wish { model, alias, to, .. } in wishes {
            to.iter().for_each(|to| self.prepare_facts(model, alias, to));
        }
        let line = self.commit(context, |state, now| {
            let mut moves = Vec::new();
            for wish in wishes {
                permit(state, context, &wish.model, Action::Write)?;
                let model = state.model(&wish.model).expect("permitted, so it is there");
                let step = plan_move(model, wish)?;
                if step.from != step.to {
                    moves.push(step);
                }
            }
            let message = message.to_owned();
            let rollback = direction == Direction::Back;
            if moves.is_empty() {
                return Ok(Change::Nothing);
            }
            let op = |moves| Op::Retarget { moves, message, rollback };
            self.judged(state, context, now, moves, None, op)
        })?;
        let Some(line) = line else { return Ok(RetargetReport { moves: Vec::new(), seq: None }) };
        let Op::Retarget { moves, .. } = line.record.op else {
            unreachable!("the record just made");
        };
        Ok(RetargetReport { moves, seq: Some(line.record.seq) })
    }

    /// Puts versions under aliases.
    pub(super) fn promote(
        &self,
        context: &Context,
        options: &PromoteOptions,
    ) -> Result<RetargetReport, OpsError> {
        self.retarget(context, &wishes_of(options), &options.message)
    }

    /// What a promotion would do, and what the gates say to it.
    pub(super) fn plan(
        &self,
        context: &Context,
        options: &PromoteOptions,
    ) -> Result<PlanReport, OpsError> {
        let wishes = wishes_of(options);
        check_wishes(&wishes)?;
        let mut moves = Vec::new();
        for wish in &wishes {
            permit(&self.state(), context, &wish.model, Action::Read)?;
            wish.to.iter().for_each(|to| self.prepare_facts(&wish.model, &wish.alias, to));
            // For one decision at a time: who holds it keeps out who changes something.
            let state = self.state();
            let now = context.now.max(state.time());
            permit(&state, context, &wish.model, Action::Read)?;
            let model = state.model(&wish.model).expect("permitted, so it is there");
            let mut step = plan_move(model, wish)?;
            if step.from == step.to {
                continue;
            }
            let power = Power::Move(wish.alias.clone());
            let forbidden = self.permit_power(&state, context, model, &power)?.err();
            let reason = forbidden.map(|it| it.refusal.why.join("; "));
            let decided = self.decide(&state, context, now, &step, None, reason.as_deref())?;
            step.judgement = decided.as_ref().map(|it| Box::new(it.judgement.clone()));
            let (verdict, why, next) = match (decided, reason) {
                (Some(it), _) => (it.judgement.verdict, it.why, it.next),
                (None, Some(reason)) => (Verdict::Refused, vec![reason], Vec::new()),
                (None, None) => (Verdict::Allowed, Vec::new(), Vec::new()),
            };
            moves.push(PlannedMove { step, verdict, why, next });
        }
        Ok(PlanReport { moves, policy: self.state().policy().map(|policy| policy.digest) })
    }

    /// Puts an alias back to the last version that was in it, or to the one that is named. A second
    /// rollback goes further back.
    pub(super) fn rollback(
        &self,
        context: &Context,
        options: &RollbackOptions,
    ) -> Result<RetargetReport, OpsError> {
        let RollbackOptions { model, alias, to, message } = options;
        permit(&self.state(), context, model, Action::Write)?;
        let at = match to {
            Some(reference) if reference.model != *model => {
                let why = format!("`{reference}` is of another model than `{model}`");
                return Err(OpsError::Option { what: "--to", why });
            }
            Some(reference) => reference.at.clone(),
            None => At::Version(self.version_before(model, alias)?),
        };
        let (model, alias) = (model.clone(), alias.clone());
        let wish = Wish { model, alias, to: Some(at), must: Must::Exist };
        self.move_aliases(context, &[wish], message, Direction::Back)
    }

    /// Removes an alias.
    pub(super) fn remove_alias(
        &self,
        context: &Context,
        model: &ModelName,
        alias: &AliasName,
    ) -> Result<RetargetReport, OpsError> {
        let (model, alias) = (model.clone(), alias.clone());
        let wish = Wish { model, alias, to: None, must: Must::Exist };
        self.retarget(context, &[wish], "")
    }

    fn version_before(
        &self,
        name: &ModelName,
        alias: &AliasName,
    ) -> Result<VersionNumber, OpsError> {
        let seqs: Vec<u64> = {
            let state = self.state();
            let model =
                state.model(name).ok_or_else(|| OpsError::NoModel { model: name.clone() })?;
            if !model.aliases.contains_key(alias) {
                return Err(OpsError::NoAlias { model: name.clone(), alias: alias.clone() });
            }
            model.body()?.records.seqs().to_vec()
        };
        let mut places = Vec::new();
        for seq in seqs {
            let record = self.record(seq)?;
            let (moves, direction) = moves_of(&record.op);
            for step in moves {
                if step.model == *name && step.alias == *alias {
                    follow(&mut places, step.to, direction);
                }
            }
        }
        let body = match self.state().model(name) {
            Some(model) => model.body()?,
            None => return Err(OpsError::NoModel { model: name.clone() }),
        };
        let is_good = |place: VersionNumber| {
            body.versions.get(place).is_some_and(|version| {
                !body.vettings.of(&version.manifest).is_some_and(Vetting::is_bad)
            })
        };
        let none = OpsError::NoEarlierVersion { model: name.clone(), alias: alias.clone() };
        earlier(&places, is_good).ok_or(none)
    }
}

/// Sees to it that a step moves each alias once, and not too many.
fn check_wishes(wishes: &[Wish]) -> Result<(), OpsError> {
    let wrong = |why| Err(OpsError::Option { what: "the set of moves", why });
    if MOVES_MAX < wishes.len() {
        return wrong(format!("it has {}, at most {MOVES_MAX} go in one step", wishes.len()));
    }
    let mut seen = BTreeSet::new();
    match wishes.iter().find(|wish| !seen.insert((&wish.model, &wish.alias))) {
        Some(wish) => wrong(format!("`{}/{}` is named twice", wish.model, wish.alias)),
        None => Ok(()),
    }
}

fn wishes_of(options: &PromoteOptions) -> Vec<Wish> {
    let wish = |Promotion { reference, alias }: &Promotion| Wish {
        model: reference.model.clone(),
        alias: alias.clone(),
        to: Some(reference.at.clone()),
        must: Must::Any,
    };
    options.promotions.iter().map(wish).collect()
}

/// The moves that an operation made, and which way they went.
fn moves_of(op: &Op) -> (&[Move], Direction) {
    match op {
        Op::Seal(seal) => (&seal.moves, Direction::Forward),
        Op::Retarget { moves, rollback: true, .. } => (moves, Direction::Back),
        Op::Retarget { moves, .. } => (moves, Direction::Forward),
        // Nothing else moves an alias; what was refused did not.
        Op::Refused(_)
        | Op::SetPolicy { .. }
        | Op::Approve(_)
        | Op::Revoke { .. }
        | Op::Check(_)
        | Op::Mark(_)
        | Op::BreakGlass(_)
        | Op::Init { .. }
        | Op::CreateModel { .. }
        | Op::RemoveModel { .. }
        | Op::SetAccess { .. } => (&[], Direction::Forward),
    }
}

/// Keeps the way that an alias came: a step back takes away what came after its goal.
fn follow(places: &mut Vec<VersionNumber>, to: Option<VersionNumber>, direction: Direction) {
    let Some(to) = to else { return places.clear() };
    let goal = places.iter().rposition(|place| *place == to);
    match goal.filter(|_| direction == Direction::Back) {
        Some(goal) => places.truncate(goal + 1),
        None => places.push(to),
    }
}

/// The last good place on the way that is another than where the alias is now, at its end.
fn earlier(
    places: &[VersionNumber],
    is_good: impl Fn(VersionNumber) -> bool,
) -> Option<VersionNumber> {
    let (now, way) = places.split_last()?;
    way.iter().rev().copied().find(|place| place != now && is_good(*place))
}

fn plan_move(model: &Model, wish: &Wish) -> Result<Move, OpsError> {
    let (name, alias) = (model.name.clone(), wish.alias.clone());
    match (wish.must, model.aliases.contains_key(&wish.alias)) {
        (Must::BeAbsent, true) => return Err(OpsError::AliasExists { model: name, alias }),
        (Must::Exist, false) => return Err(OpsError::NoAlias { model: name, alias }),
        (Must::Any | Must::BeAbsent, false) | (Must::Any | Must::Exist, true) => {}
    }
    let to = match &wish.to {
        None => None,
        Some(at) => match model.resolve(at)? {
            Some(number) => Some(number),
            None => return Err(OpsError::NoVersion { model: name, at: at.clone() }),
        },
    };
    Ok(model.move_to(&wish.alias, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> VersionNumber {
        text.parse().unwrap()
    }

    #[test]
    fn a_rollback_passes_by_what_is_bad_and_what_is_there_now() {
        let check = |way: &[&str], bad: &str, expected: Option<&str>| {
            let places: Vec<_> = way.iter().map(|place| number(place)).collect();
            let found = earlier(&places, |place| place.to_string() != bad);
            assert_eq!(found, expected.map(number), "{way:?} without {bad}");
        };
        check(&["v6", "v7", "v8"], "", Some("v7"));
        check(&["v6", "v7", "v8"], "v7", Some("v6"));
        check(&["v6", "v7", "v8", "v7", "v8"], "v7", Some("v6"));
        check(&["v7", "v8", "v7", "v8"], "v7", None);
        check(&["v8"], "", None);
        check(&[], "", None);
    }

    #[test]
    fn a_second_rollback_goes_further_back() {
        // `<v2` is a rollback to v2, `-` a removal.
        let way = |steps: &[&str]| {
            let mut places = Vec::new();
            for step in steps {
                let back = step.strip_prefix('<');
                let direction = if back.is_some() { Direction::Back } else { Direction::Forward };
                let to = (*step != "-").then(|| number(back.unwrap_or(step)));
                follow(&mut places, to, direction);
            }
            places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(way(&["v1", "v2", "v3"]), "v1 v2 v3");
        assert_eq!(way(&["v1", "v2", "v3", "<v2"]), "v1 v2");
        assert_eq!(way(&["v1", "v2", "v3", "<v2", "<v1"]), "v1");
        assert_eq!(way(&["v2", "v1", "v2"]), "v2 v1 v2");
        assert_eq!(way(&["v1", "v2", "<v1", "v3"]), "v1 v3");
        assert_eq!(way(&["v1", "v2", "-", "v3"]), "v3");
        assert_eq!(way(&["v2", "<v1"]), "v2 v1");
    }
}
