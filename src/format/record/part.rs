//! What the history of one model has of a record that moved aliases of several: its own part.
//!
//! Who may read one of the models need not know of the others. The record itself is in the history of the
//! store; a part is not chained and has no `check`.

use serde_json::Value;

use super::judgement::Outcome;
use super::op::{Move, Op};
use super::{Record, canonical};
use crate::format::names::ModelName;

/// Says in a line that it is not the whole record.
const PART: &str = "part";

impl Record {
    /// The line that the history of `model` has instead of the record's; `None` where that is the whole.
    pub fn part_for(&self, model: &ModelName) -> Option<Vec<u8>> {
        if self.op.models().len() <= 1 {
            return None;
        }
        let op = part_of(&self.op, model);
        let part = Self { verdict: op.verdict(), op, signature: None, ..self.clone() };
        let mut value = serde_json::to_value(part).expect("a record has text keys only");
        value[PART] = Value::Bool(true);
        let mut line = canonical::encode(&value).into_bytes();
        line.push(b'\n');
        Some(line)
    }
}

fn part_of(op: &Op, model: &ModelName) -> Op {
    let own = |moves: &[Move]| -> Vec<Move> {
        moves.iter().filter(|step| step.model == *model).cloned().collect()
    };
    let mut op = op.clone();
    match &mut op {
        Op::Retarget { moves, .. } => *moves = own(moves),
        Op::Refused(refusal) => {
            refusal.moves = own(&refusal.moves);
            refusal.why = reasons(&refusal.moves);
        }
        // These concern one model, or none.
        Op::Init { .. }
        | Op::CreateModel { .. }
        | Op::RemoveModel { .. }
        | Op::SetAccess { .. }
        | Op::Seal(_)
        | Op::SetPolicy { .. }
        | Op::Approve(_)
        | Op::Revoke { .. }
        | Op::Check(_)
        | Op::Mark(_)
        | Op::BreakGlass(_) => {}
    }
    op
}

/// Why these moves were refused, as far as it is their own fault.
fn reasons(moves: &[Move]) -> Vec<String> {
    let rules = moves.iter().filter_map(|step| step.judgement.as_ref()).flat_map(|it| &it.rules);
    let failed = rules.filter(|rule| rule.outcome == Outcome::Failed);
    let mut why: Vec<String> = failed
        .map(|rule| format!("rule `{}`: {}; it needs {}", rule.rule, rule.found, rule.needs))
        .collect();
    if why.is_empty() {
        why.push("what was asked for together with it was refused".to_owned());
    }
    why
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;
    use crate::format::names::VersionNumber;
    use crate::format::record::{Judgement, Refusal, RuleResult, Verdict};

    fn step(model: &str, outcome: Option<Outcome>) -> Move {
        let rule = |outcome| RuleResult {
            rule: "auc".parse().unwrap(),
            outcome,
            found: format!("secret of {model}"),
            needs: "> 1".to_owned(),
        };
        let judgement = outcome.map(|outcome| {
            let verdict = Verdict::Refused;
            let (rules, approvals, reason) = (vec![rule(outcome)], Vec::new(), String::new());
            Box::new(Judgement { verdict, rules, approvals, reason })
        });
        let (model, alias) = (model.parse().unwrap(), "prod".parse().unwrap());
        Move { model, alias, from: None, to: Some(VersionNumber::FIRST), judgement }
    }

    #[test]
    fn a_part_names_no_other_model() {
        let record = |op| Record { op, ..record() };
        let model = |name: &str| name.parse::<ModelName>().unwrap();
        let check = |record: &Record, name: &str, has: &[&str]| {
            let line = record.part_for(&model(name)).unwrap();
            let text = String::from_utf8(line).unwrap();
            assert!(text.contains(r#""part":true"#) && text.ends_with("}\n"), "{text}");
            assert!(!text.contains("check") && !text.contains("pii"), "{text}");
            assert!(has.iter().all(|part| text.contains(part)), "{text}, expected {has:?}");
        };
        let moves = || vec![step("a", None), step("pii", None)];
        let moved = record(Op::Retarget { moves: moves(), message: "m".into(), rollback: false });
        check(
            &moved,
            "a",
            &[r#""alias":"prod","from":null,"model":"a""#, r#""verdict":"allowed""#],
        );
        let refused = |own, other| {
            let moves = vec![step("a", Some(own)), step("pii", Some(other))];
            let (action, why) = ("move".to_owned(), vec!["of pii".to_owned()]);
            record(Op::Refused(Box::new(Refusal { action, model: None, moves, why })))
        };
        let other = refused(Outcome::Passed, Outcome::Failed);
        check(&other, "a", &["together with it was refused", r#""verdict":"refused""#]);
        check(
            &refused(Outcome::Failed, Outcome::Passed),
            "a",
            &["rule `auc`: secret of a; it needs > 1"],
        );
        let alone = record(Op::Retarget {
            moves: vec![step("a", None)],
            message: String::new(),
            rollback: false,
        });
        assert_eq!(alone.part_for(&model("a")), None, "the line itself");
    }
}
