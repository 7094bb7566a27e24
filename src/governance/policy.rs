//! The text of a policy: parsed, checked, with the place of every mistake.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::Deserialize;
use toml::Spanned;

use super::access::Caller;
use super::expression::Expression;
use super::fault::{Fault, Faults};
use super::pattern::Pattern;
use super::powers::Grant;
use crate::format::duration;
use crate::format::ids::PolicyDigest;
use crate::format::names::{AliasName, Label, ModelName};
use crate::format::record::Access;

/// Longest text of a policy, in bytes.
pub const POLICY_BYTES_MAX: usize = 64 << 10;
/// Most rules that can speak about one move, so that its record has room for their results.
const RULES_MAX: usize = 64;
/// Most roles, parts that allow, and gates.
const PARTS_MAX: usize = 256;

/// The role of whoever owns the model's directory.
pub const OWNER: &str = "owner";
/// The role of everybody.
pub const EVERYONE: &str = "everyone";

/// Rules that were parsed and checked.
#[derive(Clone, Debug)]
pub struct Policy {
    pub digest: PolicyDigest,
    pub(super) roles: Vec<Role>,
    pub(super) allows: Vec<Allow>,
    pub(super) gates: Vec<Gate>,
}

/// Who has a role.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub name: String,
    /// Names, or numbers as text.
    pub users: Vec<String>,
    pub groups: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Allow {
    pub roles: Vec<String>,
    pub models: Vec<Pattern>,
    pub may: Vec<Grant>,
}

impl Allow {
    pub(super) fn is_about(&self, model: &ModelName) -> bool {
        self.models.iter().any(|pattern| pattern.matches(model.as_str()))
    }
}

/// What must be true of a version before an alias may point to it.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub models: Vec<Pattern>,
    pub aliases: Vec<Pattern>,
    pub rules: Vec<Rule>,
    /// Back to what the gate let in before, without the rules.
    pub rollback_to_allowed: bool,
    pub break_glass: Option<BreakGlassRule>,
    /// Whether the alias may be removed.
    pub may_remove: bool,
    /// Whether a version may pass of which the last result of a check is a failure.
    pub may_fail_checks: bool,
}

impl Gate {
    fn is_about(&self, model: &ModelName, alias: &AliasName) -> bool {
        let matches = |patterns: &[Pattern], name: &str| patterns.iter().any(|it| it.matches(name));
        matches(&self.models, model.as_str()) && matches(&self.aliases, alias.as_str())
    }
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub name: Label,
    pub expression: Expression,
    pub message: String,
    /// Only warned of.
    pub is_warning: bool,
}

