use crate::controller::build::tests::fixtures::{built, everything, plain, settings};
use crate::controller::build::{Run, children};

/// What is said of `template` in a group of a plain run.
fn refused(template: &str) -> String {
    refused_of(&plain(&[&format!("clients.groups=[{{name: a}}, {{name: silo, template: {template}}}]")]))
}

fn refused_of(run: &Run) -> String {
    children(run, &settings()).expect_err("it is refused").to_string()
}

fn of_trainer(fields: &str) -> String {
    format!("{{spec: {{containers: [{{name: trainer, {fields}}}]}}}}")
}

#[test]
fn what_is_the_operators_is_refused_with_where_and_why() {
    for (template, sentence) in [
        (
            "{spec: {restartPolicy: OnFailure}}",
            "spec.restartPolicy is not a template's to set: the run's Jobs restart its pods; leave it out",
        ),
        (
            "{spec: {automountServiceAccountToken: true}}",
            "spec.automountServiceAccountToken is not a template's to set: no pod of a run speaks to the API server; leave it out",
        ),
        (
            &of_trainer("command: [sh]"),
            "spec.containers[trainer].command is not a template's to set: the operator says what the trainer does; leave it out",
        ),
        (
            &of_trainer("args: [server]"),
            "spec.containers[trainer].args is not a template's to set: the operator says what the trainer does, from the resource's spec; leave it out",
        ),
        (
            &of_trainer("terminationMessagePath: /x"),
            "spec.containers[trainer].terminationMessagePath is not a template's to set: the operator reads the trainer's last words there; leave it out",
        ),
        (
            &of_trainer("env: [{name: FEDTUNE_RUN_UID, value: x}]"),
            "spec.containers[trainer].env may not set FEDTUNE_RUN_UID, which the operator and Kubernetes do",
        ),
        (
            "{spec: {volumes: [{name: fedtune-work, emptyDir: {}}]}}",
            "the volume fedtune-work is the operator's; give yours a name without fedtune- before it",
        ),
        (
            "{spec: {containers: [{name: spy, volumeMounts: [{name: fedtune-tls, mountPath: /tls}]}]}}",
            "spec.containers[spy].volumeMounts may not mount fedtune-tls, which is the operator's",
        ),
        (
            "{spec: {initContainers: [{name: spy, volumeMounts: [{name: fedtune-tls, mountPath: /tls}]}]}}",
            "spec.initContainers[spy].volumeMounts may not mount fedtune-tls, which is the operator's",
        ),
        (
            &of_trainer("volumeMounts: [{name: mine, mountPath: /var/lib/fedtune/mail}]"),
            "spec.containers[trainer].volumeMounts may not mount at /var/lib/fedtune/mail: the operator's own volume is at /var/lib/fedtune",
        ),
        (
            &of_trainer("volumeMounts: [{name: mine, mountPath: /tmp/}]"),
            "spec.containers[trainer].volumeMounts may not mount at /tmp: the operator's own volume is at /tmp",
        ),
        (
            "{metadata: {finalizers: [x/y]}}",
            "metadata.finalizers is not a template's to set; it takes labels and annotations",
        ),
        ("{spec: [x]}", "a template's spec is an object with fields, and not [\"x\"]"),
        ("{metadata: {labels: {a: 1}}}", "metadata.labels holds texts, and a is 1; write it in quotes"),
        (
            "{metadata: {labels: {fedtune.io/group: a}}}",
            "metadata.labels may not change fedtune.io/group, by which the run's pods are found",
        ),
    ] {
        assert_eq!(refused(template), format!("spec.clients.groups[1].template: {sentence}"), "{template}");
    }
}

#[test]
fn a_group_is_refused_another_groups_certificate_and_everyone_the_cas_key() {
    for secret in ["mail-ca", "mail-tls-server", "mail-tls-a", "mail-join-a"] {
        let template = format!("{{spec: {{volumes: [{{name: mine, secret: {{secretName: {secret}}}}}]}}}}");
        assert_eq!(
            refused(&template),
            format!("spec.clients.groups[1].template: the Secret {secret} is not this pod's to read")
        );
    }
}

#[test]
fn the_servers_template_is_refused_where_it_stands() {
    let run = plain(&["server.template={spec: {restartPolicy: Never}}"]);
    assert!(refused_of(&run).starts_with("spec.server.template: spec.restartPolicy"), "{}", refused_of(&run));
}

#[test]
fn a_container_beside_the_trainer_may_have_a_command_and_read_its_own_volumes() {
    let template = "{spec: {volumes: [{name: mine, emptyDir: {}}], containers: [{name: helper, image: x, command: [sh], \
                    env: [{name: FEDTUNE_X, value: y}], volumeMounts: [{name: mine, mountPath: /tmp}]}]}}";
    built(&plain(&[&format!("server.template={template}")]));
}

#[test]
fn a_label_that_says_the_same_is_no_change() {
    built(&plain(&["server.template={metadata: {labels: {app.kubernetes.io/name: fedtune, mine: x}}}"]));
}

#[test]
fn the_resource_with_everything_is_refused_nothing() {
    built(&everything(&[]));
}
