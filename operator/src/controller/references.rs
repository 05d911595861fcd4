//! The objects of others that a run refers to: Secrets, `ConfigMap`s and claims in its spec and its templates.
//! Must not ask whether they exist.

use fedtune_crds::{
    source::{S3, SecretKeyRef, Source},
    template::Template,
};
use serde_json::Value;

use super::build::Run;

/// An object that must exist before pods can start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Its kind.
    pub kind: Referred,
    /// Its name.
    pub name: String,
    /// Where it is named, as in `spec.cache.existingClaim`.
    pub path: String,
}

/// Kinds of objects that are referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Referred {
    /// Credentials.
    Secret,
    /// Files or settings of the user's own.
    ConfigMap,
    /// A volume.
    Claim,
}

impl Referred {
    /// The kind as Kubernetes calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Claim => "PersistentVolumeClaim",
        }
    }
}

/// What `run` refers to, each object once, with the first place that names it.
pub fn references(run: &Run) -> Vec<Reference> {
    let mut found = Found::default();
    let spec = &run.spec;
    found.source("spec.model.source", &spec.model.source);
    if let Some(adapter) = &spec.tuning.lora.initial_adapter {
        found.source("spec.tuning.lora.initialAdapter", adapter);
    }
    found.source("spec.data.source", &spec.data.source);
    if let Some(public) = spec.data.public.as_ref().and_then(|public| public.source.as_ref()) {
        found.source("spec.data.public.source", public);
    }
    if let Some(evaluation) = &spec.data.evaluation.source {
        found.source("spec.data.evaluation.source", evaluation);
    }
    if let Some(cache) = &spec.cache {
        found.claim("spec.cache.existingClaim", cache.existing_claim.as_deref());
    }
    found.claim("spec.server.checkpoint.existingClaim", spec.server.checkpoint.existing_claim.as_deref());
    if let Some(output) = &spec.output {
        let claim = output.volume.as_ref().map(|volume| volume.existing_claim.as_str());
        found.claim("spec.output.volume.existingClaim", claim);
        if let Some(s3) = &output.s3 {
            found.s3("spec.output.s3", s3);
        }
    }
    found.template("spec.server.template", spec.server.template.as_ref());
    for group in &spec.clients.groups {
        let path = format!("spec.clients.groups[{}]", group.name);
        found.claim(
            &format!("{path}.state.existingClaim"),
            group.state.as_ref().map(|state| state.existing_claim.as_str()),
        );
        if let Some(data) = &group.data {
            found.source(&format!("{path}.data.source"), &data.source);
        }
        found.template(&format!("{path}.template"), group.template.as_ref());
    }
    found.0
}

#[derive(Default)]
struct Found(Vec<Reference>);

impl Found {
    fn push(&mut self, kind: Referred, name: &str, path: &str) {
        if !self.0.iter().any(|known| known.kind == kind && known.name == name) {
            self.0.push(Reference { kind, name: name.to_owned(), path: path.to_owned() });
        }
    }

    fn claim(&mut self, path: &str, name: Option<&str>) {
        if let Some(name) = name {
            self.push(Referred::Claim, name, path);
        }
    }

    fn secret(&mut self, path: &str, secret: Option<&SecretKeyRef>) {
        if let Some(secret) = secret {
            self.push(Referred::Secret, &secret.name, path);
        }
    }

    fn source(&mut self, path: &str, source: &Source) {
        let Source { path: _, hugging_face, http: _, s3 } = source;
        if let Some(hub) = hugging_face {
            self.secret(&format!("{path}.huggingFace.tokenSecretRef"), hub.token_secret_ref.as_ref());
        }
        if let Some(s3) = s3 {
            self.s3(&format!("{path}.s3"), s3);
        }
    }

    fn s3(&mut self, path: &str, s3: &S3) {
        self.secret(&format!("{path}.accessKeyIdSecretRef"), s3.access_key_id_secret_ref.as_ref());
        self.secret(&format!("{path}.secretAccessKeySecretRef"), s3.secret_access_key_secret_ref.as_ref());
    }

    /// What a pod cannot start without: volumes, and environment variables, unless they say that it may be missing.
    fn template(&mut self, path: &str, template: Option<&Template>) {
        let Some(spec) = template.and_then(|template| template.0.get("spec")) else { return };
        for (index, volume) in items(spec, "/volumes").enumerate() {
            self.volume(&format!("{path}.spec.volumes[{index}]"), volume);
        }
        for container in items(spec, "/containers").chain(items(spec, "/initContainers")) {
            for entry in items(container, "/env") {
                self.maybe(Referred::Secret, entry, "/valueFrom/secretKeyRef", "name", path);
                self.maybe(Referred::ConfigMap, entry, "/valueFrom/configMapKeyRef", "name", path);
            }
            for entry in items(container, "/envFrom") {
                self.maybe(Referred::Secret, entry, "/secretRef", "name", path);
                self.maybe(Referred::ConfigMap, entry, "/configMapRef", "name", path);
            }
        }
    }

    fn volume(&mut self, path: &str, volume: &Value) {
        self.maybe(Referred::Secret, volume, "/secret", "secretName", path);
        self.maybe(Referred::ConfigMap, volume, "/configMap", "name", path);
        self.maybe(Referred::Claim, volume, "/persistentVolumeClaim", "claimName", path);
        for source in items(volume, "/projected/sources") {
            self.maybe(Referred::Secret, source, "/secret", "name", path);
            self.maybe(Referred::ConfigMap, source, "/configMap", "name", path);
        }
    }

    fn maybe(&mut self, kind: Referred, value: &Value, pointer: &str, field: &str, path: &str) {
        let Some(reference) = value.pointer(pointer) else { return };
        let optional = reference.get("optional").and_then(Value::as_bool).unwrap_or(false);
        if let Some(name) = reference.get(field).and_then(Value::as_str).filter(|_| !optional) {
            self.push(kind, name, path);
        }
    }
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(spec: &str) -> Run {
        let yaml = format!(
            "apiVersion: fedtune.io/v1alpha1\nkind: FederatedFineTune\nmetadata: {{name: r}}\nspec: {{framework: {{fedLLM: {{}}}}, {spec}}}"
        );
        fedtune_crds::load(&yaml, &[]).unwrap()
    }

    fn named(spec: &str) -> Vec<(&'static str, String, String)> {
        references(&run(spec)).into_iter().map(|found| (found.kind.as_str(), found.name, found.path)).collect()
    }

    const BARE: &str = "model: {source: {path: /m}}, data: {source: {path: /d}, format: CSV}";

    #[test]
    fn a_plain_run_refers_to_nothing() {
        assert_eq!(named(BARE), []);
    }

    #[test]
    fn what_pods_cannot_start_without_is_found_once_with_its_place() {
        let template = "template: {spec: {volumes: [{name: a, persistentVolumeClaim: {claimName: mail}}, {name: b, secret: {secretName: key}}, \
             {name: c, configMap: {name: maybe, optional: true}}], containers: [{name: trainer, envFrom: [{secretRef: {name: key}}]}]}}";
        let spec =
            format!("{BARE}, clients: {{groups: [{{name: silo, {template}}}]}}, cache: {{existingClaim: shared}}");
        let volumes = "spec.clients.groups[silo].template.spec.volumes";
        assert_eq!(
            named(&spec),
            [
                ("PersistentVolumeClaim", "shared".to_owned(), "spec.cache.existingClaim".to_owned()),
                ("PersistentVolumeClaim", "mail".to_owned(), format!("{volumes}[0]")),
                ("Secret", "key".to_owned(), format!("{volumes}[1]")),
            ]
        );
    }
}