/// Who may pass a gate in an emergency, and for how long.
#[derive(Clone, Debug)]
pub(super) struct BreakGlassRule {
    pub roles: Vec<String>,
    pub duration: SignedDuration,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    roles: BTreeMap<Spanned<String>, RoleText>,
    #[serde(default)]
    allow: Vec<AllowText>,
    #[serde(default)]
    gate: Vec<GateText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleText {
    #[serde(default)]
    users: Vec<Spanned<String>>,
    #[serde(default)]
    groups: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowText {
    roles: Vec<Spanned<String>>,
    models: Vec<Spanned<String>>,
    may: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GateText {
    models: Vec<Spanned<String>>,
    aliases: Vec<Spanned<String>>,
    #[serde(default)]
    rules: Vec<Spanned<RuleText>>,
    rollback: Option<RollbackText>,
    break_glass: Option<BreakGlassText>,
    #[serde(default)]
    removal: Unless,
    #[serde(default)]
    failing_checks: Unless,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    name: Spanned<String>,
    expr: Spanned<String>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    enforce: Enforce,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Enforce {
    #[default]
    Block,
    Warn,
}

/// What is refused unless a gate says otherwise.
#[derive(Deserialize, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Unless {
    #[default]
    Refused,
    Allowed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackText {
    to: RollbackTo,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RollbackTo {
    PreviouslyApproved,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakGlassText {
    roles: Vec<Spanned<String>>,
    needs: Needs,
    #[serde(rename = "for")]
    duration: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Needs {
    Reason,
}

impl Policy {
    /// Parses and checks a policy; an empty text has no rules.
    ///
    /// # Errors
    /// The mistakes in it, in the order of the text: at least one, at most 20.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        if POLICY_BYTES_MAX < text.len() {
            let why = format!("a policy of {} bytes, at most {POLICY_BYTES_MAX}", text.len());
            return Err(vec![Fault::of_whole(why)]);
        }
        let parsed: Text =
            toml::from_str(text).map_err(|error| vec![Fault::of_toml(text, &error)])?;
        let mut reader = Reader { faults: Faults::of(text), roles: Vec::new() };
        let roles = reader.roles(parsed.roles);
        reader.count("allow", parsed.allow.len());
        reader.count("gate", parsed.gate.len());
        let allows = parsed.allow.into_iter().map(|allow| reader.allow(allow)).collect();
        let gates = parsed.gate.into_iter().map(|gate| reader.gate(gate)).collect();
        let digest = PolicyDigest::of(text.as_bytes());
        reader.faults.unless_any(Self { digest, roles, allows, gates })
    }

    /// The roles that someone has for a model, in the order of the policy.
    ///
    /// `group` gives the number of a group that the machine knows by that name.
    pub fn roles_of<'a>(
        &'a self,
        caller: &Caller,
        model: Access,
        group: &dyn Fn(&str) -> Option<u32>,
    ) -> Vec<&'a str> {
        let mut roles = Vec::new();
        for role in &self.roles {
            let number = caller.uid.to_string();
            let is_user = role.users.iter().any(|user| *user == caller.user || *user == number);
            let is_member = |name: &String| {
                let gid = name.parse().ok().or_else(|| group(name));
                gid.is_some_and(|gid| caller.gid == gid || caller.groups.contains(&gid))
            };
            if is_user || role.groups.iter().any(is_member) {
                roles.push(role.name.as_str());
            }
        }
        if caller.uid == model.uid {
            roles.push(OWNER);
        }
        roles.push(EVERYONE);
        roles
    }

    /// Whether the gates of an alias of a model are shut at first.
    pub fn is_gated(&self, model: &ModelName, alias: &AliasName) -> bool {
        self.gates_of(model, alias).next().is_some()
    }

    /// Whether some part says who may do what to a model.
    pub fn allows_about(&self, model: &ModelName) -> bool {
        self.allows.iter().any(|allow| allow.is_about(model))
    }

    pub(super) fn gates_of(
        &self,
        model: &ModelName,
        alias: &AliasName,
    ) -> impl Iterator<Item = &Gate> {
        self.gates.iter().filter(move |gate| gate.is_about(model, alias))
    }

    /// How long someone with `roles` may pass the gates of an alias, the shortest of them.
    ///
    /// # Errors
    /// The roles that may, where the caller has none of them; none where nobody may.
    pub fn break_glass(
        &self,
        roles: &[&str],
        model: &ModelName,
        alias: &AliasName,
    ) -> Result<SignedDuration, Vec<String>> {
        let mut shortest: Option<SignedDuration> = None;
        for gate in self.gates_of(model, alias) {
            let Some(rule) = &gate.break_glass else { return Err(Vec::new()) };
            if !rule.roles.iter().any(|role| roles.contains(&role.as_str())) {
                return Err(rule.roles.clone());
            }
            shortest = Some(shortest.map_or(rule.duration, |known| known.min(rule.duration)));
        }
        shortest.ok_or_else(Vec::new)
    }

    /// Who has a role, in words.
    pub fn members(&self, role: &str) -> String {
        match (role, self.roles.iter().find(|known| known.name == role)) {
            (OWNER, _) => "the model's owner".to_owned(),
            (EVERYONE, _) => "everyone".to_owned(),
            (_, None) => "nobody".to_owned(),
            (_, Some(found)) => {
                let users = (!found.users.is_empty()).then(|| found.users.join(", "));
                let groups = (!found.groups.is_empty())
                    .then(|| format!("group {}", found.groups.join(", ")));
                let parts: Vec<String> = users.into_iter().chain(groups).collect();
                if parts.is_empty() { "nobody".to_owned() } else { parts.join("; ") }
            }
        }
    }

    /// The names of all roles that people can be given.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(|role| role.name.as_str())
    }
}

/// Turns the text into rules and gathers what is wrong.
struct Reader<'a> {
    faults: Faults<'a>,
    roles: Vec<String>,
}

impl Reader<'_> {
    fn count(&mut self, what: &str, count: usize) {
        if PARTS_MAX < count {
            self.faults.add(&(0..0), format!("{count} parts `{what}`, at most {PARTS_MAX}"));
        }
    }

