//! Loops over long lists, quickly: what `exists`, `all`, `exists_one` and the size of a `filter` come to.
//!
//! In every round of a loop the interpreter looks each name up again and copies the element. Where the condition
//! only compares members of the element with what stays the same, its comparisons are called here instead, and the
//! value that they come to is put where the loop stood.
//!
//! Invariant V2: that value is the one that the interpreter finds. A loop in which anything is missing, or does not
//! go together, is left to it, and so are the words for what went wrong.

use std::cmp::Ordering;
use std::iter;

use cel::common::ast::operators;
use cel::common::ast::{ComprehensionExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::{CelBool, CelString};
use cel::common::value::{CowVal, Val};
use cel::{Context, ExecutionError, Value};

use super::expression::mentions;

/// The value of `tree`.
///
/// # Errors
/// Why there is none.
pub(super) fn resolve(tree: &IdedExpr, context: &Context<'_, '_>) -> Result<Value, ExecutionError> {
    let mut tree = tree.clone();
    settle(&mut tree, context);
    context.resolve(&tree)
}

/// Puts values where loops stand. Within a loop nothing is settled: names mean something else there, and so each is
/// tried once, whatever is within it.
pub(super) fn settle(tree: &mut IdedExpr, context: &Context<'_, '_>) {
    if let Some(value) = outcome(tree, context) {
        tree.expr = Expr::Literal(value);
        return;
    }
    match &mut tree.expr {
        Expr::Call(call) => {
            let target = call.target.iter_mut().map(|target| &mut **target);
            target.chain(&mut call.args).for_each(|part| settle(part, context));
        }
        Expr::Select(select) => settle(&mut select.operand, context),
        _ => {}
    }
}

/// What a loop comes to, or the size of one.
fn outcome(tree: &IdedExpr, context: &Context<'_, '_>) -> Option<LiteralValue> {
    match &tree.expr {
        Expr::Comprehension(loops) => {
            verdict(loops, context).map(|holds| LiteralValue::Boolean(holds.into()))
        }
        Expr::Call(call) if call.func_name == "size" => {
            let of = match (&call.target, &call.args[..]) {
                (Some(of), []) => &of.expr,
                (None, [of]) => &of.expr,
                _ => return None,
            };
            let Expr::Comprehension(loops) = of else { return None };
            kept(loops, context).map(|count| LiteralValue::Int(count.into()))
        }
        _ => None,
    }
}

/// What `exists`, `all` or `exists_one` says, as the parser writes them: `@result || test`, `@result && test`,
/// `test ? @result + 1 : @result`.
fn verdict(loops: &ComprehensionExpr, context: &Context<'_, '_>) -> Option<bool> {
    let Expr::Call(step) = &loops.loop_step.expr else { return None };
    let counts = matches!(loops.accu_init.expr, Expr::Literal(LiteralValue::Int(_)));
    match (step.func_name.as_str(), &step.args[..]) {
        (operators::LOGICAL_OR, [_, test]) => {
            let rounds = Rounds::of(loops, test, context)?;
            rounds.outcomes()?.find(|it| *it != Some(false)).unwrap_or(Some(false))
        }
        (operators::LOGICAL_AND, [_, test]) => {
            let rounds = Rounds::of(loops, test, context)?;
            rounds.outcomes()?.find(|it| *it != Some(true)).unwrap_or(Some(true))
        }
        (operators::CONDITIONAL, [test, ..]) if counts => {
            Some(Rounds::of(loops, test, context)?.count()? == 1)
        }
        _ => None,
    }
}

/// How many elements a `filter` keeps: `test ? @result + [element] : @result`.
fn kept(loops: &ComprehensionExpr, context: &Context<'_, '_>) -> Option<i64> {
    let Expr::Call(step) = &loops.loop_step.expr else { return None };
    let (operators::CONDITIONAL, [test, more, _]) = (step.func_name.as_str(), &step.args[..])
    else {
        return None;
    };
    let Expr::Call(more) = &more.expr else { return None };
    let [_, IdedExpr { expr: Expr::List(added), .. }] = &more.args[..] else { return None };
    let [IdedExpr { expr: Expr::Ident(name), .. }] = &added.elements[..] else { return None };
    if *name != loops.iter_var {
        return None;
    }
    Rounds::of(loops, test, context)?.count()
}

/// The rounds of a loop that go quickly.
struct Rounds<'e, 'v> {
    range: CowVal<'e, 'v>,
    test: Test<'e, 'v>,
}

impl<'e, 'v> Rounds<'e, 'v> {
    fn of(
        loops: &'e ComprehensionExpr,
        test: &'e IdedExpr,
        context: &'e Context<'_, 'v>,
    ) -> Option<Self> {
        let test = Test::of(test, &loops.iter_var, context)?;
        Some(Self { range: Value::resolve_val(&loops.iter_range, context).ok()?, test })
    }

    /// Whether each element fulfils the condition, `None` for one where that is left to the interpreter.
    fn outcomes(&self) -> Option<impl Iterator<Item = Option<bool>>> {
        let mut elements = self.range.as_iterable()?.iter();
        Some(iter::from_fn(move || elements.next().map(|element| self.test.holds(element))))
    }

    fn count(&self) -> Option<i64> {
        self.outcomes()?.try_fold(0, |count, holds| Some(count + i64::from(holds?)))
    }
}

/// A condition, with everything looked up that stays the same.
enum Test<'e, 'v> {
    Not(Box<Self>),
    And(Box<[Self; 2]>),
    Or(Box<[Self; 2]>),
    Compare(Comparison, [Operand<'e, 'v>; 2]),
    Is(Operand<'e, 'v>),
}

impl<'e, 'v> Test<'e, 'v> {
    fn of(part: &'e IdedExpr, element: &str, context: &'e Context<'_, 'v>) -> Option<Self> {
        let inner = |part| Self::of(part, element, context);
        let operand = |part| Operand::of(part, element, context);
        let call = match &part.expr {
            Expr::Call(call) if mentions(part, element) => call,
            _ => return operand(part).map(Self::Is),
        };
        match (call.func_name.as_str(), call.target.as_deref(), &call.args[..]) {
            (operators::LOGICAL_NOT, None, [one]) => Some(Self::Not(Box::new(inner(one)?))),
            (operators::LOGICAL_AND, None, [left, right]) => {
                Some(Self::And(Box::new([inner(left)?, inner(right)?])))
            }
            (operators::LOGICAL_OR, None, [left, right]) => {
                Some(Self::Or(Box::new([inner(left)?, inner(right)?])))
            }
            (name, None, [left, right]) | (name, Some(left), [right]) => {
                Some(Self::Compare(comparison(name)?, [operand(left)?, operand(right)?]))
            }
            _ => None,
        }
    }

    fn holds(&self, element: &(dyn Val + 'v)) -> Option<bool> {
        match self {
            Self::Not(test) => test.holds(element).map(|holds| !holds),
            Self::And(tests) => Some(tests[0].holds(element)? && tests[1].holds(element)?),
            Self::Or(tests) => Some(tests[0].holds(element)? || tests[1].holds(element)?),
            Self::Compare(compare, [left, right]) => {
                compare(&*left.value(element)?, &*right.value(element)?)
            }
            Self::Is(operand) => {
                operand.value(element)?.downcast_ref().map(|it: &CelBool| *it.inner())
            }
        }
    }
}

enum Operand<'e, 'v> {
    Fixed(CowVal<'e, 'v>),
    Element,
    Member(CelString<'e>),
}

impl<'e, 'v> Operand<'e, 'v> {
    fn of(part: &'e IdedExpr, element: &str, context: &'e Context<'_, 'v>) -> Option<Self> {
        let is_element =
            |part: &IdedExpr| matches!(&part.expr, Expr::Ident(name) if name == element);
        match &part.expr {
            _ if !mentions(part, element) => {
                Value::resolve_val(part, context).ok().map(Self::Fixed)
            }
            Expr::Ident(_) => Some(Self::Element),
            Expr::Select(select) if !select.test && is_element(&select.operand) => {
                Some(Self::Member(select.field.as_str().into()))
            }
            _ => None,
        }
    }

    fn value<'b>(&'b self, element: &'b (dyn Val + 'v)) -> Option<CowVal<'b, 'v>> {
        match self {
            Self::Fixed(value) => Some(CowVal::Borrowed(value.as_ref())),
            Self::Element => Some(CowVal::Borrowed(element)),
            Self::Member(name) => element.as_indexer()?.get(name).ok(),
        }
    }
}

type Comparison = fn(&dyn Val, &dyn Val) -> Option<bool>;

/// The operators and functions that say yes or no of two values.
fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        operators::EQUALS => |left, right| Some(left.equals(right)),
        operators::NOT_EQUALS => |left, right| Some(!left.equals(right)),
        operators::LESS => |left, right| order(left, right).map(Ordering::is_lt),
        operators::LESS_EQUALS => |left, right| order(left, right).map(Ordering::is_le),
        operators::GREATER => |left, right| order(left, right).map(Ordering::is_gt),
        operators::GREATER_EQUALS => |left, right| order(left, right).map(Ordering::is_ge),
        operators::IN => |left, right| right.as_container()?.contains(left).ok(),
        "contains" => |left, right| Some(text(left)?.contains(text(right)?)),
        "startsWith" => |left, right| Some(text(left)?.starts_with(text(right)?)),
        "endsWith" => |left, right| Some(text(left)?.ends_with(text(right)?)),
        _ => return None,
    })
}

