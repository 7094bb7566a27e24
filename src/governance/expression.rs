//! Expressions of a policy: the Common Expression Language, with names checked and costs bounded.
//!
//! Source: the language definition of CEL (cel-spec); parsed and evaluated by the crate `cel`.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue};
use cel::{Context, Env, ExecutionError, Value};

use super::facts::NAMES;
use super::{bounds, loops};

/// Longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 2_048;
/// Deepest nesting that is parsed.
const NESTING_MAX: u16 = 32;

/// Functions of the language that rules may use.
const FUNCTIONS: [&str; 31] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "lowerAscii",
    "matches",
    "max",
    "min",
    "optMap",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
    "@in",
    "@not_strictly_false",
];

/// What is wrong with the text of an expression.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExpressionFault {
    /// Characters before the mistake, where it has a place.
    pub offset: Option<usize>,
    pub why: String,
}

/// A parsed expression.
#[derive(Clone)]
pub struct Expression {
    pub(super) source: String,
    pub(super) tree: Arc<IdedExpr>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({})", self.source)
    }
}

/// The language as rules know it: no optional values.
pub(super) fn environment() -> Arc<Env> {
    static ENVIRONMENT: OnceLock<Arc<Env>> = OnceLock::new();
    Arc::clone(ENVIRONMENT.get_or_init(|| Arc::new(Env::stdlib().with_optional_support(false))))
}

impl Expression {
    /// Parses an expression, and checks the names and functions in it.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(source: &str) -> Result<Self, ExpressionFault> {
        if EXPRESSION_BYTES_MAX < source.len() {
            let bytes = source.len();
            let why = format!("an expression of {bytes} bytes, at most {EXPRESSION_BYTES_MAX}");
            return Err(ExpressionFault { offset: None, why });
        }
        let parser = environment().parser().max_recursion_depth(NESTING_MAX);
        let tree = parser.parse(source).map_err(|errors| {
            let first = errors.errors.first();
            let offset = first.and_then(|error| offset_of(source, error.pos));
            let why =
                first.map_or_else(|| "it cannot be parsed".to_owned(), |error| error.msg.clone());
            ExpressionFault { offset, why: why.lines().next().unwrap_or_default().to_owned() }
        })?;
        let mut bound = Vec::new();
        check_names(&tree, &mut bound).map_err(|why| ExpressionFault { offset: None, why })?;
        bounds::check(&tree).map_err(|why| ExpressionFault { offset: None, why })?;
        Ok(Self { source: source.to_owned(), tree: Arc::new(tree) })
    }

    /// The value for these facts.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn evaluate(&self, context: &Context<'_, '_>) -> Result<Value, ExecutionError> {
        loops::resolve(&self.tree, context)
    }

    /// The texts in it: names of roles, checks, formats.
    pub(super) fn texts(&self) -> BTreeSet<String> {
        let mut texts = BTreeSet::new();
        visit(&self.tree, &mut |part| {
            if let Expr::Literal(LiteralValue::String(text)) = &part.expr {
                texts.insert(text.inner().to_owned());
            }
        });
        texts
    }

    /// Whether it looks at `name`.
    pub(super) fn mentions(&self, name: &str) -> bool {
        mentions(&self.tree, name)
    }
}

/// Whether `tree` looks at `name`.
pub(super) fn mentions(tree: &IdedExpr, name: &str) -> bool {
    matches!(&tree.expr, Expr::Ident(ident) if ident == name)
        || parts(tree).into_iter().any(|part| mentions(part, name))
}

fn offset_of(source: &str, (line, column): (isize, isize)) -> Option<usize> {
    let (line, column) = (usize::try_from(line).ok()?, usize::try_from(column).ok()?);
    let before: usize =
        source.split_inclusive('\n').take(line.checked_sub(1)?).map(|l| l.chars().count()).sum();
    Some(before + column.saturating_sub(1))
}

/// The parts that an expression is made of directly.
pub(super) fn parts(tree: &IdedExpr) -> Vec<&IdedExpr> {
    match &tree.expr {
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::Comprehension(loops) => vec![
            &loops.iter_range,
            &loops.accu_init,
            &loops.loop_cond,
            &loops.loop_step,
            &loops.result,
        ],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => map.entries.iter().flat_map(parts_of_entry).collect(),
        Expr::Struct(made) => made.entries.iter().flat_map(parts_of_entry).collect(),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn parts_of_entry(entry: &IdedEntryExpr) -> Vec<&IdedExpr> {
    match &entry.expr {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// Calls `each` with every part, the whole first.
pub(super) fn visit<'a>(tree: &'a IdedExpr, each: &mut impl FnMut(&'a IdedExpr)) {
    each(tree);
    for part in parts(tree) {
        visit(part, each);
    }
}

fn check_names(tree: &IdedExpr, bound: &mut Vec<String>) -> Result<(), String> {
    match &tree.expr {
        Expr::Ident(name) if bound.contains(name) || NAMES.contains(&name.as_str()) => Ok(()),
        Expr::Ident(name) => {
            Err(format!("there is nothing called `{name}`: expected one of {}", NAMES.join(", ")))
        }
        Expr::Struct(_) => Err("a rule cannot make an object: expected a condition".to_owned()),
        Expr::Comprehension(loops) => {
            check_names(&loops.iter_range, bound)?;
            let depth = bound.len();
            check_names(&loops.accu_init, bound)?;
            bound.push(loops.iter_var.clone());
            bound.extend(loops.iter_var2.clone());
            bound.push(loops.accu_var.clone());
            let within = [&loops.loop_cond, &loops.loop_step, &loops.result];
            let checked = within.into_iter().try_for_each(|part| check_names(part, bound));
            bound.truncate(depth);
            checked
        }
        Expr::Call(call) => {
            let name = call.func_name.as_str();
            let is_operator = name.contains('_') && !name.starts_with('@');
            if !is_operator && !FUNCTIONS.contains(&name) {
                return Err(format!("there is no function `{name}` in rules"));
            }
            parts(tree).into_iter().try_for_each(|part| check_names(part, bound))
        }
        _ => parts(tree).into_iter().try_for_each(|part| check_names(part, bound)),
    }
}
