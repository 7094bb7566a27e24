//! Why a rule was not fulfilled: the value that was found, and what it should have been.

use cel::common::ast::operators;
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use cel::objects::Key;
use cel::{Context, ExecutionError, Value};

use super::expression::{Expression, parts};
use super::loops;

/// Longest value that is shown, in characters.
const SHOWN_MAX: usize = 160;

/// What a rule found and what it asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Explanation {
    pub found: String,
    pub needs: String,
}

/// Applies a rule: whether it is fulfilled, and with which values.
pub(super) fn apply(rule: &Expression, context: &Context<'_, '_>) -> (bool, Explanation) {
    match rule.evaluate(context) {
        Ok(Value::Bool(fulfilled)) => (fulfilled, explain(rule, context, fulfilled)),
        Ok(value) => {
            let found = format!("{}, which is neither true nor false", show(&value));
            (false, Explanation { found, needs: rule.source.clone() })
        }
        Err(error) => {
            let found = missing(&rule.tree, context)
                .or_else(|| mismatch(culprit(&rule.tree, context), context))
                .unwrap_or_else(|| words_of(&error));
            (false, Explanation { found, needs: rule.source.clone() })
        }
    }
}

/// What two values that do not go together are.
fn mismatch(part: &IdedExpr, context: &Context<'_, '_>) -> Option<String> {
    let Expr::Call(call) = &part.expr else { return None };
    let [left, right] = &call.args[..] else { return None };
    let values =
        [left, right].map(|side| loops::resolve(side, context).ok().map(|value| show(&value)));
    let [Some(one), Some(other)] = values else { return None };
    let name = name_of(left).map(|name| format!("{name} is ")).unwrap_or_default();
    Some(format!("{name}{one}, which does not go together with {other}"))
}

fn explain(rule: &Expression, context: &Context<'_, '_>, fulfilled: bool) -> Explanation {
    let part = if fulfilled { &*rule.tree } else { culprit(&rule.tree, context) };
    let whole = || Explanation { found: fulfilled.to_string(), needs: rule.source.clone() };
    let Expr::Call(call) = &part.expr else {
        return match name_of(part) {
            Some(name) => {
                Explanation { found: format!("{name} is {fulfilled}"), needs: "true".to_owned() }
            }
            None => whole(),
        };
    };
    let ([left, right], Some(sign)) = (&call.args[..], sign_of(call)) else { return whole() };
    // What took a loop to find out is not found out again only to be shown.
    if fulfilled && (has_loop(left) || has_loop(right)) {
        return whole();
    }
    let (Ok(found), Ok(wanted)) = (loops::resolve(left, context), loops::resolve(right, context))
    else {
        return whole();
    };
    // A constant on the left is what is asked for.
    let (subject, found, sign, wanted) = match left.expr {
        Expr::Literal(_) => (right, wanted, turned(sign), found),
        _ => (left, found, sign, wanted),
    };
    let found = match name_of(subject) {
        Some(name) => format!("{name} is {}", show(&found)),
        None => show(&found),
    };
    Explanation { found, needs: format!("{sign} {}", show(&wanted)) }
}

fn has_loop(part: &IdedExpr) -> bool {
    matches!(part.expr, Expr::Comprehension(_)) || parts(part).into_iter().any(has_loop)
}

/// Of parts joined by "and", the first that is not true.
fn culprit<'a>(tree: &'a IdedExpr, context: &Context<'_, '_>) -> &'a IdedExpr {
    match &tree.expr {
        Expr::Call(call) if call.func_name == operators::LOGICAL_AND => {
            let broken =
                |part: &&IdedExpr| !matches!(loops::resolve(part, context), Ok(Value::Bool(true)));
            call.args.iter().find(broken).map_or(tree, |part| culprit(part, context))
        }
        _ => tree,
    }
}

