//! The text of a suite: which commands check a version, and what their results must be.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::fault::{Fault, Faults};
use crate::format::duration;
use crate::format::ids::BlobDigest;
use crate::format::names::{AliasName, Label};

/// Longest text of a suite, in bytes.
pub const SUITE_BYTES_MAX: usize = 64 << 10;
/// Most checks of a suite.
const CHECKS_MAX: usize = 64;
/// Most words of a command, limits of a check, and variables of its environment.
const PARTS_MAX: usize = 64;
/// How long a command may take where the suite does not say.
const TIMEOUT: Duration = Duration::from_secs(600);
/// The longest that a suite can say.
const TIMEOUT_HOURS_MAX: i64 = 24;
/// Begins the names of variables that are ours.
pub const VARIABLE_PREFIX: &str = "MODELFS_";

/// Commands that check a version.
#[derive(Clone, PartialEq, Debug)]
pub struct Suite {
    pub digest: BlobDigest,
    /// In the order of the text; no two of one name.
    pub checks: Vec<Check>,
}

/// One command, and what its result must be.
#[derive(Clone, PartialEq, Debug)]
pub struct Check {
    pub name: Label,
    /// The program and its arguments.
    pub run: Vec<String>,
    pub timeout: Duration,
    /// The alias whose version the result is compared with.
    pub against: Option<AliasName>,
    /// By metric.
    pub limits: BTreeMap<String, Limits>,
    /// Variables with these values.
    pub env: BTreeMap<String, String>,
    /// Variables that the command gets from whoever runs the suite.
    pub pass: Vec<String>,
}

/// What a metric may be.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Limits {
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// By how much it may be less, or more, than that of the version compared with.
    pub max_drop: Option<f64>,
    pub max_rise: Option<f64>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    check: Vec<Spanned<CheckText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckText {
    name: Spanned<String>,
    run: Spanned<Vec<Spanned<String>>>,
    timeout: Option<Spanned<String>>,
    against: Option<Spanned<String>>,
    #[serde(default)]
    metrics: BTreeMap<Spanned<String>, Spanned<LimitsText>>,
    #[serde(default)]
    env: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    pass: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsText {
    min: Option<Spanned<f64>>,
    max: Option<Spanned<f64>>,
    max_drop: Option<Spanned<f64>>,
    max_rise: Option<Spanned<f64>>,
}

impl Suite {
    /// Parses and checks a suite.
    ///
    /// # Errors
    /// The mistakes in it, in the order of the text: at least one, at most 20.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        if SUITE_BYTES_MAX < text.len() {
            let why = format!("a suite of {} bytes, at most {SUITE_BYTES_MAX}", text.len());
            return Err(vec![Fault::of_whole(why)]);
        }
        let parsed: Text =
            toml::from_str(text).map_err(|error| vec![Fault::of_toml(text, &error)])?;
        let mut reader = Reader { faults: Faults::of(text) };
        if parsed.check.is_empty() || CHECKS_MAX < parsed.check.len() {
            let why = format!("{} checks, expected 1 to {CHECKS_MAX}", parsed.check.len());
            reader.faults.add(&(0..0), why);
        }
        let mut checks: Vec<Check> = Vec::new();
        for each in parsed.check {
            let span = each.get_ref().name.span();
            let Some(check) = reader.check(each.into_inner()) else { continue };
            if checks.iter().any(|earlier| earlier.name == check.name) {
                reader.faults.add(&span, format!("two checks are called `{}`", check.name));
            }
            checks.push(check);
        }
        reader.faults.unless_any(Self { digest: BlobDigest::of(text.as_bytes()), checks })
    }
}

/// Turns the text into checks and gathers what is wrong.
struct Reader<'a> {
    faults: Faults<'a>,
}

