//! How long an expression can take, and how large its values can get, before it is evaluated.
//!
//! The language always ends, but loops within loops and strings put together from strings grow fast.
//! So an upper bound of both is computed from the tree of the expression and the sizes of the facts;
//! what exceeds the limits is not evaluated. The bound counts every branch and every element.

use cel::common::ast::operators;
use cel::common::ast::{Expr, IdedExpr, LiteralValue};
use serde_json::Value as Json;

use super::expression::parts;
use super::facts::{DECLARED, Facts, VersionFacts};

/// Loops within each other.
const LOOP_NESTING_MAX: usize = 2;
/// Steps of one evaluation; about a second.
const STEPS_MAX: f64 = 10e6;
/// Weight of all values that one evaluation makes: texts by the byte, others by the item.
const WEIGHT_MAX: f64 = 64e6;
/// Steps of compiling one regular expression.
const REGEX_STEPS: f64 = 5e3;

/// Upper bounds of a value.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Elements, if one loops over it.
    count: f64,
    /// Weight of one element.
    item: f64,
    total: f64,
}

impl Size {
    fn opaque(weight: f64) -> Self {
        Self { count: weight, item: weight, total: weight }
    }

    fn list(count: f64, item: f64) -> Self {
        Self { count, item, total: count * item + 1.0 }
    }

    fn plus(self, other: Self) -> Self {
        let (count, item) = (self.count + other.count, self.item.max(other.item));
        Self { count, item, total: self.total + other.total }
    }

    fn times(self, count: f64) -> Self {
        Self { count: self.count * count, item: self.item, total: self.total * count }
    }
}

/// Bounds of evaluating something.
#[derive(Clone, Copy, Debug)]
struct Bound {
    steps: f64,
    /// Of all values made on the way.
    weight: f64,
    size: Size,
}

/// Refuses what could be slow whatever the facts are.
pub(super) fn check(tree: &IdedExpr) -> Result<(), String> {
    if LOOP_NESTING_MAX < nesting(tree) {
        return Err(format!("more than {LOOP_NESTING_MAX} loops within each other"));
    }
    Ok(())
}

fn nesting(tree: &IdedExpr) -> usize {
    let own = usize::from(matches!(tree.expr, Expr::Comprehension(_)));
    own + parts(tree).into_iter().map(nesting).max().unwrap_or(0)
}

/// Refuses to evaluate `tree` for facts so large that it would take long.
pub(super) fn check_for(tree: &IdedExpr, facts: &Facts) -> Result<(), String> {
    let bound = bound(tree, &mut Vec::new(), facts);
    if STEPS_MAX < bound.steps {
        let steps = bound.steps;
        return Err(format!("it could take {steps:.0} steps, at most {STEPS_MAX:.0}: simplify it"));
    }
    if WEIGHT_MAX < bound.weight {
        return Err("its values could get too large: simplify it".to_owned());
    }
    Ok(())
}

fn bound<'a>(tree: &'a IdedExpr, names: &mut Vec<(&'a str, Size)>, facts: &Facts) -> Bound {
    let leaf = |size: Size| Bound { steps: 1.0, weight: 0.0, size };
    match &tree.expr {
        Expr::Ident(name) => {
            let known = names.iter().rev().find(|(known, _)| known == name);
            leaf(known.map_or_else(|| size_of(name, facts), |(_, size)| *size))
        }
        Expr::Literal(LiteralValue::String(text)) => {
            leaf(Size::opaque(weight_of_text(text.inner())))
        }
        Expr::Literal(_) | Expr::Unspecified => leaf(Size::opaque(1.0)),
        Expr::Select(select) => {
            let of = bound(&select.operand, names, facts);
            Bound { steps: of.steps + 1.0, size: Size::opaque(of.size.item), ..of }
        }
        Expr::Comprehension(loops) => {
            let range = bound(&loops.iter_range, names, facts);
            let init = bound(&loops.accu_init, names, facts);
            let depth = names.len();
            names.push((&loops.iter_var, Size::opaque(range.size.item)));
            if let Some(second) = &loops.iter_var2 {
                names.push((second, Size::opaque(range.size.item)));
            }
            // The accumulator counts once at the end: a step adds to it and never doubles it.
            names.push((&loops.accu_var, Size { count: 0.0, item: 0.0, total: 0.0 }));
            let go_on = bound(&loops.loop_cond, names, facts);
            let step = bound(&loops.loop_step, names, facts);
            let made = init.size.plus(step.size.times(range.size.count));
            names.truncate(depth);
            names.push((&loops.accu_var, made));
            let result = bound(&loops.result, names, facts);
            names.truncate(depth);
            let rounds = range.size.count;
            let fixed = range.steps + init.steps + result.steps;
            Bound {
                steps: fixed + rounds * (go_on.steps + step.steps + 1.0),
                weight: range.weight + rounds * (step.weight + 1.0) + made.total + result.weight,
                size: result.size,
            }
        }
        Expr::Call(call) => {
            let inner: Vec<Bound> =
                parts(tree).into_iter().map(|part| bound(part, names, facts)).collect();
            of_call(&call.func_name, &inner)
        }
        Expr::List(_) | Expr::Map(_) | Expr::Struct(_) => {
            let inner: Vec<Bound> =
                parts(tree).into_iter().map(|part| bound(part, names, facts)).collect();
            let item = inner.iter().map(|part| part.size.total).fold(0.0, f64::max);
            let total: f64 = inner.iter().map(|part| part.size.total).sum();
            let size = Size { count: inner.len() as f64, item, total: total + 1.0 };
            Bound {
                weight: sum(&inner, |part| part.weight) + size.total,
                steps: sum(&inner, |part| part.steps) + 1.0,
                size,
            }
        }
    }
}