fn sign_of(call: &CallExpr) -> Option<&'static str> {
    Some(match call.func_name.as_str() {
        operators::EQUALS => "==",
        operators::NOT_EQUALS => "!=",
        operators::LESS => "<",
        operators::LESS_EQUALS => "<=",
        operators::GREATER => ">",
        operators::GREATER_EQUALS => ">=",
        operators::IN => "in",
        _ => return None,
    })
}

fn turned(sign: &'static str) -> &'static str {
    match sign {
        "<" => ">",
        "<=" => ">=",
        ">" => "<",
        ">=" => "<=",
        "in" => "to hold",
        same => same,
    }
}

/// `metrics.auc`, `checks['fairness'].age`: a part that is a path, as it is written.
fn name_of(part: &IdedExpr) -> Option<String> {
    match &part.expr {
        Expr::Ident(name) if !name.starts_with('@') => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            Some(format!("{}.{}", name_of(&select.operand)?, select.field))
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [of, index] = &call.args[..] else { return None };
            let index = match &index.expr {
                Expr::Literal(LiteralValue::String(text)) => format!("'{}'", text.inner()),
                Expr::Literal(LiteralValue::Int(number)) => number.inner().to_string(),
                _ => return None,
            };
            Some(format!("{}[{index}]", name_of(of)?))
        }
        _ => None,
    }
}

/// The first path in `part` that leads to nothing.
fn missing(part: &IdedExpr, context: &Context<'_, '_>) -> Option<String> {
    if let Expr::Comprehension(loops) = &part.expr {
        // What is said of an element depends on the element: only the list itself can be missing.
        return missing(&loops.iter_range, context);
    }
    if name_of(part).is_some() {
        // The shortest path that is not there says most.
        for inner in parts(part) {
            if let Some(found) = missing(inner, context) {
                return Some(found);
            }
        }
        return match loops::resolve(part, context) {
            Ok(_) => None,
            Err(_) => name_of(part).map(|name| format!("there is no `{name}`")),
        };
    }
    parts(part).into_iter().find_map(|inner| missing(inner, context))
}

fn words_of(error: &ExecutionError) -> String {
    let text = match error {
        ExecutionError::NoSuchKey(key) => format!("there is no `{key}`"),
        ExecutionError::ValuesNotComparable(one, other) => {
            format!("{} cannot be compared with {}", show(one), show(other))
        }
        ExecutionError::UnsupportedBinaryOperator(_, one, other) => {
            format!("{} and {} do not go together", show(one), show(other))
        }
        other => other.to_string(),
    };
    shorten(&text)
}

/// A value as a rule would write it.
fn show(value: &Value) -> String {
    let text = match value {
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::String(text) => format!("'{text}'"),
        Value::Bool(truth) => truth.to_string(),
        Value::Null => "null".to_owned(),
        Value::List(values) => {
            let shown: Vec<String> = values.iter().take(8).map(show).collect();
            let more = if 8 < values.len() { ", …" } else { "" };
            format!("[{}{more}]", shown.join(", "))
        }
        Value::Map(map) => {
            let mut keys: Vec<String> = map.map.keys().map(show_key).collect();
            keys.sort();
            keys.truncate(8);
            format!("{{{}}}", keys.join(", "))
        }
        Value::Duration(elapsed) => show_seconds(elapsed.num_seconds()),
        Value::Timestamp(at) => at.to_rfc3339(),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
        other => format!("a {}", other.type_of()),
    };
    shorten(&text)
}

fn show_key(key: &Key) -> String {
    match key {
        Key::String(text) => text.to_string(),
        Key::Int(number) => number.to_string(),
        Key::Uint(number) => number.to_string(),
        Key::Bool(truth) => truth.to_string(),
    }
}

fn show_seconds(seconds: i64) -> String {
    let (sign, rest) = (if seconds < 0 { "-" } else { "" }, seconds.unsigned_abs());
    match (rest / 3_600, rest / 60 % 60, rest % 60) {
        (0, 0, seconds) => format!("{sign}{seconds}s"),
        (0, minutes, seconds) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes, _) => format!("{sign}{hours}h{minutes}m"),
    }
}

fn shorten(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match clean.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}