impl Reader<'_> {
    fn check(&mut self, text: CheckText) -> Option<Check> {
        let CheckText { name, run, timeout, against, metrics, env, pass } = text;
        let label = name.get_ref().parse::<Label>();
        let label = label.map_err(|error| self.faults.add(&name.span(), error.to_string())).ok();
        let compares = against.is_some();
        let against = against.and_then(|alias| {
            let parsed = alias.get_ref().parse::<AliasName>();
            parsed.map_err(|error| self.faults.add(&alias.span(), error.to_string())).ok()
        });
        let timeout = timeout.map_or(TIMEOUT, |text| self.timeout(&text));
        let run = self.run(&run);
        self.count(&name.span(), "limits", metrics.len());
        self.count(&name.span(), "variables", env.len() + pass.len());
        let mut limits = BTreeMap::new();
        for (metric, text) in metrics {
            limits.insert(metric.into_inner(), self.limits(&text, compares));
        }
        env.keys().chain(&pass).for_each(|variable| self.variable(variable));
        for value in env.values().filter(|value| value.get_ref().contains('\0')) {
            self.faults.add(&value.span(), "a value cannot have a zero byte".to_owned());
        }
        let value = |(name, value): (Spanned<String>, Spanned<String>)| {
            (name.into_inner(), value.into_inner())
        };
        Some(Check {
            name: label?,
            run,
            timeout,
            against,
            limits,
            env: env.into_iter().map(value).collect(),
            pass: pass.into_iter().map(Spanned::into_inner).collect(),
        })
    }

    fn count(&mut self, span: &Range<usize>, what: &str, count: usize) {
        if PARTS_MAX < count {
            self.faults.add(span, format!("{count} {what} of one check, at most {PARTS_MAX}"));
        }
    }

    fn run(&mut self, words: &Spanned<Vec<Spanned<String>>>) -> Vec<String> {
        let list = words.get_ref();
        if list.first().is_none_or(|program| program.get_ref().is_empty()) {
            let why = "expected a program and its arguments, such as [\"python3\", \"check.py\"]";
            self.faults.add(&words.span(), why.to_owned());
        }
        self.count(&words.span(), "words", list.len());
        for word in list.iter().filter(|word| word.get_ref().contains('\0')) {
            self.faults.add(&word.span(), "a word cannot have a zero byte".to_owned());
        }
        list.iter().map(|word| word.get_ref().clone()).collect()
    }

    fn timeout(&mut self, text: &Spanned<String>) -> Duration {
        let why = match duration::parse(text.get_ref()) {
            Ok(length) if length.as_hours() < TIMEOUT_HOURS_MAX => return length.unsigned_abs(),
            Ok(_) => format!("`{}` is too long: less than a day", text.get_ref()),
            Err(why) => why,
        };
        self.faults.add(&text.span(), why);
        TIMEOUT
    }

    fn limits(&mut self, text: &Spanned<LimitsText>, compares: bool) -> Limits {
        let LimitsText { min, max, max_drop, max_rise } = text.get_ref();
        let all = [min, max, max_drop, max_rise];
        for number in all.into_iter().flatten().filter(|number| !number.get_ref().is_finite()) {
            self.faults.add(&number.span(), "expected a finite number".to_owned());
        }
        for change in [max_drop, max_rise].into_iter().flatten() {
            if *change.get_ref() < 0.0 {
                self.faults.add(&change.span(), "expected 0 or more".to_owned());
            }
            if !compares {
                let why = "compared with what? the check needs `against`, such as \"prod\"";
                self.faults.add(&change.span(), why.to_owned());
            }
        }
        if all.iter().all(|number| number.is_none()) {
            let why = "no limit: expected min, max, max_drop or max_rise";
            self.faults.add(&text.span(), why.to_owned());
        }
        let value = |number: &Option<Spanned<f64>>| number.as_ref().map(|it| *it.get_ref());
        if let (Some(low), Some(high)) = (value(min), value(max))
            && high < low
        {
            self.faults.add(&text.span(), format!("no number is >= {low} and <= {high}"));
        }
        let (min, max) = (value(min), value(max));
        Limits { min, max, max_drop: value(max_drop), max_rise: value(max_rise) }
    }

    fn variable(&mut self, name: &Spanned<String>) {
        let text = name.get_ref();
        let is_part = |byte: u8| byte == b'_' || byte.is_ascii_alphanumeric();
        let starts_well = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if !starts_well || !text.bytes().all(is_part) {
            let why = format!("`{text}` cannot be a variable: expected A-Z a-z 0-9 _");
            self.faults.add(&name.span(), why);
        } else if text.starts_with(VARIABLE_PREFIX) {
            let why = format!("variables that begin with `{VARIABLE_PREFIX}` are ours");
            self.faults.add(&name.span(), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_says_what_to_run_and_what_must_come_out() {
        let text = r#"
            [[check]]
            name = "accuracy"
            run = ["python3", "evaluate.py", "--fast"]
            timeout = "1h30m"
            against = "prod"
            metrics = { auc = { min = 0.85, max_drop = 0.01 }, latency_ms = { max = 40, max_rise = 5 } }
            env = { TZ = "UTC" }
            pass = ["CUDA_VISIBLE_DEVICES"]
            [[check]]
            name = "smoke"
            run = ["./smoke"]
        "#;
        let suite = Suite::parse(text).unwrap();
        let [accuracy, smoke] = &suite.checks[..] else { panic!("{suite:?}") };
        assert_eq!(accuracy.run, ["python3", "evaluate.py", "--fast"]);
        assert_eq!(accuracy.timeout, Duration::from_secs(5_400));
        assert_eq!(accuracy.against.as_ref().unwrap().as_str(), "prod");
        let auc = Limits { min: Some(0.85), max_drop: Some(0.01), ..Limits::default() };
        let latency = Limits { max: Some(40.0), max_rise: Some(5.0), ..Limits::default() };
        let expected = [("auc".to_owned(), auc), ("latency_ms".to_owned(), latency)];
        assert_eq!(accuracy.limits, expected.into());
        assert_eq!(accuracy.env["TZ"], "UTC");
        assert_eq!(accuracy.pass, ["CUDA_VISIBLE_DEVICES"]);
        assert_eq!((smoke.timeout, smoke.limits.len()), (TIMEOUT, 0));
        assert_eq!(suite.digest, BlobDigest::of(text.as_bytes()));
    }

    #[test]
    fn a_mistake_in_a_suite_has_its_line_and_column() {
        let check = |text: &str, place: (usize, usize), why: &str| {
            let faults = Suite::parse(text).unwrap_err();
            let first = &faults[0];
            assert_eq!((first.line, first.column), place, "{text}: {faults:?}");
            assert!(first.why.contains(why), "{text}: {first:?}, expected {why}");
        };
        let suite = |rest: &str| format!("[[check]]\nname = 'a'\nrun = ['x']\n{rest}\n");
        check("", (1, 1), "missing field `check`");
        check("check = []", (1, 1), "0 checks");
        check("check = 1", (1, 9), "invalid type");
        check("[[check]]\nname = 'a b'\nrun = ['x']\n", (2, 8), "cannot be the name");
        check("[[check]]\nname = 'a'\nrun = []\n", (3, 7), "a program and its arguments");
        check("[[check]]\nname = 'a'\nrun = ['']\n", (3, 7), "a program and its arguments");
        check("[[check]]\nname = 'a'\nrun = 'x y'\n", (3, 7), "invalid type");
        check("[[check]]\nname = 'a'\n", (1, 1), "missing field `run`");
        check("[[check]]\nname = 'a'\nrun = [\"a\\u0000\"]\n", (3, 8), "zero byte");
        check(&(suite("") + &suite("")), (6, 8), "two checks are called `a`");
        check(&suite("shell = true"), (4, 1), "unknown field `shell`");
        check(&suite("timeout = 'soon'"), (4, 11), "no length of time");
        check(&suite("timeout = '2d'"), (4, 11), "too long");
        check(&suite("against = 'v7'"), (4, 11), "reserved");
        check(&suite("metrics = { auc = 0.8 }"), (4, 19), "invalid type");
        check(&suite("metrics = { auc = {} }"), (4, 19), "no limit");
        check(&suite("metrics = { auc = { least = 1 } }"), (4, 21), "unknown field");
        check(&suite("metrics = { auc = { min = nan } }"), (4, 27), "finite");
        check(&suite("metrics = { auc = { min = 2, max = 1 } }"), (4, 19), ">= 2 and <= 1");
        check(&suite("metrics = { auc = { max_drop = 1 } }"), (4, 32), "needs `against`");
        check(
            &suite("against = 'prod'\nmetrics = { auc = { max_rise = -1 } }"),
            (5, 32),
            "0 or more",
        );
        check(&suite("env = { '1x' = 'y' }"), (4, 9), "cannot be a variable");
        check(&suite("env = { A = \"\\u0000\" }"), (4, 13), "zero byte");
        check(&suite("pass = ['MODELFS_PATH']"), (4, 9), "are ours");
        check(&suite(&"#".repeat(SUITE_BYTES_MAX)), (1, 1), "at most");
        let many = suite("").replace("['x']", &format!("[{}]", "'x',".repeat(65)));
        check(&many, (3, 7), "65 words");
    }
}