fn sum(parts: &[Bound], of: impl Fn(&Bound) -> f64) -> f64 {
    parts.iter().map(of).sum()
}

fn of_call(name: &str, inner: &[Bound]) -> Bound {
    let touched = sum(inner, |part| part.size.total);
    let all = inner.iter().map(|part| part.size).reduce(Size::plus).unwrap_or(Size::opaque(1.0));
    let size = match name {
        operators::INDEX => Size::opaque(inner.first().map_or(1.0, |part| part.size.item)),
        operators::ADD | operators::CONDITIONAL => all,
        "string" | "bytes" | "dyn" | "lowerAscii" | "max" | "min" => Size::opaque(touched + 32.0),
        _ => Size::opaque(1.0),
    };
    let own = match name {
        "matches" => REGEX_STEPS + touched,
        // Values are looked at as a whole by comparisons and conversions only.
        operators::INDEX | operators::LOGICAL_AND | operators::LOGICAL_OR | "size" => 1.0,
        operators::CONDITIONAL => 1.0,
        operators::ADD | operators::IN => 1.0 + touched / 4.0,
        _ => 1.0 + touched / 16.0,
    };
    Bound {
        steps: sum(inner, |part| part.steps) + own,
        weight: sum(inner, |part| part.weight) + size.total,
        size,
    }
}

fn weight_of_text(text: &str) -> f64 {
    1.0 + text.len() as f64
}

fn size_of(name: &str, facts: &Facts) -> Size {
    let checks = || {
        let weights =
            facts.checks.iter().map(|check| 32.0 + check.metrics.values().map(weight).sum::<f64>());
        Size::list(facts.checks.len() as f64, weights.fold(0.0, f64::max))
    };
    match name {
        "approvals" => {
            let weights = facts
                .approvals
                .iter()
                .map(|a| 64.0 + weight_of_text(&a.user) + weight_of_text(&a.message));
            Size::list(facts.approvals.len() as f64, weights.fold(0.0, f64::max))
        }
        "checks" => checks(),
        "current" => facts.current.as_ref().map_or(Size::opaque(1.0), |version| whole(version)),
        _ => of_version(name, &facts.version).unwrap_or(Size::opaque(512.0)),
    }
}

fn of_version(name: &str, version: &VersionFacts) -> Option<Size> {
    match name {
        "files" => {
            let weights = version.files.iter().map(|file| 100.0 + weight_of_text(&file.path));
            Some(Size::list(version.files.len() as f64, weights.fold(0.0, f64::max)))
        }
        "message" => Some(Size::opaque(weight_of_text(&version.message))),
        _ => version.declared.get(name).map(size_of_json),
    }
}

fn size_of_json(value: &Json) -> Size {
    let of = |count: usize, weights: &mut dyn Iterator<Item = f64>| {
        let (mut item, mut total) = (0.0_f64, 1.0);
        weights.for_each(|weight| {
            item = item.max(weight);
            total += weight;
        });
        Size { count: count as f64, item, total }
    };
    match value {
        Json::Array(values) => of(values.len(), &mut values.iter().map(weight)),
        Json::Object(fields) => {
            of(fields.len(), &mut fields.iter().map(|(k, v)| weight_of_text(k) + weight(v)))
        }
        _ => Size::opaque(weight(value)),
    }
}

fn whole(version: &VersionFacts) -> Size {
    let names = ["files", "message"].into_iter().chain(DECLARED);
    let weights = names.filter_map(|name| of_version(name, version)).map(|size| size.total);
    let total = 512.0 + weights.sum::<f64>();
    Size::opaque(total)
}

fn weight(value: &Json) -> f64 {
    match value {
        Json::String(text) => weight_of_text(text),
        Json::Array(_) | Json::Object(_) => size_of_json(value).total,
        Json::Null | Json::Bool(_) | Json::Number(_) => 1.0,
    }
}