    fn roles(&mut self, roles: BTreeMap<Spanned<String>, RoleText>) -> Vec<Role> {
        self.count("roles", roles.len());
        let mut made = Vec::new();
        for (name, role) in roles {
            if let Err(error) = name.get_ref().parse::<Label>() {
                self.faults.add(&name.span(), error.to_string());
            }
            if [OWNER, EVERYONE].contains(&name.get_ref().as_str()) {
                let why =
                    format!("the role `{}` is there already: choose another name", name.get_ref());
                self.faults.add(&name.span(), why);
            }
            self.roles.push(name.get_ref().clone());
            let texts =
                |texts: Vec<Spanned<String>>| texts.into_iter().map(Spanned::into_inner).collect();
            let name = name.into_inner();
            made.push(Role { name, users: texts(role.users), groups: texts(role.groups) });
        }
        self.roles.extend([OWNER.to_owned(), EVERYONE.to_owned()]);
        made
    }

    fn known_roles(&mut self, roles: Vec<Spanned<String>>) -> Vec<String> {
        for role in &roles {
            if !self.roles.contains(role.get_ref()) {
                let known = self.roles.join(", ");
                let why = format!("there is no role `{}`: expected one of {known}", role.get_ref());
                self.faults.add(&role.span(), why);
            }
        }
        roles.into_iter().map(Spanned::into_inner).collect()
    }

    fn patterns(&mut self, texts: &[Spanned<String>]) -> Vec<Pattern> {
        let mut patterns = Vec::new();
        for text in texts {
            match Pattern::parse(text.get_ref()) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => self.faults.add(&text.span(), why),
            }
        }
        patterns
    }

    fn allow(&mut self, allow: AllowText) -> Allow {
        let mut may = Vec::new();
        for text in &allow.may {
            match Grant::parse(text.get_ref()) {
                Ok(grant) => may.push(grant),
                Err(why) => self.faults.add(&text.span(), why),
            }
        }
        let (roles, models) = (self.known_roles(allow.roles), self.patterns(&allow.models));
        Allow { roles, models, may }
    }

    fn gate(&mut self, gate: GateText) -> Gate {
        if let Some(rule) = gate.rules.get(RULES_MAX) {
            let why = format!("{} rules in one gate, at most {RULES_MAX}", gate.rules.len());
            self.faults.add(&rule.span(), why);
        }
        let (models, aliases) = (self.patterns(&gate.models), self.patterns(&gate.aliases));
        let mut rules: Vec<Rule> = Vec::new();
        for rule in gate.rules {
            let span = rule.get_ref().name.span();
            let Some(rule) = self.rule(rule.into_inner()) else { continue };
            if rules.iter().any(|earlier| earlier.name == rule.name) {
                self.faults.add(&span, format!("two rules of the gate are called `{}`", rule.name));
            }
            rules.push(rule);
        }
        let break_glass = gate.break_glass.and_then(|rule| {
            let Needs::Reason = rule.needs;
            let roles = self.known_roles(rule.roles);
            let duration = self.duration(&rule.duration)?;
            Some(BreakGlassRule { roles, duration })
        });
        let may_remove = gate.removal == Unless::Allowed;
        let may_fail_checks = gate.failing_checks == Unless::Allowed;
        let rollback_to_allowed = match gate.rollback {
            None => false,
            Some(RollbackText { to: RollbackTo::PreviouslyApproved }) => true,
        };
        Gate {
            models,
            aliases,
            rules,
            rollback_to_allowed,
            break_glass,
            may_remove,
            may_fail_checks,
        }
    }

    fn rule(&mut self, rule: RuleText) -> Option<Rule> {
        let name = rule.name.get_ref().parse::<Label>();
        let name = name.map_err(|error| self.faults.add(&rule.name.span(), error.to_string())).ok();
        let expression = Expression::parse(rule.expr.get_ref()).map_err(|fault| {
            let (span, value) = (rule.expr.span(), rule.expr.get_ref());
            self.faults.add_within(&span, value, fault.offset, fault.why);
        });
        let is_warning = rule.enforce == Enforce::Warn;
        Some(Rule { name: name?, expression: expression.ok()?, message: rule.message, is_warning })
    }

    fn duration(&mut self, text: &Spanned<String>) -> Option<SignedDuration> {
        duration::parse(text.get_ref()).map_err(|why| self.faults.add(&text.span(), why)).ok()
    }
}