fn order(left: &dyn Val, right: &dyn Val) -> Option<Ordering> {
    left.as_comparer()?.compare(right).ok()
}

fn text(value: &dyn Val) -> Option<&str> {
    value.downcast_ref::<CelString>().map(CelString::inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::expression::{Expression, visit};
    use super::super::tests::facts;
    use super::*;

    /// Whether nothing is left of the loops in `source`; its value is the interpreter's in any case.
    fn is_settled(source: &str) -> bool {
        let tree = Expression::parse(source).unwrap_or_else(|why| panic!("{source}: {why:?}")).tree;
        let facts = facts();
        let context = facts.context(&|_| true);
        assert_eq!(resolve(&tree, &context), context.resolve(&tree), "{source}");
        let mut settled = (*tree).clone();
        settle(&mut settled, &context);
        let mut has_loop = false;
        visit(&settled, &mut |part| has_loop |= matches!(part.expr, Expr::Comprehension(_)));
        !has_loop
    }

    #[test]
    fn a_loop_that_compares_members_is_settled() {
        let check = |source: &str| assert!(is_settled(source), "{source}");
        check("approvals.filter(a, a.user != sealed_by).size() >= 2");
        check("size(approvals.filter(a, a.role == 'validator' && a.age < duration('5h'))) == 1");
        check("approvals.exists(a, a.uid == 2)");
        check("!approvals.exists(a, a.uid == 9) && metrics.auc > 0.9");
        check("approvals.all(a, a.role != '' || !(a.at > now))");
        check("approvals.exists_one(a, a.user in ['ann', 'zoe'] && actor.user == 'ops')");
        check("approvals.filter(user, user.user == actor.user).size() == 0");
        check("files.exists(f, f.path.endsWith('.pkl') || f.format.startsWith('on'))");
        check("files.all(f, f.size < 5000 && !f.path.contains('..'))");
        check("datasets.exists(d, d.rows >= 3.5)");
        check("actor.roles.exists(role, role == 'oncall')");
        check("checks.exists(name, name == 'drift')");
        check("[1, 2, 3].filter(n, n > 1).size() == (true ? 2 : 0)");
        check("approvals.all(a, true)");
        check("approvals.exists(a, files.size() == 2)");
    }

    #[test]
    fn what_else_a_loop_does_is_left_to_the_interpreter() {
        let check = |source: &str| assert!(!is_settled(source), "{source}");
        check("approvals.filter(a, a.uid > 1)[0].user == 'bob'");
        check("approvals.map(a, a.uid).size() == 4");
        check("approvals.map(a, a.uid > 1, a.user).size() == 3");
        check("approvals.exists(a, a.uid + 1 == 2)");
        check("approvals.all(a, has(a.role))");
        check("approvals.all(a, files.exists(f, f.path == a.user))");
        check("approvals.exists(a, a.user)");
        check("approvals.exists(a, a.nothing == 1)");
        check("approvals.exists(a, a.uid > 'x' || a.uid == 2)");
        check("approvals.exists(a, a.uid == metrics.nowhere)");
        check("[{'a': {'b': 1}, 'b': 2}].exists(e, e.a.b == 1)");
        check("approvals.exists(a, a.uid.startsWith('x'))");
        check("metrics.auc.exists(a, a == 1)");
        check("message.exists(a, a == 'x')");
    }

    /// What a condition compares, by kind; `e` is the element.
    const OPERANDS: [&[&str]; 5] = [
        &["e.user", "e.role", "e.path", "e", "sealed_by", "'ann'", "'validator'", "'a'", "''"],
        &["e.uid", "e.size", "e.rows", "e", "2", "2u", "3.0", "metrics.n", "metrics.auc"],
        &["e.at", "now", "sealed_at", "timestamp('2026-06-01T08:00:00Z')"],
        &["e.age", "age", "duration('4h')", "duration('3h')"],
        &["e", "e.none", "metrics.none", "['ann', 2, 1.5]", "{'ann': 1}", "checks", "true", "null"],
    ];
    const SIGNS: [&str; 8] = ["==", "!=", "<", "<=", ">", ">=", "in", "+"];
    const FUNCTIONS: [&str; 3] = ["startsWith", "endsWith", "contains"];
    const RANGES: [&str; 7] = [
        "files",
        "datasets",
        "checks",
        "actor.roles",
        "[1, 2u, 'ann']",
        "message",
        "[approvals[1], params]",
    ];
    /// What is around a loop.
    const SHAPES: [&str; 13] = [
        "{}",
        "{}",
        "size({})",
        "{}.size() >= 2",
        "!{}",
        "{} && metrics.auc > 0.5",
        "metrics.auc > 0.99 || {}",
        "{}.size() + 1.5",
        "{} ? 'a' : 1",
        "[{}].exists(e, e)",
        "approvals.exists(e, {})",
        "{}.exists(e, e.uid == 2)",
        "{}[0].user == 'ann'",
    ];
    const MACROS: [&str; 4] = ["exists", "all", "exists_one", "filter"];

    fn operand(kind: usize) -> impl Strategy<Value = &'static str> {
        let any = select(OPERANDS.concat());
        prop_oneof![8 => select(OPERANDS[kind]), 1 => any]
    }

    fn conditions() -> impl Strategy<Value = String> {
        let sides = (0..OPERANDS.len()).prop_flat_map(|kind| (operand(kind), operand(kind)));
        let signed = (sides.clone(), select(&SIGNS[..]));
        let called = (sides, select(&FUNCTIONS[..]));
        let leaf = prop_oneof![
            6 => signed.prop_map(|((left, right), sign)| format!("{left} {sign} {right}")),
            2 => called.prop_map(|((left, right), name)| format!("{left}.{name}({right})")),
            1 => operand(0).prop_map(str::to_owned),
        ];
        leaf.prop_recursive(3, 8, 2, |inner| {
            let both = (inner.clone(), select(&["&&", "||"][..]), inner.clone());
            prop_oneof![
                both.prop_map(|(left, sign, right)| format!("({left}) {sign} ({right})")),
                inner.prop_map(|inner| format!("!({inner})")),
            ]
        })
    }

    /// Expressions with loops in them.
    fn expressions() -> impl Strategy<Value = String> {
        let range = prop_oneof![2 => Just("approvals"), 1 => select(&RANGES[..])];
        let parts = (select(&SHAPES[..]), range, select(&MACROS[..]), conditions());
        parts.prop_map(|(shape, range, name, condition)| {
            shape.replace("{}", &format!("{range}.{name}(e, {condition})"))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_loop_comes_to_what_the_interpreter_says(source in expressions()) {
            if Expression::parse(&source).is_ok() {
                is_settled(&source);
            }
        }
    }
}
