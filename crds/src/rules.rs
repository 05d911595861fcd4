//! Builders of the CEL rules that fields share: a bound, a pattern, a choice.
//! Must not know a field: each caller says in its sentence what its own value is.
//!
//! A sentence says what would be right ("a LoRA rank is a whole number from 1 to 1024"). Whoever shows it puts path and
//! value before it, as the API server does, so no sentence repeats them.

use kube::core::Rule;
use schemars::{Schema, SchemaGenerator, json_schema};

/// What the resource accepts as a number that is not an integer: not negative, without sign, `inf` or `nan`.
pub(crate) const DECIMAL: &str = "^[0-9]+([.][0-9]+)?([eE][+-]?[0-9]{1,2})?$";

/// A whole number of `low..=high`; `what` names it, article included.
pub(crate) fn between(low: i64, high: i64, what: &str) -> Rule {
    Rule::new(format!("self >= {low} && self <= {high}"))
        .message(format!("{what} is a whole number from {low} to {high}").as_str())
}

/// A text that matches `pattern`, a regular expression without quotes and backslashes.
pub(crate) fn matches(pattern: &str, sentence: &str) -> Rule {
    Rule::new(format!("self.matches('{pattern}')")).message(sentence)
}

/// A decimal number above 0.
pub(crate) fn above_zero(what: &str) -> Rule {
    decimal("double(self) > 0.0", &format!("{what} is a number above 0"))
}

/// A decimal number from 0 to 1, both included.
pub(crate) fn zero_to_one(what: &str) -> Rule {
    decimal("double(self) <= 1.0", &format!("{what} is a number from 0 to 1"))
}

/// A decimal number from 0 to 1, 1 excluded.
pub(crate) fn below_one(what: &str) -> Rule {
    decimal("double(self) < 1.0", &format!("{what} is a number from 0 up to, but not, 1"))
}

/// A decimal number above 0 and at most 1.
pub(crate) fn share(what: &str) -> Rule {
    decimal("double(self) > 0.0 && double(self) <= 1.0", &format!("{what} is a number above 0 and at most 1"))
}

/// A text that is no number is the type's own rule, so this one stays silent then.
fn decimal(condition: &str, sentence: &str) -> Rule {
    Rule::new(format!("!self.matches('{DECIMAL}') || ({condition})")).message(sentence)
}

/// A union: one of `keys` is set, no other.
pub(crate) fn exactly_one(keys: &[&str]) -> Rule {
    Rule::new(format!("{} == 1", count(keys))).message(format!("set exactly one of {}", keys.join(", ")).as_str())
}

/// Alternatives that may all be left out.
pub(crate) fn at_most_one(keys: &[&str]) -> Rule {
    Rule::new(format!("{} <= 1", count(keys))).message(format!("set at most one of {}", keys.join(", ")).as_str())
}

/// Parts of which one is enough.
pub(crate) fn at_least_one(keys: &[&str]) -> Rule {
    Rule::new(format!("{} >= 1", count(keys))).message(format!("set at least one of {}", keys.join(", ")).as_str())
}

fn count(keys: &[&str]) -> String {
    let present: Vec<String> = keys.iter().map(|key| format!("has(self.{key})")).collect();
    format!("[{}].filter(present, present).size()", present.join(", "))
}

/// Of the resource, read at its root. Children's names begin with it, and `<name>-clients-<group>-<index>` must fit
/// into the 63 characters of a label.
pub(crate) fn resource_name() -> Rule {
    dns_label(
        "self.metadata.name",
        34,
        "metadata.name has at most 34 small letters, digits and -, begins with a letter and ends with a letter or a digit",
    )
}

/// `text` is a DNS label of at most `length` characters, as Kubernetes' RFC 1035 names are.
pub(crate) fn dns_label(text: &str, length: usize, sentence: &str) -> Rule {
    Rule::new(format!("{text}.size() <= {length} && {text}.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")).message(sentence)
}

/// The name of another object of the namespace.
pub(crate) fn object_name() -> Rule {
    matches(
        "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "an object's name has small letters, digits, - and ., and begins and ends with a letter or a digit",
    )
}

/// The schema of a map from text to text with at most `ENTRIES` entries, each of at most `LENGTH` characters.
pub(crate) fn map_of_texts<const ENTRIES: usize, const LENGTH: usize>(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": ENTRIES,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": LENGTH},
    })
}
