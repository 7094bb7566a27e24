//! What a check said of a version, and whether that is good enough.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::suite::Limits;

/// Longest result of a check, in bytes.
pub const MEASUREMENT_BYTES_MAX: usize = 12 << 10;
/// Most reasons that a check can give.
const REASONS_MAX: usize = 16;
/// Longest reason, in characters.
const REASON_CHARACTERS_MAX: usize = 240;

/// Members of a result that are no metrics.
const PASSED: &str = "passed";
const WHY: &str = "why";
const METRICS: &str = "metrics";

/// The result of a check, as its command or somebody else gives it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Measurement {
    /// What it says itself, if it does.
    pub passed: Option<bool>,
    /// Its own reasons, a sentence each.
    pub why: Vec<String>,
    pub metrics: BTreeMap<String, Value>,
}

impl Measurement {
    /// Parses a result: one JSON object. `passed` (true or false) and `why` (a text or a list of texts)
    /// mean themselves; the metrics are the members of `metrics`, or, without that, all other members.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if MEASUREMENT_BYTES_MAX < text.len() {
            let bytes = text.len();
            return Err(format!("it has {bytes} bytes, at most {MEASUREMENT_BYTES_MAX}"));
        }
        let mut members: Map<String, Value> = match serde_json::from_slice(text) {
            Ok(Value::Object(members)) => members,
            Ok(_) => return Err("it is JSON, but no object".to_owned()),
            Err(error) => return Err(format!("it is not JSON: {error}")),
        };
        let passed = match members.remove(PASSED) {
            None | Some(Value::Null) => None,
            Some(Value::Bool(passed)) => Some(passed),
            Some(_) => return Err(format!("its `{PASSED}` is neither true nor false")),
        };
        let why = match members.remove(WHY) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(reason)) => vec![reason],
            Some(Value::Array(reasons)) if reasons.iter().all(Value::is_string) => {
                reasons.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(_) => return Err(format!("its `{WHY}` is no text, nor a list of texts")),
        };
        let metrics = match members.remove(METRICS) {
            None => members,
            Some(Value::Object(metrics)) if members.is_empty() => metrics,
            Some(Value::Object(_)) => {
                let other = members.keys().next().expect("it is not empty");
                return Err(format!("it has `{METRICS}`, and `{other}` beside it"));
            }
            Some(_) => return Err(format!("its `{METRICS}` is no object")),
        };
        let why = why.iter().take(REASONS_MAX).map(|reason| shorten(reason)).collect();
        Ok(Self { passed, why, metrics: metrics.into_iter().collect() })
    }

    /// Why the version does not pass, a sentence each; none where it does. `other` is what the same check
    /// said of the version compared with, and how that one is called.
    pub fn failures(
        &self,
        limits: &BTreeMap<String, Limits>,
        other: Option<(&Self, &str)>,
    ) -> Vec<String> {
        let mut failures = Vec::new();
        if self.passed == Some(false) {
            failures.extend(self.why.iter().cloned());
            if failures.is_empty() {
                failures.push("it says so itself".to_owned());
            }
        }
        for (name, limits) in limits {
            match number(&self.metrics, name) {
                Ok(value) => failures.extend(of_limits(name, value, limits, other)),
                Err(why) => failures.push(why),
            }
        }
        failures
    }
}

fn number(metrics: &BTreeMap<String, Value>, name: &str) -> Result<f64, String> {
    match metrics.get(name) {
        None => Err(format!("there is no `{name}` in the result")),
        Some(Value::Number(number)) => Ok(number.as_f64().expect("a JSON number is finite")),
        Some(other) => {
            Err(format!("`{name}` is {}, which is no number", shorten(&other.to_string())))
        }
    }
}

