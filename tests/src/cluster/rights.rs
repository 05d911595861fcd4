//! What the operator may do by the roles that are bound to it, and what it has done by the audit log.
//! Must not judge whether the two fit.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use super::{Cluster, operator};

/// One verb on one kind of object, as a role grants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    group: String,
    resource: String,
    verb: String,
}

impl Right {
    /// `resource` is `jobs`, `jobs/status` or `jobs.batch`, as `kubectl auth can-i` takes it.
    pub fn new(verb: &str, resource: &str) -> Self {
        let (whole, subresource) = resource.split_once('/').map_or((resource, None), |(whole, sub)| (whole, Some(sub)));
        let (name, group) = whole.split_once('.').unwrap_or((whole, ""));
        let resource = subresource.map_or_else(|| name.to_owned(), |subresource| format!("{name}/{subresource}"));
        Self { group: group.to_owned(), resource, verb: verb.to_owned() }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() { "" } else { "." };
        let (name, subresource) = self.resource.split_once('/').unwrap_or((&self.resource, ""));
        let slash = if subresource.is_empty() { "" } else { "/" };
        write!(f, "{} {name}{group}{}{slash}{subresource}", self.verb, self.group)
    }
}

impl Cluster {
    /// What roles grant the operator, by the bindings that name its account.
    pub fn granted_to_operator(&self) -> BTreeSet<Right> {
        let bindings = self.objects(&["clusterrolebindings,rolebindings", "--all-namespaces"]);
        let ours = bindings.iter().filter(|binding| {
            list(&binding["subjects"])
                .any(|subject| subject["name"] == operator::ACCOUNT && subject["namespace"] == operator::NAMESPACE)
        });
        ours.flat_map(|binding| self.rules_of(binding)).flat_map(|rule| rights_of(&rule)).collect()
    }

    /// What the operator has asked of the API server, whatever the answer.
    pub fn used_by_operator(&self) -> BTreeSet<Right> {
        self.audit().iter().filter(|event| operator::is_by_operator(event)).map(right_of).collect()
    }

    fn rules_of(&self, binding: &Value) -> Vec<Value> {
        let (kind, name) = (text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
        let namespace = text(&binding["metadata"]["namespace"]);
        let mut words = vec!["get", &kind, &name, "--output=json"];
        if !namespace.is_empty() {
            words.extend(["--namespace", &namespace]);
        }
        let role: Value = serde_json::from_str(&self.kubectl(&words, "").well().stdout).expect("kubectl writes JSON");
        list(&role["rules"]).cloned().collect()
    }

    fn objects(&self, words: &[&str]) -> Vec<Value> {
        let all: Vec<&str> = ["get", "--output=json"].iter().chain(words).copied().collect();
        let found: Value = serde_json::from_str(&self.kubectl(&all, "").well().stdout).expect("kubectl writes JSON");
        list(&found["items"]).cloned().collect()
    }
}

/// Each group with each resource with each verb.
fn rights_of(rule: &Value) -> Vec<Right> {
    let mut rights = Vec::new();
    for group in list(&rule["apiGroups"]).map(text) {
        for resource in list(&rule["resources"]).map(text) {
            for verb in list(&rule["verbs"]).map(text) {
                rights.push(Right { group: group.clone(), resource: resource.clone(), verb });
            }
        }
    }
    rights
}

fn right_of(event: &Value) -> Right {
    let object = &event["objectRef"];
    let (name, subresource) = (text(&object["resource"]), text(&object["subresource"]));
    let resource = if subresource.is_empty() { name } else { format!("{name}/{subresource}") };
    Right { group: text(&object["apiGroup"]), resource, verb: text(&event["verb"]) }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_right_reads_the_same_in_words_in_a_role_and_in_an_audit_log() {
        let words = Right::new("patch", "federatedfinetunes.fedtune.io/status");
        let rule = json!({"apiGroups": ["fedtune.io"], "resources": ["federatedfinetunes/status"], "verbs": ["patch"]});
        let event = json!({"verb": "patch", "objectRef": {
            "apiGroup": "fedtune.io", "resource": "federatedfinetunes", "subresource": "status",
        }});
        assert_eq!((rights_of(&rule), right_of(&event)), (vec![words.clone()], words.clone()));
        assert_eq!(words.to_string(), "patch federatedfinetunes.fedtune.io/status");
        assert_eq!(Right::new("list", "pods").to_string(), "list pods");
    }
}