fn of_limits(
    name: &str,
    value: f64,
    limits: &Limits,
    other: Option<(&Measurement, &str)>,
) -> Vec<String> {
    let Limits { min, max, max_drop, max_rise } = *limits;
    let mut failures = Vec::new();
    if let Some(min) = min.filter(|min| value < *min) {
        failures.push(format!("`{name}` is {value}; it needs >= {min}"));
    }
    if let Some(max) = max.filter(|max| *max < value) {
        failures.push(format!("`{name}` is {value}; it needs <= {max}"));
    }
    let Some((other, called)) = other.filter(|_| max_drop.is_some() || max_rise.is_some()) else {
        return failures;
    };
    match number(&other.metrics, name) {
        Err(why) => failures.push(format!("cannot compare with {called}: {why}")),
        Ok(before) => {
            let small = |change: f64, most: f64| {
                // What rounding adds to a difference is not held against it.
                change <= most + 4.0 * f64::EPSILON * value.abs().max(before.abs())
            };
            if let Some(most) = max_drop.filter(|most| !small(before - value, *most)) {
                failures.push(format!(
                    "`{name}` is {value}, and {before} in {called}; it may drop by {most}"
                ));
            }
            if let Some(most) = max_rise.filter(|most| !small(value - before, *most)) {
                failures.push(format!(
                    "`{name}` is {value}, and {before} in {called}; it may rise by {most}"
                ));
            }
        }
    }
    failures
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(REASON_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Measurement {
        Measurement::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_result_is_an_object_of_metrics() {
        let flat = parsed(r#"{"auc": 0.9, "label": "x", "passed": true, "why": "all well"}"#);
        assert_eq!((flat.passed, flat.why.len(), flat.metrics.len()), (Some(true), 1, 2));
        assert_eq!(parsed(r#"{"metrics": {"auc": 0.9, "passed": 1}}"#).metrics.len(), 2);
        assert_eq!(parsed(r#"{"passed": false, "why": ["a", "b"]}"#).why, ["a", "b"]);
        assert_eq!(parsed("{}"), Measurement::default());
        let check = |text: &str, why: &str| {
            let found = Measurement::parse(text.as_bytes()).unwrap_err();
            assert!(found.contains(why), "{text}: {found}, expected {why}");
        };
        check("", "not JSON");
        check("{\"auc\": NaN}", "not JSON");
        check("[1]", "no object");
        check("0.9", "no object");
        check("{\"passed\": 1}", "neither true nor false");
        check("{\"why\": 1}", "no text");
        check("{\"why\": [1]}", "no text");
        check("{\"metrics\": 1}", "no object");
        check("{\"metrics\": {}, \"auc\": 1}", "`auc` beside it");
        check(&" ".repeat(MEASUREMENT_BYTES_MAX + 1), "at most");
        let long = parsed(&format!("{{\"why\": \"{}\"}}", "é".repeat(5_000)));
        assert_eq!(long.why[0].chars().count(), REASON_CHARACTERS_MAX + 1);
    }

    #[test]
    fn limits_hold_or_say_why_not() {
        let check = |result: &str, limits: &str, before: &str, expected: &[&str]| {
            let text = format!(
                "[[check]]\nname = 'a'\nrun = ['x']\nagainst = 'prod'\nmetrics = {{ {limits} }}\n"
            );
            let suite = super::super::Suite::parse(&text).unwrap();
            let before = (!before.is_empty()).then(|| parsed(before));
            let other = before.as_ref().map(|before| (before, "m/prod (v1)"));
            let failures = parsed(result).failures(&suite.checks[0].limits, other);
            assert_eq!(failures.len(), expected.len(), "{result} {limits}: {failures:?}");
            for (found, expected) in failures.iter().zip(expected) {
                assert!(found.contains(expected), "{found}, expected {expected}");
            }
        };
        check(r#"{"a": 0.9}"#, "a = { min = 0.9, max = 0.9 }", "", &[]);
        check(r#"{"a": 0.89}"#, "a = { min = 0.9 }", "", &["`a` is 0.89; it needs >= 0.9"]);
        check(r#"{"a": 7}"#, "a = { max = 5 }", "", &["`a` is 7; it needs <= 5"]);
        check("{}", "a = { max = 5 }", "", &["there is no `a`"]);
        check(r#"{"a": "7"}"#, "a = { max = 5 }", "", &["`a` is \"7\", which is no number"]);
        check(r#"{"a": true}"#, "a = { max = 5 }", "", &["no number"]);
        check(r#"{"a": 7, "passed": false}"#, "a = { max = 9 }", "", &["says so itself"]);
        check(
            r#"{"a": 7, "passed": false, "why": "bad"}"#,
            "a = { max = 5 }",
            "",
            &["bad", "<= 5"],
        );
        check(r#"{"a": 7, "passed": true}"#, "a = { max = 5 }", "", &["<= 5"]);
        // Nothing to compare with yet.
        check(r#"{"a": 1}"#, "a = { max_drop = 0 }", "", &[]);
        check(r#"{"a": 0.90}"#, "a = { max_drop = 0.01 }", r#"{"a": 0.91}"#, &[]);
        check(r#"{"a": 0.9}"#, "a = { max_drop = 0 }", r#"{"a": 0.9}"#, &[]);
        check(
            r#"{"a": 0.8}"#,
            "a = { max_drop = 0.01 }",
            r#"{"a": 0.91}"#,
            &["0.91 in m/prod (v1)"],
        );
        check(r#"{"a": 0.99}"#, "a = { max_drop = 0.01 }", r#"{"a": 0.9}"#, &[]);
        check(r#"{"a": 50}"#, "a = { max_rise = 5 }", r#"{"a": 44}"#, &["it may rise by 5"]);
        check(r#"{"a": 49}"#, "a = { max_rise = 5 }", r#"{"a": 44}"#, &[]);
        check(r#"{"a": 49}"#, "a = { max_rise = 5 }", "{}", &["cannot compare with m/prod (v1)"]);
        check(r#"{"a": 49}"#, "a = { max = 50 }", "{}", &[]);
        check(r#"{"a": 1e308}"#, "a = { max = 5 }", "", &["<= 5"]);
    }
}
